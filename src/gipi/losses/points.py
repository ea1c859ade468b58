"""Losses for points: heatmaps (squared error, cross-entropy over positions) and coordinates (wing).

Targets are (B, K, 3): x, y, visible, in pixels of the picture that the model sees; pixel (i, j)
covers [j, j+1) x [i, i+1). A point with visible 0 is missing and takes no part. Every loss answers
(total, count), count = Σ wᵢ nᵢ with nᵢ the points of row i that take part: total / count is a mean
over points. All are sums over rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

HALVES = (torch.bfloat16, torch.float16)


def gaussian_maps(points: Tensor, size: tuple[int, int], *, stride: float, sigma: float) -> Tensor:
    """Return (B, K, h, w) maps exp(-d² / 2σ²) around the points, 1 at their exact place.

    points  (B, K, 2 or 3) x, y, ... in pixels of the picture
    size    (h, w) of the maps; pixel (v, u) has its centre at ((u + 1/2)·stride, (v + 1/2)·stride)
    sigma   σ in pixels of the map

    The peak lies between the pixels where the point does, unlike a peak at the nearest pixel, which
    would lose up to half a pixel (Zhang et al. 2020, arXiv:1910.06278, section 3.3).
    """
    height, width = size
    at = points[..., :2] / stride - 0.5
    u = torch.arange(width, device=points.device, dtype=points.dtype)
    v = torch.arange(height, device=points.device, dtype=points.dtype)
    factor = -0.5 / sigma**2
    across = (factor * (u - at[..., 0:1]).square()).exp()
    down = (factor * (v - at[..., 1:2]).square()).exp()
    return down.unsqueeze(3) * across.unsqueeze(2)


def heatmap_mse(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    stride: float,
    sigma: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """Return the squared error of heatmaps, l = mean over pixels of (m - g)², g a Gaussian of σ.

    outputs  (B, K, h, w) maps
    target   (B, K, 3) points; those missing or outside the picture take no part
    stride   pixels of the picture a map's pixel stands for; sigma: in pixels of the map

    Tompson et al. 2014; Xiao, Wu and Wei 2018, arXiv:1804.06208.
    """
    maps, points, share = _maps(outputs, target, weight, stride)
    truth = gaussian_maps(points, (maps.shape[2], maps.shape[3]), stride=stride, sigma=sigma)
    values = (maps - truth).square().flatten(2).mean(2)
    return (values * share).sum(), share.sum()


def heatmap_cross_entropy(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    stride: float,
    sigma: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy over positions, l = -Σ g log softmax(m), g a Gaussian of sum one.

    The maps are logits of where the point is. Every position has a gradient from the start, where
    in the squared error the few pixels of the peak must win against many zeros. Arguments as in
    `heatmap_mse`. He et al. 2017, arXiv:1703.06870 (a softmax over the map, one pixel as target).
    """
    maps, points, share = _maps(outputs, target, weight, stride)
    truth = gaussian_maps(points, (maps.shape[2], maps.shape[3]), stride=stride, sigma=sigma)
    truth = truth.flatten(2)
    truth = truth / truth.sum(2, keepdim=True).clamp_min(torch.finfo(truth.dtype).tiny)
    values = -(truth * maps.flatten(2).log_softmax(2)).sum(2)
    return (values * share).sum(), share.sum()


def wing(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    width: float = 10.0,
    curvature: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """Return the mean over x and y of a loss that is steep near zero and L1 far from it.

        l(r) = w log(1 + r/ε) where r = |error| < w, else r - C,   C = w - w log(1 + w/ε)

    Small errors keep a large gradient, w / (ε + r); large ones count as in L1.

    outputs    (B, K, 2) x, y in pixels;  target (B, K, 3)
    width      w in pixels; curvature: ε in pixels

    Feng, Kittler, Awais, Huber and Wu 2018, arXiv:1711.06753.
    """
    errors, share = _errors(outputs, target, weight)
    small = width * torch.log1p(errors / curvature)
    large = errors - (width - width * math.log1p(width / curvature))
    values = torch.where(errors < width, small, large).mean(2)
    return (values * share).sum(), share.sum()


def point_l1(
    outputs: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the absolute error of coordinates, the mean over x and y of |error| in pixels.

    outputs  (B, K, 2) x, y in pixels;  target (B, K, 3). Sun et al. 2018, arXiv:1711.08229.
    """
    errors, share = _errors(outputs, target, weight)
    return (errors.mean(2) * share).sum(), share.sum()


def point_smooth_l1(
    outputs: Tensor, target: Tensor, weight: Tensor | None = None, *, beta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return r²/2β where r < β pixels, else r - β/2, the mean over x and y.

    outputs  (B, K, 2) x, y in pixels;  target (B, K, 3). Girshick 2015, arXiv:1504.08083.
    """
    errors, share = _errors(outputs, target, weight)
    values = F.smooth_l1_loss(errors, torch.zeros_like(errors), reduction="none", beta=beta).mean(2)
    return (values * share).sum(), share.sum()


def _share(target: Tensor, weight: Tensor | None, inside: Tensor | None = None) -> Tensor:
    """Return (B, K) factors: 0 for points that take no part, else the row's weight."""
    present = target[..., 2] > 0
    if inside is not None:
        present = present & inside
    share = present.to(target.dtype)
    return share if weight is None else share * weight.to(share.dtype).unsqueeze(1)


def _maps(
    outputs: Tensor, target: Tensor, weight: Tensor | None, stride: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return maps in at least float32, points without values that are no number, and shares."""
    if outputs.ndim != 4 or target.shape != (*outputs.shape[:2], 3):
        raise _mismatch(outputs, target, "(B, K, h, w) heatmaps", "heatmap")
    maps = outputs.float() if outputs.dtype in HALVES else outputs
    target = target.to(maps.dtype)
    x, y = target[..., 0], target[..., 1]
    inside = (x >= 0) & (x <= maps.shape[3] * stride) & (y >= 0) & (y <= maps.shape[2] * stride)
    share = _share(target, weight, inside)
    # A missing point may hold anything, NaN too, and 0 · NaN would be NaN.
    points = torch.where(share.unsqueeze(2) > 0, target[..., :2], 0.0)
    return maps, points, share


def _errors(outputs: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return |errors| (B, K, 2), 0 where a point takes no part, and shares (B, K)."""
    if outputs.ndim != 3 or outputs.shape[:2] != target.shape[:2] or target.shape[2] != 3:
        raise _mismatch(outputs, target, "(B, K, 2) coordinates", "landmarks")
    found = outputs.float() if outputs.dtype in HALVES else outputs
    target = target.to(found.dtype)
    share = _share(target, weight)
    gone = share.unsqueeze(2) == 0
    errors = (found[..., :2] - target[..., :2].masked_fill(gone, 0.0)).abs().masked_fill(gone, 0.0)
    return errors, share


def _mismatch(outputs: Tensor, target: Tensor, needed: str, model: str) -> ModelError:
    return ModelError(
        f"outputs {tuple(outputs.shape)} for points {tuple(target.shape)}",
        f"{needed} for (B, K, 3) points",
        f"use a model that answers them, such as {model}, or the other method of the task pose",
    )
