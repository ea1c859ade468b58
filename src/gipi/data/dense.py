"""Targets that are drawn on pictures: what they need of a split, a size, and a batch.

Masks, boxes and keypoints arrive in pixels of their files and leave in pixels of the prepared
picture, moved by the very matrix that `Dataset.placement` gives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import IGNORED
from gipi.data.decode import Decoder, placements, shade
from gipi.data.images import size_asked
from gipi.data.masks import MaskFiles, label_table
from gipi.data.placement import move_boxes, move_points
from gipi.data.source import Annotations, ImageFiles
from gipi.data.survey import Survey, named_classes, survey
from gipi.data.turned import upright

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gipi.core.schema import Field, Schema
    from gipi.data.options import DataOptions
    from gipi.data.source import Source

LONGEST = {"segment": 256, "detect": 320, "pose": 128}  # longer side where none is asked for
STEP = 32  # sides are multiples of it: the coarsest stride of the usual backbones
SAME_SHAPE = 0.02  # sides' ratios that differ by less are stretched to one


@dataclass(frozen=True)
class View:
    """Annotated pictures as they were found.

    files    the pictures
    drawn    their annotations, with named classes
    survey   sizes, labels and faults of every row
    notes    what was decided
    """

    files: ImageFiles
    drawn: Annotations
    survey: Survey
    notes: tuple[str, ...] = ()

    @property
    def presence(self) -> np.ndarray:
        """Return (N, classes) bool: which classes each row shows (none for keypoints)."""
        if self.drawn.kind == "mask":
            return self.survey.labels[:, self.drawn.facts["values"]]
        return self.survey.labels


def view(source: Source, schema: Schema, options: DataOptions) -> View | None:
    """Return the annotated pictures of a source whose target is drawn, else None."""
    target = schema.target
    if target is None or not target.dense:
        return None
    drawn = source.columns.get(target.name)
    files = next((c for c in source.columns.values() if isinstance(c, ImageFiles)), None)
    if not isinstance(drawn, Annotations) or files is None:
        return None
    found = survey(files, drawn, source, options)
    drawn, notes = upright(files, drawn, found.sizes)
    if notes:
        found = survey(files, drawn, source, options)
    if drawn.kind == "mask":
        drawn, more = named_classes(drawn, found.labels, known=target.classes)
        notes += more
    return View(files, drawn, found, tuple(notes))


def choose_size(
    found: View, train: np.ndarray, options: DataOptions, task: str
) -> tuple[Decoder, str]:
    """Return how annotated pictures are decoded, and why; from training rows only."""
    sizes = found.survey.sizes[train].astype(np.float64)
    if found.files.crops is not None:
        crops = found.files.crops[train]
        sizes = np.stack([crops[:, 3] - crops[:, 1], crops[:, 2] - crops[:, 0]], axis=1)
    channels = shade(found.files, train.tolist())
    colour = "grey" if channels == 1 else "RGB"
    ratios = sizes[:, 0] / sizes[:, 1]
    target, why = _target_size(sizes, options.image_size, task)
    spread = np.abs(np.log(ratios * target[1] / target[0]))
    if spread.max() <= SAME_SHAPE:
        return Decoder(channels, *target, "stretch"), f"{colour}; {why}"
    return Decoder(channels, *target, "letterbox"), f"{colour}; {why}, kept whole on black"


def _target_size(
    sizes: np.ndarray, asked: int | tuple[int, int] | None, task: str
) -> tuple[tuple[int, int], str]:
    """Return (H, W) and why."""
    if asked is not None and not isinstance(asked, int):
        whole = size_asked(asked)
        assert whole is not None
        return whole, f"{whole[0]}x{whole[1]} as asked"
    distinct = np.unique(sizes, axis=0)
    ratio = float(np.median(sizes[:, 0] / sizes[:, 1]))
    usual = round(float(np.median(sizes.max(1))))
    longest = min(LONGEST[task], usual) if asked is None else asked
    if not 1 <= longest <= 8192:
        raise ConfigError(f"image_size={asked}", "1 to 8192 pixels", "image_size=256")
    step = STEP if asked is None or asked % STEP == 0 else 1
    sides = (min(1.0, ratio) * longest, min(1.0, 1 / ratio) * longest)
    h, w = (max(step, round(side / step) * step) for side in sides)
    if len(distinct) == 1:
        said = f"all pictures are {int(sizes[0, 0])}x{int(sizes[0, 1])}"
    else:
        said = f"{len(distinct)} sizes, most with a longer side near {usual}"
    if asked is not None:
        return (h, w), f"{said}, brought to {h}x{w} (longer side as asked)"
    return (h, w), f"{said}, brought to {h}x{w} (image_size changes it)"


def fit_target(field: Field, found: View, decoder: Decoder, rows: np.ndarray) -> Field:
    """Return the target's field with its classes, its shape and what is known of it."""
    drawn = found.drawn
    if drawn.kind == "mask":
        shape: tuple[int, ...] = (decoder.height, decoder.width)
    elif drawn.kind == "boxes":
        shape = (max((len(drawn.items[i]) for i in rows.tolist()), default=0) or 1, 6)
    else:
        shape = (len(drawn.classes), 3)
    _check_classes(found, rows)
    keys = ("flip", "sigmas") if drawn.kind == "keypoints" else ()
    stats = {k: drawn.facts[k] for k in keys if drawn.facts.get(k)}
    return replace(field, classes=drawn.classes, shape=shape, stats={**field.stats, **stats})


