"""Runs that start from an encoder that others trained: three ways, one word each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import gipi
from gipi.core import resolve
from gipi.core.config import Config, Recipe
from gipi.core.errors import ConfigError, ModelError, RequestError
from gipi.core.rundir import read_config
from gipi.deploy.predict import load
from gipi.models import load_folder
from gipi.models.hub_folder import read_json, write_json
from gipi.train import fit
from gipi.train.transfer import BODY_LR, FEW, settled, way_of
from tests.data.texts import reviews, write_rows
from tests.folders import POSITIONS, tiny_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXED = {"precision": "fp32", "threads": 1, "gemm": "native", "samples": False}
BODY = ("body.embed.", "body.encoder.")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a table of texts and a tiny encoder."""
    root = tmp_path_factory.mktemp("transfer")
    write_rows(root / "texts.csv", reviews(120), ("text", "label"))
    tiny_folder(root / "encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GIPI_CACHE", str(root / "cache"))
        yield root


def train(place: Path, way: str | None, out: str, *, steps: int = 4, **more: Any) -> gipi.Run:
    """Train a few steps from the tiny encoder."""
    settings = {"pretrained": str(place / "encoder"), "transfer": way, "micro_batch": None, **FIXED}
    return gipi.train(str(place / "texts.csv"), steps=steps, batch_size=16, seed=0,
                      out=str(place / out), quiet=True, settings={**settings, **more})  # fmt: skip


def body(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the pre-trained tensors of a model by the names of the encoder's."""
    return {n.removeprefix("body."): t for n, t in model.state_dict().items()
            if n.startswith(BODY)}  # fmt: skip


def choices(folder: Path) -> str:
    """Return what a run says that it chose."""
    return "\n".join(read_config(folder)[2]["choices"])


def before(place: Path) -> dict[str, torch.Tensor]:
    """Return the tensors as the folder has them."""
    return load_folder(place / "encoder").model.state_dict()


def test_frozen_layers_do_not_move_and_the_head_does(place: Path) -> None:
    run = train(place, "frozen", "frozen", lr=0.05)
    old, new = before(place), body(run.model)
    assert new
    assert all(torch.equal(old[name], tensor) for name, tensor in new.items())
    said = choices(place / "frozen")
    assert "transfer: frozen (as asked): the encoder stays, the head learns at 0.05" in said
    assert "body.head.weight" in said


def test_everything_moves_in_full_and_the_body_less(place: Path) -> None:
    run = train(place, "full", "full", lr=1e-3, body_lr=1e-5)
    old, new = before(place), body(run.model)
    moved = {name: float((old[name] - t).abs().max()) for name, t in new.items()}
    assert all(0 < m < 4.1e-5 for name, m in moved.items() if "segments" not in name)
    said = choices(place / "full")
    assert "the encoder learns at 1e-05, the head at 0.001" in said


def test_gradual_holds_the_body_first_and_then_lets_it_go(place: Path) -> None:
    held = train(place, "gradual", "held", steps=4, thaw=0.9)
    freed = train(place, "gradual", "freed", steps=4, thaw=0.5)
    old = before(place)
    assert all(torch.equal(old[n], t) for n, t in body(held.model).items())
    assert any(not torch.equal(old[n], t) for n, t in body(freed.model).items())


def test_a_gradual_run_resumes_to_the_same_weights(place: Path) -> None:
    whole = train(place, "gradual", "whole", steps=6, thaw=0.5, save_every=1, keep=9)
    folder = place / "cut"
    shutil.copytree(place / "whole", folder)
    for step in (4, 5, 6):
        shutil.rmtree(folder / "checkpoints" / f"step-{step}", ignore_errors=True)
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "model")
    hidden = (place / "encoder").rename(place / "hidden")  # a resumed run does without the folder
    try:
        again = gipi.resume(str(folder), quiet=True)
    finally:
        hidden.rename(place / "encoder")
    assert again.result["weights_sha256"] == whole.result["weights_sha256"]


def test_long_texts_are_cut_alike_when_a_run_goes_on(place: Path) -> None:
    long = [[" ".join([text] * 6), label] for text, label in reviews(60)]
    write_rows(place / "long.csv", long, ("text", "label"))
    settings = {"pretrained": str(place / "encoder"), "save_every": 1, "keep": 9, **FIXED}
    whole = gipi.train(str(place / "long.csv"), steps=3, batch_size=16, seed=0, quiet=True,
                       out=str(place / "long"), settings=settings)  # fmt: skip
    assert f"max_length={POSITIONS}: the model reads no more" in choices(place / "long")
    for step in (2, 3):
        shutil.rmtree(place / "long" / "checkpoints" / f"step-{step}", ignore_errors=True)
    (place / "long" / "result.json").unlink()
    again = gipi.resume(str(place / "long"), quiet=True)
    assert again.result["weights_sha256"] == whole.result["weights_sha256"]


def test_a_model_folder_answers_without_the_folder_it_began_with(place: Path) -> None:
    train(place, "full", "alone")
    hidden = (place / "encoder").rename(place / "hidden")
    try:
        found = load(place / "alone").predict(["this was a lovely film"])
    finally:
        hidden.rename(place / "encoder")
    assert found.values["label"][0] in {"good", "bad"}


