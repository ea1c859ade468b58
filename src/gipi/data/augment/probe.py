"""Does a mirror image keep its class? Measured on training rows with a probe that takes a second.

A mirrored 3 is no 3, a mirrored cat is a cat, and a mirrored b is a d. The probe is a classifier of
small copies of the pictures: ridge regression on random cosine features (Rahimi and Recht 2007),
fitted on three quarters of the rows. On the other quarter it says

    plain     accuracy on the pictures as they are
    flipped   accuracy on their mirror images, which it has never seen
    both      accuracy on the pictures as they are of a probe fitted on pictures and mirror images

A flip is accepted where mirror images keep at least half of the accuracy above chance, and where
learning both costs no more than the noise. A boot that points the other way looks new to the probe
and is still a boot, hence half and not all; digits and letters keep far less than half.

Where the probe knows nothing it cannot tell; then the flip is accepted if a second probe cannot
tell pictures from mirror images.

Masks and boxes move along with a flip, but keep their classes: there the first probe is asked about
the objects, cut out of their pictures, and only its refusal counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch.nn import functional

from gipi.core.errors import DataError
from gipi.data.augment.objects import cut_out
from gipi.data.masks import Masks
from gipi.data.pictures import Pictures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

ROWS = 4_000  # training rows that are looked at, at most
FEWEST = 40
PICTURED = 1_000  # training rows whose objects are looked at, at most
SIDE = 12  # pixels of the small copies
FEATURES = 512
KEPT = 0.5  # share of the accuracy above chance that mirror images must keep
SURE = 2.0  # standard errors that count as more than noise
_RIDGE = 1e-3
_AXES = {"horizontal": 3, "vertical": 2}
_WORDS = {"horizontal": "left-right", "vertical": "upside down"}


class HasColumns(Protocol):
    """What is read of a data set's `Columns`: pictures among the inputs, and the target."""

    @property
    def inputs(self) -> Mapping[str, object]:
        """Columns by name."""

    @property
    def target(self) -> object:
        """Classes, or anything else."""


@dataclass(frozen=True)
class FlipProbe:
    """What was measured about one flip.

    allowed         whether it keeps the class
    plain, flipped, both  see the module; NaN where there are no classes
    chance          accuracy of always naming the most frequent class
    noise           standard error of `plain`
    apart           accuracy of telling pictures from mirror images; NaN where it was not asked
    reason          all of this in words
    """

    axis: str
    allowed: bool
    plain: float
    flipped: float
    both: float
    chance: float
    noise: float
    apart: float
    reason: str

    @property
    def by_class(self) -> bool:
        """Whether classes decided, not the second probe."""
        return math.isfinite(self.plain) and math.isnan(self.apart)


