"""Questions with contexts: windows, spans, and what is refused."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.sentences import asked, write_squad

from gipi.core.errors import ConfigError, DataError
from gipi.data import DataOptions, Dataset, open_data, read_rows, read_source
from gipi.data.answering import AT, QUESTION, SPANS, _starts, covering
from gipi.data.sources.plain import objects

NO_TEST = {"val": 0.2, "test": 0.2}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_squad(tmp_path / "people.json")


def answers_read_back(found: Dataset) -> dict[int, set[str]]:
    """Return of each question the texts that its windows' targets stand for."""
    target = found.columns.target
    assert isinstance(target, torch.Tensor)
    out: dict[int, set[str]] = {}
    for row, (first, last) in enumerate(target.tolist()):
        spans, at = found.source.columns[SPANS][row], int(found.source.columns[AT][row])
        texts = out.setdefault(int(found.source.columns[QUESTION][row]), set())
        if first:
            context = found.source.columns["context"][row]
            texts.add(context[spans[first - at, 0] : spans[last - at, 1]].strip())
    return out


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "char", "word", "unigram"])
@pytest.mark.parametrize("length", [None, 40])
def test_targets_are_the_answers(tmp_path: Path, kind: str, length: int | None) -> None:
    file = write_squad(tmp_path / "people.json", asked(12, fill=30))
    longer = 110 if kind == "char" and length else length
    found = open_data(file, DataOptions(tokenizer=kind, max_length=longer))
    back = answers_read_back(found)
    whole = read_source(file)
    assert len(back) == whole.rows
    for question, texts in back.items():
        assert texts == {whole.columns["answers"][question][0]}


def test_windows_overlap_and_hold_all_of_a_context(tmp_path: Path) -> None:
    file = write_squad(tmp_path / "people.json", asked(8, fill=60))
    found = open_data(file, DataOptions(tokenizer="word", max_length=48))
    question = np.asarray(found.source.columns[QUESTION])
    assert np.bincount(question).max() > 1
    for q in range(3):
        windows = [found.source.columns[SPANS][row] for row in np.flatnonzero(question == q)]
        context = found.source.columns["context"][np.flatnonzero(question == q)[0]]
        read = np.zeros(len(context), dtype=int)
        for spans in windows:
            assert len(spans) <= 48
            for a, b in spans:
                read[a:b] += 1
        assert all(n > 0 for n, c in zip(read, context, strict=True) if not c.isspace())
        assert read.max() > 1
    names = found.row_names(np.flatnonzero(question == 0))
    assert names[0].endswith("window 1")
    assert any("windows: " in note for note in found.notes)


def test_windows_of_a_question_stay_together(tmp_path: Path) -> None:
    file = write_squad(tmp_path / "people.json", asked(20, fill=60))
    found = open_data(file, DataOptions(tokenizer="word", max_length=48, **NO_TEST))  # type: ignore[arg-type]
    question = np.asarray(found.source.columns[QUESTION])
    parts = [set(question[ids].tolist()) for ids in found.splits.values()]
    assert len(parts) == 3
    assert all(not one & two for k, one in enumerate(parts) for two in parts[:k])
    assert sum(map(len, found.splits.values())) == len(question)


def test_a_batch_has_segments_and_what_is_context(file: Path) -> None:
    found = open_data(file, DataOptions(tokenizer="word"))
    batch = next(iter(found.stream("train", batch_size=4).epoch(0)))
    assert list(batch.inputs) == ["tokens", "segments", "context"]
    segments, context = batch.inputs["segments"], batch.inputs["context"]
    assert (segments[context == 1] == 1).all()
    assert (context[:, 0] == 0).all()
    assert batch.target is not None
    inside = batch.target[:, 0] > 0
    assert (context.gather(1, batch.target)[inside] == 1).all()
    assert found.signature(2).per == "span"


def test_questions_without_an_answer(tmp_path: Path) -> None:
    found = open_data(write_squad(tmp_path / "people.json", asked(none=True)))
    assert found.schema.field("answers").stats == {"kind": "squad2", "none": True}
    target = found.columns.target
    assert isinstance(target, torch.Tensor)
    lost = [i for i, a in enumerate(found.source.columns["answers"]) if a == ()]
    assert lost
    assert (target[lost] == 0).all()


def test_the_scorer_follows_from_the_answers(tmp_path: Path) -> None:
    articles = asked(6)
    for article in articles:
        for row in article["paragraphs"]:
            row["context"] = "철수는 서울에 산다. " + row["context"]
            for question in row["qas"]:
                question["answers"] = [{"text": "서울", "answer_start": 4}]
    found = open_data(write_squad(tmp_path / "korean.json", articles))
    assert found.schema.field("answers").stats["kind"] == "korquad"


def test_new_questions_are_read_as_in_training(file: Path) -> None:
    trained = open_data(file)
    again = read_rows(file, trained.schema)
    for name, column in trained.columns.inputs.items():
        assert np.array_equal(column.values, again.columns.inputs[name].values)  # type: ignore[union-attr]
    assert torch.equal(trained.columns.target, again.columns.target)  # type: ignore[arg-type]
    assert read_rows(file, trained.schema, target=False).columns.target is None


