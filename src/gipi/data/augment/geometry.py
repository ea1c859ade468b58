"""Geometric steps as one 3x3 matrix per sample.

Coordinates are continuous, in pixels, (x, y) from the upper left corner; the centre of pixel i lies
at i + 0.5. A matrix M maps a point of the original to the changed picture, p' ~ M p with
p = (x, y, 1)ᵀ up to the scale of the third coordinate. Matrices of consecutive steps are
multiplied, so that a picture is resampled once however many steps there are. `move` applies them
to pictures, `follow` to masks, boxes and keypoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Padding = Literal["zero", "edge", "reflect"]
PADDINGS: tuple[str, ...] = ("zero", "edge", "reflect")
Draw = Callable[[int], Tensor]
"""draw(k): the k-th uniform number in [0, 1) of each sample, (B,) float64."""


@dataclass(frozen=True)
class Geometric:
    """One geometric step: `matrix(draw, height, width)` gives (B, 3, 3) float64.

    reach       largest shift of a step that moves whole pixels only; None for any other step
    mirrors     True where the picture may be mirrored left-right
    padding     what is seen beyond the picture: "zero" (black), "edge" or "reflect"
    size        (height, width) of the result where the step changes it
    inside      True where nothing beyond the picture can come into view
    projective  True where the last row may differ from (0, 0, 1)
    partial     True where only some of the samples are moved
    """

    name: str
    matrix: Callable[[Draw, int, int], Tensor]
    reach: int | None = None
    mirrors: bool = False
    padding: str = "zero"
    size: tuple[int, int] | None = None
    inside: bool = False
    projective: bool = False
    partial: bool = False

    @property
    def exact(self) -> bool:
        """Whether only whole pixels are moved."""
        return self.reach is not None


def identity(like: Tensor) -> Tensor:
    """Return (B, 3, 3) float64 unit matrices, B from `like`."""
    return torch.eye(3, dtype=torch.float64, device=like.device).repeat(len(like), 1, 1)


def about(matrix: Tensor, x: float, y: float) -> Tensor:
    """Return the matrices that act about the point (x, y) instead of the origin."""
    to, back = identity(matrix), identity(matrix)
    to[:, 0, 2], to[:, 1, 2] = -x, -y
    back[:, 0, 2], back[:, 1, 2] = x, y
    return back @ matrix @ to


def inverse(matrix: Tensor) -> Tensor:
    """Return the inverses of (B, 3, 3) matrices by cofactors: no solver, no wait for the device."""
    a, b, c = matrix[:, 0].unbind(-1)
    d, e, f = matrix[:, 1].unbind(-1)
    g, h, i = matrix[:, 2].unbind(-1)
    rows = [
        e * i - f * h, c * h - b * i, b * f - c * e,
        f * g - d * i, a * i - c * g, c * d - a * f,
        d * h - e * g, b * g - a * h, a * e - b * d,
    ]  # fmt: skip
    determinant = a * rows[0] + b * rows[3] + c * rows[6]
    return (torch.stack(rows, dim=-1) / determinant[:, None]).view(-1, 3, 3)


# ------------------------------------------------------------------- matrices of numbers


def signed(u: Tensor) -> Tensor:
    """Return numbers uniform in -1..1 from numbers uniform in 0..1."""
    return u * 2 - 1


def scaling(x: Tensor, y: Tensor, height: int, width: int) -> Tensor:
    """Return the matrices that scale by (x, y) about the middle."""
    m = identity(x)
    m[:, 0, 0], m[:, 1, 1] = x, y
    return about(m, width / 2, height / 2)


def rotation(angle: Tensor, height: int, width: int) -> Tensor:
    """Return the matrices that turn by `angle` radians about the middle, clockwise as seen."""
    m = identity(angle)
    m[:, 0, 0] = m[:, 1, 1] = angle.cos()
    m[:, 0, 1], m[:, 1, 0] = -angle.sin(), angle.sin()
    return about(m, width / 2, height / 2)


def shearing(a: Tensor, b: Tensor, height: int, width: int) -> Tensor:
    """Return the matrices x' = x + a y, y' = y + b x about the middle for slopes (a, b)."""
    m = identity(a)
    m[:, 0, 1], m[:, 1, 0] = a, b
    return about(m, width / 2, height / 2)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrices that move by (x, y) pixels."""
    m = identity(x)
    m[:, 0, 2], m[:, 1, 2] = x, y
    return m


# --------------------------------------------------------------------------------- steps


def flip(*, p: float = 0.5, axis: str = "horizontal") -> Geometric:
    """Mirror with probability p: x' = W - x (horizontal) or y' = H - y (vertical)."""
    at = 0 if axis == "horizontal" else 1

    def matrix(draw: Draw, height: int, width: int) -> Tensor:
        u = draw(0)
        m = identity(u)
        mirrored = (u < p).double()
        m[:, at, at] = 1 - 2 * mirrored
        m[:, at, 2] = mirrored * (width if at == 0 else height)
        return m

    return Geometric("flip", matrix, reach=0, mirrors=at == 0, inside=True)


def shift(*, pixels: int, padding: str = "zero", name: str = "shift") -> Geometric:
    """Move by whole pixels, each axis uniform in -pixels..pixels; also the padded random crop."""

    def matrix(draw: Draw, height: int, width: int) -> Tensor:
        del height, width
        x = torch.floor(draw(0) * (2 * pixels + 1)) - pixels
        return translation(x, torch.floor(draw(1) * (2 * pixels + 1)) - pixels)

    return Geometric(name, matrix, reach=pixels, padding=padding)


