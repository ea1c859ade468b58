"""Tagging: a tag for each word, entities as runs of tags.

Shapes: B rows, T positions, K tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi import losses, metrics
from gipi.core.errors import ConfigError
from gipi.nn import Chain, best_tags, chain_loss
from gipi.tasks.task import Loss, Phase, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema

IGNORED = -100


def tag(*, label_smoothing: float = 0.0) -> Task:
    """Return the task of giving each word a tag: O, or B-type and I-type of an entity.

        a model that returns a `Chain`:  l = log Σ exp s(y) - s(true tags) of a sentence
        one that returns logits:         l = -Σ_t log softmax(z_t)_true

    Both are divided by the number of tagged words. The best tags of a chain are Viterbi's.

    outputs  (B, T) float: the tag's place in the classes plus 1, 0 where no word begins
    target   (B, T) int64, -100 where no word begins
    label_smoothing  ε of the logits' targets; a chain has none

    Lample et al. 2016, arXiv:1603.01360. Raises `ConfigError` for ε outside of [0, 1).
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(
            f"task.label_smoothing={label_smoothing}", "a number in [0, 1)", "0.1 is usual"
        )

    def loss(model: nn.Module, batch: Batch) -> Loss:
        assert batch.target is not None
        found = model(*batch.inputs.values())
        if isinstance(found, Chain):
            total, count = chain_loss(found, batch.target, weight_B=batch.weight)
        else:
            total, count = losses.token_cross_entropy(
                found, batch.target, batch.weight, label_smoothing=label_smoothing
            )
        with torch.no_grad():
            said = _best(found, batch.target != IGNORED)
        return Loss(total, count, said)

    def measured(schema: Schema | None) -> list[metrics.Metric]:
        tags = schema.classes if schema is not None else ()
        if not tags:
            return []
        return [
            metrics.build("entity_f1", options={"tags": tags}), metrics.build("token_accuracy")
        ]  # fmt: skip

    spec: dict[str, Any] = {"label_smoothing": label_smoothing}
    return Task(
        name="tag", spec=("tag", spec), outputs=lambda schema: len(schema.classes),
        phases=(Phase("tag", loss),), forward=_forward, units=_units, metrics=measured,
        decode=_decode, primary="entity_f1",
    )  # fmt: skip


def _forward(model: nn.Module, batch: Batch) -> Tensor:
    """Return the tags (B, T) of words, plus 1; 0 where no word begins."""
    first = next(iter(batch.inputs.values()))
    counted = batch.inputs["starts"] > 0 if "starts" in batch.inputs else first != 0
    return _best(model(*batch.inputs.values()), counted)


def _best(found: Chain | Tensor, counted: Tensor) -> Tensor:
    if isinstance(found, Chain):
        return (best_tags(found, counted) + 1).float()
    return (found.argmax(-1) + 1).masked_fill(~counted, 0).float()


def _units(outputs: Tensor, target: Tensor, schema: Schema | None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return (outputs.long() - 1).clamp_min(0), target


def _decode(outputs: Tensor, schema: Schema) -> dict[str, np.ndarray]:
    """Return ``tags``: a list of the tags of the words in each row."""
    names = schema.classes
    tags = np.empty(len(outputs), dtype=object)
    for row, places in enumerate(outputs.long().cpu().tolist()):
        tags[row] = [names[k - 1] for k in places if k > 0]
    return {"tags": tags}
