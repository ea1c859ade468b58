"""Answers of windows as answers to questions: which window speaks, its text, and the scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.data.answering import AT, QUESTION, SPANS
from gipi.deploy.known import Case, Evidence, Known
from gipi.metrics import build_text

if TYPE_CHECKING:
    from gipi.core.schema import Schema
    from gipi.data import Source
    from gipi.train.evaluate import Evaluation

LINES = 12  # questions that a report shows
RESAMPLES = 400
AROUND = 120  # characters of the context beside an answer that a report shows


def by_question(
    said: dict[str, np.ndarray], source: Source, ids: np.ndarray, schema: Schema
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return names and answers of questions from those of their windows.

    said    first, last and margin of each window, in the order of `ids`
    Returns "answer" (the text, "" for none), "start" and "end" (characters of the context, -1 for
    none) and "margin" (over "no answer") of each question, in their order.
    """
    question = np.asarray(source.columns[QUESTION])[ids]
    order = np.lexsort((-np.nan_to_num(said["margin"], neginf=-1e30), question))
    _, first = np.unique(question[order], return_index=True)
    may_be_none = bool(schema.field("answers").stats.get("none"))
    names, rows = [], []
    for k in order[first].tolist():
        row = int(ids[k])
        names.append(source.row_name(row).partition(" window ")[0])
        margin = float(said["margin"][k])
        start, end = _characters(source, row, int(said["first"][k]), int(said["last"][k]))
        if may_be_none and margin <= 0:
            start, end = -1, -1
        text = str(source.columns["context"][row])[start:end] if start >= 0 else ""  # type: ignore[index]
        rows.append((text, start, end, margin))
    out: dict[str, np.ndarray] = {"answer": np.empty(len(rows), dtype=object)}
    out["answer"][:] = [r[0] for r in rows]
    for place, name in ((1, "start"), (2, "end")):
        out[name] = np.array([r[place] for r in rows], dtype=np.int64)
    out["margin"] = np.array([r[3] for r in rows], dtype=np.float64)
    return names, out


def _characters(source: Source, row: int, first: int, last: int) -> tuple[int, int]:
    spans, at = source.columns[SPANS][row], int(source.columns[AT][row])  # type: ignore[index]
    a, b = first - at, last - at
    if not 0 <= a <= b < len(spans):
        return -1, -1
    text, start, end = str(source.columns["context"][row]), int(spans[a, 0]), int(spans[b, 1])  # type: ignore[index]
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


# ---------------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Questions:
    """Answers beside the right ones.

    rows       of each question its first window's row in the source
    exact, f1  (Q,) scores of each question, as the official scorer of its data gives them
    """

    names: list[str]
    found: dict[str, np.ndarray]
    rows: list[int]
    right: list[list[str]]
    exact: np.ndarray
    f1: np.ndarray

    @property
    def metrics(self) -> dict[str, float]:
        """The official scores, means over the questions."""
        return {"exact_match_text": float(self.exact.mean()), "answer_f1": float(self.f1.mean())}

    def primary(self) -> dict[str, Any]:
        """Return the F1 with its 95 % interval over resampled questions."""
        draw, n = np.random.default_rng(0), len(self.f1)
        means = [self.f1[draw.integers(0, n, n)].mean() for _ in range(RESAMPLES)]
        low, high = np.percentile(means, [2.5, 97.5])
        return {"name": "answer_f1", "value": float(self.f1.mean()), "low": float(low),
                "high": float(high), "method": "bootstrap over questions",
                "greater_is_better": True}  # fmt: skip


def judged_questions(judged: Evaluation, source: Source, schema: Schema) -> Questions | None:
    """Return the scores of questions from kept outputs of their windows; None without these."""
    if judged.outputs is None or judged.target is None or judged.ids is None:
        return None
    ids = judged.ids.numpy()
    said = {"first": judged.outputs[:, 0].long().numpy(),
            "last": judged.outputs[:, 1].long().numpy(),
            "margin": judged.outputs[:, 2].double().numpy()}  # fmt: skip
    names, found = by_question(said, source, ids, schema)
    _, first = np.unique(np.asarray(source.columns[QUESTION])[ids], return_index=True)
    rows = [int(i) for i in ids[first]]
    options = {"kind": str(schema.field("answers").stats.get("kind", "squad"))}
    right = [list(source.columns["answers"][row]) for row in rows]  # type: ignore[index]
    answers = [str(a) for a in found["answer"]]
    exact, f1 = (
        build_text(name, options=options).rows(answers, right)[:, 0].numpy()
        for name in ("exact_match_text", "answer_f1")
    )
    return Questions(names, found, rows, right, exact, f1)


def officially(judged: Evaluation, source: Source, schema: Schema) -> Evaluation:
    """Return an evaluation of windows with the official scores of their questions.

    Evaluations of other tasks are returned as they are.
    """
    asked = judged_questions(judged, source, schema) if schema.task == "answer" else None
    if asked is None:
        return judged
    return replace(judged, metrics={**judged.metrics, **asked.metrics}, rows=len(asked.names))


def worst_questions(asked: Questions, source: Source) -> list[dict[str, Any]]:
    """Return the questions with the lowest F1 as a report shows them, the surest first."""
    order = np.lexsort((-asked.found["margin"], asked.f1))[:LINES].tolist()
    return [_shown(asked, source, k) for k in order if asked.f1[k] < 1]


def _shown(asked: Questions, source: Source, k: int) -> dict[str, Any]:
    row = asked.rows[k]
    context, begin = str(source.columns["context"][row]), source.columns["starts"][row]  # type: ignore[index]
    at = int(begin[0]) if begin else 0
    part = context[max(at - AROUND, 0) : at + AROUND]
    return {
        "id": row, "name": asked.names[k], "loss": 1 - float(asked.f1[k]),
        "target": " / ".join(dict.fromkeys(asked.right[k])) or "no answer",
        "prediction": str(asked.found["answer"][k]) or "no answer",
        "texts": [str(source.columns["question"][row]), f"… {part} …"],  # type: ignore[index]
        "values": {},
    }  # fmt: skip


def _evidence(case: Case) -> Known:
    """Return the official scores of questions and, with samples, the worst answers."""
    assert case.asked is not None
    questions = judged_questions(case.judged, case.asked, case.schema)
    if questions is None:
        return Known()
    facts: dict[str, Any] = {
        "metrics": {**case.summary["metrics"], **questions.metrics},
        "primary": questions.primary(),
        "rows": len(questions.names), "windows": case.judged.rows,
    }  # fmt: skip
    if case.samples:
        facts["worst"] = worst_questions(questions, case.asked)
    return Known(facts)


EVIDENCE = Evidence("answers in texts", lambda case: case.asked is not None, _evidence)
