"""The last activation cannot reach the targets, or cannot say what the loss asks for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from gipi.doctor.ends import last_call, take_out, words_of
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.rule import DYNAMICS, EXACT, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.facts import Facts
    from gipi.doctor.tape import Op

RANGES = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0), "softplus": (0.0, math.inf),
          "sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0), "softmax": (0.0, 1.0),
          "tanh": (-1.0, 1.0), "elu": (-1.0, math.inf), "selu": (-1.76, math.inf),
          "gelu": (-0.17, math.inf), "silu": (-0.28, math.inf), "exp": (0.0, math.inf),
          "logsigmoid": (-math.inf, 0.0), "log_softmax": (-math.inf, 0.0)}  # fmt: skip
LOST = 0.01
"""Share of the targets' variance that lies out of reach."""
FEW = 0.01
NO_LOGITS = ("relu", "relu6", "sigmoid", "hardsigmoid", "tanh", "hardtanh")
NO_LOG_ODDS = ("relu", "relu6", "tanh", "hardtanh", "softplus")


def before(facts: Facts) -> Iterator[Finding]:
    """Yield what the last call of the net makes impossible."""
    op, said = last_call(facts), facts.outputs
    if op is None or not isinstance(said, Tensor):
        return
    if op.kind in ("softmax", "log_softmax") and _over_one(op):
        yield _finding(
            facts, op,
            f"a {op.kind} over a single output ({words_of(op)}) is always "
            f"{float(said.flatten()[0]):.0f}: the net says the same of every row and has no "
            "gradient",
            "end in one log-odd (with BCEWithLogitsLoss), in a sigmoid, or in two outputs",
            instead=nn.Sigmoid() if facts.loss.of_probabilities else None,
        )  # fmt: skip
        return
    if facts.loss.name == "cross_entropy" and op.kind in NO_LOGITS:
        yield _finding(
            facts, op,
            f"logits go through a {op.kind} ({words_of(op)}) before cross-entropy: they cannot "
            f"leave {_words(op.kind)}, so that no class can be ruled out",
            f"take the {op.kind} out: cross-entropy wants numbers of both signs",
        )  # fmt: skip
        return
    if facts.loss.of_logits and op.kind in NO_LOG_ODDS:
        yield _finding(
            facts, op,
            f"log-odds go through a {op.kind} ({words_of(op)}): they cannot leave "
            f"{_words(op.kind)}, so that the net cannot be sure",
            f"take the {op.kind} out: log-odds are numbers of both signs",
        )  # fmt: skip
        return
    if facts.loss.of_probabilities and op.kind == "softmax" and _several(facts.y):
        yield _finding(
            facts, op,
            f"answers that may all be yes go through a {op.kind} ({words_of(op)}), whose outputs "
            "sum to 1: where two are true neither can be sure",
            "end in a sigmoid, one for each answer",
            instead=nn.Sigmoid(),
        )  # fmt: skip
        return
    yield from _out_of_reach(facts, op, said)


def _out_of_reach(facts: Facts, op: Op, said: Tensor) -> Iterator[Finding]:
    y, span = facts.y, _range(op)
    if y is None or facts.loss.name not in ("mse", "mae", "huber") or span is None:
        return
    if not isinstance(facts.batch[1], Tensor) or facts.batch[1].numel() != said.numel():
        return
    low, high = span
    target = y.double()
    variance = float(target.var(correction=0))
    lost = float((target - target.clamp(low, high)).square().mean())
    if not math.isfinite(lost) or variance <= 0 or lost <= LOST * variance:
        return
    beyond = float(((target < low) | (target > high)).double().mean())
    yield _finding(
        facts, op,
        f"outputs go through a {op.kind} ({words_of(op)}) and stay within {_words(op.kind, span)}; "
        f"{beyond:.0%} of the targets lie outside (they reach from {float(target.min()):.3g} to "
        f"{float(target.max()):.3g}), so that {lost / variance:.0%} of their variance is out of "
        "reach",
        f"take the {op.kind} out, or bring the targets into its range",
        evidence={"range": [low, high], "beyond": beyond, "variance_lost": lost / variance},
    )  # fmt: skip


def _range(op: Op) -> tuple[float, float] | None:
    if op.kind != "clamp":
        return RANGES.get(op.kind)
    low, high = op.given("min", at=1), op.given("max", at=2)
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return None
    return (-math.inf if low is None else low, math.inf if high is None else high)


def _several(y: Tensor | None) -> bool:
    """Whether rows have several yes, or none."""
    if y is None or y.ndim != 2 or y.shape[1] < 2:
        return False
    return float((y.sum(1) != 1).double().mean()) > FEW


def _finding(
    facts: Facts,
    op: Op,
    message: str,
    advice: str,
    *,
    evidence: dict[str, object] | None = None,
    instead: nn.Module | None = None,
) -> Finding:
    return Finding(
        "wrong_output_activation", message, advice,
        where=(op.place,), evidence={"activation": op.kind, **(evidence or {})},
        confirmed=True, strength=EXACT,
        repairs=(
            Repair(f"take the {op.kind} out", take_out(facts, op, instead=instead), proof="exact",
                   edit=f"delete the {op.kind} at {words_of(op)}"),
        ),
    )  # fmt: skip


def _over_one(op: Op) -> bool:
    dim = op.given("dim", at=1)
    return isinstance(dim, int) and op.output.ndim > 0 and op.output.shape[dim] == 1


def _words(kind: str, span: tuple[float, float] | None = None) -> str:
    low, high = span or RANGES.get(kind, (-1.0, 1.0))
    if math.isinf(high):
        return f"{low:g} and above"
    return f"{high:g} and below" if math.isinf(low) else f"{low:g}..{high:g}"


RULE = Rule(
    code="wrong_output_activation",
    title="the last activation does not fit the targets",
    looks="predictions stick to one end of a range; the loss stands still well above zero",
    why="a ReLU says nothing below zero, a tanh nothing beyond one: what lies outside cannot be "
    "learned, and units that are pressed against the end have no gradient",
    do="end regression in a linear layer and classification in logits",
    source="Bishop 2006, Pattern Recognition and Machine Learning, section 5.2 (matching links)",
    before=before,
    causes=(*DYNAMICS, "target_unscaled", "bad_init_scale"),
)
