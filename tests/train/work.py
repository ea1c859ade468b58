"""Small works that the tests of training share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from gipi import tasks
from gipi.core.config import Recipe
from gipi.core.schema import Field, Schema
from gipi.data.stream import Columns, RowStream
from gipi.train import Setup, State, fit

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = Schema((Field("y", "category", "target", classes=tuple("abc")),))


def columns(rows: int = 96, *, weight: bool = False) -> Columns:
    """Three classes that a linear model separates."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 6, generator=generator)
    w = torch.rand(rows, generator=generator) + 0.5 if weight else None
    return Columns({"numbers": x}, x[:, :3].argmax(1), w)


def streams(data: Columns, *, train: int = 64, batch: int = 16) -> tuple[RowStream, RowStream]:
    """A shuffled training stream and a validation stream of the other rows."""
    rows = len(data.target) if data.target is not None else 0
    return (
        RowStream(data, np.arange(train), batch_size=batch, seed=2),
        RowStream(data, np.arange(train, rows), batch_size=batch, shuffle=False),
    )


def net(hidden: int = 16, seed: int = 0) -> nn.Module:
    """A small MLP."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 3))


def run(
    model: nn.Module, data: Columns, *, out: Path | None = None, val: bool = True,
    observers: tuple[Any, ...] = (), **recipe: Any,
) -> State:  # fmt: skip
    """Train with plain settings."""
    train, held = streams(data)
    options = {"steps": 20, "optimizer": "adam", "lr": 0.01, **recipe}
    return fit(
        model, tasks.classify(), train, Recipe(**options), val=held if val else None, out=out,
        schema=SCHEMA, setup=Setup(), observers=observers, device="cpu",
    )  # fmt: skip


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The rows that a run wrote."""
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
