"""Tags and answers from a file to a report, by commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import gipi
from gipi import models
from gipi.cli import main
from gipi.data import DataOptions, open_data
from gipi.models.pretrained import family_of
from gipi.text import Tokenizer
from tests.commands import FIXED
from tests.data.sentences import asked as questions
from tests.data.sentences import tagged, write_conll, write_squad

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = ["model.embedding=16", "model.letter=6", "model.filters=8", "model.width=16",
         "model.dropout=0.1"]  # fmt: skip
SMALL = ["model.width=16", "model.layers=1", "model.heads=2"]
TEXT = "Ben Cole went to Lima in 1950."


def settings(values: list[str]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run of each kind."""
    root = tmp_path_factory.mktemp("tags")
    write_conll(root / "people.conll", tagged(150))
    write_squad(root / "people.json", questions(25, none=True, fill=20))
    runs = {
        "words": ["people.conll", "--steps", "60", "--lr", "0.01", *settings(WORDS)],
        "pieces": ["people.conll", "--model", "bert", "--steps", "4", *settings(SMALL)],
        "floor": ["people.json", "--model", "bilstm-reader", "--steps", "4",
                  *settings(["model.embedding=8", "model.width=8", "max_length=40",
                             "tokenizer=word"])],
        "asked": ["people.json", "--steps", "4", *settings([*SMALL, "max_length=40",
                                                            "tokenizer=word"])],
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GIPI_CACHE", str(root / "cache"))
        for name, args in runs.items():
            assert main(["train", *args, "--out", name, *FIXED]) == 0
        yield root


def test_a_file_of_tags_trains_by_itself(place: Path) -> None:
    run = gipi.load(place / "words")
    assert (run.result["task"], run.result["model"]) == ("tag", "bilstm-tagger")
    assert run.metrics["test/entity_f1"] > 0.8
    about = (place / "words" / "config.yaml").read_text(encoding="utf-8")
    assert "a token and its tag a line" in about
    assert "words: " in about


def test_texts_files_and_tables_are_tagged(place: Path, asked: Any) -> None:
    found = asked("predict", "words", TEXT)["predictions"][0]
    assert found["entities"] == [
        {"type": "PER", "text": "Ben Cole", "start": 0, "end": 8},
        {"type": "LOC", "text": "Lima", "start": 17, "end": 21},
    ]
    (place / "new.txt").write_text(f"{TEXT}\nEva went to Oslo.\n")
    (place / "new.csv").write_text(f"id,text\n7,{TEXT}\n8,Eva went to Oslo.\n")
    for name in ("new.txt", "new.csv"):
        rows = asked("predict", "words", name)["predictions"]
        assert [len(r["entities"]) for r in rows] == [2, 2]
    rows = asked("predict", "words", "people.conll")["predictions"]
    assert len(rows) == 150
    assert rows[0]["row"] == "people.conll line 1"
    asked("predict", "words", "new.txt", "--out", "said.csv")
    assert (place / "said.csv").read_text().startswith("row,type,text,start,end\n")


def test_a_run_of_tags_is_scored_again(place: Path, asked: Any) -> None:
    run = gipi.load(place / "words")
    again = asked("evaluate", "words")["metrics"]
    assert again["test/entity_f1"] == pytest.approx(run.metrics["test/entity_f1"], abs=1e-6)
    other = asked("evaluate", "words", "--data", "people.conll")
    assert other["rows"] == 150
    assert other["metrics"]["entity_f1"] > 0.8


def test_the_report_shows_sentences_unless_it_must_not(place: Path, asked: Any) -> None:
    page = (place / "pieces" / "report.html").read_text(encoding="utf-8")
    assert '<article class="sentence">' in page
    assert "types, weakest first" in page
    assert "<mark" in page
    asked("report", "pieces", "--no-samples")
    page = (place / "pieces" / "report.html").read_text(encoding="utf-8")
    assert '<article class="sentence">' not in page
    assert "types, weakest first" in page
    names = [w for row in tagged(150) for w, t in row if t != "O"]
    assert not any(f">{name}" in page for name in set(names))


def test_samples_stay_out_of_the_folder_where_that_was_asked(place: Path, asked: Any) -> None:
    asked("train", "people.conll", "--steps", "2", *settings([*WORDS, "samples=false"]),
         "--out", "kept", *FIXED)  # fmt: skip
    summary = json.loads((place / "kept" / "evaluation" / "summary.json").read_text())
    assert "worst" not in summary
    assert summary["per_class"]


def test_pieces_are_tagged_word_by_word(place: Path, asked: Any) -> None:
    found = asked("predict", "pieces", TEXT)["predictions"][0]
    assert found["tokens"] == ["Ben", "Cole", "went", "to", "Lima", "in", "1950", "."]
    assert len(found["tags"]) == 8
    assert (place / "pieces" / "tokenizer" / "tokenizer.json").is_file()
    long = asked("predict", "pieces", "word " * 400, code=2)["error"]
    assert "split the sentence" in long["found"]


def test_a_run_of_tags_goes_on(asked: Any) -> None:
    assert asked("resume", "words", "--steps", "62")["steps"] == 62
    assert asked("resume", "pieces", "--steps", "6")["steps"] == 6


def test_questions_train_by_themselves_and_say_what_to_expect(place: Path) -> None:
    run = gipi.load(place / "asked")
    assert (run.result["task"], run.result["model"]) == ("answer", "bert")
    assert {"test/exact_match_text", "test/answer_f1", "test/span_f1"} <= set(run.metrics)
    about = (place / "asked" / "config.yaml").read_text(encoding="utf-8")
    assert "far too few for a reader from random weights" in about
    summary = json.loads((place / "asked" / "evaluation" / "summary.json").read_text())
    assert summary["primary"]["name"] == "answer_f1"
    assert summary["windows"] > summary["rows"]


def test_questions_are_answered_from_tables_pairs_and_files(place: Path, asked: Any) -> None:
    context = "all were glad. Hal lives in Oslo. the sun was out"
    (place / "new.csv").write_text(f"question,context\nWhere does Hal live?,{context}\n")
    one = asked("predict", "asked", "new.csv")["predictions"][0]
    two = asked("predict", "asked", "Where does Hal live?", context)["predictions"][0]
    assert {k: one[k] for k in ("answer", "start", "end")} == {
        k: two[k] for k in ("answer", "start", "end")
    }
    assert one["answer"] == (context[one["start"] : one["end"]] if one["start"] >= 0 else "")
    rows = asked("predict", "asked", "people.json")["predictions"]
    assert len(rows) == 75
    assert rows[0]["row"] == "question 0-0"
    (place / "new.json").write_text(json.dumps([{"question": "Who?", "context": context}]))
    assert len(asked("predict", "asked", "new.json")["predictions"]) == 1


def test_a_run_of_questions_is_scored_again(place: Path, asked: Any) -> None:
    run = gipi.load(place / "asked")
    again = asked("evaluate", "asked")["metrics"]
    assert again["test/answer_f1"] == pytest.approx(run.metrics["test/answer_f1"], abs=1e-6)
    other = asked("evaluate", "asked", "--data", "people.json")
    assert other["rows"] == 75
    assert {"exact_match_text", "answer_f1"} <= set(other["metrics"])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["people.conll", "--model", "textcnn"], "no head for the task tag"),
        (["people.json", "--model", "bilstm-tagger"], "no head for the task answer"),
        (["people.conll", "--set", "tokenizer=bpe", "--model", "bilstm-tagger"], "whole words"),
    ],
)
def test_what_does_not_fit_is_named(asked: Any, args: list[str], words: str) -> None:
    error = asked("train", *args, "--out", "never", code=2)["error"]
    assert words in error["found"]


