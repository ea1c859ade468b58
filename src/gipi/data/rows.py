"""Rows that stand each for itself: inferred, looked at, split, encoded as their form asks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.core.errors import DataError
from gipi.data import multilabel, prepare
from gipi.data.date_forms import dates_as_trained, with_date_forms
from gipi.data.form import Divided, Form, Parts
from gipi.data.infer import infer_schema
from gipi.data.options import DataOptions, for_rows
from gipi.data.row_forms import row_form
from gipi.data.source import TEST, TRAIN, VAL, Annotations, Source, is_missing
from gipi.data.split import split_rows
from gipi.data.stand_ins import stand_ins
from gipi.data.stream import Columns

if TYPE_CHECKING:
    from gipi.core.schema import Field, Schema
    from gipi.data.form import Progress


def open_rows(source: Source, options: DataOptions, progress: Progress) -> Parts:
    """Infer, split, fit on the training rows, and encode all rows.

    Raises what the form of the rows raises, and `DataError` where every weight of a part is 0.
    """
    options = for_rows(source, options)
    schema = infer_schema(source, options)
    form = row_form(schema.task)
    looked = form.look(source, schema, options)
    split = split_rows(looked.rows, seed=options.seed, val=options.val, test=options.test)
    notes = [*source.notes, *looked.notes, *split.notes, *([looked.lost] if looked.lost else [])]
    notes += [f"{found}; {found.do}" for found in stand_ins(source, schema, split.ids["train"])]
    schema = with_date_forms(
        prepare.fit(schema, source.columns, split.ids["train"], classes=source.classes), source
    )
    opened = form.open(Divided(schema, source, split.ids, options, looked.view, progress))
    schema, splits, source = opened.schema, opened.splits, opened.source or source
    inputs = dict(opened.inputs)
    inputs |= prepare.encode_inputs(schema, source.columns, row_name=source.row_name)
    target = opened.target
    if target is None:
        used = np.sort(np.concatenate(list(splits.values())))
        target = _target(source, schema, used)
    weight = _weight(source, schema)
    for name, ids in splits.items():
        if weight is not None and not weight[torch.from_numpy(ids)].any():
            raise DataError(
                f"every weight of the {name} rows in '{options.weight}' is 0",
                "rows that count",
                "correct the weight column, or leave it out",
            )
    columns = Columns(inputs, target, weight, opened.references)
    return Parts(source, schema, columns, splits, split.reason, (*notes, *opened.notes),
                 opened.sizes)  # fmt: skip


def read_rows(schema: Schema, source: Source, options: DataOptions, *, target: bool) -> Parts:
    """Encode other rows exactly as in training; targets where all rows have one.

    Raises what the form of the rows raises; `DataError` naming the row for a label that training
    did not know.
    """
    joined = _joined(source, schema, wanted=target)
    source = dates_as_trained(_renamed(joined, schema), schema)
    notes, field = list(source.notes), schema.target
    known = target and (field is None or _complete(source, field, notes))
    opened = row_form(schema.task).read(schema, source, options, target=known)
    source = opened.source or source
    inputs: dict[str, Any] = dict(opened.inputs)
    inputs |= prepare.encode_inputs(schema, source.columns, row_name=source.row_name)
    rows = opened.splits.get("all", np.arange(source.rows, dtype=np.int64))
    values = opened.target
    if values is None and known and field is not None:
        values = _target(source, schema, rows)
    weighted = target and any(f.name in source.columns for f in schema.of("weight"))
    weights = _weight(source, schema) if weighted else None
    splits = {"all": rows}
    if source.given_split is not None:
        parts = (("train", TRAIN), ("val", VAL), ("test", TEST))
        given = {name: rows[source.given_split[rows] == code] for name, code in parts}
        splits |= {name: ids for name, ids in given.items() if len(ids)}
    columns = Columns(inputs, values, weights, opened.references)
    return Parts(source, schema, columns, splits, "all rows", (*notes, *opened.notes),
                 opened.sizes)  # fmt: skip


def _complete(source: Source, field: Field, notes: list[str]) -> bool:
    """Return whether every row has a target; add a note where only some have."""
    column = source.columns.get(field.name)
    if column is None or isinstance(column, Annotations) != field.dense:
        return False
    missing = 0 if field.multi else int(is_missing(column).sum())
    if missing:
        notes.append(f"{missing} of {source.rows} rows have no '{field.name}': not compared")
    return not missing


def _target(source: Source, schema: Schema, rows: np.ndarray) -> torch.Tensor:
    """Return the targets of `rows` as a tensor over all rows."""
    field = schema.target
    assert field is not None
    return prepare.encode_target(
        schema, source.columns[field.name], rows=rows, row_name=source.row_name
    )


def _joined(source: Source, schema: Schema, *, wanted: bool) -> Source:
    """Return the source with the 0/1 columns of training as one target, where they are there."""
    field = schema.target
    if field is None or not field.multi:
        return source
    if field.name in source.columns:
        return multilabel.in_order(source, field) if wanted else source
    if "separator" in field.stats or not set(field.classes) <= set(source.columns):
        return source
    return multilabel.join(source, field.classes, name=field.name)


def _weight(source: Source, schema: Schema) -> torch.Tensor | None:
    found = schema.of("weight")
    if not found:
        return None
    name = found[0].name
    return prepare.encode_weight(name, source.columns[name], row_name=source.row_name)


def _renamed(source: Source, schema: Schema) -> Source:
    """Give the only input column of `source` the name that the schema's only input has."""
    inputs = schema.inputs
    target = schema.target.name if schema.target else None
    others = [name for name in source.columns if name not in (target, source.target)]
    if len(inputs) != 1 or inputs[0].name in source.columns or len(others) != 1:
        return source
    columns = {
        (inputs[0].name if name == others[0] else name): column
        for name, column in source.columns.items()
    }
    return replace(source, columns=columns)


FORM = Form("rows", (), infer_schema, open_rows, read_rows)
