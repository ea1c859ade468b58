"""Views: fixed changes of a picture for test-time augmentation, each with its way back.

A view is one known matrix per picture size, so whatever is found on it (masks, boxes, points) can
be brought back to the picture itself.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gipi.core.errors import ConfigError, did_you_mean
from gipi.data.augment import geometry
from gipi.data.augment.geometry import Geometric, inverse
from gipi.data.augment.move import move

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_FLIPS = {"flip": "horizontal", "vertical": "vertical"}
_PIXELS, _FACTOR = 2, 1.1
MOST = 32


@dataclass(frozen=True)
class View:
    """One way to look at a picture: `apply` forward, `inverse` for what was found.

    steps   (name, matrix maker) of the steps, in order; none: the picture itself
    name    in words, such as "flip, shift 2 2"
    """

    name: str
    steps: tuple[Geometric, ...]

    def matrix(self, height: int, width: int) -> Tensor:
        """Return the (3, 3) float64 matrix from the picture to the view."""
        nothing = torch.zeros(1, dtype=torch.float64)
        total = geometry.identity(nothing)
        for step in self.steps:
            total = step.matrix(lambda _: nothing, height, width) @ total
        return total[0]

    def inverse(self, height: int, width: int) -> Tensor:
        """Return the (3, 3) float64 matrix from the view back to the picture."""
        return inverse(self.matrix(height, width)[None])[0]

    def apply(self, images: Tensor, *, fill: Tensor | None = None) -> Tensor:
        """Return the view of images (B, C, H, W); `fill` (C,) is seen beyond them (None: 0)."""
        if not self.steps:
            return images
        b, c, h, w = images.shape
        matrix = self.matrix(h, w).to(images.device).expand(b, 3, 3)
        level = images.new_zeros(c) if fill is None else fill.to(images.device)
        return move(images, matrix, steps=self.steps, fill=level)


def tta_views(steps: Sequence[str | dict[str, Any]]) -> tuple[View, ...]:
    """Return the views that these steps span, the picture itself first.

    "flip"      the mirror image; "vertical": upside down
    "shift"     moved by {"pixels": 2} to the upper left and to the lower right
    "zoom"      larger by {"factor": 1.1}, and smaller

    Steps combine: flip and shift give 2 x 3 views. Raises `ConfigError` for other names and values.

    >>> [view.name for view in tta_views(["flip", {"name": "shift", "pixels": 1}])][:3]
    ['as it is', 'shift -1 -1', 'shift 1 1']
    """
    asked = (steps,) if isinstance(steps, str | dict) else steps
    variants = [_variants(step) for step in asked]
    views = []
    for chosen in itertools.product(*variants):
        parts = [one for one in chosen if one is not None]
        name = ", ".join(step.name for step in parts) or "as it is"
        views.append(View(name, tuple(parts)))
    if len(views) > MOST:
        raise ConfigError(
            f"{len(views)} views of each picture", f"at most {MOST}", "leave some out"
        )
    return tuple(views)


def _variants(step: str | dict[str, Any]) -> tuple[Geometric | None, ...]:
    """Return the alternatives of one step; None leaves the picture as it is."""
    options = {"name": step} if isinstance(step, str) else dict(step)
    name = options.pop("name", None)
    names = (*_FLIPS, "shift", "zoom")
    if name not in names:
        raise ConfigError(
            f"tta={name!r}", "one of " + ", ".join(names), did_you_mean(str(name), names)
        )
    known = {"shift": ("pixels",), "zoom": ("factor",)}.get(name, ())
    for key in options:
        if key not in known:
            raise ConfigError(
                f"tta.{name}.{key}: there is no such option",
                f"an option of {name}: {', '.join(known) or 'it has none'}",
                "leave it out",
            )
    if name in _FLIPS:
        return None, _named(geometry.flip(p=1.0, axis=_FLIPS[name]), name)
    if name == "shift":
        pixels = options.get("pixels", _PIXELS)
        if not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 1:
            raise ConfigError(f"tta.shift.pixels={pixels!r}", "whole pixels from 1", "correct it")
        return None, _shifted(-pixels), _shifted(pixels)
    factor = options.get("factor", _FACTOR)
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 1 < factor <= 4:
        raise ConfigError(f"tta.zoom.factor={factor!r}", "above 1, at most 4", "correct it")
    return None, _scaled(factor), _scaled(1 / factor)


def _named(step: Geometric, name: str) -> Geometric:
    return Geometric(name, step.matrix, reach=step.reach, mirrors=step.mirrors, inside=True)


def _shifted(pixels: int) -> Geometric:
    def matrix(draw: geometry.Draw, height: int, width: int) -> Tensor:
        del height, width
        far = torch.full_like(draw(0), pixels)
        return geometry.translation(far, far)

    return Geometric(f"shift {pixels} {pixels}", matrix, reach=abs(pixels))


def _scaled(factor: float) -> Geometric:
    def matrix(draw: geometry.Draw, height: int, width: int) -> Tensor:
        by = torch.full_like(draw(0), factor)
        return geometry.scaling(by, by, height, width)

    return Geometric(f"zoom {factor:.2f}", matrix)
