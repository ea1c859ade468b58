"""Dense models: one answer a pixel or a point, for pictures of any size, on any backbone."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gipi import models
from gipi.core.errors import ConfigError, ModelError, UnknownName
from gipi.core.schema import Signature
from gipi.models.body import pad_to, resize_maps
from gipi.models.decoder import Decoder
from gipi.models.landmarks import soft_argmax
from gipi.models.unet import draw_transposed

K = 3
SLIM = {"widths": [4, 6, 8], "norm": "group"}
PLAIN = {"backbone": "lightnet", "backbone_options": SLIM}
CASES = {
    "unet": ("unet", {**PLAIN, "norm": "group"}),
    "unet-fine": ("unet", {**PLAIN, "stride": 1, "dropout": 0.1, "norm": "layer"}),
    "unet-coarse": ("unet", {**PLAIN, "stride": 4, "norm": "none"}),
    "unet-2015": ("unet", {"variant": "2015", "width": 2}),
    "deeplabv3": ("deeplabv3", {**PLAIN, "output_stride": 8, "width": 6, "norm": "layer"}),
    "fcn": ("fcn", {**PLAIN, "stride": 8}),
    "heatmap": ("heatmap", {**PLAIN, "norm": "group"}),
    "heatmap-deconv": ("heatmap", {**PLAIN, "head": "deconv", "width": 4, "norm": "group"}),
    "landmarks": ("landmarks", {**PLAIN, "norm": "group"}),
    "landmarks-dense": ("landmarks", {**PLAIN, "head": "dense", "width": 8}),
}


def build(case, *, image=(2, 72, 70), seed=0, **options):
    name, given = CASES[case]
    signature = Signature(image=image, outputs=K)
    return models.build(name, signature, seed=seed, options={**given, **options})


def shape(case, height, width):
    if case.startswith("landmarks"):
        return (2, K, 2)
    if case.startswith("heatmap"):
        return (2, K, -(-height // 2), -(-width // 2))
    return (2, K, height, width)


@pytest.mark.parametrize("case", CASES)
def test_answers_have_their_size_for_pictures_of_any_size(case):
    model = build(case).eval()
    sizes = [(72, 70)] if case == "landmarks-dense" else [(72, 70), (65, 97), (33, 16), (7, 5)]
    for height, width in sizes:
        out = model(torch.randn(2, 2, height, width))
        assert out.shape == shape(case, height, width)
        assert bool(out.isfinite().all())


@pytest.mark.parametrize("case", CASES)
def test_every_weight_learns_and_no_classifier_remains(case):
    model = build(case)
    model(torch.randn(2, 2, 72, 70)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("case", CASES)
def test_it_is_rebuilt_from_its_config_and_its_seed(case):
    model, x = build(case, seed=3).eval(), torch.randn(2, 2, 72, 70)
    name = CASES[case][0]
    again = models.build(
        name, Signature(image=(2, 72, 70), outputs=K), seed=3, options=asdict(model.config)
    ).eval()
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
    assert not torch.equal(build(case, seed=4).eval()(x), model(x))
    assert model.choices
    assert all(isinstance(sentence, str) and sentence for sentence in model.choices)


@pytest.mark.parametrize("case", [c for c in CASES if c != "unet-fine"])
def test_rows_do_not_meet_without_batch_norm(case):
    model, x = build(case).train(), torch.randn(3, 2, 72, 70)
    if case == "deeplabv3":
        model.eval()  # dropout
    alone = torch.cat([model(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(x), alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ["unet", "unet-2015", "fcn", "heatmap"])
@torch.no_grad()
def test_an_answer_moves_with_the_picture(case):
    """A picture shifted by the coarsest stride gives the shifted answer, far from its borders."""
    options = {} if case == "unet-2015" else {"backbone_options": {**SLIM, "norm": "none"}}
    options |= {} if case in ("unet-2015", "fcn") else {"norm": "none"}
    options |= {"stride": 2} if case == "heatmap" else {}
    model = build(case, image=(2, 320, 320), **options).double().eval()
    picture = torch.zeros(1, 2, 320, 320, dtype=torch.float64)
    picture[..., 144:160, 136:152] = 9 * torch.randn(1, 2, 16, 16, dtype=torch.float64)
    there, here = model(picture.roll((16, 16), (2, 3))), model(picture)
    factor = 2 if case == "heatmap" else 1
    middle = slice(130 // factor, 190 // factor)
    shifted = here.roll((16 // factor, 16 // factor), (2, 3))[..., middle, middle]
    torch.testing.assert_close(there[..., middle, middle], shifted)
    assert float((there - here)[..., middle, middle].abs().max()) > 1e-6


@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_deeplab_trains_on_a_single_picture(kind):
    """The mean over the picture is a single value of each map, which torch's norms refuse."""
    model = build("deeplabv3", norm=kind)
    model(torch.randn(1, 2, 40, 40)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_soft_argmax_finds_the_centre_of_a_bump():
    maps = torch.full((1, 1, 8, 10), -100.0)
    maps[0, 0, 3, 6] = 100.0
    assert soft_argmax(maps, stride=4)[0, 0].tolist() == [26.0, 14.0]
    maps[0, 0, 3, 7] = 100.0
    assert soft_argmax(maps, stride=4)[0, 0].tolist() == [28.0, 14.0]
    assert soft_argmax(maps.bfloat16(), stride=4).dtype is torch.float32


def test_padding_and_enlargement_keep_pixel_centres():
    image = torch.randn(1, 2, 5, 9)
    padded = pad_to(image, 8)
    assert padded.shape == (1, 2, 8, 16)
    torch.testing.assert_close(padded[..., :5, :9], image)
    assert pad_to(padded, 8) is padded
    ramp = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 6, 6) + 0.5  # centres of pixels
    fine = resize_maps(ramp, 4) * 4
    wanted = torch.arange(24.0) + 0.5
    torch.testing.assert_close(fine[0, 0, 10, 2:-2], wanted[2:-2])