def test_numbers_and_pairs_start_from_an_encoder_too(place: Path) -> None:
    rows = [[t, f"day {i} of many, {t[:20]}", i / 7 + (i % 3)] for i, (t, _) in
            enumerate(reviews(80))]  # fmt: skip
    write_rows(place / "pairs.csv", rows, ("one", "two", "score"))
    settings = {"pretrained": str(place / "encoder"), **FIXED}
    run = gipi.train(str(place / "pairs.csv"), steps=3, out=str(place / "pairs"), quiet=True,
                     settings=settings)  # fmt: skip
    assert run.result["task"] == "regress"
    schema = load(place / "pairs").schema
    assert schema.of("input", "text")[0].stats["length"] <= POSITIONS


def test_few_rows_keep_the_encoder_and_many_move_it() -> None:
    config = Config(pretrained="x")
    few, many = way_of(config, FEW - 1), way_of(config, 10 * FEW)
    assert (few.word, many.word) == ("frozen", "full")
    assert "learn them by heart" in few.why
    values, said = settled(Config(pretrained="x", lr=1e-3), many, ("body.encoder",))
    assert values["rates"] == {"body.encoder": BODY_LR / 1e-3}
    assert "5e-05" in said
    slow, _ = settled(Config(pretrained="x", lr=1e-5), many, ("body.encoder",))
    assert slow["rates"] == {"body.encoder": 1.0}
    sgd, _ = settled(Config(pretrained="x", lr=0.1, optimizer="sgd"), many, ("body",))
    assert sgd["rates"]["body"] == pytest.approx(0.1)


# ------------------------------------------------------------------ what is refused


def test_a_tokenizer_that_does_not_fit_is_refused_by_name(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "encoder", tmp_path / "other")
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "pad_token_id": 3})
    with pytest.raises(ModelError) as error:
        train(place, "full", "no", pretrained=str(folder))
    assert "the pad token is 0 ([PAD]), to the model it is 3" in error.value.found
    write_json(folder / "config.json", {**config, "vocab_size": 20})
    with pytest.raises(ModelError) as error:
        train(place, "full", "no", pretrained=str(folder))
    assert "20 rows" in error.value.found
    assert not (place / "no").exists()


def test_what_does_not_go_with_a_folder_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        train(place, "full", "no", model="textcnn")
    assert "model=textcnn with pretrained=" in error.value.found
    with pytest.raises(ConfigError) as error:
        train(place, "full", "no", max_length=POSITIONS + 1)
    assert f"for an encoder of {POSITIONS} positions" in error.value.found
    with pytest.raises(ModelError) as nothing:
        train(place, "full", "no", pretrained=str(tmp_path / "nowhere"))
    assert "no config.json" in nothing.value.found
    with pytest.raises(RequestError) as empty:
        train(place, "full", "no", pretrained=str(tmp_path))
    assert f"pretrained={tmp_path}: " in empty.value.found
    assert "a folder in Hugging Face form" in empty.value.needed
    assert empty.value.do == "name the folder that holds config.json, or a run"
    with pytest.raises(ConfigError) as alone:
        gipi.train(str(place / "texts.csv"), steps=1, settings={"transfer": "full"}, quiet=True)
    assert "pretrained" in alone.value.found
    with pytest.raises(ModelError) as bare:
        gipi.train(str(place / "texts.csv"), model="pretrained", steps=1, quiet=True)
    assert bare.value.do == "start with --set pretrained=FOLDER"


def test_thaw_needs_something_frozen() -> None:
    rows = (torch.randn(8, 3), torch.tensor([0, 1] * 4))
    recipe = Recipe(steps=2, batch_size=4, thaw=0.5)
    with pytest.raises(ConfigError) as error:
        fit(nn.Linear(3, 2), nn.functional.cross_entropy, rows, recipe)
    assert "thaw=0.5 without freeze" in error.value.found
    wrong = Recipe(steps=2, batch_size=4, thaw=0.5, freeze=("nothing",))
    with pytest.raises(ConfigError) as error:
        fit(nn.Linear(3, 2), nn.functional.cross_entropy, rows, wrong)
    assert "'nothing' matches no parameter" in error.value.found


def test_a_part_that_is_frozen_whole_drops_nothing() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9)), nn.Dropout(0.5),
                          nn.Linear(4, 2))  # fmt: skip
    rows = (torch.randn(8, 3), torch.tensor([0, 1] * 4))
    fit(model, nn.functional.cross_entropy, rows, Recipe(steps=1, batch_size=8, freeze=("0",)))
    assert [m.training for m in (model[0][1], model[1])] == [False, True]


def test_the_settings_of_a_run_say_what_was_chosen(place: Path) -> None:
    train(place, None, "said", steps=2)
    said = choices(place / "said")
    assert "training rows: a whole encoder would learn them by heart" in said
    result = json.loads((place / "said" / "result.json").read_text())
    assert result["model"] == "pretrained"


def test_rates_are_typed_part_by_part() -> None:
    typed = resolve.layer_from_flags({}, ["rates.body.embed=0.01", "pretrained=x"])
    assert resolve.resolve(typed).config.rates == {"body.embed": 0.01}
    run = resolve.layer("run", [("rates", {"body": 0.05}, "run")])  # as config.yaml holds them
    assert resolve.resolve(run).config.rates == {"body": 0.05}
    values, _ = settled(resolve.resolve(typed).config, way_of(Config(pretrained="x"), 9999),
                        ("body.embed", "body.encoder"))  # fmt: skip
    assert values["rates"] == {"body.embed": 0.01, "body.encoder": pytest.approx(BODY_LR / 1e-3)}
