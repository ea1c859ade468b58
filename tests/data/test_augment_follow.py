"""What lies on a picture is found again where its target says, after random chains of steps."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gipi.core.errors import ConfigError
from gipi.core.schema import Field, Schema
from gipi.core.seed import derive
from gipi.data.augment import Augment, build_augment, transform_points
from gipi.data.augment import follow as follow_
from gipi.data.augment.geometry import inverse
from gipi.data.augment.move import move
from gipi.data.stream import Columns, RowStream

H, W, N = 48, 40, 24
KEY = derive(0, "augment", 1)
IDS = torch.arange(900, 900 + N)
GENTLE: tuple[str | dict[str, object], ...] = (
    "flip", {"name": "flip", "axis": "vertical"}, {"name": "shift", "pixels": 4},
    {"name": "crop", "pixels": 3}, "rotate", "zoom", {"name": "shear", "degrees": 8},
    {"name": "translate", "strength": 0.05}, {"name": "scale", "factor": 1.15, "aspect": 1.1},
    {"name": "perspective", "strength": 0.15}, {"name": "resized-crop", "least": 0.7},
    {"name": "rotate", "degrees": 40}, {"name": "resize", "size": [60, 44]},
)  # fmt: skip
COUNT = 3
LEFT, RIGHT, NOSE = range(COUNT)


def schema(kind: str) -> Schema:
    """Pictures of H x W whose black is 0 and white 1, and a target that lies on them."""
    stats = {"mean": [0.0], "std": [1.0], "range": 255.0}
    image = Field("image", "image", "input", shape=(1, H, W), stats=stats)
    shape = {"boxes": (2, 6), "keypoints": (COUNT, 3)}.get(kind, ())
    points = ("left", "right", "nose")
    facts = {"flip": [["left", "right"]]} if kind == "keypoints" else {}
    return Schema((image, Field("y", kind, "target", shape=shape, classes=points, stats=facts)))


def chain(seed: int, kind: str) -> Augment:
    """Return a random chain of one to four geometric steps."""
    chosen = random.Random(seed).sample(GENTLE, k=1 + seed % 4)
    found = build_augment(chosen, schema(kind))
    assert found is not None
    return found


def blobs(points: Tensor, spread: float = 1.2) -> Tensor:
    """Return (N, 1, H, W) pictures with a Gaussian blob around each point (N, 2)."""
    y = torch.arange(H) + 0.5
    x = torch.arange(W) + 0.5
    far = (x - points[:, :1, None]) ** 2 + (y[:, None] - points[:, 1:, None]) ** 2
    return torch.exp(-far / (2 * spread**2))[:, None]


def centroids(images: Tensor) -> Tensor:
    """Return (N, 2): the centre of mass of each picture's light."""
    light = images[:, 0].double()
    y = torch.arange(light.shape[1]) + 0.5
    x = torch.arange(light.shape[2]) + 0.5
    total = light.sum((1, 2)).clamp_min(1e-9)
    return (
        torch.stack([(light * x).sum((1, 2)), (light * y[:, None]).sum((1, 2))], 1) / total[:, None]
    )


def middle(seed: int) -> Tensor:
    """Return (N, 2) points in the middle half of the pictures."""
    u = torch.rand(N, 2, generator=torch.Generator().manual_seed(seed))
    return torch.tensor([W, H]) * (0.25 + 0.5 * u)


def worst(augment: Augment, seed: int) -> float:
    """Return how far at most a drawn point is from where its target says it is."""
    points = middle(seed)
    target = torch.zeros(N, COUNT, 3)
    target[:, NOSE, :2], target[:, NOSE, 2] = points, 2.0
    inputs, moved = augment({"image": blobs(points)}, target, IDS, key=KEY)
    assert moved is not None
    image, nose = inputs["image"], moved[:, NOSE]
    h, w = image.shape[2:]
    edge = torch.minimum(nose[:, :2], torch.tensor([w, h]) - nose[:, :2]).amin(1)
    inside = (nose[:, 2] > 0) & (edge > 6)
    assert inside.sum() >= 4
    return float((centroids(image) - nose[:, :2])[inside].norm(dim=1).max())


@pytest.mark.parametrize("seed", range(16))
def test_keypoints_follow_within_half_a_pixel(seed: int) -> None:
    assert worst(chain(seed, "keypoints"), seed) < 0.5


