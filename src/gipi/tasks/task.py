"""What a task is: the computation between a batch and a loss, a score and an answer.

A `Task` is a frozen value made by a function such as `classify(label_smoothing=0.1)`; it is never
subclassed. ``spec`` (name and arguments) rebuilds it from a model folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor, nn

from gipi.core.batch import Batch
from gipi.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from gipi.core.schema import Schema
    from gipi.metrics import Metric, TextMetric


class Loss(NamedTuple):
    """A loss as the pair that can be divided by the *global* count.

    total    scalar tensor, Σ w·l over the rows given
    count    Σ w over the same rows; a Python float where it is known without looking at the device
    outputs  what the model said, reused by the metrics: no second forward pass
    logs     named sub-losses (scalars), or None
    """

    total: Tensor
    count: float | Tensor  # type: ignore[assignment]  # hides tuple.count
    outputs: Tensor
    logs: Mapping[str, Tensor] | None = None


class Predict(Protocol):
    """How a task answers that needs more than one forward pass."""

    def __call__(
        self, model: nn.Module, batch: Batch, schema: Schema, *, quick: bool = False
    ) -> Tensor:
        """Return what `Task.decode` takes, for every row of the batch."""
        ...


LossFunction = Callable[[nn.Module, Batch], Loss]


@dataclass(frozen=True)
class Phase:
    """One optimization within a step: a loss and the parameters it moves.

    params   pattern (fnmatch) of parameter names; survives wrapping and compilation
    repeats  times the phase runs per batch
    closure  the optimizer evaluates the loss several times per step (L-BFGS)
    """

    name: str
    loss: LossFunction
    params: str = "*"
    repeats: int = 1
    closure: bool = False


@dataclass(frozen=True)
class Task:
    """What is computed from a batch, and how it is measured and said.

    spec           (name, arguments) that rebuild the task
    outputs        Schema -> width of the model's head
    phases         what one training step optimizes, in order
    forward        (model, batch) -> outputs
    units          (outputs, target, schema) -> the pair that the metrics compare, in user's units
    metrics        Schema -> metrics; the first is not necessarily the primary one
    decode         (outputs, schema) -> named arrays for people, one entry per row
    decode_original  (outputs, schema, placement (n, 3, 3), sizes (n, 2) of H and W) -> the same
                   answers in pixels of the original pictures; None where answers have no place
    primary        name of the metric that decides which weights are best
    row_separable  the loss of a batch is the sum of the losses of its rows
    predict        (model, batch, schema, quick) -> what `decode` takes, where an answer is more
                   than one forward pass; `quick` may be cheaper and worse; None: `forward`
    judges         metrics of the texts that `predict` and `decode` give, against those of the data
    judged_rows    rows, evenly spread, that are answered for each evaluation of a run; at its end
                   all are
    measured_rows  rows before a log row whose outputs are measured for it, at most; few where the
                   metrics are slow
    after_step     called with the model after each optimizer step (target nets, teachers)
    """

    name: str
    spec: tuple[str, dict[str, Any]]
    outputs: Callable[[Schema], int]
    phases: tuple[Phase, ...]
    forward: Callable[[nn.Module, Batch], Tensor]
    units: Callable[[Tensor, Tensor, Schema | None], tuple[Tensor, Tensor]]
    metrics: Callable[[Schema | None], Sequence[Metric]]
    decode: Callable[[Tensor, Schema], dict[str, np.ndarray]]
    primary: str = "loss"
    row_separable: bool = True
    measured_rows: int = 8192
    after_step: Callable[[nn.Module], None] | None = None
    predict: Predict | None = None
    judges: tuple[TextMetric, ...] = ()
    judged_rows: int = 64
    decode_original: (
        Callable[[Tensor, Schema, np.ndarray, np.ndarray], dict[str, np.ndarray]] | None
    ) = None


def call_model(model: nn.Module, batch: Batch) -> Tensor:
    """Return ``model(*inputs)``: the inputs are the model's positional arguments, in order."""
    outputs: Tensor = model(*batch.inputs.values())
    return outputs


def check_class_weights(weights: Sequence[float], classes: Sequence[str]) -> None:
    """Raise `ConfigError` unless there is one weight a class, none negative and not all zero."""
    if len(weights) != len(classes):
        raise ConfigError(
            f"{len(weights)} class weights for {len(classes)} classes",
            "one weight a class",
            "give them in the order " + ", ".join(classes[:8]),
        )
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
        raise ConfigError(
            f"class weights {', '.join(map(str, weights))}",
            "numbers from 0 up, and one above 0",
            "give 0 to a class that should not count",
        )
