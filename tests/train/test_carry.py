"""Runs that carry a state: as a loop by hand does it, whatever the micro-batch, and kill-proof."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

import gipi
from gipi import models, tasks
from gipi.core.config import Recipe
from gipi.core.errors import ConfigError
from gipi.core.rundir import read_config
from gipi.core.schema import Signature
from gipi.data import WindowStream
from gipi.data.text_windows import Running
from gipi.losses import token_losses
from gipi.nn import detached
from gipi.train import Setup, carry, checkpoint, evaluate, fit, state
from tests.data.prose import prose

if TYPE_CHECKING:
    from pathlib import Path

VOCAB, LENGTH, ROWS, LR = 11, 5, 3, 0.2
FIXED = {"precision": "fp32", "threads": 1, "gemm": "native", "samples": False, "max_length": 16,
         "model.width": 12, "model.embedding": 8, "batch_size": 4}  # fmt: skip


def text() -> Running:
    tokens = np.random.default_rng(0).integers(1, VOCAB, 200).astype(np.uint16)
    return Running(tokens, {"train": (0, 140), "val": (140, 200)}, LENGTH, 0, VOCAB)


def net(**options: Any) -> nn.Module:
    options = {"topology": "language-model", "width": 7, "embedding": 6, **options}
    signature = Signature(vocab=VOCAB, length=LENGTH, outputs=VOCAB)
    return models.build("lstm", signature, options=options).double()


def stream(part: str = "train", *, shuffle: bool = True) -> WindowStream:
    return WindowStream(text(), part, batch_size=ROWS, seed=1, shuffle=shuffle, carry=True)


def trained(model: nn.Module, steps: int, **more: Any) -> nn.Module:
    recipe = Recipe(steps=steps, optimizer="sgd", lr=LR, schedule="constant", **more)
    fit(model, tasks.generate(), stream(), recipe, setup=Setup(), device="cpu")
    return model


def by_hand(model: Any, steps: int) -> Any:
    """Train with the state carried, detached, and emptied at the beginning of each epoch."""
    made, done, epoch = stream(), 0, 0
    while done < steps:
        state = model.begin(ROWS)
        for batch in made.epoch(epoch):
            if done == steps:
                break
            scores, state = model.advance(batch.inputs["tokens"], detached(state))
            model.zero_grad()
            token_losses(scores, batch.target).mean().backward()
            with torch.no_grad():
                for p in model.parameters():
                    p.sub_(LR * p.grad)
            done += 1
        epoch += 1
    return model


def farthest(one: nn.Module, two: nn.Module) -> float:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def test_it_is_what_a_loop_by_hand_does() -> None:
    steps = 2 * stream().steps + 3  # over two beginnings
    found = trained(net(), steps)
    assert farthest(found, by_hand(net(), steps)) < 1e-10
    forgetful = net()
    forgetful.memory.hold = lambda places: None  # type: ignore[union-attr, assignment]
    assert farthest(found, trained(forgetful, steps)) > 1e-4


@pytest.mark.parametrize("micro", [1, 2])
def test_the_micro_batch_changes_nothing(micro: int) -> None:
    assert farthest(trained(net(), 20), trained(net(), 20, micro_batch=micro)) < 1e-10


def test_an_evaluation_in_between_has_a_memory_of_its_own() -> None:
    model: Any = net()
    recipe = Recipe(steps=1)
    carry.hold(model, stream(), recipe)
    for batch in [*stream().epoch(0)][:2]:
        model(*batch.inputs.values())
    before = model.memory.h.clone()
    val = stream("val", shuffle=False)
    found = evaluate(model, tasks.generate(), val)
    assert torch.equal(model.memory.h, before)
    state = model.begin(1)  # all of it as one row
    tokens = torch.from_numpy(text().tokens[140:200].astype(np.int64))[None]
    scores, _ = model.advance(tokens[:, :-1], state)
    whole = float(token_losses(scores, tokens[:, 1:]).mean().detach())
    assert val.places == 1
    assert found.metrics["loss"] == pytest.approx(whole, rel=1e-9)


def test_what_cannot_carry_a_state_is_refused() -> None:
    with pytest.raises(ConfigError, match="carry=true for a Linear, which has no state"):
        fit(nn.Linear(2, 2), tasks.generate(), stream(), Recipe(steps=1), device="cpu")
    newton = Recipe(steps=1, optimizer="lbfgs")
    with pytest.raises(ConfigError, match="carry=true with the optimizer lbfgs"):
        fit(net(), tasks.generate(), stream(), newton, device="cpu")


# ------------------------------------------------------------------ by commands


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("carry")
    (root / "book.txt").write_text(prose(60), encoding="utf-8")
    train(root, "whole", save_every=1, keep=99)
    return root


def train(place: Path, out: str, **more: Any) -> gipi.Run:
    settings = {**FIXED, "carry": True, **more}
    return gipi.train(str(place / "book.txt"), task="generate", model="lstm", steps=9, seed=0,
                      out=str(place / out), quiet=True, settings=settings)  # fmt: skip


def cut(place: Path, name: str, *, after: int) -> Path:
    """Return a copy of the run as if it had been killed behind this step."""
    folder = place / name
    shutil.copytree(place / "whole", folder)
    for step in range(after + 1, 10):
        shutil.rmtree(folder / "checkpoints" / f"step-{step}", ignore_errors=True)
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "model")
    return folder


def test_a_killed_run_goes_on_with_its_states(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gipi.load(place / "whole").result["weights_sha256"]
    folder = cut(place, "killed", after=4)
    tree = checkpoint.newest_good(folder)[1]
    assert (tree["step"], tree["batch"]) == (4, 4)  # in the middle of an epoch
    assert tree["memory"]["memory"]["h"].shape == (4, 1, 12)
    assert tree["memory"]["memory"]["h"].any()
    assert gipi.resume(str(folder), quiet=True).result["weights_sha256"] == whole
    monkeypatch.setattr(state, "remind", lambda model, content: None)
    lost = cut(place, "lost", after=4)
    assert gipi.resume(str(lost), quiet=True).result["weights_sha256"] != whole


def test_the_state_is_worth_something_and_no_part_of_the_model(place: Path) -> None:
    run, without = gipi.load(place / "whole"), train(place, "without", carry=False)
    assert run.result["weights_sha256"] != without.result["weights_sha256"]
    assert not any("memory" in name for name in run.model.state_dict())
    assert run.model.memory.places == 0  # type: ignore[union-attr]
    said = "\n".join(read_config(place / "whole")[2]["choices"])
    assert "each row goes on where that of the batch before ended" in said
    assert len(run.generate("the king", max_new_tokens=5)[0].tokens) == 5


def test_a_finished_run_is_judged_again_alike(place: Path) -> None:
    wanted = gipi.load(place / "whole").metrics["val/bits_per_byte"]
    again = gipi.evaluate(place / "whole")["metrics"]
    assert again["val/bits_per_byte"] == pytest.approx(wanted, rel=1e-5)


def test_a_transformer_has_no_state_to_carry(place: Path) -> None:
    with pytest.raises(ConfigError, match="carry=true for a NextToken") as error:
        gipi.train(str(place / "book.txt"), task="generate", steps=1, quiet=True,
                   out=str(place / "no"), settings={"carry": True, "max_length": 16})  # fmt: skip
    assert "--model lstm" in error.value.do
    assert not (place / "no").exists()
