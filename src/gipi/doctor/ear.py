"""One step of a loop, heard: what its model was given and said, and what the loss compared.

Hooks on the model, and torch's own functions while they are listened to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gipi.doctor.compared import Call, Compared, Made, Path, carried, compared, tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable


TRUTHS = frozenset(("labels", "label", "targets", "target", "y"))
"""Names by which a model that makes its loss itself is given the truth."""


@dataclass
class Heard:
    """One step that was listened to: what went in, came out, was compared, and its loss."""

    inputs: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    """Shape of the outputs."""
    part: Path = ()
    """Where among the outputs stands what the loss compared: keys, places, names."""
    carried: Path | None = None
    """Where among the outputs the loss itself stands, of a model that makes it within."""
    compared: Compared | None = None
    """The loss of `torch.nn` that was called, if it was one."""
    by: str = ""
    """Name of the function that took outputs and target together."""
    target: Tensor | None = None
    loss: Tensor | float | None = None
    more: list[Heard] = field(default_factory=list)
    """Further batches whose gradients were gathered for the same step."""
    rng: Tensor | None = None
    """State of the CPU's generator before the model was called: its dropout can be drawn again."""
    training: bool = True
    flat: bool = False
    """Whether the loss was given the places of all rows in one."""
    further: bool = False
    """Whether weights that are not the model's came between its outputs and the loss."""

    @property
    def whole(self) -> bool:
        """Whether inputs and target are known."""
        return self.called and self.target is not None

    @property
    def called(self) -> bool:
        """Whether the model was given anything."""
        return bool(self.inputs or self.named)


