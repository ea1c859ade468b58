"""Texts become tokens: a tokenizer fitted on training rows, one row of ids for each text or pair.

The tokenizer travels as JSON in the schema, so that a model folder reads new texts by itself. Rows
that are longer than the length chosen from the training rows lose their end, of two texts the
longer one first; how many, and how much, is said.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import PAIRED
from gipi.data.cache import keep, key_of
from gipi.data.compose import Frame, Rows, compose, frame_of
from gipi.data.faults import settle
from gipi.data.form import Opened
from gipi.data.source import as_labels
from gipi.data.tokenizing import Choice, choose_tokenizer
from gipi.text import Tokenizer

if TYPE_CHECKING:
    from gipi.core.schema import Field, Schema
    from gipi.data.form import Divided
    from gipi.data.options import DataOptions
    from gipi.data.source import Source
    from gipi.data.tokens import Tokens

LONGEST = 512  # tokens beyond which a row is cut, where nothing else was asked for
SHORT = 128  # tokens up to which nothing is cut
COVERED = 0.995  # share of the training rows that are kept whole, between the two
UNKNOWN = 0.1  # share of unknown tokens that is worth a word
WORTH_KEEPING = 2_000_000  # characters from which tokens are kept in the cache
FORMAT = 1  # of the tokens in the cache


def text_fields(schema: Schema) -> tuple[Field, ...]:
    """Return the columns of text that the model reads: none, one, or two."""
    return schema.of("input", "text")


def open_texts(rows: Divided) -> Opened:
    """Fit the tokenizer on the training rows, and encode all rows.

    Raises `DataError` for texts that cannot be read (or leaves them out, with bad_rows=skip), and
    `ConfigError` for a tokenizer or a length that cannot be.
    """
    schema, source, splits, options = rows.schema, rows.source, rows.splits, rows.options
    fields = text_fields(schema)
    if not fields:
        return Opened(schema, {}, splits, [])
    faults = text_faults(fields, source, np.sort(np.concatenate(list(splits.values()))))
    notes = settle(faults, source, options)
    splits = without_rows(splits, list(faults))
    used = np.sort(np.concatenate(list(splits.values())))
    columns = [only_used(texts_of(source, f), used) for f in fields]
    chosen = choose_tokenizer(
        [[column[i] for i in splits["train"].tolist()] for column in columns],
        options, key=(source.fingerprint, [f.name for f in fields], splits["train"].tobytes()),
    )  # fmt: skip
    parts = encoded(chosen.tokenizer, columns, source, options)
    frame = frame_of(chosen.tokenizer, texts=len(fields), apart=schema.task in PAIRED)
    length, why = length_for(parts, frame, splits["train"], options)
    made = compose(parts, frame, length, chosen.tokenizer)
    notes += [chosen.reason, _said(made, used, why)]
    notes += [*_empty_note(parts, used), *_unknown_note(made, used, chosen.tokenizer)]
    return Opened(_fitted(schema, chosen, made, splits["train"], length), _inputs(made), splits,
                  notes)  # fmt: skip


def read_texts(schema: Schema, source: Source, options: DataOptions) -> Opened:
    """Encode the texts of `source` exactly as in training; `notes` say what was cut.

    Raises `DataError` naming a missing column, or the row whose text cannot be read.
    """
    fields = text_fields(schema)
    if not fields:
        return Opened(schema, {}, {}, [])
    every = np.arange(source.rows, dtype=np.int64)
    faults = text_faults(text_fields(schema), source, every)
    notes = settle(faults, source, options)
    used = np.setdiff1d(every, list(faults))
    columns = [only_used(texts_of(source, f), used) for f in fields]
    tokenizer, length = tokenizer_of(schema), int(fields[0].stats["length"])
    parts = encoded(tokenizer, columns, source, options)
    frame = frame_of(tokenizer, texts=len(fields), apart=schema.task in PAIRED)
    rows = compose(parts, frame, length, tokenizer)
    if len(used) and rows.cut(used)[0]:
        notes.append(_said(rows, used, f"max_length={length}, as in training"))
    notes += _unknown_note(rows, used, tokenizer)
    return Opened(schema, _inputs(rows), {"all": used}, notes)


def tokenizer_of(schema: Schema) -> Tokenizer:
    """Return the tokenizer that the training rows were read with."""
    stats = text_fields(schema)[0].stats
    return _parsed(stats["tokenizer"], tuple(stats["roles"].items()))


@lru_cache(maxsize=8)
def _parsed(text: str, roles: tuple[tuple[str, str], ...]) -> Tokenizer:
    return Tokenizer.from_json(text, roles=dict(roles))


def texts_of(source: Source, field: Field) -> list[str]:
    """Return the texts of a column, "" where one is missing; raise where there is no column."""
    column = source.columns.get(field.name)
    if not isinstance(column, np.ndarray) or column.ndim != 1:
        raise DataError(
            f"the column '{field.name}' is missing in {source.name}",
            "every column of text that the model was trained on",
            f"give a table with a column '{field.name}', or the text itself",
        )
    values = column if column.dtype.kind == "O" else as_labels(column)
    return ["" if v is None else v if isinstance(v, str) else str(v) for v in values.tolist()]


def only_used(texts: list[str], used: np.ndarray) -> list[str]:
    """Return the texts with "" for rows that take no part: they may be unreadable."""
    if len(used) == len(texts):
        return texts
    out = [""] * len(texts)
    for i in used.tolist():
        out[i] = texts[i]
    return out


def text_faults(fields: tuple[Field, ...], source: Source, rows: np.ndarray) -> dict[int, str]:
    """Return row -> why a text of it cannot be read: null bytes, halves of surrogate pairs."""
    found: dict[int, str] = {}
    for field in fields:
        texts = texts_of(source, field)
        for i in rows.tolist():
            why = fault_in(texts[i])
            if why:
                found.setdefault(i, f"the text '{field.name}' holds {why}")
    return found


def fault_in(text: str) -> str:
    """Return what makes a text unreadable, in words; "" where nothing does."""
    at = text.find("\0")
    if at >= 0:
        return f"a null byte at character {at + 1}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half of a surrogate pair at character {error.start + 1}: it was not decoded well"
    return ""


def encoded(
    tokenizer: Tokenizer, columns: list[list[str]], source: Source, options: DataOptions
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (values, offsets) of each column; of many texts from the cache."""

    def make() -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        for k, texts in enumerate(columns):
            found = tokenizer.encode_batch(texts, special=False)
            out |= {f"values{k}": found.values, f"offsets{k}": found.offsets}
        return out

    if sum(len(t) for texts in columns for t in texts) < WORTH_KEEPING:
        made = make()
    else:
        names = [f"{len(texts)}" for texts in columns]
        key = key_of("tokens", FORMAT, source.fingerprint, tokenizer.fingerprint, names,
                     [hash_of(texts) for texts in columns])  # fmt: skip
        made = keep(key, make, name=f"tokens of {source.name}", folder=options.cache)
    return [(made[f"values{k}"], made[f"offsets{k}"]) for k in range(len(columns))]


