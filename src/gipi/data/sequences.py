"""Rows of tokens, by what is asked of them: one answer a text, a tag for each token, or a span."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.data.answering import answered_schema, open_answered, read_answered
from gipi.data.tagging import open_tagged, read_tagged, tagged_schema
from gipi.data.texts import Opened, open_texts, read_texts

if TYPE_CHECKING:
    import numpy as np

    from gipi.core.schema import Schema
    from gipi.data.options import DataOptions
    from gipi.data.source import Source

OF_TOKENS = ("tags", "answers")
"""Kinds of targets that are made where the tokens are made."""


def sequence_schema(source: Source, options: DataOptions) -> Schema | None:
    """Return the schema of tagged sentences or of questions with contexts; None for other data."""
    kinds = set(source.schema_hints.values())
    if "tags" in kinds:
        return tagged_schema(source, options)
    return answered_schema(source, options) if "answers" in kinds else None


def open_rows(
    schema: Schema, source: Source, splits: dict[str, np.ndarray], options: DataOptions
) -> Opened:
    """Fit what the tokens need on the training rows, and encode all rows."""
    if schema.task == "tag":
        return open_tagged(schema, source, splits, options)
    if schema.task == "answer":
        return open_answered(schema, source, splits, options)
    return open_texts(schema, source, splits, options)


def read_tokens(
    schema: Schema, source: Source, options: DataOptions, *, target: bool = True
) -> Opened:
    """Encode rows exactly as in training; their targets too where these are made of tokens."""
    if schema.task == "tag":
        return read_tagged(schema, source, options, target=target)
    if schema.task == "answer":
        return read_answered(schema, source, options, target=target)
    return read_texts(schema, source, options)
