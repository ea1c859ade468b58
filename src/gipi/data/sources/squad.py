"""Questions about texts in the JSON of SQuAD (1.1 and 2.0; also KorQuAD 1.0 and XQuAD).

A row is a question. Every answer is looked up in its context: a span that does not hold the answer
is an error with its question, not a row that teaches something wrong.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import Source
from gipi.data.sources.compressed import fingerprint_files, read_head, stem_of
from gipi.data.sources.plain import objects, read_text, split_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COLUMNS = ("id", "title", "context", "question", "answers", "starts")


def read_squad(paths: Sequence[Path], *, root: Path | None = None) -> Source:
    """Return the questions of one or several files: id, title, context, question, answers, starts.

    `answers` are tuples of the texts that are right, () where the question has none (2.0), None
    where the file does not say (a test file); `starts` their first characters in the context,
    counted from 0. Questions about one article stay together.

    Rajpurkar et al. 2016, "SQuAD", arXiv:1606.05250; Rajpurkar, Jia and Liang 2018,
    arXiv:1806.03822. Raises `DataError` for other JSON, an answer that is not where its start says,
    and an id that comes twice.
    """
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    counts: list[int] = []
    bound: list[int] = []
    article = 0
    for path in paths:
        before = len(bound)
        for at, entry in enumerate(_list(_load(path), "data", f"{path.name}: ")):
            _questions(entry, f"{path.name}: data[{at}]", rows)
            bound += [article] * (len(rows["id"]) - len(bound))
            article += 1
        counts.append(len(bound) - before)
        _unique(rows["id"][before:], path)
    if not bound:
        raise DataError(f"{paths[0]} has no questions", "at least one", "check the file")
    none = sum(a == () for a in rows["answers"])
    unknown = sum(a is None for a in rows["answers"])
    found, of = fingerprint_files(list(paths), root or paths[0].parent)
    return Source(
        name=stem_of(paths[0]) if len(paths) == 1 else paths[0].absolute().parent.name,
        columns={name: objects(values) for name, values in rows.items()},
        rows=len(bound),
        row_names=tuple(f"question {i}" for i in rows["id"]),
        parts=tuple((p.name, n) for p, n in zip(paths, counts, strict=True)),
        bound=np.array(bound),
        bound_by="the same article",
        given_split=split_of(paths, counts),
        target="answers",
        task="answer",
        task_reason="questions with answers that stand in their contexts",
        schema_hints={"context": "text", "question": "text", "answers": "answers",
                      "starts": "starts"},
        fingerprint=found,
        fingerprint_of=of,
        origin=root or paths[0],
        notes=tuple(
            [f"{none:,} of {len(bound):,} questions have no answer"] * bool(none)
            + [f"{unknown:,} questions come without answers: nothing can be learned from them"]
            * bool(unknown)
        ),
    )  # fmt: skip


def is_squad(path: Path) -> bool:
    """Return whether a JSON file begins as SQuAD's: an object with paragraphs of questions."""
    head = read_head(path, 1 << 16).removeprefix(b"\xef\xbb\xbf")
    return (
        head.lstrip()[:1] == b"{"
        and b'"paragraphs"' in head
        and (b'"qas"' in head or b'"context"' in head)
    )


# ---------------------------------------------------------------------------- the JSON


def _load(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON: {error}", "SQuAD's JSON", "correct the file"
        ) from error


def _get(entry: Any, key: str, where: str, kind: type) -> Any:
    """Return a value of the JSON; `DataError` with its place where it is not of this type."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        raise DataError(
            f"{where} has no {key!r}" if value is None else f"{where}: {key!r} is {value!r:.40}",
            "SQuAD's JSON: data, paragraphs, context, qas, question, id, answers, answer_start",
            "correct the file",
        )
    return value


def _list(entry: Any, key: str, where: str) -> list[Any]:
    found: list[Any] = _get(entry, key, where.rstrip(": "), list)
    return found


def _questions(entry: Any, where: str, rows: dict[str, list[Any]]) -> None:
    title = entry.get("title") if isinstance(entry, dict) else None
    for p, paragraph in enumerate(_list(entry, "paragraphs", where)):
        place = f"{where}.paragraphs[{p}]"
        context = _get(paragraph, "context", place, str)
        for q, question in enumerate(_list(paragraph, "qas", place)):
            spot = f"{place}.qas[{q}]"
            text = _get(question, "question", spot, str)
            ident = str(question.get("id", spot))
            rows["id"].append(ident)
            rows["title"].append(title)
            rows["context"].append(context)
            rows["question"].append(text.strip())
            answers, starts = _answers(
                question, context, f"{where.split(':', maxsplit=1)[0]}: question {ident}"
            )
            rows["answers"].append(answers)
            rows["starts"].append(starts)


def _answers(
    question: dict[str, Any], context: str, where: str
) -> tuple[tuple[str, ...] | None, tuple[int, ...] | None]:
    if question.get("is_impossible"):
        return (), ()
    if "answers" not in question:
        return None, None
    texts, starts = [], []
    for answer in _list(question, "answers", where):
        text, start = _get(answer, "text", where, str), _get(answer, "answer_start", where, int)
        if not text:
            raise DataError(
                f"{where}: an empty answer", "the words of the answer",
                'leave it out; a question without an answer has "is_impossible": true',
            )  # fmt: skip
        if start < 0 or context[start : start + len(text)] != text:
            raise _elsewhere(context, text, start, where)
        texts.append(text)
        starts.append(start)
    return tuple(texts), tuple(starts)


def _elsewhere(context: str, text: str, start: int, where: str) -> DataError:
    """Return the error of an answer that is not where its start says."""
    there = context[max(start, 0) : max(start, 0) + len(text)]
    at = context.find(text)
    if at < 0:
        do = "correct the answer: its context does not hold it"
    elif context.encode()[start : start + len(text.encode())] == text.encode():
        do = f"count characters, not bytes: the answer stands at {at}"
    else:
        do = f"correct answer_start: the answer stands at {at}"
    return DataError(
        f"{where}: the answer {text[:60]!r} is not at character {start} of its context, where "
        f"{there[:60]!r} stands",
        "answers as they stand in their context, and where they start, counted from 0",
        do,
    )


def _unique(ids: list[str], path: Path) -> None:
    seen: set[str] = set()
    for ident in ids:
        if ident in seen:
            raise DataError(
                f"{path.name}: two questions have the id {ident!r}",
                "one id a question",
                "number the questions anew",
            )
        seen.add(ident)
