"""Texts become tokens: a tokenizer fitted on training rows, one row of ids for each text or pair.

    text        [before] a [after]                 before, after: what the tokenizer puts around
    two texts   [before] a [between] b [after]     a text, such as [CLS] and [SEP]; segments are
                                                   0 up to `between`, 1 from b on

The tokenizer travels as JSON in the schema, so that a model folder reads new texts by itself. Rows
that are longer than the length chosen from the training rows lose their end, of two texts the
longer one first; how many, and how much, is said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import ConfigError, DataError
from gipi.data.cache import keep, key_of, ragged
from gipi.data.faults import settle
from gipi.data.source import as_labels
from gipi.data.tokenizing import Choice, choose_tokenizer
from gipi.data.tokens import Tokens
from gipi.text import Tokenizer

if TYPE_CHECKING:
    from gipi.core.schema import Field, Schema
    from gipi.data.options import DataOptions
    from gipi.data.source import Source

LONGEST = 512  # tokens beyond which a row is cut, where nothing else was asked for
SHORT = 128  # tokens up to which nothing is cut
COVERED = 0.995  # share of the training rows that are kept whole, between the two
WORTH_KEEPING = 2_000_000  # characters from which tokens are kept in the cache
FORMAT = 1  # of the tokens in the cache


@dataclass(frozen=True)
class Opened:
    """A data set with its texts as tokens; `inputs` is empty where there are none."""

    schema: Schema
    inputs: dict[str, Tokens]
    splits: dict[str, np.ndarray]
    notes: list[str]


@dataclass(frozen=True)
class Frame:
    """The ids that stand around texts."""

    before: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def size(self, texts: int) -> int:
        """Return the number of added tokens of a row of one or two texts."""
        return len(self.before) + len(self.after) + (len(self.between) if texts > 1 else 0)


@dataclass(frozen=True)
class Rows:
    """Composed rows: tokens, segments of pairs, and the rows and tokens that were cut."""

    tokens: Tokens
    segments: Tokens | None
    full: np.ndarray

    def cut(self, ids: np.ndarray) -> tuple[float, float]:
        """Return the share of these rows that were cut, and of their tokens that are lost."""
        full, kept = self.full[ids], self.tokens.lengths[ids]
        return float((full > kept).mean()), float(1 - kept.sum() / max(int(full.sum()), 1))


def text_fields(schema: Schema) -> tuple[Field, ...]:
    """Return the columns of text that the model reads: none, one, or two."""
    return schema.of("input", "text")


def open_texts(
    schema: Schema, source: Source, splits: dict[str, np.ndarray], options: DataOptions
) -> Opened:
    """Fit the tokenizer on the training rows, and encode all rows.

    Raises `DataError` for texts that cannot be read (or leaves them out, with bad_rows=skip), and
    `ConfigError` for a tokenizer or a length that cannot be.
    """
    fields = text_fields(schema)
    if not fields:
        return Opened(schema, {}, splits, [])
    faults = text_faults(schema, source, np.sort(np.concatenate(list(splits.values()))))
    notes = settle(faults, source, options)
    splits = _without(splits, list(faults))
    used = np.sort(np.concatenate(list(splits.values())))
    columns = [_only(texts_of(source, f), used) for f in fields]
    chosen = choose_tokenizer(
        [[column[i] for i in splits["train"].tolist()] for column in columns],
        options, key=(source.fingerprint, splits["train"].tobytes()),
    )  # fmt: skip
    parts = _encoded(chosen.tokenizer, columns, source, options)
    frame = frame_of(chosen.tokenizer, texts=len(fields))
    length, why = _length(parts, frame, splits["train"], options)
    rows = compose(parts, frame, length, chosen.tokenizer)
    notes += [chosen.reason, _said(rows, used, why)]
    notes += _empty_note(parts, used)
    return Opened(_fitted(schema, chosen, rows, splits["train"], length), _inputs(rows), splits,
                  notes)  # fmt: skip


def read_texts(schema: Schema, source: Source, options: DataOptions) -> Opened:
    """Encode the texts of `source` exactly as in training; `notes` say what was cut.

    Raises `DataError` naming a missing column, or the row whose text cannot be read.
    """
    fields = text_fields(schema)
    if not fields:
        return Opened(schema, {}, {}, [])
    every = np.arange(source.rows, dtype=np.int64)
    faults = text_faults(schema, source, every)
    notes = settle(faults, source, options)
    used = np.setdiff1d(every, list(faults))
    columns = [_only(texts_of(source, f), used) for f in fields]
    tokenizer, length = tokenizer_of(schema), int(fields[0].stats["length"])
    parts = _encoded(tokenizer, columns, source, options)
    rows = compose(parts, frame_of(tokenizer, texts=len(fields)), length, tokenizer)
    if len(used) and rows.cut(used)[0]:
        notes.append(_said(rows, used, f"max_length={length}, as in training"))
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
            "every text that the model was trained on",
            f"give a table with a column '{field.name}', or the text itself",
        )
    values = column if column.dtype.kind == "O" else as_labels(column)
    return ["" if v is None else v if isinstance(v, str) else str(v) for v in values.tolist()]


def _only(texts: list[str], used: np.ndarray) -> list[str]:
    """Return the texts with "" for rows that take no part: they may be unreadable."""
    if len(used) == len(texts):
        return texts
    out = [""] * len(texts)
    for i in used.tolist():
        out[i] = texts[i]
    return out


def text_faults(schema: Schema, source: Source, rows: np.ndarray) -> dict[int, str]:
    """Return row -> why a text of it cannot be read: null bytes, halves of surrogate pairs."""
    found: dict[int, str] = {}
    for field in text_fields(schema):
        texts = texts_of(source, field)
        for i in rows.tolist():
            why = _fault(texts[i])
            if why:
                found.setdefault(i, f"the text '{field.name}' holds {why}")
    return found


def _fault(text: str) -> str:
    at = text.find("\0")
    if at >= 0:
        return f"a null byte at character {at + 1}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half of a surrogate pair at character {error.start + 1}: it was not decoded well"
    return ""


# ------------------------------------------------------------------ rows of tokens


def frame_of(tokenizer: Tokenizer, *, texts: int) -> Frame:
    """Return what `tokenizer` puts around one text, or around and between two.

    A tokenizer that adds nothing gets its separator, or its end of text, between two texts.
    """
    found = tokenizer.encode("a", "b") if texts > 1 else tokenizer.encode("a")
    ids, added = found.ids.tolist(), found.special_mask
    real = np.flatnonzero(~added)
    if not len(real):
        return Frame()
    before, after = tuple(ids[: real[0]]), tuple(ids[real[-1] + 1 :])
    if texts == 1:
        return Frame(before, (), after)
    gap = tuple(i for i, extra in zip(ids, added, strict=True) if extra)
    between = gap[len(before) : len(gap) - len(after)]
    if not between:
        mark = tokenizer.sep if tokenizer.sep is not None else tokenizer.eos
        between = () if mark is None else (mark,)
    return Frame(before, between, after)


def compose(
    parts: list[tuple[np.ndarray, np.ndarray]], frame: Frame, length: int, tokenizer: Tokenizer
) -> Rows:
    """Return rows of at most `length` tokens out of encoded texts (values, offsets).

    Of two texts the longer one is cut first, until both have half of the room. A row without any
    token gets the unknown token, so that no model meets an empty row.
    """
    pad, vocab = pad_of(tokenizer)
    counts = [np.diff(offsets) for _, offsets in parts]
    room = length - frame.size(len(parts))
    if len(parts) == 1:
        kept = [np.minimum(counts[0], room)]
    else:
        a, b = counts
        kept_a = np.minimum(a, np.maximum(room - b, room - room // 2))
        kept = [kept_a, np.minimum(b, room - kept_a)]
    full = frame.size(len(parts)) + sum(counts)
    alone = _stand_in(tokenizer) if frame.size(len(parts)) == 0 else None
    sizes = frame.size(len(parts)) + sum(kept)
    empty = sizes == 0 if alone is not None else np.zeros(len(sizes), dtype=bool)
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes + empty, out=offsets[1:])
    values = np.empty(offsets[-1], dtype=np.int32)
    segments = np.zeros(offsets[-1], dtype=np.uint8) if len(parts) > 1 else None
    if alone is not None:
        values[offsets[:-1][empty]] = alone
    at = offsets[:-1].copy()
    _put(values, at, frame.before)
    at += len(frame.before)
    for place, ((ids, starts), n) in enumerate(zip(parts, kept, strict=True)):
        goal = _places(at, n)
        values[goal] = ids[_places(starts[:-1], n)]
        at += n
        ends = frame.between if place + 1 < len(parts) else frame.after
        _put(values, at, ends)
        if segments is not None and place:
            segments[goal] = 1
            for k in range(len(ends)):
                segments[at + k] = 1
        at += len(ends)
    marks = None if segments is None else Tokens(segments, offsets)
    return Rows(Tokens(values, offsets, pad, vocab), marks, full)


def pad_of(tokenizer: Tokenizer) -> tuple[int, int]:
    """Return the id of padding and the number of ids; one more where the tokenizer has none."""
    if tokenizer.pad is None:
        return tokenizer.vocab_size, tokenizer.vocab_size + 1
    return tokenizer.pad, tokenizer.vocab_size


def _stand_in(tokenizer: Tokenizer) -> int:
    for found in (tokenizer.unk, tokenizer.eos, tokenizer.bos):
        if found is not None:
            return found
    return int(next(iter(tokenizer.encode(" ", special=False).ids.tolist()), 0))


def _places(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return starts[0] .. starts[0] + counts[0] - 1, starts[1] .., without a loop over rows."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _put(values: np.ndarray, at: np.ndarray, ids: tuple[int, ...]) -> None:
    for k, i in enumerate(ids):
        values[at + k] = i


def _encoded(
    tokenizer: Tokenizer, columns: list[list[str]], source: Source, options: DataOptions
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (values, offsets) of each column; of many texts from the cache."""

    def make() -> dict[str, np.ndarray]:
        out = {}
        for k, texts in enumerate(columns):
            found = tokenizer.encode_batch(texts, special=False)
            out |= {f"values{k}": found.values, f"offsets{k}": found.offsets}
        return out

    if sum(map(len, (t for texts in columns for t in texts))) < WORTH_KEEPING:
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


