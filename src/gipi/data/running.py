"""Running text: every document as tokens, end to end, and which part of them is for what.

What a language model learns from has no rows: its rows are windows of T tokens, with the tokens one
further as targets. The parts never overlap, so no window of training touches what is held back.

    given       the parts that the data came with (a training copy of a held-back document is
                dropped)
    documents   files, titled articles, rows of a table: some of them are held back, by chance
    one text    its end is held back

Shapes: N tokens, T tokens of a window.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.core.schema import Field, Schema
from gipi.core.seed import derive
from gipi.data.cache import keep, key_of
from gipi.data.compose import pad_of
from gipi.data.divide import given_parts
from gipi.data.faults import settle
from gipi.data.form import Form, Parts
from gipi.data.options import for_rows
from gipi.data.source import TEST, TRAIN, VAL, Column, Source
from gipi.data.sources.corpus import titled
from gipi.data.stream import Columns
from gipi.data.text_windows import Running, WindowStream
from gipi.data.texts import WORTH_KEEPING, hash_of, text_faults, text_fields, texts_of, tokenizer_of
from gipi.data.tokenizing import MOST_CHARACTERS, choose_tokenizer
from gipi.text.corpus import dtype_for, encode_documents

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gipi.data.form import Progress
    from gipi.data.options import DataOptions
    from gipi.text import Tokenizer

TASK = "generate"
PARTS = {"train": TRAIN, "val": VAL, "test": TEST}
VAL_SHARE = 0.1  # of the text, where nothing else was asked for; no test part: text is scarce
FEW = 8  # documents below which they are one text: no token is put between them
LONGEST_CHARACTERS = 1_500_000  # of a text that is read character by character unasked
MOST_LETTERS = 256  # different characters of such a text
SPECIAL = ("pad", "unk", "eos")
CONTEXT = 128  # tokens of a window that was not asked for
WINDOWS = 16  # windows of training that a short text is cut into, at least
SHORTEST = 8
NEAR = 400  # characters within which a cut moves to the end of a line
PIECE = 10_000  # characters of a long text that a tokenizer learns from, or not
FORMAT = 1


def open_running(
    source: Source,
    options: DataOptions,
    *,
    special: tuple[str, ...] = SPECIAL,
    usual: tuple[str, str] | None = None,
) -> Parts:
    """Choose a tokenizer for the training part and encode all parts.

    special  roles of the special tokens of a tokenizer that is trained
    usual    kind where none was asked for, and why; None: characters for a short text, else BPE

    Raises `DataError` for data without a column of text, for text that cannot be read, and for a
    part that is shorter than a window.
    """
    schema, given = running_schema(source, options), source
    if options.split_column is not None:
        source = replace(source, given_split=given_parts(source, options.split_column))
    texts, notes = _texts(schema, source, options)
    apart = _apart(source, texts, options)
    parts, reason, said = _divide(source, texts, apart, options)
    notes += said
    if "train" not in parts:
        raise DataError(
            f"{source.name} has {sum(map(len, texts)):,} characters, and all are held back",
            "text to learn from", "give more text",
        )  # fmt: skip
    training = parts["train"]
    characters = sum(map(len, training))
    kind, why = _kind(training, characters)
    chosen = choose_tokenizer(
        [_in_pieces(training, characters)], options, key=(source.fingerprint, hash_of(training)),
        usual=usual or (kind, why), special=special,
    )  # fmt: skip
    tokenizer = chosen.tokenizer
    end = tokenizer.eos is not None and apart
    tokens, spans = _encode(parts, tokenizer, end, source, options)
    length, why = _context(spans["train"], options.max_length, options.longest)
    _long_enough(spans, length, source, asked=options.max_length is not None)
    pad, vocab = pad_of(tokenizer)
    notes.append(chosen.reason)
    if options.carry:
        notes.append("each row goes on where that of the batch before ended, with the net's state")
    if end:
        notes.append(f"after each document stands {tokenizer.tokens([tokenizer.eos or 0])[0]}")
    notes.append(_said(parts, spans, length, why))
    strange = _strange(tokens, spans, tokenizer)
    notes += [strange] if strange else []
    stats = {
        "kind": tokenizer.kind, "vocab": vocab, "pad": pad, "length": length, "end": end,
        "roles": dict(tokenizer.roles), "tokenizer": tokenizer.to_json(), "carry": options.carry,
    }  # fmt: skip
    text = schema.of("input", "text")[0]
    schema = schema.with_field(replace(text, stats=stats))
    running = Running(tokens, spans, length, pad, vocab)
    return Parts(given, schema, Columns({}), running.splits, reason, (*given.notes, *notes),
                 running=running)  # fmt: skip


def read_running(schema: Schema, source: Source, options: DataOptions) -> Parts:
    """Encode other text as in training, as the part "all"; parts that it came with are kept.

    Raises `DataError` where there is no text, or not two tokens of it.
    """
    given, text = source, schema.of("input", "text")[0]
    name = text.name if text.name in source.columns else _column(source, options)
    source = replace(source, columns={text.name: source.columns[name]})
    texts, notes = _texts(schema, source, options)
    tokenizer, stats = tokenizer_of(schema), text.stats
    parts: dict[str, list[str]] = {}
    if source.given_split is not None:
        for part, code in PARTS.items():
            found = [t for t, c in zip(texts, source.given_split, strict=True) if c == code and t]
            parts |= {part: found} if found else {}
    if len(parts) < 2:
        parts = {"all": [t for t in texts if t]}
    tokens, spans = _encode(parts, tokenizer, bool(stats["end"]), source, options)
    length = int(stats["length"])
    if max(b - a for a, b in spans.values()) < 2:
        raise DataError(f"{source.name} has fewer than 2 tokens", "a token to predict from another",
                        "give more text")  # fmt: skip
    spans = {name: span for name, span in spans.items() if span[1] - span[0] > 1}
    spans.setdefault("all", (min(a for a, _ in spans.values()), max(b for _, b in spans.values())))
    running = Running(tokens, spans, length, int(stats["pad"]), int(stats["vocab"]))
    return Parts(given, schema, Columns({}), running.splits, "all text", (*given.notes, *notes),
                 running=running)  # fmt: skip


# ------------------------------------------------------------------------ which text


def running_schema(source: Source, options: DataOptions) -> Schema:
    """Return which column is read; raise `DataError` where none or several hold text.

    Raises `ConfigError` for settings that running text cannot have.
    """
    _check_options(source, options)
    name = _column(source, options)
    why = source.task_reason or "the known task of " + source.name
    fields = [
        Field(column, "text", "input", "running text")
        if column == name
        else Field(column, "category", "split", "named as the split column")
        if column == options.split_column
        else Field(column, "category", "ignored", "a language model reads one column of text")
        for column in source.columns
    ]
    return Schema(tuple(fields), options.task or TASK, "asked for" if options.task else why)


def _check_options(source: Source, options: DataOptions) -> None:
    """Raise for a column that is not there, and for a role that no column of it can have."""
    for what in ("group", "time_column", "weight"):
        name = getattr(options, what)
        if name is not None:
            raise ConfigError(
                f"{what}={name} with running text",
                "one column of text, and perhaps a split column: windows are no rows of the table",
                f"leave {what} out",
            )
    asked = {"split column": options.split_column, "target": options.target}
    for what, name in [*asked.items(), *((f"schema.{n}", n) for n in options.overrides)]:
        if name is not None and name not in source.columns:
            raise DataError(
                f"{what} '{name}' is no column of {source.name}", "the name of a column",
                did_you_mean(name, source.columns),
            )  # fmt: skip


def _column(source: Source, options: DataOptions) -> str:
    """Return the name of the column that holds the text."""
    if options.target is not None:
        return options.target
    if source.schema_hints.get("text") == "text":
        return "text"
    gone = {n for n, kind in options.overrides.items() if kind == "ignored"}
    found = [n for n, kind in options.overrides.items() if kind == "text"] or [
        name for name, column in source.columns.items()
        if _holds_text(column) and name not in {*gone, options.split_column}
    ]  # fmt: skip
    if len(found) == 1 or "text" in found:
        return "text" if "text" in found else found[0]
    raise DataError(
        f"{source.name} has {len(found) or 'no'} columns of text"
        + (f": {', '.join(found[:8])}" if found else ""),
        "one column of text to learn from",
        "name it with --target" if found else "give a text file, a folder of them, or a table",
    )


def _holds_text(column: Column) -> bool:
    if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype.kind not in "OU":
        return False
    return any(isinstance(v, str) and v.strip() for v in column[:1000].tolist())


def _texts(
    schema: Schema, source: Source, options: DataOptions
) -> tuple[list[str], list[str]]:  # fmt: skip
    """Return the text of each document, "" where there is none or it cannot be read, and notes."""
    texts = texts_of(source, schema.of("input", "text")[0])
    faults = text_faults(text_fields(schema), source, np.arange(len(texts)))
    notes = settle(faults, source, options)
    for row in faults:
        texts[row] = ""
    if not any(t.strip() for t in texts):
        raise DataError(f"{source.name} holds no text", "text to learn from", "check the file")
    return texts, notes


# ------------------------------------------------------------------------ which part


def _apart(source: Source, texts: list[str], options: DataOptions) -> bool:
    """Return whether documents are things of their own, not places where one text was cut.

    What blank lines part in one file is so where pairs of documents are asked for.
    """
    if sum(map(bool, texts)) < FEW:
        return False
    one_file = len(source.parts) == 1 and source.origin is not None and source.origin.is_file()
    asked = bool(options.pretext.get("next_sentence"))
    return not one_file or source.task != TASK or titled(texts) or asked


def _divide(
    source: Source, texts: list[str], apart: bool, options: DataOptions  # noqa: FBT001
) -> tuple[dict[str, list[str]], str, list[str]]:  # fmt: skip
    """Return the documents of each part, the rule in words, and notes."""
    val = VAL_SHARE if options.val is None else options.val
    test = options.test or 0.0
    if val + test >= 1:
        raise ConfigError(f"val={val} and test={test} leave nothing to train on", "a sum below 1",
                          "lower them")  # fmt: skip
    given, notes = source.given_split, []
    if given is not None:
        parts = {k: [t for t, c in zip(texts, given, strict=True) if c == code and t]
                 for k, code in PARTS.items()}  # fmt: skip
        parts = _wanted(parts, options)
        if "train" not in parts:
            raise DataError(
                f"{source.name} comes in parts, and none for training holds text",
                "text to learn from", "correct the split column, or give the training text",
            )  # fmt: skip
        held = {t for k, docs in parts.items() if k != "train" for t in docs}
        own = [t for t in parts["train"] if t not in held]
        if len(own) < len(parts["train"]):
            notes.append(f"{len(parts['train']) - len(own):,} training documents that are also "
                         "held back are left out")  # fmt: skip
        parts["train"] = own
        if "val" in parts or not val:
            return parts, "the parts that the data came with", notes
        rest, _, _ = _divide(replace(source, given_split=None), own, apart,
                             replace(options, test=0.0))  # fmt: skip
        parts |= rest
        return parts, "given test text; validation from the training text", notes
    shares = {"val": val, "test": test}
    if apart:
        return _by_document(texts, shares, options.seed), _rule(shares, "documents, drawn by chance"
                                                                ), notes  # fmt: skip
    return _by_place("".join(texts), shares), _rule(shares, "the text, from its end"), notes


def _wanted(parts: dict[str, list[str]], options: DataOptions) -> dict[str, list[str]]:
    """Return the parts that are there and were not declined by val=0 or test=0."""
    declined = {name for name in ("val", "test") if getattr(options, name) == 0}
    return {k: docs for k, docs in parts.items() if docs and k not in declined}


def _rule(shares: dict[str, float], of: str) -> str:
    held = [f"{name} {share:.0%}" for name, share in shares.items() if share]
    return f"{', '.join(held)} of {of}" if held else "nothing is held back"


def _by_document(texts: list[str], shares: dict[str, float], seed: int) -> dict[str, list[str]]:
    """Hold back documents drawn by chance; copies of one text stay together.

    One that alone is twice as long as what is to be held back stays with the training text.
    """
    same: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        if text:
            same.setdefault(text, []).append(row)
    groups = list(same.values())
    random = np.random.Generator(np.random.Philox(key=derive(seed, "split")))
    order = random.permutation(len(groups)).tolist()
    sizes = [sum(len(texts[row]) for row in rows) for rows in groups]
    total = sum(sizes)
    part = dict.fromkeys(range(len(texts)), "train")
    for name, share in shares.items():
        room = share * total
        while room > 0 and len(order) > 1:
            group = _taken(order, sizes, 2 * share * total)
            part |= dict.fromkeys(groups[group], name)
            room -= sizes[group]
    found = {k: [t for i, t in enumerate(texts) if t and part[i] == k] for k in PARTS}
    return {k: docs for k, docs in found.items() if docs}


def _taken(order: list[int], sizes: list[int], most: float) -> int:
    """Take the last of `order` that is no larger than `most` out of it, else the smallest."""
    at = next((k for k in reversed(range(len(order))) if sizes[order[k]] <= most), None)
    return order.pop(min(range(len(order)), key=lambda k: sizes[order[k]]) if at is None else at)


def _by_place(text: str, shares: dict[str, float]) -> dict[str, list[str]]:
    """Hold back the end of a text, first validation and then test; cut at ends of lines."""
    marks, at = {"train": 0}, 1.0 - sum(shares.values())
    for name, share in shares.items():
        if share:
            marks[name] = _line_end(text, int(at * len(text)), int(share * len(text)) // 2)
            at += share
    ends = [*list(marks.values())[1:], len(text)]
    return {k: [text[a:b]] for (k, a), b in zip(marks.items(), ends, strict=True) if a < b}


def _line_end(text: str, at: int, part: int) -> int:
    """Return the end of the line near `at`, within less than a `part` that begins there."""
    found = text.find("\n", at, at + min(NEAR, part))
    return found + 1 if 0 <= found < len(text) - 1 else at


# ------------------------------------------------------------------------ which tokens


def _kind(texts: list[str], characters: int) -> tuple[str, str]:
    """Return the kind of tokens for these training texts, and why."""
    if characters <= LONGEST_CHARACTERS:
        letters = len(set().union(*texts))
        if letters <= MOST_LETTERS:
            return "char", f"so short a text shows each of its {letters} characters often enough"
    return "bpe", "whole words and pieces of words: a window of them spans more text"


def _in_pieces(texts: list[str], characters: int) -> list[str]:
    """Return texts of which some can be left out: what is long is cut."""
    if characters <= MOST_CHARACTERS:
        return texts
    return [text[at : at + PIECE] for text in texts for at in range(0, len(text), PIECE)]


def _encode(
    parts: dict[str, list[str]], tokenizer: Tokenizer, end: bool, source: Source,  # noqa: FBT001
    options: DataOptions,
) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:  # fmt: skip
    """Return the tokens of all parts end to end, and where each part lies."""

    def make() -> dict[str, np.ndarray]:
        found, sizes = [], []
        for docs in parts.values():
            pieces = [v for v, _ in encode_documents(docs, tokenizer, end=_end(tokenizer, end))]
            found += pieces
            sizes.append(sum(map(len, pieces)))
        dtype = dtype_for(pad_of(tokenizer)[1])
        joined = np.concatenate(found).astype(dtype) if found else np.zeros(0, dtype)
        return {"tokens": joined, "sizes": np.array(sizes, np.int64)}

    if sum(len(t) for docs in parts.values() for t in docs) < WORTH_KEEPING:
        made = make()
    else:
        names = [[k, hash_of(docs)] for k, docs in parts.items()]
        key = key_of("running", FORMAT, tokenizer.fingerprint, end, names)
        made = keep(key, make, name=f"tokens of {source.name}", folder=options.cache)
    bounds = [0, *np.cumsum(made["sizes"]).tolist()]
    spans = {k: (bounds[i], bounds[i + 1]) for i, k in enumerate(parts)}
    return made["tokens"], spans


def _end(tokenizer: Tokenizer, end: bool) -> int | None:  # noqa: FBT001
    return tokenizer.eos if end else None


def _context(span: tuple[int, int], asked: int | None, most: int | None) -> tuple[int, str]:
    """Return the tokens of a window, and why; `most` that the model reads."""
    if asked is not None:
        return asked, f"max_length={asked}"
    total = span[1] - span[0] - 1
    length = usual = min(CONTEXT, most or CONTEXT)
    while length > SHORTEST and total < WINDOWS * length:
        length //= 2
    why = "for so short a text" if length < usual else "the model reads no more"
    return length, f"max_length={length}" + (f", {why}" if length < CONTEXT else "")


def _long_enough(
    spans: dict[str, tuple[int, int]], length: int, source: Source, *, asked: bool
) -> None:
    """Raise where a part has no window of training, or nothing to judge by."""
    for part, (a, b) in spans.items():
        least = length + 1 if part == "train" else 2
        if b - a < least:
            raise DataError(
                f"the {part} text of {source.name} has {b - a:,} tokens",
                f"at least {least:,}" + (f": windows of {length} and the token that follows"
                                         if part == "train" else ""),
                f"give more text, or a max_length below {max(b - a, 5) - 1}" if asked
                else "give more text, or hold less of it back with --val",
            )  # fmt: skip


def _said(
    parts: dict[str, list[str]], spans: dict[str, tuple[int, int]], length: int, why: str
) -> str:
    sizes = [f"{b - a:,} {part}" for part, (a, b) in spans.items()]
    read = sum(len(t.encode()) for docs in parts.values() for t in docs)
    per = read / max(sum(b - a for a, b in spans.values()), 1)
    return (f"text: {', '.join(sizes)} tokens of {per:.2f} bytes, read in windows of {length} "
            f"({why})")  # fmt: skip


def _strange(
    tokens: np.ndarray, spans: dict[str, tuple[int, int]], tokenizer: Tokenizer
) -> str:  # fmt: skip
    """Return a sentence where held-back text has characters that the training text lacks."""
    if tokenizer.unk is None:
        return ""
    held: Sequence[np.ndarray] = [tokens[a:b] for k, (a, b) in spans.items() if k != "train"]
    count = sum(int((part == tokenizer.unk).sum()) for part in held)
    return f"{count:,} held-back tokens are unknown to the tokenizer" if count else ""


# ------------------------------------------------------------------------ the form


def _open(source: Source, options: DataOptions, _progress: Progress) -> Parts:
    return open_running(source, for_rows(source, options))


def _read(schema: Schema, source: Source, options: DataOptions, *, target: bool) -> Parts:  # noqa: ARG001
    return read_running(schema, source, options)


def _stream(
    schema: Schema, running: Running, part: str, *, batch_size: int | str, seed: int,
    shuffle: bool, augment: Sequence[str | dict[str, Any]], device: torch.device | str, rank: int,
    world: int,
) -> WindowStream:  # fmt: skip
    if augment:
        raise DataError("augment for running text", "pictures to augment", "leave augment out")
    carry = bool(schema.of("input", "text")[0].stats.get("carry"))  # older folders do not say
    return WindowStream(
        running, part, batch_size=batch_size, seed=seed, shuffle=shuffle, device=device, rank=rank,
        world=world, carry=carry,
    )  # fmt: skip


FORM = Form("running text", (TASK,), running_schema, _open, _read, _stream)
