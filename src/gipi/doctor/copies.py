"""Experiments put aside and taken back: in place for probes, as a deep copy for repairs."""

from __future__ import annotations

import copy
import random
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from gipi.doctor.guard import count_from, counted_anew, counts_of
from gipi.doctor.numpys import numpy_stands, put_numpy
from gipi.doctor.rebound import rebound
from gipi.doctor.seeded import seeded, unmoved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from gipi.doctor.experiment import Experiment


@dataclass
class Saved:
    """Everything of an experiment that training changes, by value."""

    tensors: list[tuple[Tensor, Tensor]]
    grads: list[tuple[nn.Parameter, Tensor | None]]
    modes: list[tuple[nn.Module, bool]]
    optimizer: dict[str, Any]
    rates: list[dict[str, Any]]
    scheduler: dict[str, Any] | None
    rng: tuple[Tensor, Any, Any]
    counts: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes that the saved weights take."""
        return sum(old.numel() * old.element_size() for _, old in self.tensors)


def save(exp: Experiment) -> Saved:
    """Return a copy of weights, buffers, gradients, modes, optimizer, scheduler and generators."""
    modules = _modules(exp)
    held = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    groups = [
        {k: copy.copy(v) for k, v in g.items() if k != "params"} for g in exp.optimizer.param_groups
    ]
    return Saved(
        [(t, t.detach().clone()) for t in held],
        [(p, None if p.grad is None else p.grad.detach().clone())
         for m in modules for p in m.parameters()],
        [(m, m.training) for m in exp.model.modules()],
        by_value(exp.optimizer.state_dict()),
        groups,
        copy.deepcopy(exp.scheduler.state_dict()) if hasattr(exp.scheduler, "state_dict") else None,
        generators(),
        counts_of(exp.step),
    )  # fmt: skip


def restore(exp: Experiment, saved: Saved) -> None:
    """Put back what `save` copied, bit for bit and in place."""
    put_back(saved.tensors)
    for param, grad in saved.grads:
        param.grad = None if grad is None else grad.clone()
    for module, mode in saved.modes:
        module.training = mode
    exp.optimizer.load_state_dict(by_value(saved.optimizer))
    for group, rates in zip(exp.optimizer.param_groups, saved.rates, strict=True):
        group.update(rates)
    if saved.scheduler is not None:
        exp.scheduler.load_state_dict(copy.deepcopy(saved.scheduler))
    put_generators(saved.rng)
    count_from(exp.step, saved.counts)


@contextmanager
def peeking(
    exp: Experiment, *, weights: Iterable[Tensor] = (), seed: bool = False
) -> Iterator[None]:
    """Put back what passes within change, where no step is taken.

    What `left_alone` puts back, gradients (none within), and the weights that are named. It costs a
    part of `untouched`, which copies every weight and the optimizer.

    seed  draw within from the experiment's seed
    """
    kept = [(w, w.detach().clone()) for w in weights]
    held = [p for part in _every_part(exp) for p in part._parameters.values()]  # noqa: SLF001
    grads = [(p, p.grad) for p in held if p is not None]
    for param, _ in grads:
        param.grad = None
    with left_alone(exp, seed=seed):
        try:
            yield
        finally:
            put_back(kept)
            for param, grad in grads:
                param.grad = grad


@contextmanager
def left_alone(exp: Experiment, *, seed: bool = False) -> Iterator[None]:
    """Put back what looking moves when nobody minds it: buffers, modes, and all generators.

    A loss may count what it is asked, and a loader that is only begun draws its order.

    seed  draw within from the experiment's seed
    """
    parts = _every_part(exp)
    held = [b for part in parts for b in part._buffers.values()]  # noqa: SLF001
    kept = [(b, b.detach().clone()) for b in held if b is not None and not is_lazy(b)]
    modes = [(part, part.training) for part in parts]
    with seeded(exp) if seed else unmoved(exp):
        try:
            yield
        finally:
            put_back(kept)
            for module, mode in modes:
                if module.training != mode:  # setting it takes ten times as long
                    module.training = mode


def _every_part(exp: Experiment) -> list[nn.Module]:
    """Return the modules within model and loss; their own lists take far longer to walk through."""
    return [part for m in _modules(exp) for part in m.modules()]


def put_back(kept: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Write what tensors held into them again, in place.

    A tensor that was expanded holds one number for many places: it is written once.
    """
    with torch.no_grad():
        for tensor, old in kept:
            if tensor.layout is torch.strided and 0 in tensor.stride():
                once = tuple(slice(0, 1) if s == 0 else slice(None) for s in tensor.stride())
                tensor[once].copy_(old[once])
            else:
                tensor.copy_(old)