def probe_flips(
    columns: HasColumns, ids: np.ndarray, *, axes: Sequence[str] = ("horizontal", "vertical"),
    seed: int = 0,
) -> tuple[FlipProbe, ...]:  # fmt: skip
    """Measure both flips on at most 4,000 of the training rows `ids`, spread evenly.

    Of masks and boxes, the objects on at most 1,000 rows can refuse a flip. Other targets than
    int64 classes are not looked at: then only the second probe is asked.
    Raises `DataError` where the data has no pictures.
    """
    pictures = next((c for c in columns.inputs.values() if isinstance(c, Pictures)), None)
    if pictures is None:
        raise DataError("no pictures to mirror", "data with pictures", "leave the probe out")
    rows = np.sort(ids)[:: max(1, -(-len(ids) // ROWS))]
    target, labels = columns.target, None
    some = rows[:: max(1, -(-len(rows) // PICTURED))]
    small, objects = [], []
    for first in range(0, len(rows), 256):
        block = rows[first : first + 256]
        pixels = torch.from_numpy(pictures.fetch(block))
        small.append(_small(pixels))
        kept = np.flatnonzero(np.isin(block, some))
        drawn = _drawn(target, block[kept])
        if drawn is not None:
            most = max(1, ROWS // len(some))
            objects.append(cut_out(pixels[torch.from_numpy(kept)], drawn, side=SIDE, most=most))
    images = torch.cat(small)
    if objects:
        crops, classes = (torch.cat(parts) for parts in zip(*objects, strict=True))
        return tuple(_by_objects(probe_flip(images, None, axis=axis, seed=seed), crops, classes,
                                 seed=seed) for axis in axes)  # fmt: skip
    if isinstance(target, torch.Tensor) and target.dtype == torch.int64 and target.dim() == 1:
        labels = target[torch.from_numpy(rows)]
    return tuple(probe_flip(images, labels, axis=axis, seed=seed) for axis in axes)


def _drawn(target: object, rows: np.ndarray) -> Tensor | None:
    """Return the masks (n, H, W) or boxes (n, M, 6) of these rows, None where none are learnt."""
    if isinstance(target, Masks):
        return torch.from_numpy(target.fetch(rows))
    if isinstance(target, torch.Tensor) and target.dim() == 3 and target.shape[2] == 6:
        return target[torch.from_numpy(rows)]
    return None


def _by_objects(whole: FlipProbe, crops: Tensor, classes: Tensor, *, seed: int) -> FlipProbe:
    """Return the refusal of a flip by the classes of objects, else what whole pictures say."""
    if len(crops) < FEWEST or len(classes.unique()) < 2:
        return whole
    found = probe_flip(crops, classes, axis=whole.axis, seed=seed, what="objects")
    return found if found.by_class and not found.allowed else whole


def probe_flip(
    images: Tensor, labels: Tensor | None, *, axis: str = "horizontal", seed: int = 0,
    what: str = "rows",
) -> FlipProbe:  # fmt: skip
    """Measure whether the flip along `axis` keeps the class; see the module.

    images   (N, C, H, W) of training rows only
    labels   (N,) int64 classes, or None
    what     they are, for the reason
    """
    nan = float("nan")
    word = _WORDS[axis]
    if len(images) < FEWEST:
        reason = f"{word} flip off: {len(images)} rows are too few to measure whether it fits"
        return FlipProbe(axis, False, nan, nan, nan, nan, nan, nan, reason)  # noqa: FBT003
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    small = _small(images)[order].double()
    features, mirrored = _features(small, small.flip(_AXES[axis]), generator)
    cut = len(small) * 3 // 4
    held = len(small) - cut
    plain = flipped = both = chance = noise = nan
    if labels is not None:
        y = labels[order]
        y = torch.unique(y, return_inverse=True)[1]
        once = _fit(features[:cut], y[:cut])
        twice = _fit(torch.cat([features[:cut], mirrored[:cut]]), torch.cat([y[:cut], y[:cut]]))
        right = _named(once, features[cut:]) == y[cut:]
        right_both = _named(twice, features[cut:]) == y[cut:]
        plain, both = _share(right), _share(right_both)
        flipped = _share(_named(once, mirrored[cut:]) == y[cut:])
        chance = float(torch.bincount(y[cut:]).max()) / held
        noise = (plain * (1 - plain) / held) ** 0.5
        if plain - chance > SURE * max(noise, 1 / held):
            differs = (right.double() - right_both.double()).std() / held**0.5
            kept = (flipped - chance) / (plain - chance)
            cost = plain - both
            allowed = kept >= KEPT and cost <= SURE * max(float(differs), 1 / held)
            reason = (
                f"{word} flip {'on' if allowed else 'off'}: a probe of {cut} training {what} names "
                f"{plain:.3f} of {held} others, {flipped:.3f} of their mirror images (it keeps "
                f"{max(kept, 0.0):.0%} above chance, {KEPT:.0%} are needed), and {both:.3f} after "
                f"learning both (noise {noise:.3f})"
            )
            return FlipProbe(axis, allowed, plain, flipped, both, chance, noise, nan, reason)
    apart = _apart(features, mirrored, cut)
    error = (0.25 / held) ** 0.5  # a picture and its mirror image are right or wrong together
    allowed = apart - 0.5 <= SURE * error
    why = "there are no classes to compare" if labels is None else (
        f"the probe names {plain:.3f}, no more than chance ({chance:.3f})")  # fmt: skip
    reason = (
        f"{word} flip {'on' if allowed else 'off'}: {why}; a second probe tells pictures from "
        f"mirror images in {apart:.3f} of {2 * held} cases (0.5 is guessing, noise {error:.3f})"
    )
    return FlipProbe(axis, allowed, plain, flipped, both, chance, noise, apart, reason)


def _small(images: Tensor) -> Tensor:
    """Return float32 copies with sides of at most `SIDE` pixels, averaged."""
    high, wide = (min(side, SIDE) for side in images.shape[2:])
    return functional.adaptive_avg_pool2d(images.float(), (high, wide))


def _features(small: Tensor, mirrored: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return cos(x W + b) of both, the width of W set by the distances between pictures."""
    x, z = small.flatten(1), mirrored.flatten(1)
    spread = x.std(0) + 0.1 * x.std() + 1e-12
    x, z = x / spread, z / spread
    some = x[: min(len(x) // 2, 300)]
    width = torch.cdist(some, x[-len(some) :]).median().clamp_min(1e-12)
    weight = torch.randn(x.shape[1], FEATURES, generator=generator, dtype=torch.float64)
    weight *= 1.5 / width
    phase = torch.rand(FEATURES, generator=generator, dtype=torch.float64) * (2 * torch.pi)
    return torch.cos(x @ weight + phase), torch.cos(z @ weight + phase)


def _fit(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights and bias of the ridge regression on one-hot classes."""
    wanted = functional.one_hot(labels).double()
    middle, level = features.mean(0), wanted.mean(0)
    x = features - middle
    gram = x.T @ x
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, x.T @ (wanted - level))
    return weight, level - middle @ weight


def _named(fitted: tuple[Tensor, Tensor], features: Tensor) -> Tensor:
    return (features @ fitted[0] + fitted[1]).argmax(1)


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def _apart(features: Tensor, mirrored: Tensor, cut: int) -> float:
    """Return how many of held-out pictures and mirror images are told apart."""
    ones = torch.ones(len(features), dtype=torch.int64)
    fitted = _fit(
        torch.cat([features[:cut], mirrored[:cut]]), torch.cat([0 * ones[:cut], ones[:cut]])
    )
    said = torch.cat([_named(fitted, features[cut:]) == 0, _named(fitted, mirrored[cut:]) == 1])
    return _share(said)
