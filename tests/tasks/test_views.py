"""Test-time augmentation: what is found on a view is brought back, merged, and no worse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gipi.core.batch import Batch
from gipi.core.errors import ConfigError
from gipi.core.schema import Field, Schema
from gipi.data import tta_views
from gipi.data.augment import transform_points
from gipi.nn.grids import STRIDES
from gipi.tasks import classify, custom, regress
from gipi.tasks.detect import detect
from gipi.tasks.pose import pose
from gipi.tasks.segment import segment
from gipi.tasks.views import predict_tta, with_views

if TYPE_CHECKING:
    from collections.abc import Callable

H, W, N = 32, 40, 6
VIEWS = tta_views(["flip", "vertical", {"name": "shift", "pixels": 2}])


class Answer(nn.Module):
    """A model that computes its answer by a function of the picture."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        """Answer."""
        self.seen += 1
        return self.function(x)


def schema(kind: str, classes: tuple[str, ...] = ("a", "b"), **facts: Any) -> Schema:
    """Pictures whose black is 0, with a target."""
    stats = {"mean": [0.0], "std": [1.0], "range": 255.0}
    image = Field("image", "image", "input", shape=(1, H, W), stats=stats)
    shape = {"boxes": (4, 6), "keypoints": (2, 3)}.get(kind, ())
    return Schema((image, Field("y", kind, "target", shape=shape, classes=classes, stats=facts)))


def points() -> Tensor:
    """Return (N, 2) places well inside the picture."""
    u = torch.rand(N, 2, generator=torch.Generator().manual_seed(0))
    return torch.tensor([W, H]) * (0.3 + 0.4 * u)


def blobs(at: Tensor) -> Tensor:
    """Return pictures with one bright blob each."""
    y, x = torch.arange(H) + 0.5, torch.arange(W) + 0.5
    far = (x - at[:, :1, None]) ** 2 + (y[:, None] - at[:, 1:, None]) ** 2
    return torch.exp(-far / 8)[:, None]


def where(x: Tensor) -> Tensor:
    """Return (B, 2): the centre of the light of each picture."""
    light = x[:, 0]
    ys, xs = torch.arange(H) + 0.5, torch.arange(W) + 0.5
    both = torch.stack([(light * xs).sum((1, 2)), (light * ys[:, None]).sum((1, 2))], 1)
    return both / light.sum((1, 2))[:, None]


def batch(x: Tensor) -> Batch:
    """Return pictures as a batch."""
    return Batch({"image": x}, None, rows=len(x))


def test_views_and_their_names() -> None:
    assert len(VIEWS) == 2 * 2 * 3
    assert VIEWS[0].name == "as it is"
    assert VIEWS[0].steps == ()
    assert len({v.name for v in VIEWS}) == 12
    assert len(tta_views("flip")) == 2
    for view in tta_views(["flip", "zoom", "shift"]):
        product = view.inverse(H, W) @ view.matrix(H, W)
        assert torch.allclose(product, torch.eye(3, dtype=torch.float64))
        moved = where(view.apply(blobs(points())))
        said = transform_points(view.matrix(H, W).expand(N, 3, 3), points()[:, None])[:, 0]
        assert (moved - said).abs().max() < 0.2, view.name


@pytest.mark.parametrize(
    ("asked", "said"),
    [("flop", "did you mean 'flip'"), ({"name": "shift", "pixel": 1}, "no such option"),
     ({"name": "shift", "pixels": 0}, "whole pixels"), ({"name": "zoom", "factor": 1}, "above 1")],
)  # fmt: skip
def test_wrong_views_are_named(asked: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tta_views([asked])


def test_too_many_views() -> None:
    with pytest.raises(ConfigError, match="at most"):
        tta_views(["flip", "vertical", "shift", "zoom"])


def test_classes_are_the_mean_of_probabilities() -> None:
    x = torch.rand(N, 1, H, W)
    model = Answer(lambda x: torch.stack([x[:, 0, 0, 0], x[:, 0, -1, -1] * 2], 1) * 3)
    answers = predict_tta(model, classify(), batch=batch(x), schema=schema("category"), views=VIEWS)
    wanted = torch.stack([
        torch.softmax(model.function(view.apply(x)).double(), 1) for view in VIEWS
    ]).mean(0)  # fmt: skip
    assert torch.allclose(torch.from_numpy(answers["probabilities"]), wanted, atol=1e-6)


def test_one_logit_and_values() -> None:
    x = torch.rand(N, 1, H, W)
    one = Answer(lambda x: x[:, 0, 0, :1] * 4 - 2)
    task = with_views(classify(loss="binary_cross_entropy"), schema("category"), views=VIEWS[:4])
    p = torch.stack([torch.sigmoid(one.function(v.apply(x))) for v in VIEWS[:4]]).mean(0)
    assert torch.allclose(torch.sigmoid(task.forward(one, batch(x))), p, atol=1e-5)
    task = with_views(regress(), schema("number"), views=VIEWS[:4])
    mean = torch.stack([one.function(v.apply(x)) for v in VIEWS[:4]]).mean(0)
    assert torch.allclose(task.forward(one, batch(x)), mean, atol=1e-6)


def test_masks_are_brought_back() -> None:
    """A model that is exact on every view stays exact after merging."""
    x = blobs(points())
    model = Answer(lambda x: torch.cat([0 * x, (x - 0.5) * 60], 1))
    task, form = segment(), schema("mask")
    alone = task.decode(task.forward(model, batch(x)), form)["mask"]
    merged = predict_tta(model, task, batch=batch(x), schema=form, views=VIEWS)["mask"]
    assert (merged == alone).all()
    assert 0 < merged.mean() < 0.5
    zoomed = predict_tta(model, task, batch=batch(x), schema=form, views=tta_views("zoom"))["mask"]
    assert (zoomed != alone).mean() < 0.02


def test_points_are_brought_back_and_change_names() -> None:
    at = points()
    form = schema("keypoints", ("left", "right"), flip=[[0, 1]])
    aside = torch.tensor([3.0, 0.0])

    def found(x: Tensor) -> Tensor:
        """Name the points to the left and to the right of the blob, as they are seen."""
        centre = where(x)
        return torch.stack([centre - aside, centre + aside], 1)

    wanted = torch.stack([at - aside, at + aside], 1)
    views = tta_views(["flip", {"name": "shift", "pixels": 2}])
    answers = predict_tta(Answer(found), pose(), batch=batch(blobs(at)), schema=form, views=views)
    assert torch.allclose(torch.from_numpy(answers["points"][..., :2]), wanted, atol=0.1)
    unknown = schema("keypoints", ("left", "right"))
    with pytest.raises(ConfigError, match="2 keypoints of which no pairs are known"):
        with_views(pose(), unknown, views=views)
    assert with_views(pose(), unknown, views=tta_views("shift")).name == "pose"
    assert with_views(pose(), schema("keypoints", ("tip",)), views=views).name == "pose"
    blind = schema("keypoints", ("left", "right"), flip=[])
    mixed = predict_tta(Answer(found), pose(), batch=batch(blobs(at)), schema=blind, views=views)
    assert not torch.allclose(torch.from_numpy(mixed["points"][..., :2]), wanted, atol=1.0)


def test_boxes_are_brought_back_and_merged() -> None:
    """Each view finds the object; merging leaves one box, where it is."""

    x, form = blobs(points()), schema("boxes", ("a", "b"))
    count = sum(-(-H // s) * -(-W // s) for s in STRIDES)

    def found(x: Tensor) -> Tensor:
        centre = where(x)
        out = torch.full((len(x), count, 4 + 1 + 2), -20.0)
        out[..., :4] = 0
        out[:, 0, :2], out[:, 0, 2:4] = centre - 5, centre + 5
        out[:, 0, 4], out[:, 0, 6] = 8.0, 5.0
        return out

    task = detect()
    answers = predict_tta(Answer(found), task, batch=batch(x), schema=form, views=VIEWS)
    alone = task.decode(task.forward(Answer(found), batch(x)), form)
    for row in range(N):
        assert len(answers["boxes"][row]) == len(alone["boxes"][row]) == 1
        assert abs(answers["boxes"][row] - alone["boxes"][row]).max() < 0.2
        assert answers["labels"][row].tolist() == ["b"]
    original = with_views(task, form, views=VIEWS)
    assert original.decode_original is not None

    twice = np.eye(3)[None].repeat(N, 0) * np.array([0.5, 0.5, 1])
    sizes = np.array([[2 * H, 2 * W]] * N)
    out = original.forward(Answer(found), batch(x))
    doubled = original.decode_original(out, form, twice, sizes)
    assert abs(doubled["boxes"][0] - 2 * answers["boxes"][0]).max() < 1e-3


def test_the_loss_is_that_of_the_pictures_as_they_are() -> None:
    x = torch.rand(N, 1, H, W)
    model = Answer(lambda x: torch.stack([x[:, 0, 0, 0], x[:, 0, -1, -1] * 2], 1))
    given = Batch({"image": x}, torch.arange(N) % 2, rows=N)
    task = classify()
    viewed = with_views(task, schema("category"), views=VIEWS)
    plain, merged = task.phases[0].loss(model, given), viewed.phases[0].loss(model, given)
    assert float(plain.total) == float(merged.total)
    assert not torch.allclose(plain.outputs, merged.outputs)
    assert model.seen == 1 + len(VIEWS), "the picture itself is looked at once"


def test_what_has_no_views_is_refused() -> None:
    table = Schema((Field("a", "number", "input"),))
    with pytest.raises(ConfigError, match="without pictures"):
        with_views(classify(), table, views=VIEWS)
    own = custom(lambda out, target: ((out - target) ** 2).mean())
    with pytest.raises(ConfigError, match="tta with the task"):
        with_views(own, schema("number"), views=VIEWS)
