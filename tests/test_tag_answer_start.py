"""Taggers and readers that start from an encoder which others trained, by commands."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

import gipi
from gipi import models
from gipi.cli import main
from gipi.core.rundir import read_config
from gipi.models import load_folder
from tests.commands import FIXED
from tests.data.sentences import asked as questions
from tests.data.sentences import tagged, write_conll, write_squad
from tests.folders import tiny_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {"tag": "people.conll", "answer": "people.json"}
HEADS = {"tag": models.TokenTagger, "answer": models.SpanReader}
POSITIONS = 40  # fewer than question and context have: the contexts become windows
START = ["--set", "pretrained=encoder", "--steps", "4", "--set", "batch_size=16", *FIXED]


def said(folder: Path) -> str:
    return "\n".join(read_config(folder)[2]["choices"])


def moved(run: gipi.Run, encoder: Path) -> bool:
    """Return whether the body of a run differs from the folder's."""
    before = load_folder(encoder).model.state_dict()
    body = {n.removeprefix("body."): t for n, t in run.model.state_dict().items()}
    pairs = [(t, body[n]) for n, t in before.items() if n.startswith(("embed.", "encoder."))]
    assert pairs
    return any(not torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an encoder, and a run of each task that began with it."""
    root = tmp_path_factory.mktemp("start")
    write_conll(root / "people.conll", tagged(120))
    articles = questions(20, none=True, fill=20)
    write_squad(root / "people.json", articles)
    texts = [p["context"] for a in articles for p in a["paragraphs"]]
    texts += [" ".join(w for w, _ in row) for row in tagged(120)]
    tiny_folder(root / "encoder", texts=texts, positions=POSITIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GIPI_CACHE", str(root / "cache"))
        for task, file in FILES.items():
            assert main(["train", file, "--task", task, *START, "--out", task,
                         "--set", "transfer=full", "--set", "save_every=1",
                         "--set", "keep=9"]) == 0  # fmt: skip
        yield root


@pytest.mark.parametrize("task", FILES)
def test_the_body_is_the_folders_and_the_head_is_new(place: Path, task: str) -> None:
    run = gipi.load(place / task)
    assert (run.result["task"], run.result["model"]) == (task, "pretrained")
    assert isinstance(run.model, HEADS[task])
    about = said(place / task)
    assert "new: body.head.weight, body.head.bias" in about
    assert "transfer: full (as asked)" in about
    assert moved(run, place / "encoder")
    assert max(p.shape[0] for n, p in run.model.named_parameters() if "positions" in n) == POSITIONS


@pytest.mark.parametrize("task", FILES)
def test_frozen_and_gradual_hold_the_body_as_long_as_they_say(place: Path, task: str) -> None:
    for way, more in {"frozen": [], "gradual": ["--set", "thaw=0.9"]}.items():
        assert main(["train", FILES[task], *START, "--set", f"transfer={way}", *more,
                     "--out", f"{task}-{way}"]) == 0  # fmt: skip
        run = gipi.load(place / f"{task}-{way}")
        assert not moved(run, place / "encoder")
        assert f"transfer: {way} (as asked)" in said(place / f"{task}-{way}")
    assert main(["train", FILES[task], *START, "--set", "transfer=gradual", "--set", "thaw=0.5",
                 "--out", f"{task}-freed"]) == 0  # fmt: skip
    assert moved(gipi.load(place / f"{task}-freed"), place / "encoder")


@pytest.mark.parametrize("task", FILES)
def test_a_killed_run_goes_on_to_the_same_weights_without_the_folder(
    place: Path, task: str
) -> None:
    cut = place / f"{task}-cut"
    shutil.copytree(place / task, cut)
    for step in (3, 4):
        shutil.rmtree(cut / "checkpoints" / f"step-{step}", ignore_errors=True)
    (cut / "result.json").unlink()
    shutil.rmtree(cut / "model")
    hidden = (place / "encoder").rename(place / "hidden")
    try:
        again = gipi.resume(str(cut), quiet=True)
    finally:
        hidden.rename(place / "encoder")
    assert again.result["weights_sha256"] == gipi.load(place / task).result["weights_sha256"]


def test_the_deployed_folders_answer_without_the_folder(place: Path, asked: Any) -> None:
    hidden = (place / "encoder").rename(place / "hidden")
    try:
        found = asked("predict", "tag", "Ben Cole went to Lima in 1950.")["predictions"][0]
        context = "all were glad. Hal lives in Oslo. the sun was out"
        one = asked("predict", "answer", "Where does Hal live?", context)["predictions"][0]
        scored = asked("evaluate", "answer")["metrics"]
    finally:
        hidden.rename(place / "encoder")
    assert found["tokens"] == ["Ben", "Cole", "went", "to", "Lima", "in", "1950", "."]
    assert one["answer"] == (context[one["start"] : one["end"]] if one["start"] >= 0 else "")
    wanted = gipi.load(place / "answer").metrics["test/answer_f1"]
    assert scored["test/answer_f1"] == pytest.approx(wanted, abs=1e-6)


def test_what_the_encoder_cannot_read_is_named(place: Path, asked: Any) -> None:
    rows = tagged(40)
    rows[7] = rows[7] * 12
    write_conll(place / "long.conll", rows)
    error = asked("train", "long.conll", *START, "--out", "never", code=2)["error"]
    assert f"the limit is {POSITIONS} (the model reads no more)" in error["found"]
    assert "long.conll line" in error["found"]
    wrong = asked("train", "people.conll", *START, "--set", "model.head=answer", "--out", "never",
                  code=2)["error"]  # fmt: skip
    assert wrong["found"] == "model.head=answer for data that asks to tag"
    assert not (place / "never").exists()