def test_starts_of_windows_reach_the_end() -> None:
    for tokens in range(60):
        starts = _starts(tokens, 16)
        assert max(starts) + 16 >= tokens
        assert all(b - a <= 8 for a, b in itertools.pairwise(starts))


def test_what_covers_an_answer() -> None:
    spans = np.array([[0, 3], [4, 8], [8, 9]])
    assert covering(spans, 4, 8) == (1, 1)
    assert covering(spans, 2, 9) == (0, 2)
    assert covering(spans, 3, 4) is None


# ---------------------------------------------------------------------------- refused


def refused(file: Path, options: DataOptions | None, *words: str) -> None:
    with pytest.raises(DataError) as error:
        open_data(file, options)
    for word in words:
        assert word in str(error.value)


def test_an_answer_that_does_not_stand_there(tmp_path: Path) -> None:
    articles = asked()
    articles[3]["paragraphs"][0]["qas"][1]["answers"][0]["answer_start"] += 1
    file = write_squad(tmp_path / "people.json", articles)
    refused(file, None, "question 3-1", "is not at character", "correct answer_start")


def test_an_answer_in_memory_that_does_not_stand_there(file: Path) -> None:
    source = read_source(file)
    starts = objects([(0,), *source.columns["starts"][1:]])
    wrong = replace(source, columns={**source.columns, "starts": starts})
    with pytest.raises(DataError, match=r"question 0-0: its answer .* is not at character 0"):
        open_data(wrong)


def test_empty_questions_and_questions_without_room(tmp_path: Path) -> None:
    articles = asked()
    articles[2]["paragraphs"][0]["qas"][0]["question"] = "  "
    articles[5]["paragraphs"][0]["qas"][0]["question"] = "where " * 80
    file = write_squad(tmp_path / "people.json", articles)
    options = DataOptions(tokenizer="word", max_length=60)
    refused(file, options, "question 2-0: its question is empty", "question 5-0: its question has")
    kept = open_data(file, replace(options, bad_rows="skip"))
    used = {int(kept.source.columns[QUESTION][i]) for i in np.concatenate([*kept.splits.values()])}
    assert used == set(range(40)) - {4, 10}


def test_short_contexts_need_no_room_that_they_do_not_fill(tmp_path: Path) -> None:
    articles = [{"title": str(i), "paragraphs": [{"context": f"Oslo is {i}.", "qas": [
        {"id": str(i), "question": "what?", "answers": [{"text": "Oslo", "answer_start": 0}]}]}]}
        for i in range(20)]  # fmt: skip
    found = open_data(write_squad(tmp_path / "short.json", articles))
    assert sum(map(len, found.splits.values())) == 20
    assert read_rows(tmp_path / "short.json", found.schema).source.rows == 20


def test_texts_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    articles = asked()
    articles[2]["paragraphs"][0]["qas"][0]["question"] = "Where does \ud83d live?"
    articles[4]["paragraphs"][0]["context"] += " \ud83d"
    file = tmp_path / "people.json"
    file.write_text(json.dumps({"data": articles}), encoding="utf-8")
    refused(file, None, "3 rows of 40", "question 2-0: the text 'question' holds half of a surr")
    kept = open_data(file, DataOptions(bad_rows="skip"))
    used = {int(kept.source.columns[QUESTION][i]) for i in np.concatenate([*kept.splits.values()])}
    assert used == set(range(40)) - {4, 8, 9}
    with pytest.raises(DataError, match="half of a surrogate pair"):
        read_rows(file, kept.schema)


def test_a_column_that_says_the_parts_or_binds_rows_is_heeded(file: Path) -> None:
    source = read_source(file)
    part = np.array(["train"] * 20 + ["val"] * 10 + ["test"] * 10, object)
    team = np.arange(40) % 20 // 2
    mine = replace(source, bound=None, columns={**source.columns, "part": part, "team": team})
    given = open_data(mine, DataOptions(split_column="part"))
    for name, rows in (("train", range(20)), ("val", range(20, 30)), ("test", range(30, 40))):
        asked_for = given.source.columns[QUESTION][given.splits[name]]
        assert set(asked_for.tolist()) <= set(rows)
    bound = open_data(mine, DataOptions(group="team"))
    teams = [set(team[bound.source.columns[QUESTION][ids]]) for ids in bound.splits.values()]
    assert not set.intersection(*teams[:2])
    assert sum(map(len, teams)) == 10
    with pytest.raises(ConfigError, match="'question' is named as group and is the input"):
        open_data(mine, DataOptions(group="question"))
    with pytest.raises(ConfigError, match="schema.title=category for questions"):
        open_data(mine, DataOptions(overrides={"title": "category"}))


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    articles = asked(3)
    for article in articles:
        for question in article["paragraphs"][0]["qas"]:
            del question["answers"]
    refused(write_squad(tmp_path / "test.json", articles), None, "has an answer", "come without")


def test_what_cannot_go_together(file: Path) -> None:
    with pytest.raises(ConfigError, match="task=tag"):
        open_data(file, DataOptions(task="tag"))
    with pytest.raises(DataError, match="the target 'answers'"):
        open_data(file, DataOptions(target="question"))
