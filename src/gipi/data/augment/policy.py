"""RandAugment and TrivialAugment: operations drawn per sample, applied to groups.

Every sample draws its operations, so a batch falls into groups of samples with the same operation.
The geometric operations of a slot are one matrix per sample, those on colours another; only the
groups of the few filters are gathered, changed and put back. Nothing runs per sample, and what a
sample becomes does not depend on who else is in its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.data.augment import colour, filters, geometry
from gipi.data.augment.colour import Colour
from gipi.data.augment.filters import Filter
from gipi.data.augment.geometry import Draw, Geometric

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

OPERATIONS = (
    "identity", "rotate", "shear-x", "shear-y", "translate-x", "translate-y",
    "brightness", "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast",
    "equalize",
)  # fmt: skip
"""The fourteen of both papers; the first six are geometric or nothing."""
_NUMBER = {name: k for k, name in enumerate(OPERATIONS)}


@dataclass(frozen=True)
class Ranges:
    """What magnitude 1 means: slope, pixels or share of the side, degrees, factor, bits left."""

    shear: float
    translate: float
    degrees: float
    factor: float
    bits: int


RAND = Ranges(shear=0.3, translate=150 / 331, degrees=30.0, factor=0.9, bits=4)
TRIVIAL = Ranges(shear=0.99, translate=32.0, degrees=135.0, factor=0.99, bits=2)


@dataclass(frozen=True)
class Policy:
    """Several steps that share their draws: a slot in which each sample has one operation."""

    name: str
    parts: tuple[Geometric | Colour | Filter, ...]


def rand_augment(
    *, n: int = 2, magnitude: float = 9.0, padding: str = "zero"
) -> tuple[Policy, ...]:
    """Give each sample n of fourteen operations, all of one strength.

    Cubuk et al. 2020, "RandAugment", arXiv:1909.13719. magnitude: 0..30 as there. Deviations: the
    geometry of all slots is one resampling before the colours, and contrast is about the mean
    colour of the training pictures.
    """

    def strength(draw: Draw) -> Tensor:
        return torch.full_like(draw(0), magnitude / 30)

    return tuple(_slot("rand-augment", RAND, strength, padding) for _ in range(n))


def trivial_augment(*, padding: str = "zero") -> tuple[Policy, ...]:
    """Give each sample one of fourteen operations, its strength uniform over a wide range.

    Müller and Hutter 2021, "TrivialAugment", arXiv:2103.10158 (the wide set of ranges). Deviations
    as in `rand_augment`.
    """

    def strength(draw: Draw) -> Tensor:
        return torch.floor(draw(1) * 31) / 30

    return (_slot("trivial-augment", TRIVIAL, strength, padding),)


def _slot(name: str, ranges: Ranges, strength: Callable[[Draw], Tensor], padding: str) -> Policy:
    """Return one slot. Draw 0 is the operation, 1 the strength, 2 the sign."""

    def operation(draw: Draw) -> Tensor:
        return torch.floor(draw(0) * len(OPERATIONS))

    def amount(draw: Draw, *names: str) -> Tensor:
        """Return strength x sign for samples whose operation is one of these, else 0."""
        found = operation(draw)
        chosen = torch.zeros_like(found)
        for one in names:
            chosen = torch.where(found == _NUMBER[one], 1.0, chosen)
        return chosen * strength(draw) * torch.where(draw(2) < 0.5, -1.0, 1.0)

    def matrix(draw: Draw, height: int, width: int) -> Tensor:
        turn = torch.deg2rad(amount(draw, "rotate") * ranges.degrees)
        m = geometry.rotation(turn, height, width)
        shear_x = amount(draw, "shear-x") * ranges.shear
        shear_y = amount(draw, "shear-y") * ranges.shear
        m = geometry.shearing(shear_x, shear_y, height, width) @ m
        far = [ranges.translate * (side if ranges.translate < 1 else 1) for side in (width, height)]
        far = [min(pixels, side) for pixels, side in zip(far, (width, height), strict=True)]
        x, y = amount(draw, "translate-x") * far[0], amount(draw, "translate-y") * far[1]
        moved = geometry.translation(x, y) @ m
        still = operation(draw) > _NUMBER["translate-y"]
        return torch.where(still[:, None, None], geometry.identity(still), moved)

    def colours(draw: Draw, mean: Tensor) -> Tensor:
        names = ("brightness", "contrast", "color")
        makers = (colour.lighter, colour.stretched, colour.saturated)
        parts = [
            make(1 + amount(draw, one) * ranges.factor, mean)
            for one, make in zip(names, makers, strict=True)
        ]
        return colour.after(parts[2], colour.after(parts[1], parts[0]))

    def only(one: str, apply: Callable[[Tensor, Draw], Tensor], *, bounded: bool = True) -> Filter:
        return Filter(one, apply, lambda draw: operation(draw) == _NUMBER[one], bounded=bounded)

    def sharp(values: Tensor, draw: Draw) -> Tensor:
        return filters.sharper(values, 1 + amount(draw, "sharpness") * ranges.factor)

    def poster(values: Tensor, draw: Draw) -> Tensor:
        return filters.fewer_levels(values, 8 - torch.round(strength(draw) * (8 - ranges.bits)))

    def solar(values: Tensor, draw: Draw) -> Tensor:
        return filters.inverted_above(values, 1 - strength(draw))

    return Policy(
        name,
        (
            Geometric(name, matrix, padding=padding, partial=True),
            Colour(name, colours, mixes=True),
            only("sharpness", sharp, bounded=False),
            only("posterize", poster),
            only("solarize", solar),
            only("autocontrast", lambda values, _: filters.stretch_range(values)),
            only("equalize", lambda values, _: filters.even_levels(values)),
        ),
    )