def test_a_planted_half_pixel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix that takes pixel centres for corners moves points by half a pixel when it turns."""

    def wrong(matrix: Tensor, xy: Tensor) -> Tensor:
        return transform_points(matrix, xy - 0.5)

    monkeypatch.setattr(follow_, "transform_points", wrong)
    assert max(worst(chain(seed, "keypoints"), seed) for seed in range(4)) > 0.5


@pytest.mark.parametrize("seed", range(12))
def test_masks_follow_within_half_a_pixel(seed: int) -> None:
    """The mask of a disc lies on the disc."""
    points = middle(seed)
    image = blobs(points, spread=4.0)
    mask = (image[:, 0] > 0.5).to(torch.uint8)
    augment = chain(seed, "mask")
    inputs, moved = augment({"image": image}, mask, IDS, key=KEY)
    assert moved is not None
    assert moved.dtype == torch.uint8
    assert moved.shape[1:] == inputs["image"].shape[2:]
    assert set(moved.unique().tolist()) <= {0, 1, 255}
    label = (moved == 1).float()[:, None]
    light = (inputs["image"] > 0.5).float()
    beyond = functional.pad((moved == 255).float()[:, None], (2, 2, 2, 2), value=1.0)
    near = functional.max_pool2d(beyond, 5, stride=1)  # within two pixels of what is not known
    whole = ((near * label).sum((1, 2, 3)) == 0) & (label.sum((1, 2, 3)) > 40)
    assert whole.sum() >= 4
    matrix = augment.matrix(IDS, key=KEY, height=H, width=W)
    at = centroids(mask.float()[:, None])
    wanted = transform_points(matrix, at[:, None])[:, 0]
    # Nearest pixels: half a pixel in each direction is the best there is.
    assert (centroids(label) - wanted)[whole].abs().max() < 0.51
    both = (label * light).sum((1, 2, 3)) / torch.maximum(label, light).sum((1, 2, 3)).clamp_min(1)
    assert both[whole].min() > 0.7


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_within_half_a_pixel(seed: int) -> None:
    """A box stays around its object: exactly the hull of its moved corners, cut to the picture."""
    points = middle(seed)
    target = torch.zeros(N, 2, 6)
    target[:, 0, :2], target[:, 0, 2:4] = points - 4, points + 4
    target[:, 1, 4] = -1
    augment = chain(seed, "boxes")
    inputs, moved = augment({"image": blobs(points)}, target, IDS, key=KEY)
    assert moved is not None
    h, w = inputs["image"].shape[2:]
    used = moved[:, 0, 4] == 0
    assert used.sum() >= 4
    assert (moved[:, 1, 4] == -1).all()
    box = moved[:, 0, :4]
    inside = used & (box[:, :2] > 1).all(1) & (box[:, 2] < w - 1) & (box[:, 3] < h - 1)
    at = centroids(inputs["image"])
    matrix = augment.matrix(IDS, key=KEY, height=H, width=W)
    centre = transform_points(matrix, points[:, None])[:, 0]
    assert (at - centre)[inside].norm(dim=1).max() < 0.5
    # The corners come back into the old box with the inverse matrix, and touch its sides.
    back = inverse(matrix)
    corners = torch.stack([box[:, [0, 1]], box[:, [2, 1]], box[:, [2, 3]], box[:, [0, 3]]], 1)
    hull = transform_points(back, corners.double())
    assert (hull.amin(1)[inside] <= points[inside] - 4 + 0.01).all()
    assert (hull.amax(1)[inside] >= points[inside] + 4 - 0.01).all()


def test_boxes_that_leave_the_picture_are_dropped() -> None:
    target = torch.tensor([[[2.0, 2, 12, 12, 1, 0], [30, 30, 38, 46, 2, 1], [0, 0, 0, 0, -1, 0]]])
    matrix = torch.eye(3, dtype=torch.float64)[None].clone()
    matrix[0, 0, 2] = -11.5
    moved = follow_.move_boxes(matrix, target, height=H, width=W)
    assert moved[0, 0].tolist() == [0, 0, 0, 0, -1, 0]
    assert moved[0, 1].tolist() == [18.5, 30, 26.5, 46, 2, 1]
    matrix[0, 0, 2] = -9
    moved = follow_.move_boxes(matrix, target, height=H, width=W)
    assert moved[0, 0].tolist() == [0, 2, 3, 12, 1, 0]


def test_mirrored_points_change_names_and_hidden_ones_stay_hidden() -> None:
    flip = build_augment([{"name": "flip", "p": 1.0}], schema("keypoints"))
    both = build_augment(
        [{"name": "flip", "p": 1.0}, {"name": "flip", "p": 1.0, "axis": "vertical"}],
        schema("keypoints"),
    )
    assert flip is not None
    assert both is not None
    target = torch.tensor([[[5.0, 6, 2], [9, 6, 1], [7, 30, 0]]])
    image = torch.zeros(1, 1, H, W)
    _, moved = flip({"image": image}, target, IDS[:1], key=KEY)
    assert moved is not None
    assert moved.tolist() == [[[W - 9, 6, 1], [W - 5, 6, 2], [0, 0, 0]]]
    _, turned = both({"image": image}, target, IDS[:1], key=KEY)
    assert turned is not None
    assert turned[0, LEFT].tolist() == [W - 5, H - 6, 2], "half a turn is no mirror image"
    away = build_augment([{"name": "shift", "pixels": 4}], schema("keypoints"))
    assert away is not None
    edge = torch.tensor([[0.5, 20.0, 2]]).repeat(N, COUNT, 1)
    _, moved = away({"image": torch.zeros(N, 1, H, W)}, edge, IDS, key=KEY)
    assert moved is not None
    left = away.matrix(IDS, key=KEY, height=H, width=W)[:, 0, 2] < 0
    assert torch.equal(moved[:, 0, 2] == 0, left)
    assert left.any()


def test_flip_needs_the_pairs_of_points() -> None:
    bare = schema("keypoints")
    field = bare.fields[1]
    without = Schema((bare.fields[0], Field("y", "keypoints", "target", shape=field.shape)))
    with pytest.raises(ConfigError, match="pairs"):
        build_augment(["flip"], without)
    assert build_augment(["rotate"], without) is not None


@pytest.mark.parametrize(
    ("step", "kind"),
    [("mixup", "mask"), ("mixup", "boxes"), ("cutmix", "boxes"), ("cutmix", "keypoints"),
     ("mosaic", "mask"), ("mosaic", "category")],
)  # fmt: skip
def test_what_cannot_be_mixed_is_refused(step: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"augment={step} with {kind}"):
        build_augment([step], schema(kind))


def test_mosaic_brings_every_object_and_its_box() -> None:
    """Each box that is left whole still has its bright object in its middle."""
    points = middle(5)
    target = torch.zeros(N, 2, 6)
    target[:, 0, :2], target[:, 0, 2:4] = points - 3, points + 3
    target[:, 1, 4] = -1
    augment = build_augment([{"name": "mosaic", "p": 1.0}], schema("boxes"))
    assert augment is not None
    assert augment.partners == 3
    ring = torch.stack([(torch.arange(N) + 1 + k) % N for k in range(3)])
    inputs, moved = augment({"image": blobs(points)}, target, IDS, key=KEY, partner=ring)
    assert moved is not None
    assert moved.shape == (N, 8, 6)
    image, seen = inputs["image"], 0
    for row in range(N):
        used = moved[row][moved[row, :, 4] >= 0]
        assert torch.equal(moved[row, : len(used)], used), "used rows come first"
        for x0, y0, x1, y1 in used[:, :4].tolist():
            wide, high = x1 - x0, y1 - y0
            if abs(wide - high) > 1e-3 or wide < 3:
                continue  # cut by the border of its corner
            window = image[row : row + 1, :, round(y0) : round(y1), round(x0) : round(x1)]
            at = centroids(window)[0] + torch.tensor([round(x0), round(y0)])
            assert (at - torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2])).norm() < 0.75
            seen += 1
    assert seen > N


def test_cutmix_pastes_masks_with_pictures() -> None:
    augment = build_augment([{"name": "cutmix", "p": 1.0}], schema("mask"))
    assert augment is not None
    rows = torch.arange(N)
    image = (rows.float() / N).view(N, 1, 1, 1).expand(N, 1, H, W).clone()
    mask = rows.to(torch.uint8).view(N, 1, 1).expand(N, H, W).clone()
    inputs, moved = augment({"image": image}, mask, IDS, key=KEY, partner=(rows + 1) % N)
    assert moved is not None
    assert torch.equal((inputs["image"][:, 0] * N).round().to(torch.uint8), moved)
    assert (moved != mask).any()


@pytest.mark.parametrize("kind", ["mask", "boxes", "keypoints"])
def test_targets_are_the_same_whatever_the_batch(kind: str) -> None:
    points = middle(3)
    if kind == "mask":
        target = (blobs(points)[:, 0] > 0.5).to(torch.uint8)
    elif kind == "boxes":
        target = torch.zeros(N, 2, 6)
        target[:, 0, :2], target[:, 0, 2:4] = points - 4, points + 4
        target[:, 1, 4] = -1
    else:
        target = torch.full((N, COUNT, 3), 2.0)
        target[:, :, :2] = points[:, None]
    for seed in range(4):
        augment = chain(seed, kind)
        whole, moved = augment({"image": blobs(points)}, target, IDS, key=KEY)
        for rows in (slice(0, 1), slice(1, 11), slice(11, N)):
            part, some = augment({"image": blobs(points[rows])}, target[rows], IDS[rows], key=KEY)
            assert torch.equal(part["image"], whole["image"][rows])
            assert some is not None
            assert moved is not None
            assert torch.equal(some, moved[rows])


def test_the_inverse_brings_pictures_back() -> None:
    points = middle(7)
    images = blobs(points, spread=3.0)
    augment = build_augment(["flip", "rotate", "zoom"], schema("category"))
    assert augment is not None
    matrix = augment.matrix(IDS, key=KEY, height=H, width=W)
    steps = [s for s in augment.steps if hasattr(s, "matrix")]
    fill = torch.zeros(1)
    there = move(images, matrix, steps=steps, fill=fill)  # type: ignore[arg-type]
    back = move(there, inverse(matrix), steps=steps, fill=fill)  # type: ignore[arg-type]
    assert (centroids(back) - points)[:, 0].abs().median() < 0.2


@pytest.mark.parametrize("kind", ["boxes", "mask", "keypoints"])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_targets_of_one(kind: str, world: int) -> None:
    """Mosaics and pasted masks need rows of other ranks; the shares are those of one process."""
    points = middle(2)
    if kind == "mask":
        target = (blobs(points)[:, 0] > 0.5).to(torch.uint8)
    else:
        target = torch.zeros(N, 2 if kind == "boxes" else COUNT, 6 if kind == "boxes" else 3)
        target[:, :, :2] = points[:, None]
        target[:, :, 2] = points[:, :1] + 4 if kind == "boxes" else 2.0
        target[..., 3:4] = points[:, None, 1:] + 4
    mixed = {"boxes": "mosaic", "mask": "cutmix", "keypoints": "rotate"}[kind]
    augment = build_augment(["flip", "zoom", mixed], schema(kind))
    columns = Columns({"image": blobs(points)}, target)

    def stream(rank: int, ranks: int) -> RowStream:
        return RowStream(columns, IDS.numpy() - IDS[0].item(), batch_size=5, seed=4,
                         augment=augment, rank=rank, world=ranks)  # fmt: skip

    whole = list(stream(0, 1).epoch(3))
    shares = [list(stream(rank, world).epoch(3)) for rank in range(world)]
    for step, batch in enumerate(whole):
        parts = [s[step] for s in shares if s[step].weight is None or s[step].weight.any()]
        assert torch.equal(torch.cat([p.inputs["image"] for p in parts]), batch.inputs["image"])
        assert batch.target is not None
        found = torch.cat([p.target for p in parts if p.target is not None])
        assert torch.equal(found, batch.target)


def test_what_the_picture_does_not_show_is_not_labelled() -> None:
    for steps in ([{"name": "rotate", "degrees": 40}], ["perspective"], ["crop"]):
        augment = build_augment(steps, schema("mask"))
        assert augment is not None
        ones = torch.ones(N, 1, H, W)
        inputs, moved = augment(
            {"image": ones}, torch.zeros(N, H, W, dtype=torch.uint8), IDS, key=KEY
        )
        assert moved is not None
        assert (moved[inputs["image"][:, 0] < 0.01] == 255).all()
        assert (moved[inputs["image"][:, 0] > 0.99] == 0).all()
        assert (moved == 255).any()
