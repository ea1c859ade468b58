"""Prediction: what the model says of the rows, whoever asks and in whatever form."""
# ruff: noqa: PD011  `.values` is the field of our Predictions, not that of a pandas frame

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from torch import nn

from gipi import models, tasks
from gipi.core import rundir
from gipi.core.batch import Batch
from gipi.core.errors import CheckpointError, DataError, ModelError, RequestError
from gipi.core.schema import Field, Schema
from gipi.data import DataOptions, open_data
from gipi.deploy import save_model_folder
from gipi.deploy.predict import load, one_row, seen_from


def table(rows=60):
    draw = np.random.default_rng(0)
    age = draw.normal(40, 12, rows).round(3)
    age[3] = np.nan
    city = draw.choice(["Seoul", "Busan", "대전"], rows)
    return pd.DataFrame(
        {"age": age, "city": city, "bought": np.where(np.nan_to_num(age) > 40, "yes", "no")}
    )


def saved(folder, data, target, *, model="mlp", task="classify", options=None, **data_options):
    """Save an untrained model for some data: what it says is arbitrary but fixed."""
    dataset = open_data(data, DataOptions(target=target, task=task, **data_options))
    made = tasks.build(task, options)
    signature = dataset.signature(made.outputs(dataset.schema))
    net = models.build(model, signature, seed=5)
    save_model_folder(
        folder, model=net, model_name=model, options={}, signature=signature,
        schema=dataset.schema, task_spec=made.spec,
    )  # fmt: skip
    return dataset, net.eval(), made


@pytest.fixture
def shop(tmp_path):
    frame = table()
    dataset, net, task = saved(tmp_path / "model", frame, "bought")
    return frame, dataset, net, task, load(tmp_path / "model", device="cpu")


def test_one_view_may_be_named_alone():
    image = Field("image", "image", "input", shape=(1, 4, 4), stats={"range": 1.0})
    schema = Schema((image, Field("y", "category", "target", classes=("a", "b"))))
    seen = []

    def net(x):
        seen.append(x)
        return x.flatten(1)[:, :2]

    task = seen_from(tasks.build("classify"), schema, "flip")
    task.forward(net, Batch({"image": torch.rand(2, 1, 4, 4)}, None, rows=2))
    assert torch.equal(seen[1], seen[0].flip(3))
    assert len(seen) == 2


def direct(net, dataset, split="all"):
    """Return the outputs of a plain forward pass over the rows in order, and their ids."""
    stream = dataset.stream(split, batch_size=7, shuffle=False)
    batches = list(stream.epoch(0))
    with torch.no_grad():
        outputs = torch.cat([net(*b.inputs.values()) for b in batches])
    return outputs, torch.cat([b.ids for b in batches]).numpy()


def test_predictions_are_the_models_own_forward_pass(shop):
    frame, dataset, net, _, predictor = shop
    answers = predictor.predict(frame)
    outputs = torch.empty(len(frame), 2)
    for split in dataset.splits:
        out, ids = direct(net, dataset, split)
        outputs[torch.from_numpy(ids)] = out
    p = torch.softmax(outputs.double(), 1).numpy()
    assert np.allclose(answers.values["probabilities"], p, rtol=1e-6, atol=0)
    expected = [predictor.classes[i] for i in p.argmax(1)]
    assert answers.labels == expected
    assert np.allclose(answers.values["probabilities"].sum(1), 1)
    assert answers.rows[:2] == ("row 1", "row 2")
    assert set(predictor.classes) == {"yes", "no"}


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing_that_matters(shop, batch_size):
    frame, *_, predictor = shop
    one = predictor.predict(frame, batch_size=batch_size).values["probabilities"]
    assert np.allclose(one, predictor.predict(frame).values["probabilities"], rtol=1e-5)


def test_every_form_of_the_same_rows_gets_the_same_answers(shop, tmp_path):
    frame, *_, predictor = shop
    expected = predictor.predict(frame).values["probabilities"]
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    forms = {
        "csv": tmp_path / "rows.csv",
        "csv by name": str(tmp_path / "rows.csv"),
        "parquet": tmp_path / "rows.parquet",
        "json lines": tmp_path / "rows.jsonl",
        "dict": {c: frame[c].to_numpy() for c in frame},
        "records": frame.to_dict("records"),
        "polars": pl.from_pandas(frame),
        "without the target": frame.drop(columns="bought"),
        "other order, more columns": frame[["city", "age"]].assign(note="x"),
    }
    for name, data in forms.items():
        got = predictor.predict(data).values["probabilities"]
        assert np.allclose(got, expected, rtol=1e-6), name