def hash_of(texts: list[str]) -> str:
    """Return a hash of texts in order."""
    return key_of("\0".join(texts).encode("utf-8", "surrogatepass"))


def length_for(
    parts: list[tuple[np.ndarray, np.ndarray]], frame: Frame, train: np.ndarray,
    options: DataOptions,
) -> tuple[int, str]:  # fmt: skip
    """Return the tokens of the longest row that is kept whole, and why."""
    added, asked = frame.size(len(parts)), options.max_length
    most = LONGEST if options.longest is None else min(LONGEST, options.longest)
    if asked is not None:
        if asked < added + len(parts):
            raise ConfigError(
                f"max_length={asked}, and {added} tokens stand around each row",
                f"at least {added + len(parts)} tokens",
                "set a larger max_length, or leave it out",
            )
        return asked, f"max_length={asked}"
    sizes = added + np.sum([np.diff(offsets)[train] for _, offsets in parts], axis=0)
    longest = int(np.max(sizes))
    whole = f"max_length={longest}, the longest training row"
    if longest <= min(SHORT, most):
        return longest, whole
    usual = int(np.quantile(sizes, COVERED, method="higher"))
    length = min(longest, max(SHORT, usual), most)
    if length == longest:
        return length, whole
    if length == options.longest:
        return length, f"max_length={length}: the model reads no more"
    if length == LONGEST:
        return length, f"max_length={length}: longer rows cost too much where nobody asked for them"
    return length, f"max_length={length} keeps {COVERED:.1%} of the training rows whole"