@torch.no_grad()
def test_the_decoder_lays_its_maps_exactly_on_each_other():
    """With weights that pass things through, a map of its own x coordinates stays one."""
    decoder = Decoder((1, 1, 1), (2, 4, 8), kind="none")
    for narrow, block in zip(decoder.narrow, decoder.blocks, strict=True):
        narrow.weight.fill_(1.0)
        narrow.bias.zero_()
        block[0].weight.zero_()
        block[0].weight[0, :, 1, 1] = 0.5  # half of the enlarged map and half of the joined one
        block[0].bias.zero_()
    maps = [((torch.arange(64 // s) + 0.5) * s).expand(1, 1, 64 // s, 64 // s) for s in (2, 4, 8)]
    for given in (maps, [m.transpose(2, 3) for m in maps]):
        inside = (..., slice(3, -3), slice(3, -3))
        torch.testing.assert_close(decoder(given)[inside], given[0][inside])


def test_the_published_net_has_the_published_size():
    model = models.build("unet", Signature(image=(1, 32, 32), outputs=2),
                         options={"variant": "2015"})  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == 31_030_658


def test_transposed_convolutions_keep_the_variance():
    layer = nn.ConvTranspose2d(64, 64, 4, 2, 1)
    draw_transposed(layer, torch.Generator().manual_seed(0))
    x = F.relu(torch.randn(8, 64, 16, 16, generator=torch.Generator().manual_seed(1)))
    middle = layer(x)[..., 4:-4, 4:-4]
    assert float(middle.detach().square().mean()) == pytest.approx(1.0, rel=0.15)


def test_lightnet_says_its_size_and_can_dilate():
    net = models.build("lightnet", Signature(image=(3, 96, 96), outputs=10))
    assert sum(p.numel() for p in net.parameters()) == 1_971_498
    assert net(torch.randn(2, 3, 96, 96)).shape == (2, 10)
    assert net.feature_strides == (2, 4, 8, 16, 32)
    small = models.build("lightnet", Signature(image=(3, 32, 32), outputs=10))
    assert small.feature_strides == (1, 2, 4, 8, 16)
    _, body = models.backbone(
        "lightnet", Signature(image=(3, 96, 96)), torch.Generator(), options={"output_stride": 8}
    )
    maps = body.features(torch.randn(1, 3, 96, 96))
    assert [96 // m.shape[-1] for m in maps] == list(body.feature_strides) == [2, 4, 8, 8, 8]
    assert [m.shape[1] for m in maps] == list(body.feature_channels)


@pytest.mark.parametrize("name", ["unet", "deeplabv3", "fcn", "heatmap", "landmarks"])
def test_a_known_net_is_a_backbone_for_each(name):
    model = models.build(
        name, Signature(image=(3, 80, 80), outputs=K), options={"backbone": "resnet18"}
    )
    out = model.eval()(torch.randn(1, 3, 80, 80))
    assert out.shape[:2] == (1, K)
    assert "fc" not in dict(model.body.named_children()) or not list(model.body.fc.parameters())
    if name == "deeplabv3":
        assert model.stride == 16


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("unet", {"backbone": "resnet81"}, UnknownName, "resnet18"),
        ("unet", {"backbone": "mlp"}, UnknownName, "backbone"),
        ("unet", {"backbone_options": {"depth": 3}}, ConfigError, "depth"),
        ("unet", {"stride": 3}, ConfigError, "stride"),
        ("unet", {"norm": "bach"}, UnknownName, "batch"),
        ("heatmap", {"head": "fpn"}, ConfigError, "head"),
        ("lightnet", {"widths": []}, ModelError, "at least one stage"),
    ],
)
def test_wrong_requests_are_named(name, options, error, words):
    with pytest.raises(error, match=words):
        models.build(name, Signature(image=(3, 80, 80), outputs=K), options=options)


@pytest.mark.parametrize("name", ["unet", "deeplabv3", "fcn", "heatmap", "landmarks", "lightnet"])
def test_a_table_is_no_picture(name):
    with pytest.raises(ModelError, match="images"):
        models.build(name, Signature(numbers=4, outputs=2))
