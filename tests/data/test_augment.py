from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gipi.core.errors import ConfigError, UnknownName
from gipi.core.schema import Field, Schema
from gipi.core.seed import derive
from gipi.data.augment import (
    AUGMENTATIONS,
    Augment,
    build_augment,
    transform_boxes,
    transform_masks,
    transform_points,
)
from gipi.data.augment.mix import beta_quantile, beta_table
from gipi.data.augment.move import apply_exact, apply_windows

H, W = 12, 10
IDS = torch.arange(400, 464)
KEY = derive(0, "augment", 3)


def schema(channels: int = 3, classes: tuple[str, ...] = ("a", "b", "c")) -> Schema:
    """Pictures of H x W in [0, 1] with mean 0.4 and spread 0.2, and a target."""
    stats = {"mean": [0.4] * channels, "std": [0.2] * channels, "range": 255.0}
    image = Field("image", "image", "input", shape=(channels, H, W), stats=stats)
    kind = "category" if classes else "number"
    return Schema((image, Field("y", kind, "target", classes=classes)))


def boxed(*asked: str | dict[str, object]) -> Augment:
    """Return the augmentation of pictures with boxes."""
    image = schema().fields[0]
    target = Field("boxes", "boxes", "target", shape=(2, 6), classes=("a", "b"))
    found = build_augment(asked, Schema((image, target)))
    assert found is not None
    return found


def boxes(n: int) -> Tensor:
    """Return box targets (n, 2, 6): one box, and for every other row a second one."""
    one = torch.tensor([[1.0, 2, 7, 9, 0, 0], [4, 1, 9, 6, 1, 0]]).repeat(n, 1, 1)
    one[::2, 1, 4] = -1
    return one


def built(*asked: str | dict[str, object], classes: tuple[str, ...] = ("a", "b", "c")) -> Augment:
    """Return the augmentation of pictures."""
    found = build_augment(asked, schema(classes=classes))
    assert found is not None
    return found


def pictures(n: int = 64) -> Tensor:
    """Return normalised random pictures."""
    values = torch.rand(n, 3, H, W, generator=torch.Generator().manual_seed(0))
    return (values - 0.4) / 0.2


def changed(augment: Augment, images: Tensor, ids: Tensor = IDS) -> Tensor:
    """Return the pictures after augmentation."""
    return augment({"image": images}, None, ids, key=KEY)[0]["image"]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("record", list(AUGMENTATIONS), ids=lambda r: r.name)
def test_every_one_is_the_same_whatever_the_batch(record, last: bool) -> None:  # type: ignore[no-untyped-def]
    images, target = pictures(), torch.arange(64) % 3
    if last:
        images = images.contiguous(memory_format=torch.channels_last)
    asked: dict[str, object] = {"name": record.name}
    if record.name == "resize":
        asked["size"] = [9, 7]
    if record.name == "mosaic":
        augment, target = boxed(asked), boxes(64)
    else:
        augment = built(asked)
    before = images.clone()
    ring = [(torch.arange(64) + 1 + k) % 64 for k in range(3)][: max(1, augment.partners)]
    whole, labels = augment({"image": images}, target, IDS, key=KEY, partner=torch.stack(ring))
    assert torch.equal(images, before), "the rows of the stream are never written to"
    assert whole["image"].shape != images.shape or not torch.equal(whole["image"], images)
    assert whole["image"].dtype == torch.float32
    assert labels is not None
    for a, b in ((0, 1), (1, 30), (30, 64)):
        rows = torch.arange(a, b + len(ring)) % 64
        part, some = augment(
            {"image": images[rows]}, target[rows], IDS[rows], key=KEY,
            partner=torch.stack([torch.arange(b - a) + 1 + k for k in range(len(ring))]),
            keep=torch.arange(b - a),
        )  # fmt: skip
        assert torch.equal(part["image"], whole["image"][a:b])
        assert some is not None
        assert torch.equal(some, labels[a:b])
    other, _ = augment(
        {"image": images}, target, IDS, key=derive(0, "augment", 4), partner=torch.stack(ring)
    )
    if record.name != "resize":
        assert not torch.equal(other["image"], whole["image"])


