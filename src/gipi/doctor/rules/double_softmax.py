"""Probabilities are given to a loss that makes probabilities of logits itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gipi.doctor.ends import class_width, ended, last_call, take_out, within_loss, words_of
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.rewire import Log
from gipi.doctor.rule import DYNAMICS, EXACT, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.facts import Facts

SUM = 1e-4


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where outputs are probabilities and the loss takes a softmax of them."""
    inside = within_loss(facts, kinds=("softmax",), into="cross_entropy")
    if inside is not None:
        yield _in_the_loss()
        return
    said = facts.outputs
    if facts.loss.name != "cross_entropy" or not isinstance(said, Tensor):
        return
    op, wide = last_call(facts), class_width(facts)
    over = op is not None and op.kind == "softmax" and wide is not None and wide[1] > 1
    if not over and not are_probabilities(facts):
        return
    if op is not None and op.kind == "softmax":
        where, repair = words_of(op), take_out(facts, op)
        name, edit = "take the softmax out", f"delete the softmax at {where}"
    else:
        where = "the model's forward"
        repair = ended(Log(), said="the logarithm of the probabilities goes to the loss")
        name, edit = "logarithm of the outputs", "return logits, or torch.log of the probabilities"
    yield Finding(
        "double_softmax",
        f"the model ends in probabilities ({where}) and the loss takes a softmax of them again: "
        f"outputs of the first rows are between {float(said.min()):.3f} and "
        f"{float(said.max()):.3f}",
        "give cross-entropy the logits: take the softmax out of the model",
        where=(where,),
        evidence={"rows": [[round(v, 4) for v in r[:8]]
                           for r in said.reshape(-1, said.shape[-1])[:3].tolist()]},
        confirmed=True,
        strength=EXACT,
        repairs=(
            Repair(name, repair, proof="exact",
                   edit=f"{edit}; use outputs.softmax(-1) to predict"),
        ),
    )  # fmt: skip


def are_probabilities(facts: Facts, wide: tuple[int, int] | None = None) -> bool:
    """Whether every row of the outputs is a distribution over at least two classes.

    wide  (dimension, number) of the classes, where they are not those of a loss of classes
    """
    said, wide = facts.outputs, wide or class_width(facts)
    if wide is None or wide[1] < 2 or not isinstance(said, Tensor):
        return False
    dim = wide[0]
    sums = said.sum(dim)
    return bool((said >= 0).all()) and float((sums - 1).abs().max()) < SUM


def _in_the_loss() -> Finding:
    return Finding(
        "double_softmax",
        "the loss function takes a softmax of the outputs and gives it to cross-entropy, which "
        "takes another",
        "give cross-entropy the logits: take the softmax out of the loss function",
        where=("loss",),
        confirmed=True,
        strength=EXACT,
        repairs=(
            Repair("logits to the loss", None, mode="advise",
                   edit="loss = F.cross_entropy(outputs, y), without softmax"),
        ),
    )  # fmt: skip


RULE = Rule(
    code="double_softmax",
    title="a softmax before a loss that has one",
    looks="the loss falls slowly and stays far above zero; gradients are small",
    why="cross-entropy takes the softmax of its input. Of probabilities the second softmax makes "
    "nearly equal ones: with 10 classes the loss cannot fall below 1.46, and gradients shrink",
    do="let the model end in logits; apply softmax only to show probabilities",
    source="Bridle 1990 (softmax); Goodfellow, Bengio and Courville 2016, section 6.2.2",
    before=before,
    causes=(*DYNAMICS, "bad_init_scale"),
)
