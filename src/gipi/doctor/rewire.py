"""Changes of what a model's forward pass calls, for models whose code the doctor cannot rewrite.

`Edited` stands in front of a model like any other module and sees its torch calls, by name or as
modules. It travels with the model; what a person would write instead stands in the finding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gipi.doctor.tape import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Call:
    """A torch call of a forward pass.

    kind   its name, the same for functions that compute the same
    nth    how many of its kind came before in this pass
    given  what the model was given for this pass, values of mappings one by one
    """

    kind: str
    nth: int
    func: Callable[..., Any]
    args: Any
    named: dict[str, Any]
    given: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Return the name of the function."""
        return getattr(self.func, "__name__", "")

    def result(self) -> Any:
        """Return what the call gives as it is."""
        return self.func(*self.args, **self.named)


class Edit(Protocol):
    """What is done in place of a call."""

    def __call__(self, call: Call, /) -> Any:
        """Return the result of the call, edited or not."""


class _Editing(TorchFunctionMode):
    def __init__(self, edit: Edit, given: tuple[Any, ...]) -> None:
        super().__init__()
        self.edit, self.given, self.counts = edit, given, dict[str, int]()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        kind = NAMES.get(name, name)
        nth = self.counts.get(kind, 0)
        self.counts[kind] = nth + 1
        return self.edit(Call(kind, nth, func, args, kwargs or {}, self.given))


class Around(nn.Module):
    """A module around a model, through which the model's own attributes are still reached.

    A user's step may speak of ``exp.model.head``.
    """

    model: nn.Module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model" or name.startswith("__"):
                raise
            return getattr(super().__getattr__("model"), name)


class Edited(Around):
    """A model whose calls go through an edit."""

    def __init__(self, model: nn.Module, edit: Edit) -> None:
        super().__init__()
        self.model, self.edit = model, edit

    def _forward(self, *given: Any, **named: Any) -> Any:
        flat = [v for a in (*given, *named.values())
                for v in (a.values() if isinstance(a, dict) else (a,))]  # fmt: skip
        with _Editing(self.edit, tuple(flat)):
            return self.model(*given, **named)

    forward = _forward  # takes whatever the model takes


class Ended(Around):
    """A model and a function of its outputs, such as their logarithm."""

    def __init__(self, model: nn.Module, end: nn.Module) -> None:
        super().__init__()
        self.model, self.end = model, end

    def _forward(self, *given: Any, **named: Any) -> Any:
        return self.end(self.model(*given, **named))

    forward = _forward  # takes whatever the model takes


@dataclass(frozen=True)
class Skip:
    """The nth call of a kind is left out: its first argument is its result."""

    kind: str
    nth: int

    def __call__(self, call: Call) -> Any:
        """Return the result of the call, edited or not."""
        if (call.kind, call.nth) == (self.kind, self.nth) and call.args:
            return call.args[0]
        return call.result()


@dataclass(frozen=True)
class KeepGraph:
    """Nothing is detached: `detach()` and `no_grad()` within the forward pass do nothing."""

    def __call__(self, call: Call) -> Any:
        """Return the result of the call, edited or not."""
        if call.kind == "detach":
            return call.args[0]
        if call.kind == "_set_grad_enabled" and call.args and call.args[0] is False:
            return None
        return call.result()


@dataclass(frozen=True)
class NoFuture:
    """No query of self-attention sees a later key, whoever computes the attention.

    T queries and T keys: scores above the diagonal are -inf before the softmax.
    """

    def __call__(self, call: Call) -> Any:
        """Return the result of the call, edited or not."""
        name, func, args, named = call.name, call.func, call.args, call.named
        if name == "softmax" and isinstance(args[0], Tensor) and _square(args[0]):
            hidden = _later(args[0].shape[-1], args[0].device)
            return func(args[0].masked_fill(hidden, -torch.inf), *args[1:], **named)
        if name == "scaled_dot_product_attention":
            return _sdpa(func, args, named)
        if name == "multi_head_attention_forward":
            q, k = args[0], args[1]
            if q.shape[0] == k.shape[0]:
                hidden = _later(q.shape[0], q.device)
                old = named.get("attn_mask")
                if old is not None and old.is_floating_point():
                    named = {**named, "attn_mask": old.masked_fill(hidden, -torch.inf)}
                else:
                    named = {**named, "attn_mask": hidden if old is None else old | hidden}
                padding = named.get("key_padding_mask")
                mask = named["attn_mask"]
                if padding is not None and padding.dtype != mask.dtype:
                    named["attn_mask"] = torch.zeros_like(mask, dtype=padding.dtype).masked_fill(
                        mask, -torch.inf
                    )
                named = {**named, "is_causal": False}
        return func(*args, **named)


