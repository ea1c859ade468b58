"""FCOS and RetinaNet: shapes for any picture, places that mean what they say, the first answers."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from gipi import models
from gipi.core.errors import ConfigError, ModelError, UnknownName
from gipi.core.schema import Signature
from gipi.models.retinanet import moved
from gipi.nn import mixes_rows
from gipi.nn.grids import anchors, levels_of, locations

NAMES = ("fcos", "retinanet")
PER_PLACE = {"fcos": 1, "retinanet": 9}
SMALL = {"backbone": "lightnet", "backbone_options": {"widths": [8, 8, 16, 16, 16]}, "width": 16,
         "depth": 1}  # fmt: skip


def build(name, size=(64, 48), classes=3, seed=0, **options):
    signature = Signature(image=(3, *size), outputs=classes)
    return models.build(name, signature, seed=seed, options={**SMALL, **options})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("size", "places"),
    [((64, 48), 48 + 12 + 4), ((37, 53), 5 * 7 + 3 * 4 + 2 * 2), ((8, 8), 1), ((130, 9), 17 * 2
     + 9 + 5 + 3 + 2)],
)  # fmt: skip
def test_there_is_an_answer_for_every_place_of_any_picture(name, size, places):
    model = build(name, size)
    out = model(torch.randn(2, 3, *size))
    assert out.shape == (2, places * PER_PLACE[name], 5 + 3)
    assert out.dtype == torch.float32
    assert sum(level.places for level in levels_of(places, *size)) == places
    out.square().mean().backward()
    head = [p for n, p in model.named_parameters() if not n.startswith("pyramid.body")]
    assert all(p.grad is not None for p in head)


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_a_function_of_the_seed_and_the_config_rebuilds_the_model(name):
    x = torch.randn(1, 3, 64, 48)
    a, b, c = build(name, seed=1).eval(), build(name, seed=1).eval(), build(name, seed=2).eval()
    assert torch.equal(a(x), b(x))
    assert not torch.equal(a(x), c(x))
    signature = Signature(image=(3, 64, 48), outputs=3)
    again = models.build(name, signature, seed=1, options=asdict(a.config)).eval()
    assert again.config == a.config
    assert torch.equal(again(x), a(x))
    assert all(isinstance(sentence, str) and sentence for sentence in a.choices)


@pytest.mark.parametrize("name", NAMES)
def test_a_new_detector_sees_nothing_and_answers_its_places(name):
    out = build(name).eval()(torch.randn(2, 3, 64, 48)).detach()
    p = torch.sigmoid(out[..., 5:])
    assert 0.003 < float(p.mean()) < 0.03
    levels = levels_of(out.shape[1] // PER_PLACE[name], 64, 48)
    if name == "fcos":
        where = locations(levels)
        expected = torch.cat([where[:, :2] - 4 * where[:, 2:], where[:, :2] + 4 * where[:, 2:]], 1)
        stride = where[:, 2:]
    else:
        expected = anchors(levels)
        stride = (expected[:, 2:] - expected[:, :2]).repeat(1, 2) / 4
    assert float(((out[..., :4] - expected) / stride).abs().mean()) < 0.5
    if name == "retinanet":
        assert not out[..., 4].any()


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_by_the_coarsest_stride_shifts_the_answers(name):
    """What a place answers depends on what lies around it, not on where in the picture it is."""
    model = build(name, (64, 64), strides=[8, 16], norm="none").eval()
    x = torch.zeros(1, 3, 192, 192)
    x[..., 80:96, 80:96] = torch.randn(3, 16, 16)
    a = model(x)[0, : 24 * 24 * PER_PLACE[name]].view(24, 24, -1, 8)
    b = model(x.roll((32, 32), (2, 3)))[0, : 24 * 24 * PER_PLACE[name]].view(24, 24, -1, 8)
    inner = slice(9, 13)
    moved_there = b[13:17, 13:17].clone()
    moved_there[..., :4] -= 32
    torch.testing.assert_close(moved_there, a[inner, inner], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_do_not_meet_where_all_norms_are_group_norms(name):
    options = {**SMALL["backbone_options"], "norm": "group"}
    model = build(name, backbone_options=options)
    assert mixes_rows(model) == []
    assert mixes_rows(build(name))  # the backbone's own default
    x = torch.randn(3, 3, 64, 48)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "strides"), [("resnet18", (8, 16, 32, 64)), ("resnet20", (4, 8, 16))]
)
def test_any_backbone_will_do(backbone, strides):
    model = build("fcos", (70, 90), backbone=backbone, backbone_options={}, strides=strides)
    with torch.no_grad():
        places = model(torch.randn(1, 3, 70, 90)).shape[1]
    assert places == sum(-(-70 // s) * -(-90 // s) for s in strides)


def test_moves_of_anchors_are_those_of_the_paper():
    anchor = torch.tensor([[10.0, 10.0, 30.0, 20.0]])
    found = moved(anchor, torch.tensor([[[0.5, -1.0, 0.0, 0.6931472]]]))
    torch.testing.assert_close(found, torch.tensor([[[20.0, -5.0, 40.0, 15.0]]]))
    assert torch.isfinite(moved(anchor, torch.full((1, 1, 4), 1e6))).all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"backbone": "resnet"}, UnknownName, "no backbone"),
        ({"strides": [8, 32]}, ModelError, "double"),
        ({"strides": [64, 128]}, ModelError, "stride 64"),
        ({"norm": "grup"}, UnknownName, "'group'"),
        ({"width": 0}, ConfigError, "width=0"),
        ({"deep": 3}, ConfigError, "'depth'"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_wrong_requests_are_named(name, options, error, words):
    with pytest.raises(error, match=words):
        build(name, **options)


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_no_classes_are_refused(name):
    with pytest.raises(ModelError, match="images"):
        models.build(name, Signature(numbers=3, outputs=2))
    with pytest.raises(ModelError, match="at least one class"):
        build(name, classes=0)