@pytest.mark.parametrize(("axis", "dim"), [("horizontal", 3), ("vertical", 2)])
def test_flip_is_torch_flip(axis: str, dim: int) -> None:
    images = pictures()
    assert torch.equal(
        changed(built({"name": "flip", "axis": axis, "p": 1}), images), images.flip(dim)
    )
    half = changed(built({"name": "flip", "axis": axis}), images)
    mirrored = (half == images.flip(dim)).flatten(1).all(1)
    assert torch.equal(half[~mirrored], images[~mirrored])
    assert 16 < int(mirrored.sum()) < 48


@pytest.mark.parametrize("padding", ["zero", "edge", "reflect"])
def test_crop_is_pad_and_slice(padding: str) -> None:
    images = pictures()
    augment = built({"name": "crop", "pixels": 3, "padding": padding})
    result = changed(augment, images)
    matrix = augment.matrix(IDS, key=KEY, height=H, width=W)
    modes = {"zero": "constant", "edge": "replicate", "reflect": "reflect"}
    black = (0 - 0.4) / 0.2
    value = {"value": black} if padding == "zero" else {}
    padded = functional.pad(images, (3, 3, 3, 3), mode=modes[padding], **value)
    seen = set()
    for i in range(64):
        dx, dy = int(matrix[i, 0, 2]), int(matrix[i, 1, 2])
        seen.add((dx, dy))
        wanted = padded[i, :, 3 - dy : 3 - dy + H, 3 - dx : 3 - dx + W]
        assert torch.allclose(result[i], wanted, atol=1e-6)
    assert {d for pair in seen for d in pair} == set(range(-3, 4))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("flips", [(), ("flip",), ("flip", {"name": "flip", "axis": "vertical"})])
def test_gathered_runs_are_gathered_pixels(flips: tuple[str, ...], last: bool) -> None:
    images = pictures()
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    augment = built({"name": "shift", "pixels": 3}, *flips, {"name": "crop", "pixels": 2})
    matrix = augment.matrix(IDS, key=KEY, height=H, width=W)
    fill = torch.tensor([0.1, 0.2, 0.3])
    slow = apply_exact(images, matrix, fill=fill, padding="zero")
    fast = apply_windows(images, matrix, fill=fill, reach=5, mirrors=bool(flips))
    assert torch.equal(slow, fast)
    assert fast.is_contiguous(
        memory_format=torch.channels_last if last else torch.contiguous_format
    )


def test_sampled_agrees_with_exact_on_whole_pixels() -> None:
    images = pictures()
    exact = built("flip", {"name": "shift", "pixels": 2})
    sampled = built("flip", {"name": "shift", "pixels": 2}, {"name": "rotate", "degrees": 0})
    assert exact.exact
    assert not sampled.exact
    inner = slice(2, -2)
    a, b = changed(exact, images), changed(sampled, images)
    assert torch.allclose(a[..., inner, inner], b[..., inner, inner], atol=1e-4)


