"""Tiny runs that must reach a stated score: shapes are cut out, a bright spot is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gipi import models, tasks
from gipi.core.config import Recipe
from gipi.core.schema import Field, Schema, Signature
from gipi.data.stream import Columns, RowStream
from gipi.train import Setup, evaluate, fit

SIDE, TRAIN, HELD = 32, 96, 32
ROWS = TRAIN + HELD
BODY = {"backbone": "lightnet", "backbone_options": {"widths": [8, 16, 24], "first_stride": 2}}


def grid():
    centres = torch.arange(SIDE) + 0.5
    return centres.view(1, SIDE, 1), centres.view(1, 1, SIDE)


def shapes():
    """Pictures of one disc and one square of random place, size and brightness, and their masks."""
    g = torch.Generator().manual_seed(0)
    y, x = grid()

    def draw(low, high):
        return low + (high - low) * torch.rand(ROWS, 1, 1, generator=g)

    disc = (y - draw(8, 24)) ** 2 + (x - draw(8, 24)) ** 2 < draw(4, 7) ** 2
    side = draw(3, 6)
    square = ((y - draw(8, 24)).abs() < side) & ((x - draw(8, 24)).abs() < side)
    mask = torch.where(square, 2, torch.where(disc, 1, 0)).to(torch.uint8)
    image = (
        draw(0.6, 1.0) * disc - draw(0.6, 1.0) * (square | (disc & square)) - 1.0 * (disc & square)
    )
    image = image + 0.2 * torch.randn(image.shape, generator=g)
    mask[:, :2] = 255  # nobody labelled the first two rows of pixels
    return image.unsqueeze(1).float(), mask


def spots():
    """Pictures of a bright spot, a dim one to mislead, and noise; the place of the bright one."""
    g = torch.Generator().manual_seed(0)
    y, x = grid()
    places = 4 + (SIDE - 8) * torch.rand(2, ROWS, 2, generator=g)

    def spot(at, height):
        far = (x - at[:, 0].view(-1, 1, 1)) ** 2 + (y - at[:, 1].view(-1, 1, 1)) ** 2
        return height * torch.exp(-far / (2 * 1.5**2))

    image = spot(places[0], 3.0) + spot(places[1], 1.0)
    image = image + 0.1 * torch.randn(image.shape, generator=g)
    points = torch.cat([places[0], torch.full((ROWS, 1), 2.0)], 1).unsqueeze(1)
    points[5, 0] = torch.tensor([torch.nan, torch.nan, 0.0])  # one that nobody marked
    return image.unsqueeze(1).float(), points


def trained(name, options, task, data, schema, steps, lr):
    image, target = data
    columns = Columns({"image": image}, target, None)
    train = RowStream(columns, np.arange(TRAIN), batch_size=16, seed=1)
    held = RowStream(columns, np.arange(TRAIN, ROWS), batch_size=16, shuffle=False)
    signature = Signature(image=(1, SIDE, SIDE), outputs=task.outputs(schema))
    model = models.build(name, signature, options=options)
    recipe = Recipe(steps=steps, lr=lr, optimizer="adamw", batch_size=16)
    fit(model, task, train, recipe, schema=schema, setup=Setup(), device="cpu")
    return evaluate(model, task, held, schema=schema).metrics


IMAGE = Field("image", "image", "input", shape=(1, SIDE, SIDE))


@pytest.mark.parametrize("name", ["unet", "fcn", "deeplabv3"])
def test_shapes_are_cut_out(name):
    schema = Schema((IMAGE, Field("mask", "mask", "target", classes=("back", "disc", "square"))))
    more = {"deeplabv3": {"output_stride": 8, "width": 24}, "fcn": {}, "unet": {}}[name]
    if name != "unet":  # without skips to fine maps they need fine maps
        more = {**more, "backbone_options": {**BODY["backbone_options"], "first_stride": 1}}
    found = trained(name, {**BODY, **more}, tasks.segment(), shapes(), schema, 80, 0.01)
    assert found["mean_iou"] > {"unet": 0.8, "fcn": 0.6, "deeplabv3": 0.6}[name]


@pytest.mark.parametrize(
    ("name", "options", "task", "bound"),
    [
        ("heatmap", {}, tasks.pose(metric="nme", reference="picture"), 1.0),
        ("heatmap", {}, tasks.pose(loss="mse", reference="picture"), 1.0),
        ("landmarks", {}, tasks.pose(method="regression", reference="picture"), 1.0),
        ("landmarks", {"head": "dense"}, tasks.pose(reference="picture"), 2.5),
    ],
    ids=["cross-entropy", "mse", "soft-argmax", "dense"],
)
def test_a_spot_is_found(name, options, task, bound):
    schema = Schema((IMAGE, Field("spot", "keypoints", "target", shape=(1, 3))))
    found = trained(name, {**BODY, **options}, task, spots(), schema, 80, 0.01)
    assert found["nme"] * SIDE < bound  # pixels
