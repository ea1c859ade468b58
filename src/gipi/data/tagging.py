"""Sentences with a tag for each token, as a model sees them: as words, or as pieces of words.

    words   the words themselves with their letters (see `data.words`): for nets from random weights
    pieces  what a tokenizer makes of each word; the first piece of a word has its tag, the others
            none. `starts` (B, T) is 1 at first pieces: for nets that were trained on pieces

A sentence is never cut, for its entities would silently leave the score: one that is longer than
the limit is an error with its file and line, or is left out with bad_rows=skip.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import Field, Schema
from gipi.data import words as words_
from gipi.data.compose import frame_of, pad_of
from gipi.data.divide import look_at_rows
from gipi.data.faults import settle
from gipi.data.form import Opened, RowForm
from gipi.data.infer_column import special_roles, with_roles
from gipi.data.texts import LONGEST, tokenizer_of
from gipi.data.tokenizing import Choice, choose_tokenizer
from gipi.data.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gipi.data.form import Divided
    from gipi.data.options import DataOptions
    from gipi.data.source import Source
    from gipi.text import Tokenizer

NONE = -100  # the tag of what has none: later pieces, what stands around a sentence
SHOWN = 60
_WORD = re.compile(r"\w+(?:[-'’.]\w+)*|[^\w\s]")
_TAG = re.compile(r"O|[BI]-\S+")


def infer_tagged(source: Source, options: DataOptions) -> Schema | None:
    """Return the schema of tagged sentences, None for other data.

    Raises `DataError` where tokens and tags of a row differ in number, or a tag is none of BIO.
    """
    if "tags" not in source.schema_hints.values():
        return None
    roles = special_roles(options)
    if options.target not in (None, "tags"):
        raise DataError(
            f"target '{options.target}' of sentences with tags", "the target 'tags'",
            "leave --target out",
        )  # fmt: skip
    if options.task not in (None, "tag"):
        raise ConfigError(
            f"task={options.task} for {source.task_reason}", "task=tag", "leave --task out"
        )
    refuse_misaligned(source)
    tokens = source.columns["tokens"]
    assert isinstance(tokens, np.ndarray)
    count = sum(map(len, tokens)) / max(len(tokens), 1)
    fields = [
        Field("tokens", "text", "input", f"sentences of {count:.0f} tokens"),
        Field("tags", "tags", "target", source.task_reason or "a tag for each token",
              classes=source.classes.get("tags", ())),
    ]  # fmt: skip
    if len(fields[1].classes) < 2:
        raise DataError(
            f"{source.name} has no entity: every tag is O", "tags to learn",
            "check which column holds the tags",
        )  # fmt: skip
    others = [
        Field(name, "category", "ignored", "no tag and no token")
        for name in source.columns if name not in ("tokens", "tags")
    ]  # fmt: skip
    known = Schema((*fields, *others), "tag", source.task_reason or "a tag for each token")
    return with_roles(known, roles, options)


def refuse_misaligned(source: Source) -> None:
    """Raise `DataError` with the row where tokens and tags do not belong together."""
    tokens, tags = source.columns["tokens"], source.columns["tags"]
    known = set(source.classes.get("tags", ()))
    for row, (words, marks) in enumerate(zip(tokens, tags, strict=True)):  # type: ignore[arg-type]
        if marks is None:
            continue
        name = source.row_name(row)
        if len(words) != len(marks):
            raise DataError(
                f"{name}: {len(words)} tokens and {len(marks)} tags", "a tag for each token",
                "correct the row",
            )  # fmt: skip
        before = "O"
        for word, tag in zip(words, marks, strict=True):
            if not _TAG.fullmatch(tag) or (known and tag not in known):
                raise DataError(
                    f"{name}: {tag!r} at {word[:SHOWN]!r} is no tag",
                    "O, B-type or I-type", "correct the tag",
                )  # fmt: skip
            if tag[0] == "I" and before[2:] != tag[2:]:
                raise DataError(
                    f"{name}: {tag} at {word[:SHOWN]!r} follows {before}, and begins no entity",
                    f"B{tag[1:]} where an entity begins",
                    f"write B{tag[1:]}, or read the file, where such tags become B-",
                )
            before = tag


def open_tagged(divided: Divided) -> Opened:
    """Learn words or pieces from the training rows, and encode all rows.

    Raises `DataError` for sentences without tokens, with tokens that cannot be read, or longer than
    the limit (or leaves them out, with bad_rows=skip).
    """
    schema, source = divided.schema, divided.source
    splits, options = divided.splits, divided.options
    rows = _rows(source)
    used = np.sort(np.concatenate(list(splits.values())))
    faults = _faults(rows, used)
    pieces = options.units == "pieces"
    if not pieces and (options.tokenizer is not None or options.tokenizer_options):
        raise ConfigError(
            "a tokenizer for a model that reads whole words", "a model that reads pieces of words",
            "choose one with --model bert, or leave the tokenizer out",
        )  # fmt: skip
    train = [rows[i] for i in splits["train"].tolist() if i not in faults]
    if not train:
        raise DataError("no training sentence can be read", "sentences", "check the file")
    notes: list[str] = []
    stats: dict[str, Any]
    if pieces:
        chosen = _choice(train, source, splits, options)
        notes.append(chosen.reason)
        tokenizer = chosen.tokenizer
        pad, vocab = pad_of(tokenizer)
        stats = {"kind": tokenizer.kind, "vocab": vocab, "pad": pad, "joint": _joint(train),
                 "roles": dict(tokenizer.roles), "tokenizer": tokenizer.to_json()}  # fmt: skip
    else:
        vocabulary = words_.learn(train)
        share = words_.unknown(vocabulary, train)
        notes.append(
            f"words: {len(vocabulary.words):,} known, those that occur {words_.LEAST} times in "
            f"training; {share:.1%} of the training words are rarer, and known by their letters"
        )
        stats = {"kind": "words", "joint": _joint(train), **vocabulary.to_stats()}
    schema = schema.with_field(replace(schema.field("tokens"), stats=stats))
    inputs = _inputs(schema, rows, faults)
    lengths = next(iter(inputs.values())).lengths
    longest = int(lengths[[i for i in used.tolist() if i not in faults]].max())
    most = min(LONGEST, options.longest or LONGEST)  # the last: what the model can read
    limit = options.max_length or (max(min(longest, most), 1) if pieces else None)
    if limit is not None:
        what = "pieces" if pieces else "words"
        why = "the model reads no more" if limit == options.longest else "max_length raises it"
        for i in used[lengths[used] > limit].tolist():
            faults.setdefault(
                i, f"it has {lengths[i]:,} {what}, and the limit is {limit:,} ({why})"
            )
    notes = settle(faults, source, options) + notes
    splits = {name: np.setdiff1d(ids, list(faults)) for name, ids in splits.items()}
    splits = {name: ids for name, ids in splits.items() if len(ids)}
    if "train" not in splits:
        raise DataError("no training sentence can be read", "sentences", "raise max_length")
    kept = lengths[np.concatenate(list(splits.values()))]
    stats = {**stats, "length": limit or int(kept.max()), "limit": limit}
    schema = schema.with_field(replace(schema.field("tokens"), stats=stats))
    notes.append(f"sentences: {kept.min():,} to {kept.max():,} tokens of the model, half have "
                 f"{np.median(kept):,.0f}; none is cut")  # fmt: skip
    return Opened(schema, inputs, splits, notes, _target(schema, source, inputs))


def read_tagged(
    schema: Schema, source: Source, options: DataOptions, *, target: bool = True
) -> Opened:
    """Encode sentences exactly as in training; tags too, where `target` and they are there.

    Raises `DataError` where there are no tokens, or as `open_tagged` for sentences.
    """
    if not _has_tokens(source):
        raise DataError(
            f"{source.name} has no tokens: its columns are {', '.join(source.columns)}",
            "sentences as texts, or a file with a token a line",
            "give the texts, a table with a column 'text', or a .conll file",
        )
    rows = _rows(source)
    every = np.arange(source.rows, dtype=np.int64)
    faults = _faults(rows, every)
    inputs = _inputs(schema, rows, faults)
    limit = schema.field("tokens").stats.get("limit")
    lengths = next(iter(inputs.values())).lengths
    if limit is not None:
        for i in np.flatnonzero(lengths > limit).tolist():
            faults.setdefault(i, f"it has {lengths[i]:,} tokens of the model, which was trained on "
                              f"{limit:,} at most: split the sentence")  # fmt: skip
    notes = settle(faults, source, options)
    known = target and "tags" in source.columns
    found = _target(schema, source, inputs) if known else None
    return Opened(schema, inputs, {"all": np.setdiff1d(every, list(faults))}, notes, found)


def words_of(text: str) -> list[tuple[str, int, int]]:
    """Return the words of a text with the characters [a, b) of each: words and single signs.

    >>> words_of("It's 5%.")
    [("It's", 0, 4), ('5', 5, 6), ('%', 6, 7), ('.', 7, 8)]
    """
    return [(m.group(), m.start(), m.end()) for m in _WORD.finditer(text)]


def joined(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return tokens as a text, and the characters [a, b) of each.

    A space stands between tokens, unless the spaces are tokens themselves (as where every
    character is one).

    >>> joined(("New", "York")), joined(("a", " ", "b"))[0]
    (('New York', [(0, 3), (4, 8)]), 'a b')
    """
    gap = "" if _spaced([tokens]) else " "
    places, at = [], 0
    for token in tokens:
        places.append((at, at + len(token)))
        at += len(token) + len(gap)
    return gap.join(tokens), places


