"""Probabilities are given to a loss that makes probabilities of logits itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

SUM = 1e-5


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where the last call is a softmax and the loss is cross-entropy."""
    said = facts.outputs
    if facts.loss.name != "cross_entropy" or not isinstance(said, Tensor) or said.ndim < 2:
        return
    last = facts.tape.maker_of(said)
    if last is None or last.kind != "softmax":
        return
    sums = said.sum(-1)
    if float((sums - 1).abs().max()) > SUM:
        return
    where = last.place
    yield Finding(
        "double_softmax",
        f"the model ends in a softmax ({where}) and the loss takes another: the outputs of the "
        f"first rows are all between {float(said.min()):.3f} and {float(said.max()):.3f}",
        "give cross-entropy the logits: take the softmax out of the model",
        where=(where,),
        evidence={"rows": [[round(v, 4) for v in r[:8]] for r in said[:3].tolist()]},
        confirmed=True,
        repairs=(
            Repair("take the softmax out", remove_softmax, proof="exact",
                   edit=f"delete the softmax at {where}; use outputs.softmax(-1) to predict"),
        ),
    )  # fmt: skip


def remove_softmax(exp: Experiment) -> str:
    """Replace the softmax module at the end by nothing."""
    last = [(n, m) for n, m in exp.model.named_modules() if isinstance(m, (nn.Softmax, nn.Softmin))]
    if not last:
        message = "the softmax is called as a function within forward"
        raise CannotRepair(message)
    name = last[-1][0]
    parent, _, leaf = name.rpartition(".")
    setattr(exp.model.get_submodule(parent), leaf, nn.Identity())
    return f"took the softmax '{name}' out of the model"


RULE = Rule(
    code="double_softmax",
    title="a softmax before a loss that has one",
    looks="the loss falls slowly and stays far above zero; gradients are small",
    why="cross-entropy takes the softmax of its input. Of probabilities the second softmax makes "
    "nearly equal ones: with 10 classes the loss cannot fall below 1.46, and gradients shrink",
    do="let the model end in logits; apply softmax only to show probabilities",
    source="Bridle 1990 (softmax); Goodfellow, Bengio and Courville 2016, section 6.2.2",
    before=before,
    causes=("underfit", "plateau", "vanishing_gradient", "lr_too_low"),
)