class Ear(TorchFunctionMode):
    """Hears the first call of the model, and the first function that compares its outputs.

    Calls without gradients are no training. A call in training mode takes the place of one in
    evaluation mode: rows that are judged between steps are not what is learned from.

    A loss compares outputs with a target, whatever its name: the first function that takes the
    outputs, or a view of them, together with a tensor that is neither weight nor made of them.

    light  hear only what a loss that is a module is given, and no function: that costs a part of
           it, and hears nothing where outputs are changed on their way to the loss
    """

    def __init__(
        self, model: nn.Module, heard: Heard, loss: Any = None, *, light: bool = False
    ) -> None:
        super().__init__()
        self.model, self.heard, self.deaf = model, heard, False
        self.unknown = loss is carried
        self.loss = loss if light and isinstance(loss, nn.Module) else None
        modules = [model, loss] if isinstance(loss, nn.Module) else [model]
        heard_of = modules if self.loss is None else []  # at a loss's door nobody asks for weights
        self.weights = {id(p) for m in heard_of for p in (*m.parameters(), *m.buffers())}
        self.said = False
        self.made: dict[int, Made] = {}
        self._handles: list[Any] = []
        self._around: list[TorchFunctionMode] = []
        self._entered = False

    def open(self) -> None:
        """Begin to listen."""
        self._handles = [
            self.model.register_forward_pre_hook(self._given, with_kwargs=True),
            self.model.register_forward_hook(self._said),
        ]
        self._around = torch.overrides._get_current_function_mode_stack()  # noqa: SLF001
        if self.loss is not None:
            self._handles.append(self.loss.register_forward_pre_hook(self._compared))

    def hear(self, heard: Heard) -> None:
        """Hear the next call of the model for the same step."""
        self.leave()
        self.heard, self.said = heard, False
        self.made.clear()

    def close(self) -> None:
        """Stop; where another mode was entered since and is still on, only stop to hear."""
        self.deaf = True
        self.made.clear()  # nothing of the graph is held
        for handle in self._handles:
            handle.remove()
        self.leave()

    def _come(self) -> None:
        """Hear torch's functions, from the outputs on, where nothing else was begun meanwhile.

        Not within the model: one that is compiled would be compiled anew for every ear.
        """
        stack = torch.overrides._get_current_function_mode_stack()  # noqa: SLF001
        if self.loss is None and not self.deaf and stack == self._around:
            self.__enter__()
            self._entered = True

    def leave(self) -> bool:
        """Hear torch's functions no more; False where that must wait, since others hear later."""
        stack = torch.overrides._get_current_function_mode_stack()  # noqa: SLF001
        if stack and stack[-1] is self:
            self.__exit__(None, None, None)
            self._entered = False
        return not self._entered

    def _given(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.leave()
        if not torch.is_grad_enabled():
            return
        heard = self.heard
        judged = self.model.training and not heard.training
        if judged or (not heard.inputs and not heard.named):
            heard.inputs, heard.named = _kept(args), _kept(kwargs)
            heard.target, heard.shape, heard.flat, heard.further = None, (), False, False
            heard.part, heard.carried, heard.compared, heard.by = (), None, None, ""
            self.said = False
            heard.rng, heard.training = torch.get_rng_state(), self.model.training
            self.made.clear()

    def _said(self, _: nn.Module, __: Any, said: Any) -> None:
        if not torch.is_grad_enabled():
            return
        if self.said:
            self._come()
            return
        self.said = True
        made = dict(tensors_of(said))
        self.made = {id(t): Made(t, path, ()) for path, t in made.items()}
        lost = [path for path, t in made.items() if t.numel() == 1 and t.requires_grad
                and (not t.ndim or path[-1:] == ("loss",))]  # fmt: skip
        if lost and (target := _truth(self.heard)) is not None:
            named = [path for path in lost if path[-1:] == ("loss",)]
            self.heard.target, self.heard.carried = target, (named or lost)[0]
        if self.heard.target is None:
            self._come()

    def _compared(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        if len(args) > 1 and id(args[0]) in self.made and self.heard.target is None:
            self._take(args[0], [a for a in args[1:2] if isinstance(a, Tensor)])

    def _take(self, outputs: Tensor, others: list[Tensor]) -> bool:
        """Note the target that outputs were compared with, if there is one among the others."""
        others = [a for a in others if a.ndim and not a.requires_grad]
        if not others or not outputs.ndim or len(others[0]) != len(outputs):
            return False
        target = others[0].detach()
        self.heard.part = self.made[id(outputs)].path
        self.heard.shape = next(tuple(m.tensor.shape) for m in self.made.values()
                                if m.path == self.heard.part)  # as the model said it  # fmt: skip
        rows = by_rows(target, self.heard.shape)
        self.heard.target, self.heard.flat = target if rows is None else rows, rows is not None
        return True

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.deaf or not self.made or self.heard.target is not None:
            return result
        given = [a for a in (*args, *(kwargs or {}).values()) if isinstance(a, Tensor)]
        passed = next((a for a in given if id(a) in self.made), None)
        if passed is None:
            return result
        others = [a for a in given if id(a) not in self.made and id(a) not in self.weights]
        self.heard.further |= any(
            a.is_leaf and (a.requires_grad or isinstance(a, nn.Parameter)) for a in others
        )
        made = self.made[id(passed)]
        if self._take(passed, others):
            self.heard.by = getattr(func, "__name__", "")
            if self.unknown:
                self.heard.compared = compared(func, args, kwargs or {}, made)
        elif isinstance(result, Tensor):
            way = (
                None
                if made.way is None or len(given) > 1
                else (*made.way, Call.of(func, args, kwargs or {}, passed))
            )
            self.made[id(result)] = Made(result, made.path, way)
        return result


def _truth(heard: Heard) -> Tensor | None:
    """Return the target among what a model that makes its loss itself was given."""
    named = [v for k, v in heard.named.items() if k in TRUTHS]
    given = [*heard.inputs, *heard.named.values()]
    rows = [v for v in (named or given) if isinstance(v, Tensor) and v.ndim]
    return rows[-1] if rows else None


def _kept(value: Any) -> Any:
    """Return what was given, without a graph."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (tuple, list)):
        return tuple(_kept(v) for v in value)
    if isinstance(value, dict):
        return {k: _kept(v) for k, v in value.items()}
    return value


def by_rows(target: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Return targets of outputs (N, T, C) that were made flat by rows again; None for others."""
    places = math.prod(shape[:-1])
    if len(shape) < 3 or len(target) != places or len(target) == shape[0]:
        return None
    if target.ndim == 1 or target.shape[1:] == shape[-1:]:
        return target.reshape(*shape[:-1], *target.shape[1:])
    return None
