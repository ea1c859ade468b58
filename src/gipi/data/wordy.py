"""Which columns hold text, and whether the model reads them or the table around them.

A model reads texts (one column, or two as a pair), or a table, or pictures; no model at hand reads
texts and a table together. What is left out says so in its reason, and how to have it otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import ConfigError
from gipi.core.schema import Field
from gipi.data.source import Source, is_missing

if TYPE_CHECKING:
    from gipi.data.options import DataOptions

FEW = 20  # different values up to which a column may be one of labels
MOSTLY = 0.9  # share of different values from which it is none
WORDS = 4.0  # words a value from which different labels look like free text
DOCUMENT = 8.0  # words a row from which a text is worth more than a small table beside it
TABLE = 3  # columns of such a small table, at most
MOST_TEXTS = 2  # that a model reads: a text, or a pair
SAMPLE = 2_000  # values looked at where the answer needs no more
LETTERS = 0.8  # share of letters from which values that all differ are words, not identifiers
BESIDE = "no model reads text and a table together"


def words_in(text: str) -> float:
    """Return about how many words a text has; two letters of a script without spaces are one.

    >>> words_in("a tale of two cities"), words_in("今天天气很好")
    (5, 3.0)
    """
    wide = sum("\u3040" <= c <= "\u30ff" or "\u4e00" <= c <= "\u9fff" or "\u0e00" <= c <= "\u0eff"
               for c in text)  # fmt: skip
    return max(len(text.split()), wide / 2)


def words_a_row(present: np.ndarray) -> float:
    """Return the mean number of words of these values."""
    sample = present[:SAMPLE].tolist()
    return sum(words_in(str(v)) for v in sample) / max(len(sample), 1)


def text_field(name: str, present: np.ndarray) -> Field | None:
    """Return the field of a column of strings where it holds text, None where it holds labels."""
    distinct, words = len(set(present.tolist())), words_a_row(present)
    different = distinct / len(present)
    many = different > MOSTLY or (distinct > FEW and different > 1 - MOSTLY)
    if (words >= WORDS and many) or (len(present) > FEW and different > MOSTLY and words >= 2):
        return Field(name, "text", "input", f"text, {words:.0f} words a row")
    return None


def looks_like_text(source: Source, name: str) -> bool:
    """Return whether a column holds free text, and so is hardly what is to be predicted."""
    column = source.columns[name]
    if not isinstance(column, np.ndarray) or column.dtype.kind != "O":
        return False
    present = column[~is_missing(column)]
    return len(present) > 0 and text_field(name, present) is not None


def settle_texts(source: Source, fields: list[Field], options: DataOptions) -> list[Field]:
    """Return the fields with either texts or the other columns as inputs, each with its reason.

    Raises `ConfigError` where a text and another column were both asked for.
    """
    if not any(f.role == "input" for f in fields):
        fields = _lone_words(source, fields)
    texts = [f for f in fields if f.role == "input" and f.kind == "text"]
    others = [f for f in fields if f.role == "input" and f.kind != "text"]
    if texts and others:
        asked = [f.name for f in texts if f.name in options.overrides]
        _not_both(asked, [f.name for f in others if f.name in options.overrides])
        read = bool(asked) or _wins(source, texts, others)
        gone = others if read else texts
        fields = [_left_out(f, texts[0].name, others, read=read) if f in gone else f
                  for f in fields]  # fmt: skip
        texts = texts if read else []
    return _two(source, fields, texts, options)


def _wins(source: Source, texts: list[Field], others: list[Field]) -> bool:
    if len(others) > TABLE or any(f.kind == "image" for f in others):
        return False
    return max(_words(source, f) for f in texts) >= DOCUMENT


def _words(source: Source, field: Field) -> float:
    column = np.asarray(source.columns[field.name])
    return words_a_row(column[~is_missing(column)])


def _left_out(field: Field, text: str, others: list[Field], *, read: bool) -> Field:
    if read:
        why = f"{field.reason}; {BESIDE}, and '{text}' is read: schema.{text}=ignored changes it"
    elif any(f.kind == "image" for f in others):
        why = "free text beside pictures: no model reads both"
    else:
        count = f"{len(others)} other column" + "s" * (len(others) > 1)
        said = field.reason.partition(", ")[2]
        why = (
            f"free text ({said}) beside {count}: {BESIDE}; schema.{field.name}=text reads it alone"
        )
    return replace(field, role="ignored", reason=why)


def _not_both(texts: list[str], others: list[str]) -> None:
    if texts and others:
        raise ConfigError(
            f"schema.{texts[0]}=text and schema.{others[0]} as an input beside it",
            f"one of them: {BESIDE}",
            f"leave one of the settings out, or set schema.{others[0]}=ignored",
        )


def _two(
    source: Source, fields: list[Field], texts: list[Field], options: DataOptions
) -> list[Field]:
    """Return the fields with two texts at most: those asked for, then those with most words."""
    if len(texts) <= MOST_TEXTS:
        return fields
    ranked = sorted(texts, key=lambda f: (f.name not in options.overrides, -_words(source, f)))
    why = f"; {MOST_TEXTS} texts are read at most, those with most words"
    gone = ranked[MOST_TEXTS:]
    return [replace(f, role="ignored", reason=f.reason + why) if f in gone else f for f in fields]


def _lone_words(source: Source, fields: list[Field]) -> list[Field]:
    """Take a column of different words (names, say) as text where there is no other input."""
    out = []
    for f in fields:
        column = source.columns[f.name]
        if (
            f.role == "ignored"
            and "different values" in f.reason
            and isinstance(column, np.ndarray)
        ):
            sample = "".join(str(v) for v in column[~is_missing(column)][:SAMPLE].tolist())
            if sum(c.isalpha() or c.isspace() for c in sample) >= LETTERS * max(len(sample), 1):
                f = Field(f.name, "text", "input", "text: words that nearly all differ")  # noqa: PLW2901
        out.append(f)
    return out