def test_points_boxes_and_masks_move_with_the_picture() -> None:
    """One bright pixel is found again where its point, box and mask say it is."""
    rows = torch.arange(64)
    y, x = 4 + rows % 3, 4 + rows % 2
    images = torch.full((64, 3, H, W), -2.0)
    images[rows, :, y, x] = 3.0
    masks = torch.zeros(64, H, W, dtype=torch.int64)
    masks[rows, y, x] = 7
    boxes = torch.stack([x, y, x + 1, y + 1], 1)[:, None].float()
    points = torch.stack([x + 0.5, y + 0.5], 1)[:, None]
    for augment in (built("flip", {"name": "shift", "pixels": 3}),
                    built("flip", {"name": "shift", "pixels": 2}, "rotate", "zoom")):  # fmt: skip
        image = changed(augment, images)
        matrix = augment.matrix(IDS, key=KEY, height=H, width=W)
        moved = transform_points(matrix, points)[:, 0]
        box = transform_boxes(matrix, boxes, height=H, width=W)[:, 0]
        mask = transform_masks(matrix, masks, exact=augment.exact, outside=0)
        found = image[:, 0].flatten(1).argmax(1)
        at = torch.stack([found % W, found // W], 1) + 0.5
        assert (moved - at).abs().max() <= (0.0 if augment.exact else 0.75)
        assert ((box[:, :2] <= moved) & (moved <= box[:, 2:])).all()
        if augment.exact:
            assert torch.equal(box, torch.cat([at - 0.5, at + 0.5], 1))
            assert (mask.flatten(1).gather(1, found[:, None]) == 7).all()
            assert (mask.flatten(1).sum(1) == 7).all()
        assert set(mask.unique().tolist()) <= {0, 7}


def test_boxes_are_clipped_to_the_picture() -> None:
    matrix = torch.eye(3, dtype=torch.float64)[None].clone()
    matrix[0, 0, 2] = -4
    box = torch.tensor([[[2.0, 1.0, 6.0, 5.0]]])
    moved = transform_boxes(matrix, box, height=H, width=W)
    assert moved.tolist() == [[[0.0, 1.0, 2.0, 5.0]]]


def test_brightness_and_contrast_act_on_pixel_values() -> None:
    images = pictures()
    before = images * 0.2 + 0.4
    after = changed(built({"name": "brightness", "strength": 0.5}), images) * 0.2 + 0.4
    assert after.min() >= -1e-5
    assert after.max() <= 1 + 1e-5
    inside = (after > 0.01) & (after < 0.99) & (before > 0.01)
    for i in range(64):
        factors = (after[i] / before[i])[inside[i]]
        assert factors.max() - factors.min() < 1e-3
        assert 0.5 - 1e-3 <= factors[0] <= 1.5 + 1e-3
    after = changed(built({"name": "contrast", "strength": 0.3}), images) * 0.2 + 0.4
    assert torch.sign((after - 0.4) * (before - 0.4)).min() >= 0
    both = changed(built("brightness", "contrast"), images)
    one = changed(built({"name": "brightness", "strength": 0}, "contrast"), images)
    assert not torch.equal(both, one)


def test_cutout_blanks_a_square_and_erase_a_rectangle_inside() -> None:
    ones = torch.ones(64, 3, H, W)
    blank = changed(built({"name": "cutout", "size": 4}), ones)[:, 0] == 0
    assert int(blank.sum((1, 2)).max()) == 16
    rows, cols = blank.any(2).sum(1), blank.any(1).sum(1)
    assert torch.equal(rows * cols, blank.sum((1, 2))), "a full rectangle"
    blank = changed(built({"name": "erase", "p": 1, "least": 0.2, "most": 0.2}), ones)[:, 0] == 0
    area = blank.sum((1, 2)).float() / (H * W)
    assert torch.equal(blank.any(2).sum(1) * blank.any(1).sum(1), blank.sum((1, 2)))
    assert (area - 0.2).abs().median() < 0.05
    some = changed(built({"name": "erase", "p": 0.5}), ones)[:, 0] == 0
    assert 16 < int(some.flatten(1).any(1).sum()) < 48


def test_mixup_mixes_values_and_targets_by_one_share() -> None:
    images, target = pictures(), torch.arange(64) % 2
    partner = (torch.arange(64) + 1) % 64  # always of the other class
    inputs, soft = built({"name": "mixup", "alpha": 1.0})(
        {"image": images}, target, IDS, key=KEY, partner=partner
    )
    assert soft is not None
    share = soft.gather(1, target[:, None])[:, 0]
    assert share.min() >= 0.5
    assert torch.allclose(soft.sum(1), torch.ones(64))
    weight = share.view(-1, 1, 1, 1)
    wanted = images * weight + images[partner] * (1 - weight)
    assert torch.allclose(inputs["image"], wanted, atol=1e-5)


def test_mixup_of_a_number_target_mixes_values() -> None:
    images, target = pictures(), torch.arange(64).float()
    partner = (torch.arange(64) + 1) % 64
    _, mixed = built("mixup", classes=())({"image": images}, target, IDS, key=KEY, partner=partner)
    assert mixed is not None
    assert mixed.shape == (64,)
    assert ((mixed[:-1] >= target[:-1]) & (mixed[:-1] <= target[:-1] + 0.5)).all()


def test_cutmix_counts_the_pasted_area() -> None:
    own, target = torch.zeros(64, 3, H, W), torch.arange(64) % 2
    own[1::2] = 1.0
    partner = (torch.arange(64) + 1) % 64
    inputs, soft = built({"name": "cutmix", "p": 1.0})(
        {"image": own}, target, IDS, key=KEY, partner=partner
    )
    assert soft is not None
    pasted = (inputs["image"][:, 0] != own[:, 0]).float().mean((1, 2))
    assert torch.allclose(soft.gather(1, target[:, None])[:, 0], 1 - pasted, atol=1e-6)
    assert pasted.max() > 0.5


def test_table_of_numbers_can_be_mixed() -> None:
    table = Schema(
        (Field("a", "number", "input"), Field("y", "category", "target", classes=("p", "q")))
    )
    augment = build_augment(["mixup"], table)
    assert augment is not None
    rows = torch.arange(8.0)[:, None]
    inputs, soft = augment(
        {"numbers": rows}, torch.arange(8) % 2, IDS[:8], key=KEY, partner=(torch.arange(8) + 1) % 8
    )
    assert soft is not None
    assert inputs["numbers"].shape == (8, 1)
    assert not torch.equal(inputs["numbers"], rows)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_beta_quantile_agrees_with_the_distribution(alpha: float) -> None:
    """The quantile of u has distribution function u: checked against a sum of the density."""
    u = torch.tensor([0.01, 0.1, 0.3, 0.38, 0.5], dtype=torch.float64)
    x = beta_quantile(u, beta_table(alpha), alpha).numpy()
    mirrored = beta_quantile(1 - u, beta_table(alpha), alpha).numpy()
    assert np.allclose(mirrored, 1 - x)
    t = np.linspace(0, 1, 400_001)[1:]  # substitution x = t^(1/alpha) removes the pole at 0
    log_beta = 2 * math.lgamma(alpha) - math.lgamma(2 * alpha)
    for low, level in zip(x, u.numpy(), strict=True):
        s = t * low**alpha
        area = np.mean((1 - s ** (1 / alpha)) ** (alpha - 1)) * low**alpha / alpha
        assert area / math.exp(log_beta) == pytest.approx(level, abs=2e-4)


def test_default_sizes_follow_the_picture() -> None:
    big = Field("image", "image", "input", shape=(3, 32, 32),
                stats={"mean": [0.5] * 3, "std": [0.2] * 3, "range": 255.0})  # fmt: skip
    augment = build_augment(["crop"], Schema((big, *schema().fields[1:])))
    assert augment is not None
    offsets = augment.matrix(torch.arange(500), key=KEY, height=32, width=32)[:, :2, 2]
    assert offsets.abs().max() == 4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"name": "shift", "pixel": 2}, "did you mean 'pixels'"),
        ({"name": "shift", "pixels": -1}, "pixels=-1"),
        ({"name": "shift", "pixels": 2.5}, "pixels=2.5"),
        ({"name": "flip", "p": 1.5}, "p=1.5"),
        ({"name": "flip", "axis": "left"}, "horizontal or vertical"),
        ({"name": "crop", "padding": "white"}, "one of zero"),
        ({"name": "erase", "least": 0.5, "most": 0.1}, "least=0.5"),
        ({"name": "resized-crop", "most": 0.2}, "least=0.35 is above most=0.2"),
        ({"name": "erase", "least": 0.4}, "least=0.4 is above most=0.33"),
        ({"name": "mixup", "alpha": 0}, "alpha=0"),
        ({"pixels": 2}, "augment entry"),
    ],
)
def test_wrong_options_are_named(asked: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_augment([asked], schema())


def test_wrong_names_and_wrong_data() -> None:
    with pytest.raises(UnknownName, match="did you mean 'flip'"):
        build_augment(["flipp"], schema())
    table = Schema((Field("a", "number", "input"), Field("c", "category", "input")))
    with pytest.raises(ConfigError, match="without pictures"):
        build_augment(["flip"], table)
    with pytest.raises(ConfigError, match="categories"):
        build_augment(["mixup"], table)
    with pytest.raises(ConfigError, match="different padding"):
        build_augment(
            [{"name": "crop", "padding": "edge"}, {"name": "shift", "padding": "reflect"}], schema()
        )
    assert build_augment([], table) is None
