"""Training an experiment while writing down what happens: the plain loop that the doctor watches.

It is `gipi.train`'s loop for people who have their own: their model, their optimizer, their step.
Gradient norms are taken where the optimizer steps, after whatever the step did to the gradient.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from gipi.doctor.copies import save
from gipi.doctor.experiment import batches, call, judged, outputs, take_step, whole
from gipi.doctor.tape import recording
from gipi.doctor.trace import CHECKS, Kept, LayerLook, Look, Trace, UnitLook
from gipi.doctor.units import looks_at

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment

JUDGED, JUDGED_TRAIN = 512, 256
"""Rows of validation and of training that are judged after an epoch."""
JUDGEMENTS = 12
"""Epochs after which rows are judged, at most: spread evenly where a run has more."""
FIRST = 4
"""Epochs that are all judged, however many there are: what is best may be early."""
PARTS = 10
"""Parts of the validation rows whose losses are noted: their differences tell the noise."""
UNIT_ROWS = 256
"""Rows that a look at the units takes."""
LOOKS = 10
"""Looks at the layers during a run, about: more often in its first tenth."""
KEPT = 64
"""Steps after which the state is kept anew: what broke after it can be replayed."""
LOST = 10
"""Steps in a row without a finite loss after which a run is over."""

Check = Callable[[Trace], bool]
"""Called at the checks of a run; True ends it."""


def play(
    exp: Experiment, *, steps: int | None = None, check: Check | None = None, quiet: bool = False
) -> Trace:
    """Train `exp` for `steps` (all that are planned by default) and return its trace.

    quiet  only losses, norms, rates and the judgements of epochs: no looks, no state kept

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
    with seeded(exp), warnings.catch_warnings(), Eye(exp) as eye:
        warnings.filterwarnings("ignore", message=".*lr_scheduler.*")
        trace.start = judge()
        exp.model.train()
        epoch = 0
        while trace.step < last:
            number = 0
            for xb, yb in batches(exp, epoch):
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
                over = len(trace.losses) > LOST and not any(
                    math.isfinite(v) for v in trace.losses[-LOST:]
                )
                if looked:
                    due.pop(0)
                if (looked or over) and check is not None:
                    _judged(trace, judge, epoch + number / per_epoch)
                    if check(trace):
                        return trace
                if trace.step >= last or over:
                    break
            if not number:
                break
            epoch += 1
            every = max(1, round(planned / per_epoch / JUDGEMENTS))
            if epoch <= FIRST or epoch % every == 0 or trace.step >= last:
                _judged(trace, judge, epoch)
                best.see(trace)
            if exp.scheduler is not None and exp.scheduler_every == "epoch":
                _step(exp, trace)
            if over:
                break
        best.back()
    return trace


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


