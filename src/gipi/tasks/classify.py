"""Classification: one class per row, or any number of labels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi import losses, metrics
from gipi.core.errors import ConfigError, did_you_mean
from gipi.tasks.task import Loss, LossFunction, Phase, Task, call_model, check_class_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema

LOSSES = ("cross_entropy", "binary_cross_entropy", "perceptron")
MULTI_METRICS = ("label_map", "label_f1_micro", "label_f1_macro", "exact_match")


def classify(
    *,
    loss: str | None = None,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    multi: bool = False,
    auxiliary: float = 0.3,
    metric: str | None = None,
) -> Task:
    """Return the task of naming the class of each row, or with `multi` all labels it has.

    Softmax over K outputs, p_k = exp(z_k) / Σ_j exp(z_j), with cross-entropy -log p_target
    (`binary_cross_entropy`: one output per class of two, σ(z) = 1 / (1 + exp(-z));
    `perceptron`: Rosenblatt's rule, 1958). With `multi` there are K decisions: targets (B, K) of
    zeros and ones, `binary_cross_entropy` over K logits, a label where its probability is above
    one half.

    loss             one of `LOSSES`; None: cross_entropy, with `multi` binary_cross_entropy
    label_smoothing  ε: the target distribution is (1 - ε) one-hot + ε / K (Szegedy et al. 2016)
    class_weights    K factors on the rows of each class; None for all ones
    multi            a row may have several labels, or none
    auxiliary        factor on the losses of the further heads of a model that in training answers
                     (B, heads, K), the main head first (Szegedy et al. 2015: 0.3)
    metric           the score that decides which weights are best; None: accuracy, with `multi`
                     label_map

    Raises `ConfigError` for an unknown loss, or values that are out of range or do not go together.
    """
    asked = loss
    loss = loss or ("binary_cross_entropy" if multi else "cross_entropy")
    metric = metric or (MULTI_METRICS[0] if multi else "accuracy")
    if loss not in LOSSES:
        raise ConfigError(
            f"task.loss={loss!r} is no loss for classification",
            "a loss for class targets",
            did_you_mean(loss, LOSSES),
        )
    if not 0 <= label_smoothing < 1:
        raise ConfigError(
            f"task.label_smoothing={label_smoothing}", "a number in [0, 1)", "0.1 is usual"
        )
    if auxiliary < 0:
        raise ConfigError(
            f"task.auxiliary={auxiliary}", "a number that is not negative", "0.3 is usual"
        )
    if multi and (loss != "binary_cross_entropy" or class_weights is not None):
        raise ConfigError(
            f"several labels a row with loss {asked!r}, class_weights={class_weights}",
            "loss 'binary_cross_entropy' without class weights: each label is its own decision",
            "leave task.loss and task.class_weights out",
        )
    if not multi and loss != "cross_entropy" and (label_smoothing or class_weights is not None):
        raise ConfigError(
            f"label smoothing or class weights with loss {loss!r}",
            "loss 'cross_entropy' for them",
            "drop the option or set task.loss=cross_entropy",
        )
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    spec: dict[str, Any] = {
        "loss": loss,
        "label_smoothing": label_smoothing,
        "class_weights": None if class_weights is None else list(class_weights),
        "multi": multi,
        "auxiliary": auxiliary,
        "metric": metric,
    }

    def outputs(schema: Schema) -> int:
        classes = len(schema.classes)
        _check_labels(schema, multi=multi)
        if class_weights is not None:
            check_class_weights(class_weights, schema.classes)
        if multi or loss == "cross_entropy" or classes > 2:
            return classes
        return 1

    def measured(schema: Schema | None) -> list[metrics.Metric]:
        width = len(schema.classes) if schema is not None else 0
        if multi and not width:
            return []
        names = MULTI_METRICS if multi else ("accuracy",)
        return [metrics.build(name, classes=width) for name in dict.fromkeys((*names, metric))]

    return Task(
        name="classify",
        spec=("classify", spec),
        outputs=outputs,
        phases=(Phase("classify", _loss(loss, label_smoothing, weights, auxiliary)),),
        forward=call_model,
        units=_as_they_are if multi else _units,
        metrics=measured,
        decode=_decode_labels if multi else _decode,
        primary=metric,
    )


def _loss(
    name: str, smoothing: float, weights: Tensor | None, auxiliary: float
) -> LossFunction:  # fmt: skip
    if name == "binary_cross_entropy":

        def binary(model: nn.Module, batch: Batch) -> Loss:
            assert batch.target is not None
            out = model(*batch.inputs.values())
            if out.ndim == 3:
                criterion = partial(losses.binary_cross_entropy, target=batch.target,
                                    weight=batch.weight, label_smoothing=smoothing)  # fmt: skip
                return _all_heads(out, criterion, auxiliary)
            total, count = losses.binary_cross_entropy(
                out, batch.target, batch.weight, label_smoothing=smoothing
            )
            return Loss(total, count, out)

        return binary
    if name == "perceptron":

        def perceptron(model: nn.Module, batch: Batch) -> Loss:
            assert batch.target is not None
            out = model(*batch.inputs.values())
            total, count = losses.perceptron(out, batch.target, batch.weight)
            return Loss(total, count, out)

        return perceptron

    placed = weights

    def cross_entropy(model: nn.Module, batch: Batch) -> Loss:
        nonlocal placed
        assert batch.target is not None
        out = model(*batch.inputs.values())
        if placed is not None and placed.device != out.device:
            placed = placed.to(out.device)  # once: a copy in each step would wait for the device
        if out.ndim == 3:
            criterion = partial(losses.cross_entropy, target=batch.target, weight=batch.weight,
                                label_smoothing=smoothing, class_weights=placed)  # fmt: skip
            return _all_heads(out, criterion, auxiliary)
        total, count = losses.cross_entropy(
            out, batch.target, batch.weight, label_smoothing=smoothing, class_weights=placed
        )
        return Loss(total, count, out)

    return cross_entropy


def _all_heads(
    out: Tensor, criterion: Callable[[Tensor], tuple[Tensor, float | Tensor]], share: float
) -> Loss:
    """Return l(main) + share · Σ l(other) of outputs (B, heads, K); the main head is measured."""
    main, *others = out.unbind(1)
    total, count = criterion(main)
    for other in others:
        total = total + share * criterion(other)[0]
    return Loss(total, count, main)


def _units(outputs: Tensor, target: Tensor, schema: Schema | None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """One logit z becomes the two logits (0, z); soft targets become their largest class."""
    if outputs.ndim == 1 or outputs.shape[-1] == 1:
        z = outputs.reshape(len(outputs), 1)
        outputs = torch.cat([torch.zeros_like(z), z], dim=1)
    return outputs, target.argmax(1) if target.ndim > 1 else target


def _check_labels(schema: Schema, *, multi: bool) -> None:
    """Raise where the target has several labels a row and the task one, or the reverse."""
    target = schema.target
    if target is None or bool(target.stats.get("multi", False)) == multi:
        return
    found = "one label" if multi else "several labels"
    raise ConfigError(
        f"'{target.name}' has {found} a row, and task.multi={str(multi).lower()}",
        "a task for the labels that the data has",
        f"set task.multi={str(not multi).lower()}",
    )


def _as_they_are(
    outputs: Tensor, target: Tensor, schema: Schema | None  # noqa: ARG001
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return outputs, target


def _decode_labels(outputs: Tensor, schema: Schema) -> dict[str, np.ndarray]:
    """Return ``labels`` (a list of names a row, the most probable first) and ``probabilities``."""
    p = outputs.double().sigmoid().cpu()
    labels = np.empty(len(p), dtype=object)
    for row, order in enumerate(p.argsort(1, descending=True).tolist()):
        labels[row] = [schema.classes[k] for k in order if p[row, k] > 0.5]
    return {"labels": labels, "probabilities": p.numpy()}


def _decode(outputs: Tensor, schema: Schema) -> dict[str, np.ndarray]:
    """Return ``label`` (names), ``index``, ``probability`` (of the label) and ``probabilities``."""
    logits, _ = _units(outputs, outputs.new_zeros(len(outputs)), schema)
    p = torch.softmax(logits.double(), dim=1).cpu()
    best, index = p.max(1)
    names = [schema.classes[i] for i in index.tolist()]
    return {
        "label": np.array(names, dtype=object),
        "index": index.numpy(),
        "probability": best.numpy(),
        "probabilities": p.numpy(),
    }