def crop(*, pixels: int, padding: str = "zero") -> Geometric:
    """Pad by `pixels` on every side and cut out the original size at a random place.

    The classic for small pictures (He et al. 2015, arXiv:1512.03385: 4 pixels on 32x32).
    """
    return shift(pixels=pixels, padding=padding, name="crop")


def resized_crop(
    *, least: float = 0.35, most: float = 1.0, aspect: float = 4 / 3,
    size: int | tuple[int, int] | None = None,
) -> Geometric:  # fmt: skip
    """Cut out a random part of the picture and stretch it to the whole size (or to `size`).

    Its share of the area is uniform in least..most, the logarithm of width over height uniform in
    ±log(aspect) (Szegedy et al. 2014, arXiv:1409.4842, with least = 0.08). A part that would be
    wider or higher than the picture is cut to it, where torchvision draws again.
    """

    def matrix(draw: Draw, height: int, width: int) -> Tensor:
        area = (least + draw(0) * (most - least)) * height * width
        ratio = torch.exp(signed(draw(1)) * math.log(aspect))
        w = torch.sqrt(area * ratio).clamp(1, width)
        h = torch.sqrt(area / ratio).clamp(1, height)
        m = translation(-draw(2) * (width - w), -draw(3) * (height - h))
        high, wide = _pair(size) if size is not None else (height, width)
        to = identity(w)
        to[:, 0, 0], to[:, 1, 1] = wide / w, high / h
        return to @ m

    found = None if size is None else _pair(size)
    return Geometric("resized-crop", matrix, size=found, inside=True)


def resize(*, size: int | tuple[int, int]) -> Geometric:
    """Stretch the picture to `size`: a side, or (height, width)."""
    high, wide = _pair(size)

    def matrix(draw: Draw, height: int, width: int) -> Tensor:
        m = identity(draw(0))
        m[:, 0, 0], m[:, 1, 1] = wide / width, high / height
        return m

    return Geometric("resize", matrix, size=(high, wide), inside=True)


def rotate(*, degrees: float = 10.0, padding: str = "zero") -> Geometric:
    """Turn about the middle by an angle uniform in -degrees..degrees."""

    def matrix(draw: Draw, height: int, width: int) -> Tensor:
        return rotation(torch.deg2rad(signed(draw(0)) * degrees), height, width)

    return Geometric("rotate", matrix, padding=padding)


def shear(*, degrees: float = 10.0, padding: str = "zero") -> Geometric:
    """Slant about the middle, x' = x + y tan a and y' = y + x tan b, a and b in -degrees..degrees.

    Degrees are at most 40: two slants of 45 would fold the picture into a line.
    """

    def matrix(draw: Draw, height: int, width: int) -> Tensor:
        slopes = [torch.tan(torch.deg2rad(signed(draw(k)) * degrees)) for k in (0, 1)]
        return shearing(slopes[0], slopes[1], height, width)

    return Geometric("shear", matrix, padding=padding)


def zoom(*, strength: float = 0.1, padding: str = "zero") -> Geometric:
    """Scale about the middle by a factor uniform in 1 - strength .. 1 + strength."""

    def matrix(draw: Draw, height: int, width: int) -> Tensor:
        factor = 1 + signed(draw(0)) * strength
        return scaling(factor, factor, height, width)

    return Geometric("zoom", matrix, padding=padding)


def scale(*, factor: float = 1.5, aspect: float = 1.0, padding: str = "zero") -> Geometric:
    """Scale about the middle, the logarithm of the factor uniform in ±log(factor).

    aspect   width is scaled by r and height by 1 / r more, r² log-uniform in 1/aspect..aspect
    """

    def matrix(draw: Draw, height: int, width: int) -> Tensor:
        both = torch.exp(signed(draw(0)) * math.log(factor))
        ratio = torch.exp(signed(draw(1)) * math.log(aspect) / 2)
        return scaling(both * ratio, both / ratio, height, width)

    return Geometric("scale", matrix, padding=padding)


def translate(*, strength: float = 0.1, padding: str = "zero") -> Geometric:
    """Move each axis by a share of its side uniform in -strength..strength, no whole pixels."""

    def matrix(draw: Draw, height: int, width: int) -> Tensor:
        u, v = signed(draw(0)) * strength, signed(draw(1)) * strength
        return translation(u * width, v * height)

    return Geometric("translate", matrix, padding=padding)


def perspective(*, strength: float = 0.3, p: float = 0.5, padding: str = "zero") -> Geometric:
    """Tilt the picture about its middle with probability p: p' ~ (x, y, 1 + g x / W + h y / H).

    g and h are uniform in -strength..strength, x and y are counted from the middle, so that one
    side grows by up to 1 / (1 - strength / 2) while the other shrinks.
    """

    def matrix(draw: Draw, height: int, width: int) -> Tensor:
        chosen = (draw(2) < p).double() * strength
        m = identity(chosen)
        m[:, 2, 0] = signed(draw(0)) * chosen / width
        m[:, 2, 1] = signed(draw(1)) * chosen / height
        return about(m, width / 2, height / 2)

    return Geometric("perspective", matrix, padding=padding, projective=True)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
