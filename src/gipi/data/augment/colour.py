"""Steps on colours: one matrix C x (C + 1) per sample, applied once.

Pictures are normalised, z = (v - m) / s with channel mean m and spread s of the training pictures
and v in [0, 1]; steps say what they do to v, v' = A v + b. The matrices of consecutive steps are
multiplied, and values are cut to [0, 1] once at the end, where step-by-step code cuts after each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.data.augment.geometry import signed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gipi.data.augment.geometry import Draw

LUMA = (0.299, 0.587, 0.114)
"""Share of red, green and blue in the brightness that people see (ITU-R BT.601)."""
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True)
class Colour:
    """One step v' = A v + b: `matrix(draw, mean)` gives (B, C, C + 1) float64, [A b].

    mixes   whether channels are mixed (A is no multiple of the unit matrix)
    """

    name: str
    matrix: Callable[[Draw, Tensor], Tensor]
    mixes: bool = False


def unit(like: Tensor, channels: int) -> Tensor:
    """Return (B, C, C + 1) float64 matrices that change nothing, B from `like`."""
    eye = torch.eye(channels, channels + 1, dtype=torch.float64, device=like.device)
    return eye.repeat(len(like), 1, 1)


def after(second: Tensor, first: Tensor) -> Tensor:
    """Return the matrices of doing `first`, then `second`."""
    a, b = second[..., :-1], second[..., -1:]
    both = a @ first
    return torch.cat([both[..., :-1], both[..., -1:] + b], dim=-1)


# ------------------------------------------------------------------- matrices of numbers


def lighter(gain: Tensor, mean: Tensor) -> Tensor:
    """Return the matrices v' = g v."""
    return unit(gain, len(mean)) * gain[:, None, None]


def stretched(gain: Tensor, mean: Tensor) -> Tensor:
    """Return the matrices v' = m + g (v - m) about the mean colour m."""
    out = lighter(gain, mean)
    out[..., -1] = (1 - gain)[:, None] * mean.double()
    return out


def saturated(gain: Tensor, mean: Tensor) -> Tensor:
    """Return the matrices v' = y + g (v - y) with the brightness y of each pixel; RGB only."""
    out = unit(gain, len(mean))
    if len(mean) != 3:
        return out
    grey = torch.zeros_like(out)
    grey[..., :3] = torch.tensor(LUMA, dtype=torch.float64, device=gain.device)
    return gain[:, None, None] * out + (1 - gain)[:, None, None] * grey


def turned(angle: Tensor, mean: Tensor) -> Tensor:
    """Return the matrices that turn the hue by `angle` (radians), brightness kept; RGB only."""
    out = unit(angle, len(mean))
    if len(mean) != 3:
        return out
    yiq = torch.tensor(_YIQ, dtype=torch.float64, device=angle.device)
    turn = torch.eye(3, dtype=torch.float64, device=angle.device).repeat(len(angle), 1, 1)
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    out[..., :3] = torch.linalg.inv(yiq) @ turn @ yiq
    return out


# --------------------------------------------------------------------------------- steps


def brightness(*, strength: float = 0.2) -> Colour:
    """Multiply v by a factor uniform in 1 - strength .. 1 + strength."""
    return Colour("brightness", lambda d, mean: lighter(1 + signed(d(0)) * strength, mean))


def contrast(*, strength: float = 0.2) -> Colour:
    """Stretch v about the mean colour of the training pictures, v' = m + g (v - m).

    g is uniform in 1 - strength .. 1 + strength. Others stretch about the grey mean of the picture
    itself; the fixed centre keeps the step a matrix.
    """
    return Colour("contrast", lambda d, mean: stretched(1 + signed(d(0)) * strength, mean))


def saturation(*, strength: float = 0.2) -> Colour:
    """Move colours away from grey by a factor uniform in 1 - strength .. 1 + strength."""
    return Colour("saturation", lambda d, m: saturated(1 + signed(d(0)) * strength, m), mixes=True)


def hue(*, degrees: float = 18.0) -> Colour:
    """Turn the hue by an angle uniform in -degrees..degrees, in the YIQ plane.

    A turn about the grey axis that keeps brightness; in HSV, which others use, it is no matrix.
    """
    return Colour("hue", lambda d, m: turned(torch.deg2rad(signed(d(0)) * degrees), m), mixes=True)


def grey(*, p: float = 0.1) -> Colour:
    """Take the colours away with probability p: v' = brightness in every channel."""
    return Colour("grey", lambda d, m: saturated((d(0) >= p).double(), m), mixes=True)


def color_jitter(
    *, brightness: float = 0.3, contrast: float = 0.3, saturation: float = 0.3,
    hue: float = 0.0, p: float = 0.8,
) -> Colour:  # fmt: skip
    """Brightness, contrast, saturation and hue (share of a full turn) at once, with probability p.

    Howard 2013, arXiv:1312.5402. They come in this order, where torchvision draws an order. Grey
    pictures have no colour: only the first two act.
    """

    def matrix(draw: Draw, mean: Tensor) -> Tensor:
        chosen = (draw(4) < p).double()
        out = lighter(1 + signed(draw(0)) * brightness * chosen, mean)
        out = after(stretched(1 + signed(draw(1)) * contrast * chosen, mean), out)
        if len(mean) == 3:
            out = after(saturated(1 + signed(draw(2)) * saturation * chosen, mean), out)
            if hue:
                out = after(turned(signed(draw(3)) * hue * chosen * 2 * math.pi, mean), out)
        return out

    return Colour("color-jitter", matrix, mixes=True)


# --------------------------------------------------------------------------- application


def apply_colour(
    images: Tensor, matrix: Tensor, *, mean: Tensor, std: Tensor, clip: bool, mixes: bool
) -> Tensor:
    """Return normalised images after v' = A v + b, v kept within [0, 1] where `clip`.

    In normalised values: z' = S⁻¹ A S z + S⁻¹ (A m + b - m) with S = diag(s).
    mixes   False where all A are multiples of the unit matrix
    """
    m, s = mean.double(), std.double()
    a, b = matrix[..., :-1], matrix[..., -1]
    offset = ((a @ m + b - m) / s).float()
    values = images.float()
    if not mixes or len(mean) == 1:
        out = values * a[:, :1, 0].float()[:, :, None, None]
        out += offset[:, :, None, None]
    else:
        out = _mixed(values, (a * s / s[:, None]).float(), offset)
    if clip:
        low, high = (-m / s).float(), ((1 - m) / s).float()
        out = torch.clamp(out, low.view(-1, 1, 1), high.view(-1, 1, 1), out=out)
    return out.to(images.dtype)


def _mixed(images: Tensor, a: Tensor, offset: Tensor) -> Tensor:
    """Return A x + offset for the channels x of every pixel, in the memory layout of the images."""
    b, c, h, w = images.shape
    if images.stride(1) == 1 and c > 1:
        pixels = images.permute(0, 2, 3, 1).reshape(b, h * w, c)
        out = torch.baddbmm(offset[:, None], pixels, a.transpose(1, 2))
        return out.view(b, h, w, c).permute(0, 3, 1, 2)
    return torch.baddbmm(offset[..., None], a, images.reshape(b, c, h * w)).view(b, c, h, w)
