"""Segmentation: its losses in the loop, its answers, and the way back to the original picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gipi import losses, tasks
from gipi.core.batch import Batch
from gipi.core.config import Recipe
from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import Field, Schema
from gipi.data.stream import Columns, RowStream
from gipi.tasks.placement import masks_to_original, points_to_original
from gipi.train import Setup, fit

K = 3
SCHEMA = Schema(
    (
        Field("image", "image", "input", shape=(2, 12, 10)),
        Field("mask", "mask", "target", shape=(12, 10), classes=tuple("abc")),
    ),
    task="segment",
)
G = torch.Generator().manual_seed(0)


def batch(rows=4, *, weight=None):
    target = torch.randint(0, K, (rows, 12, 10), generator=G).to(torch.uint8)
    target[torch.rand(target.shape, generator=G) < 0.3] = 255
    return Batch({"image": torch.randn(rows, 2, 12, 10, generator=G)}, target, weight, rows=rows)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, K, 1))


@pytest.mark.parametrize(
    ("options", "function"),
    [
        ({"loss": "ce"}, losses.pixel_cross_entropy),
        ({}, losses.ce_dice),
        ({"dice_weight": 0.3, "label_smoothing": 0.1},
         lambda z, t, w: losses.ce_dice(z, t, w, dice_weight=0.3, label_smoothing=0.1)),
        ({"loss": "dice"}, losses.dice),
        ({"loss": "generalised-dice"}, lambda z, t, w: losses.dice(z, t, w, generalised=True)),
        ({"loss": "focal", "gamma": 1.0, "class_weights": [1, 2, 3]},
         lambda z, t, w: losses.pixel_focal(
             z, t, w, gamma=1.0, class_weights=torch.tensor([1.0, 2, 3]))),
        ({"loss": "ce", "class_weights": [1, 2, 3]},
         lambda z, t, w: losses.pixel_cross_entropy(
             z, t, w, class_weights=torch.tensor([1.0, 2, 3]))),
    ],
)  # fmt: skip
def test_a_loss_by_name_is_that_function(options, function):
    task, model, data = tasks.segment(**options), net(), batch(weight=torch.rand(4))
    found = task.phases[0].loss(model, data)
    wanted = function(model(data.inputs["image"]), data.target, data.weight)
    torch.testing.assert_close(found.total, wanted[0])
    torch.testing.assert_close(found.count, wanted[1])
    again = tasks.build(*task.spec)
    assert again.spec == task.spec
    assert task.outputs(SCHEMA) == K


def test_only_losses_that_are_sums_over_rows_say_so():
    separable = {name: tasks.segment(loss=name).row_separable
                 for name in ("ce", "focal", "dice", "ce+dice", "generalised-dice")}  # fmt: skip
    assert separable == {"ce": True, "focal": True, "dice": False, "ce+dice": False,
                         "generalised-dice": False}  # fmt: skip


def columns(rows=12):
    data = batch(rows)
    return Columns(data.inputs, data.target, None)


def trained(task, **recipe):
    model = net().double()
    data = columns_in_double()
    stream = RowStream(data, np.arange(12), batch_size=6, seed=2)
    options = {"steps": 8, "optimizer": "sgd", "lr": 0.1, **recipe}
    fit(model, task, stream, Recipe(**options), schema=SCHEMA, setup=Setup(), device="cpu")
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def columns_in_double():
    G.manual_seed(7)
    data = columns()
    return Columns({"image": data.inputs["image"].double()}, data.target, None)


def test_micro_batches_change_nothing_for_cross_entropy():
    """The ignored pixels are spread unevenly: a mean of means would differ."""
    task = tasks.segment(loss="ce")
    whole, pieces = trained(task), trained(task, micro_batch=2)
    torch.testing.assert_close(whole, pieces, rtol=0, atol=1e-10)


def test_micro_batches_are_refused_for_dice_unless_accepted():
    with pytest.raises(ConfigError, match="segment mixes the rows"):
        trained(tasks.segment(), micro_batch=2)
    accepted = trained(tasks.segment(), micro_batch=2, accept_mixing=True)
    assert float((accepted - trained(tasks.segment())).abs().max()) > 1e-6


def test_answers_are_masks_and_metrics_see_them():
    task, logits = tasks.segment(), torch.randn(4, K, 12, 10, generator=G)
    answer = task.decode(logits, SCHEMA)["mask"]
    assert answer.dtype == np.uint8
    np.testing.assert_array_equal(answer, logits.argmax(1).numpy())
    said, truth = task.units(logits, batch().target, SCHEMA)
    assert said.shape == truth.shape
    names = [m.name for m in task.metrics(SCHEMA)]
    assert names == ["mean_iou", "pixel_accuracy"]
    assert task.metrics(None) == []
    assert next(m.name for m in tasks.segment(metric="dice").metrics(SCHEMA)) == "dice"


# ------------------------------------------------------------------------ the way back


def scale(height, width, to_height, to_width):
    return np.diag([to_width / width, to_height / height, 1.0])


def test_a_resized_mask_comes_back_to_its_size_and_place():
    """A rectangle drawn on the original is found again where it was drawn."""
    truth = np.zeros((40, 60), dtype=np.uint8)
    truth[8:24, 20:44] = 1
    small = truth[1::2, 1::2][None]  # 20x30: every prepared pixel covers 2x2 of the original
    found = masks_to_original(small, scale(40, 60, 20, 30)[None], [(40, 60)])[0]
    np.testing.assert_array_equal(found, truth)


def test_logits_are_enlarged_before_the_largest_is_taken():
    x = torch.arange(8.0) + 0.5
    ramp = (x - 2.6).expand(8, 8)  # class 1 right of x = 2.6 of the prepared picture
    logits = torch.stack([torch.zeros(8, 8), ramp])[None]
    found = masks_to_original(logits, scale(80, 80, 8, 8)[None], [(80, 80)])[0]
    assert found.shape == (80, 80)
    np.testing.assert_array_equal(found[40], (np.arange(80) + 0.5 > 26).astype(np.uint8))


def test_a_letterbox_is_undone_and_what_was_cut_off_is_unknown():
    masks = np.zeros((2, 10, 10), dtype=np.uint8)
    masks[0, 2:8] = 1  # a picture of 20x12 lies in rows 2..8
    letterbox = np.array([[0.5, 0, 0], [0, 0.5, 2.0], [0, 0, 1]])
    crop = np.array([[1.0, 0, -3.0], [0, 1, 0], [0, 0, 1]])  # the left 3 columns are not seen
    found = masks_to_original(masks, np.stack([letterbox, crop]), [(12, 20), (10, 13)])
    assert found[0].shape == (12, 20)
    assert (found[0] == 1).all()
    assert (found[1][:, :3] == 255).all()
    assert (found[1][:, 3:] == 0).all()


def test_points_come_back():
    matrix = np.array([[0.5, 0, 4.0], [0, 0.25, 1.0], [0, 0, 1]])
    points = np.array([[[10.0, 20.0, 0.7]]])
    ahead = np.concatenate(
        [(points[..., :2] @ matrix[:2, :2].T) + matrix[:2, 2], points[..., 2:]], 2
    )
    np.testing.assert_allclose(points_to_original(ahead, matrix[None]), points)


def test_the_task_answers_in_original_pixels():
    task, logits = tasks.segment(), torch.randn(2, K, 12, 10, generator=G)
    matrices = np.stack([scale(24, 20, 12, 10), scale(6, 5, 12, 10)])
    answer = task.decode_original(logits, SCHEMA, matrices, np.array([[24, 20], [6, 5]]))["mask"]
    assert [m.shape for m in answer] == [(24, 20), (6, 5)]
    with pytest.raises(DataError, match="one 3x3 matrix a row"):
        task.decode_original(logits, SCHEMA, matrices[:1], np.array([[24, 20]]))
    with pytest.raises(DataError, match="one size a mask"):
        task.decode_original(logits, SCHEMA, matrices, np.array([[24, 20]]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "dicee"}, "'dice'"),
        ({"metric": "iou"}, "mean_iou"),
        ({"loss": "dice", "label_smoothing": 0.1}, "cross-entropy"),
        ({"loss": "generalised-dice", "class_weights": [1.0]}, "cross-entropy"),
        ({"label_smoothing": 1.0}, r"\[0, 1\)"),
        ({"loss": "focal", "gamma": -1.0}, "gamma"),
    ],
)
def test_wrong_requests_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        tasks.segment(**options)


def test_class_weights_must_fit_the_classes():
    with pytest.raises(ConfigError, match="2 class weights for 3 classes"):
        tasks.segment(class_weights=[1.0, 2.0]).outputs(SCHEMA)


@pytest.mark.parametrize("name", ["classify", "segment"])
@pytest.mark.parametrize(
    ("weights", "words"),
    [([1.0, 2.0], "2 class weights for 3"), ([1.0, -2.0, 1.0], "class weights 1.0, -2.0"),
     ([0.0] * 3, "one above 0"), ([1.0, 1.0, float("nan")], "nan")],
)  # fmt: skip
def test_class_weights_are_one_a_class_and_not_negative(name, weights, words):
    kind = {"classify": "category", "segment": "mask"}[name]
    schema = Schema((Field("y", kind, "target", classes=("a", "b", "c")),), task=name)
    with pytest.raises(ConfigError, match=words):
        tasks.build(name, {"class_weights": weights}).outputs(schema)
    assert tasks.build(name, {"class_weights": [0.0, 1.0, 2.5]}).outputs(schema) == 3
