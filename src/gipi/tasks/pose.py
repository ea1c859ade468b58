"""Pose: where the named points of a picture are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from gipi import losses, metrics
from gipi.core.errors import ConfigError, ModelError, did_you_mean
from gipi.tasks.peaks import read_heatmaps
from gipi.tasks.placement import points_to_original
from gipi.tasks.task import Loss, LossFunction, Phase, Task, call_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema

METHODS = ("auto", "heatmap", "regression")
LOSSES = {
    "heatmap": ("cross_entropy", "mse"),
    "regression": ("wing", "l1", "smooth_l1"),
}
METRICS = ("nme", "pck", "oks")
SIGMAS = {"cross_entropy": 1.0, "mse": 2.0}
"""σ of the target's Gaussian in pixels of the map."""
FACE_68 = (36, 45)
"""The outer corners of the eyes among the 68 points of the 300-W scheme, counted from 0."""
FEWEST = 3  # points that span a box


def pose(
    *,
    method: str = "auto",
    loss: str | None = None,
    sigma: float | None = None,
    width: float = 10.0,
    curvature: float = 2.0,
    share: float = 0.1,
    reference: Sequence[int] | str | None = None,
    metric: str = "nme",
) -> Task:
    """Return the task of finding named points.

    Targets are (B, K, 3): x, y, visible (0 missing, 1 hidden, 2 visible) in pixels of the picture;
    missing points count neither in the loss nor in the metrics.

    method     "heatmap": the model answers maps (B, K, h, w) with a peak at each point;
               "regression": coordinates (B, K, 2); "auto": whichever the model answers
    loss       heatmap: "cross_entropy" over positions, or "mse" (squared error of the maps);
               regression: "wing", "l1" or "smooth_l1"; None: the first of these
    sigma      σ of the target's Gaussian in pixels of the map; None: 1 for cross_entropy, 2 for mse
    width, curvature  w and ε of the wing loss, in pixels
    share      PCK counts points within this share of the reference
    reference  what distances are divided by in NME and PCK: two point indices (their distance, such
               as the outer corners of the eyes), "box" (√area of the box around the points),
               "picture" (√area of the picture); None: what the data names in its "reference", the
               eye corners for the 68 points of a face, else the box
    metric     the score that decides which weights are best: nme, pck, oks

    Raises `ConfigError` for unknown names and values out of range.
    """
    _check(method, loss, metric, sigma, width, curvature, share, reference)
    names = {m: loss if loss in LOSSES[m] else LOSSES[m][0] for m in LOSSES}
    if method == "auto" and loss is not None:
        method = next(m for m in LOSSES if loss in LOSSES[m])
    spec: dict[str, Any] = {
        "method": method, "loss": loss, "sigma": sigma, "width": width, "curvature": curvature,
        "share": share, "metric": metric,
        "reference": list(reference) if isinstance(reference, (list, tuple)) else reference,
    }  # fmt: skip
    logits = names["heatmap"] == "cross_entropy"
    spread = sigma if sigma is not None else SIGMAS[names["heatmap"]]

    def outputs(schema: Schema) -> int:
        target = schema.target
        return target.shape[0] if target is not None and target.shape else 1

    def read(out: Tensor, schema: Schema | None) -> Tensor:
        if out.ndim == 3:
            return out if out.shape[2] == 3 else torch.cat([out, torch.ones_like(out[..., :1])], 2)
        stride = map_stride(_picture(schema), (out.shape[2], out.shape[3]))
        return read_heatmaps(out, stride=stride, logits=logits, blur=0.0 if logits else spread / 2)

    def units(out: Tensor, target: Tensor, schema: Schema | None) -> tuple[Tensor, Tensor]:
        return read(out, schema), target

    def measured(schema: Schema | None) -> list[metrics.Metric]:
        if schema is None:
            return []
        count = outputs(schema)
        against = _reference(schema, reference, count)
        stats = schema.target.stats if schema.target is not None else {}
        size = {k: v for k, v in against.items() if k == "size"}
        options: dict[str, dict[str, Any]] = {
            "nme": against, "pck": {**against, "share": share},
            "oks": {"sigmas": stats.get("sigmas"), **size},
        }  # fmt: skip
        return [metrics.build(name, classes=count, options=options[name])
                for name in dict.fromkeys([metric, *METRICS])]  # fmt: skip

    def decode(out: Tensor, schema: Schema) -> dict[str, np.ndarray]:
        return {"points": read(out, schema).float().cpu().numpy()}

    def decode_original(
        out: Tensor, schema: Schema, placement: np.ndarray, sizes: np.ndarray  # noqa: ARG001
    ) -> dict[str, np.ndarray]:  # fmt: skip
        found = read(out, schema).double().cpu().numpy()
        return {"points": points_to_original(found, placement).astype("float32")}

    return Task(
        name="pose",
        spec=("pose", spec),
        outputs=outputs,
        phases=(Phase("pose", _loss(method, names, spread, width, curvature)),),
        forward=call_model,
        units=units,
        metrics=measured,
        decode=decode,
        decode_original=decode_original,
        primary=metric,
    )


