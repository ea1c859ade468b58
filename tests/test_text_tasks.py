"""Classes and numbers of texts and of pairs: from a file to an answer, by commands."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch

import gipi
from gipi.cli import main
from gipi.core.errors import DataError
from gipi.core.rundir import read_config
from gipi.data.cache import ragged
from gipi.deploy import load_model_folder
from gipi.deploy.predict import load
from gipi.text import Tokenizer
from tests.commands import FIXED
from tests.data.texts import BAD, GOOD, reviews, write_csv, write_folder, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = ["--set", "model.embedding=16", "--set", "model.maps=8"]
TEXT = "this was a lovely film"


def pairs(rows: int = 160) -> list[list[object]]:
    """Two texts, and how alike their moods are: 1 or 0, with a little noise."""
    found: list[list[object]] = []
    for i, (text, _) in enumerate(reviews(rows)):
        other = (GOOD if i % 4 < 2 else BAD)[i % 8]
        found.append([text, f"the film was {other} on day {i}", (i % 2 == (i % 4 < 2)) + i / 1000])
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a trained run of each kind."""
    root = tmp_path_factory.mktemp("texts")
    marked = [[f"<b>&{t}", y] for t, y in reviews(200)]
    data = {
        "table": str(write_rows(root / "table.csv", marked, ("text", "label"))),
        "folder": str(write_folder(root / "texts", 60)),
        "pairs": str(write_rows(root / "pairs.csv", pairs(), ("one", "two", "score"))),
    }
    steps = {"table": "60", "folder": "4", "pairs": "4"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GIPI_CACHE", str(root / "cache"))
        for name, path in data.items():
            args = ["train", path, "--out", name, "--steps", steps[name], *SMALL, *FIXED]
            assert main([*args, "--lr", "0.01"]) == 0
        (root / "table.csv").rename(root / "moved.csv")  # the model folder must do without it
        yield root
        (root / "moved.csv").rename(root / "table.csv")


def test_a_table_of_texts_trains_by_itself(place: Path) -> None:
    run = gipi.load(place / "table")
    assert (run.result["task"], run.result["model"]) == ("classify", "textcnn")
    assert run.metrics["test/accuracy"] > 0.7
    assert {"run", "data", "metrics", "epochs", "steps", "seconds", "samples_per_s",
            "weights_sha256", "precision", "compile", "findings"} <= set(run.result)  # fmt: skip
    said = " ".join(read_config(place / "table")[2]["choices"])
    assert "byte-level BPE" in said
    assert "filters over a few words at a time" in said
    assert Tokenizer.from_file(place / "table" / "tokenizer").lossless


def test_pairs_and_numbers_train_by_themselves(place: Path) -> None:
    run = gipi.load(place / "pairs")
    assert run.result["task"] == "regress"
    schema = load_model_folder(place / "pairs" / "model").schema
    assert [f.name for f in schema.inputs] == ["one", "two"]
    assert schema.field("two").stats == {"with": "one"}
    assert "test/rmse" in run.metrics
    assert gipi.load(place / "folder").result["task"] == "classify"


# ------------------------------------------------------------------ asking


def test_a_text_is_asked_on_the_command_line(asked: Any) -> None:
    found = asked("predict", "table", TEXT, "a terrible plot. And dull")
    assert found["rows"] == 2
    one, two = found["predictions"]
    assert (one["row"], two["row"]) == (TEXT, "a terrible plot. And dull")
    assert set(one) == {"row", "label", "probability", "probabilities"}
    assert set(one["probabilities"]) == {"good", "bad"}
    assert asked("predict", "table", "wine")["predictions"][0]["row"] == "wine"  # no data set


def test_a_table_is_asked_in_its_own_order(asked: Any, place: Path) -> None:
    texts = [t for t, _ in reviews(30, seed=5)]
    write_rows(place / "new.csv", [[t] for t in texts], ("text",))
    found = asked("predict", "table", "new.csv")
    assert [p["row"] for p in found["predictions"]] == [f"row {i + 1}" for i in range(30)]
    alone = [asked("predict", "table", t)["predictions"][0] for t in texts[:5]]
    for one, many in zip(alone, found["predictions"], strict=False):
        assert one["label"] == many["label"]
        assert one["probability"] == pytest.approx(many["probability"], abs=1e-6)
    (place / "new.txt").write_text("\n".join([texts[0], "", texts[1]]), encoding="utf-8")
    lines = asked("predict", "table", "new.txt")["predictions"]
    assert [p["row"] for p in lines] == ["new.txt line 1", "new.txt line 3"]
    assert lines[1]["probability"] == pytest.approx(found["predictions"][1]["probability"])
    latin = "une très jolie scène de théâtre à la fin du deuxième été"
    (place / "latin.txt").write_bytes(f"\n{latin}\n\n\n{texts[0]}\n".encode("latin-1"))
    said = gipi.load(place / "table").predict(place / "latin.txt")
    assert said.rows == ("latin.txt line 2", "latin.txt line 5")
    assert "texts: latin.txt: 3 empty lines left out" in said.notes
    assert any("latin.txt: not UTF-8: read as Latin-1" in note for note in said.notes)


def test_texts_are_asked_in_python(place: Path) -> None:
    predictor = load(place / "table")
    answers = predictor.predict([TEXT, "a dull one"])
    assert answers.rows == (TEXT, "a dull one")
    frame = pd.DataFrame({"text": [TEXT, "a dull one"]})
    for data in (frame, frame["text"], frame["text"].to_numpy(), (TEXT, "a dull one")):
        assert predictor.predict(data).labels == answers.labels
    assert len(predictor.predict(frame.iloc[0])) == 1
    assert len(predictor.predict({"text": TEXT})) == len(predictor.predict(TEXT)) == 1
    long = predictor.predict("film " * 300)
    assert any("are longer and lose their end" in note for note in long.notes)
    assert len(predictor.predict(["", "   "])) == 2
    assert predictor.predict("").rows == ("(empty)",)


def test_a_model_of_files_reads_files(asked: Any, place: Path) -> None:
    (place / "one.txt").write_text("a lovely\nfilm\n", encoding="utf-8")
    assert [p["row"] for p in asked("predict", "folder", "one.txt")["predictions"]] == ["one.txt"]
    found = asked("predict", "folder", "texts")["predictions"]
    assert len(found) == 60
    assert found[0]["row"] == "bad/000.txt"


def test_pairs_are_asked_as_pairs(asked: Any, place: Path) -> None:
    found = asked("predict", "pairs", "a film", "a book", "one\ttwo")["predictions"]
    assert [p["row"] for p in found] == ["a film | a book", "one | two"]
    assert "score" in found[0]
    error = asked("predict", "pairs", "alone", code=2)["error"]
    assert "1 text for a model that reads 2: alone" in error["found"]
    assert "'one' and 'two'" in error["needed"]
    assert len(load(place / "pairs").predict([("a", "b"), ("c", "d")])) == 2


def test_a_lost_file_is_no_text(asked: Any) -> None:
    error = asked("predict", "table", "news.csv", code=2)["error"]
    assert "there is no file or folder news.csv" in error["found"]
    assert "did you mean" in error["do"] or "correct" in error["do"]


# ------------------------------------------------------------------ scores and pages


def test_evaluation_gives_the_score_of_the_run(asked: Any, place: Path) -> None:
    table = place / "moved.csv"
    shutil.copy(table, place / "table.csv")
    try:
        found = asked("evaluate", "table")
    finally:
        (place / "table.csv").unlink()
    known = gipi.load(place / "table").metrics
    assert found["metrics"]["test/accuracy"] == known["test/accuracy"]
    assert found["metrics"]["test/loss"] == pytest.approx(known["test/loss"], rel=1e-5)
    other = asked("evaluate", "table", "--data", "moved.csv")
    assert other["rows"] == 200


def test_the_report_shows_texts_escaped_or_not_at_all(place: Path) -> None:
    run = gipi.load(place / "table")
    page = run.report().read_text(encoding="utf-8")
    assert '<p class="read" dir="auto">&lt;b&gt;&amp;' in page
    assert "<b>&" not in page
    hidden = run.report(samples=False).read_text(encoding="utf-8")
    assert '<p class="read"' not in hidden
    words = [t for t, _ in reviews(200)]
    assert not any(t in hidden for t in words)


def test_the_model_folder_is_enough(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "table" / "model", tmp_path / "alone")
    texts = [t for t, _ in reviews(20, seed=3)]
    one = load(tmp_path / "alone").predict(texts)
    two = gipi.load(place / "table").predict(texts)
    assert one.records() == two.records()
    folder = load_model_folder(tmp_path / "alone")
    assert folder.signature.vocab == Tokenizer.from_file(place / "table" / "tokenizer").vocab_size
    assert folder.signature.length > 0


def test_padding_changes_no_answer(place: Path) -> None:
    model = load_model_folder(place / "table" / "model").model
    values, _ = ragged([torch.arange(5, 12).numpy()])
    row = torch.from_numpy(values)[None]
    wide = torch.nn.functional.pad(row, (0, 33))
    assert torch.allclose(model(row), model(wide), atol=1e-6)


def test_a_null_byte_in_a_question_is_named(place: Path) -> None:
    with pytest.raises(DataError, match="holds a null byte at character 2"):
        load(place / "table").predict(["a\0b"])


# ------------------------------------------------------------------ going on


class Stop(Exception):
    """Ends a run in the middle of a step."""


def at(step: int) -> Any:
    """Return an observer that ends the run at a step."""

    def observer(event: Any) -> None:
        if event.step == step:
            raise Stop

    return observer


def test_a_resumed_run_ends_bit_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_csv(tmp_path / "reviews.csv", 120)
    fixed = {"precision": "fp32", "threads": 1, "gemm": "native", "save_every": 5, "log_every": 1,
             "model.embedding": 8, "model.maps": 4, "model": "textcnn"}  # fmt: skip
    options: dict[str, Any] = {"steps": 24, "batch_size": 8, "quiet": True, "settings": fixed}
    whole = gipi.train(str(data), out=tmp_path / "whole", **options)
    with pytest.raises(Stop):
        gipi.train(str(data), out=tmp_path / "broken", observers=[at(13)], **options)
    # Another version of the trainer gives other ids; the run keeps those that it began with.
    monkeypatch.setattr("gipi.data.tokenizing.train_tokenizer", None)
    again = gipi.resume(tmp_path / "broken", quiet=True)
    assert again.result["weights_sha256"] == whole.result["weights_sha256"]
    assert again.result["metrics"] == whole.result["metrics"]