@contextmanager
def seeded(exp: Experiment) -> Iterator[None]:
    """Draw within from the experiment's seed; all generators are afterwards what they were."""
    own = getattr(exp.train, "generator", None)
    mine = own if isinstance(own, torch.Generator) else None
    order = mine.get_state() if mine is not None else None
    old = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [exp.device] if exp.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(exp.seed)
        random.seed(exp.seed)
        np.random.seed(exp.seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(old[0])
            np.random.set_state(old[1])  # noqa: NPY002
            if mine is not None and order is not None:
                mine.set_state(order)


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


def _judged(trace: Trace, judge: Judge, epoch: float) -> None:
    """Add a row to the epochs, unless there is one of this step."""
    since = trace.epochs[-1]["step"] if trace.epochs else 0
    if trace.step == since:
        trace.epochs[-1]["epoch"] = epoch
        return
    mean = trace.mean_loss(since, trace.step)
    trace.epochs.append({"epoch": epoch, "step": trace.step, "train": mean, **judge()})


class Judge:
    """Judges an experiment by the same rows of its splits each time, in evaluation mode."""

    def __init__(self, exp: Experiment) -> None:
        self.exp = exp
        self.train = whole(exp.train, JUDGED_TRAIN, exp.device)
        self.val = whole(exp.val, JUDGED, exp.device)

    def __call__(self) -> dict[str, Any]:
        """Return loss and score of both splits, and the losses of parts of validation."""
        row: dict[str, Any] = {}
        exp = self.exp
        loss = exp.judge or exp.loss
        for name, split in (("train", self.train), ("val", self.val)):
            if split is None:
                continue
            X, y = split
            said = outputs(exp, X)
            with torch.no_grad():
                row["train_eval" if name == "train" else "val"] = float(loss(said, y))
                row[f"{name}_score"] = judged(exp, said, y)
                if name == "val":
                    row["val_parts"] = _parts(loss, said, y)
                    row["val_right"] = right(said, y)
        return row


def right(said: Any, y: Any) -> float:
    """Return the share of right classes, or NaN where outputs and targets are no classes."""
    if not isinstance(said, Tensor) or not isinstance(y, Tensor) or not y.numel():
        return math.nan
    if y.is_floating_point():
        if said.shape != y.shape or not bool(((y == 0) | (y == 1)).all()):
            return math.nan
        edge = 0.5 if bool(((said >= 0) & (said <= 1)).all()) else 0.0
        return float(((said > edge) == (y > 0.5)).float().mean())
    if said.ndim != y.ndim + 1:
        return math.nan
    known = y >= 0
    which = -1 if said.ndim == 2 or said.shape[:-1] == y.shape else 1
    return float((said.argmax(which) == y)[known].float().mean())


def _parts(loss: Any, said: Any, y: Any) -> list[float]:
    """Return the loss of parts of the rows; nothing where rows cannot be taken apart."""
    if not isinstance(said, Tensor) or not isinstance(y, Tensor) or len(said) != len(y):
        return []
    if len(y) < 2 * PARTS:
        return []
    try:
        return [float(loss(said[i::PARTS], y[i::PARTS])) for i in range(PARTS)]
    except (RuntimeError, ValueError, IndexError, TypeError):
        return []


class Eye:
    """Sees gradients and weights where an optimizer steps; looks at layers when it is open.

    norm  the gradient's norm at the last step, as the optimizer saw it
    """

    def __init__(self, exp: Experiment) -> None:
        self.exp, self.open, self.norm = exp, False, 0.0
        self.names = {id(p): n for n, p in exp.model.named_parameters()}
        self._handles: list[Any] = []
        self._before: dict[str, Tensor] = {}
        self._grads: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._handles = [
            self.exp.optimizer.register_step_pre_hook(self._about_to_step),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _about_to_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        params = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        grads = [p.grad for p in params]
        if not grads:
            self.norm = 0.0
            return
        norms = torch._foreach_norm(grads)  # noqa: SLF001
        self.norm = float(torch.linalg.vector_norm(torch.stack([n.float() for n in norms])))  # sync
        if self.open:
            self._before = {n: p.detach().clone() for n, p in self.exp.model.named_parameters()}
            self._grads = {
                self.names.get(id(p), "?"): float(n) / math.sqrt(p.numel())
                for p, n in zip(params, norms, strict=True)
            }

    def look(self, step: int, X: Any = None) -> Look:
        """Return a look at the step that was just taken, and at the units on rows of X."""
        params = {}
        for name, p in self.exp.model.named_parameters():
            old = self._before.get(name)
            if old is None or not p.numel():
                continue
            size = math.sqrt(p.numel())
            moved = float((p.detach() - old).float().norm()) / size
            params[name] = LayerLook(
                self._grads.get(name, 0.0), float(old.float().norm()) / size, moved, p.ndim
            )
        self._before = {}
        return Look(step, params, {} if X is None else units_of(self.exp, X))


def units_of(exp: Experiment, X: Any, *, rows: int = UNIT_ROWS) -> dict[str, UnitLook]:
    """Return a look at the activations of `exp` on up to `rows` rows of X."""
    model = exp.model
    training = model.training
    model.eval()
    try:
        with seeded(exp), torch.no_grad(), recording(model) as tape:
            tape.outputs = call(model, X[:rows] if isinstance(X, Tensor) else X)
    finally:
        model.train(training)
    return looks_at(tape)
