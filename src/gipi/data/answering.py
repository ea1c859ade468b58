"""Questions with contexts as a model sees them: windows of tokens, and where the answer lies.

    [before] question [between] part of the context [after]

A context that is longer than a row becomes several rows, its windows, that overlap by `STRIDE`
tokens, so that an answer which one window cuts stands whole in the next. All windows of a question
stay on one side of the split. The target are the first and the last token of the answer in its row,
or 0 and 0 where the window does not hold all of it. Nothing of a context is lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import Field, Schema
from gipi.data.compose import Frame, frame_of, pad_of
from gipi.data.divide import look_at_rows
from gipi.data.faults import settle
from gipi.data.form import Opened, RowForm
from gipi.data.infer_column import special_roles, with_roles
from gipi.data.texts import text_faults, text_fields, texts_of, tokenizer_of
from gipi.data.tokenizing import choose_tokenizer
from gipi.data.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.data.form import Divided
    from gipi.data.options import DataOptions
    from gipi.data.source import Source
    from gipi.text import Tokenizer

LONGEST = 384  # tokens of a row, where nothing else was asked for
STRIDE = 128  # tokens that two windows share, at most half of a window
LEAST = 16  # tokens of a longer context that a row must have room for beside its question
SPANS, AT, QUESTION = "window spans", "window at", "window of"
"""Columns of windows: characters of each token of the context, its first place, its question."""
_KOREAN = re.compile("[\uac00-\ud7a3]")


def infer_answered(source: Source, options: DataOptions) -> Schema | None:
    """Return the schema of questions with contexts, None for other data.

    Raises `DataError` where there is nothing to learn from.
    """
    if "answers" not in source.schema_hints.values():
        return None
    roles = special_roles(options)
    if options.target not in (None, "answers"):
        raise DataError(
            f"target '{options.target}' of questions", "the target 'answers'", "leave --target out"
        )
    if options.task not in (None, "answer"):
        raise ConfigError(
            f"task={options.task} for {source.task_reason}", "task=answer", "leave --task out"
        )
    answers = source.columns["answers"]
    known = [a for a in answers if a is not None]  # type: ignore[union-attr]
    if not any(known):
        raise DataError(
            f"no question of {source.name} has an answer", "answers to learn from",
            "check the file: the test files of competitions come without",
        )  # fmt: skip
    none = any(a == () for a in known)
    some = [text for a in known[:1000] for text in a]
    korean = sum(bool(_KOREAN.search(t)) for t in some) > len(some) / 2
    kind = "squad2" if none else "korquad" if korean else "squad"
    fields = [
        Field("question", "text", "input", "questions"),
        Field("context", "text", "input", "the texts that answer them"),
        Field("answers", "answers", "target", f"spans of the context, scored as {kind}",
              stats={"kind": kind, "none": none}),
        *(Field(n, "category", "ignored", "not read") for n in source.columns
          if n not in ("question", "context", "answers")),
    ]  # fmt: skip
    return with_roles(Schema(tuple(fields), "answer", source.task_reason), roles, options)


def open_answered(divided: Divided) -> Opened:
    """Choose the tokenizer on training rows and cut all contexts into windows.

    Raises `DataError` for questions and contexts that are empty or cannot be read, questions that
    leave no room, and answers that no tokens cover (or leaves them out, with bad_rows=skip).
    """
    schema, source = divided.schema, divided.source
    splits, options = divided.splits, divided.options
    used = np.sort(np.concatenate(list(splits.values())))
    faults = _faults(schema, source, used)
    good = {name: np.setdiff1d(ids, list(faults)) for name, ids in splits.items()}
    if not len(good["train"]):
        settle(faults, source, options)
    columns = [texts_of(source, f) for f in text_fields(schema)]
    chosen = choose_tokenizer(
        [[column[i] for i in good["train"].tolist()] for column in columns], options,
        key=("answer", source.fingerprint, splits["train"].tobytes()),
    )  # fmt: skip
    tokenizer = chosen.tokenizer
    parts = [_encoded(tokenizer, column, used, faults) for column in columns]
    frame = frame_with_none(tokenizer)
    longest = max(frame.size(2) + sum(len(part[i][0]) for part in parts) for i in used.tolist())
    length = options.max_length or min(longest, LONGEST, options.longest or LONGEST)
    why = "the model reads no more" if length == options.longest else "max_length raises it"
    for i in used.tolist():
        if not _has_room(parts, i, frame, length):
            faults.setdefault(i, f"its question has {len(parts[0][i][0])} tokens, and a row has "
                              f"{length} ({why})")  # fmt: skip
    _answer_faults(source, parts[1], used, faults)
    notes = settle(faults, source, options)
    splits = {name: np.setdiff1d(ids, list(faults)) for name, ids in splits.items()}
    splits = {name: ids for name, ids in splits.items() if len(ids)}
    if "train" not in splits:
        raise DataError("no training question can be read", "questions", "correct the file")
    used = np.sort(np.concatenate(list(splits.values())))
    pad, vocab = pad_of(tokenizer)
    stats = {"kind": tokenizer.kind, "vocab": vocab, "pad": pad, "length": length,
             "roles": dict(tokenizer.roles), "tokenizer": tokenizer.to_json()}  # fmt: skip
    schema = schema.with_field(replace(schema.field("question"), stats=stats))
    schema = schema.with_field(replace(schema.field("context"), stats={"with": "question"}))
    made = _windows(parts, used, frame, length, pad=pad, vocab=vocab)
    cut = int((np.bincount(made.question, minlength=source.rows)[used] > 1).sum())
    target = _target(source, made)
    said = (
        f"windows: {len(made.question):,} rows of up to {length} tokens for {len(used):,} "
        f"questions; {cut:,} contexts are longer and become several that overlap; "
        f"{int((target[:, 0] == 0).sum()):,} rows do not hold an answer"
    )
    notes += [chosen.reason, said, *_within_tokens(source, parts[1], used)]
    windows = {
        name: np.flatnonzero(np.isin(made.question, ids)) for name, ids in splits.items()
    }  # fmt: skip
    return Opened(schema, made.inputs, windows, notes, torch.from_numpy(target),
                  source=_source(source, made))  # fmt: skip


def read_answered(
    schema: Schema, source: Source, options: DataOptions, *, target: bool = True
) -> Opened:
    """Cut questions and contexts into windows exactly as in training."""
    every = np.arange(source.rows, dtype=np.int64)
    faults = _faults(schema, source, every)
    tokenizer = tokenizer_of(schema)
    stats = schema.field("question").stats
    parts = [_encoded(tokenizer, texts_of(source, f), every, faults) for f in text_fields(schema)]
    frame, length = frame_with_none(tokenizer), int(stats["length"])
    for i in every.tolist():
        if not _has_room(parts, i, frame, length):
            faults.setdefault(i, f"its question has {len(parts[0][i][0])} tokens, and a row of the "
                              f"model {length}: ask a shorter one")  # fmt: skip
    column = source.columns.get("answers")
    known = target and column is not None and all(a is not None for a in column)  # type: ignore[union-attr]
    if known:
        _answer_faults(source, parts[1], every, faults)
    notes = settle(faults, source, options)
    used = np.setdiff1d(every, list(faults))
    made = _windows(parts, used, frame, length, pad=stats["pad"], vocab=stats["vocab"])
    spans = torch.from_numpy(_target(source, made)) if known else None
    ids = np.arange(len(made.question), dtype=np.int64)
    return Opened(schema, made.inputs, {"all": ids}, notes, spans, source=_source(source, made))


def frame_with_none(tokenizer: Tokenizer) -> Frame:
    """Return what stands around a question and a context; place 0 is never one of theirs."""
    frame = frame_of(tokenizer, texts=2)
    if frame.before:
        return frame
    roles = (tokenizer.cls, tokenizer.bos, tokenizer.eos, tokenizer.unk)
    return replace(frame, before=(next((i for i in roles if i is not None), 0),))


# ---------------------------------------------------------------------------- windows


@dataclass(frozen=True)
class Windows:
    """Rows made of questions: which question, where its context begins, which tokens it holds.

    spans  of each window (n, 2) characters of the tokens of its part of the context
    """

    inputs: dict[str, Tokens]
    question: np.ndarray
    at: np.ndarray
    spans: list[np.ndarray]


Part = dict[int, tuple[np.ndarray, np.ndarray]]
"""Question -> ids and characters of its tokens."""


def _encoded(
    tokenizer: Tokenizer, column: list[str], used: np.ndarray, faults: Mapping[int, str]
) -> Part:
    """Return ids and spans of the used texts; the same text is encoded once, a faulty one is ""."""
    texts = {i: "" if i in faults else column[i] for i in used.tolist()}
    seen: dict[str, int] = {}
    for text in texts.values():
        seen.setdefault(text, len(seen))
    found = tokenizer.encode_batch(list(seen), special=False, spans=True)
    assert found.spans is not None
    rows = [slice(a, b) for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]
    return {i: (found.values[rows[seen[texts[i]]]], found.spans[rows[seen[texts[i]]]])
            for i in used.tolist()}  # fmt: skip


def _has_room(parts: list[Part], i: int, frame: Frame, length: int) -> bool:
    """Return whether a row holds the question and enough of its context, or all of it."""
    asked, context = (len(part[i][0]) for part in parts)
    return length - frame.size(2) - asked >= min(LEAST, max(context, 1))


def _windows(
    parts: list[Part], used: np.ndarray, frame: Frame, length: int, *, pad: int, vocab: int
) -> Windows:
    rows: dict[str, list[np.ndarray]] = {"tokens": [], "segments": [], "context": []}
    question: list[int] = []
    at: list[int] = []
    spans: list[np.ndarray] = []
    for i in used.tolist():
        asked, (ids, places) = parts[0][i][0], parts[1][i]
        head = np.concatenate([frame.before, asked, frame.between]).astype(np.int32)
        room = length - frame.size(2) - len(asked)
        for start in _starts(len(ids), room):
            part = ids[start : start + room]
            second = len(part) + len(frame.after)
            rows["tokens"].append(np.concatenate([head, part, frame.after]).astype(np.int32))
            rows["segments"].append(np.repeat([0, 1], [len(head), second]).astype(np.int32))
            rows["context"].append(
                np.repeat([0, 1, 0], [len(head), len(part), len(frame.after)]).astype(np.int32)
            )
            question.append(i)
            at.append(len(head))
            spans.append(places[start : start + room])
    offsets = np.zeros(len(question) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows["tokens"]], out=offsets[1:])
    flat = {k: np.concatenate(v) if v else np.zeros(0, np.int32) for k, v in rows.items()}
    inputs = {
        "tokens": Tokens(flat["tokens"], offsets, pad, vocab),
        "segments": Tokens(flat["segments"], offsets),
        "context": Tokens(flat["context"], offsets),
    }
    return Windows(inputs, np.array(question, np.int64), np.array(at, np.int64), spans)


def _starts(tokens: int, room: int) -> list[int]:
    """Return where the windows of a context begin: the last one ends with it.

    >>> _starts(10, 10), _starts(20, 10), _starts(21, 10)
    ([0], [0, 5, 10], [0, 5, 10, 11])
    """
    step = room - min(STRIDE, room // 2)
    starts = [0]
    while starts[-1] + room < tokens:
        starts.append(min(starts[-1] + step, tokens - room))
    return starts


def _target(source: Source, made: Windows) -> np.ndarray:
    """Return (N, 2) int64 places of the first right answer in each window; 0 and 0 without it."""
    out = np.zeros((len(made.question), 2), dtype=np.int64)
    answers, starts = source.columns["answers"], source.columns["starts"]
    for row, i in enumerate(made.question.tolist()):
        texts, begins = answers[i], starts[i]  # type: ignore[index]
        if texts:
            found = covering(made.spans[row], begins[0], begins[0] + len(texts[0]))
            if found is not None and _whole(made.spans[row], found, begins[0], len(texts[0])):
                out[row] = made.at[row] + found[0], made.at[row] + found[1]
    return out


def covering(spans: np.ndarray, start: int, end: int) -> tuple[int, int] | None:
    """Return the first and last token with a character of [start, end), None without any."""
    there = np.flatnonzero((spans[:, 1] > start) & (spans[:, 0] < end))
    return (int(there[0]), int(there[-1])) if len(there) else None


def _within_tokens(source: Source, contexts: Part, used: np.ndarray) -> list[str]:
    """Return a note on answers that no span of whole tokens is: the score cannot reach 1."""
    answers, starts = source.columns["answers"], source.columns["starts"]
    texts: Any = source.columns["context"]
    wider = asked = 0
    for i in used.tolist():
        if not answers[i]:  # type: ignore[index]
            continue
        asked += 1
        begin, spans = starts[i][0], contexts[i][1]  # type: ignore[index]
        found = covering(spans, begin, begin + len(answers[i][0]))  # type: ignore[index]
        if found is not None:
            there = texts[i][spans[found[0], 0] : spans[found[1], 1]].strip()
            wider += there != answers[i][0].strip()  # type: ignore[index]
    if not wider:
        return []
    said = f"{wider:,} of {asked:,} answers begin or end within a token, and can only be given "
    return [said + "with what stands around them: a tokenizer with smaller pieces reaches more"]


def _whole(spans: np.ndarray, found: tuple[int, int], start: int, size: int) -> bool:
    """Return whether a window neither begins nor ends within the answer.

    The tokens of an answer leave out spaces, and perhaps signs; what matters is the neighbours.
    """
    first, last = found
    begins = first > 0 or spans[first, 0] <= start or spans[first, 0] == 0
    return bool(begins and (last + 1 < len(spans) or spans[last, 1] >= start + size))


def _source(source: Source, made: Windows) -> Source:
    """Return the windows as rows, with what turns tokens into characters again."""
    rows = source.take(made.question)
    spans = np.empty(len(made.spans), dtype=object)
    for i, one in enumerate(made.spans):
        spans[i] = one
    counts = np.bincount(made.question, minlength=source.rows)
    seen: dict[int, int] = {}
    names = []
    for i in made.question.tolist():
        seen[i] = seen.get(i, 0) + 1
        name = source.row_name(i)
        names.append(f"{name} window {seen[i]}" if counts[i] > 1 else name)
    columns = {**rows.columns, SPANS: spans, AT: made.at, QUESTION: made.question}
    return replace(rows, columns=columns, row_names=tuple(names))


# ---------------------------------------------------------------------------- faults


def _faults(schema: Schema, source: Source, used: np.ndarray) -> dict[int, str]:
    faults = text_faults(text_fields(schema), source, used)
    for f in text_fields(schema):
        texts = texts_of(source, f)
        for i in used.tolist():
            if not texts[i].strip():
                faults.setdefault(i, f"its {f.name} is empty")
    return faults


def _answer_faults(
    source: Source, contexts: Part, used: np.ndarray, faults: dict[int, str]
) -> None:  # fmt: skip
    """Add the questions whose answer is not where it should be, or lost to the tokenizer."""
    answers, starts = source.columns["answers"], source.columns["starts"]
    texts: Any = source.columns["context"]
    for i in used.tolist():
        if i in faults or not answers[i]:  # type: ignore[index]
            continue
        for answer, begin in zip(answers[i], starts[i], strict=True):  # type: ignore[index]
            if texts[i][begin : begin + len(answer)] != answer:
                faults[i] = f"its answer {answer[:40]!r} is not at character {begin} of its context"
            elif covering(contexts[i][1], begin, begin + len(answer)) is None:
                faults[i] = f"no token covers its answer {answer[:40]!r}"


FORM = RowForm(
    "questions with the texts that answer them",
    ("answer",), look_at_rows, open_answered, read_answered, infer_answered,
)  # fmt: skip
