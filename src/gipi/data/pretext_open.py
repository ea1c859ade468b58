"""Running text opened for a task that is made of it: tokenizer, special ids, rows of each part."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import PRETEXT
from gipi.data.form import Form, Parts
from gipi.data.objectives import SpanRule
from gipi.data.objectives.spans import noise_counts
from gipi.data.options import for_rows
from gipi.data.pretext import (
    Made,
    Marks,
    PretextStream,
    marks_of,
    masked_rows,
    paired_rows,
    span_rows,
)
from gipi.data.running import open_running, read_running, running_schema
from gipi.data.texts import tokenizer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor

    from gipi.core.schema import Schema
    from gipi.data.form import Progress
    from gipi.data.options import DataOptions
    from gipi.data.source import Source
    from gipi.data.text_windows import Running
    from gipi.text import Tokenizer

SPECIAL = ("pad", "unk", "cls", "sep", "mask", "eos")
USUAL = ("wordpiece", "as BERT reads: whole words, and pieces of rare ones")
USUAL_SPANS = ("bpe", "it spells every text in every script")
OPTIONS = {"share": 0.15, "whole_words": False, "next_sentence": False,
           "density": 0.15, "mean_span": 3.0}  # fmt: skip


def open_pretext(source: Source, options: DataOptions) -> Parts:
    """Choose a tokenizer for the training part, encode all parts, and settle how rows are made.

    Raises what `open_running` raises; `DataError` for a tokenizer without the tokens it takes, and
    for text without documents where pairs of them are asked for.
    """
    if options.max_length is not None and options.longest and options.max_length > options.longest:
        raise ConfigError(
            f"max_length={options.max_length}", f"at most {options.longest} tokens",
            f"set max_length={options.longest}",
        )  # fmt: skip
    usual = USUAL if options.task == "masked" else USUAL_SPANS
    found = open_running(source, options, special=SPECIAL, usual=usual)
    schema, running = found.schema, found.running
    assert running is not None
    text = schema.of("input", "text")[0]
    pretext = {key: options.pretext.get(key, usual) for key, usual in OPTIONS.items()}
    stats = {**text.stats, "pretext": pretext}
    if schema.task == "spans":
        rule = _rule(running.vocab, running.length, pretext, tokenizer_of(schema))
        stats["vocab"] = running.vocab + len(rule.sentinels)
    else:
        marks_of(tokenizer_of(schema))
    return _in_rows(replace(found, schema=schema.with_field(replace(text, stats=stats))))


def _in_rows(found: Parts) -> Parts:
    """Return the text with the numbers of the rows that are made of each part."""
    running = found.running
    assert running is not None
    numbers: dict[str, int] = {}
    for part in running.spans:
        try:
            numbers[part] = _rows(found.schema, running, part, seed=0)[0]
        except DataError as error:  # of a small part that was held back, say
            more = "" if part in ("train", "all") else "; or hold more of the text back with --val"
            raise DataError(
                f"the {part} text: {error.found}", error.needed, error.do + more
            ) from error
    return replace(found, splits={k: np.arange(n, dtype=np.int64) for k, n in numbers.items()})


def _rows(
    schema: Schema, running: Running, part: str, *, seed: int
) -> tuple[int, Callable[[Tensor, int], Made]]:  # fmt: skip
    """Return the number of rows of a part, and what makes them."""
    begin, end = running.spans[part]
    tokens, tokenizer = running.tokens[begin:end], tokenizer_of(schema)
    how: dict[str, Any] = schema.of("input", "text")[0].stats["pretext"]
    if schema.task == "spans":
        rule = _rule(running.vocab, running.length, how, tokenizer)
        return span_rows(tokens, rule, length=running.length, seed=seed)
    marks: Marks = marks_of(tokenizer)
    share = float(how["share"])
    if how["next_sentence"]:
        return paired_rows(tokens, marks, length=running.length, seed=seed, share=share)
    words = _words(tokens, tokenizer) if how["whole_words"] else None
    return masked_rows(tokens, marks, length=running.length, seed=seed, share=share, words=words)


def _rule(vocab: int, length: int, how: dict[str, Any], tokenizer: Tokenizer) -> SpanRule:
    """Return how spans are cut out: sentinels are the last ids, behind those of the tokenizer."""
    plain = SpanRule((vocab,), density=float(how["density"]), mean_span=float(how["mean_span"]))
    most = max(noise_counts(n, plain)[1] for n in range(1, length + 1))
    sentinels = tuple(range(vocab + most - 1, vocab - 1, -1))
    end = tokenizer.eos if tokenizer.eos is not None else tokenizer.sep
    return replace(plain, sentinels=sentinels, end=end, pad=tokenizer.pad or 0)


def _words(tokens: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Return (N,) int32 or int64: the number of the word that each token is a piece of."""
    names = tokenizer.tokens(range(tokenizer.vocab_size))
    special = set(tokenizer.special_tokens)
    begins = np.array([name in special or _begins(name, tokenizer.kind) for name in names])
    return np.cumsum(begins[tokens], dtype=np.int32 if len(tokens) < 1 << 31 else np.int64)


def _begins(name: str, kind: str) -> bool:
    """Return whether a token of this name begins a word."""
    if kind == "wordpiece":
        return not name.startswith("##")
    if kind == "bpe":  # as bytes are written there: a blank, the end of a line, a tabulator
        return name.startswith(("Ġ", "Ċ", "ĉ")) or not name[:1].isalnum()
    if kind == "unigram":
        return name.startswith("▁") or not name[:1].isalnum()
    return True


def _open(source: Source, options: DataOptions, _progress: Progress) -> Parts:
    return open_pretext(source, for_rows(source, options))


def _read(schema: Schema, source: Source, options: DataOptions, *, target: bool) -> Parts:  # noqa: ARG001
    return _in_rows(read_running(schema, source, options))


def _stream(
    schema: Schema, running: Running, part: str, *, batch_size: int | str, seed: int,
    shuffle: bool, augment: Sequence[str | dict[str, Any]], device: torch.device | str, rank: int,
    world: int,
) -> PretextStream:  # fmt: skip
    if augment:
        raise DataError("augment for running text", "pictures to augment", "leave augment out")
    rows, make = _rows(schema, running, part, seed=seed)
    return PretextStream(rows, make, batch_size=batch_size, seed=seed, shuffle=shuffle,
                         device=device, rank=rank, world=world)  # fmt: skip


FORM = Form("a task made of running text", PRETEXT, running_schema, _open, _read, _stream)