def _length(
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
    sizes = added + sum(np.diff(offsets)[train] for _, offsets in parts)
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
    gone = f"{count:,} ({_percent(share)}) are longer and lose their end"
    gone += f", {_percent(lost)} of all tokens"
    return f"{said}; {gone} ({why})"


def _percent(share: float) -> str:
    """Return a share in percent; a small one is not called none."""
    return f"{share:.2%}" if share >= 0.0001 else "under 0.01%"


def _empty_note(parts: list[tuple[np.ndarray, np.ndarray]], used: np.ndarray) -> list[str]:
    empty = np.all([np.diff(offsets)[used] == 0 for _, offsets in parts], axis=0)
    n = int(empty.sum())
    what = "1 text is empty" if n == 1 else f"{n:,} texts are empty"
    return [f"{what}: the model sees only that there is nothing"] if n else []


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


def _without(splits: dict[str, np.ndarray], bad: list[int]) -> dict[str, np.ndarray]:
    if not bad:
        return splits
    left = {name: np.setdiff1d(ids, bad) for name, ids in splits.items()}
    left = {name: ids for name, ids in left.items() if len(ids)}
    if "train" not in left:
        raise DataError("no training text can be read", "texts to train on", "check the file")
    return left


__all__ = ["Frame", "Opened", "Rows", "compose", "frame_of", "open_texts", "pad_of", "ragged",
           "read_texts", "text_faults", "text_fields", "texts_of", "tokenizer_of"]  # fmt: skip