def map_stride(picture: tuple[int, int], maps: tuple[int, int]) -> int:
    """Return how many pixels of a picture (H, W) one pixel of its maps (h, w) stands for.

    It is the s with ⌈H/s⌉ = h and ⌈W/s⌉ = w; raise `ModelError` where there is none.

    >>> map_stride((95, 96), (48, 48))
    2
    """
    for stride in (1, 2, 4, 8, 16, 32):
        if tuple(-(-side // stride) for side in picture) == maps:
            return stride
    raise ModelError(
        f"heatmaps of {maps[0]}x{maps[1]} for a picture of {picture[0]}x{picture[1]}",
        "maps that divide the picture's size by 1, 2, 4, 8, 16 or 32",
        "let the model answer maps of that size",
    )


def _loss(
    method: str, names: dict[str, str], sigma: float, width: float, curvature: float
) -> LossFunction:
    def phase(model: nn.Module, batch: Batch) -> Loss:
        assert batch.target is not None
        out = model(*batch.inputs.values())
        found = "heatmap" if out.ndim == 4 else "regression"
        if method not in ("auto", found):
            raise ModelError(
                f"task.method={method} or its loss, and a model that answers {tuple(out.shape)}",
                "maps (B, K, h, w) for 'heatmap', coordinates (B, K, 2) for 'regression'",
                "use the model heatmap for the one, landmarks for the other",
            )
        name, target, weight = names[found], batch.target, batch.weight
        if found == "heatmap":
            image = next(iter(batch.inputs.values()))
            stride = map_stride((image.shape[-2], image.shape[-1]), (out.shape[2], out.shape[3]))
            maps = losses.heatmap_mse if name == "mse" else losses.heatmap_cross_entropy
            total, count = maps(out, target, weight, stride=stride, sigma=sigma)
        elif name == "wing":
            total, count = losses.wing(out, target, weight, width=width, curvature=curvature)
        else:
            coordinates = losses.point_l1 if name == "l1" else losses.point_smooth_l1
            total, count = coordinates(out, target, weight)
        return Loss(total, count, out)

    return phase


def _picture(schema: Schema | None) -> tuple[int, int]:
    """Return (H, W) of the prepared picture."""
    found = [f.shape for f in schema.inputs if f.kind == "image"] if schema is not None else []
    if not found or len(found[0]) != 3:
        raise ModelError(
            "heatmaps without the size of the picture",
            "a schema with the picture's column",
            "give fit(..., schema=...) that of the data",
        )
    return found[0][1], found[0][2]


def _reference(schema: Schema, asked: Sequence[int] | str | None, count: int) -> dict[str, Any]:
    """Return the options of NME and PCK that say what distances are divided by."""
    stats = schema.target.stats if schema.target is not None else {}
    chosen = asked if asked is not None else stats.get("reference")
    if chosen is None:
        chosen = FACE_68 if count == 68 else "box" if count >= FEWEST else "picture"
    if chosen == "picture":
        height, width = _picture(schema)
        return {"size": float((height * width) ** 0.5)}
    if chosen == "box":
        return {}
    pair = (int(chosen[0]), int(chosen[1]))
    if max(pair) >= count:
        raise ConfigError(
            f"task.reference={list(pair)} for {count} points",
            f"two point indices from 0 to {count - 1}",
            "name two points of the data, or 'box' or 'picture'",
        )
    return {"points": pair}


def _check(
    method: str, loss: str | None, metric: str, sigma: float | None, width: float,
    curvature: float, share: float, reference: Sequence[int] | str | None,
) -> None:  # fmt: skip
    known = [name for m in LOSSES for name in LOSSES[m] if method in ("auto", m)]
    for key, value, names in (
        ("method", method, METHODS), ("metric", metric, METRICS), ("loss", loss, known),
    ):  # fmt: skip
        if value is not None and value not in names:
            raise ConfigError(
                f"task.{key}={value!r} is no {key} of pose" + (f" by {method}" * (key == "loss")),
                f"one of {', '.join(names)}",
                did_you_mean(value, names),
            )
    if not all(
        0 < v < math.inf for v in (width, curvature, share, 1.0 if sigma is None else sigma)
    ):
        raise ConfigError(
            f"task.sigma={sigma}, width={width}, curvature={curvature}, share={share}",
            "positive numbers",
            "leave them out for the usual values",
        )
    pair = isinstance(reference, (list, tuple)) and len(reference) == 2
    numbers = [i for i in reference or () if type(i) is int and i >= 0] if pair else []
    if len(set(numbers)) == 2:  # the distance of a point from itself measures nothing
        return
    if reference not in (None, "box", "picture"):
        raise ConfigError(
            f"task.reference={reference!r}",
            "two point indices that differ, 'box' or 'picture'",
            "for instance task.reference=[36,45]",
        )
