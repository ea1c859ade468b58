"""Running statistics: a step left out must not touch them, a batch of one row has none."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn.parameter import is_lazy

from gipi.core.errors import ConfigError
from gipi.nn import mixes_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from gipi.core.batch import Batch, Stream
    from gipi.core.config import Recipe
    from gipi.tasks import Task

LARGEST = 1 << 16
"""Elements of a buffer above which it is taken for a constant (a mask, a table of positions)."""


class Kept:
    """The floating-point buffers of a model as they were before a step.

    A forward pass in training writes the running mean and variance of batch norm before anyone can
    know that the loss is not finite; one NaN would stay in them for good. `keep` copies them flat
    (one kernel), `restore` puts them back where the step was bad, on a GPU without a sync.
    """

    def __init__(self, buffers: list[Tensor]) -> None:
        self.buffers = buffers
        self._sizes = [b.numel() for b in buffers]
        self._flat = [b.detach().view(-1) for b in buffers]
        self._before: Tensor | None = None

    def keep(self) -> None:
        """Remember the buffers."""
        self._before = torch.cat(self._flat)

    @torch.no_grad()
    def restore(self, bad: Tensor | None = None) -> None:
        """Put the remembered values back; with `bad` (a flag on the device) only where it is 1."""
        if self._before is None:
            return
        flat = self._before
        if bad is not None:
            flat = torch.where(bad > 0, flat, torch.cat(self._flat))
        pieces = flat.split(self._sizes)
        torch._foreach_copy_(
            self.buffers, [p.view(b.shape) for p, b in zip(pieces, self.buffers, strict=True)]
        )


def kept_of(model: nn.Module) -> Kept | None:
    """Return the keeper of a model's running statistics, or None where it has none."""
    found = [
        b
        for b in model.buffers()
        if b.is_floating_point() and b.is_contiguous() and 0 < b.numel() <= LARGEST
    ]
    return Kept(found) if found else None


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Undo what a forward pass inside the block does to the model, and to the random state.

    Counters, statistics and data-dependent initialisations write into buffers and parameters of
    any kind, in place or by a new tensor under the old name; both come back.
    """
    held: list[tuple[dict[str, Tensor | None], str, Tensor, Tensor]] = []
    copies: dict[int, Tensor] = {}
    for module in model.modules():
        tables: tuple[dict[str, Tensor | None], ...] = (module._buffers, module._parameters)  # type: ignore[assignment]  # noqa: SLF001
        for table in tables:
            for name, tensor in table.items():
                if tensor is None or is_lazy(tensor) or tensor.is_inference():
                    continue
                before = copies.setdefault(id(tensor), tensor.detach().clone())
                held.append((table, name, tensor, before))
    devices = {p.device.index for p in model.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=[d for d in devices if d is not None]):
        try:
            yield
        finally:
            with torch.no_grad():
                for table, name, tensor, before in held:
                    table[name] = tensor
                    if not torch.equal(tensor, before):  # versions miss what batch norm writes
                        tensor.copy_(before)


def check_last_batch(
    model: nn.Module, task: Task, train: Stream, recipe: Recipe, first: Batch
) -> None:
    """Raise `ConfigError` where an epoch ends with one row and batch norm cannot take one alone.

    Whether it can depends on the shapes (an image has many pixels a channel), so it is tried.
    """
    last = train.rows % train.batch_size or train.batch_size if train.steps else 0
    micro = recipe.micro_batch or last
    if 1 not in (last, last % max(micro, 1), train.batch_size, micro) or not mixes_rows(model):
        return
    try:
        with untouched(model), torch.no_grad():
            task.phases[0].loss(model, first.slice(0, 1))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"{train.rows} rows in batches of {train.batch_size} leave a batch of one row, and "
            f"{mixes_rows(model)[0]} has no variance of one row",
            "at least two rows in each batch for batch norm",
            f"use batch_size={train.batch_size + 1}, or layer norm",
        ) from error
