"""Answers on the prepared picture, brought back to the original one.

A placement is one 3x3 matrix a row: homogeneous pixel coordinates of the original picture (x right,
y down, pixel (i, j) covering [j, j+1) x [i, i+1)) to those of the prepared one. `Dataset.placement`
gives it exactly, whether the picture was resized, letterboxed or cropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from gipi.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

UNSEEN = 255
"""The class of original pixels that the prepared picture does not show."""
ROWS = 256  # rows of an original picture that are sampled at once, so that large ones fit


def masks_to_original(
    masks: Tensor | np.ndarray, placement: np.ndarray, sizes: np.ndarray | Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """Return one uint8 (Hᵢ, Wᵢ) mask a row at the size of its original picture.

    masks      logits (n, K, H, W), enlarged bilinearly before the largest is taken, which gives
               smooth edges; or classes (n, H, W), of which the pixel that covers the place answers
    placement  (n, 3, 3) original -> prepared pixels
    sizes      (n, 2) height and width of the originals

    Original pixels outside the prepared picture are 255. Raises `DataError` where the number of
    rows differs.
    """
    values = torch.as_tensor(masks)
    matrices = _checked(placement, len(values))
    if len(sizes) != len(values):
        raise DataError(f"{len(sizes)} sizes for {len(values)} masks", "one size a mask",
                        "give the sizes of the same rows")  # fmt: skip
    return [
        _one_mask(value, matrix, int(size[0]), int(size[1]))
        for value, matrix, size in zip(values, matrices, sizes, strict=True)
    ]


def _one_mask(value: Tensor, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    scores = value.ndim == 3
    maps = value[None].float() if scores else value[None, None].float()
    high, wide = maps.shape[-2:]
    out = np.empty((height, width), dtype=np.uint8)
    x = np.arange(width) + 0.5
    for top in range(0, height, ROWS):
        y = np.arange(top, min(top + ROWS, height)) + 0.5
        grid = np.stack([*np.broadcast_arrays(x[None, :], y[:, None], 1.0)], axis=-1) @ matrix.T
        place = grid[..., :2] / grid[..., 2:]
        seen = ((place >= 0) & (place < (wide, high))).all(-1)
        # grid_sample counts from -1 at the left edge of the first pixel to 1 at the last's right.
        units = torch.from_numpy((2 * place / (wide, high) - 1).astype(np.float32))[None]
        found = F.grid_sample(
            maps, units.to(maps.device), mode="bilinear" if scores else "nearest",
            padding_mode="border", align_corners=False,
        )[0]  # fmt: skip
        best = found.argmax(0) if scores else found[0].round()
        band = best.to(torch.uint8).cpu().numpy()
        out[top : top + len(y)] = np.where(seen, band, UNSEEN)
    return out


def points_to_original(points: np.ndarray, placement: np.ndarray) -> np.ndarray:
    """Return points (n, K, 2 or 3) in pixels of the originals; further columns are kept.

    placement  (n, 3, 3) original -> prepared pixels
    """
    matrices = np.linalg.inv(_checked(placement, len(points)))
    flat = np.concatenate([points[..., :2], np.ones((*points.shape[:2], 1))], axis=2)
    moved = np.einsum("nkj,nij->nki", flat, matrices)
    place = moved[..., :2] / moved[..., 2:]
    return np.concatenate([place, points[..., 2:]], axis=2).astype(points.dtype)


def _checked(placement: np.ndarray, rows: int) -> np.ndarray:
    matrices = np.asarray(placement, dtype=np.float64)
    if matrices.shape != (rows, 3, 3):
        raise DataError(
            f"placements of shape {matrices.shape} for {rows} rows",
            "one 3x3 matrix a row",
            "take Dataset.placement(ids) of the same rows",
        )
    return matrices
