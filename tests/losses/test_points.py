"""Losses of points against slow formulas, and the maps that stand for points."""

from __future__ import annotations

import math

import pytest
import torch

from gipi import losses
from gipi.core.errors import ModelError

B, K, H, W, STRIDE = 3, 4, 6, 5, 4
G = torch.Generator().manual_seed(1)
MAPS = torch.randn(B, K, H, W, generator=G, dtype=torch.float64)
POINTS = torch.rand(B, K, 3, generator=G, dtype=torch.float64) * STRIDE * 5
POINTS[..., 2] = 2.0
POINTS[0, 1] = torch.tensor([torch.nan, torch.nan, 0.0], dtype=torch.float64)
POINTS[1, 2] = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)  # hidden: counts
FOUND = torch.rand(B, K, 2, generator=G, dtype=torch.float64) * 20
ROWS = torch.rand(B, generator=G, dtype=torch.float64)


def slow(value, weight=None, *, outside=True):
    total = count = 0.0
    for b in range(B):
        for k in range(K):
            x, y, visible = POINTS[b, k].tolist()
            if not visible or (not outside and not (0 <= x <= W * STRIDE and 0 <= y <= H * STRIDE)):
                continue
            w = 1.0 if weight is None else float(weight[b])
            total += w * value(b, k, x, y)
            count += w
    return total, count


def gaussian(x, y, sigma):
    u0, v0 = x / STRIDE - 0.5, y / STRIDE - 0.5
    return [[math.exp(-((u - u0) ** 2 + (v - v0) ** 2) / (2 * sigma**2)) for u in range(W)]
            for v in range(H)]  # fmt: skip


def mse(b, k, x, y):
    g = torch.tensor(gaussian(x, y, 1.3), dtype=torch.float64)
    return float((MAPS[b, k] - g).square().mean())


def entropy(b, k, x, y):
    g = torch.tensor(gaussian(x, y, 1.3), dtype=torch.float64)
    log_p = MAPS[b, k] - MAPS[b, k].exp().sum().log()
    return -float((g / g.sum() * log_p).sum())


def wing(b, k, x, y):
    c = 5 - 5 * math.log(1 + 5 / 1.5)
    errors = [abs(float(FOUND[b, k, 0]) - x), abs(float(FOUND[b, k, 1]) - y)]
    return sum(5 * math.log(1 + r / 1.5) if r < 5 else r - c for r in errors) / 2


def l1(b, k, x, y):
    return (abs(float(FOUND[b, k, 0]) - x) + abs(float(FOUND[b, k, 1]) - y)) / 2


def smooth(b, k, x, y):
    errors = [abs(float(FOUND[b, k, 0]) - x), abs(float(FOUND[b, k, 1]) - y)]
    return sum(r * r / 4 if r < 2 else r - 1 for r in errors) / 2


HEAT = {"stride": STRIDE, "sigma": 1.3}
CASES = {
    "heatmap_mse": (MAPS, mse, HEAT),
    "heatmap_cross_entropy": (MAPS, entropy, HEAT),
    "wing": (FOUND, wing, {"width": 5.0, "curvature": 1.5}),
    "point_l1": (FOUND, l1, {}),
    "point_smooth_l1": (FOUND, smooth, {"beta": 2.0}),
}


@pytest.mark.parametrize("weight", [None, ROWS], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_slow_one_and_pieces_add_up(name, weight):
    outputs, value, options = CASES[name]
    call = losses.LOSSES.get(name).build
    total, count = call(outputs, POINTS, weight, **options)
    wanted = slow(value, weight)
    assert float(total) == pytest.approx(wanted[0], rel=1e-9)
    assert float(count) == pytest.approx(wanted[1], rel=1e-9)
    parts = [
        call(outputs[s], POINTS[s], None if weight is None else weight[s], **options)
        for s in (slice(0, 1), slice(1, B))
    ]
    assert float(sum(p[0] for p in parts)) == pytest.approx(float(total), rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_differences_and_missing_points_have_none(name):
    outputs, _, options = CASES[name]
    call = losses.LOSSES.get(name).build
    z = outputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(call(z, POINTS, **options)[0], z)
    assert float(slope[0, 1].abs().max()) == 0.0
    assert float(slope[1, 2].abs().max()) > 0.0
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        way = torch.randn(z.shape, generator=generator, dtype=torch.float64)
        ends = [call(outputs + h * way, POINTS, **options)[0] for h in (1e-6, -1e-6)]
        assert float((slope * way).sum()) == pytest.approx(
            float(ends[0] - ends[1]) / 2e-6, rel=1e-5
        )


@pytest.mark.parametrize("name", ["heatmap_mse", "heatmap_cross_entropy"])
def test_a_point_outside_the_picture_has_no_map(name, monkeypatch):
    outputs, value, options = CASES[name]
    moved = POINTS.clone()
    moved[2, 0, 0] = W * STRIDE + 3.0
    monkeypatch.setitem(globals(), "POINTS", moved)
    total, count = losses.LOSSES.get(name).build(outputs, moved, **options)
    wanted = slow(value, outside=False)
    assert float(total) == pytest.approx(wanted[0], rel=1e-9)
    assert float(count) == pytest.approx(wanted[1])


def test_wing_is_continuous_where_its_halves_meet():
    target = torch.tensor([[[0.0, 0.0, 2.0]]], dtype=torch.float64)

    def at(r):
        return float(losses.wing(torch.tensor([[[r, 0.0]]], dtype=torch.float64), target)[0])

    assert at(10 - 1e-9) == pytest.approx(at(10 + 1e-9), abs=1e-7)
    assert at(11.0) - at(10.0) == pytest.approx(0.5)


def test_a_gaussian_has_its_peak_between_pixels():
    maps = losses.gaussian_maps(torch.tensor([[[10.0, 6.0]]]), (5, 8), stride=2, sigma=1.0)
    row = maps[0, 0, 2]  # y = 6: between rows 2 and 3
    assert float(row[4]) == pytest.approx(float(row[5]))  # x = 10: between columns 4 and 5
    torch.testing.assert_close(maps[0, 0, 2], maps[0, 0, 3])


@pytest.mark.parametrize(
    ("name", "outputs", "words"),
    [
        ("wing", MAPS, "coordinates"),
        ("wing", FOUND[:, :2], "coordinates"),
        ("heatmap_mse", FOUND, "heatmaps"),
        ("heatmap_cross_entropy", MAPS[:, :2], "heatmaps"),
    ],
)
def test_outputs_of_another_form_are_named(name, outputs, words):
    options = HEAT if name.startswith("heat") else {}
    with pytest.raises(ModelError, match=words):
        losses.LOSSES.get(name).build(outputs, POINTS, **options)
