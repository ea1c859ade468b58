import inspect
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import gipi
from gipi import api
from gipi.core.errors import ConfigError, ModelError, RequestError
from gipi.core.rundir import read_config

# Nothing is left to be measured: every test takes the same arithmetic.
FIXED = {"precision": "fp32", "threads": 1, "layout": "contiguous", "gemm": "native"}


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def arrays(rows=120):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(rows, 4)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int64)


def small(**more):
    return {**FIXED, "model.widths": [8], **more}


def test_the_public_names_are_those_of_all():
    for name in gipi.__all__:
        assert getattr(gipi, name) is not None
    assert set(gipi.__all__) <= set(dir(gipi))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        gipi.trian  # noqa: B018


def test_train_is_a_function_and_a_folder():
    import gipi.train
    from gipi.train import fit

    assert gipi.train.fit is fit is gipi.fit
    assert callable(gipi.train)


def test_arrays_in_a_run_out(capsys):
    run = gipi.train(arrays(), steps=30, out="r", settings=small(), lr=0.01)
    assert run.metrics["test/accuracy"] > 0.6
    assert {"val/loss", "val/accuracy", "test/loss"} <= set(run.metrics)
    printed = capsys.readouterr().out
    assert "model: mlp" in printed
    assert "lr=0.01 (argument lr)" in printed
    assert isinstance(run.model, nn.Module)
    assert not run.model.training
    said = run.predict(arrays()[0][:5])
    assert len(said) == 5
    assert {r["step"] for r in run.rows if "train/loss" in r}
    assert "<iframe" in run._repr_html_()
    loaded = gipi.load("r")
    assert loaded.metrics == run.metrics
    assert loaded.summary() == run.summary()
    split = json.loads((run.path / "split.json").read_text())
    ids = [i for part in split["rows"].values() for i in part]
    assert len(ids) == len(set(ids))


def test_quiet_prints_nothing(capsys):
    gipi.train(arrays(), steps=2, settings=small(), quiet=True)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_own_module_and_task_and_resume_with_the_same_objects():
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))

    data = arrays()
    first = gipi.train(data, model=build(), steps=4, out="r", settings=FIXED, quiet=True)
    assert first.result["model"] == "Sequential"
    with pytest.raises(RequestError, match="the same objects again"):
        gipi.resume("r", steps=8)
    with pytest.raises(ConfigError, match="other weights"):
        gipi.resume("r", steps=8, data=data, model=nn.Linear(4, 2), quiet=True)
    with pytest.raises(ConfigError, match="has changed"):
        gipi.resume("r", steps=8, data=(data[0] + 1, data[1]), model=build(), quiet=True)
    longer = gipi.resume("r", steps=8, data=data, model=build(), quiet=True)
    assert longer.result["steps"] == 8


def test_a_run_of_an_own_module_answers_and_is_loaded_into_the_module():
    net, fresh, other = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(5, 2)
    x, y = arrays()
    run = gipi.train((x, y), model=net, steps=4, settings=FIXED, quiet=True)
    assert run.model is net
    assert not net.training
    labels = run.predict(x[:5]).labels
    again = gipi.load(run.path, model=fresh)
    assert torch.equal(fresh.weight, net.weight)
    assert again.predict(x[:5]).labels == labels
    with pytest.raises(ModelError, match="module of your own"):
        gipi.load(run.path).predict(x[:5])
    with pytest.raises(ModelError):
        gipi.load(run.path, model=other)


def test_a_resumed_run_ends_with_the_weights_of_the_uninterrupted_one():
    class Stop(Exception):
        pass

    def breaks(step):
        if step.when == "row" and step.step >= 6:
            raise Stop

    settings = small(save_every=3, log_every=1)
    whole = gipi.train("iris", steps=12, out="whole", settings=settings, quiet=True)
    with pytest.raises(Stop):
        gipi.train("iris", steps=12, out="cut", settings=settings, observers=[breaks], quiet=True)
    assert gipi.load("cut").result == {}
    again = gipi.resume("cut", quiet=True)
    assert again.result["weights_sha256"] == whole.result["weights_sha256"]
    assert again.metrics == whole.metrics


def test_a_resumed_run_keeps_the_origins_of_its_values():
    gipi.train("iris", steps=2, out="r", settings=small(), lr=0.01, quiet=True)
    gipi.resume("r", steps=3, quiet=True)
    _, origins, _ = read_config(gipi.load("r").path)
    assert (origins["lr"], origins["steps"]) == ("argument lr", "argument steps")


def test_a_smaller_budget_is_refused():
    gipi.train("iris", steps=9, out="r", settings=small(), quiet=True)
    for budget in ({"steps": 8}, {"epochs": 0.5}):
        with pytest.raises(ConfigError, match="already done 9 steps"):
            gipi.resume("r", **budget, quiet=True)


def test_a_value_that_equals_the_default_outlives_the_recipe():
    """The recipe for a table decays weights and clips; the caller wants neither, now or later."""
    plain = small(weight_decay=0, clip_norm=None)
    gipi.train("diabetes", steps=2, out="r", settings=plain, quiet=True)
    gipi.resume("r", steps=3, quiet=True)
    values, _, _ = read_config(gipi.load("r").path)
    assert values["weight_decay"] == 0
    assert values["clip_norm"] is None


