"""Runs whose net remembers: a state is carried from batch to batch, and is part of a checkpoint.

A stream that goes on row by row says in how many `places` it does; its batches hold `place` (B,)
and `fresh` (B,) beside the tokens. What is remembered is emptied at the beginning of each epoch
(all rows are fresh), and an evaluation has a memory of its own.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gipi.core import dist
from gipi.core.errors import ConfigError
from gipi.nn import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from gipi.core.batch import Stream
    from gipi.core.config import Recipe


def places_of(stream: Stream) -> int:
    """Return in how many places a stream goes on from batch to batch; 0 where it does not."""
    return int(getattr(stream, "places", 0))


def memories(model: nn.Module) -> dict[str, Memory]:
    """Return the memories of a model by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Memory)}


def check_carries(model: nn.Module, recipe: Recipe) -> None:
    """Raise `ConfigError` where no state can be carried: nobody to carry it, or several at once."""
    if not memories(model):
        raise ConfigError(
            f"carry=true for a {type(model).__name__}, which has no state to carry",
            "a recurrent net that reads in one direction: rnn, lstm or gru",
            "choose one with --model lstm, or leave carry out",
        )
    if recipe.optimizer == "lbfgs":  # it reads a batch several times: each time would go on
        raise ConfigError(
            "carry=true with the optimizer lbfgs", "one forward pass a batch",
            "use --optimizer adamw, or leave carry out",
        )  # fmt: skip
    if dist.world() > 1:
        raise ConfigError(
            f"carry=true on {dist.world()} ranks", "one process, which holds all states",
            "train in one process, or leave carry out",
        )  # fmt: skip


def hold(model: nn.Module, train: Stream, recipe: Recipe) -> None:
    """Make room for the states of the stream's rows; raise what `check_carries` raises."""
    places = places_of(train)
    if places:
        check_carries(model, recipe)
    for memory in memories(model).values():
        memory.hold(places)


@contextmanager
def apart(model: nn.Module, stream: Stream) -> Iterator[None]:
    """Give the model a memory for another stream inside the block, and its own back after it."""
    held = [(memory, memory.h, memory.c) for memory in memories(model).values()]
    for memory, _, _ in held:
        memory.hold(places_of(stream))
    try:
        yield
    finally:
        for memory, h, c in held:
            memory.h, memory.c = h, c


def remembered(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Return what a model remembers, by the names of its memories; empty where that is nothing."""
    return {name: m.content() for name, m in memories(model).items() if m.places}


def remind(model: nn.Module, content: Mapping[str, Any]) -> None:
    """Put back what `remembered` returned; raise `RuntimeError` where it does not fit."""
    for name, memory in memories(model).items():
        if name in content:
            memory.restore(content[name])
