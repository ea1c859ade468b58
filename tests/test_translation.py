"""Translating by commands: from two files to an answer, resumed, evaluated and read again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sacrebleu
import torch

import gipi
from gipi.cli import main
from gipi.core.errors import ModelError
from gipi.core.rundir import EVALUATION, REPORT
from gipi.deploy import load_model_folder
from gipi.deploy.predict import load
from tests.commands import FIXED
from tests.data.pairs import lines, write_parallel, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = ["--set", "model.width=16", "--set", "model.layers=1", "--set", "model.heads=2",
         "--set", "tokenizer=word", "--set", "task.beams=2", "--lr", "0.01"]  # fmt: skip
PARTS = {"train": 120, "val": 20, "test": 16}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data, a finished run, and the same run stopped and resumed."""
    root = tmp_path_factory.mktemp("translation")
    write_parallel(root / "data", PARTS, ("de", "en"))
    write_table(root / "pairs.tsv", lines(90), ("said", "back"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GIPI_CACHE", str(root / "cache"))
        assert main(["train", "data", "--out", "run", "--steps", "24", *SMALL, *FIXED]) == 0
        yield root


def test_a_folder_of_two_languages_trains_by_itself(place: Path) -> None:
    run = gipi.load(place / "run")
    assert (run.result["task"], run.result["model"]) == ("translate", "transformer")
    assert {"val/loss", "val/token_accuracy", "val/bleu", "test/loss", "test/token_accuracy",
            "test/bleu"} == set(run.metrics)  # fmt: skip
    rows = [json.loads(line) for line in (place / "run" / "rows.jsonl").read_text().splitlines()]
    assert any("val/bleu" in row for row in rows)


def test_the_score_is_sacrebleu_of_the_answers(place: Path, asked: Any) -> None:
    found = asked("evaluate", "run")
    asked("predict", "run", "data/test.de", "--out", "answers")
    answers = (place / "answers" / "predictions.txt").read_text().splitlines()
    right = (place / "data" / "test.en").read_text().splitlines()
    expected = sacrebleu.corpus_bleu(answers, [right], force=True).score
    assert found["metrics"]["test/bleu"] == pytest.approx(expected, abs=1e-6)
    assert found["metrics"] == {k: v for k, v in gipi.load(place / "run").metrics.items()
                                if k.startswith("test/")}  # fmt: skip
    assert found["rows"] == PARTS["test"]


def test_a_text_is_answered_alone_as_among_others(asked: Any, place: Path) -> None:
    texts = (place / "data" / "test.de").read_text().splitlines()
    together = asked("predict", "run", "data/test.de")["predictions"]
    for text, among in list(zip(texts, together, strict=True))[:4]:
        assert asked("predict", "run", text)["predictions"][0]["text"] == among["text"]


def test_a_file_in_the_other_language_is_refused_by_name(asked: Any) -> None:
    error = asked("predict", "run", "data/test.en", code=2)["error"]
    assert error["found"] == "data/test.en is in 'en', and the model writes that from 'de'"
    assert "a file of them: .de, .txt or a table" in error["needed"]
    assert error["do"] == "give the other side, or train with --target de"


def test_a_terminal_shows_the_translation_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    said = gipi.load(place / "run").predict("one two")[0]["text"]
    capsys.readouterr()
    assert main(["predict", "run", "one two"]) == 0
    assert capsys.readouterr().out == f"{said}\n"


def test_the_model_folder_translates_the_same(place: Path) -> None:
    text = ["three one two", "nine"]
    first = gipi.load(place / "run").predict(text).values["text"].tolist()
    shutil.copytree(place / "run" / "model", place / "alone")
    assert load(place / "alone").predict(text).values["text"].tolist() == first
    folder = load_model_folder(place / "alone")
    assert folder.task is not None
    assert folder.task.spec[1]["beams"] == 2
    bare = json.loads((place / "alone" / "model.json").read_text())
    assert bare["schema"]["task"] == "translate"


def test_a_stopped_run_goes_on_to_the_same_weights(place: Path, asked: Any) -> None:
    common = ["train", "data", "--save-every", "6", *SMALL, *FIXED]
    whole = asked(*common, "--out", "whole", "--steps", "18")
    stopped = place / "stopped"
    shutil.copytree(place / "whole", stopped)
    for path in (stopped / "checkpoints").iterdir():
        if int(path.name.partition("-")[2]) > 12:
            shutil.rmtree(path)
    for name in ("result.json", REPORT):
        (stopped / name).unlink()
    shutil.rmtree(stopped / "model")
    again = asked("resume", "stopped")
    assert again["weights_sha256"] == whole["weights_sha256"]
    assert again["metrics"] == whole["metrics"]


def test_the_report_shows_source_answer_and_reference(place: Path) -> None:
    page = (place / "run" / REPORT).read_text()
    assert "Rows at random" in page
    assert "BLEU" in page
    found = json.loads((place / "run" / EVALUATION / "summary.json").read_text())
    assert found["primary"]["name"] == "bleu"
    assert found["primary"]["low"] <= found["primary"]["value"] <= found["primary"]["high"]
    assert found["baseline"]["rule"] == "copying the source"
    scores = [row["score"] for row in found["worst"]]
    assert scores == sorted(scores)
    right = (place / "data" / "test.en").read_text().splitlines()
    assert {row["target"] for row in found["random"]} <= set(right)


def test_without_samples_no_text_is_shown(place: Path, asked: Any) -> None:
    asked("train", "pairs.tsv", "--task", "translate", "--out", "shy", "--steps", "3",
          "--no-samples", *SMALL, *FIXED)  # fmt: skip
    found = json.loads((place / "shy" / EVALUATION / "summary.json").read_text())
    assert "worst" not in found
    assert "random" not in found
    assert found["primary"]["name"] == "bleu"
    page = (place / "shy" / REPORT).read_text()
    assert not any(text in page for text, _ in lines(90) if text.count(" ") > 3)


@pytest.mark.parametrize("attention", ["dot", "additive"])
def test_recurrent_nets_translate_too(place: Path, asked: Any, attention: str) -> None:
    found = asked("train", "pairs.tsv", "--task", "translate", "--target", "said", "--model", "gru",
                  "--out", attention, "--steps", "3", "--set", "model.width=12",
                  "--set", f"model.attention={attention}", "--set", "model.embedding=12",
                  "--set", "tokenizer=word", *FIXED)  # fmt: skip
    assert "test/bleu" in found["metrics"]
    model = load_model_folder(place / attention / "model").model
    assert model.config.topology == "encoder-decoder"
    assert torch.isfinite(next(model.parameters())).all()


def test_summaries_are_the_same_mechanism(asked: Any) -> None:
    found = asked("train", "pairs.tsv", "--task", "summarise", "--out", "short", "--steps", "3",
                  *SMALL, *FIXED)  # fmt: skip
    assert (found["task"], "test/rouge_l" in found["metrics"]) == ("summarise", True)
    assert asked("evaluate", "short", "--data", "pairs.tsv")["rows"] == 90


def test_a_model_that_writes_nothing_is_refused(place: Path) -> None:
    with pytest.raises(ModelError, match="(?s)'textcnn' writes no text, and the task is to "
                                         "translate.*transformer"):  # fmt: skip
        gipi.train(str(place / "data"), model="textcnn", out=str(place / "no"))
