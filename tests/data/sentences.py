"""Small sets of tagged sentences, and of questions, that a net learns in a second."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

FIRST = ("Anna", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hal")
LAST = ("Adler", "Brown", "Cole", "Dunn", "Evans", "Ford")
FILL = ("the", "sun", "was", "out", "and", "all", "were", "glad")
PLACES = ("Berlin", "Seoul", "Paris", "Oslo", "Cairo", "Lima")


def tagged(rows: int = 120, seed: int = 0) -> list[list[tuple[str, str]]]:
    """Return sentences of (token, tag): people who go to places."""
    draw = random.Random(seed)
    found = []
    for i in range(rows):
        row = [(draw.choice(FIRST), "B-PER")]
        if i % 3:
            row.append((draw.choice(LAST), "I-PER"))
        row += [("went", "O"), ("to", "O"), (draw.choice(PLACES), "B-LOC"), ("in", "O")]
        found.append([*row, (str(draw.randint(1900, 2020)), "O"), (".", "O")])
    return found


def write_conll(path: Path, rows: list[list[tuple[str, str]]] | None = None) -> Path:
    """Write sentences, a token and its tag a line."""
    sentences = tagged() if rows is None else rows
    text = "\n\n".join("\n".join(f"{w} {t}" for w, t in row) for row in sentences)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def asked(articles: int = 20, seed: int = 0, *, none: bool = False, fill: int = 6) -> list[Any]:
    """Return articles in SQuAD's form: who lives where and has what."""
    draw = random.Random(seed)
    found = []
    for a in range(articles):
        who, place = draw.choice(FIRST), draw.choice(PLACES)
        words = [draw.choice(FILL) for _ in range(fill)]
        context = f"{' '.join(words)}. {who} lives in {place}. {' '.join(words)}."
        rows: list[dict[str, Any]] = [
            {"id": f"{a}-{i}", "question": question,
             "answers": [{"text": answer, "answer_start": context.index(answer)}]}
            for i, (question, answer) in enumerate(
                [(f"Where does {who} live?", place), (f"Who lives in {place}?", who)]
            )
        ]  # fmt: skip
        if none:
            rows.append({"id": f"{a}-n", "question": "Who sings?", "answers": [],
                         "is_impossible": True})  # fmt: skip
        found.append({"title": str(a), "paragraphs": [{"context": context, "qas": rows}]})
    return found


def write_squad(path: Path, articles: list[Any] | None = None) -> Path:
    """Write articles as SQuAD's JSON."""
    found = {"version": "1", "data": asked() if articles is None else articles}
    path.write_text(json.dumps(found), encoding="utf-8")
    return path
