"""Colours and filters: against float64 references, in range, the same bits for any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from gipi.core.errors import ConfigError
from gipi.core.schema import Field, Schema
from gipi.core.seed import derive
from gipi.data.augment import Augment, build_augment, colour, filters
from gipi.data.augment.policy import OPERATIONS

N, H, W = 32, 24, 22
IDS = torch.arange(N) + 77
KEY = derive(3, "augment", 2)
MEAN, STD = (0.45, 0.4, 0.35), (0.25, 0.2, 0.3)
VALUES = (
    "brightness", "contrast", "saturation", "hue", "grey", "color-jitter", "blur", "noise",
    "sharpness", "posterize", "solarize", "invert", "autocontrast", "equalize", "rand-augment",
    "trivial-augment",
)  # fmt: skip


def schema(channels: int = 3, full: float = 255.0) -> Schema:
    """Normalised pictures with classes."""
    stats = {"mean": list(MEAN[:channels]), "std": list(STD[:channels]), "range": full}
    image = Field("image", "image", "input", shape=(channels, H, W), stats=stats)
    return Schema((image, Field("y", "category", "target", classes=("a", "b"))))


def built(*asked: str | dict[str, object], channels: int = 3) -> Augment:
    """Return the augmentation of normalised pictures."""
    found = build_augment(asked, schema(channels))
    assert found is not None
    return found


def levels(channels: int = 3) -> Tensor:
    """Return (N, C, H, W) uint8 pictures, each within its own range."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(N, channels, H, W, generator=generator)
    low = 0.4 * torch.rand(N, channels, 1, 1, generator=generator)
    return ((low + pixels * 0.5) * 255).round().to(torch.uint8)


