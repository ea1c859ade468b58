"""In which form dates were read: recorded in training, the same in prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.data.transforms import dates_as_in_training, form_of_dates

if TYPE_CHECKING:
    from gipi.core.schema import Schema
    from gipi.data.source import Source


def with_date_forms(schema: Schema, source: Source) -> Schema:
    """Record in which form dates were read, so that they are read so in prediction."""
    for field in (*schema.inputs, *schema.of("time")):
        form = form_of_dates(source.notes, field.name) if field.kind == "date" else ""
        if form:
            schema = schema.with_field(replace(field, stats={**field.stats, "form": form}))
    return schema


def dates_as_trained(source: Source, schema: Schema) -> Source:
    """Return the source with its dates read in the form of training."""
    columns = dict(source.columns)
    for field in (*schema.inputs, *schema.of("time")):
        column = columns.get(field.name)
        if "form" in field.stats and isinstance(column, np.ndarray) and column.dtype.kind == "M":
            columns[field.name] = dates_as_in_training(
                column, field.name, now=form_of_dates(source.notes, field.name),
                then=field.stats["form"], row_name=source.row_name,
            )  # fmt: skip
    return replace(source, columns=columns)