def _modules(exp: Experiment) -> list[nn.Module]:
    return [exp.model, *([exp.loss] if isinstance(exp.loss, nn.Module) else [])]


def weights_of(exp: Experiment) -> list[Tensor]:
    """Return weights and buffers of the model, and of a loss that has some."""
    return [t for m in _modules(exp) for t in (*m.parameters(), *m.buffers()) if not is_lazy(t)]


def generators() -> tuple[Tensor, Any, Any]:
    """Return where torch's, Python's and NumPy's generators stand."""
    return torch.get_rng_state(), random.getstate(), numpy_stands()


def put_generators(state: tuple[Tensor, Any, Any]) -> None:
    """Put them back there."""
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    put_numpy(state[2])


@contextmanager
def untouched(exp: Experiment) -> Iterator[None]:
    """Whatever happens within, the experiment is afterwards what it was."""
    saved = save(exp)
    try:
        yield
    finally:
        restore(exp, saved)


def duplicate(exp: Experiment) -> Experiment:
    """Return a copy that shares nothing with `exp` but its data and functions.

    A step, a loss or an evaluation that reaches the model by a closure, a global name or an
    attribute instead of through the experiment reaches the copy (see `rebound`).
    """
    memo: dict[int, Any] = {}
    model = copy.deepcopy(exp.model, memo)
    own = isinstance(exp.loss, nn.Module)
    loss = copy.deepcopy(exp.loss, memo) if own else rebound(exp.loss, memo)
    optimizer = copy.deepcopy(exp.optimizer, memo)  # its parameters are found in the memo
    for key, value in vars(exp.optimizer).items():  # what an optimizer keeps beside its state
        if key not in vars(optimizer) and not callable(value) and not key.startswith("_optimizer_"):
            setattr(optimizer, key, copy.deepcopy(value, memo))
    scheduler = copy.deepcopy(exp.scheduler, memo)
    twin = replace(exp, model=model, loss=loss, optimizer=optimizer, scheduler=scheduler,
                   declared=dict(exp.declared),
                   step=rebound(counted_anew(exp.step), memo),
                   evaluate=rebound(exp.evaluate, memo))  # fmt: skip
    twin.judge = exp.judge
    return twin


def renewed_optimizer(exp: Experiment) -> None:
    """Give the experiment's optimizer the parameters that its changed model has, options kept.

    Parameters that are new join the first group; a scheduler goes on with the same groups.
    """
    known = {id(p): i for i, g in enumerate(exp.optimizer.param_groups) for p in g["params"]}
    now = {id(p): p for p in exp.model.parameters()}
    for group in exp.optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) in now]
    fresh = [p for key, p in now.items() if key not in known and p.requires_grad]
    exp.optimizer.param_groups[0]["params"].extend(fresh)
    for param in list(exp.optimizer.state):
        if id(param) not in now:
            del exp.optimizer.state[param]


def by_value(state: Any) -> Any:
    """Return a copy of a state dict: as deep as `copy.deepcopy`, in a part of its time."""
    if type(state) is torch.Tensor and not state.requires_grad:
        return state.clone()
    if type(state) is dict:
        return {k: by_value(v) for k, v in state.items()}
    if type(state) in (tuple, list):
        return type(state)(by_value(v) for v in state)
    return state if type(state) in (int, float, bool, str, type(None)) else copy.deepcopy(state)


def on_cpu(state: Any) -> Any:
    """Return a copy of a state dict in the computer's memory."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {k: on_cpu(v) for k, v in state.items()}
    if isinstance(state, (tuple, list)):
        return type(state)(on_cpu(v) for v in state)
    return copy.deepcopy(state)
