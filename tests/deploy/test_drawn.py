"""Evidence of answers on pictures: figures by hand, worst first, overlays where they belong."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from gipi import tasks
from gipi.core.batch import Batch
from gipi.core.schema import Field, Schema
from gipi.deploy import drawn, paint
from gipi.deploy.evaluation import bootstrap, bootstrap_states, primary_metric
from gipi.deploy.evidence import write_evidence
from gipi.train.evaluate import Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

evaluate_ = sys.modules["gipi.train.evaluate"]  # the function has the module's name

H, W = 6, 8
NAMES = ("sky", "road", "car")


class Rows:
    """Original pictures twice as large as the prepared ones."""

    def row_names(self, ids: np.ndarray) -> list[str]:
        return [f"{i}.png" for i in ids]

    def raw(self, ids: np.ndarray) -> list[dict[str, object]]:
        return [{} for _ in ids]

    def picture(self, row: int) -> np.ndarray:
        picture = np.zeros((2 * H, 2 * W, 3), dtype=np.uint8)
        picture[:, W:] = 200
        return picture

    def placement(self, ids: np.ndarray) -> np.ndarray:
        return np.tile(np.diag([0.5, 0.5, 1.0]), (len(ids), 1, 1))


def schema(kind: str, names: tuple[str, ...] = NAMES) -> Schema:
    shape = {"mask": (H, W), "boxes": (2, 6), "keypoints": (len(names), 3)}[kind]
    task = {"mask": "segment", "boxes": "detect", "keypoints": "pose"}[kind]
    return Schema(
        (Field("image", "image", "input", shape=(3, H, W)),
         Field("y", kind, "target", shape=shape, classes=names)), task,
    )  # fmt: skip


def masks() -> tuple[torch.Tensor, torch.Tensor]:
    """Row 0 is right, row 1 calls half of the road sky, row 2 is all wrong."""
    truth = torch.zeros(3, H, W, dtype=torch.uint8)
    truth[:, 3:] = 1
    truth[0, 0, 0] = 255
    said = truth.clone()
    said[0, 0, 0] = 2
    said[1, 3:, :4] = 0
    said[2] = 2
    return said, truth


def test_masks_are_judged_by_one_confusion_matrix_without_ignored_pixels() -> None:
    said, truth = masks()
    found = drawn.judge(said, truth, None, tasks.segment(), schema("mask"))
    sky, road, car = found.facts["per_class"]
    assert sky["iou"] == pytest.approx((23 + 24) / (23 + 24 + 12 + 24))
    assert road["recall"] == pytest.approx((24 + 12) / 72)
    assert car["precision"] == 0.0
    assert car["recall"] is None
    assert found.arrays["confusion"].sum() == 3 * H * W - 1
    assert found.cost.argsort()[::-1].tolist() == [2, 1, 0]
    assert found.cost[0] == 0
    base = found.facts["baseline"]
    assert base["metric"] == "mean_iou"
    assert base["value"] == pytest.approx(72 / 143 / 2)
    assert "'road'" in base["rule"]


def test_a_picture_that_nobody_labelled_is_no_failure() -> None:
    said, truth = masks()
    truth[0] = 255
    found = drawn.judge(said, truth, None, tasks.segment(), schema("mask"))
    assert found.cost[0] == 0
    assert found.words[0] == "no pixel is labelled in it"
    assert found.cost.argmax() == 2


def test_boxes_are_judged_by_what_was_missed_and_what_was_wrong() -> None:
    truth = torch.full((2, 2, 6), -1.0)
    truth[0, 0] = torch.tensor([0, 0, 4, 4, 0, 0])
    truth[1, 0] = torch.tensor([0, 0, 4, 4, 0, 0])
    truth[1, 1] = torch.tensor([4, 0, 8, 4, 1, 0])
    said = torch.zeros(2, 3, 6)
    said[..., 5] = -1
    said[0, 0] = torch.tensor([0, 0, 4, 4, 0.9, 0])
    said[1, 0] = torch.tensor([5, 3, 7, 6, 0.8, 2])
    said[1, 1] = torch.tensor([0, 0, 4, 4, 0.1, 0])  # too unsure to be said
    found = drawn.judge(said, truth, None, tasks.detect(), schema("boxes"))
    assert found.cost.tolist() == [0.0, 2.5]
    assert found.words[1] == "0 of 2 objects found, 2 missed, 1 false alarm"
    sky, road, car = found.facts["per_class"]
    assert (sky["rows"], sky["recall"], sky["precision"]) == (2, 0.5, 1.0)
    assert (road["recall"], road["ap50"]) == (0.0, 0.0)
    assert car["precision"] == 0.0


def test_without_the_package_the_ap_is_counted_in_bins_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawn, "exact_scores", lambda *_: None)
    truth = torch.tensor([[[0.0, 0, 4, 4, 0, 0]]])
    said = torch.tensor([[[0.0, 0, 4, 4, 0.9, 0]]])
    found = drawn.judge(said, truth, None, tasks.detect(), schema("boxes"))
    assert found.facts["per_class"][0]["ap50"] == pytest.approx(1.0)
    assert "gipi[detect]" in found.facts["ap_from"]
    judged = Evaluation({"ap50": 0.4}, 1, 0.1, said, truth)
    metrics, notes = drawn.final_metrics(judged, tasks.detect(), schema("boxes"))
    assert metrics == {"ap50": 0.4}
    assert "1,000 to 10,000 bins" in notes["ap_from"]


def test_points_are_judged_by_their_distance_and_missing_ones_do_not_count() -> None:
    truth = torch.tensor([[[0.0, 0, 2], [4, 0, 2], [0, 4, 0]], [[0, 0, 2], [4, 4, 1], [0, 4, 2]]])
    said = truth.clone()
    said[0, 2] += 100  # missing
    said[1, 1, :2] += torch.tensor([3.0, 4.0])
    found = drawn.judge(said, truth, None, tasks.pose(), schema("keypoints", ("a", "b", "c")))
    assert found.cost.tolist() == pytest.approx([0.0, 5 / 3])
    assert [r["error"] for r in found.facts["per_class"]] == pytest.approx([0.0, 2.5, 0.0])
    assert "largest: b 5.0 px" in found.words[1]


def test_states_are_drawn_as_rows_are() -> None:
    torch.manual_seed(0)
    truth = torch.randint(0, 3, (40, H, W), dtype=torch.uint8)
    said = torch.where(torch.rand(40, H, W) < torch.rand(40, 1, 1), truth, 0).to(torch.uint8)
    metric = primary_metric(tasks.segment(), schema("mask"))
    assert metric is not None
    one = bootstrap(metric, said, truth, None)
    two = bootstrap_states(metric, said, truth, None)
    assert one == pytest.approx(two, abs=0.02)


@pytest.mark.parametrize("samples", [True, False])
def test_the_folder_holds_overlays_of_the_worst_rows_only_with_samples(tmp_path, samples) -> None:
    said, truth = masks()
    judged = Evaluation({"mean_iou": 0.3}, 3, 0.1, said, truth, None, torch.tensor([5, 6, 7]))
    write_evidence(tmp_path / "e", judged, tasks.segment(), schema("mask"), split="test",
                   rows=Rows() if samples else None, samples=samples)  # fmt: skip
    stored = json.loads((tmp_path / "e" / "summary.json").read_text())
    assert stored["drawn"] == "mask"
    names = sorted(p.name for p in (tmp_path / "e").glob("*.png"))
    if not samples:
        assert names == []
        assert "worst" not in stored
        return
    assert [r["name"] for r in stored["worst"]] == ["7.png", "6.png", "5.png"]
    assert names == ["worst-00.png", "worst-01.png", "worst-02.png"]
    assert {e["class"] for e in stored["legend"]} == set(NAMES)


def test_the_prepared_picture_is_where_the_placement_says() -> None:
    rows = Rows()
    found = drawn.prepared(rows.picture(0), rows.placement(np.array([0]))[0], (W, H))
    assert found.shape == (H, W, 3)
    assert found[:, : W // 2 - 1].max() == 0
    assert found[:, W // 2 + 1 :].min() == 200


def test_a_mask_file_keeps_the_class_indices_and_the_size() -> None:
    mask = np.array([[0, 1, 2], [255, 2, 1]], dtype=np.uint8)
    image = Image.open(io.BytesIO(paint.mask_png(mask, 3)))
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), mask)
    colours = np.asarray(image.convert("RGB"))
    assert np.array_equal(colours[0, 1], paint.colours(3)[1])
    assert colours[1, 0].tolist() == [0, 0, 0]


def test_a_box_is_drawn_on_its_edge() -> None:
    picture = np.zeros((300, 300, 3), dtype=np.uint8)
    image = paint.boxed(
        picture, truth=[], said=[((50, 60, 150, 200), 1, 0.7)], classes=NAMES,
        palette=paint.colours(3),
    )  # fmt: skip
    drawn_ = np.asarray(image)
    colour = paint.colours(3)[1]
    assert np.array_equal(drawn_[120, 50], colour)
    assert np.array_equal(drawn_[200, 100], colour)
    assert drawn_[130, 100].max() == 0


def test_answers_of_any_net_can_be_drawn() -> None:
    """An inverted box, a point far away or nowhere: a net of one's own may say anything."""
    picture = np.zeros((300, 300, 3), dtype=np.uint8)
    said = [((150, 200, 50, 60), 1, 0.7), ((float("nan"), 0, 1, 1), 1, 0.6)]
    drawn_ = np.asarray(
        paint.boxed(picture, truth=[], said=said, classes=NAMES, palette=paint.colours(3))
    )
    assert np.array_equal(drawn_[120, 50], paint.colours(3)[1])
    truth = np.array([[10, 10, 2], [50, 50, 2], [90, 90, 2]], dtype=np.float32)
    answers = np.array([[3e9, 10, 1], [np.nan, 5, 1], [90, 95, 1]], dtype=np.float32)
    drawn_ = np.asarray(paint.pointed(picture, truth=truth, said=answers))
    assert drawn_[10, 200].tolist() == [220, 60, 60], "the line goes off to the right"
    assert np.array_equal(drawn_[95, 90], paint.colours(3)[2])
    assert drawn_[54, 50].max() > 0, "the ring is there without an answer"


