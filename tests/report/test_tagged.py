"""Sentences with their entities in the report."""

from __future__ import annotations

from typing import Any

from gipi.report import tagged
from gipi.report.read import RunData


def run(**evaluation: Any) -> RunData:
    found = RunData.__new__(RunData)
    object.__setattr__(found, "evaluation", {"tagged": True, **evaluation})
    return found


ROW = {
    "name": "line <1>", "loss": 2, "tokens": ["Ann", "<b>", "Lee"], "cut": 4,
    "target": [["PER", 0, 2]], "prediction": [["LOC", 2, 2]],
}  # fmt: skip


def test_true_and_found_entities_are_marked_and_nothing_is_markup() -> None:
    page = tagged.worst_sentences(run(types=["LOC", "PER"], worst=[ROW]))
    assert '<mark class="t2">Ann &lt;b&gt; Lee<sub>PER</sub></mark>' in page
    assert 'Ann &lt;b&gt; <mark class="t1">Lee<sub>LOC</sub></mark>' in page
    assert "line &lt;1&gt;: 2 wrong" in page
    assert "4 more" in page
    assert "<b>" not in page


def test_no_wrong_sentence_is_said() -> None:
    assert "no sentence" in tagged.worst_sentences(run(types=[], worst=[]))
    assert tagged.worst_sentences(run(types=[])) == ""


def test_types_are_listed_the_weakest_first() -> None:
    rows = [
        {"class": "LOC", "rows": 5, "f1": 0.9, "recall": 0.8, "precision": None},
        {"class": "PER", "rows": 3, "f1": 0.5, "recall": 0.5, "precision": 0.5},
        {"class": "ORG", "rows": 0, "f1": None, "recall": None, "precision": None},
    ]
    page = tagged.type_card(run(per_class=rows, sentences={"rows": 10, "right": 4}))
    assert page.index("ORG") < page.index("PER") < page.index("LOC")
    assert "4 of 10 sentences have no wrong entity" in page
    assert tagged.type_card(run(per_class=[])) == ""
    assert tagged.is_tagged(run())
