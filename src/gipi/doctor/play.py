"""Training an experiment while writing down what happens: the plain loop that the doctor watches.

It is `gipi.train`'s loop for people who have their own: their model, their optimizer, their step.
Gradient norms are taken where the optimizer steps, after whatever the step did to the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.begun import goes_on
from gipi.doctor.copies import put_generators, save
from gipi.doctor.experiment import batches, take_step
from gipi.doctor.eye import Eye
from gipi.doctor.hushed import hushed
from gipi.doctor.judge import Judge
from gipi.doctor.seeded import seeded, unmoved
from gipi.doctor.trace import CHECKS, Kept, Trace

if TYPE_CHECKING:
    from gipi.doctor.begun import Begun
    from gipi.doctor.experiment import Experiment

JUDGEMENTS = 12
"""Epochs after which rows are judged, at most: spread evenly where a run has more."""
FIRST = 4
"""Epochs that are all judged, however many there are: what is best may be early."""
LOOKS = 10
"""Looks at the layers during a run, about: more often in its first tenth."""
KEPT = 64
"""Steps after which the state is kept anew: what broke after it can be replayed."""
LOST = 10
"""Steps in a row without a finite loss after which a run is over."""

Check = Callable[[Trace], bool]
"""Called at the checks of a run; True ends it."""


def play(
    exp: Experiment,
    *,
    steps: int | None = None,
    check: Check | None = None,
    quiet: bool = False,
    brief: bool = False,
    since: Begun | None = None,
) -> Trace:
    """Train `exp` for `steps` (all that are planned by default) and return its trace.

    quiet  only losses, rates and the judgements of epochs: no norms, no looks, no state kept
    brief  rows are judged before the first step and after the last, and no epoch between, unless
           something of the run itself hangs on it
    since  the beginning of a quiet run, of which `exp` is the copy: it goes on there

    The experiment is changed: it is trained, from its own seed on, so that two runs draw the same
    numbers; generators outside are left as they were. A run whose loss is not finite for ten steps
    in a row ends.
    """
    per_epoch = exp.steps_per_epoch
    planned = exp.total_steps
    last = planned if steps is None else min(steps, planned)
    trace = Trace(planned, per_epoch)
    due = sorted({max(1, round(planned * share)) for share in CHECKS})
    at = set() if quiet else look_steps(planned) | {d - 1 for d in due}
    judge = Judge(exp)
    best = _Best(exp)
    brief = brief and goes_on(exp)
    skip = 0
    with seeded(exp), hushed(), Eye(exp, shut=quiet) as eye:
        trace.start = judge() if since is None else since.start
        exp.model.train()
        epoch = 0
        if since is not None:
            put_generators(since.drawn)
            trace.losses, trace.rates = list(since.losses), list(since.rates)
            trace.norms = [0.0] * trace.step
            epoch, skip = divmod(trace.step, per_epoch)
            if trace.step >= last:  # nothing is left of the run but to judge it
                _judged(trace, judge, -(-trace.step // per_epoch))
                best.see(trace)
        while trace.step < last:
            number, skip = skip, 0
            for xb, yb in islice(batches(exp, epoch), number, None):
                number += 1
                eye.open = trace.step in at
                if not quiet:
                    _keep(exp, trace, xb, yb)
                trace.rates.append(float(exp.optimizer.param_groups[0]["lr"]))
                loss = take_step(exp, xb, yb)
                trace.losses.append(float(loss.detach()) if isinstance(loss, Tensor) else loss)
                trace.norms.append(eye.norm)
                if exp.scheduler is not None and exp.scheduler_every == "step":
                    _step(exp, trace)
                looked = due and trace.step >= due[0]
                if eye.open:
                    rows = judge.train[0] if judge.train else xb
                    trace.looks.append(eye.look(trace.step, rows if looked else None))
                bad = not math.isfinite(trace.losses[-1]) or not math.isfinite(trace.norms[-1])
                if bad and trace.broken is None:
                    trace.broken = trace.step - 1
                over = (
                    bad
                    and len(trace.losses) > LOST
                    and not any(map(math.isfinite, trace.losses[-LOST:]))
                )
                if looked:
                    due.pop(0)
                if (looked or over) and check is not None:
                    known = eye.said if looked and eye.open and judge.train else None
                    _judged(trace, judge, epoch + number / per_epoch, known=known)
                    with unmoved(exp):
                        enough = check(trace)
                    if enough:
                        return trace
                if trace.step >= last or over:
                    break
            if not number:
                break
            epoch += 1
            every = max(1, round(planned / per_epoch / JUDGEMENTS))
            due_now = not brief and (epoch <= FIRST or epoch % every == 0)
            if due_now or trace.step >= last:
                _judged(trace, judge, epoch)
                best.see(trace)
            if exp.scheduler is not None and exp.scheduler_every == "epoch":
                _step(exp, trace)
            if over:
                break
        best.back()
    return trace


def attempt(exp: Experiment, *, since: Begun | None = None) -> Trace:
    """Train `exp` as far as it goes, not looked into; an error of its own leaves an empty trace.

    A last batch of one row before a batch norm, or a model without a trainable weight, end so.
    """
    try:
        return play(exp, quiet=True, brief=True, since=since)
    except (RuntimeError, ValueError):
        return Trace(exp.total_steps, exp.steps_per_epoch, broken=0)


class _Best:
    """The weights of the best epoch, kept where they are wanted."""

    def __init__(self, exp: Experiment) -> None:
        self.exp, self.low = exp, math.inf
        self.weights: dict[str, Tensor] = {}

    def see(self, trace: Trace) -> None:
        """Keep the weights where validation loss is the lowest so far."""
        loss = trace.epochs[-1].get("val", math.nan)
        if self.exp.keep_best and loss < self.low:
            self.low = loss
            self.weights = {n: t.clone() for n, t in self.exp.model.state_dict().items()}

    def back(self) -> None:
        """Put them back."""
        if self.weights:
            self.exp.model.load_state_dict(self.weights)


def look_steps(planned: int) -> set[int]:
    """Return the steps at which layers are looked at: close at first, then evenly spread."""
    early = {0, 1, 3, 8, 20}
    return {s for s in early if s < planned} | {
        round(i * (planned - 1) / LOOKS) for i in range(LOOKS + 1)
    }


def _keep(exp: Experiment, trace: Trace, xb: Any, yb: Any) -> None:
    """Keep the state now and then while it is whole, and the batches since."""
    if trace.broken is not None:
        return
    if trace.kept is None or len(trace.kept.batches) >= KEPT:
        trace.kept = Kept(trace.step, save(exp))
    trace.kept.batches.append((xb, yb))


def _step(exp: Experiment, trace: Trace) -> None:
    if isinstance(exp.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        rows = trace.epochs[-1:] or [{}]
        exp.scheduler.step(rows[0].get("val", rows[0].get("train", math.nan)))
    else:
        exp.scheduler.step()


def _judged(trace: Trace, judge: Judge, epoch: float, *, known: Any = None) -> None:
    """Add a row to the epochs, unless there is one of this step (`known`: see `Judge`)."""
    since = trace.epochs[-1]["step"] if trace.epochs else 0
    if trace.step == since:
        trace.epochs[-1]["epoch"] = epoch
        return
    mean = trace.mean_loss(since, trace.step)
    trace.epochs.append({"epoch": epoch, "step": trace.step, "train": mean, **judge(known)})
