"""Training an experiment while writing down what happens: the plain loop that the doctor watches.

It is `gipi.train`'s loop for people who have their own: their model, their optimizer, their step.
Gradient norms are taken where the optimizer steps, after whatever the step did to the gradient.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from gipi.doctor.experiment import batches, call, judged, outputs, take_step, whole
from gipi.doctor.tape import recording
from gipi.doctor.trace import CHECKS, LayerLook, Look, Trace
from gipi.doctor.units import looks_at

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment

JUDGED = 2048
"""Rows of each split that are judged after an epoch."""
UNIT_ROWS = 1024
"""Rows that a look at the units takes."""
LOOKS = 24
"""Looks at the layers during a run, about: more often in its first tenth."""

Check = Callable[[Trace], bool]
"""Called at the checks of a run; True ends it."""


def play(exp: Experiment, *, steps: int | None = None, check: Check | None = None) -> Trace:
    """Train `exp` for `steps` (all that are planned by default) and return its trace.

    The experiment is changed: it is trained. A run whose loss is not finite for ten steps ends.
    """
    per_epoch = exp.steps_per_epoch
    planned = exp.total_steps
    last = planned if steps is None else min(steps, planned)
    trace = Trace(planned, per_epoch)
    seen_train, seen_val = whole(exp.train, JUDGED, exp.device), whole(exp.val, JUDGED, exp.device)
    trace.start = _judge(exp, seen_train, seen_val)
    due = sorted({max(1, round(planned * share)) for share in CHECKS})
    at = look_steps(planned)
    exp.model.train()
    epoch = 0
    with warnings.catch_warnings(), Eye(exp) as eye:
        warnings.filterwarnings("ignore", message=".*lr_scheduler.*")
        while trace.step < last:
            first, number = trace.step, 0
            for xb, yb in batches(exp, epoch):
                number += 1
                eye.open = trace.step in at
                trace.rates.append(float(exp.optimizer.param_groups[0]["lr"]))
                loss = take_step(exp, xb, yb)
                trace.losses.append(float(loss.detach()) if isinstance(loss, Tensor) else loss)
                trace.norms.append(eye.norm)
                if exp.scheduler is not None and exp.scheduler_every == "step":
                    _step(exp, trace)
                if eye.open:
                    trace.looks.append(eye.look(trace.step, seen_train[0] if seen_train else xb))
                bad = not math.isfinite(trace.losses[-1]) or not math.isfinite(trace.norms[-1])
                if bad and trace.broken is None:
                    trace.broken = trace.step - 1
                if check is not None and due and trace.step >= due[0]:
                    due.pop(0)
                    if check(trace):
                        return trace
                if trace.step >= last:
                    break
                if trace.broken is not None and trace.step - trace.broken > 10:
                    if check is not None:
                        check(trace)
                    return trace
            if not number:
                break
            epoch += 1
            mean = trace.mean_loss(first, trace.step)
            seen = _judge(exp, seen_train, seen_val)
            trace.epochs.append({"epoch": epoch, "step": trace.step, "train": mean, **seen})
            if exp.scheduler is not None and exp.scheduler_every == "epoch":
                _step(exp, trace)
    return trace


def look_steps(planned: int) -> set[int]:
    """Return the steps at which layers are looked at: close at first, then evenly spread."""
    early = {0, 1, 2, 4, 8, 16, 32}
    return {s for s in early if s < planned} | {
        round(i * (planned - 1) / LOOKS) for i in range(LOOKS + 1)
    }


def _step(exp: Experiment, trace: Trace) -> None:
    if isinstance(exp.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        rows = trace.epochs[-1:] or [{}]
        exp.scheduler.step(rows[0].get("val", rows[0].get("train", math.nan)))
    else:
        exp.scheduler.step()


def _judge(exp: Experiment, *splits: Any) -> dict[str, float]:
    """Return loss and score of training and validation rows in evaluation mode."""
    row: dict[str, float] = {}
    for name, split in zip(("train", "val"), splits, strict=True):
        if split is None:
            continue
        said = outputs(exp, split[0])
        with torch.no_grad():
            loss = float((exp.judge or exp.loss)(said, split[1]))
        row["train_eval" if name == "train" else "val"] = loss
        row[f"{name}_score"] = judged(exp, said, split[1])
    return row


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

    def look(self, step: int, X: Any) -> Look:
        """Return a look at the step that was just taken, and at the units on rows of X."""
        params = {}
        for name, p in self.exp.model.named_parameters():
            old = self._before.get(name)
            if old is None:
                continue
            size = math.sqrt(p.numel())
            moved = float((p.detach() - old).float().norm()) / size
            params[name] = LayerLook(
                self._grads.get(name, 0.0), float(old.float().norm()) / size, moved
            )
        self._before = {}
        model = self.exp.model
        training = model.training
        model.eval()
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), recording(model) as tape:
                call(model, X[:UNIT_ROWS] if isinstance(X, Tensor) else X)
        finally:
            model.train(training)
        return Look(step, params, looks_at(tape))
