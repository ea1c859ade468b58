"""What a plain loop does, noted beside it: its losses, rates, norms, and at few steps everything.

Two hooks on the optimizer, and torch's two ways backward, see every step; nothing waits for the
device. At few steps, close together at first, what the model was given and what the loss compared
is kept as well, by listening to torch's own functions, and what the step changed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gipi.core.memory import keep_freed_pages
from gipi.doctor.closures import with_closure
from gipi.doctor.ear import Ear, Heard
from gipi.doctor.gradients import norm_of, norms_of, whole_of
from gipi.doctor.rules.eval_in_train_mode import RESTING, resting
from gipi.doctor.rules.params_not_in_optimizer import cleared
from gipi.doctor.trace import LayerLook, Look, Loop, Trace

EARLY = 3
"""Steps from the first that are listened to whole."""
GROWTH = 1.5
"""Each later look comes after this many times the steps of the one before."""
SHARE = 0.01
"""Later looks wait until all of them have taken less than this share of the time."""
GATHERED = 7
"""Further batches of one early step whose gradients are gathered, at most."""
BATCHES = 32
"""Batches that are kept for counter-experiments, at most."""
BETWEEN, ENOUGH = 8, 512
"""Steps after which a batch is only heard, not looked at, until so many rows are known: a few
microseconds a call of torch, and no copy of anything."""


@dataclass(frozen=True)
class Early:
    """One of the first steps: what was heard, weights before it, its gradients, what moved most."""

    heard: Heard
    weights: dict[str, Tensor]
    grads: dict[str, Tensor | None]
    moved: dict[str, Tensor]


class Record:
    """What is noted of a loop while it is open.

    losses, rates  of every step
    norms          of the gradient, of steps that were looked at: step -> norm
    between        the same of steps that were only heard
    heard          step -> what was given and compared
    looks          (step, sizes, norms of gradients, weights and updates by layer)
    early          the first steps, whole
    backwards      calls of a way backward; cleared: how many of them found gradients set to zero
    evaluating     steps in a row that were taken in evaluation mode; resting: layers that were
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, loss: Any) -> None:
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.losses: list[Tensor | float] = []
        self.rates: list[float] = []
        self.norms: dict[int, Tensor] = {}
        self.between: list[Tensor] = []
        self.heard: dict[int, Heard] = {}
        self.looks: list[tuple[int, dict[str, int], Tensor]] = []
        self.early: list[Early] = []
        self.looking_s = 0.0
        self._began = time.perf_counter()
        self.step = 0
        self.next_look = 0
        self._ear: Ear | None = None
        self._left: list[Ear] = []
        self.called = False
        self._handles: list[Any] = []
        self._loss_now: Tensor | float | None = None
        self._before: dict[str, Tensor] = {}
        self._grads: dict[str, Tensor | None] = {}
        self._ways: tuple[Any, Any] = torch.Tensor.backward, torch.autograd.backward
        self._put: tuple[Any, Any] = self._ways
        self._within, self._over = False, False
        self._look_began = 0.0
        self.backwards = self.rows = self.cleared = 0
        self.reached = False
        self._looking, self._light, self.evaluating = True, True, 0
        self.resting: tuple[str, ...] = ()

    def open(self) -> None:
        """Begin to listen, and to note what steps change."""
        keep_freed_pages()  # what is kept here would shape the heap, and steps fault on fresh pages
        self._handles = [
            self.optimizer.register_step_pre_hook(self._called_to_step),
            self.optimizer.register_step_post_hook(self._stepped),
        ]
        self._over = False
        self._ways = torch.Tensor.backward, torch.autograd.backward
        self._put = tuple(map(self._heard_way, self._ways))
        torch.Tensor.backward, torch.autograd.backward = self._put  # type: ignore[method-assign]
        self._listen()

    def close(self) -> None:
        """Leave torch and the optimizer as they were."""
        self._deafen()
        self._over = True  # what another watch put over it forwards from now on
        if torch.Tensor.backward is self._put[0]:
            torch.Tensor.backward = self._ways[0]  # type: ignore[method-assign]
        if torch.autograd.backward is self._put[1]:
            torch.autograd.backward = self._ways[1]
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _heard_way(self, original: Any) -> Any:
        """Return a way backward that is noted; within another it is none of the loop's own."""

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            if self._within or self._over:
                original(tensors, *args, **kwargs)
                return
            self._about_to_go_back(tensors)
            self._within = True
            try:
                original(tensors, *args, **kwargs)
            finally:
                self._within = False
            if not self.step:
                self.reached = self.backwards < EARLY and any(
                    p.grad is not None for p in self.model.parameters()
                )

        return backward

    def _about_to_go_back(self, tensors: Any) -> None:
        self._loss_now = _noted(tensors)
        if self.reached:
            self.cleared += cleared(self.model)
        self.backwards += 1
        if self._ear is not None:
            self._close_ear(self._ear)

    def _close_ear(self, ear: Ear) -> None:
        """Where no step follows, nothing must listen on; but early, gradients may be gathered."""
        heard = ear.heard
        if not heard.whole:
            return
        if heard.loss is None:
            heard.loss = self._loss_now
        first = self.heard[self.step]
        if self.step < EARLY and len(first.more) < GATHERED:
            first.more.append(more := Heard())
            ear.hear(more)
        else:
            ear.close()

    def _listen(self, *, light: bool = False) -> None:
        self.heard[self.step] = heard = Heard()
        self._ear = Ear(self.model, heard, self.loss, light=light)
        self._ear.open()

    def _deafen(self) -> None:
        if self._left:  # heard later, and left first
            self._left = [ear for ear in self._left if not ear.leave()]
        if self._ear is None:
            return
        self._ear.close()
        if not self._ear.leave():
            self._left.insert(0, self._ear)
        heard = self.heard[self.step]
        heard.more = [h for h in heard.more if h.whole]
        if heard.whole and heard.target is not None:
            self.rows += len(heard.target)
        else:
            self.called |= heard.called
            del self.heard[self.step]
            self._light &= self._ear.loss is None  # what is heard so is not enough here
        self._ear = None

    def _called_to_step(self, _: Any, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Note the step before it is taken: where it asks for the loss, once it has been told."""
        wrapped = with_closure(args, kwargs, self._about_to_step)
        if wrapped is None:
            self._about_to_step()
        return wrapped

    def _about_to_step(self) -> None:
        self.rates.append(float(self.optimizer.param_groups[0]["lr"]))
        self.losses.append(math.nan if self._loss_now is None else self._loss_now)
        self.evaluating = 0 if self.model.training else self.evaluating + 1
        if self.evaluating == RESTING:
            self.resting = resting(self.model)
        if self._ear is None:
            return
        if not self._looking:
            self._deafen()
            if (norm := self._norm()) is not None:
                self.between.append(norm)
            return
        self._look_began = time.perf_counter()
        heard = self.heard[self.step]
        heard.loss = self._loss_now if heard.loss is None else heard.loss
        self._deafen()
        if (norm := self._norm()) is not None:
            self.norms[self.step] = norm
        self._before = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self._grads = {n: None if p.grad is None else whole_of(p.grad.detach()).clone()
                       for n, p in self.model.named_parameters()}  # fmt: skip

    def _norm(self) -> Tensor | None:
        grads = [p.grad for g in self.optimizer.param_groups for p in g["params"]
                 if p.grad is not None]  # fmt: skip
        if not grads:
            return None
        return norm_of(grads)

    def _stepped(self, *_: Any) -> None:
        if self._before:
            self._look()
            self._before, self._grads = {}, {}
        self.step += 1
        self._loss_now, self.reached = None, False
        if self._look_began:
            self.looking_s += time.perf_counter() - self._look_began
            self._look_began = 0.0
        due = self.step >= self.next_look and len(self.heard) < BATCHES
        if due and self.step >= EARLY:  # a listened step costs about as much again as its look
            elapsed = time.perf_counter() - self._began
            due = 2 * self.looking_s <= SHARE * elapsed
        if self.step < EARLY or due:
            self.next_look = max(self.step + 1, int(self.step * GROWTH))
            self._looking = True
            self._listen()
        elif self.step % BETWEEN == 0 and self.rows < ENOUGH and len(self.heard) < BATCHES // 2:
            self._looking = False
            self._listen(light=self._light)

    def _look(self) -> None:
        """Note what the step changed; of the first steps also whether the gradient was fresh."""
        now = {n: p.detach() for n, p in self.model.named_parameters()}
        names = [n for n, old in self._before.items() if old.numel() and old.is_floating_point()]
        if not names:
            return
        old = [self._before[n] for n in names]
        moves = list(torch._foreach_sub([now[n] for n in names], old))  # noqa: SLF001
        known = [self._grads[n] for n in names]
        grads = [w.new_zeros(()) if g is None else g for g, w in zip(known, old, strict=True)]
        norms = [n.float() for each in (grads, old, moves) for n in norms_of(each)]
        sizes = {n: w.numel() for n, w in zip(names, old, strict=True)}
        self.looks.append((self.step, sizes, torch.stack(norms).view(3, -1)))
        heard = self.heard.get(self.step)
        if heard is not None and heard.whole and len(self.early) < EARLY:
            most = torch._foreach_norm(moves, math.inf)  # noqa: SLF001
            moved = dict(zip(names, most, strict=True))
            self.early.append(Early(heard, self._before, self._grads, moved))

    def counted(self, *, moved: bool) -> Loop:
        """Return what the loop did so far in numbers; whether a weight moved, others know."""
        felt = any(bool(norm) for norm in (*self.norms.values(), *self.between))
        return Loop(self.step, self.backwards, self.evaluating, self.resting, moved,
                    len(self.norms) + len(self.between), felt, self.cleared)  # fmt: skip

    @property
    def trace(self) -> Trace:
        """The steps so far, read from the device."""
        trace = Trace(self.step, max(1, len(self.heard)), open=True)
        trace.losses = [float(v) for v in self.losses]  # sync
        trace.rates = list(self.rates)
        dims = {n: p.ndim for n, p in self.model.named_parameters()}
        last = math.nan
        for step in range(self.step):
            last = float(self.norms[step]) if step in self.norms else last
            trace.norms.append(last)
        trace.looks = []
        for step, sizes, norms in self.looks:
            table = (norms.cpu() / torch.tensor([*sizes.values()]).sqrt()).T.tolist()
            rows = zip(sizes, table, strict=True)
            looks = {n: LayerLook(g, w, moved, dims.get(n, 2)) for n, (g, w, moved) in rows}
            trace.looks.append(Look(step, looks, {}))
        bad = [i for i, v in enumerate(trace.losses) if not math.isfinite(v)]
        trace.broken = bad[0] if bad else None
        return trace


def _noted(tensors: Any) -> Tensor | float:
    """Return a loss to be read later; a number at once where nothing has to be waited for."""
    if isinstance(tensors, Tensor) and tensors.numel() == 1:
        return tensors.item() if tensors.is_cpu else tensors.detach()
    parts = [tensors] if isinstance(tensors, Tensor) else [*tensors]
    known = [p.detach().sum() for p in parts if isinstance(p, Tensor)]
    return torch.stack(known).sum() if known and len(known) == len(parts) else math.nan
