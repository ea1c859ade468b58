"""Pictures with something drawn on them to find again: masks, boxes or keypoints."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.data import dense, images
from gipi.data.divide import RAREST, rarest, rows_to_split
from gipi.data.faults import settle
from gipi.data.form import Divided, Looked, Opened, RowForm
from gipi.data.infer_table import OF_KIND
from gipi.data.pictured import open_pictures, picture_field, read_pictures
from gipi.data.split import BY_CLASS

if TYPE_CHECKING:
    from gipi.core.schema import Schema
    from gipi.data.options import DataOptions
    from gipi.data.source import Source


def look_at_annotated(source: Source, schema: Schema, options: DataOptions) -> Looked:
    """Return what the split must know of annotated pictures; those with a fault take no part."""
    view = dense.view(source, schema, options)
    assert view is not None
    notes = [*view.notes, *settle(view.survey.faults, source, options)]
    usable = np.ones(source.rows, dtype=bool)
    usable[list(view.survey.faults)] = False
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    rule = BY_CLASS
    if view.drawn.classes and view.drawn.kind != "keypoints":
        (labels, names), rule = rarest(view.presence, view.drawn.classes), RAREST
    rows = rows_to_split(source, schema, usable=usable, labels=labels, classes=names, rule=rule)
    return Looked(rows, notes, view=view)


def open_annotated(rows: Divided) -> Opened:
    """Choose a size on the training rows, and decode all pictures and what is drawn on them."""
    view, field, target = rows.view, picture_field(rows.schema), rows.schema.target
    assert view is not None
    assert field is not None
    assert target is not None
    decoder, reason = dense.choose_size(view, rows.splits["train"], rows.options, rows.schema.task)
    target = dense.fit_target(target, view, decoder, _used(rows.splits))
    masks = dense.mask_files(view, target, decoder) if target.kind == "mask" else None
    fitted = replace(rows, schema=rows.schema.with_field(target))
    found = open_pictures(
        fitted, field, decoder=decoder, reason=reason, masks=masks, leave=view.survey.faults
    )
    drawn = found.target
    if drawn is None:
        drawn = dense.encode(view, target, decoder, _used(found.splits))
    return replace(found, target=drawn, sizes=view.survey.sizes)


def read_annotated(schema: Schema, source: Source, options: DataOptions, *, target: bool) -> Opened:
    """Decode pictures exactly as in training, and what is drawn on them where `target`."""
    field, goal = picture_field(schema), schema.target
    assert field is not None
    assert goal is not None
    view = dense.view(source, schema, options) if target else None
    if view is None:
        return read_pictures(schema, source, options, field=field)
    faults = {**dense.strange_labels(view, goal), **view.survey.faults}
    notes = [*view.notes, *settle(faults, source, options)]
    decoder = images.decoder_of(field)
    masks = dense.mask_files(view, goal, decoder) if goal.kind == "mask" else None
    found = read_pictures(schema, source, options, field=field, masks=masks, faults=faults)
    drawn = found.target
    if drawn is None:
        drawn = dense.encode(view, goal, decoder, found.splits["all"])
    return replace(found, target=drawn, notes=[*notes, *found.notes], sizes=view.survey.sizes)


def _used(splits: dict[str, np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate(list(splits.values())))


FORM = RowForm(
    "pictures with something drawn on them",
    tuple(OF_KIND.values()), look_at_annotated, open_annotated, read_annotated,
)  # fmt: skip
