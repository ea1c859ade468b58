"""Probabilities are given to a loss that takes the sigmoid of log-odds itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gipi.doctor.ends import last_call, take_out, within_loss, words_of
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.rule import DYNAMICS, EXACT, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.facts import Facts

ENDS = ("sigmoid", "hardsigmoid", "softmax")


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where a sigmoid stands before binary cross-entropy with logits."""
    inside = within_loss(facts, kinds=ENDS, into="bce_logits")
    said = facts.outputs
    if not isinstance(said, Tensor):
        return
    op = inside or last_call(facts)
    if op is None or op.kind not in ENDS or (inside is None and not facts.loss.of_logits):
        return
    if op.kind == "softmax" and said.shape[-1] < 2:
        return  # a softmax over one output is a fault of its own
    where = "the loss function" if inside is not None else words_of(op)
    change = None if inside is not None else take_out(facts, op)
    yield Finding(
        "double_sigmoid",
        f"outputs go through a {op.kind} ({where}) and then into a loss that takes a sigmoid "
        f"again: they are between {float(said.min()):.3f} and {float(said.max()):.3f}, so that no "
        "probability can leave 0.5..0.73",
        f"take the {op.kind} out, or use binary cross-entropy of probabilities (nn.BCELoss)",
        where=(where,),
        evidence={"low": float(said.min()), "high": float(said.max())},
        confirmed=True,
        strength=EXACT,
        repairs=(
            Repair(f"take the {op.kind} out", change, mode="auto" if change else "advise",
                   proof="exact",
                   edit=f"delete the {op.kind} at {where}; use outputs.sigmoid() to predict"),
        ),
    )  # fmt: skip


RULE = Rule(
    code="double_sigmoid",
    title="a sigmoid before a loss that has one",
    looks="the loss stays near 0.69 or falls slowly; predicted probabilities stay within 0.5..0.73",
    why="the loss takes the sigmoid of log-odds. Of numbers between 0 and 1 it makes probabilities "
    "between 0.5 and 0.73: the net can never say no, and its gradient shrinks twice",
    do="let the model end in log-odds; apply a sigmoid only to show probabilities",
    source="Goodfellow, Bengio and Courville 2016, section 6.2.2.2",
    before=before,
    causes=DYNAMICS,
)
