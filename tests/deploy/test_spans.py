"""Answers of windows as answers to questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.sentences import asked, write_squad

from gipi.data import DataOptions, Dataset, open_data
from gipi.data.answering import QUESTION
from gipi.deploy.spans import by_question, judged_questions, officially, worst_questions
from gipi.train.evaluate import Evaluation


def data(folder: Path, *, none: bool = False) -> Dataset:
    file = write_squad(folder / "people.json", asked(6, fill=60, none=none))
    return open_data(file, DataOptions(tokenizer="word", max_length=48, val=0, test=0))


def outputs(found: Dataset) -> torch.Tensor:
    """Return what a perfect reader says: true spans where there are any, else a low margin."""
    target = found.columns.target
    assert isinstance(target, torch.Tensor)
    holds = target[:, :1] > 0
    margin = torch.where(holds, 5.0, -5.0)
    return torch.cat([torch.where(holds, target, torch.tensor([20, 21])).float(), margin], 1)


def judged(found: Dataset, said: torch.Tensor) -> Evaluation:
    ids = torch.arange(len(said)).flip(0)  # in any order
    target = found.columns.target
    assert isinstance(target, torch.Tensor)
    return Evaluation({"loss": 0.5}, len(said), 0.0, said[ids], target[ids], None, ids)


@pytest.mark.parametrize("none", [False, True])
def test_a_perfect_reader_scores_one(tmp_path: Path, none: bool) -> None:
    found = data(tmp_path, none=none)
    questions = judged_questions(judged(found, outputs(found)), found.source, found.schema)
    assert questions is not None
    assert questions.metrics == {"exact_match_text": 1.0, "answer_f1": 1.0}
    assert questions.names == [f"question {a}-{k}" for a in range(6)
                               for k in (0, 1, "n")[: 2 + none]]  # fmt: skip
    assert questions.primary()["low"] == 1.0
    assert worst_questions(questions, found.source) == []


def test_the_window_with_the_highest_margin_speaks(tmp_path: Path) -> None:
    found = data(tmp_path)
    said = outputs(found)
    target = found.columns.target
    assert isinstance(target, torch.Tensor)
    question = np.asarray(found.source.columns[QUESTION])
    blank = next(i for i in range(len(said)) if target[i, 0] == 0 and question[i] == 0)
    said[blank, 2] = 9.0
    questions = judged_questions(judged(found, said), found.source, found.schema)
    assert questions is not None
    assert questions.exact[0] == 0.0
    assert questions.exact[1:].min() == 1.0
    worst = worst_questions(questions, found.source)
    assert worst[0]["name"] == "question 0-0"
    assert worst[0]["texts"][0].startswith("Where does")
    assert worst[0]["target"] in worst[0]["texts"][1]


def test_characters_lead_back_to_the_context(tmp_path: Path) -> None:
    found = data(tmp_path)
    said = {"first": outputs(found)[:, 0].long().numpy(),
            "last": outputs(found)[:, 1].long().numpy(),
            "margin": outputs(found)[:, 2].double().numpy()}  # fmt: skip
    ids = np.arange(len(said["first"]))
    names, values = by_question(said, found.source, ids, found.schema)
    assert len(names) == 12
    question = np.asarray(found.source.columns[QUESTION])
    for q in range(12):
        row = int(np.flatnonzero(question == q)[0])
        context = found.source.columns["context"][row]
        assert context[values["start"][q] : values["end"][q]] == values["answer"][q]
        assert values["answer"][q] == found.source.columns["answers"][row][0]


def test_no_answer_only_where_the_data_has_such_questions(tmp_path: Path) -> None:
    for none in (False, True):
        found = data(tmp_path, none=none)
        said = outputs(found)
        said[:, 2] = -1.0
        questions = judged_questions(judged(found, said), found.source, found.schema)
        assert questions is not None
        assert all(questions.found["answer"] == "") is none


def test_only_questions_are_scored_so(tmp_path: Path) -> None:
    found = data(tmp_path)
    one = judged(found, outputs(found))
    scored = officially(one, found.source, found.schema)
    assert scored.rows == 12
    assert scored.metrics == {"loss": 0.5, "exact_match_text": 1.0, "answer_f1": 1.0}
    nothing = Evaluation({"loss": 0.5}, 3, 0.0)
    assert officially(nothing, found.source, found.schema) is nothing
