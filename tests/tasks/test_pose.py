"""Pose: heatmaps and coordinates through the task, and points read between the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gipi import losses, tasks
from gipi.core.batch import Batch
from gipi.core.errors import ConfigError, ModelError
from gipi.core.schema import Field, Schema
from gipi.tasks.peaks import read_heatmaps
from gipi.tasks.pose import map_stride

SIZE = (41, 48)


def schema(points=4, **stats):
    return Schema(
        (
            Field("image", "image", "input", shape=(3, *SIZE)),
            Field("points", "keypoints", "target", shape=(points, 3), stats=stats),
        ),
        task="pose",
    )


def some_points(rows=6, points=4, *, margin=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(rows, points, 2, generator=generator)
    xy = margin + xy * (torch.tensor([SIZE[1], SIZE[0]]) - 2 * margin)
    return torch.cat([xy, torch.full((rows, points, 1), 2.0)], 2)


class Fixed(nn.Module):
    """A model that answers what it was given."""

    def __init__(self, answer):
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, image):
        return self.answer


def batch(target, weight=None):
    image = torch.zeros(len(target), 3, *SIZE)
    return Batch({"image": image}, target, weight, rows=len(target))


# --------------------------------------------------------------------------- peaks


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("margin", [0.0, 6.0])
def test_points_survive_maps_to_a_tenth_of_a_pixel(stride, logits, margin):
    points = some_points(rows=40, margin=margin).double()
    size = tuple(-(-side // stride) for side in SIZE)
    maps = losses.gaussian_maps(points, size, stride=stride, sigma=1.5)
    if logits:
        maps = maps.log() + 3.0
    found = read_heatmaps(maps, stride=stride, logits=logits)
    apart = (found[..., :2] - points[..., :2]).norm(dim=2)
    assert float(apart.max()) < 0.1
    assert float(found[..., 2].min()) > 0.5
    assert float(found[..., 2].max()) <= 1.0


def test_a_slanted_peak_is_found_too():
    v, u = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    x, y = u - 4.3, v - 3.8
    found = read_heatmaps(-(x * x + y * y + 1.2 * x * y)[None, None], stride=1, logits=True)
    assert found[0, 0, :2].tolist() == pytest.approx([4.8, 4.3], abs=1e-4)


def test_smoothing_finds_a_peak_under_noise():
    points = some_points(rows=30, margin=8.0)
    maps = losses.gaussian_maps(points, (21, 24), stride=2, sigma=2.0)
    noisy = maps + 0.15 * torch.randn(maps.shape, generator=torch.Generator().manual_seed(1))

    def error(blur):
        found = read_heatmaps(noisy, stride=2, logits=False, blur=blur)
        return float((found[..., :2] - points[..., :2]).norm(dim=2).mean())

    assert error(1.0) < 0.6 * error(0.0)
    assert error(1.0) < 1.0


def test_smoothing_is_a_gaussian_in_full_precision_wherever_it_runs():
    """Scores are computed where the model runs; a convolution would be rounded to 8 bits there."""
    points = some_points(rows=20, margin=8.0)
    maps = losses.gaussian_maps(points, (21, 24), stride=2, sigma=2.0)
    steps = torch.arange(-3, 4.0)
    kernel = (-0.5 * steps.square()).exp()
    kernel = kernel[:, None] * kernel / kernel.sum() ** 2
    wide = torch.nn.functional.pad(maps, (3, 3, 3, 3))
    smooth = torch.einsum("bkhwij,ij->bkhw", wide.unfold(2, 7, 1).unfold(3, 7, 1), kernel)
    expected = read_heatmaps(smooth, stride=2, logits=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = read_heatmaps(maps, stride=2, logits=False, blur=1.0)
    torch.testing.assert_close(found[..., :2], expected[..., :2], atol=1e-3, rtol=0)


def test_flat_and_tiny_maps_answer_a_pixel():
    flat = read_heatmaps(torch.zeros(1, 2, 6, 7), stride=4, logits=True)
    assert flat[0, 0, :2].tolist() == [2.0, 2.0]
    assert bool(flat.isfinite().all())
    tiny = read_heatmaps(torch.tensor([[[[0.0, 5.0]]]]), stride=8, logits=True)
    assert tiny[0, 0, :2].tolist() == [12.0, 4.0]


def test_an_unsure_map_says_so():
    sure = losses.gaussian_maps(torch.tensor([[[20.0, 20.0]]]), (21, 24), stride=2, sigma=1.0).log()
    unsure = torch.zeros_like(sure)
    found = read_heatmaps(torch.cat([sure, unsure]), stride=2, logits=True)[:, 0, 2].tolist()
    assert found[0] > 0.95
    assert found[1] < 0.1


# ---------------------------------------------------------------------------- task


@pytest.mark.parametrize(
    ("options", "form", "function"),
    [
        ({}, "maps", lambda o, t, w: losses.heatmap_cross_entropy(o, t, w, stride=2, sigma=1.0)),
        ({"loss": "mse", "sigma": 1.7}, "maps",
         lambda o, t, w: losses.heatmap_mse(o, t, w, stride=2, sigma=1.7)),
        ({}, "points", losses.wing),
        ({"loss": "wing", "width": 5.0, "curvature": 1.0}, "points",
         lambda o, t, w: losses.wing(o, t, w, width=5.0, curvature=1.0)),
        ({"method": "regression", "loss": "l1"}, "points", losses.point_l1),
        ({"loss": "smooth_l1"}, "points", losses.point_smooth_l1),
    ],
)  # fmt: skip
def test_a_loss_by_name_is_that_function(options, form, function):
    task, weight = tasks.pose(**options), torch.rand(6)
    target = some_points()
    target[0, 0, 2] = 0
    shape = (6, 4, 21, 24) if form == "maps" else (6, 4, 2)
    model = Fixed(torch.randn(shape, generator=torch.Generator().manual_seed(2)))
    found = task.phases[0].loss(model, batch(target, weight))
    wanted = function(model.answer, target, weight)
    torch.testing.assert_close(found.total, wanted[0])
    torch.testing.assert_close(found.count, wanted[1])
    assert tasks.build(*task.spec).spec == task.spec
    assert task.outputs(schema()) == 4
    assert task.row_separable


def test_a_model_of_the_other_method_is_named():
    for method, answer in (("heatmap", torch.zeros(6, 4, 2)),
                           ("regression", torch.zeros(6, 4, 21, 24))):  # fmt: skip
        with pytest.raises(ModelError, match=f"method={method}"):
            tasks.pose(method=method).phases[0].loss(Fixed(answer), batch(some_points()))
    with pytest.raises(ModelError, match="method=regression"):
        tasks.pose(loss="wing").phases[0].loss(
            Fixed(torch.zeros(6, 4, 21, 24)), batch(some_points())
        )


def test_answers_are_points_on_the_prepared_and_on_the_original_picture():
    points = some_points(margin=5.0)
    maps = losses.gaussian_maps(points, (21, 24), stride=2, sigma=1.0).log()
    task = tasks.pose()
    found = task.decode(maps, schema())["points"]
    assert found.shape == (6, 4, 3)
    np.testing.assert_allclose(found[..., :2], points[..., :2].numpy(), atol=0.05)
    coordinates = task.decode(points[..., :2], schema())["points"]
    np.testing.assert_array_equal(coordinates[..., 2], 1.0)
    matrices = np.tile(np.diag([0.5, 0.25, 1.0]), (6, 1, 1))
    back = task.decode_original(maps, schema(), matrices, np.array([[164, 96]] * 6))["points"]
    np.testing.assert_allclose(back[..., :2], points[..., :2].numpy() * [2, 4], atol=0.2)


def values(task, outputs, target, about):
    found = {}
    for metric in task.metrics(about):
        state = metric.init("cpu")
        metric.update(state, *task.units(outputs, target, about), None)
        found[metric.name] = metric.compute(state)
    return found


def test_the_reference_is_what_the_task_or_the_data_names():
    target = some_points(rows=2)
    guess = target[..., :2] + torch.tensor([3.0, 4.0])
    eyes = (target[:, 0, :2] - target[:, 2, :2]).norm(dim=1)
    wanted = float((5 / eyes).mean())
    assert values(tasks.pose(reference=[0, 2]), guess, target, schema())["nme"] == pytest.approx(
        wanted
    )
    named = schema(reference=[0, 2])
    assert values(tasks.pose(), guess, target, named)["nme"] == pytest.approx(wanted)
    picture = values(tasks.pose(reference="picture"), guess, target, named)["nme"]
    assert picture == pytest.approx(5 / (SIZE[0] * SIZE[1]) ** 0.5)
    box = values(tasks.pose(reference="box"), guess, target, named)["nme"]
    assert box == pytest.approx(values(tasks.pose(), guess, target, schema())["nme"])
    assert box != pytest.approx(wanted)


def test_faces_of_68_points_are_measured_by_their_eyes():
    target = some_points(rows=3, points=68)
    guess = target[..., :2] + torch.tensor([0.0, 2.0])
    eyes = (target[:, 36, :2] - target[:, 45, :2]).norm(dim=1)
    found = values(tasks.pose(), guess, target, schema(68))
    assert found["nme"] == pytest.approx(float((2 / eyes).mean()))
    assert set(found) == {"nme", "pck", "oks"}


def test_one_point_is_measured_by_the_picture():
    target = some_points(rows=3, points=1)
    found = values(tasks.pose(), target[..., :2] + 1.0, target, schema(1))
    assert found["nme"] == pytest.approx(2**0.5 / (SIZE[0] * SIZE[1]) ** 0.5)


def test_sigmas_of_the_data_are_those_of_oks():
    target = some_points(rows=3)
    guess = target[..., :2] + 1.0
    wide = values(tasks.pose(), guess, target, schema(sigmas=[0.2] * 4))["oks"]
    narrow = values(tasks.pose(), guess, target, schema(sigmas=[0.02] * 4))["oks"]
    assert wide > narrow


def test_strides_of_maps():
    assert map_stride((96, 96), (24, 24)) == 4
    assert map_stride(SIZE, (21, 24)) == 2
    with pytest.raises(ModelError, match="divide the picture"):
        map_stride((96, 96), (20, 20))
    with pytest.raises(ModelError, match="without the size of the picture"):
        tasks.pose().units(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 3), None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "heatmaps"}, "'heatmap'"),
        ({"loss": "ming"}, "'wing'"),
        ({"method": "heatmap", "loss": "wing"}, "by heatmap"),
        ({"metric": "pkc"}, "'pck'"),
        ({"sigma": 0.0}, "positive"),
        ({"share": -0.1}, "positive"),
        ({"reference": "eyes"}, "two point indices"),
        ({"reference": [1]}, "two point indices"),
        ({"reference": [2, 2]}, "two point indices that differ"),
        ({"width": float("inf")}, "width=inf"),
        ({"reference": [1, -2]}, "two point indices"),
    ],
)
def test_wrong_requests_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        tasks.pose(**options)


def test_a_reference_beyond_the_points_is_named():
    with pytest.raises(ConfigError, match="for 4 points"):
        tasks.pose(reference=[0, 9]).metrics(schema())