def test_one_row_is_a_dictionary(shop):
    frame, *_, predictor = shop
    row = {"age": float(frame.age[0]), "city": frame.city[0]}
    (answer,) = predictor.predict(row)
    assert answer["probabilities"] == pytest.approx(
        predictor.predict(frame)[0]["probabilities"], rel=1e-6
    )


def test_missing_and_unseen_values_are_answered(shop):
    *_, predictor = shop
    answers = predictor.predict([{"age": None, "city": "Paris"}, {"age": 30.0, "city": None}])
    assert len(answers) == 2
    assert np.isfinite(answers.values["probabilities"]).all()


def test_a_missing_column_is_named(shop):
    frame, *_, predictor = shop
    with pytest.raises(DataError, match="city"):
        predictor.predict(frame[["age"]])


def test_a_file_that_is_not_there_is_named(shop):
    *_, predictor = shop
    with pytest.raises(RequestError, match=r"gone\.csv"):
        predictor.predict("gone.csv")


def test_evaluation_scores_known_rows(shop):
    frame, *_, predictor = shop
    found = predictor.evaluate(frame)
    said = np.array(predictor.predict(frame).labels)
    assert found.metrics["accuracy"] == pytest.approx((said == frame.bought.to_numpy()).mean())
    assert found.rows == len(frame)
    p = predictor.predict(frame).records()
    truth = [r["probabilities"][b] for r, b in zip(p, frame.bought, strict=True)]
    assert found.metrics["loss"] == pytest.approx(-np.log(truth).mean(), rel=1e-5)


def test_evaluation_needs_the_target(shop):
    frame, *_, predictor = shop
    with pytest.raises(DataError, match="no column 'bought'"):
        predictor.evaluate(frame.drop(columns="bought"))


# ---------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("loss", ["mse", "gaussian_nll"])
def test_numbers_are_in_the_units_of_the_data(tmp_path, loss):
    frame = table().assign(price=lambda f: 1000 + 50 * f.age.fillna(0)).drop(columns="bought")
    dataset, net, _ = saved(tmp_path / "m", frame, "price", task="regress", options={"loss": loss})
    predictor = load(tmp_path / "m", device="cpu")
    answers = predictor.predict(frame)
    out, ids = direct(net, dataset, "test")
    stats = dataset.schema.target.stats
    value = out[:, 0].double().numpy() * stats["std"] + stats["mean"]
    assert np.allclose(answers.values["value"][ids], value, rtol=1e-6)
    assert ("std" in answers.values) == (loss == "gaussian_nll")
    if "std" in answers.values:
        assert (answers.values["std"] > 0).all()
    error = answers.values["value"] - frame.price.to_numpy()
    assert predictor.evaluate(frame).metrics["rmse"] == pytest.approx(np.sqrt((error**2).mean()))


# ---------------------------------------------------------------------------- pictures


