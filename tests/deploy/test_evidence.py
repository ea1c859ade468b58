"""The evaluation folder: counts, calibration and worst rows are right, and can hold no data row."""

import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import precision_recall_fscore_support

from gipi.core.atomic import read_folder
from gipi.core.schema import Field, Schema
from gipi.deploy.evidence import write_evidence
from gipi.deploy.known import WORST
from gipi.deploy.rowwise import BINS, calibration, confusion_matrix, coverage, thumbnail
from gipi.tasks import classify, custom, regress
from gipi.train.evaluate import Evaluation

DIGITS = Schema(
    (
        Field("image", "image", "input", shape=(1, 4, 4)),
        Field("y", "category", "target", classes=("a", "b", "c")),
    )
)
HOUSES = Schema(
    (
        Field("age", "number", "input"),
        Field("y", "number", "target", stats={"mean": 10.0, "std": 4.0}),
    )
)


class Shown:
    """Rows of a data set with secrets in them."""

    def row_names(self, ids):
        return [f"secret name {int(i)}" for i in ids]

    def raw(self, ids):
        return [{"age": float(i), "town": "secret town", "image": "x.png", "y": 1} for i in ids]

    def picture(self, row):
        return np.full((4, 4, 1), row % 256, dtype=np.uint8)


def judged(outputs, target, weight=None, ids=None):
    return Evaluation({"loss": 1.0}, len(outputs), 0.1, outputs, target, weight, ids)


def classified(rows=200):
    gen = torch.Generator().manual_seed(0)
    target = torch.randint(3, (rows,), generator=gen)
    outputs = torch.randn(rows, 3, generator=gen)
    outputs[torch.arange(rows), target] += 1.5
    return outputs, target


def write(path, found, task, schema, *, rows=None, samples=True):
    summary = write_evidence(path, found, task, schema, split="test", rows=rows, samples=samples)
    files = read_folder(path)
    stored = json.loads(files["summary.json"])
    with np.load(io.BytesIO(files["arrays.npz"]), allow_pickle=False) as arrays:
        return summary, stored, dict(arrays), files


def test_counts_agree_with_scikit_learn(tmp_path):
    outputs, target = classified()
    _, stored, arrays, _ = write(tmp_path / "e", judged(outputs, target), classify(), DIGITS)
    said = outputs.argmax(1).numpy()
    assert np.array_equal(arrays["confusion"], sklearn_confusion(target.numpy(), said))
    p, r, f, n = precision_recall_fscore_support(target.numpy(), said)
    for k, row in enumerate(stored["per_class"]):
        assert row["class"] == "abc"[k]
        got = (row["precision"], row["recall"], row["f1"], row["rows"])
        assert got == pytest.approx((p[k], r[k], f[k], n[k]))
    counts = np.bincount(target.numpy())
    assert stored["baseline"]["value"] == pytest.approx(counts.max() / 200)
    assert f"'{'abc'[counts.argmax()]}'" in stored["baseline"]["rule"]


def test_weights_count_in_the_confusion_matrix():
    got = confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2, np.array([1.0, 0.5, 2.0]))
    assert got.tolist() == [[1.0, 0.5], [0.0, 2.0]]


def test_calibration_is_the_sum_of_the_gaps():
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.5])
    correct = np.array([True, True, True, False, True, False])
    found = calibration(confidence, correct)
    assert found["ece"] == pytest.approx((4 * 0.15 + 2 * 0.0) / 6)
    assert [b["rows"] for b in found["bins"]] == [2, 4]
    assert found["bins"][1]["accuracy"] == 0.75
    sure = calibration(np.array([1.0]), np.array([True]))
    assert sure["bins"] == [
        {"low": (BINS - 1) / BINS, "high": 1.0, "rows": 1.0, "confidence": 1.0, "accuracy": 1.0}
    ]


def test_coverage_of_a_true_spread_is_what_was_promised():
    draw = np.random.default_rng(0)
    residual = draw.normal(0, 3, (20_000, 1))
    for b in coverage(residual, np.full_like(residual, 3.0))["bins"]:
        assert b["observed"] == pytest.approx(b["promised"], abs=0.015)
    narrow = coverage(residual, np.full_like(residual, 1.0))["bins"]
    assert all(b["observed"] < b["promised"] for b in narrow)


