"""Where a picture's pixels go when it is brought to one size, as a matrix that can be undone.

Coordinates are (x right, y down) and pixel (i, j) covers [j, j + 1) x [i, i + 1), before and after.

    cover      scaled to cover the target, the middle part kept (pictures with one label each)
    stretch    height and width scaled on their own: nothing is lost, shapes change a little
    letterbox  scaled to lie within the target, in the middle, on black: nothing is lost
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Fit = Literal["cover", "stretch", "letterbox"]
FITS: tuple[str, ...] = get_args(Fit)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Placed:
    """The part of a picture that is used, and the part of the target that it fills.

    part    x0, y0, x1, y1 in pixels of the picture
    left, top, width, height  whole pixels of the target
    """

    part: Box
    left: int
    top: int
    width: int
    height: int

    @property
    def scale(self) -> tuple[float, float]:
        """Return target pixels per picture pixel in x and in y."""
        x0, y0, x1, y1 = self.part
        return self.width / (x1 - x0), self.height / (y1 - y0)

    @property
    def matrix(self) -> np.ndarray:
        """Return the (3, 3) float64 matrix from picture to target coordinates."""
        sx, sy = self.scale
        x0, y0, _, _ = self.part
        return np.array(
            [[sx, 0.0, self.left - sx * x0], [0.0, sy, self.top - sy * y0], [0.0, 0.0, 1.0]]
        )


def place(
    size: tuple[int, int], target: tuple[int, int], how: Fit, *, crop: Box | None = None
) -> Placed:
    """Return how a picture of `size` (H, W), or its part `crop`, is laid into `target` (H, W)."""
    h, w = target
    x0, y0, x1, y1 = crop if crop is not None else (0.0, 0.0, float(size[1]), float(size[0]))
    high, wide = y1 - y0, x1 - x0
    if how == "stretch":
        return Placed((x0, y0, x1, y1), 0, 0, w, h)
    if how == "letterbox":
        scale = min(w / wide, h / high)
        width, height = min(w, max(1, round(wide * scale))), min(h, max(1, round(high * scale)))
        return Placed((x0, y0, x1, y1), (w - width) // 2, (h - height) // 2, width, height)
    part_wide = min(wide, high * w / h)
    part_high = min(high, wide * h / w)
    left, top = x0 + (wide - part_wide) / 2, y0 + (high - part_high) / 2
    return Placed((left, top, left + part_wide, top + part_high), 0, 0, w, h)


def move_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return float64 (..., 2) points after one (3, 3) matrix."""
    return np.asarray(points @ matrix[:2, :2].T + matrix[:2, 2])


def move_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return (n, 4) x0, y0, x1, y1 after a matrix that scales and shifts."""
    return np.concatenate(
        [move_points(boxes[:, :2], matrix), move_points(boxes[:, 2:4], matrix)], axis=1
    )


def place_mask(mask: np.ndarray, placed: Placed, target: tuple[int, int], fill: int) -> np.ndarray:
    """Return a mask (h, w) laid into `target` (H, W): the label under each pixel's centre.

    What lies beyond the picture becomes `fill`.
    """
    sx, sy = placed.scale
    x = np.floor((np.arange(placed.width) + 0.5) / sx + placed.part[0]).astype(np.int64)
    y = np.floor((np.arange(placed.height) + 0.5) / sy + placed.part[1]).astype(np.int64)
    h, w = mask.shape
    inside = ((y >= 0) & (y < h))[:, None] & ((x >= 0) & (x < w))[None, :]
    values = mask[np.clip(y, 0, h - 1)][:, np.clip(x, 0, w - 1)]
    out = np.full(target, fill, dtype=mask.dtype)
    window = out[placed.top : placed.top + placed.height, placed.left : placed.left + placed.width]
    window[...] = np.where(inside, values, fill)
    return out
