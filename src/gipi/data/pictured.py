"""Rows with a picture: decoded, normalised, and left out where the picture is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data import images
from gipi.data.decoded import decode_all
from gipi.data.faults import settle
from gipi.data.form import Divided, Opened
from gipi.data.masks import Masks
from gipi.data.source import Annotations, ImageFiles, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gipi.core.schema import Field, Schema
    from gipi.data.decode import Decoder
    from gipi.data.masks import MaskFiles
    from gipi.data.options import DataOptions


def picture_field(schema: Schema) -> Field | None:
    """Return the pictures that the model sees, None where it sees none."""
    return next((f for f in schema.inputs if f.kind == "image"), None)


def picture_column(source: Source, field: Field) -> ImageFiles | np.ndarray:
    """Return the pictures of a source, (N, H, W, C) where they are in memory."""
    column = source.columns.get(field.name)
    words = column if isinstance(column, np.ndarray) and column.ndim < 3 else None
    if column is None or words is not None or isinstance(column, Annotations):
        said = "" if words is None or not len(words) else f" (it begins with {words[0]!r})"
        raise DataError(
            f"{source.name} has no pictures in a column '{field.name}'" + said,
            "pictures, as in training; files that a table names must be there",
            "give picture files, a folder of them, or an array",
        )
    return column[..., None] if isinstance(column, np.ndarray) and column.ndim == 3 else column


def open_pictures(
    rows: Divided, field: Field, *, decoder: Decoder, reason: str, masks: MaskFiles | None = None,
    leave: Iterable[int] = (),
) -> Opened:  # fmt: skip
    """Decode all pictures (and masks), and normalise by the training rows.

    reason  why they are decoded so
    leave   rows that are known to be unusable

    Raises `DataError` for pictures that cannot be decoded (or leaves them out, with bad_rows=skip).
    """
    source, options = rows.source, rows.options
    decoded = decode_all(
        picture_column(source, field), decoder, source, options, masks=masks,
        progress=rows.progress, leave=leave,
    )  # fmt: skip
    notes = [decoded.note] if decoded.note else []
    notes += settle(decoded.faults, source, options)
    bad = np.fromiter(decoded.faults, np.int64, len(decoded.faults))
    splits = {name: np.setdiff1d(ids, bad) for name, ids in rows.splits.items()}
    splits = {name: ids for name, ids in splits.items() if len(ids)}
    if "train" not in splits:
        raise DataError(
            "no training picture can be decoded", "pictures to train on", "check the files"
        )
    fitted = images.fit_pictures(
        field, decoder, decoded.pixels, splits["train"], reason=reason, normalise=options.normalise
    )
    pictures = images.pictures_of(fitted, decoded.pixels)
    laid = None if decoded.masks is None else Masks(decoded.masks)
    return Opened(rows.schema.with_field(fitted), {"image": pictures}, splits, notes, laid)


def read_pictures(
    schema: Schema, source: Source, options: DataOptions, *, field: Field,
    masks: MaskFiles | None = None, faults: Mapping[int, str] | None = None,
) -> Opened:  # fmt: skip
    """Decode pictures (and masks) exactly as in training.

    faults  rows that are known to be unusable
    """
    known = faults or {}
    decoded = decode_all(
        picture_column(source, field), images.decoder_of(field), source, options, masks=masks,
        leave=known,
    )  # fmt: skip
    notes = [decoded.note] if decoded.note else []
    notes += settle(decoded.faults, source, options)
    every = np.arange(source.rows, dtype=np.int64)
    rows = np.setdiff1d(every, [*known, *decoded.faults])
    laid = None if decoded.masks is None else Masks(decoded.masks)
    pictures = images.pictures_of(field, decoded.pixels)
    return Opened(schema, {"image": pictures}, {"all": rows}, notes, laid)
