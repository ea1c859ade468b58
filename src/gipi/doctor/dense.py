"""Whether targets at every place belong to inputs at that place: masks, clean pictures, tags.

A linear look at a place and its neighbours tells something of nearly every such target. The same
look at the targets of other rows, at the same places, is what chance tells.

Shapes: n rows, p features of a place, k columns of targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from gipi.doctor.shallow import ask_ridge, ridge
from gipi.doctor.sheet import MOST_CLASSES, cpu, is_tokens, noted, origin

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

ROWS, PLACES, ORDERS = 400, 16, 30
"""Rows and places of each that are looked at, and orders of the rows that are chance."""
WORDS = 100
SIDE = 3


def z_at_places(facts: Facts) -> float | None:
    """Return by how many deviations places tell their targets better than those of other rows.

    None where targets are not given place by place.
    """
    data = origin(facts).train
    if data is None or not at_places(facts):
        return None
    X, y = cpu(data[0])[:ROWS], cpu(data[1])[:ROWS]
    target = _columns(y if y.ndim == 4 else y[:, None])
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(target.shape[1], generator=generator)[:PLACES]
    seen = _of_pictures(X, some) if X.ndim == 4 else _of_words(X)[:, some]
    return _z(seen, target[:, some])


def at_places(facts: Facts) -> bool:
    """Whether targets are given place by place."""
    data = origin(facts).train
    if data is None or not isinstance(data[0], Tensor) or not isinstance(data[1], Tensor):
        return False
    X, y = data
    if len(X) < 2 or facts.kind == "reconstruct":
        return False
    if X.ndim == 4:
        return y.ndim in (3, 4) and y.shape[-2:] == X.shape[-2:]
    return is_tokens(X) and y.ndim == 2 and y.shape == X.shape[:2]


def _of_pictures(X: Tensor, some: Tensor) -> Tensor:
    """Return (n, places, p): what stands around some of the pixels."""
    parts = [F.unfold(part, SIDE, padding=SIDE // 2)[:, :, some] for part in X.float().split(16)]
    around = torch.cat(parts).transpose(1, 2)
    mean, std = around.mean((0, 1)), around.std((0, 1)).clamp_min(1e-9)
    around = ((around - mean) / std).clamp(-5, 5)
    both: Tensor = torch.cat([around, around.square()], 2)
    return both


def _of_words(X: Tensor) -> Tensor:
    ids, counts = torch.unique(X, return_counts=True)
    often = ids[counts.argsort(descending=True)[:WORDS]]
    there: Tensor = (X[:, :, None] == often).float()
    return there


def _columns(y: Tensor) -> Tensor:
    """Return (n, places, k): numbers, or which class, at every place."""
    flat = y.flatten(2).transpose(1, 2)
    if flat.is_floating_point():
        return torch.nan_to_num(flat[..., :MOST_CLASSES].float())
    ids, counts = torch.unique(flat[flat >= 0], return_counts=True)
    known = ids[counts.argsort(descending=True)[:MOST_CLASSES]]
    which: Tensor = (flat[..., :1] == known).float()
    return which


def _z(seen: Tensor, target: Tensor) -> float:
    generator = torch.Generator().manual_seed(1)
    n, k = len(target), target.shape[2]
    orders = [torch.randperm(n, generator=generator) for _ in range(ORDERS)]
    versions = tuple(target[order].reshape(-1, k) for order in orders)
    answer, others = ask_ridge(ridge(seen.flatten(0, 1)), target.reshape(-1, k), more=versions)
    spread = max(float(others.std()), 1e-4)
    return (answer.score - float(others.mean())) / spread


def told_nothing(facts: Facts, least: float) -> bool:
    """Whether targets are given place by place and no place tells its own."""
    z = noted(facts, "targets at places", z_at_places)
    return z is not None and z < least
