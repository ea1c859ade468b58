"""Learning from text alone: hidden tokens, pairs, spans, a student, and what follows."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import gipi
from gipi import tasks
from gipi.core.errors import ConfigError, DataError, ModelError, RequestError
from gipi.core.rundir import HUB, read_config
from gipi.deploy.predict import load
from gipi.models import load_folder
from tests.data.texts import reviews, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIXED = {"precision": "fp32", "threads": 1, "gemm": "native", "max_length": 24,
         "tokenizer.vocab": 200, "samples": False}  # fmt: skip
TINY = {"model.width": 16, "model.heads": 2, "model.layers": 2}


def prose() -> str:
    """Return titled documents of sentences."""
    random = np.random.default_rng(0)
    said = [text for text, _ in reviews(120)]
    documents = []
    for number in range(12):
        lines = [said[i] for i in random.integers(0, len(said), 12)]
        documents.append(f" = Number {number} = \n\n " + " .\n ".join(lines) + "\n\n")
    return "".join(documents)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("pretraining")
    (root / "prose.txt").write_text(prose(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GIPI_CACHE", str(root / "cache"))
        train(root, "masked", "teacher", steps=6, **{"model.layers": 4})
        yield root


def train(
    place: Path, task: str | tasks.Task, out: str, *, steps: int = 4, **more: Any
) -> gipi.Run:
    settings: dict[str, Any] = {**FIXED, **({} if task == "spans" else TINY), **more}
    if "teacher" in more:
        settings = {k: v for k, v in settings.items()
                    if not k.startswith(("model.", "tokenizer."))}  # fmt: skip
    if task == "spans":
        settings |= {"model.width": 16, "model.heads": 2, "model.layers": 1,
                     "tokenizer.vocab": 300}  # fmt: skip
    return gipi.train(str(place / "prose.txt"), task=task, steps=steps, batch_size=16, seed=0,
                      out=str(place / out), quiet=True, settings=settings)  # fmt: skip


def test_hidden_tokens_are_learnt_and_the_folder_opens_in_transformers(place: Path) -> None:
    run = gipi.load(place / "teacher")
    assert {"val/hidden_accuracy", "val/hidden_perplexity"} <= set(run.metrics)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertForMaskedLM.from_pretrained(place / "teacher" / HUB).eval()
    ours = load_folder(place / "teacher" / HUB).model
    ids = torch.tensor([[2, 9, 10, 11, 3]])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(input_ids=ids).logits,
                                   rtol=1e-4, atol=1e-5)  # fmt: skip


def test_a_resumed_run_ends_with_the_same_weights(place: Path) -> None:
    whole = train(place, "masked", "whole", save_every=1, keep=9, **{"task.whole_words": True})
    shutil.copytree(place / "whole", place / "cut")
    for step in (3, 4):
        shutil.rmtree(place / "cut" / "checkpoints" / f"step-{step}", ignore_errors=True)
    (place / "cut" / "result.json").unlink()
    again = gipi.resume(str(place / "cut"), quiet=True)
    assert again.result["weights_sha256"] == whole.result["weights_sha256"]


def test_a_task_of_ones_own_decides_how_text_is_read(place: Path) -> None:
    run = train(place, tasks.masked(share=0.4), "own")
    assert run.result["task"] == "masked"
    found = load(place / "own").schema.of("input", "text")[0].stats["pretext"]
    assert found["share"] == 0.4


def test_pairs_and_spans_run_to_the_end(place: Path) -> None:
    pairs = train(place, "masked", "pairs", **{"task.next_sentence": True})
    assert 0 <= pairs.metrics["val/follows_accuracy"] <= 1
    spans = train(place, "spans", "spans")
    assert spans.result["model"] == "t5"
    config = json.loads((place / "spans" / HUB / "config.json").read_text())
    assert config["model_type"] == "t5"
    assert load_folder(place / "spans" / HUB).model.config.embed.vocab == config["vocab_size"]


def test_a_student_begins_as_half_of_its_teacher_and_stands_alone(place: Path) -> None:
    run = train(place, "masked", "student", teacher=str(place / "teacher"))
    said = "\n".join(read_config(place / "student")[2]["choices"])
    assert "2 of its 4 blocks begin the student" in said
    assert "of its teacher's" in said
    assert "times as fast" in said
    free = train(place, "masked", "free", teacher=str(place / "teacher"), max_length=None)
    assert read_config(place / "free")[0]["max_length"] == 24  # the positions of its teacher
    assert free.metrics["val/hidden_perplexity"] > 1
    hidden = (place / "teacher").rename(place / "hidden")
    try:
        assert gipi.load(place / "student").model is not None
    finally:
        hidden.rename(place / "teacher")
    assert run.metrics["val/hidden_perplexity"] > 1


def test_a_killed_student_goes_on_to_the_same_weights(place: Path) -> None:
    whole = train(place, "masked", "taught", teacher=str(place / "teacher"), save_every=1, keep=9)
    cut = place / "taught-cut"
    shutil.copytree(place / "taught", cut)
    for step in (2, 3, 4):
        shutil.rmtree(cut / "checkpoints" / f"step-{step}", ignore_errors=True)
    (cut / "result.json").unlink()
    shutil.rmtree(cut / "model")
    again = gipi.resume(str(cut), quiet=True)
    assert again.result["weights_sha256"] == whole.result["weights_sha256"]
    alone = train(place, "masked", "untaught", **{"model.layers": 2})
    assert alone.result["weights_sha256"] != whole.result["weights_sha256"]


def test_what_was_learnt_from_text_starts_a_classifier(place: Path) -> None:
    write_rows(place / "texts.csv", reviews(60), ("text", "label"))
    settings = {"precision": "fp32", "threads": 1, "gemm": "native",
                "pretrained": str(place / "teacher")}  # fmt: skip
    run = gipi.train(str(place / "texts.csv"), steps=2, quiet=True, out=str(place / "fine"),
                     settings=settings)  # fmt: skip
    assert run.result["model"] == "pretrained"


@pytest.mark.parametrize("task", ["masked", "spans"])
def test_text_is_not_augmented_like_pictures(place: Path, task: str) -> None:
    with pytest.raises(DataError, match="augment for running text") as error:
        train(place, task, "no", augment=["flip"])
    assert error.value.do == "leave augment out"
    assert not (place / "no").exists()


def test_what_cannot_be_is_refused(place: Path) -> None:
    with pytest.raises(RequestError) as answer:
        gipi.load(place / "teacher").predict(["a text"])
    assert "it has no answer for a row" in answer.value.found
    with pytest.raises(ModelError) as model:
        train(place, "masked", "no", teacher=str(place / "teacher"), model="textcnn")
    assert "the model 'textcnn' for the task masked" in model.value.found
    with pytest.raises(ConfigError) as task:
        gipi.train(str(place / "prose.txt"), task="spans", steps=1, quiet=True,
                   settings={"teacher": str(place / "teacher")})  # fmt: skip
    assert "teacher=" in task.value.found
    with pytest.raises(ConfigError) as start:
        train(place, "masked", "no", pretrained=str(place / "teacher"))
    assert "with the task masked" in start.value.found
    train(place, "spans", "gone")
    with pytest.raises(ModelError) as spans:
        train(place, "masked", "no", teacher=str(place / "gone"))
    assert "which is no encoder" in spans.value.found
