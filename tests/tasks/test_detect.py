"""The detection task: its loss, what its answers mean, and the way back to the original picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gipi import models, tasks
from gipi.core.batch import Batch
from gipi.core.errors import ConfigError, ModelError
from gipi.core.schema import Field, Schema, Signature
from gipi.losses import centerness_of
from gipi.nn.grids import anchors, levels_of, locations
from gipi.tasks.assign import assign_anchors, assign_places
from gipi.tasks.detect import boxes_to_original, detections

H, W, K = 64, 96, 3
NAMES = ("fcos", "retinanet")
SCHEMA = Schema(
    (
        Field("picture", "image", "input", shape=(3, H, W)),
        Field("boxes", "boxes", "target", classes=("cat", "dog", "owl"), shape=(6, 6)),
    ),
    task="detect",
)
LEVELS = levels_of(12 * 8 + 6 * 4 + 3 * 2 + 2, H, W)


def targets(seed=0, pictures=4, most=6):
    """Boxes that do not touch: one a cell of a 2 x 3 grid, of 12 to 24 pixels."""
    generator = torch.Generator().manual_seed(seed)
    out = torch.full((pictures, most, 6), -1.0)
    for b in range(pictures):
        for cell in range(most):
            if float(torch.rand((), generator=generator)) < 0.3:
                continue
            size = 12 + 12 * torch.rand(2, generator=generator)
            room = torch.tensor([W / 3, H / 2]) - size
            start = torch.tensor([cell % 3 * W / 3, cell // 3 * H / 2])
            start = start + room * torch.rand(2, generator=generator)
            kind = torch.randint(0, K, (1,), generator=generator).float()
            out[b, cell] = torch.cat([start, start + size, kind, torch.zeros(1)])
    return out


def perfect(target, method):
    """The answer of a detector that has learnt everything."""
    if method == "fcos":
        places = locations(LEVELS)
        goal = assign_places(target, places, LEVELS)
    else:
        goal = assign_anchors(target, anchors(LEVELS))
    out = torch.full((*goal.classes.shape, 5 + K), -9.0)
    out[..., :4] = goal.boxes
    there = goal.classes >= 0
    middle = (
        centerness_of(locations(LEVELS)[:, :2], goal.boxes) if method == "fcos" else there + 0.0
    )
    out[..., 4] = torch.where(there, middle.clamp(1e-3, 0.999).logit(), -9.0)
    out[..., 5:] = torch.where(
        goal.classes[..., None] == torch.arange(K), 5.0 + torch.rand(()), torch.tensor(-9.0)
    )
    return out


def scores(task, outputs, target):
    said, truth = task.units(outputs, target, SCHEMA)
    found = {}
    for metric in task.metrics(SCHEMA):
        state = metric.init("cpu")
        metric.update(state, said, truth, None)
        found[metric.name] = metric.compute(state)
    return found


def batch(target, weight=None, rows=None):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(target), 3, H, W, generator=generator)
    return Batch({"picture": x}, target, weight, None, len(target) if rows is None else rows)


def net(method, **options):
    light = {"widths": [8, 8, 16, 16, 16], "norm": "group"}
    return models.build(
        method, Signature(image=(3, H, W), outputs=K),
        options={"backbone": "lightnet", "backbone_options": light, "width": 16, **options},
    )  # fmt: skip


@pytest.mark.parametrize("method", NAMES)
def test_a_perfect_answer_scores_one_and_comes_back_box_for_box(method):
    task, target = tasks.build("detect", {"method": method}), targets()
    outputs = perfect(target, method)
    assert scores(task, outputs, target) == pytest.approx({"ap50": 1, "ap": 1})
    said = task.decode(outputs, SCHEMA)
    for i, rows in enumerate(target):
        real = rows[rows[:, 4] >= 0]
        order = np.lexsort(said["boxes"][i].T)
        expected = real[np.lexsort(real[:, :4].numpy().T)]
        np.testing.assert_allclose(said["boxes"][i][order], expected[:, :4], atol=1e-5)
        assert said["index"][i][order].tolist() == expected[:, 4].tolist()
        names = [SCHEMA.classes[int(k)] for k in expected[:, 4]]
        assert said["labels"][i][order].tolist() == names
        assert (np.diff(said["scores"][i]) <= 0).all()


@pytest.mark.parametrize("method", NAMES)
def test_a_perfect_answer_costs_next_to_nothing_and_a_worse_one_more(method):
    task, target = tasks.build("detect", {"method": method}), targets()
    there = perfect(target, method)
    there[..., 5:] *= 3

    def loss(outputs):
        found = task.phases[0].loss(lambda image: outputs, batch(target))
        return float(found.total) / float(found.count), found

    best, found = loss(there)
    assert best < (1.0 if method == "fcos" else 0.01)  # the centerness is no 0 or 1
    assert float(found.logs["giou"]) == pytest.approx(0, abs=1e-4)
    shifted = there.clone()
    shifted[..., :4] += 3
    assert loss(shifted)[0] > best + 0.1
    assert scores(task, shifted, target)["ap"] < 0.9


@pytest.mark.parametrize("method", NAMES)
def test_micro_batches_and_ranks_agree_on_loss_and_count(method):
    task, model = tasks.build("detect", {"method": method}), net(method).double()
    target = targets(pictures=5).double()
    target[3, :, 4] = -1  # a picture without boxes
    for weight in (None, torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0], dtype=torch.float64)):
        given = batch(target, weight)
        given.inputs["picture"] = given.inputs["picture"].double()
        whole = task.phases[0].loss(model, given)
        parts = [task.phases[0].loss(model, piece) for piece in given.split(2)]
        assert len(parts) == 3
        torch.testing.assert_close(sum(p.total for p in parts), whole.total)
        assert float(sum(p.count for p in parts)) == pytest.approx(float(whole.count))
        assert task.row_separable


@pytest.mark.parametrize("method", NAMES)
def test_a_step_without_any_object_is_finite(method):
    task, model = tasks.build("detect", {"method": method}), net(method)
    loss = task.phases[0].loss(model, batch(torch.full((2, 3, 6), -1.0)))
    assert float(loss.count) == 1
    (loss.total / loss.count).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(g).all() for g in grads)


def test_the_loss_is_what_it_says():
    task, model = tasks.build("detect", {"box_weight": 2.0}), net("fcos")
    target = targets()
    loss = task.phases[0].loss(model, batch(target))
    parts = loss.logs
    torch.testing.assert_close(loss.total, parts["focal"] + 2 * parts["giou"] + parts["centerness"])
    places = assign_places(target, locations(LEVELS), LEVELS)
    assert float(loss.count) == int((places.classes >= 0).sum()) + 1


def test_the_best_of_each_level_are_looked_at_and_at_most_so_many_returned():
    out = torch.full((1, 30, 5 + 1), -9.0)
    place = torch.arange(30.0)
    out[0, :, 0], out[0, :, 2] = 10 * place, 10 * place + 5  # thirty boxes apart
    out[..., 1], out[..., 3] = 0.0, 5.0
    out[0, :, 5] = torch.linspace(3, 2, 30)
    found = detections(out, [20, 10], centered=False, score=0.05, overlap=0.5, most=8, candidates=4)
    assert found.shape == (1, 8, 6)
    assert found[0, :, 0].tolist() == [0, 10, 20, 30, 200, 210, 220, 230]
    few = detections(out, [20, 10], centered=False, score=0.05, overlap=0.5, most=12, candidates=4)
    assert few[0, 8:].tolist() == [[0, 0, 0, 0, 0, -1]] * 4
    strict = detections(out, [30], centered=False, score=0.94, overlap=0.5, most=8, candidates=30)
    assert int((strict[0, :, 5] >= 0).sum()) == int((torch.sigmoid(out[0, :, 5]) >= 0.94).sum())
    half = out.clone()
    half[..., 4] = 0.0
    found = detections(half, [30], centered=True, score=0.0, overlap=0.5, most=1, candidates=30)
    assert float(found[0, 0, 4]) == pytest.approx((0.5 / (1 + np.exp(-3))) ** 0.5)


def test_only_boxes_of_one_class_push_each_other_out():
    out = torch.full((1, 2, 5 + 2), -9.0)
    out[0, :, :4] = torch.tensor([0.0, 0.0, 10.0, 10.0])
    out[0, 0, 5], out[0, 1, 6] = 3.0, 2.0
    options = {"centered": False, "score": 0.05, "overlap": 0.5, "most": 5, "candidates": 9}
    assert int((detections(out, [2], **options)[0, :, 5] >= 0).sum()) == 2
    out[0, 1, 5:] = torch.tensor([2.0, -9.0])
    assert int((detections(out, [2], **options)[0, :, 5] >= 0).sum()) == 1


@pytest.mark.parametrize("method", NAMES)
def test_answers_stay_in_the_picture_and_need_no_schema(method):
    task = tasks.build("detect", {"method": method})
    outputs = net(method)(batch(targets()).inputs["picture"]).detach()
    outputs[..., 5:] += 6
    said = task.decode(outputs, SCHEMA)
    for boxes in said["boxes"]:
        assert 0 < len(boxes) <= 100
        assert boxes.min() >= 0
        assert boxes[:, 0::2].max() <= W
        assert boxes[:, 1::2].max() <= H
    assert task.units(outputs, targets(), None)[0].shape == (4, 100, 6)


def test_boxes_return_to_the_original_picture():
    matrix = np.array([[0.5, 0, 8], [0, 0.5, 0], [0, 0, 1.0]])  # half size, 8 to the right
    found = boxes_to_original(np.array([[8.0, 0, 48, 20], [0, 0, 99, 99]]), matrix, (60, 90))
    assert found.tolist() == [[0, 0, 80, 40], [0, 0, 90, 60]]
    assert boxes_to_original(np.zeros((0, 4)), matrix, (60, 90)).shape == (0, 4)
    task, target = tasks.build("detect"), targets()
    outputs = perfect(target, "fcos")
    n = len(target)
    back = task.decode_original(outputs, SCHEMA, np.repeat(matrix[None], n, 0), [(200, 300)] * n)
    here = task.decode(outputs, SCHEMA)
    for a, b in zip(back["boxes"], here["boxes"], strict=True):
        np.testing.assert_allclose(a, np.clip((b - [8, 0, 8, 0]) * 2, 0, [300, 200, 300, 200]),
                                   atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("method", NAMES)
def test_the_spec_rebuilds_the_task(method):
    task = tasks.build("detect", {"method": method, "radius": 2.0, "strides": [4, 8]})
    again = tasks.build(task.spec[0], task.spec[1])
    assert again.spec == task.spec
    assert task.primary == "ap50"
    assert task.outputs(SCHEMA) == 3
    assert [m.name for m in task.metrics(SCHEMA)] == ["ap50", "ap"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "retina"}, "'retinanet'"),
        ({"metric": "ap51"}, "'ap50'"),
        ({"score": 1.5}, "task.score=1.5"),
        ({"overlap": -0.1}, "task.overlap"),
        ({"radius": 0}, "task.radius=0"),
        ({"most": 0}, "task.most"),
        ({"most": 1.5}, "task.most"),
        ({"candidates": True}, "task.candidates"),
        ({"strides": []}, "task.strides"),
        ({"strides": [0, 8]}, "task.strides"),
        ({"box_weight": float("nan")}, "task.box_weight=nan"),
        ({"gamma": float("inf")}, "task.gamma=inf"),
        ({"gamma": -1.0}, "task.gamma=-1.0"),
        ({"metod": "fcos"}, "'method'"),
    ],
)
def test_wrong_requests_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        tasks.build("detect", options)


def test_a_model_that_does_not_fit_is_named():
    task = tasks.build("detect", {"method": "retinanet"})
    with pytest.raises(ModelError, match="use the model 'retinanet'"):
        task.phases[0].loss(net("fcos"), batch(targets()))
    with pytest.raises(ModelError, match="same strides and method"):
        tasks.build("detect").phases[0].loss(net("retinanet"), batch(targets()))
    with pytest.raises(ModelError, match="same strides"):
        tasks.build("detect", {"strides": [4, 8]}).phases[0].loss(net("fcos"), batch(targets()))