# ---------------------------------------------------------------------------- within


def _has_tokens(source: Source) -> bool:
    column = source.columns.get("tokens")
    known = isinstance(column, np.ndarray) and column.dtype.kind == "O"
    return known and all(row is None or isinstance(row, tuple | list) for row in column)  # type: ignore[union-attr]


def _rows(source: Source) -> list[tuple[str, ...]]:
    return [tuple(row) if row is not None else () for row in source.columns["tokens"]]  # type: ignore[union-attr]


def _spaced(rows: Sequence[Sequence[str]]) -> bool:
    return any(token.isspace() for row in rows for token in row)


def _joint(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether words of these sentences have spaces between them that are no tokens."""
    return not _spaced(rows)


def _faults(rows: list[tuple[str, ...]], used: np.ndarray) -> dict[int, str]:
    faults: dict[int, str] = {}
    for i in used.tolist():
        if not rows[i]:
            faults[i] = "a sentence without a token"
        elif any("\0" in token for token in rows[i]):
            faults[i] = "a token holds a null byte"
        elif any(not token for token in rows[i]):
            faults[i] = "an empty token"
        else:
            try:
                "".join(rows[i]).encode()
            except UnicodeEncodeError:
                faults[i] = "a token holds half of a surrogate pair: it was not decoded well"
    return faults


def _choice(
    train: list[tuple[str, ...]], source: Source, splits: dict[str, np.ndarray],
    options: DataOptions,
) -> Choice:  # fmt: skip
    texts = [joined(row)[0] for row in train]
    return choose_tokenizer(
        [texts], options, key=("tagged", source.fingerprint, splits["train"].tobytes())
    )


def _inputs(
    schema: Schema, sentences: list[tuple[str, ...]], faults: Mapping[int, str]
) -> dict[str, Tokens]:  # fmt: skip
    """Return the sentences as numbers; those that cannot be read stand there as signs."""
    rows = [("?",) * len(row) if i in faults else row for i, row in enumerate(sentences)]
    stats = schema.field("tokens").stats
    if "tokenizer" not in stats:
        return words_.encode(words_.Vocabulary.from_stats(stats), rows)
    return _pieces(tokenizer_of(schema), rows, joint=bool(stats["joint"]))


def _pieces(
    tokenizer: Tokenizer, rows: list[tuple[str, ...]], *, joint: bool
) -> dict[str, Tokens]:  # fmt: skip
    """Return tokens and starts; each different word is cut once, with the space before it.

    A word of which nothing is left (a sign that the tokenizer drops) is the unknown token.
    """
    seen: dict[tuple[str, bool], int] = {}
    spaced = joint and tokenizer.kind in ("bpe", "unigram")
    keys = [
        [seen.setdefault((w, spaced and k > 0), len(seen)) for k, w in enumerate(row)]
        for row in rows
    ]  # fmt: skip
    found = tokenizer.encode_batch([" " + w if gap else w for w, gap in seen], special=False)
    unknown = next((i for i in (tokenizer.unk, tokenizer.eos) if i is not None), 0)
    cut = [found[i].tolist() or [unknown] for i in range(len(found))]
    frame = frame_of(tokenizer, texts=1)
    pad, vocab = pad_of(tokenizer)
    values: list[int] = []
    starts: list[int] = []
    offsets = [0]
    for row in keys:
        values += frame.before
        starts += [0] * len(frame.before)
        for key in row:
            values += cut[key]
            starts += [1] + [0] * (len(cut[key]) - 1)
        values += frame.after
        starts += [0] * len(frame.after)
        offsets.append(len(values))
    ends = np.array(offsets, dtype=np.int64)
    return {
        "tokens": Tokens(np.array(values, dtype=np.int32), ends, pad, vocab),
        "starts": Tokens(np.array(starts, dtype=np.int32), ends),
    }


def _target(schema: Schema, source: Source, inputs: dict[str, Tokens]) -> Tokens | None:
    """Return the tags where the words begin, `NONE` elsewhere; None where some row has no tags."""
    column = source.columns["tags"]
    if any(row is None for row in column):  # type: ignore[union-attr]
        return None
    refuse_misaligned(replace(source, classes={}))
    classes = schema.field("tags").classes
    index = {tag: i for i, tag in enumerate(classes)}
    for row, marks in enumerate(column):  # type: ignore[arg-type]
        strange = next((t for t in marks if t not in index), None)
        if strange is not None:
            raise DataError(
                f"{source.row_name(row)}: the tag {strange!r}",
                "one of the tags of training: " + ", ".join(classes[:20]),
                "correct the tag, or train with it",
            )
    flat = np.fromiter((index[t] for row in column for t in row), np.int32)  # type: ignore[union-attr]
    first = next(iter(inputs.values()))
    if "starts" not in inputs:
        return Tokens(flat, first.offsets, NONE)
    values = np.full(len(first.values), NONE, dtype=np.int32)
    values[inputs["starts"].values == 1] = flat
    return Tokens(values, first.offsets, NONE)


FORM = RowForm(
    "sentences with a tag for each token",
    ("tag",), look_at_rows, open_tagged, read_tagged, infer_tagged,
)  # fmt: skip
