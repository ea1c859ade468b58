"""Pairs of texts become tokens: one text is read, the other is written.

    tokens     a_1 .. a_n [end]              what the model reads
    target_in  [begin] b_1 .. b_m            what it has written so far, at each place
    target     b_1 .. b_m [end]              what it should write there

Both texts share one vocabulary, fitted on the training rows of both, so that names and numbers have
the same tokens on both sides. Rows that are longer than the lengths chosen from the training rows
lose their end, and the share is said. A target that was cut has no [end]: it teaches none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import DataError
from gipi.core.schema import IGNORED_TOKEN, WRITTEN
from gipi.data.compose import Frame, compose
from gipi.data.faults import settle
from gipi.data.form import Opened, RowForm
from gipi.data.texts import (
    encoded,
    length_for,
    only_used,
    percent,
    text_faults,
    texts_of,
    tokenizer_of,
    without_rows,
)
from gipi.data.tokenizing import choose_tokenizer
from gipi.data.written import infer_written, look_at_both

if TYPE_CHECKING:
    from gipi.core.schema import Field, Schema
    from gipi.data.form import Divided
    from gipi.data.options import DataOptions
    from gipi.data.source import Source
    from gipi.data.tokenizing import Choice
    from gipi.data.tokens import Tokens
    from gipi.text import Tokenizer

Ragged = tuple[np.ndarray, np.ndarray]
SPECIAL = ("pad", "unk", "bos", "eos")
_WHOLE = 1 << 40  # tokens of a row that is not cut


@dataclass(frozen=True)
class Ends:
    """The ids with which a text that is written begins, and with which any text ends."""

    begin: int
    end: int


@dataclass(frozen=True)
class _Side:
    """One text of each row: its tokens, and how many it would have uncut."""

    tokens: Tokens
    full: np.ndarray

    def cut(self, ids: np.ndarray) -> tuple[float, float]:
        full, kept = self.full[ids], self.tokens.lengths[ids]
        return float((full > kept).mean()), float(1 - kept.sum() / max(int(full.sum()), 1))


def ends_of(tokenizer: Tokenizer) -> Ends:
    """Return the ids around texts; raise `DataError` where a tokenizer has no such tokens."""
    begin = tokenizer.bos if tokenizer.bos is not None else tokenizer.cls
    end = tokenizer.eos if tokenizer.eos is not None else tokenizer.sep
    begin = end if begin is None else begin
    if begin is None or end is None:
        raise DataError(
            "the tokenizer has no token that ends a text",
            "a token with the role eos or sep, for a model that writes must say when it is done",
            "give a tokenizer that has one, or leave --set tokenizer out to have one trained",
        )
    return Ends(begin, end)


def pair_fields(schema: Schema) -> tuple[Field, Field]:
    """Return the column that is read and the one that is written."""
    return schema.of("input", "text")[0], schema.of("target", "text")[0]


def open_pairs(rows: Divided) -> Opened:
    """Fit one tokenizer on the training rows of both texts, and encode all rows.

    Raises `DataError` for texts that cannot be read (or leaves them out, with bad_rows=skip), and
    `ConfigError` for a tokenizer or a length that cannot be.
    """
    schema, source, splits, options = rows.schema, rows.source, rows.splits, rows.options
    fields = pair_fields(schema)
    every = np.sort(np.concatenate(list(splits.values())))
    faults = text_faults(fields, source, every)
    notes = settle(faults, source, options)
    splits = without_rows(splits, list(faults))
    used = np.sort(np.concatenate(list(splits.values())))
    columns = [only_used(texts_of(source, f), used) for f in fields]
    train = splits["train"]
    chosen = choose_tokenizer(
        [[column[i] for i in train.tolist()] for column in columns],
        options, key=(source.fingerprint, [f.name for f in fields], train.tobytes()),
        special=SPECIAL, languages=2,
    )  # fmt: skip
    ends = ends_of(chosen.tokenizer)
    parts = encoded(chosen.tokenizer, columns, source, options)
    found = [length_for([part], Frame(after=(ends.end,)), train, options)
             for part in parts]  # fmt: skip
    lengths = tuple(length for length, _ in found)
    sides = [_side(part, ends, n, chosen.tokenizer) for part, n in zip(parts, lengths, strict=True)]
    notes.append(f"{chosen.reason}, one vocabulary for '{fields[0].name}' and '{fields[1].name}'")
    notes += [_said(field, side, used, why)
              for field, side, (_, why) in zip(fields, sides, found, strict=True)]  # fmt: skip
    schema = _fitted(schema, chosen, sides, train, lengths, ends)
    return Opened(schema, _inputs(sides, ends), splits, notes, _target(sides[1]),
                  tuple(columns[1]))  # fmt: skip


def read_pairs(
    schema: Schema, source: Source, options: DataOptions, *, target: bool
) -> Opened:  # fmt: skip
    """Encode the texts of `source` exactly as in training; `notes` say what was cut.

    target  whether the text that was written is known, and wanted

    Raises `DataError` naming a missing column, or the row whose text cannot be read.
    """
    fields = pair_fields(schema)[: 2 if target else 1]
    every = np.arange(source.rows, dtype=np.int64)
    faults = text_faults(fields, source, every)
    notes = settle(faults, source, options)
    used = np.setdiff1d(every, list(faults))
    columns = [only_used(texts_of(source, f), used) for f in fields]
    tokenizer = tokenizer_of(schema)
    ends, sides = ends_of(tokenizer), []
    parts = encoded(tokenizer, columns, source, options)
    for field, part in zip(fields, parts, strict=True):
        length = int(field.stats["length"])
        sides.append(_side(part, ends, length, tokenizer))
        if len(used) and sides[-1].cut(used)[0]:
            notes.append(_said(field, sides[-1], used, f"max_length={length}, as in training"))
    empty = int((np.diff(parts[0][1])[used] == 0).sum())
    if empty:
        what = "1 text is empty" if empty == 1 else f"{empty:,} texts are empty"
        notes.append(f"texts: {what}: what is written there comes from nothing")
    if not target:
        return Opened(schema, {"tokens": sides[0].tokens}, {"all": used}, notes)
    return Opened(schema, _inputs(sides, ends), {"all": used}, notes, _target(sides[1]),
                  tuple(columns[1]))  # fmt: skip


# ------------------------------------------------------------------ rows of tokens


def _side(part: Ragged, ends: Ends, length: int, tokenizer: Tokenizer) -> _Side:
    """Return each text with its end, the first `length` tokens of it."""
    whole = compose([part], Frame(after=(ends.end,)), _WHOLE, tokenizer).tokens
    if whole.longest <= length:
        return _Side(whole, whole.lengths)
    kept = np.minimum(whole.lengths, length)
    within = np.arange(len(whole.values)) - np.repeat(whole.offsets[:-1], whole.lengths)
    offsets = np.zeros(len(kept) + 1, dtype=np.int64)
    np.cumsum(kept, out=offsets[1:])
    return _Side(replace(whole, values=whole.values[within < length], offsets=offsets),
                 whole.lengths)  # fmt: skip


def shifted(target: Tokens, begin: int) -> Tokens:
    """Return what a model has written at each place of `target`: one token later, `begin` first.

    >>> from gipi.data.tokens import Tokens
    >>> shifted(Tokens(np.array([5, 6, 2, 7, 2]), np.array([0, 3, 5])), 1).values.tolist()
    [1, 5, 6, 1, 7]
    """
    values = np.empty_like(target.values)
    values[1:] = target.values[:-1]
    values[target.offsets[:-1][target.lengths > 0]] = begin
    return replace(target, values=values)


def _inputs(sides: list[_Side], ends: Ends) -> dict[str, Tokens]:
    return {"tokens": sides[0].tokens, "target_in": shifted(sides[1].tokens, ends.begin)}


def _target(side: _Side) -> Tokens:
    return replace(side.tokens, pad=IGNORED_TOKEN)


def _said(field: Field, side: _Side, used: np.ndarray, why: str) -> str:
    """Return a sentence on the lengths of one side, and on what was cut."""
    full = side.full[used]
    said = f"texts: '{field.name}' has {full.min():,} to {full.max():,} tokens, half have "
    said += f"{np.median(full):,.0f}"
    share, lost = side.cut(used)
    if not share:
        return f"{said}; none is cut"
    gone = f"{round(share * len(used)):,} ({percent(share)}) are longer and lose their end"
    return f"{said}; {gone}, {percent(lost)} of all tokens ({why})"


def _fitted(
    schema: Schema, chosen: Choice, sides: list[_Side], train: np.ndarray,
    lengths: tuple[int, ...], ends: Ends,
) -> Schema:  # fmt: skip
    tokenizer = chosen.tokenizer
    fields = pair_fields(schema)
    common = {"begin": ends.begin, "end": ends.end}
    for field, side, length in zip(fields, sides, lengths, strict=True):
        share, lost = side.cut(train)
        stats: dict[str, Any] = {"length": length, "cut_rows": share, "cut_tokens": lost, **common}
        if field is fields[0]:
            stats |= {
                "kind": tokenizer.kind, "vocab": side.tokens.vocab, "pad": side.tokens.pad,
                "roles": dict(tokenizer.roles), "tokenizer": tokenizer.to_json(),
            }  # fmt: skip
        else:
            stats["with"] = fields[0].name
        schema = schema.with_field(replace(field, stats=stats))
    return schema


FORM = RowForm(
    "a text, and the one that is written from it",
    WRITTEN, look_at_both, open_pairs, read_pairs, infer_written,
)  # fmt: skip