def _check_classes(found: View, rows: np.ndarray) -> None:
    """Raise where these rows show nothing that could be told apart, or more than a mask holds."""
    drawn = found.drawn
    if drawn.kind == "keypoints":
        return
    shown = found.presence[rows].any(0)
    if drawn.kind == "boxes" and not shown.any():
        raise DataError(
            "no picture has a box", "at least one object to find", "check the annotations"
        )
    if drawn.kind == "mask" and len(drawn.classes) > IGNORED:
        raise DataError(
            f"{len(drawn.classes)} classes of masks",
            f"at most {IGNORED}: the label {IGNORED} counts nowhere", "put rare classes together",
        )  # fmt: skip
    if drawn.kind == "mask" and shown.sum() < 2:
        names = [name for name, there in zip(drawn.classes, shown, strict=True) if there]
        raise DataError(
            f"the masks have only one class: {names[0]}" if names else "the masks have no class",
            f"at least two classes (the background counts; {IGNORED} counts nowhere)",
            "check the masks, and the list of classes where there is one",
        )


def mask_files(found: View, field: Field, decoder: Decoder) -> MaskFiles:
    """Return masks that are read when needed, with the class order of `field`."""
    drawn = found.drawn
    table = label_table(
        drawn.facts["values"], drawn.classes, drawn.facts.get("ignored", ()), field.classes
    )
    return MaskFiles(drawn, found.files, found.survey.sizes, table, decoder)


def strange_labels(found: View, field: Field) -> dict[int, str]:
    """Return the rows that show a class which `field` does not know, with the reason."""
    if found.drawn.kind == "keypoints":
        if len(found.drawn.classes) != field.shape[0]:
            raise DataError(
                f"{len(found.drawn.classes)} keypoints a picture",
                f"{field.shape[0]}, as in training", "give the same points",
            )  # fmt: skip
        lost = [name for name in field.classes if name not in found.drawn.classes]
        if lost and not (_unnamed(field.classes) or _unnamed(found.drawn.classes)):
            raise DataError(
                f"no keypoint is called '{lost[0]}'",
                "the points of training: " + ", ".join(field.classes[:20]),
                "give the points the names that they had in training",
            )
        return {}
    new = np.array([name not in field.classes for name in found.drawn.classes], dtype=bool)
    presence = found.presence
    out = {}
    for row in np.flatnonzero((presence & new).any(1)).tolist():
        names = [n for n, p in zip(found.drawn.classes, presence[row] & new, strict=True) if p]
        out[row] = f"the class '{names[0]}' was not known in training"
    return out


def _unnamed(points: Sequence[str]) -> bool:
    return all(re.fullmatch(r"point \d+", name) for name in points)


def _order(points: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return which of the points each of those of training is: by name, else by place."""
    if set(points) == set(known) and len(set(points)) == len(points):
        return [points.index(name) for name in known]
    return list(range(len(points)))


def encode(found: View, field: Field, decoder: Decoder, rows: np.ndarray) -> Tensor:
    """Return (N, M, 6) boxes or (N, K, 3) keypoints in prepared pixels; others than `rows` empty.

    Boxes that overhang the picture are cut at its edge; a keypoint that is missing is all 0.
    """
    drawn = found.drawn
    sizes = found.survey.sizes
    matrices = placements(found.files, decoder, rows, sizes[rows])
    if drawn.kind == "keypoints":
        points = np.zeros((len(drawn), field.shape[0], 3), dtype=np.float32)
        order = _order(drawn.classes, field.classes)
        for row, matrix in zip(rows.tolist(), matrices, strict=True):
            item = drawn.items[row][order]
            seen = item[:, 2:] > 0
            moved = np.where(seen, move_points(np.nan_to_num(item[:, :2]), matrix), 0.0)
            points[row] = np.concatenate([moved, np.where(seen, item[:, 2:], 0.0)], axis=1)
        return torch.from_numpy(points)
    most = max((len(drawn.items[i]) for i in rows.tolist()), default=0)
    boxes = np.zeros((len(drawn), max(most, field.shape[0]), 6), dtype=np.float32)
    boxes[:, :, 4] = -1
    index = {name: i for i, name in enumerate(field.classes)}
    codes = np.array([index.get(name, -1) for name in drawn.classes], dtype=np.float64)
    for row, matrix in zip(rows.tolist(), matrices, strict=True):
        item = drawn.items[row]
        if not len(item):
            continue
        high, wide = sizes[row].tolist()
        cut = np.clip(item[:, :4], 0.0, [wide, high, wide, high])
        boxes[row, : len(item), :4] = move_boxes(cut, matrix)
        boxes[row, : len(item), 4] = codes[item[:, 4].astype(np.int64)]
        boxes[row, : len(item), 5] = item[:, 5]
    return torch.from_numpy(boxes)