def test_all_colours_differ() -> None:
    found = paint.colours(60)
    assert len({tuple(c) for c in found.tolist()}) == 60


class Pairs:
    """A stream of `rows` pictures of one value each; the answer is right in the first half."""

    def __init__(self, rows: int) -> None:
        self.rows, self.batch_size, self.steps = rows, 16, -(-rows // 16)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        for first in range(0, self.rows, 16):
            ids = torch.arange(first, min(first + 16, self.rows))
            image = torch.zeros(len(ids), 3, H, W)
            image[ids < self.rows // 2, 0] = 1.0
            truth = torch.zeros(len(ids), H, W, dtype=torch.uint8)
            yield Batch({"image": image}, truth, ids=ids, rows=len(ids))


def test_answers_of_large_sets_are_kept_within_bounds_and_evenly_spread(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Scores count every row; what needs the answers themselves looks at some of all places."""
    row = 2 * H * W + 8  # answer, truth and id
    monkeypatch.setattr(evaluate_, "KEPT_BYTES", 20 * row)
    names = NAMES[:2]
    net = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[0, 0], net.bias[:] = 2.0, torch.tensor([0.0, 1.0])
    judged = evaluate_.evaluate(
        net, tasks.segment(), Pairs(100), schema=schema("mask", names), keep=True
    )
    assert judged.rows == 100
    assert len(judged.outputs) == len(judged.target) == len(judged.ids) == 20
    assert (judged.ids < 50).sum() == 10
    found = write_evidence(
        tmp_path / "e", judged, tasks.segment(), schema("mask", names), split="test", rows=Rows()
    )
    assert found["rows"] == 100
    assert found["looked_at"] == 20
    assert found["primary"]["value"] == found["metrics"]["mean_iou"] == judged.metrics["mean_iou"]
    assert found["primary"]["low"] <= found["primary"]["value"] <= found["primary"]["high"]
    assert "20 of 100 rows" in found["primary"]["method"]
    assert all(w["id"] >= 50 for w in found["worst"][:10])
    monkeypatch.setattr(evaluate_, "KEPT_BYTES", 100 * row)
    whole = evaluate_.evaluate(
        net, tasks.segment(), Pairs(100), schema=schema("mask", names), keep=True
    )
    assert torch.equal(whole.ids, torch.arange(100))
    found = write_evidence(
        tmp_path / "w", whole, tasks.segment(), schema("mask", names), split="test"
    )
    assert "looked_at" not in found
