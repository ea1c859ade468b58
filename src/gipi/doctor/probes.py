"""Counter-experiments: short trainings from the same state, with and without one change."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.copies import duplicate, untouched
from gipi.doctor.experiment import batches, call, outputs, plain_step, take_step, whole
from gipi.doctor.play import right, seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

OVERFIT_ROWS = 16
OVERFIT_STEPS = 150
TAIL = 0.3
"""Share of a short training whose losses are compared."""
FLOOR = 0.2
"""Progress that can be missed counts as at least this share of the loss at the beginning."""


def after_steps(
    exp: Experiment,
    steps: int,
    *,
    change: Callable[[Experiment], object] | None = None,
    own_step: bool = True,
    on: Iterable[tuple[Any, Any]] | None = None,
) -> tuple[list[float], Experiment]:
    """Train a copy of `exp` for some steps, changed first, and return its losses and the copy.

    own_step  False: the plain step, whatever the user's own one does
    on        batches to train on, repeated; None: those of the run, from its first epoch on, with
              its schedule
    The same batches come in every call, and the same random numbers are drawn, so that two calls
    differ by their change alone.
    """
    twin = duplicate(exp)
    if change is not None:
        change(twin)
    losses: list[float] = []
    with seeded(twin), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.*")
        given = list(islice(on if on is not None else _first(twin, steps), steps))
        twin.model.train()
        each = 1 if twin.scheduler_every == "step" else twin.steps_per_epoch
        for xb, yb in islice(cycle(given), steps):
            loss = (take_step if own_step else plain_step)(twin, xb, yb)
            losses.append(float(loss.detach()) if isinstance(loss, Tensor) else float(loss))
            if not math.isfinite(losses[-1]):
                losses += [math.inf] * (steps - len(losses))
                break
            if on is None and twin.scheduler is not None and len(losses) % each == 0:
                _scheduled(twin, losses[-1])
    return losses, twin


def _scheduled(exp: Experiment, loss: float) -> None:
    if isinstance(exp.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        exp.scheduler.step(loss)
    else:
        exp.scheduler.step()


def _first(exp: Experiment, steps: int) -> Iterable[tuple[Any, Any]]:
    epoch = 0
    while True:
        seen = 0
        for pair in batches(exp, epoch):
            seen += 1
            yield pair
        epoch += 1
        if not seen or epoch > steps:
            return


# ---------------------------------------------------------------------- with and without


def horizon(exp: Experiment, share: float = 0.25, *, low: int = 30, high: int = 120) -> int:
    """Return steps for a counter-experiment: a share of the run, within bounds."""
    return max(low, min(high, round(share * exp.total_steps)))


@dataclass(frozen=True)
class Trial:
    """Short trainings of one state, on the same batches, that differ by one change each.

    begin  loss at the state they start from, on the batches of their ends
    tails  name -> losses of the last steps; firsts: their first losses
    """

    begin: float
    tails: dict[Any, list[float]]
    firsts: dict[Any, float]
    twins: dict[Any, Experiment]

    def end(self, name: Any) -> float:
        """Return the mean loss of the last steps; infinite where it left what is finite."""
        return end_of(self.tails[name], 1.0)

    @property
    def ends(self) -> dict[str, float]:
        """The ends, by name."""
        return {str(name): self.end(name) for name in self.tails}

    def missed(self, own: Any, other: Any, *, begin: float = math.nan) -> float:
        """Return the share of the progress made by `other` that `own` lacks; infinite if it broke.

        begin  loss that counts as no progress; default: that of the state they started from, or
               of the changed one where the change alone made it lower
        """
        mine, better = self.end(own), self.end(other)
        if not math.isfinite(better):
            return -math.inf if math.isfinite(mine) else 0.0
        known = [v for v in (self.begin, self.firsts[other]) if math.isfinite(v)]
        start = begin if math.isfinite(begin) else min(known, default=math.nan)
        if not math.isfinite(start):
            start = better
        return (mine - better) / max(start - better, FLOOR * abs(start), 1e-12)

    def sure(self, own: Any, other: Any) -> bool:
        """Whether `other` ends lower by more than two standard errors of paired differences.

        Or at every one of five steps and more: losses that still come down from a height are wild.
        """
        pairs = zip(self.tails[own], self.tails[other], strict=True)
        gains = [a - b for a, b in pairs]
        if not all(math.isfinite(g) for g in gains):
            return not math.isfinite(self.end(own)) and math.isfinite(self.end(other))
        if len(gains) >= 5 and min(gains) > 0:
            return True
        mean = sum(gains) / len(gains)
        spread = math.sqrt(sum((g - mean) ** 2 for g in gains) / max(1, len(gains) - 1))
        return mean > 2 * spread / math.sqrt(len(gains))

    def and_also(self, other: Trial) -> Trial:
        """Return both trials as one: of the same state and steps."""
        return Trial(
            self.begin,
            {**self.tails, **other.tails},
            {**self.firsts, **other.firsts},
            {**self.twins, **other.twins},
        )

    def best(self, *names: Any) -> Any:
        """Return the name among `names` (all by default) whose end is lowest."""
        return min(names or self.tails, key=self.end)


def compared(
    exp: Experiment,
    changes: dict[Any, Callable[[Experiment], object] | None],
    *,
    steps: int,
    own_step: bool = True,
) -> Trial:
    """Train copies of `exp` for some steps, each changed in its own way, and compare their ends.

    The batches and random numbers are the same for all. A change that raises `CannotRepair` is
    left to the caller.
    """
    tails: dict[Any, list[float]] = {}
    firsts: dict[Any, float] = {}
    twins: dict[Any, Experiment] = {}
    size = max(1, round(TAIL * steps))
    for name, change in changes.items():
        losses, twins[name] = after_steps(exp, steps, change=change, own_step=own_step)
        tails[name], firsts[name] = losses[-size:], losses[0]
    return Trial(level(exp, steps, size), tails, firsts, twins)


def level(exp: Experiment, steps: int, last: int, *, most: int = 8) -> float:
    """Return the present mean loss of the last of the first `steps` batches, in training mode."""
    with seeded(exp):
        given = list(islice(_first(exp, steps), steps))
    given = given[-last:][:most]
    with untouched(exp), seeded(exp), torch.no_grad():
        exp.model.train()
        found = [float(exp.loss(call(exp.model, _augmented(exp, xb)), yb)) for xb, yb in given]
    return sum(found) / len(found) if found else math.nan


def _augmented(exp: Experiment, xb: Any) -> Any:
    return exp.transform(xb) if exp.transform is not None else xb


# ---------------------------------------------------------------------- learning rates


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


def lr_probe(
    exp: Experiment, factors: Sequence[float], *, steps: int = 20
) -> dict[float, list[float]]:
    """Return the losses of `steps` steps at several multiples of the learning rate, same batches.

    The state is the one that `exp` is in; nothing of it changes.
    """
    return {f: after_steps(exp, steps, change=times_lr(f))[0] for f in factors}


def soon(exp: Experiment) -> int:
    """Return steps within which another rate shows from where a run is, the same for all rules."""
    return horizon(exp, 0.12, low=20, high=40)


def lr_trial(facts: Facts, factors: Sequence[float], *, steps: int, now: bool = False) -> Trial:
    """Return short trainings at multiples of the learning rate, 1 among them; kept for all rules.

    now  from the state of the run; else from where it began
    """
    own = facts.exp if now or facts.start is None else facts.start.exp
    key = f"rates {now} {steps}"
    if now:
        key += f" {float(sum(p.detach().double().sum() for p in own.model.parameters())):.9g}"
    known: Trial | None = facts.notes.get(key)
    wanted = [f for f in (1.0, *factors) if known is None or f not in known.tails]
    if wanted:
        more = compared(own, {f: times_lr(f) for f in wanted}, steps=steps)
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


def end_of(losses: Sequence[float], share: float = TAIL) -> float:
    """Return the mean of the last share of losses; infinite where one of them is not finite."""
    part = list(losses[-max(1, round(len(losses) * share)) :])
    return sum(part) / len(part) if all(math.isfinite(v) for v in part) else math.inf


def paper_rates(exp: Experiment) -> list[float] | None:
    """Return the learning rate of every planned step as the schedule has it, on paper.

    A copy of the scheduler steps over an optimizer that has no weights; None where what it does
    depends on losses, or where it cannot be copied.
    """
    total, lr = exp.total_steps, float(exp.optimizer.param_groups[0]["lr"])
    if exp.scheduler is None:
        return [lr] * total
    if isinstance(exp.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return None
    memo: dict[int, Any] = {id(p): p for g in exp.optimizer.param_groups for p in g["params"]}
    memo[id(exp.optimizer.state)] = exp.optimizer.state.__class__(dict)
    each = 1 if exp.scheduler_every == "step" else exp.steps_per_epoch
    rates = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = copy.deepcopy(exp.scheduler, memo)
            groups = scheduler.optimizer.param_groups
            for step in range(total):
                rates.append(float(groups[0]["lr"]))
                if (step + 1) % each == 0 and step + 1 < total:
                    scheduler.step()
    except Exception:  # noqa: BLE001  a schedule of the user's own may want anything
        return None
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
        for rate, (xb, yb) in zip(rates, _first(twin, steps), strict=False):
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


# ---------------------------------------------------------------------- single questions


def one_batch(
    facts: Facts, *, rows: int = OVERFIT_ROWS, steps: int = OVERFIT_STEPS, lr: float = 3e-3
) -> tuple[float, float]:
    """Return the loss of a few rows before and after learning them by heart with Adam.

    A net, a loss and a gradient that belong together bring the loss of 16 rows close to what is
    possible; where that fails something is wrong with them and not with the data. Asked again with
    the same numbers it answers from memory.
    """
    key = f"one_batch {rows} {steps} {lr}"
    if key in facts.notes:
        known: tuple[float, float] = facts.notes[key]
        return known
    xb, yb = _head(facts.batch[0], rows), _head(facts.batch[1], rows)

    def adam(twin: Experiment) -> None:
        twin.optimizer = torch.optim.Adam(
            [p for p in twin.model.parameters() if p.requires_grad], lr
        )
        twin.scheduler = None

    facts.passes += steps
    losses, _ = after_steps(facts.exp, steps, change=adam, own_step=False, on=cycle([(xb, yb)]))
    found = losses[0], min(losses[-5:])
    facts.notes[key] = found
    return found


def loss_on(exp: Experiment, xb: Any, yb: Any, *, training: bool = False) -> float:
    """Return the loss of some rows, in evaluation (or training) mode, without a gradient.

    Nothing of the experiment changes, running means of a batch norm neither.
    """
    with untouched(exp), seeded(exp), torch.no_grad():
        if training:
            exp.model.train()
            return float(exp.loss(call(exp.model, xb), yb))
        return float(exp.loss(outputs(exp, xb), yb))


def accuracy_on(exp: Experiment, xb: Any, yb: Any) -> float:
    """Return the share of right classes, or NaN where outputs and targets are no classes."""
    with seeded(exp):
        return right(outputs(exp, xb), yb)


def _head(value: Any, rows: int) -> Any:
    if isinstance(value, Tensor):
        return value[:rows] if value.ndim else value
    if isinstance(value, (tuple, list)):
        return type(value)(_head(v, rows) for v in value)
    if isinstance(value, dict):
        return {k: _head(v, rows) for k, v in value.items()}
    return value
