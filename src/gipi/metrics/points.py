"""Metrics of points: PCK, NME and OKS.

Outputs are (B, K, 2) or (B, K, 3) points x, y(, confidence), targets (B, K, 3) x, y, visible in the
same pixels. Points with visible 0 are missing and do not count. Distances are divided by the size
of the subject, its *reference*:

    points=(i, j)  the distance of two points of the truth, such as the outer corners of the eyes;
                   rows in which one of them is missing have no reference and do not count
    size=s         a fixed number of pixels, such as the side of the picture
    neither        √(width · height) of the box around the points that the truth has
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ModelError
from gipi.metrics.metric import Metric, State, accumulator, add, ratio, zeros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
"""σ of nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, as COCO gives them."""
SIGMA = 0.05
"""σ of points for which none is known."""


def distances(
    outputs: Tensor,
    target: Tensor,
    *,
    points: tuple[int, int] | None = None,
    size: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (d / reference (B, K), counted (B, K) bool, reference (B,)); d is 0 where not counted.

    Raises `ModelError` where the shapes do not match.
    """
    if outputs.ndim != 3 or outputs.shape[:2] != target.shape[:2] or target.shape[2] != 3:
        raise ModelError(
            f"points {tuple(outputs.shape)} for true points {tuple(target.shape)}",
            "(B, K, 2) coordinates for (B, K, 3) points",
            "use a model for pose, such as heatmap or landmarks",
        )
    dtype = accumulator(outputs.device)
    truth, seen = target.to(dtype), target[..., 2] > 0
    reference = _reference(truth, seen, points, size)
    counted = seen & (reference > 0).unsqueeze(1)
    error = torch.where(counted.unsqueeze(2), outputs[..., :2].to(dtype) - truth[..., :2], 0.0)
    return error.norm(dim=2) / reference.clamp_min(1e-12).unsqueeze(1), counted, reference


def _reference(
    truth: Tensor, seen: Tensor, points: tuple[int, int] | None, size: float | None
) -> Tensor:
    """Return (B,) sizes; 0 where a row has none."""
    if size is not None:
        return torch.full_like(truth[:, 0, 0], size) * seen.any(1)
    if points is not None:
        i, j = points
        apart = (truth[:, i, :2] - truth[:, j, :2]).norm(dim=1)
        return torch.where(seen[:, i] & seen[:, j], apart, 0.0)
    return box_area(truth, seen).sqrt()


def box_area(target: Tensor, seen: Tensor) -> Tensor:
    """Return (B,) areas of the boxes around the seen points; 0 where fewer than two are seen."""
    gone = ~seen.unsqueeze(2)
    low = target[..., :2].masked_fill(gone, torch.inf).amin(1)
    high = target[..., :2].masked_fill(gone, -torch.inf).amax(1)
    return (high - low).clamp_min(0).nan_to_num(0.0, 0.0, 0.0).prod(1)


def nme(
    classes: int = 0,  # noqa: ARG001  one signature for all builders
    *,
    points: tuple[int, int] | None = None,
    size: float | None = None,
) -> Metric:
    """Return the normalised mean error: mean over rows of the mean distance of a row's points.

    A row weighs one however many points it has. Sagonas et al. 2013, 300 faces in-the-wild
    challenge (reference: the outer corners of the eyes).
    """

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        error, counted, _ = distances(outputs, target, points=points, size=size)
        each = (error * counted).sum(1) / counted.sum(1).clamp_min(1)
        usable = counted.any(1).to(each.dtype)
        add(state, "error", each, weight)
        add(state, "count", usable, weight)

    return Metric("nme", greater_is_better=False, init=zeros({"error": (), "count": ()}),
                  update=update,
                  compute=lambda state: ratio(state, "error", "count"))  # fmt: skip


def pck(
    classes: int = 0,  # noqa: ARG001
    *,
    share: float = 0.1,
    points: tuple[int, int] | None = None,
    size: float | None = None,
) -> Metric:
    """Return the share of points that lie within `share` of the reference: PCK@0.1 by default.

    Over all counted points of all rows. Yang and Ramanan 2013, Articulated human detection.
    """

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        error, counted, _ = distances(outputs, target, points=points, size=size)
        right = ((error <= share) & counted).to(error.dtype)
        add(state, "right", right.sum(1), weight)
        add(state, "count", counted.to(error.dtype).sum(1), weight)

    return Metric("pck", greater_is_better=True, init=zeros({"right": (), "count": ()}),
                  update=update,
                  compute=lambda state: ratio(state, "right", "count"))  # fmt: skip


def oks(
    classes: int = 0,
    *,
    sigmas: Sequence[float] | None = None,
    size: float | None = None,
) -> Metric:
    """Return the mean object keypoint similarity: a row's mean of exp(-d² / 2 s² κ²), κ = 2σ.

    s² is the area of the box around the points that the truth has (COCO takes the area of the
    person's outline, which points alone do not tell), or size² where given.

    sigmas  σ of each point; None: COCO's for its 17 points, else 0.05

    COCO keypoint evaluation; Ronchi and Perona 2017, arXiv:1707.05388.
    """
    if sigmas is None:
        sigmas = COCO_SIGMAS if classes == len(COCO_SIGMAS) else (SIGMA,) * max(classes, 1)
    known = torch.tensor(tuple(sigmas), dtype=torch.float64)
    placed: dict[torch.device, Tensor] = {}

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        error, counted, _ = distances(outputs, target, size=size)
        if error.device not in placed:  # once: a copy for each batch would wait for the device
            placed[error.device] = known.to(error)
        kappa = 2 * placed[error.device]
        if len(kappa) != error.shape[1]:
            if len(kappa) > 1:
                raise ModelError(f"{len(kappa)} sigmas for {error.shape[1]} points",
                                 "one sigma a point", "correct the sigmas")  # fmt: skip
            kappa = kappa.expand(error.shape[1])
        # distances() divided by s already
        similar = (-error.square() / (2 * kappa.square())).exp() * counted
        each = similar.sum(1) / counted.sum(1).clamp_min(1)
        add(state, "similar", each, weight)
        add(state, "count", counted.any(1).to(each.dtype), weight)

    return Metric("oks", greater_is_better=True, init=zeros({"similar": (), "count": ()}),
                  update=update,
                  compute=lambda state: ratio(state, "similar", "count"))  # fmt: skip