def _said(rows: Rows, used: np.ndarray, why: str) -> str:
    """Return a sentence on the lengths of the rows, and on what was cut."""
    full = rows.full[used]
    said = f"texts: {full.min():,} to {full.max():,} tokens, half have {np.median(full):,.0f}"
    share, lost = rows.cut(used)
    if not share:
        return f"{said}; none is cut"
    count = round(share * len(used))
    gone = f"{count:,} ({percent(share)}) are longer and lose their end"
    gone += f", {percent(lost)} of all tokens"
    return f"{said}; {gone} ({why})"


def percent(share: float) -> str:
    """Return a share in percent; a small one is not called none."""
    return f"{share:.2%}" if share >= 0.0001 else "under 0.01%"


def _empty_note(parts: list[tuple[np.ndarray, np.ndarray]], used: np.ndarray) -> list[str]:
    empty = np.all([np.diff(offsets)[used] == 0 for _, offsets in parts], axis=0)
    n = int(empty.sum())
    what = "1 text is empty" if n == 1 else f"{n:,} texts are empty"
    return [f"{what}: the model sees only that there is nothing"] if n else []


def _unknown_note(rows: Rows, used: np.ndarray, tokenizer: Tokenizer) -> list[str]:
    """Say so where many tokens are none of the vocabulary; bytes (BPE) have none such."""
    if tokenizer.unk is None or tokenizer.kind == "bpe" or not len(used):
        return []
    share = float((rows.tokens.take(used).values == tokenizer.unk).mean())
    if share < UNKNOWN:
        return []
    return [f"texts: {share:.0%} of the tokens are unknown to the tokenizer ({tokenizer.kind})"]


def _fitted(
    schema: Schema, chosen: Choice, rows: Rows, train: np.ndarray, length: int
) -> Schema:  # fmt: skip
    fields, (share, lost) = text_fields(schema), rows.cut(train)
    tokenizer = chosen.tokenizer
    stats: dict[str, Any] = {
        "kind": tokenizer.kind, "vocab": rows.tokens.vocab, "pad": rows.tokens.pad,
        "length": length, "cut_rows": share, "cut_tokens": lost,
        "roles": dict(tokenizer.roles), "tokenizer": tokenizer.to_json(),
    }  # fmt: skip
    schema = schema.with_field(replace(fields[0], stats=stats))
    for other in fields[1:]:
        schema = schema.with_field(replace(other, stats={"with": fields[0].name}))
    return schema


def _inputs(rows: Rows) -> dict[str, Tokens]:
    found = {"tokens": rows.tokens}
    return found if rows.segments is None else {**found, "segments": rows.segments}


def without_rows(splits: dict[str, np.ndarray], bad: list[int]) -> dict[str, np.ndarray]:
    """Return the splits without these rows; raise where no training row is left."""
    if not bad:
        return splits
    left = {name: np.setdiff1d(ids, bad) for name, ids in splits.items()}
    left = {name: ids for name, ids in left.items() if len(ids)}
    if "train" not in left:
        raise DataError("no training text can be read", "texts to train on", "check the file")
    return left