def test_the_worst_rows_are_those_with_the_largest_loss(tmp_path):
    outputs, target = classified()
    ids = torch.arange(200) + 1000
    _, stored, _, files = write(
        tmp_path / "e", judged(outputs, target, ids=ids), classify(), DIGITS, rows=Shown()
    )
    losses = torch.nn.functional.cross_entropy(outputs.double(), target, reduction="none")
    order = losses.argsort(descending=True)[:WORST]
    assert [w["id"] for w in stored["worst"]] == (order + 1000).tolist()
    assert [w["loss"] for w in stored["worst"]] == pytest.approx(losses[order].tolist())
    first, at = stored["worst"][0], int(order[0])
    assert first["target"] == "abc"[target[at]]
    assert first["prediction"] == "abc"[outputs[at].argmax()]
    p = torch.softmax(outputs[at].double(), 0)
    assert first["probability"] == pytest.approx(float(p.max()))
    assert first["target_probability"] == pytest.approx(float(p[target[at]]))
    assert first["name"] == f"secret name {at + 1000}"
    picture = Image.open(io.BytesIO(files[first["picture"]]))
    assert picture.getpixel((0, 0)) == (at + 1000) % 256


def test_worst_numbers_come_with_their_values(tmp_path):
    outputs, target = torch.zeros(20, 1), torch.linspace(-2, 1, 20)
    _, stored, arrays, files = write(
        tmp_path / "e", judged(outputs, target), regress(), HOUSES, rows=Shown()
    )
    first = stored["worst"][0]
    assert (first["id"], first["prediction"]) == (0, 10.0)
    assert first["target"] == pytest.approx(10 - 2 * 4)
    assert first["loss"] == pytest.approx(8.0)
    assert first["values"]["town"] == "secret town"
    assert arrays["truth"][:, 0] == pytest.approx(target.double().numpy() * 4 + 10)
    assert not any(name.endswith(".png") for name in files)
    spread = float((target.double() * 4).std(correction=0))
    assert stored["baseline"]["value"] == pytest.approx(spread)


def test_a_spread_is_judged_too(tmp_path):
    outputs = torch.zeros(50, 2)
    _, stored, _, _ = write(
        tmp_path / "e", judged(outputs, torch.zeros(50)), regress(loss="gaussian_nll"), HOUSES
    )
    assert stored["calibration"]["kind"] == "coverage"


@pytest.mark.parametrize("task, schema", [(classify(), DIGITS), (regress(), HOUSES)])
def test_without_samples_no_row_is_in_the_folder(tmp_path, task, schema):
    outputs, target = classified(40) if task.name == "classify" else (
        torch.linspace(0, 1, 40)[:, None], torch.linspace(0, 2, 40).square())  # fmt: skip
    summary, stored, arrays, files = write(
        tmp_path / "e", judged(outputs, target), task, schema, rows=Shown(), samples=False
    )
    assert "worst" not in summary
    assert stored["samples"] is False
    assert set(arrays) <= {"confusion", "residual_counts", "residual_edges"}
    assert set(files) == {"summary.json", "arrays.npz"}
    assert b"secret" not in b"".join(files.values())


def test_non_finite_answers_are_first_and_valid_json(tmp_path):
    outputs = torch.zeros(20, 1)
    outputs[7] = math.nan
    _, stored, _, _ = write(
        tmp_path / "e", judged(outputs, torch.zeros(20)), regress(), HOUSES, rows=Shown()
    )
    assert (stored["worst"][0]["id"], stored["worst"][0]["loss"]) == (7, "nan")


def test_a_task_of_ones_own_has_a_summary(tmp_path):
    task = custom(lambda out, target: (out[:, 0] - target) ** 2)
    _, stored, _, _ = write(tmp_path / "e", judged(torch.zeros(5, 1), torch.zeros(5)), task, HOUSES)
    assert (stored["primary"], stored["task"], stored["rows"]) == (None, "custom", 5)


def test_no_kept_outputs_still_give_the_metrics(tmp_path):
    _, stored, arrays, _ = write(
        tmp_path / "e", Evaluation({"accuracy": 0.5}, 9, 0.1), classify(), DIGITS
    )
    assert stored["metrics"] == {"accuracy": 0.5}
    assert arrays == {}


@pytest.mark.parametrize(
    "shape, size", [((8, 8, 1), (96, 96)), ((8, 8), (96, 96)), ((28, 28, 3), (84, 84)),
                    ((300, 200, 3), (64, 96)), ((64, 64, 4), (64, 64)), ((1, 500, 1), (96, 1)),
                    ((60, 60, 1), (60, 60))],
)  # fmt: skip
def test_thumbnails_keep_their_shape(shape, size):
    image = Image.open(io.BytesIO(thumbnail(np.zeros(shape, dtype=np.uint8))))
    assert image.size == size
    assert image.format == "PNG"
