"""Language models from a text to an answer: by commands, from a run, and as a folder for others."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import gipi
from gipi.cli import main
from gipi.core.errors import ConfigError, DataError, ModelError, RequestError
from gipi.core.rows import read_rows
from gipi.data import DataOptions, open_data
from tests.commands import FIXED
from tests.data.prose import NOUNS, VERBS, prose

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = ["--set", "model.width=32", "--set", "model.layers=1", "--set", "model.heads=2"]
RNN = ["--model", "lstm", "--set", "model.width=32", "--set", "model.embedding=16"]
TEXT = ["--task", "generate", "--set", "max_length=32", "--set", "batch_size=8"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a trained run of each kind of model."""
    root = tmp_path_factory.mktemp("language")
    steps = {"gpt2": "60", "lstm": "250", "llama": "60"}
    (root / "book.txt").write_text(prose(500), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GIPI_CACHE", str(root / "cache"))
        for name, more in {
            "gpt2": SMALL,
            "lstm": RNN,
            "llama": ["--model", "llama", *SMALL],
        }.items():
            args = [
                "train",
                "book.txt",
                "--out",
                name,
                "--steps",
                steps[name],
                *TEXT,
                *FIXED,
                *more,
            ]
            assert main([*args]) == 0
        yield root


@pytest.mark.parametrize("name", ["gpt2", "lstm", "llama"])
def test_it_learns_the_text_and_says_so_in_three_units(place: Path, name: str) -> None:
    run = gipi.load(place / name)
    assert (run.result["task"], run.result["model"]) == ("generate", name)
    found = run.metrics
    assert found["val/perplexity"] == pytest.approx(math.exp(found["val/loss"]), rel=1e-4)
    assert found["val/bits_per_byte"] == pytest.approx(found["val/loss"] / math.log(2), rel=1e-4)
    assert found["val/bits_per_byte"] < 2.0  # single letters by their frequency: about 4


@pytest.mark.parametrize("name", ["gpt2", "lstm", "llama"])
def test_the_score_of_the_held_back_text_is_that_of_the_loop(place: Path, name: str) -> None:
    data = open_data(str(place / "book.txt"), DataOptions(task="generate", max_length=32))
    run = gipi.load(place / name)
    texts, losses, total, count = [], [], 0.0, 0.0
    for batch in data.stream("val", batch_size=16).epoch(0):
        loss = run.predictor.task.phases[0].loss(run.model, batch)
        total, count = total + float(loss.total.detach()), count + float(loss.count)
        texts += [run.language.tokenizer.decode(row) for row in batch.inputs["tokens"].tolist()]
        losses += loss.outputs.detach()[:, :-1].tolist()
    assert total / count == pytest.approx(run.metrics["val/loss"], rel=1e-5)
    found = run.score(texts[:-1])  # the last window ends with padding
    for scored, wanted in zip(found.texts, losses, strict=False):
        assert [b * math.log(2) for b in scored.surprise] == pytest.approx(wanted, abs=1e-4)


def test_a_run_goes_on_with_texts(asked: Any, place: Path) -> None:
    found = asked(
        "generate", "gpt2", "the king", "the fox", "--max-new-tokens", "20", "--seed", "3"
    )
    assert [a["prompt"] for a in found["answers"]] == ["the king", "the fox"]
    assert all(a["tokens"] == 20 and a["stopped"] == "length" for a in found["answers"])
    run = gipi.load(place / "gpt2")
    again = run.generate(["the king", "the fox"], max_new_tokens=20, seed=3)
    assert [a.text for a in again] == [a["text"] for a in found["answers"]]
    alone = run.generate("the fox", max_new_tokens=20, seed=3)
    assert alone[0].text == again[1].text
    greedy = asked("generate", "llama", "the king ", "--temperature", "0")
    assert any(word in greedy["answers"][0]["text"] for word in (*VERBS, *NOUNS))
    beams = asked(
        "generate", "gpt2", "the", "--beam", "3", "--samples", "2", "--max-new-tokens", "8"
    )
    assert len(beams["answers"]) == 2
    assert beams["answers"][0]["score"] >= beams["answers"][1]["score"]


def test_a_terminal_gets_the_text_as_it_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert main(["generate", "gpt2", "the king", "--max-new-tokens", "12", "--seed", "1"]) == 0
    said = capsys.readouterr().out
    wanted = gipi.load(place / "gpt2").generate("the king", max_new_tokens=12, seed=1)[0]
    assert said == f"the king{wanted.text}\n"


def test_a_text_and_a_file_are_scored(asked: Any, place: Path) -> None:
    (place / "odd.txt").write_text("the king sees the zebra at dawn.\n", encoding="utf-8")
    found = asked("score", "gpt2", "the king sees the queen at dawn.", "odd.txt")
    usual, odd = found["texts"]
    assert odd["name"] == "odd.txt"
    assert usual["bits_per_byte"] < odd["bits_per_byte"]
    assert "".join(t["text"] for t in usual["tokens"]) == usual["text"][1:]
    long = asked("score", "gpt2", prose(20, seed=5), "--stride", "8")  # beyond the context
    assert long["bits_per_byte"] < 2.5


def test_what_is_asked_wrongly_is_said(asked: Any, place: Path) -> None:
    said = asked("generate", "gpt2", "the king " * 9, code=2)
    assert "tokens" in said["error"]["found"]
    assert "at most 32, the context" in said["error"]["needed"]
    assert "--top-k x" in asked("generate", "gpt2", "a", "--top-k", "x", code=2)["error"]["found"]
    low = asked("generate", "gpt2", "a", "--temperature", "-1", code=2)
    assert "--temperature -1" in low["error"]["found"]
    assert "is empty" in asked("generate", "gpt2", "", code=2)["error"]["found"]
    assert "there is no run" in asked("score", "no-run", "a", code=2)["error"]["found"]
    assert "gipi generate" in asked("predict", "gpt2", "a text", code=2)["error"]["do"]
    (place / "latin.txt").write_bytes("schön".encode("latin1"))
    assert "not UTF-8" in asked("score", "gpt2", "latin.txt", code=2)["error"]["found"]
    said = asked("train", "book.txt", "--task", "generate", "--model", "textcnn", code=2)
    assert "does not go on with a text" in said["error"]["found"]


def test_it_is_evaluated_again_and_on_other_text(asked: Any, place: Path) -> None:
    again = asked("evaluate", "gpt2")
    wanted = gipi.load(place / "gpt2").metrics["val/bits_per_byte"]
    assert again["metrics"]["val/bits_per_byte"] == pytest.approx(wanted, rel=1e-5)
    (place / "other.txt").write_text(prose(60, seed=8), encoding="utf-8")
    other = asked("evaluate", "gpt2", "--data", "other.txt")
    assert other["metrics"]["bits_per_byte"] < 2.5


def test_a_stopped_run_goes_on_to_the_same_weights(asked: Any, place: Path) -> None:
    common = ["train", "book.txt", "--steps", "30", *TEXT, *FIXED, *SMALL]
    whole = asked(*common, "--out", "whole")
    assert main([*common, "--out", "half", "--set", "save_every=10"]) == 0
    half = place / "half"
    for file in sorted((half / "checkpoints").glob("step-30/*")):
        file.unlink()
    (half / "result.json").unlink()
    resumed = asked("resume", "half")
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert any("checkpoint" in str(r.get("event")) for r in read_rows(half / "rows.jsonl"))


def test_the_report_shows_texts_unless_it_must_not(place: Path) -> None:
    run = gipi.load(place / "gpt2")
    page = run.report().read_text(encoding="utf-8")
    assert "What it writes and reads" in page
    assert "sample 1" in page
    assert 'class="bits"' in page
    assert "surprise by place" in page
    assert "without its context" in page
    bare = run.report(samples=False).read_text(encoding="utf-8")
    assert 'class="bits"' not in bare
    assert "sample 1" not in bare
    assert "surprise by place" in bare


def test_a_run_without_samples_keeps_text_out_of_its_folder(asked: Any, place: Path) -> None:
    asked("train", "book.txt", "--out", "quiet", "--steps", "3", *TEXT, *FIXED, *SMALL,
          "--no-samples")  # fmt: skip
    summary = json.loads((place / "quiet" / "evaluation" / "summary.json").read_text())
    assert "passage" not in summary
    assert "written" not in summary


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_run_becomes_a_folder_that_others_open(place: Path, name: str) -> None:
    run = gipi.load(place / name)
    run.language.save(place / f"hub-{name}")
    lm = gipi.pretrained(place / f"hub-{name}")
    ids = torch.arange(12)[None]
    wanted = run.model(ids)
    assert torch.allclose(lm.model(input_ids=ids).logits, wanted, atol=1e-5)
    text = "the king sees the raven at dawn."
    assert lm.score(text).perplexity == pytest.approx(run.score(text).perplexity, rel=1e-4)
    greedy = [m.generate("the king", temperature=0.0, max_new_tokens=9)[0].text
              for m in (lm, run.language)]  # fmt: skip
    assert greedy[0] == greedy[1]
    assert main(["generate", str(place / f"hub-{name}"), "the king", "--json"]) == 0


def test_a_recurrent_net_has_no_such_folder(place: Path) -> None:
    with pytest.raises(ModelError, match="which no family of published models describes"):
        gipi.load(place / "lstm").language.save(place / "nothing")


def test_another_task_does_not_write(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    run = gipi.train(epochs=1, steps=None, out=place / "digits", quiet=True,
                     settings={"precision": "fp32", "threads": 1, "gemm": "native"})  # fmt: skip
    with pytest.raises(RequestError, match="the model was trained to classify"):
        run.generate("a")


def test_a_text_shorter_than_its_context_and_a_wrong_tokenizer_are_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(DataError, match="the train text of book"):
        gipi.train("book.txt", task="generate", quiet=True, settings={"max_length": 16384})
    with pytest.raises(ConfigError, match="neither a kind nor a file"):
        gipi.train("book.txt", task="generate", quiet=True, settings={"tokenizer": "letters"})