def _sdpa(func: Any, args: Any, named: Any) -> Any:
    q, k, v = args[:3]
    if q.shape[-2] != k.shape[-2]:
        return func(*args, **named)
    mask = args[3] if len(args) > 3 else named.get("attn_mask")
    seen = ~_later(q.shape[-2], q.device)
    if mask is not None:
        seen = mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)
    more = {k_: v_ for k_, v_ in named.items() if k_ in ("dropout_p", "scale", "enable_gqa")}
    if len(args) > 4:
        more["dropout_p"] = args[4]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, **more)


@dataclass(frozen=True)
class OtherSense:
    """Masks of keys are taken in the other sense: what was hidden is seen and the reverse.

    which  "padding": masks of keys, the same for all queries; "time": masks of (query, key)
    """

    which: str = "padding"

    def __call__(self, call: Call) -> Any:
        """Return the result of the call, edited or not."""
        name, func, args, named = call.name, call.func, call.args, call.named
        if name == "multi_head_attention_forward":
            key = "key_padding_mask" if self.which == "padding" else "attn_mask"
            if isinstance(named.get(key), Tensor):
                named = {**named, key: _turned(named[key]), "is_causal": False}
        elif name == "scaled_dot_product_attention":
            if len(args) > 3 and isinstance(args[3], Tensor):
                args = (*args[:3], _turned(args[3]), *args[4:])
            elif isinstance(named.get("attn_mask"), Tensor):
                named = {**named, "attn_mask": _turned(named["attn_mask"])}
        elif name in ("masked_fill", "masked_fill_") and _is_low(args, named):
            flag = args[1] if len(args) > 1 else named["mask"]
            if flag.dtype == torch.bool and isinstance(args[0], Tensor) and _square(args[0]):
                return func(args[0], ~flag, *args[2:],
                            **{k: v for k, v in named.items() if k != "mask"})  # fmt: skip
        return func(*args, **named)


@dataclass(frozen=True)
class OtherPads:
    """Comparisons of tokens with padding are taken in the other sense, wherever they lead.

    pad  the token

    Only what the model was given is turned, the same numbers or a part of it: other whole numbers,
    such as segments or a mask, are compared with the same number as well.
    """

    pad: int

    def __call__(self, call: Call) -> Any:
        """Return the result of the call, edited or not."""
        said, args, named = call.result(), call.args, call.named
        if call.name.strip("_") not in ("eq", "ne", "not_equal"):
            return said
        tokens = args[0] if args else named.get("input", named.get("self"))
        other = args[1] if len(args) > 1 else named.get("other")
        if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.is_floating_point():
            return said
        if not any(_same_tokens(tokens, x) for x in call.given):
            return said
        if isinstance(other, Tensor):
            other = other.item() if other.ndim == 0 else None
        return ~said if isinstance(said, Tensor) and other == self.pad else said


def _same_tokens(one: Tensor, other: Any) -> bool:
    """Whether two tensors hold the same numbers, in the same places or turned, or one is a part."""
    if not isinstance(other, Tensor) or other.ndim != 2:
        return False
    if one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr():
        return True  # some columns of it: one field of a row
    return torch.equal(one, other) or torch.equal(one, other.T)


def _is_low(args: Any, named: Any) -> bool:
    value = args[2] if len(args) > 2 else named.get("value")
    return isinstance(value, (int, float)) and value < -100


def _turned(mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return ~mask
    return torch.zeros_like(mask).masked_fill(mask == 0, -torch.inf)


def _square(scores: Tensor) -> bool:
    return scores.ndim >= 3 and scores.shape[-1] == scores.shape[-2] and scores.shape[-1] > 1


def _later(places: int, device: torch.device) -> Tensor:
    return torch.ones(places, places, dtype=torch.bool, device=device).triu(1)


class Log(nn.Module):
    """log p of probabilities, which is what a loss of logits takes them back from."""

    def forward(self, p: Tensor) -> Tensor:
        """Return log p, not below log 1e-12."""
        return p.clamp_min(1e-12).log()


class LogOdds(nn.Module):
    """log p / (1 - p) of probabilities of independent classes."""

    def forward(self, p: Tensor) -> Tensor:
        """Return the log-odds, within -16..16."""
        return torch.logit(p, eps=1e-7)


class Scaled(nn.Module):
    """shift + scale * outputs: for an end whose range is too small for the targets."""

    def __init__(self, shift: float, scale: float) -> None:
        super().__init__()
        self.shift, self.scale = shift, scale

    def forward(self, said: Tensor) -> Tensor:
        """Return the outputs in the targets' range."""
        return self.shift + self.scale * said


def replace_module(model: nn.Module, name: str, *, by: nn.Module) -> None:
    """Put a module in the place of another one."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, by)