@pytest.fixture
def photos(tmp_path):
    draw = np.random.default_rng(0)
    for name in ("hund", "katze"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            pixels = draw.integers(0, 256, (12, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    saved(tmp_path / "model", tmp_path / "photos", None, model="lenet5")
    return tmp_path / "photos", load(tmp_path / "model", device="cpu")


def test_pictures_as_files_folders_arrays_and_one_by_one(photos):
    folder, predictor = photos
    answers = predictor.predict(folder)
    by_name = {r["row"]: r["probabilities"] for r in answers.records()}
    assert len(by_name) == 24
    name = next(n for n in by_name if n.endswith("katze/3.png"))
    path = folder / "katze" / "3.png"
    image = Image.open(path)
    array = np.asarray(image)
    forms = {
        "path": path, "text": str(path), "list": [path], "Pillow": image,
        "palette": image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256),
        "array": array, "channels": array[:, :, None], "batch": array[None], "tensor":
        torch.from_numpy(array.copy()),
    }  # fmt: skip
    for form, data in forms.items():
        (answer,) = predictor.predict(data)
        assert answer["probabilities"] == pytest.approx(by_name[name], rel=1e-5), form


def test_a_broken_picture_is_named(photos):
    folder, predictor = photos
    (folder / "katze" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataError, match=r"broken\.png"):
        predictor.predict(folder / "katze" / "broken.png")


# ---------------------------------------------------------------------------- loading


def test_a_run_is_loaded_by_any_of_its_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = table()
    run = rundir.create_run(None, "shop")
    saved(run / "model", frame, "bought")
    expected = load(run).predict(frame).values["probabilities"]
    for where in ("runs/last", "last", str(run), run.name, run / "model"):
        assert np.array_equal(load(where).predict(frame).values["probabilities"], expected)


def test_a_run_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="no run"):
        load("runs/last")


def test_a_run_without_a_model_yet_says_so(tmp_path):
    run = rundir.create_run(tmp_path / "run", "x")
    (run / "rows.jsonl").write_text("")
    with pytest.raises(RequestError, match="has no model yet") as caught:
        load(run)
    assert "gipi resume" in caught.value.do


def test_a_damaged_model_is_refused(shop, tmp_path):
    path = tmp_path / "model" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="weights"):
        load(tmp_path / "model")


def test_a_module_of_ones_own_is_passed_again(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, numbers):
            return self.fc(numbers)

    frame = pd.DataFrame({"a": np.arange(30.0), "b": np.arange(30.0)[::-1], "y": ["p", "q"] * 15})
    dataset = open_data(frame, DataOptions(target="y"))
    net, task = Net(), tasks.classify()
    save_model_folder(
        tmp_path / "m", model=net, model_name=None, options={}, signature=dataset.signature(2),
        schema=dataset.schema, task_spec=task.spec,
    )  # fmt: skip
    with pytest.raises(ModelError, match="module of your own"):
        load(tmp_path / "m")
    answers = load(tmp_path / "m", module=Net(), device="cpu").predict(frame)
    out, ids = direct(net.eval(), dataset, "train")
    p = torch.softmax(out.double(), 1).detach().numpy()
    assert np.allclose(answers.values["probabilities"][ids], p, rtol=1e-6)


def test_a_loss_of_ones_own_cannot_say_what_outputs_mean(tmp_path):
    frame = table()
    dataset = open_data(frame, DataOptions(target="bought"))
    net = models.build("mlp", dataset.signature(2))
    save_model_folder(
        tmp_path / "m", model=net, model_name="mlp", options={}, signature=dataset.signature(2),
        schema=dataset.schema, task_spec=("custom", {"loss": "mine"}),
    )  # fmt: skip
    with pytest.raises(ModelError, match="loss function of your own"):
        load(tmp_path / "m")


def test_one_row_leaves_tables_alone(shop):
    frame, dataset, *_ = shop
    assert one_row(frame, dataset.schema) is frame
    columns = {"age": [1.0], "city": np.array(["a"])}
    assert one_row(columns, dataset.schema) is columns
    assert one_row(np.zeros((4, 3)), dataset.schema).shape == (4, 3)
    assert one_row(np.zeros(3), dataset.schema).shape == (1, 3)


def test_evaluation_says_that_targets_are_missing_in_some_rows(shop):
    frame, *_, predictor = shop
    with pytest.raises(DataError, match="1 of 60 rows have no 'bought'"):
        predictor.evaluate(frame.assign(bought=[None, *frame["bought"][1:]]))


def test_evaluation_scores_only_the_test_rows_that_data_brings_along(photos, tmp_path):
    *_, predictor = photos
    draw = np.random.default_rng(2)
    for i in range(8):
        pixels = draw.integers(0, 255, (12, 10, 3)).astype(np.uint8)
        path = tmp_path / "set" / ("test" if i < 2 else "train") / ("hund", "katze")[i % 2]
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path / f"{i}.png")
    assert predictor.evaluate(tmp_path / "set").rows == 2


def test_a_row_of_a_frame_is_one_row(shop):
    frame, *_, predictor = shop
    (answer,) = predictor.predict(frame.iloc[5])
    assert answer["label"] == predictor.predict(frame).labels[5]


def test_what_cannot_be_data_is_named(shop):
    with pytest.raises(DataError, match="data of type Index"):
        shop[-1].predict(pd.Index([1, 2, 3]))
