"""Learning rates: other ones tried in short, a schedule on paper, and a range test."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.begun import so_far
from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import take_step, whole
from gipi.doctor.hushed import hushed
from gipi.doctor.probes import FLOOR, Trial, compared, first_batches, horizon, loss_on
from gipi.doctor.seeded import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts


def times_lr(factor: float) -> Callable[[Experiment], str]:
    """Return the change that multiplies every learning rate, of the schedule too."""

    def change(exp: Experiment) -> str:
        old = exp.optimizer.param_groups[0]["lr"]
        for group in exp.optimizer.param_groups:
            for key in ("lr", "initial_lr", "max_lr", "min_lr"):
                if isinstance(group.get(key), (int, float)):
                    group[key] *= factor
        _rescaled(exp.scheduler, factor)
        return f"learning rate {old:.3g} -> {old * factor:.3g}"

    return change


def _rescaled(scheduler: Any, factor: float) -> None:
    for key in ("base_lrs", "max_lrs", "min_lrs", "_last_lr"):
        rates = getattr(scheduler, key, None)
        if isinstance(rates, list):
            setattr(scheduler, key, [lr * factor for lr in rates])
    if isinstance(getattr(scheduler, "eta_min", None), (int, float)):
        scheduler.eta_min *= factor
    for inner in getattr(scheduler, "_schedulers", ()):
        _rescaled(inner, factor)


def soon(exp: Experiment) -> int:
    """Return steps within which another rate shows from where a run is, the same for all rules."""
    return horizon(exp, 0.12, low=20, high=40)


def lr_trial(
    facts: Facts, factors: Sequence[float], *, steps: int, now: bool = False, itself: bool = True
) -> Trial:
    """Return short trainings at multiples of the learning rate, 1 among them; kept for all rules.

    now     from the state of the run; else from where it began, and of the run itself, where it is
            known how it went, there is no twin
    itself  False: nobody asks for the rate as it is
    """
    own = facts.exp if now or facts.start is None else facts.start.exp
    key = f"rates {now} {steps}"
    if now:
        key += f" {float(sum(p.detach().double().sum() for p in own.model.parameters())):.9g}"
    known: Trial | None = facts.notes.get(key)
    wanted = [f for f in (1.0, *factors)[not itself :] if known is None or f not in known.tails]
    if wanted:
        changes: dict[Any, Callable[[Experiment], object] | None] = {
            f: None if f == 1 else times_lr(f) for f in wanted
        }
        more = compared(own, changes, steps=steps, own=None if now else so_far(facts))
        facts.passes += steps * len(wanted)
        known = more if known is None else known.and_also(more)
        facts.notes[key] = known
    assert known is not None
    return known


def gains(facts: Facts, trial: Trial, other: Any, *, begin: float, share: float) -> bool:
    """Whether the changed run of a trial gains on validation rows too, by a share of all progress.

    True where there are no validation rows: then nothing can be held against it.
    """
    rows = whole(facts.exp.val, 1024, facts.exp.device)
    if rows is None:
        return True
    facts.passes += 2
    own, better = loss_on(trial.twins[1.0], *rows), loss_on(trial.twins[other], *rows)
    if not math.isfinite(own):
        return math.isfinite(better)
    return own - better > share * max(begin - better, FLOOR * abs(begin), 1e-12)


PAPER = "rates on paper"
PLACES = 10_000
"""Steps of a schedule that are written down on paper: of a longer run so many, evenly spread."""
STEPPED = 500_000
"""Steps that a schedule without a formula may take on paper: some seconds."""


def paper_rates(exp: Experiment) -> list[float] | None:
    """Return the learning rate of every planned step as the schedule has it, on paper.

    Of more than `PLACES` steps, those of steps i total / `PLACES`. A copy of the scheduler steps
    over an optimizer that has no weights; None where what it does depends on losses, where it
    cannot be copied, or where it would have to take more than `STEPPED` steps.
    """
    total, lr = exp.total_steps, float(exp.optimizer.param_groups[0]["lr"])
    places = min(total, PLACES)
    if exp.scheduler is None:
        return [lr] * places
    if isinstance(exp.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return None
    each = 1 if exp.scheduler_every == "step" else exp.steps_per_epoch
    turns = [i * total // places // each for i in range(places)]
    formula = type(exp.scheduler) is torch.optim.lr_scheduler.LambdaLR and total > places
    try:
        with hushed():
            if formula:
                return _by_formula(exp.scheduler, lr, turns)
            return None if turns[-1] > STEPPED else _by_turns(exp, turns)
    except Exception:  # noqa: BLE001  a schedule of the user's own may want anything
        return None


def _by_formula(scheduler: Any, lr: float, turns: list[int]) -> list[float]:
    """Return the rates after so many turns of a schedule that is a function of their number."""
    base, shape, now = scheduler.base_lrs[0], scheduler.lr_lambdas[0], scheduler.last_epoch
    return [float(base * shape(now + turn)) if turn else lr for turn in turns]


def _by_turns(exp: Experiment, turns: list[int]) -> list[float]:
    """Return the rates after so many turns of a copy of the schedule."""
    memo: dict[int, Any] = {id(p): p for g in exp.optimizer.param_groups for p in g["params"]}
    memo[id(exp.optimizer.state)] = exp.optimizer.state.__class__(dict)
    rates, taken = list[float](), 0
    scheduler = copy.deepcopy(exp.scheduler, memo)
    groups = scheduler.optimizer.param_groups
    for turn in turns:
        while taken < turn:
            scheduler.step()
            taken += 1
        rates.append(float(groups[0]["lr"]))
    return rates


def noted_rates(facts: Facts) -> list[float] | None:
    """Return `paper_rates` of a run as it stood before its first step, written down once."""
    start = facts.start or facts
    if PAPER not in start.notes:
        start.notes[PAPER] = paper_rates(start.exp)
    rates: list[float] | None = start.notes[PAPER]
    return rates


def lr_range(
    exp: Experiment, *, low: float = 1e-6, high: float = 10.0, steps: int = 60
) -> tuple[list[float], list[float]]:
    """Return learning rates and losses of one pass of growing rates (Smith 2017, 1506.01186)."""
    rates = [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]
    twin = duplicate(exp)
    losses: list[float] = []
    twin.model.train()
    with seeded(twin):
        for rate, (xb, yb) in zip(rates, first_batches(twin, steps), strict=False):
            for group in twin.optimizer.param_groups:
                group["lr"] = rate
            loss = take_step(twin, xb, yb)
            losses.append(float(loss.detach()) if isinstance(loss, Tensor) else float(loss))
            if not math.isfinite(losses[-1]) or losses[-1] > 4 * abs(losses[0]) + 1:
                break
    return rates[: len(losses)], losses


def best_rate(exp: Experiment, *, steps: int = 60) -> float:
    """Return the rate of the valley of a range test: a fifth of the rate where loss is lowest.

    Losses are averaged over seven steps; the rate where it has fallen most steeply decides.
    """
    rates, losses = lr_range(exp, steps=steps)
    width = 7
    smooth = [
        sum(losses[max(0, i - width + 1) : i + 1]) / len(losses[max(0, i - width + 1) : i + 1])
        for i in range(len(losses))
    ]
    finite = [i for i, v in enumerate(smooth) if math.isfinite(v)]
    if not finite:
        return rates[0]
    lowest = min(finite, key=lambda i: smooth[i])
    return rates[lowest] / 5
