"""Geometric steps as one 3x3 matrix per sample, applied once to pictures and all that lies on them.

Coordinates are continuous, in pixels, (x, y) from the upper left corner; the centre of pixel i lies
at i + 0.5. A matrix M maps a point of the original to the changed picture, p' = M p with
p = (x, y, 1)ᵀ. Flips and whole-pixel shifts are exact gathers by index; everything else is sampled
bilinearly (masks: nearest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Padding = Literal["zero", "edge", "reflect"]
PADDINGS: tuple[str, ...] = ("zero", "edge", "reflect")


@dataclass(frozen=True)
class Geometric:
    """One geometric step: `matrix(draw, height, width)` gives (B, 3, 3) float64.

    draw(k)   the k-th uniform number in [0, 1) of each sample, (B,) float64
    exact     True for flips and whole-pixel shifts
    reach     for exact steps the largest shift in pixels; None where the step is not exact
    mirrors   True where the picture may be mirrored left-right
    """

    name: str
    matrix: Callable[[Callable[[int], Tensor], int, int], Tensor]
    reach: int | None = None
    mirrors: bool = False
    padding: str = "zero"

    @property
    def exact(self) -> bool:
        """Whether only whole pixels are moved."""
        return self.reach is not None


def identity(like: Tensor) -> Tensor:
    """Return (B, 3, 3) float64 unit matrices, B from `like`."""
    return torch.eye(3, dtype=torch.float64, device=like.device).repeat(len(like), 1, 1)


def flip(*, p: float = 0.5, axis: str = "horizontal") -> Geometric:
    """Mirror with probability p: x' = W - x (horizontal) or y' = H - y (vertical)."""
    at = 0 if axis == "horizontal" else 1

    def matrix(draw: Callable[[int], Tensor], height: int, width: int) -> Tensor:
        u = draw(0)
        m = identity(u)
        mirrored = (u < p).double()
        m[:, at, at] = 1 - 2 * mirrored
        m[:, at, 2] = mirrored * (width if at == 0 else height)
        return m

    return Geometric("flip", matrix, reach=0, mirrors=at == 0)


def shift(*, pixels: int, padding: str = "zero", name: str = "shift") -> Geometric:
    """Move by whole pixels, each axis uniform in -pixels..pixels; also the padded random crop."""

    def matrix(draw: Callable[[int], Tensor], height: int, width: int) -> Tensor:
        del height, width
        u = draw(0)
        m = identity(u)
        m[:, 0, 2] = torch.floor(u * (2 * pixels + 1)) - pixels
        m[:, 1, 2] = torch.floor(draw(1) * (2 * pixels + 1)) - pixels
        return m

    return Geometric(name, matrix, reach=pixels, padding=padding)


def rotate(*, degrees: float = 10.0, padding: str = "zero") -> Geometric:
    """Turn about the middle by an angle uniform in -degrees..degrees."""

    def matrix(draw: Callable[[int], Tensor], height: int, width: int) -> Tensor:
        angle = torch.deg2rad((draw(0) * 2 - 1) * degrees)
        m = identity(angle)
        m[:, 0, 0] = m[:, 1, 1] = angle.cos()
        m[:, 0, 1], m[:, 1, 0] = -angle.sin(), angle.sin()
        return about(m, width / 2, height / 2)

    return Geometric("rotate", matrix, padding=padding)


def zoom(*, strength: float = 0.1, padding: str = "zero") -> Geometric:
    """Scale about the middle by a factor uniform in 1 - strength .. 1 + strength."""

    def matrix(draw: Callable[[int], Tensor], height: int, width: int) -> Tensor:
        factor = 1 + (draw(0) * 2 - 1) * strength
        m = identity(factor)
        m[:, 0, 0] = m[:, 1, 1] = factor
        return about(m, width / 2, height / 2)

    return Geometric("zoom", matrix, padding=padding)


def about(matrix: Tensor, x: float, y: float) -> Tensor:
    """Return the matrices that act about the point (x, y) instead of the origin."""
    to, back = identity(matrix), identity(matrix)
    to[:, 0, 2], to[:, 1, 2] = -x, -y
    back[:, 0, 2], back[:, 1, 2] = x, y
    return back @ matrix @ to


def _source_index(sign: Tensor, offset: Tensor, size: int, padding: str) -> tuple[Tensor, Tensor]:
    """Return (B, size) int64 source pixels along one axis, and where they lie inside."""
    centres = torch.arange(size, device=sign.device, dtype=torch.float64) + 0.5
    at = torch.floor(sign[:, None] * (centres - offset[:, None])).long()
    inside = (at >= 0) & (at < size)
    if padding == "reflect":
        period = max(2 * size - 2, 1)
        at = at.remainder(period)
        at = torch.where(at < size, at, period - at)
    return at.clamp(0, size - 1), inside


def apply_exact(images: Tensor, matrix: Tensor, *, fill: Tensor, padding: str) -> Tensor:
    """Return images (B, C, H, W) under flips and whole-pixel shifts, by gathering.

    fill   value (C,) or () of pixels from outside with padding "zero"
    """
    _, c, h, w = images.shape
    rows, row_inside = _source_index(matrix[:, 1, 1], matrix[:, 1, 2], h, padding)
    cols, col_inside = _source_index(matrix[:, 0, 0], matrix[:, 0, 2], w, padding)
    index = (rows[:, :, None] * w + cols[:, None, :]).flatten(1)
    if c > 1 and images.stride(1) == 1:  # channels last: whole pixels are moved
        flat = images.permute(0, 2, 3, 1).reshape(-1, h * w, c)
        moved = flat.gather(1, index[:, :, None].expand(-1, -1, c))
        out = moved.view(-1, h, w, c).permute(0, 3, 1, 2)
    else:
        flat = images.reshape(-1, c, h * w)
        out = flat.gather(2, index[:, None, :].expand(-1, c, -1)).view(images.shape)
    if padding != "zero":
        return out
    inside = row_inside[:, None, :, None] & col_inside[:, None, None, :]
    return torch.where(inside, out, fill.to(out.dtype).view(-1, 1, 1))


def apply_windows(
    images: Tensor, matrix: Tensor, *, fill: Tensor, reach: int, mirrors: bool
) -> Tensor:
    """Return what `apply_exact` with padding "zero" returns, several times faster.

    The pictures are copied once into a frame of `reach` pixels (and once more mirrored); every row
    of the result is then one contiguous run of that memory, so that whole rows are gathered.

    reach     no picture is shifted by more than this, mirrored ones after mirroring
    mirrors   False where no matrix mirrors left-right
    """
    b, c, h, w = images.shape
    last = c > 1 and images.stride(1) == 1  # channels last: a run holds all channels of a row
    high, wide = h + 2 * reach, w + 2 * reach
    inner = slice(reach, reach + h), slice(reach, reach + w)
    sides = 2 if mirrors else 1
    level = fill.to(images.dtype)
    if last:
        frame = level.expand(sides, b, high, wide, c).contiguous()
        pixels, axis = images.permute(0, 2, 3, 1), 2
        frame[0][:, inner[0], inner[1]] = pixels
    else:
        frame = level.view(c, 1, 1).expand(sides, b, c, high, wide).contiguous()
        pixels, axis = images, 3
        frame[0][:, :, inner[0], inner[1]] = pixels
    if mirrors:
        place = frame[1][:, inner[0], inner[1]] if last else frame[1][:, :, inner[0], inner[1]]
        place.copy_(pixels.flip(axis))
    sign, offset = matrix[:, 0, 0], matrix[:, 0, 2]
    mirrored = sign < 0
    start = (reach - torch.where(mirrored, offset - w, offset)).long()  # (B,) first column of a run
    centres = torch.arange(h, device=images.device, dtype=torch.float64) + 0.5
    rows = torch.floor(matrix[:, 1, 1, None] * (centres - matrix[:, 1, 2, None])).long() + reach
    which = torch.arange(b, device=images.device) + mirrored * b
    if last:
        run = w * c
        first = ((which[:, None] * high + rows) * wide + start[:, None]) * c
    else:
        run = w
        planes = which[:, None] * c + torch.arange(c, device=images.device)
        first = (planes[:, :, None] * high + rows[:, None]) * wide + start[:, None, None]
    runs = frame.as_strided((frame.numel() - run + 1, run), (1, 1))
    moved = runs.index_select(0, first.flatten())
    return moved.view(b, h, w, c).permute(0, 3, 1, 2) if last else moved.view(b, c, h, w)


def apply_sampled(
    images: Tensor, matrix: Tensor, *, fill: Tensor, padding: str, nearest: bool = False
) -> Tensor:
    """Return images (B, C, H, W) under any affine matrices, sampled bilinearly (or nearest)."""
    _, _, h, w = images.shape
    inverse = torch.linalg.inv(matrix)
    ys = torch.arange(h, device=images.device, dtype=torch.float64) + 0.5
    xs = torch.arange(w, device=images.device, dtype=torch.float64) + 0.5
    points = torch.stack(
        [xs.expand(h, w), ys[:, None].expand(h, w), torch.ones_like(xs).expand(h, w)], dim=-1
    )
    source = points.view(1, -1, 3) @ inverse[:, :2].transpose(1, 2)
    scale = torch.tensor([2 / w, 2 / h], dtype=torch.float64, device=images.device)
    grid = (source * scale - 1).view(-1, h, w, 2).to(images.dtype)
    modes = {"zero": "zeros", "edge": "border", "reflect": "reflection"}
    level = fill.to(images.dtype).view(-1, 1, 1)
    return (
        functional.grid_sample(
            images - level, grid, mode="nearest" if nearest else "bilinear",
            padding_mode=modes[padding], align_corners=False,
        )
        + level
    )  # fmt: skip


def transform_points(matrix: Tensor, xy: Tensor) -> Tensor:
    """Return points (B, P, 2) moved by the matrix (B, 3, 3) of their picture, same dtype."""
    ones = torch.ones_like(xy[..., :1], dtype=torch.float64)
    moved = torch.cat([xy.double(), ones], dim=-1) @ matrix[:, :2].transpose(1, 2)
    return moved.to(xy.dtype)


def transform_boxes(matrix: Tensor, boxes: Tensor, *, height: int, width: int) -> Tensor:
    """Return boxes (B, P, 4) x1 y1 x2 y2: around the moved corners, clipped to the picture."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], dim=-1)
    batch, count, _ = corners.shape
    moved = transform_points(matrix, corners.view(batch, 4 * count, 2)).view(batch, count, 4, 2)
    low, high = moved.amin(-2), moved.amax(-2)
    limit = torch.tensor([width, height], dtype=boxes.dtype, device=boxes.device)
    zero = torch.zeros_like(limit)
    return torch.cat([low.clamp(zero, limit), high.clamp(zero, limit)], dim=-1)


def transform_masks(matrix: Tensor, masks: Tensor, *, exact: bool, outside: int = 0) -> Tensor:
    """Return integer masks (B, H, W) moved with their pictures, nearest pixel.

    outside   the label of pixels that come from beyond the picture
    """
    fill = torch.tensor(float(outside), device=masks.device)
    if exact:
        return apply_exact(masks[:, None], matrix, fill=fill, padding="zero")[:, 0]
    # Sampled in float64: exact for every label below 2^53.
    moved = apply_sampled(masks[:, None].double(), matrix, fill=fill, padding="zero", nearest=True)
    return moved[:, 0].round().to(masks.dtype)