def normal(pixels: Tensor) -> Tensor:
    """Return normalised float32 values of uint8 pixels."""
    c = pixels.shape[1]
    mean, std = (torch.tensor(v[:c]).view(-1, 1, 1) for v in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def shown(images: Tensor) -> Tensor:
    """Return values v of normalised pictures."""
    c = images.shape[1]
    mean, std = (torch.tensor(v[:c]).view(-1, 1, 1) for v in (MEAN, STD))
    return images * std + mean


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("channels", [1, 3])
def test_values_stay_in_range_and_grey_stays_grey(name: str, channels: int) -> None:
    if channels == 1 and name in ("saturation", "hue", "grey"):
        with pytest.raises(ConfigError, match="grey pictures"):
            built(name, channels=1)
        return
    images = normal(levels(channels))
    changed = built(name, channels=channels).pictures(images, IDS, key=KEY)
    values = shown(changed)
    assert values.shape == images.shape
    assert values.min() >= -1e-5
    assert values.max() <= 1 + 1e-5
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("last", [False, True])
def test_the_colour_matrix_agrees_with_float64(last: bool) -> None:
    """All colour steps as one matrix are the steps one after the other, in float64."""
    images = normal(levels())
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    mean = torch.tensor(MEAN)
    generator = torch.Generator().manual_seed(4)
    numbers = [torch.rand(N, generator=generator, dtype=torch.float64) for _ in range(4)]
    gains = [0.9 + 0.2 * u for u in numbers]
    steps = [
        colour.lighter(gains[0], mean), colour.stretched(gains[1], mean),
        colour.saturated(gains[2], mean), colour.turned(gains[3] - 1, mean),
    ]  # fmt: skip
    v = shown(images).double().numpy()
    for step in steps:
        a = step.numpy()
        v = np.einsum("nij,njhw->nihw", a[..., :3], v) + a[..., 3, None, None]
    total = steps[0]
    for step in steps[1:]:
        total = colour.after(step, total)
    found = colour.apply_colour(
        images, total, mean=mean, std=torch.tensor(STD), clip=True, mixes=True
    )
    assert np.abs(shown(found).numpy() - v.clip(0, 1)).max() < 2e-6
    half = colour.apply_colour(
        images.bfloat16(), total, mean=mean, std=torch.tensor(STD), clip=True, mixes=True
    )
    assert half.dtype == torch.bfloat16
    assert (half.float() - found).abs().max() < 0.05


def test_colour_steps_do_what_they_say() -> None:
    mean = torch.tensor(MEAN)
    v = shown(normal(levels())).double()
    one = torch.ones(N, dtype=torch.float64)
    luma = (v * torch.tensor(colour.LUMA, dtype=torch.float64).view(3, 1, 1)).sum(1)

    def after(matrix: Tensor) -> Tensor:
        return torch.einsum("nij,njhw->nihw", matrix[..., :3], v) + matrix[..., 3, None, None]

    assert torch.allclose(after(colour.saturated(0 * one, mean)), luma[:, None].expand_as(v))
    assert torch.allclose(after(colour.saturated(one, mean)), v)
    for angle in (0.3, 2.0):
        turned = after(colour.turned(angle * one, mean))
        kept = (turned * torch.tensor(colour.LUMA, dtype=torch.float64).view(3, 1, 1)).sum(1)
        assert (kept - luma).abs().max() < 2e-3, "brightness is kept"
        assert (turned - v).abs().max() > 0.05
    assert torch.allclose(after(colour.turned(2 * torch.pi * one, mean)), v)
    grey = v.mean(1, keepdim=True).expand_as(v)
    matrix = colour.turned(one, mean)
    still = torch.einsum("nij,njhw->nihw", matrix[..., :3], grey)
    assert (still - grey).abs().max() < 2e-3, "grey has no hue"


def pil(pixels: Tensor, change) -> Tensor:  # type: ignore[no-untyped-def]
    """Return PIL's answer for each picture, as values in [0, 1]."""
    out = [change(Image.fromarray(p.permute(1, 2, 0).numpy())) for p in pixels]
    return torch.stack([torch.from_numpy(np.array(o)).permute(2, 0, 1) for o in out]).float() / 255


def test_filters_of_levels_agree_with_pil() -> None:
    pixels = levels()
    v = pixels.float() / 255
    assert torch.allclose(filters.even_levels(v), pil(pixels, ImageOps.equalize), atol=1e-6)
    assert torch.allclose(
        filters.stretch_range(v), pil(pixels, ImageOps.autocontrast), atol=1.01 / 255
    )
    four = torch.full((N,), 4.0)
    assert torch.allclose(
        filters.fewer_levels(v, four), pil(pixels, lambda p: ImageOps.posterize(p, 4)), atol=1e-6
    )
    limit = torch.full((N,), 128 / 255)
    assert torch.allclose(
        filters.inverted_above(v, limit), pil(pixels, lambda p: ImageOps.solarize(p, 128)),
        atol=1e-6,
    )  # fmt: skip
    smooth = pil(pixels, lambda p: p.filter(ImageFilter.SMOOTH))
    assert torch.allclose(filters.sharper(v, 0 * limit), smooth, atol=1.01 / 255)
    assert torch.allclose(filters.sharper(v, 0 * limit + 1), v, atol=1e-6)


def test_blur_is_a_gaussian_and_keeps_the_light() -> None:
    v = torch.zeros(N, 1, 21, 21)
    v[:, :, 10, 10] = 1
    step = filters.blur(sigma=1.5, p=1)
    u = torch.linspace(0.2, 0.99, N, dtype=torch.float64)
    out = step.apply(v, lambda _: u)[:, 0].double()
    assert torch.allclose(out.sum((1, 2)), torch.ones(N, dtype=torch.float64), atol=1e-5)
    at = torch.arange(21.0, dtype=torch.float64) - 10
    spread = (out.sum(1) * at**2).sum(1).sqrt()
    wanted = 0.1 + u * 1.4
    wide = wanted > 0.5  # narrower than that, pixels are too coarse to show it
    assert ((spread - wanted).abs() / wanted)[wide].max() < 0.06
    flat = torch.full((N, 2, 9, 9), 0.3)
    assert torch.allclose(step.apply(flat, lambda _: u), flat, atol=1e-6)


def test_noise_is_normal_and_belongs_to_the_sample() -> None:
    images = torch.zeros(N, 3, H, W)
    clean = Augment((filters.noise(strength=0.2, p=1),), torch.zeros(3), torch.ones(3), False, 2)
    found = clean.pictures(images, IDS, key=KEY)
    spread = found.flatten(1).std(1)
    assert spread.max() <= 0.2 * 1.1
    standard = (found.flatten(1) / spread[:, None]).flatten()
    assert standard.mean().abs() < 0.05
    assert (standard.abs() < 1).float().mean() == pytest.approx(0.683, abs=0.02)
    assert not torch.equal(found[0], found[1])
    again = clean.pictures(images[3:5], IDS[3:5], key=KEY)
    assert torch.equal(again, found[3:5])


def test_filters_act_on_what_colours_left_and_colours_on_what_filters_left() -> None:
    """Steps keep their order: a negative of darker pictures is not a darker negative."""
    images = normal(levels())
    negative: dict[str, object] = {"name": "invert", "p": 1}
    first = built({"name": "brightness", "strength": 1}, negative).pictures(images, IDS, key=KEY)
    second = built(negative, {"name": "brightness", "strength": 1}).pictures(images, IDS, key=KEY)
    v = shown(images)
    factor = (1 - shown(first)).amax((1, 2, 3)) / v.amax((1, 2, 3))
    low = factor < 0.99 / v.amax((1, 2, 3))
    assert torch.allclose(shown(first)[low], (1 - factor.view(-1, 1, 1, 1) * v)[low], atol=1e-4)
    assert not torch.allclose(first, second, atol=0.1)


def test_half_precision_pictures_stay_so() -> None:
    images = normal(levels()).bfloat16()
    for names in (("rotate", "color-jitter", "blur"), ("flip", "crop"), ("rand-augment",)):
        found = built(*names).pictures(images, IDS, key=KEY)
        exact = built(*names).pictures(images.float(), IDS, key=KEY)
        assert found.dtype == torch.bfloat16
        assert (found.float() - exact).abs().median() < 0.03


def test_policies_draw_every_operation_alike() -> None:
    ids = torch.arange(14_000)
    augment = built("trivial-augment")
    images = torch.zeros(len(ids), 3, 1, 1)
    matrix = augment.matrix(ids, key=KEY, height=8, width=8)
    moved = (matrix - torch.eye(3)).abs().amax((1, 2)) > 0
    assert float(moved.float().mean()) == pytest.approx(5 / len(OPERATIONS), abs=0.03)
    assert augment.pictures(images, ids, key=KEY).shape == images.shape


@pytest.mark.parametrize("name", ["posterize", "equalize", "rand-augment"])
def test_float_pictures_have_no_grey_levels(name: str) -> None:
    with pytest.raises(ConfigError, match="float values"):
        build_augment([name], schema(full=1.0))