def test_the_files_own_budget_gives_way_to_the_call(tmp_path):
    file = tmp_path / "t.yaml"
    file.write_text("epochs: 50\nmodel: {name: mlp, widths: [4]}\n")
    run = gipi.train("iris", config=file, steps=3, settings=FIXED, quiet=True)
    assert run.result["steps"] == 3


def test_evaluate_a_run_and_weights_from_elsewhere(tmp_path):
    run = gipi.train("iris", steps=20, out="r", settings=small(), quiet=True)
    score = gipi.evaluate("r")["metrics"]["test/accuracy"]
    assert score == pytest.approx(run.metrics["test/accuracy"])
    file = tmp_path / "w.pt"
    state = {f"module.{k}": v for k, v in run.model.state_dict().items()}
    torch.save({"state_dict": state}, file)
    found = gipi.evaluate("iris", model="mlp", weights=file, settings={"model.widths": [8]})
    assert found["metrics"]["test/accuracy"] == pytest.approx(score)
    with pytest.raises(RequestError, match="do not fit"):
        gipi.evaluate("iris", model="mlp", weights=file, settings={"model.widths": [9]})


def test_test_zero_scores_nothing_on_the_test_set(tmp_path, capsys):
    x, y = arrays()
    data = {"x": x[:, 0], "z": x[:, 1], "part": np.repeat(["train", "test"], [90, 30]), "y": y}
    run = gipi.train(data, "y", steps=20, out=tmp_path / "r",
                     settings={**FIXED, "split_column": "part", "test": 0})  # fmt: skip
    assert {k.partition("/")[0] for k in run.metrics} == {"val"}
    assert "test=0: the 30 given test rows are left out" in capsys.readouterr().out
    assert json.loads((run.path / "evaluation" / "summary.json").read_text())["split"] == "val"
    assert "test" not in json.loads((run.path / "split.json").read_text())["rows"]


def test_nothing_held_back_is_said_by_the_name_of_the_score():
    run = gipi.train("iris", steps=3, settings=small(val=0, test=0), quiet=True)
    assert set(run.metrics) == {"train/loss", "train/accuracy"}


def test_a_run_without_samples_shows_no_row():
    run = gipi.train("iris", steps=3, settings=small(samples=False), quiet=True)
    summary = json.loads((run.path / "evaluation" / "summary.json").read_text())
    assert "worst" not in summary


def test_open_and_model():
    data = gipi.open("iris", settings={"val": 0.2})
    assert set(data.splits) == {"train", "val", "test"}
    net = gipi.model("mlp", numbers=4, classes=3, options={"widths": [5]})
    assert net(torch.zeros(2, 4)).shape == (2, 3)


def test_the_recipe_gives_way_to_another_optimizer():
    run = gipi.train("iris", steps=2, out="r", settings=small(optimizer="sgd"), quiet=True)
    values, origins, _ = read_config(run.path)
    assert origins["optimizer"] == "argument optimizer"
    assert values["lr"] == 0.1
    assert values["weight_decay"] == 0


# gloo looks for an interface by the name of the machine, which need not be known anywhere
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo and torchrun as on Linux")
def test_two_ranks_end_with_the_weights_of_one(tmp_path):
    settings = [f"{k}={v}" for k, v in small(batch_size=8, **{"model.dropout": 0}).items()]
    args = ["-m", "gipi", "train", "iris", "--steps", "5", "--json", "--quiet", "--out"]
    options = [part for s in settings for part in ("--set", s)]
    found = []
    for out, before in (
        ("one", []),
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]),
    ):
        done = subprocess.run(
            [sys.executable, *before, *args, out, *options],
            capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", **LOOPBACK},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        found.append(next(json.loads(t) for t in done.stdout.splitlines() if '"steps"' in t))
    one, two = (api.load(out).model.state_dict() for out in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)
    assert found[0]["steps"] == found[1]["steps"] == 5


def test_a_run_on_data_of_ones_own_asks_for_it_again():
    x, y = arrays()
    run = gipi.train((x, y), steps=2, quiet=True, settings=small())
    with pytest.raises(RequestError, match="started with its own data"):
        gipi.resume(run, steps=4)
    with pytest.raises(RequestError, match="started with its own data"):
        gipi.evaluate(run)
    assert gipi.evaluate(run, data=(x, y))["data"] == "tuple"


def test_tensorboard_is_a_switch():
    pytest.importorskip("tensorboard")
    run = gipi.train(
        arrays(), epochs=1, quiet=True, settings=small(tensorboard=True), out="with-board"
    )
    assert list((run.path / "tensorboard").glob("events.out.tfevents.*"))
    plain = gipi.train(arrays(), epochs=1, quiet=True, settings=small(), out="without")
    assert not (plain.path / "tensorboard").exists()


def test_train_shows_its_signature_although_a_folder_has_its_name():
    assert callable(gipi.train)
    assert inspect.signature(gipi.train) == inspect.signature(api.train)
    assert "epochs" in inspect.signature(gipi.train).parameters


def test_a_model_of_texts_has_the_head_that_was_asked_for() -> None:
    net = gipi.model("textcnn", classes=3, vocab=50, length=12)
    assert net(torch.randint(1, 50, (2, 12))).shape == (2, 3)
