"""Convolutional nets: any picture, stage maps, stems, dilation, bodies without a head."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise

import pytest
import torch
from tests.models.oracle import hot
from torch import nn

from gipi import models
from gipi.core.errors import ConfigError, ModelError, UnknownName
from gipi.core.schema import Signature
from gipi.models import BACKBONES, Backbone, backbone

FAMILIES = [
    ("alexnet", {}),
    ("alexnet", {"variant": "2012"}),
    ("googlenet", {}),
    ("googlenet", {"variant": "2014", "auxiliary": True}),
    ("resnet18", {}),
    ("resnet50", {"variant": "v1"}),
    ("resnet20", {"shortcut": "B"}),
    ("densenet121", {}),
    ("densenet-bc", {"depth": 22}),
]
NAMES = [f"{name}-{'-'.join(map(str, options.values()))}" for name, options in FAMILIES]


def build(name, channels=3, height=32, width=32, *, outputs=4, **options):
    signature = Signature(image=(channels, height, width), outputs=outputs)
    return models.build(name, signature, options=options)


@pytest.mark.parametrize(("name", "options"), FAMILIES, ids=NAMES)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 33, 47), (5, 70, 65)])
def test_any_size_and_channel_count(name, options, channels, height, width):
    net = build(name, channels, height, width, **options).eval()
    x = torch.randn(2, channels, height, width)
    with torch.no_grad():
        assert net(x).shape == (2, 4)
        maps = net.features(x)
    assert [m.shape[1] for m in maps] == list(net.feature_channels)
    assert len(maps) == len(net.feature_strides)
    assert all(a.shape[2:] >= b.shape[2:] for a, b in pairwise(maps))


@pytest.mark.parametrize("side", [32, 96])
@pytest.mark.parametrize(("name", "options"), FAMILIES[2:], ids=NAMES[2:])
def test_maps_are_the_pictures_size_over_the_stride(name, options, side):
    net = build(name, 3, side, side, **options).eval()
    with torch.no_grad():
        maps = net.features(torch.randn(1, 3, side, side))
    for found, stride in zip(maps, net.feature_strides, strict=True):
        assert found.shape[2:] == (side // stride, side // stride)


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize(("name", "options"), FAMILIES[:2], ids=NAMES[:2])
def test_maps_of_alexnet_are_within_a_pixel_of_the_size_over_the_stride(name, options, side):
    net = build(name, 3, side, side, outputs=0, **options).eval()
    with torch.no_grad():
        maps = net.features(torch.randn(1, 3, side, side))
    for found, stride in zip(maps, net.feature_strides, strict=True):
        assert abs(found.shape[2] - side / stride) <= 1
        assert abs(found.shape[3] - side / stride) <= 1


@pytest.mark.parametrize(("name", "options"), FAMILIES, ids=NAMES)
def test_without_outputs_there_is_no_head(name, options):
    net = build(name, outputs=0, **options).eval()
    assert not any(isinstance(m, nn.Linear) for m in net.modules())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(x), net.features(x)[-1].mean((2, 3)))


@pytest.mark.parametrize(
    ("name", "options"),
    [("alexnet", {}), ("alexnet", {"variant": "2012"}), ("googlenet", {"variant": "2014"}),
     ("resnet20", {"shortcut": "B"})],
)  # fmt: skip
def test_config_and_seed_rebuild_every_tensor(name, options):
    def state(seed, options):
        net = models.build(name, Signature(image=(3, 32, 32), outputs=0), seed=seed,
                           options=options)  # fmt: skip
        return net, net.state_dict()

    net, tensors = state(3, options)
    again, same = state(3, asdict(net.config))
    _, other = state(4, options)
    assert again.config == net.config
    assert all(torch.equal(t, same[k]) for k, t in tensors.items())
    assert any(not torch.equal(t, other[k]) for k, t in tensors.items())
    net.train()(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_every_backbone_is_a_model_too_and_answers_maps():
    assert set(BACKBONES.names()) <= set(models.MODELS.names())
    module, body = backbone("resnet18", Signature(image=(3, 64, 64)), torch.Generator(),
                            options={"norm": "group"})  # fmt: skip
    assert isinstance(module, Backbone)
    assert body is module
    assert any(isinstance(m, nn.GroupNorm) for m in module.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in module.modules())


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "googlenet", "alexnet"])
def test_small_pictures_get_the_small_stem_and_it_is_said(name):
    small, large = build(name, 3, 64, 64, outputs=0), build(name, 3, 64, 65, outputs=0)
    assert small.config.stem == "cifar"
    assert large.config.stem == "imagenet"
    assert any("stem cifar (3x3 without pooling)" in said for said in small.choices)
    assert any("stem imagenet" in said for said in large.choices)
    asked = build(name, 3, 64, 64, outputs=0, stem="imagenet")
    assert any("as asked" in said for said in asked.choices)
    assert asked.feature_strides[-1] == large.feature_strides[-1]


@pytest.mark.parametrize(
    ("depth", "variant", "stride"),
    [(18, "v1.5", 16), (18, "v1.5", 8), (50, "v1.5", 8), (50, "v1", 8)],
)
def test_dilation_computes_the_same_maps_more_densely(depth, variant, stride):
    """À trous: every second (fourth) place of a dilated map is a place of the strided one."""
    options = {"variant": variant, "stem": "imagenet"}
    coarse = hot(build(f"resnet{depth}", 3, 64, 64, outputs=0, **options)).eval()
    dense = hot(build(f"resnet{depth}", 3, 64, 64, outputs=0, output_stride=stride,
                      **options)).eval()  # fmt: skip
    assert dense.feature_strides == {16: (2, 4, 8, 16, 16), 8: (2, 4, 8, 8, 8)}[stride]
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        for a, b, s, t in zip(coarse.features(x), dense.features(x), coarse.feature_strides,
                              dense.feature_strides, strict=True):  # fmt: skip
            torch.testing.assert_close(b[..., :: s // t, :: s // t], a)


def test_blocks_may_start_as_the_identity():
    net = build("resnet50", 3, 32, 32, zero_residual=True)
    assert (net.layer1[1].bn3.weight == 0).all()
    assert (net.layer1[1].bn1.weight == 1).all()
    x = torch.randn(2, 256, 8, 8).relu()
    torch.testing.assert_close(net.layer1[1](x), x)


@pytest.mark.parametrize("variant", ["batchnorm", "2014"])
def test_no_layer_that_answers_starts_as_if_a_rectifier_followed(variant):
    net = build("googlenet", outputs=1000, variant=variant, auxiliary=True)
    for head in (net.fc, net.aux1.fc2, net.aux2.fc2):
        assert head.weight.std().item() == pytest.approx(1024**-0.5, rel=0.02)
    assert net.aux1.fc1.weight.std().item() == pytest.approx((2 / 2048) ** 0.5, rel=0.02)


def test_option_a_keeps_every_second_pixel_and_adds_maps_of_zeros():
    block = build("resnet20").layer2[0]
    x = torch.randn(2, 16, 6, 6)
    y = block.shortcut(x)
    assert y.shape == (2, 32, 3, 3)
    assert torch.equal(y[:, 8:24], x[..., ::2, ::2])
    assert (y[:, :8] == 0).all()
    assert (y[:, 24:] == 0).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: build("resnet18", stem="small"), ConfigError, "stem"),
        (lambda: build("resnet18", variant="v2"), ConfigError, "variant"),
        (lambda: build("resnet18", output_stride=4), ConfigError, "output_stride"),
        (lambda: build("resnet18", norm="bach"), UnknownName, "'batch'"),
        (lambda: build("resnet20", stem="cifar"), ConfigError, "'stem'"),
        (lambda: build("densenet121", 3, 7, 40), ModelError, "at least 8 pixels"),
        (lambda: build("densenet121", 3, 28, 28, stem="imagenet"), ModelError, "at least 29"),
        (lambda: build("densenet-bc", depth=41), ModelError, "6n \\+ 4"),
        (lambda: build("alexnet", 3, 6, 6), ModelError, "at least 7 pixels"),
        (lambda: build("alexnet", 3, 62, 62, stem="imagenet"), ModelError, "at least 63"),
        (lambda: build("googlenet", 3, 3, 9), ModelError, "at least 4"),
        (lambda: build("googlenet", 3, 14, 14, stem="imagenet"), ModelError, "at least 15"),
        (lambda: build("googlenet", 3, 7, 7, variant="2014"), ModelError, "at least 8"),
        (lambda: build("googlenet", 1, transform_input=True), ModelError, "three channels"),
        (lambda: models.build("resnet18", Signature(numbers=3)), ModelError, "images"),
        (lambda: models.build("googlenet", Signature(numbers=3)), ModelError, "images"),
        (lambda: models.build("resnet18", Signature(vocab=9, length=4)), ModelError,
         "resnet for data without pictures[\\s\\S]*'lstm' for texts"),
        (lambda: models.build("lenet5", Signature(numbers=3)), ModelError,
         "lenet5 for data without pictures"),
        (lambda: backbone("resnet19", Signature(image=(3, 8, 8)), torch.Generator()),
         UnknownName, "resnet1"),
    ],
)  # fmt: skip
def test_wrong_requests_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    ("name", "side", "options"),
    [("densenet121", 8, {}), ("densenet121", 29, {"stem": "imagenet"}), ("densenet-bc", 4, {}),
     ("alexnet", 7, {}), ("alexnet", 63, {"stem": "imagenet"}), ("googlenet", 4, {}),
     ("googlenet", 15, {"stem": "imagenet"}), ("googlenet", 8, {"variant": "2014"}),
     ("googlenet", 31, {"variant": "2014", "stem": "imagenet"}),
     ("resnet18", 1, {"stem": "imagenet"}), ("resnet20", 1, {})],
)  # fmt: skip
def test_the_least_size_that_is_named_works(name, side, options):
    net = build(name, 3, side, side, **options).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, side, side)).shape == (1, 4)
