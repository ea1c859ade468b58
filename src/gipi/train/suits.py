"""Which kind of model goes with which kind of data: one look, before anything is built or trained.

    series to go on with     a forecaster
    running text             a net that says what comes next
    texts                    as the task asks: an answer a text, a tag a token, a span, another text
    pictures                 a net for pictures; what is drawn on them asks for one that draws
    tables                   a net for columns

A model that names none of these among its tags is someone's own, and is not judged by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.errors import ModelError
from gipi.models import MODELS
from gipi.train import (
    language_recipes,
    picture_recipes,
    series_recipes,
    text_recipes,
    writing_recipes,
)

if TYPE_CHECKING:
    from gipi.core.registry import Record
    from gipi.core.schema import Schema

DRAWN = ("segment", "detect", "pose")
"""Tasks whose answers lie on the picture, and the tags of models that give them."""
KINDS = {"table", "image", "text", "series"}
NAMES = 8  # of models that an error lists


def suited(name: str, schema: Schema) -> str:
    """Return the name of the model that is meant by `name` for this data: a series has its own.

    Raises `ModelError` where the model cannot take the data or give what the task asks.
    """
    if schema.task == "forecast":
        return series_recipes.forecaster(name)
    record = MODELS.get(name)
    if language_recipes.is_language(schema):
        language_recipes.check_goes_on(record, MODELS)
    elif writing_recipes.is_written(schema) or text_recipes.is_text(schema):
        text_recipes.check_reads(record, schema, MODELS)
    elif picture_recipes.picture_of(schema) is not None:
        _check_looks(record, schema)
    else:
        _check_columns(record, schema)
    return name


def _check_looks(record: Record, schema: Schema) -> None:
    """Raise `ModelError` where a model sees no pictures, or answers another question about them."""
    tags = set(record.tags)
    if not tags & KINDS:
        return
    _check_beside(record, schema)
    drawn = schema.task in DRAWN
    if drawn and schema.task in tags:
        return
    if not drawn and "image" in tags and not tags & set(DRAWN):
        return
    able = [r for r in MODELS if "image" in r.tags]
    if drawn:
        able = [r for r in able if schema.task in r.tags]
    else:
        able = [r for r in able if not set(r.tags) & set(DRAWN)]
    picture = picture_recipes.picture_of(schema)
    assert picture is not None
    found = f"the model '{record.name}' sees no pictures, and '{picture.name}' is one"
    if "image" in tags:
        found = f"the model '{record.name}' does not {schema.task} pictures"
    raise ModelError(
        found,
        f"a model for pictures, to {schema.task} them: {_listed(able)}",
        "leave --model out, or choose one of them",
    )


def _check_beside(record: Record, schema: Schema) -> None:
    """Raise `ModelError` for columns beside a picture, which no net of gipi reads together.

    Those for tables take categories beside the picture's numbers.
    """
    beside = [f for f in schema.inputs if f.kind != "image"]
    if not beside or ("table" in record.tags and all(f.kind == "category" for f in beside)):
        return
    picture = picture_recipes.picture_of(schema)
    assert picture is not None
    names = ", ".join(f"'{f.name}'" for f in beside[:NAMES])
    more = f" and {len(beside) - NAMES} more" if len(beside) > NAMES else ""
    raise ModelError(
        f"'{picture.name}' is a picture, and beside it stand the columns {names}{more}",
        f"pictures alone or a table alone: '{record.name}' does not read both",
        f"leave columns out (--set schema.{beside[0].name}=ignored), or the pictures (--set "
        f"schema.{picture.name}=ignored), or bring a model of your own",
    )


def _check_columns(record: Record, schema: Schema) -> None:
    """Raise `ModelError` where a model reads no numbers and categories."""
    tags = set(record.tags)
    if "table" in tags or not tags & KINDS:
        return
    able = _listed([r for r in MODELS if "table" in r.tags])
    names = ", ".join(f"'{f.name}'" for f in schema.inputs[:NAMES])
    more = len(schema.inputs) - NAMES
    columns = f"a table of the columns {names}" + (f" and {more} more" if more > 0 else "")
    what, do = "pictures", "leave --model out, or choose one of them"
    if "forecast" in tags:
        what, do = "series to go on with", "add --task forecast, or leave --model out"
    elif "text" in tags:
        what, do = "texts", f"{do}; schema.COLUMN=text makes a column a text"
    elif "series" in tags:
        what = "series"
    raise ModelError(
        f"the model '{record.name}' is for {what}, and the data is {columns}",
        f"a model for tables: {able}", do,
    )  # fmt: skip


def _listed(records: list[Record]) -> str:
    names = [r.name for r in records]
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more" if more > 0 else "")
