"""Plain rows: numbers, categories, pictures or texts go in, and one value of a column comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.data import images
from gipi.data.divide import look_at_rows
from gipi.data.form import Divided, Opened, RowForm
from gipi.data.pictured import open_pictures, picture_column, picture_field, read_pictures
from gipi.data.texts import open_texts, read_texts

if TYPE_CHECKING:
    from gipi.core.schema import Schema
    from gipi.data.options import DataOptions
    from gipi.data.source import Source


def open_plain(rows: Divided) -> Opened:
    """Fit on the training rows how pictures or texts are read, and read all of them."""
    field = picture_field(rows.schema)
    if field is None:
        return open_texts(rows)
    column = picture_column(rows.source, field)
    decoder, reason = images.choose_decoder(column, rows.splits["train"], rows.options)
    return open_pictures(rows, field, decoder=decoder, reason=reason)


def read_plain(schema: Schema, source: Source, options: DataOptions, *, target: bool) -> Opened:  # noqa: ARG001
    """Read pictures or texts exactly as in training."""
    field = picture_field(schema)
    if field is None:
        return read_texts(schema, source, options)
    return read_pictures(schema, source, options, field=field)


FORM = RowForm("plain rows", (), look_at_rows, open_plain, read_plain)
