"""What a report is given of texts that were written: interval, rows, and a rule that needs none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gipi import tasks
from gipi.core.schema import Field, Schema
from gipi.deploy.evaluation import score_interval, summary
from gipi.deploy.written import copied, judge, row_scores
from gipi.train.evaluate import Evaluation
from gipi.train.said import Said

SCHEMA = Schema((Field("a", "text", "input"), Field("b", "text", "target")), "translate")
TASK = tasks.translate()
RIGHT = [f"the {word} cat sat on the mat" for word in ("old", "fat", "red", "big", "sly")]


class Table:
    """Rows whose sources are the references in capitals."""

    def row_names(self, ids: np.ndarray) -> list[str]:
        return [f"row {i + 1}" for i in ids]

    def raw(self, ids: np.ndarray) -> list[dict[str, Any]]:
        return [{"a": RIGHT[i].upper(), "b": RIGHT[i]} for i in ids]


def judged(texts: list[str], ids: list[int]) -> Evaluation:
    judge_ = TASK.judges[0]
    right = [RIGHT[i] for i in ids]
    rows = judge_.rows(texts, [[r] for r in right])
    said = Said(tuple(texts), tuple(right), {"bleu": rows}, None, np.array(ids))
    score = judge_.score(texts, [[r] for r in right])
    return Evaluation({"loss": 1.0, "bleu": score}, len(ids), 0.0, said=said)


def test_the_worst_rows_come_first() -> None:
    texts = [*RIGHT[:3], "a dog", "the sly cat sat on a mat"]
    found = judge(judged(texts, [0, 1, 2, 3, 4]), TASK, SCHEMA, Table())
    worst = found["worst"]
    assert [row["name"] for row in worst[:2]] == ["row 4", "row 5"]
    assert worst[0]["prediction"] == "a dog"
    assert worst[0]["target"] == RIGHT[3]
    assert worst[0]["texts"] == [RIGHT[3].upper()]
    assert worst[-1]["score"] == pytest.approx(100.0)
    assert {row["name"] for row in found["random"]} == {f"row {i}" for i in range(1, 6)}


def test_the_score_has_an_interval_of_resampled_rows() -> None:
    found = judged([*RIGHT[:4], "a dog"], [0, 1, 2, 3, 4])
    interval = score_interval(found, TASK, SCHEMA)
    assert interval is not None
    assert interval.value == pytest.approx(found.metrics["bleu"])
    assert interval.low < interval.value <= interval.high <= 100
    primary = summary(found, TASK, SCHEMA)["primary"]
    assert (primary["name"], primary["greater_is_better"]) == ("bleu", True)


def test_copying_the_source_is_the_rule() -> None:
    found = judged(RIGHT, [0, 1, 2, 3, 4])
    assert found.said is not None
    assert copied(TASK.judges[0], RIGHT, found.said) == pytest.approx(100.0)
    assert copied(TASK.judges[0], [r.upper() for r in RIGHT], found.said) == 0
    long = [" ".join([r, *["more"] * 50]) for r in RIGHT]  # a summary: its first words
    assert copied(TASK.judges[0], long, found.said) == pytest.approx(100.0)


def test_without_rows_nothing_is_shown() -> None:
    assert judge(judged(RIGHT, [0, 1, 2, 3, 4]), TASK, SCHEMA, None) == {}


def test_row_scores_are_those_of_rows_alone() -> None:
    found = judged(["the old cat", RIGHT[1]], [0, 1])
    assert found.said is not None
    bleu = TASK.judges[0]
    alone = [bleu.score([t], [[r]]) for t, r in zip(found.said.texts, found.said.references,
                                                    strict=True)]  # fmt: skip
    np.testing.assert_allclose(row_scores(bleu, found.said), alone)
    assert torch.is_tensor(found.said.statistics["bleu"])
