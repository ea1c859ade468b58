"""The choice of augmentation: flips are measured, strength follows the epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from gipi.core.errors import DataError
from gipi.core.schema import Field, Schema
from gipi.data import DataOptions, open_data
from gipi.data.augment import build_augment, default_augment, probe_flip, probe_flips
from gipi.data.augment.objects import cut_out
from gipi.data.augment.probe import FlipProbe
from gipi.data.decode import Decoder
from gipi.data.masks import Masks
from gipi.data.pictures import Pictures
from gipi.data.stream import Columns

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def digits() -> tuple[Tensor, Tensor]:
    """Return the bundled digits, (1797, 1, 8, 8)."""
    found = load_digits()
    return torch.from_numpy(found.images)[:, None].float(), torch.from_numpy(found.target)


def symmetric(n: int = 600) -> tuple[Tensor, Tensor]:
    """Return noisy pictures whose class is a ring's radius: any flip keeps it."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(n) % 3
    at = torch.arange(16.0) - 7.5
    far = (at[:, None] ** 2 + at**2).sqrt()
    rings = torch.exp(-((far - 2 - 2 * labels.view(-1, 1, 1)) ** 2))
    noise = torch.randn(n, 1, 16, 16, generator=generator)
    return rings[:, None] + 0.7 * noise, labels


def arrows(n: int = 600) -> tuple[Tensor, Tensor]:
    """Return pictures bright on the left or on the right; the class says which."""
    images, labels = symmetric(n)
    side = labels % 2
    images = 0 * images + torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    half = (torch.arange(16) >= 8).long()
    return images + 1.0 * (half == side.view(-1, 1, 1, 1)), side


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_digits_must_not_be_flipped(axis: str) -> None:
    found = probe_flip(*digits(), axis=axis)
    assert not found.allowed
    assert found.plain > 0.9
    assert found.flipped < 0.6
    assert f"{found.plain:.3f}" in found.reason
    assert f"{found.flipped:.3f}" in found.reason
    assert "off" in found.reason


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_symmetric_pictures_may_be_flipped(axis: str) -> None:
    found = probe_flip(*symmetric(), axis=axis)
    assert found.allowed, found.reason
    assert abs(found.plain - found.flipped) < 0.1


def test_what_tells_left_from_right_is_refused_in_one_direction_only() -> None:
    assert not probe_flip(*arrows(), axis="horizontal").allowed
    assert probe_flip(*arrows(), axis="vertical").allowed


def test_a_probe_that_knows_nothing_asks_whether_mirror_images_look_different() -> None:
    images, labels = symmetric()
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    found = probe_flip(images, shuffled)
    assert found.allowed
    assert "second probe" in found.reason
    lit = images + torch.linspace(0, 3, 16)  # light from one side
    assert not probe_flip(lit, shuffled).allowed
    assert not probe_flip(lit, None).allowed
    assert probe_flip(lit, None, axis="vertical").allowed
    assert not probe_flip(images[:20], labels[:20]).allowed


def test_only_training_rows_are_probed() -> None:
    data = open_data("digits")
    train = data.splits["train"]
    found = probe_flips(data.columns, train)
    assert [p.allowed for p in found] == [False, False]
    target = data.columns.target
    assert target is not None
    spoilt = target.clone()
    rest = torch.ones(len(spoilt), dtype=torch.bool)
    rest[torch.from_numpy(train)] = False
    spoilt[rest] = 0
    again = probe_flips(Columns(data.columns.inputs, spoilt), train)
    assert [p.reason for p in again] == [p.reason for p in found]
    with pytest.raises(DataError, match="no pictures"):
        probe_flips(Columns({"numbers": torch.rand(50, 2)}, torch.arange(50)), train[:10])


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder", "horizontal"),
    [("fashion-mnist", "fashion_mnist", True), ("cifar10", "cifar10", True),
     ("mnist", "mnist", False)],
)  # fmt: skip
def test_flips_of_real_data(data_folder: Path, name: str, folder: str, horizontal: bool) -> None:
    if not (data_folder / folder).is_dir():
        pytest.skip(f"no {folder}")
    data = open_data(name, DataOptions())
    across, down = probe_flips(data.columns, data.splits["train"])
    assert across.allowed is horizontal, across.reason
    assert not down.allowed, down.reason


def scenes(kind: str, *, mirrored: bool, n: int = 160) -> Columns:
    """Return pictures with an object each; two of its classes are mirror images, or symmetric."""
    rng = np.random.default_rng(3)
    stem, square = np.zeros((12, 12), dtype=bool), np.ones((12, 12), dtype=bool)
    stem[:, :3] = stem[7:] = True
    hollow = square.copy()
    hollow[3:9, 3:9] = False
    shapes = (stem, stem[:, ::-1]) if mirrored else (square, hollow)
    pixels = rng.integers(0, 60, (n, 1, 40, 40)).astype(np.uint8)
    masks = np.zeros((n, 40, 40), dtype=np.uint8)
    boxes = torch.full((n, 2, 6), -1.0)
    for row in range(n):
        which, x, y = int(rng.integers(2)), int(rng.integers(28)), int(rng.integers(28))
        window = (row, slice(y, y + 12), slice(x, x + 12))
        pixels[:, 0][window][shapes[which]] = 220
        masks[window][shapes[which]] = which + 1
        boxes[row, 0] = torch.tensor([x, y, x + 12, y + 12, which, 0])
    pictures = Pictures(pixels, Decoder(1, 40, 40), (0.0,), (1.0,))
    return Columns({"image": pictures}, Masks(masks) if kind == "mask" else boxes)


