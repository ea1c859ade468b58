"""`Augment`: the chosen steps applied to a batch: geometry, values, erasing, mixing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from gipi.core.seed import uniform
from gipi.data.augment import mix
from gipi.data.augment.colour import Colour, after, apply_colour, unit
from gipi.data.augment.erasing import Erasing, rectangle
from gipi.data.augment.filters import Filter, apply_filter
from gipi.data.augment.follow import move_boxes, move_keypoints, transform_masks
from gipi.data.augment.geometry import Geometric, identity
from gipi.data.augment.mix import Mixing
from gipi.data.augment.mosaic import PARTS, Mosaic, assemble
from gipi.data.augment.move import move
from gipi.data.augment.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from gipi.data.augment.geometry import Draw

_DRAWS = 16  # numbers that one step may draw per sample
_CHOICE = 1_000_000  # number of the draw that chooses among several ways to mix

Part = Geometric | Colour | Filter | Erasing
Step = Part | Policy | Mixing | Mosaic


@dataclass
class Draws:
    """The random numbers of one call: `draws(at)(k)` is number k of step `at`, (B,) float64."""

    key: int
    ids: Tensor
    known: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, at: int) -> Draw:
        """Return the numbers of step `at`; each is computed once."""
        return lambda k: self.number(at * _DRAWS + k)

    def number(self, stream: int) -> Tensor:
        """Return one number per sample."""
        if stream not in self.known:
            self.known[stream] = uniform(self.key, self.ids, stream)
        return self.known[stream]


@dataclass(frozen=True)
class Augment:
    """Steps with their numbers fixed: calling it changes a batch, the same way every time.

    steps     in the order in which they were asked for
    mean, std of the picture channels, as the pictures were normalised; (C,) float32
    clip      True where values have the range [0, 1] before normalisation
    classes   number of classes of a categorical target, else 0
    kind      of the target: "mask", "boxes" and "keypoints" move with the picture
    swap      (K,) int64 index of each keypoint's name in a mirror image, or None
    """

    steps: tuple[Step, ...]
    mean: Tensor
    std: Tensor
    clip: bool
    classes: int
    kind: str = "category"
    swap: Tensor | None = None

    @property
    def mixing(self) -> bool:
        """Whether rows are mixed with others of their global batch."""
        return self.partners > 0

    @property
    def partners(self) -> int:
        """How many of the rows that follow it in its global batch a row is mixed with."""
        if any(isinstance(step, Mosaic) for step in self.steps):
            return PARTS - 1
        return int(any(isinstance(step, Mixing) for step in self.steps))

    @property
    def exact(self) -> bool:
        """Whether all geometric steps move whole pixels."""
        return all(step.exact for step in self._moving())

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the pictures that come out."""
        for step in self._moving():
            height, width = step.size or (height, width)
        return height, width

    def parts(self) -> Iterator[tuple[int, Part]]:
        """Yield the steps on one row, each with the number of its draws; policies taken apart."""
        for at, step in enumerate(self.steps):
            if isinstance(step, Policy):
                for part in step.parts:
                    yield at, part
            elif not isinstance(step, Mixing | Mosaic):
                yield at, step

    def _moving(self) -> list[Geometric]:
        return [part for _, part in self.parts() if isinstance(part, Geometric)]

    def __call__(
        self, inputs: dict[str, Tensor], target: Tensor | None, ids: Tensor, *, key: int,
        partner: Tensor | None = None, keep: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor | None]:  # fmt: skip
        """Return changed inputs and target.

        ids      (B,) int64 ids of the samples
        key      from `derive(seed, "augment", epoch)`
        partner  (n,), or (partners, n), index of the rows that each kept row is mixed with
        keep     (n,) index of the rows to return; None: all
        """
        changed = dict(inputs)
        draws = Draws(key, ids)
        if "image" in inputs:
            changed["image"], target = self._single(inputs["image"], target, draws)
        if partner is not None and self.mixing:
            return self._mix(changed, target, draws, partner=partner.view(-1, partner.shape[-1]),
                             keep=keep)  # fmt: skip
        if keep is not None:
            changed = {k: v[keep] for k, v in changed.items()}
            target = None if target is None else target[keep]
        return changed, target

    def pictures(self, images: Tensor, ids: Tensor, *, key: int) -> Tensor:
        """Return images (B, C, H, W) after all steps that need no second row."""
        return self._single(images, None, Draws(key, ids))[0]

    def matrix(self, ids: Tensor, *, key: int, height: int, width: int) -> Tensor:
        """Return (B, 3, 3) float64: all geometric steps of each sample as one matrix.

        What lies on a picture goes along with it: `transform_points`, `transform_boxes` and
        `transform_masks` take this matrix.
        """
        return self._matrix(Draws(key, ids), height, width)

    def _matrix(self, draws: Draws, height: int, width: int) -> Tensor:
        total = None
        for at, part in self.parts():
            if isinstance(part, Geometric):
                one = part.matrix(draws(at), height, width)
                height, width = part.size or (height, width)
                total = one if total is None else one @ total
        return identity(draws.ids) if total is None else total

    def _single(
        self, images: Tensor, target: Tensor | None, draws: Draws
    ) -> tuple[Tensor, Tensor | None]:
        """Return pictures and targets after all steps that need no second row."""
        given = images
        mean, std = self.mean.to(images.device), self.std.to(images.device)
        moving = self._moving()
        if moving:
            matrix = self._matrix(draws, images.shape[2], images.shape[3])
            fill = -mean / std if self.clip else 0 * mean  # black; the mean where 0 is no black
            images = move(images, matrix, steps=moving, fill=fill)
            if target is not None:
                target = self._follow(matrix, target, images.shape[2], images.shape[3])
        images = self._values(images, draws, mean, std, owned=images is not given)
        h, w = images.shape[2:]
        for at, part in self.parts():
            if isinstance(part, Erasing):
                kept = ~rectangle(part.box(draws(at), h, w), h, w)
                images = images * kept.to(images.dtype)  # faster than masked_fill
        return images, target

    def _follow(self, matrix: Tensor, target: Tensor, height: int, width: int) -> Tensor:
        """Return targets moved with their pictures, which are now of this size."""
        if self.kind == "mask":
            plain = self.exact and target.shape[1:] == (height, width)
            return transform_masks(matrix, target, exact=plain, size=(height, width))
        if self.kind == "boxes":
            return move_boxes(matrix, target, height=height, width=width)
        if self.kind == "keypoints":
            return move_keypoints(matrix, target, height=height, width=width, swap=self.swap)
        return target

    def _values(
        self, images: Tensor, draws: Draws, mean: Tensor, std: Tensor, *, owned: bool
    ) -> Tensor:
        """Return images after the steps on colours and the filters, in their order.

        Matrices of colours wait until a filter needs the values of some rows, or until the end.
        owned   whether the images may be written to
        """
        waiting: Tensor | None = None
        mixes = any(isinstance(part, Colour) and part.mixes for _, part in self.parts())
        for at, part in self.parts():
            draw = draws(at)
            if isinstance(part, Colour):
                one = part.matrix(draw, mean)
                waiting = one if waiting is None else after(one, waiting)
            elif isinstance(part, Filter):
                rows = torch.arange(len(images), device=images.device)
                if part.chosen is not None:
                    rows = part.chosen(draw).nonzero()[:, 0]  # sync, once for several batches
                if not len(rows):
                    continue
                some = images[rows]
                if waiting is not None:
                    some = apply_colour(
                        some, waiting[rows], mean=mean, std=std, clip=self.clip, mixes=mixes
                    )
                    waiting = waiting.index_copy(0, rows, unit(rows, len(mean)))
                some = apply_filter(
                    part, some, _some(draw, rows), mean=mean, std=std, clip=self.clip
                )
                images = images if owned else images.clone()
                images[rows], owned = some, True
        if waiting is None:
            return images
        return apply_colour(images, waiting, mean=mean, std=std, clip=self.clip, mixes=mixes)

    def _mix(
        self, inputs: dict[str, Tensor], target: Tensor | None, draws: Draws, *,
        partner: Tensor, keep: Tensor | None,
    ) -> tuple[dict[str, Tensor], Tensor | None]:  # fmt: skip
        own = inputs if keep is None else {k: v[keep] for k, v in inputs.items()}
        mine = target if keep is None or target is None else target[keep]
        drawn = draws if keep is None else Draws(draws.key, draws.ids[keep])
        mosaics = [(at, s) for at, s in enumerate(self.steps) if isinstance(s, Mosaic)]
        if mosaics and mine is not None and target is not None:
            at, step = mosaics[0]
            image, boxes = assemble(
                [own["image"], *(inputs["image"][p] for p in partner)],
                [mine, *(target[p] for p in partner)], drawn(at), p=step.p,
            )  # fmt: skip
            return {**own, "image": image}, boxes
        ways = [(at, s) for at, s in enumerate(self.steps) if isinstance(s, Mixing)]
        if not ways:
            return own, mine
        other = {k: v[partner[0]] for k, v in inputs.items()}
        theirs = None if target is None else target[partner[0]]
        return self._blend(own, other, mine, theirs, drawn, ways)

    def _blend(
        self, own: dict[str, Tensor], other: dict[str, Tensor], mine: Tensor | None,
        theirs: Tensor | None, draws: Draws, ways: Sequence[tuple[int, Mixing]],
    ) -> tuple[dict[str, Tensor], Tensor | None]:  # fmt: skip
        """Return rows mixed with others, each in one of the ways."""
        chosen = torch.floor(draws.number(_CHOICE) * len(ways))
        total = torch.ones_like(chosen)
        mixed = own
        for number, (at, way) in enumerate(ways):
            draw = draws(at)
            share = torch.where(chosen == number, mix.keep_share(way, draw), 1.0)
            if way.name == "cutmix":
                h, w = own["image"].shape[2:]
                box = mix.paste_box(share, draw, h, w)
                image, share = mix.paste(mixed["image"], other["image"], box)
                mixed = {**mixed, "image": image}
                if self.kind == "mask" and mine is not None and theirs is not None:
                    mine = torch.where(rectangle(box, h, w)[:, 0], theirs, mine)
            else:
                mixed = {k: mix.blend(v, other[k], share) for k, v in mixed.items()}
            total = total * share
        if mine is None or theirs is None or self.kind == "mask":
            return mixed, mine
        return mixed, mix.mix_targets(mine, theirs, total, classes=self.classes)


def _some(draw: Draw, rows: Tensor) -> Draw:
    """Return the draws of some rows."""
    return lambda k: draw(k)[rows]
