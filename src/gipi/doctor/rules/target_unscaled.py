"""The target's numbers are far larger, smaller or farther from zero than a fresh net's outputs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.edits import Moments, put_in_front
from gipi.doctor.experiment import outputs, whole
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.middles import loss_of_middle
from gipi.doctor.rule import Rule
from gipi.doctor.trials import some, trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment, LossFunction
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

LARGE, SMALL = 15.0, 0.02
OPEN = "a target that may be too large"
BUILT_IN = 0.02
"""Outputs that spread by this share of the target's spread, around its mean, are scaled already."""
STEPS, MORE = 80, 240
TIMES = 2.0
WORTH = 3.0
LEAST, FAR = 0.1, 0.25
"""Unexplained shares must differ by this where one is twice the other; by this in any case."""


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect targets beyond fifteen, or all within a fiftieth, where outputs begin elsewhere."""
    y, said = facts.y, facts.outputs
    if facts.kind != "numbers" or y is None or not isinstance(said, Tensor):
        return
    if not y.is_floating_point() or not said.is_floating_point() or len(y) < 8:
        return
    flat = y.detach().cpu().double().reshape(len(y), -1)
    flat = flat[flat.isfinite().all(1)]
    if len(flat) < 8:
        return
    mean, std = flat.mean(0), flat.std(0)
    size = float((mean.abs() + std).max())
    far = float((mean.abs() / std.clamp_min(1e-12 * (1 + size))).max())
    if not (size > LARGE or float(std.max()) < SMALL or (far > LARGE and size > 1)):
        return
    if not float(std.max()) > 0 or not bool(said.isfinite().all()):
        return
    off = float((said.cpu().double().mean() - flat.mean()).abs())
    spread = float(said.cpu().double().std()) if said.numel() > 1 else 0.0
    set_already = off < float(std.max()) and far > 3
    if off < 0.5 * float(std.max()) and spread > BUILT_IN * float(std.max()):
        return
    yield Finding(
        "target_unscaled",
        f"the target has mean {float(flat.mean()):.4g} and standard deviation "
        f"{float(std.max()):.4g}; the outputs of the untrained net lie around "
        f"{float(said.cpu().double().mean()):.3g} with {spread:.3g}",
        "learn (y - mean) / std of the training rows, and turn the outputs back to predict",
        where=("target",),
        evidence={"mean": float(flat.mean()), "std": float(std.max()), "output_std": spread,
                  "bias_is_set": set_already},
        strength=max(size / LARGE, SMALL / max(size, 1e-30)),
        repairs=(
            Repair("scale the target", scale, proof="not worse",
                   edit="y = (y - y_train.mean()) / y_train.std(); to predict: "
                   "outputs * y_train.std() + y_train.mean()"),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little as it is and with a scaled target, both judged in the target's own units.

    What that leaves open is asked again after the run, of which only the scaled half is missing.
    """
    if finding.phase == "epoch":
        return _after_a_run(facts, finding)
    steps = min(STEPS, max(30, facts.exp.total_steps // 2))
    plain = trial(facts, steps)
    scaled = trial(facts, steps, change=scale)
    base = loss_of_middle(facts)
    left, left_scaled = plain.train / base, scaled.train / base
    ends = {"unexplained_as_is": left, "unexplained_scaled": left_scaled}
    if not math.isfinite(left_scaled):
        return None
    sure = finding.but(confirmed=True, evidence={**finding.evidence, **ends})
    if not math.isfinite(left):
        return sure
    if finding.evidence["bias_is_set"] and left < 1.5:
        return None
    clear = left - left_scaled > (LEAST if left > TIMES * left_scaled else FAR)
    if clear and (left_scaled < 0.9 or left > 2):
        return sure
    if left > 1.3 * left_scaled and left - left_scaled > LEAST and finding.strength > WORTH:
        facts.notes[OPEN] = replace(sure, confirmed=False, phase="epoch")
        return sure.but(severity="hint", confirmed=False)
    return None


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Yield again what a few steps left open, where the whole run leaves much unexplained."""
    start = facts.start
    if start is None or OPEN not in start.notes or trace.done < 1:
        return
    seen, loss = some(start.train), facts.exp.judge or facts.exp.loss
    assert seen is not None
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        ends = [float(loss(outputs(facts.exp, seen[0]), seen[1]))]
    ends += [row["train_eval"] for row in trace.epochs if "train_eval" in row]
    left = min(ends) / loss_of_middle(start)
    if left > LEAST:
        found = start.notes[OPEN]
        yield found.but(evidence={**found.evidence, "unexplained_by_run": left})


def _after_a_run(facts: Facts, finding: Finding) -> Finding | None:
    """Hold all that the run learned against a short training with a scaled target."""
    assert facts.start is not None
    steps = min(MORE, facts.exp.total_steps)
    scaled = trial(facts.start, steps, change=scale).train / loss_of_middle(facts.start)
    left = finding.evidence["unexplained_by_run"]
    if not math.isfinite(scaled) or left - scaled < LEAST or left < TIMES * scaled:
        return None
    return finding.but(
        confirmed=True, evidence={**finding.evidence, "unexplained_scaled": scaled, "steps": steps}
    )


def _cost(_: Facts, finding: Finding) -> int:
    return (MORE if finding.phase == "epoch" else 2 * STEPS) + 4


class Unscale(Moments):
    """outputs * std + mean: outputs in the target's own units."""

    def forward(self, said: Any) -> Any:
        """Return the outputs in the target's units."""
        if not isinstance(said, Tensor):
            return said
        return said * self.std.to(said.dtype) + self.mean.to(said.dtype)


class ScaledLoss(Moments):
    """The user's loss of outputs and targets that are both brought to mean 0 and deviation 1."""

    def __init__(self, loss: LossFunction, mean: Tensor, std: Tensor) -> None:
        super().__init__(mean, std)
        self.loss = loss

    def forward(self, said: Tensor, y: Tensor) -> Tensor:
        """Return the loss in units of the target's standard deviation."""
        mean, std = self.mean.to(said.dtype), self.std.to(said.dtype)
        return self.loss((said - mean) / std, (y - mean) / std)


def scale(exp: Experiment) -> str:
    """Let the net learn a standardised target; its outputs stay in the target's units."""
    rows = whole(exp.train, 10_000, exp.device)
    if rows is None or not isinstance(rows[1], Tensor) or not rows[1].is_floating_point():
        message = "the target is not one tensor of numbers"
        raise CannotRepair(message)
    if exp.step is not None:
        message = "the step is the user's own and may use another loss"
        raise CannotRepair(message)
    y = rows[1].cpu().double()
    y = y[y.reshape(len(y), -1).isfinite().all(1)]
    mean, std = y.mean(), y.std()
    if y.ndim == 2 and 1 < y.shape[1] <= 64:
        mean, std = y.mean(0), y.std(0)
    std = torch.where(std > 0, std, torch.ones_like(std))
    mean, std = mean.to(rows[1].dtype), std.to(rows[1].dtype)
    put_in_front(exp, after=Unscale(mean, std))
    exp.judge = exp.judge or exp.loss
    exp.loss = ScaledLoss(exp.loss, mean.clone(), std.clone()).to(exp.device)
    where = f"{float(mean.mean()):.4g}, standard deviation {float(std.mean()):.4g}"
    return f"the target is learned in units of its spread (mean {where}), and told in its own"


RULE = Rule(
    code="target_unscaled",
    title="the target is not scaled",
    looks="the loss begins in the thousands and falls slowly, or the first steps blow up",
    why="a fresh net answers near zero with a spread near one. A target in the thousands makes "
    "gradients thousands of times larger; with Adam, whose steps have the size of the rate, the "
    "output bias needs mean / rate steps to arrive",
    do="learn the standardised target and turn the outputs back to predict",
    source="LeCun, Bottou, Orr and Müller 1998, Efficient BackProp, section 4.5",
    before=before,
    during=during,
    confirm=confirm,
    passes=MORE + 4,
    cost=_cost,
    causes=("exploding_gradient", "lr_too_high", "lr_too_low", "dead_relu", "plateau", "underfit",
            "nan_inf", "bad_init_scale", "oscillating_loss", "grad_clip_too_small"),
)  # fmt: skip
