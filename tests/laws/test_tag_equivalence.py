"""Laws 2 and 3 on tags: micro-batches, ranks, padding and an interruption change no weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gipi import models, tasks
from gipi.core.config import Recipe
from gipi.data import DataOptions, Dataset, RowStream, open_data
from gipi.train import Setup, checkpoint, fit
from tests.data.sentences import asked, tagged, write_conll, write_squad

STEPS = 25
SMALL: dict[str, dict[str, Any]] = {
    "bilstm-tagger": {"embedding": 8, "letter": 4, "filters": 5, "shape": 3, "width": 6,
                      "dropout": 0.0, "word_dropout": 0.0},
    "bert": {"width": 8, "layers": 1, "heads": 2, "dropout": 0.0},
}  # fmt: skip
CASES = ("bilstm-tagger", "bert", "answer")


def opened(case: str, folder: Path) -> Dataset:
    if case == "answer":
        file = write_squad(folder / "people.json", asked(20, fill=8))
        return open_data(file, DataOptions(tokenizer="word", max_length=32, val=0, test=0))
    rows = [row * (1 + k % 3) for k, row in enumerate(tagged(60))]  # of very different lengths
    units: Any = "words" if case == "bilstm-tagger" else "pieces"
    return open_data(write_conll(folder / "people.conll", rows),
                     DataOptions(units=units, val=0, test=0))  # fmt: skip


def trained(case: str, found: Dataset, stream: RowStream, **recipe: Any) -> torch.Tensor:
    name = "bert" if case == "answer" else case
    task = tasks.answer() if case == "answer" else tasks.tag()
    options = {k: v for k, v in recipe.items() if k in ("out", "resume")}
    settings = {k: v for k, v in recipe.items() if k not in options}
    signature = found.signature(task.outputs(found.schema))
    model = models.build(name, signature, options={**SMALL[name], **settings.pop("model", {})})
    values = {"steps": STEPS, "optimizer": "sgd", "lr": 0.1, **settings}
    fit(model.double(), task, stream, Recipe(**values), schema=found.schema, setup=Setup(),
        device="cpu", **options)  # fmt: skip
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_change_no_weight(case: str, tmp_path: Path) -> None:
    found = opened(case, tmp_path)
    whole, parts = (
        trained(case, found, found.stream("train", batch_size=12), micro_batch=micro)
        for micro in (None, 5)
    )
    assert float((whole - parts).abs().max()) < 1e-10
    assert float((whole - parts[torch.randperm(len(parts))]).abs().max()) > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_wider_padding_changes_no_weight(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(case, tmp_path)
    narrow = trained(case, found, found.stream("train", batch_size=12))
    width = 40 if case == "answer" else 96  # an encoder has places for so many
    monkeypatch.setattr("gipi.data.tokens.width_of", lambda n: max(n, width // 3))
    wide = trained(case, found, found.stream("train", batch_size=12))
    assert float((narrow - wide).abs().max()) < 1e-10


@pytest.mark.parametrize("case", CASES)
def test_the_shares_of_ranks_are_the_batch(case: str, tmp_path: Path) -> None:
    found = opened(case, tmp_path)
    whole = list(found.stream("train", batch_size=12).epoch(0))
    shares = [
        list(found.stream("train", batch_size=12, rank=r, world=2).epoch(0)) for r in range(2)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        for name, values in batch.inputs.items():
            assert torch.equal(values, torch.cat([p.inputs[name] for p in parts]))
        assert batch.target is not None
        assert torch.equal(
            batch.target, torch.cat([p.target for p in parts if p.target is not None])
        )


class Kill(Exception):
    """The end of a process."""


@pytest.mark.parametrize("case", ["bilstm-tagger", "answer"])
def test_a_resumed_run_ends_bit_identical(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(case, tmp_path)
    recipe: dict[str, Any] = {
        "optimizer": "adamw", "lr": 0.01, "save_every": 5, "clip_norm": 1.0,
        "model": {"dropout": 0.3, **({"word_dropout": 0.2} if case != "answer" else {})},
    }  # fmt: skip
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()

    def run(name: str, *, resume: bool = False) -> torch.Tensor:
        torch.manual_seed(5 if name == "whole" or not resume else 99)
        stream = found.stream("train", batch_size=12)
        return trained(case, found, stream, out=tmp_path / name, resume=resume, **recipe)

    whole, saved = run("whole"), checkpoint.save

    def until(place: Path, state: Any, **options: Any) -> Path:
        if state.step > 12:
            raise Kill
        return saved(place, state, **options)

    monkeypatch.setattr(checkpoint, "save", until)
    with pytest.raises(Kill):
        run("broken")
    monkeypatch.setattr(checkpoint, "save", saved)
    assert torch.equal(whole, run("broken", resume=True))
