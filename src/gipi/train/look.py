"""A first look at training rows, for models that make their first layer from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from gipi.core.batch import Stream

LOOK_ROWS = 4096
"""Training rows that a model sees at its first look."""


def first_look(model: nn.Module, train: Stream, device: torch.device) -> None:
    """Call ``model.first_look(*inputs)`` with rows of the first epoch, where the model wants it.

    Inputs are those of whole batches, `LOOK_ROWS` rows or a little more. Once, before the first
    step of a run; a resumed run finds the weights in its checkpoint.
    """
    look = getattr(model, "first_look", None)
    if look is None:
        return
    rows, seen = 0, []
    for batch in train.epoch(0):
        seen.append([value.clone() for value in batch.inputs.values()])
        rows += len(batch)
        if rows >= LOOK_ROWS:
            break
    look(*(torch.cat(column).to(device) for column in zip(*seen, strict=True)))
