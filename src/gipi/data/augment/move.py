"""Pictures under the matrices of `geometry`, each in the fastest way that is exact.

Flips and whole-pixel shifts are gathers of pixels, or of whole rows; everything else is sampled
once, bilinearly. Sampling is done in float32 whatever the dtype of the pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from gipi.data.augment.geometry import inverse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gipi.data.augment.geometry import Geometric

_MODES = {"zero": "zeros", "edge": "border", "reflect": "reflection"}


def move(images: Tensor, matrix: Tensor, *, steps: Sequence[Geometric], fill: Tensor) -> Tensor:
    """Return images (B, C, H, W) moved by `matrix` (B, 3, 3), the product of these steps.

    fill   value (C,) of what lies beyond the picture with padding "zero"
    """
    padding = next((step.padding for step in steps if step.padding != "zero"), "zero")
    size = next((step.size for step in reversed(steps) if step.size is not None), None)
    reaches = [step.reach for step in steps if step.reach is not None]
    if len(reaches) == len(steps):
        if padding != "zero":
            return apply_exact(images, matrix, fill=fill, padding=padding)
        mirrors = any(step.mirrors for step in steps)
        return apply_windows(images, matrix, fill=fill, reach=sum(reaches), mirrors=mirrors)
    if padding == "zero" and all(step.inside for step in steps):
        padding = "edge"  # no frame of black mixes with the outermost half pixel
    projective = any(step.projective for step in steps)
    if size is None and padding == "zero" and all(step.exact or step.partial for step in steps):
        # A policy leaves many pictures where they are: those are moved by whole rows.
        reach = sum(reaches)
        still = _whole_pixels(matrix, images.shape[2], images.shape[3], reach=reach)
        plain = torch.where(still[:, None, None], matrix, torch.eye(3).to(matrix))
        mirrors = any(step.mirrors for step in steps)
        out = apply_windows(images, plain, fill=fill, reach=reach, mirrors=mirrors)
        rows = (~still).nonzero()[:, 0]  # sync, once for several batches
        if len(rows):
            out[rows] = apply_sampled(
                images[rows], matrix[rows], fill=fill, padding=padding, projective=projective
            )
        return out
    return apply_sampled(
        images, matrix, fill=fill, padding=padding, size=size, projective=projective
    )


def _whole_pixels(matrix: Tensor, height: int, width: int, *, reach: int) -> Tensor:
    """Return (B,) bool: matrices that are flips and shifts by at most `reach` whole pixels."""
    sign = matrix[:, [0, 1], [0, 1]]
    size = torch.tensor([width, height], dtype=matrix.dtype, device=matrix.device)
    far = matrix[:, :2, 2] - torch.where(sign < 0, size, 0.0)
    rest = matrix[:, [0, 1, 2, 2], [1, 0, 0, 1]]
    whole = far.eq(far.round()) & (far.abs() <= reach) & sign.abs().eq(1)
    return whole.all(1) & rest.eq(0).all(1) & matrix[:, 2, 2].eq(1)


def source_index(sign: Tensor, offset: Tensor, size: int, padding: str) -> tuple[Tensor, Tensor]:
    """Return (B, size) int64 source pixels along one axis, and where they lie inside.

    sign, offset   (B,) of the matrices: x' = sign x + offset with sign ±1
    """
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
    rows, row_inside = source_index(matrix[:, 1, 1], matrix[:, 1, 2], h, padding)
    cols, col_inside = source_index(matrix[:, 0, 0], matrix[:, 0, 2], w, padding)
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
    images: Tensor, matrix: Tensor, *, fill: Tensor, padding: str,
    size: tuple[int, int] | None = None, projective: bool = True,
) -> Tensor:  # fmt: skip
    """Return images (B, C, H, W) under any matrices, sampled bilinearly.

    size         (height, width) of the result; None: as the images. Where that is less than half
                 of the images' size, they are averaged down by whole factors first.
    projective   False where no matrix has perspective
    """
    h, w = images.shape[2:]
    high, wide = size or (h, w)
    down_y, down_x = max(1, h // max(high, 1)), max(1, w // max(wide, 1))
    if max(down_y, down_x) > 1:
        images = functional.avg_pool2d(
            images, (down_y, down_x), ceil_mode=True, count_include_pad=False
        )
    x, y = source_points(matrix, (high, wide), projective=projective)
    grid_h, grid_w = images.shape[2] * down_y, images.shape[3] * down_x
    grid = torch.stack([x * (2 / grid_w) - 1, y * (2 / grid_h) - 1], dim=-1)
    level = fill.float().view(-1, 1, 1)
    values = images.float()
    moved = functional.grid_sample(
        values if padding != "zero" else values - level, grid, mode="bilinear",
        padding_mode=_MODES[padding], align_corners=False,
    )  # fmt: skip
    if padding == "zero":
        moved += level
    return moved.to(images.dtype)


def source_points(
    matrix: Tensor, size: tuple[int, int], *, projective: bool = True
) -> tuple[Tensor, Tensor]:
    """Return float32 x and y (B, H, W): where the pixels of a result of `size` come from.

    What lies behind the viewer of a perspective is put far away.
    """
    back = inverse(matrix)
    ys = torch.arange(size[0], device=matrix.device, dtype=torch.float64) + 0.5
    xs = torch.arange(size[1], device=matrix.device, dtype=torch.float64) + 0.5

    def row(k: int) -> Tensor:
        along = (back[:, k, :1] * xs).float()
        across = (back[:, k, 1:2] * ys + back[:, k, 2:]).float()
        return along[:, None, :] + across[:, :, None]

    x, y = row(0), row(1)
    if not projective:
        return x, y
    z = row(2)
    ahead = z > 1e-6
    z = torch.where(ahead, z, torch.ones_like(z))
    return torch.where(ahead, x / z, -1e6), torch.where(ahead, y / z, -1e6)
