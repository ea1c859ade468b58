"""`Augment`: the chosen steps applied to a batch: geometry, values, erasing, mixing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.core.seed import uniform
from gipi.data.augment import mix
from gipi.data.augment.geometry import (
    Geometric,
    apply_exact,
    apply_sampled,
    apply_windows,
    identity,
)
from gipi.data.augment.mix import Mixing
from gipi.data.augment.pixels import Erasing, Photometric, apply_gain_bias, rectangle

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_DRAWS = 16  # numbers that one step may draw per sample
_CHOICE = 1_000_000  # number of the draw that chooses among several ways to mix

Step = Geometric | Photometric | Erasing | Mixing


@dataclass(frozen=True)
class Augment:
    """Steps with their numbers fixed: calling it changes a batch, the same way every time.

    steps     in the order in which they were asked for
    mean, std of the picture channels, as the pictures were normalised; (C,) float32
    clip      True where values have the range [0, 1] before normalisation
    classes   number of classes of a categorical target, else 0
    """

    steps: tuple[Step, ...]
    mean: Tensor
    std: Tensor
    clip: bool
    classes: int

    @property
    def mixing(self) -> bool:
        """Whether rows are mixed with others of their global batch."""
        return any(isinstance(step, Mixing) for step in self.steps)

    @property
    def exact(self) -> bool:
        """Whether all geometric steps move whole pixels."""
        return all(step.exact for step in self.steps if isinstance(step, Geometric))

    def __call__(
        self, inputs: dict[str, Tensor], target: Tensor | None, ids: Tensor, *, key: int,
        partner: Tensor | None = None, keep: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor | None]:  # fmt: skip
        """Return changed inputs and target.

        ids      (B,) int64 ids of the samples
        key      from `derive(seed, "augment", epoch)`
        partner  (n,) index of the row that each kept row is mixed with
        keep     (n,) index of the rows to return; None: all
        """
        changed = dict(inputs)
        if "image" in inputs:
            changed["image"] = self.pictures(inputs["image"], ids, key=key)
        if partner is not None and self.mixing:
            return self._mix(changed, target, ids, key=key, partner=partner, keep=keep)
        if keep is not None:
            changed = {k: v[keep] for k, v in changed.items()}
            target = None if target is None else target[keep]
        return changed, target

    def pictures(self, images: Tensor, ids: Tensor, *, key: int) -> Tensor:
        """Return images (B, C, H, W) after all steps that need no second row."""
        _, _, h, w = images.shape
        mean, std = self.mean.to(images.device), self.std.to(images.device)
        moving = [step for step in self.steps if isinstance(step, Geometric)]
        if moving:
            matrix = self.matrix(ids, key=key, height=h, width=w)
            fill = -mean / std if self.clip else 0 * mean  # black; the mean where 0 is no black
            images = _move(images, moving, matrix, fill=fill)
        gain: Tensor | None = None
        bias: Tensor | None = None
        for at, step in enumerate(self.steps):
            if isinstance(step, Photometric):
                g, b = step.gain_bias(_draws(key, ids, at), mean)
                gain, bias = (g, b) if gain is None or bias is None else (gain * g, bias * g + b)
        if gain is not None and bias is not None:
            images = apply_gain_bias(images, gain, bias, mean=mean, std=std, clip=self.clip)
        for at, step in enumerate(self.steps):
            if isinstance(step, Erasing):
                box = step.box(_draws(key, ids, at), h, w)
                kept = ~rectangle(box, h, w)
                images = images * kept.to(images.dtype)  # faster than masked_fill
        return images

    def matrix(self, ids: Tensor, *, key: int, height: int, width: int) -> Tensor:
        """Return (B, 3, 3) float64: all geometric steps of each sample as one matrix.

        What lies on a picture goes along with it: `transform_points`, `transform_boxes` and
        `transform_masks` take this matrix.
        """
        total = None
        for at, step in enumerate(self.steps):
            if isinstance(step, Geometric):
                one = step.matrix(_draws(key, ids, at), height, width)
                total = one if total is None else one @ total
        return identity(ids) if total is None else total

    def _mix(
        self, inputs: dict[str, Tensor], target: Tensor | None, ids: Tensor, *, key: int,
        partner: Tensor, keep: Tensor | None,
    ) -> tuple[dict[str, Tensor], Tensor | None]:  # fmt: skip
        own = inputs if keep is None else {k: v[keep] for k, v in inputs.items()}
        own_ids = ids if keep is None else ids[keep]
        other = {k: v[partner] for k, v in inputs.items()}
        ways = [(at, s) for at, s in enumerate(self.steps) if isinstance(s, Mixing)]
        chosen = torch.floor(uniform(key, own_ids, _CHOICE) * len(ways))
        total = torch.ones(len(own_ids), dtype=torch.float64, device=own_ids.device)
        mixed = own
        for number, (at, way) in enumerate(ways):
            draw = _draws(key, own_ids, at)
            share = torch.where(chosen == number, mix.keep_share(way, draw), 1.0)
            if way.name == "cutmix":
                h, w = own["image"].shape[2:]
                box = mix.paste_box(share, draw, h, w)
                image, share = mix.paste(mixed["image"], other["image"], box)
                mixed = {**mixed, "image": image}
            else:
                mixed = {k: mix.blend(v, other[k], share) for k, v in mixed.items()}
            total = total * share
        if target is not None:
            mine = target if keep is None else target[keep]
            target = mix.mix_targets(mine, target[partner], total, classes=self.classes)
        return mixed, target


def _move(images: Tensor, steps: list[Geometric], matrix: Tensor, *, fill: Tensor) -> Tensor:
    """Return images moved by the matrices of these steps, in the fastest way that is exact."""
    padding = next((step.padding for step in steps if step.padding != "zero"), "zero")
    reaches = [step.reach for step in steps if step.reach is not None]
    if len(reaches) < len(steps):
        return apply_sampled(images, matrix, fill=fill, padding=padding)
    if padding != "zero":
        return apply_exact(images, matrix, fill=fill, padding=padding)
    mirrors = any(step.mirrors for step in steps)
    return apply_windows(images, matrix, fill=fill, reach=sum(reaches), mirrors=mirrors)


def _draws(key: int, ids: Tensor, at: int) -> Callable[[int], Tensor]:
    """Return draw(k): the k-th uniform number of step number `at` for each sample."""
    return lambda k: uniform(key, ids, at * _DRAWS + k)