def test_a_recurrent_reader_is_the_floor(place: Path, asked: Any) -> None:
    run = gipi.load(place / "floor")
    assert (run.result["task"], run.result["model"]) == ("answer", "bilstm-reader")
    assert {"test/exact_match_text", "test/answer_f1", "test/span_f1"} <= set(run.metrics)
    context = "all were glad. Hal lives in Oslo. the sun was out"
    found = asked("predict", "floor", "Where does Hal live?", context)["predictions"][0]
    assert found["answer"] == (context[found["start"] : found["end"]] if found["answer"] else "")
    again = asked("evaluate", "floor")["metrics"]
    assert again["test/answer_f1"] == pytest.approx(run.metrics["test/answer_f1"], abs=1e-6)
    assert asked("resume", "floor", "--steps", "6")["steps"] == 6


def test_data_of_both_kinds_is_audited(asked: Any) -> None:
    assert asked("data", "people.conll")["task"] == "tag"
    assert asked("data", "people.json")["task"] == "answer"


def test_a_pretrained_folder_is_fine_tuned(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the form of published models: body from it, head new, tokenizer its own."""
    monkeypatch.chdir(place)
    source = open_data("people.conll", DataOptions(units="pieces", tokenizer="wordpiece"))
    options = {"width": 16, "layers": 1, "heads": 2, "pooling": "first", "positions": 64}
    encoder = models.build("bert", source.signature(5), options=options)
    assert isinstance(encoder, models.TokenTagger)
    models.save_folder("folder", models.describe(encoder.body, family_of("bert")))
    Tokenizer.from_json(source.schema.field("tokens").stats["tokenizer"]).save("folder")
    pad = source.signature(5).pad
    body: Any = models.load_folder("folder", head="tag", outputs=5).model
    run = gipi.train("people.conll", model=models.TokenTagger(body, pad=pad), steps=3, out="tuned",
                     settings={"tokenizer": "folder"}, quiet=True)  # fmt: skip
    assert run.metrics["test/loss"] > 0
    reader: Any = models.load_folder("folder", head="answer").model
    run = gipi.train("people.json", model=models.SpanReader(reader, pad=pad), steps=2, out="read",
                     settings={"tokenizer": "folder", "max_length": 64,
                               "bad_rows": "skip"}, quiet=True)  # fmt: skip
    assert run.metrics["test/answer_f1"] >= 0