@pytest.mark.parametrize("kind", ["mask", "boxes"])
def test_a_flip_that_turns_one_object_into_another_is_refused(kind: str) -> None:
    """The box of a b moves along with its mirror image, which is a d."""
    schema, rows = Schema((picture(1, 40), target(kind))), np.arange(160)
    probes = probe_flips(scenes(kind, mirrored=True), rows)
    assert probes[0].by_class
    assert not probes[0].allowed
    assert "training objects" in probes[0].reason
    chosen = default_augment(schema, 160, 20, probes=probes)
    assert "flip" not in chosen.steps
    assert probes[0].reason in chosen.reason
    probes = probe_flips(scenes(kind, mirrored=False), rows)
    chosen = default_augment(schema, 160, 20, probes=probes)
    assert chosen.steps[0] == "flip"
    assert f"left-right flip on: {kind} move along" in chosen.reason
    few = probe_flips(scenes(kind, mirrored=True), rows[:12])
    assert default_augment(schema, 12, 20, probes=few).steps[0] == "flip"


def test_objects_are_cut_out() -> None:
    pixels = torch.arange(2 * 40 * 40, dtype=torch.float32).view(2, 1, 40, 40)
    boxes = torch.tensor([
        [[4.0, 8, 16, 20, 1, 0], [20, 20, 39, 39, 0, 1], [0, 0, 3, 9, 0, 0]],
        [[28.0, 28, 40, 40, 0, 0], [0, 0, 0, 0, -1, 0], [0, 0, 12, 12, 2, 0]],
    ])  # fmt: skip
    parts, classes = cut_out(pixels, boxes, side=12, most=9)
    assert classes.tolist() == [1, 0, 2], "no crowd, nothing tiny, no unused row"
    assert torch.equal(parts[0], pixels[0, :, 8:20, 4:16])
    assert torch.equal(parts[1], pixels[1, :, 28:, 28:])
    assert len(cut_out(pixels, boxes, side=12, most=1)[1]) == 2
    masks = torch.full((2, 40, 40), 255, dtype=torch.uint8)
    masks[0, 8:20, 4:16] = 3
    masks[0, 10, 10] = 7
    parts, classes = cut_out(pixels, masks, side=12, most=9)
    assert classes.tolist() == [3]
    inside = torch.ones(12, 12)
    inside[2, 6] = 0
    assert torch.equal(parts[0, 1], 255 * inside)
    assert torch.equal(parts[0, 0], pixels[0, 0, 8:20, 4:16] * inside)
    assert cut_out(pixels[1:], masks[1:], side=12, most=9)[0].shape == (0, 2, 12, 12)


@pytest.mark.data
@pytest.mark.parametrize("name", ["bccd", "camvid"])
def test_flips_of_real_objects(data_folder: Path, name: str) -> None:
    if not (data_folder / name).is_dir():
        pytest.skip(f"no {name}")
    data = open_data(name, DataOptions())
    across, _ = probe_flips(data.columns, data.splits["train"])
    assert across.allowed or not across.by_class, across.reason


def picture(channels: int = 3, side: int = 32) -> Field:
    """Return a fitted picture column."""
    stats = {"mean": [0.5] * channels, "std": [0.2] * channels, "range": 255.0}
    return Field("image", "image", "input", shape=(channels, side, side), stats=stats)


def target(kind: str) -> Field:
    """Return a target column."""
    shape = {"boxes": (4, 6), "keypoints": (2, 3)}.get(kind, ())
    stats = {"flip": [["left", "right"]]} if kind == "keypoints" else {}
    return Field("y", kind, "target", classes=("left", "right"), shape=shape, stats=stats)


def measured(axis: str, allowed: bool) -> FlipProbe:
    """Return a probe's answer."""
    return FlipProbe(axis, allowed, 0.9, 0.9, 0.9, 0.1, 0.01, 0.5, f"{axis} measured")


def names(steps: tuple[object, ...]) -> list[str]:
    """Return the names of steps."""
    return [s["name"] if isinstance(s, dict) else str(s) for s in steps]


def test_strength_follows_the_epochs() -> None:
    schema = Schema((picture(), target("category")))
    probes = (measured("horizontal", True), measured("vertical", False))
    found = [default_augment(schema, 50_000, e, probes=probes) for e in (1, 10, 30, 100, 300)]
    assert [len(f.steps) for f in found] == [0, 2, 3, 4, 6]
    assert names(found[1].steps) == ["flip", "crop"]
    assert "trivial-augment" in names(found[3].steps)
    assert names(found[4].steps)[-2:] == ["mixup", "cutmix"]
    assert "10 times" in found[1].reason
    assert "horizontal measured" in found[1].reason
    assert "mixup" not in names(default_augment(schema, 500, 300, probes=probes).steps)


def test_no_flip_that_was_refused_or_never_measured() -> None:
    grey = Schema((picture(1, 28), target("category")))
    found = default_augment(grey, 60_000, 10, probes=(measured("horizontal", False),))
    assert names(found.steps) == ["shift"]
    found = default_augment(grey, 60_000, 10)
    assert names(found.steps) == ["shift"]
    assert "not measured" in found.reason
    table = Schema((Field("a", "number", "input"), target("category")))
    assert default_augment(table, 100, 50).steps == ()


@pytest.mark.parametrize("kind", ["category", "mask", "boxes", "keypoints", "number"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_choice_can_be_built(kind: str, channels: int) -> None:
    for side in (32, 96):
        schema = Schema((picture(channels, side), target(kind)))
        for epochs in (3, 20, 80, 300):
            chosen = default_augment(schema, 9_000, epochs, probes=(measured("horizontal", True),))
            assert chosen.steps
            assert build_augment(chosen.steps, schema) is not None
            assert names(chosen.steps)[0] == "flip"
