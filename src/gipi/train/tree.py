"""Nested state as JSON plus tensors, both exact: what checkpoints are made of.

`pack` walks dicts, lists, tuples and scalars and puts each tensor aside under a name; `unpack` puts
them back. Tensors that share storage are stored once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_SCALARS = (str, int, float, bool, type(None))


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` as JSON-able values; its tensors go into `tensors` under names below `name`.

    Raises `TypeError` for anything that is neither a container, a scalar nor a tensor.
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        pairs = [[k, pack(v, f"{name}.{k}", tensors)] for k, v in value.items()]
        return {"dict": pairs}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [pack(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    if isinstance(value, _SCALARS):
        return value
    raise TypeError(f"{name}: a {type(value).__name__} cannot be stored")


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Rebuild what `pack` took apart."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {k: unpack(v, tensors) for k, v in content}
    items = [unpack(v, tensors) for v in content]
    return items if kind == "list" else tuple(items)


def stored_once(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return contiguous CPU copies with each shared tensor kept once, and alias -> kept name."""
    kept: dict[str, Tensor] = {}
    alias: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and key in seen:
            alias[name] = seen[key]
            continue
        seen[key] = name
        kept[name] = tensor.detach().to("cpu", copy=False).contiguous()
    return kept, alias


def like(source: Tensor, pattern: Tensor) -> Tensor:
    """Return a copy of `source` on the device and in the memory layout of `pattern`.

    Fused optimizers walk flat memory: their moments must lie as their parameter does.
    """
    if source.shape != pattern.shape:
        return source.to(pattern.device) if source.ndim else source.clone()
    new = torch.empty_like(pattern, dtype=source.dtype, memory_format=torch.preserve_format)
    new.copy_(source)
    return new
