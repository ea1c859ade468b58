"""Positions: sinusoids, turns and buckets against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from gipi.core.errors import ModelError
from gipi.nn.position import (
    RelativeBias,
    Rotary,
    count_real,
    relative_buckets,
    rotary,
    rotate,
    sinusoids,
)


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoids_are_sines_then_cosines(width):
    table = sinusoids(500, width)
    assert table.dtype == torch.float32
    for p in (0, 1, 499):
        for i in range(width):
            half = (width + 1) // 2
            pair = i if i < half else i - half
            angle = p / 10000 ** (2 * pair / width)
            want = math.sin(angle) if i < half else math.cos(angle)
            assert abs(table[p, i].item() - want) < 1e-7


def test_positions_count_real_tokens():
    real = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1]])
    assert count_real(real, new=4).tolist() == [[0, 1, 2, 2], [0, 0, 0, 1], [0] * 4, [0, 0, 1, 2]]
    assert count_real(real, new=1).tolist() == [[2], [1], [0], [2]]


def test_a_turn_keeps_lengths_and_only_distance_counts():
    how = Rotary(100.0)
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.double)

    def score(i, j):
        place = torch.tensor([[i, j]])
        cos, sin = (part.double() for part in rotary(place, 8, how=how))
        qi = rotate(q, (cos[:, :, :1], sin[:, :, :1]))
        kj = rotate(k, (cos[:, :, 1:], sin[:, :, 1:]))
        assert torch.allclose(qi.norm(), q.norm())
        return (qi * kj).sum().item()

    assert abs(score(3, 7) - score(13, 17)) < 1e-5
    assert abs(score(3, 7) - score(3, 8)) > 1e-3


def test_a_pair_turns_by_its_speed():
    cos, sin = rotary(torch.tensor([[0, 5]]), 4, how=Rotary(100.0))
    assert cos.shape == (1, 1, 2, 4)
    assert torch.allclose(cos[0, 0, 1], torch.tensor([5.0, 0.5, 5.0, 0.5]).cos())
    turned = rotate(torch.tensor([[[[1.0, 0, 0, 0], [1.0, 0, 0, 0]]]]), (cos, sin))
    assert torch.equal(turned[0, 0, 0], torch.tensor([1.0, 0, 0, 0]))
    want = torch.tensor([math.cos(5), 0, math.sin(5), 0])
    assert torch.allclose(turned[0, 0, 1], want)


def test_stretched_speeds():
    plain = Rotary(10000.0).speeds(64)
    assert torch.allclose(Rotary(10000.0, "linear", 4.0).speeds(64), plain / 4)
    speeds = Rotary(10000.0, "llama3", 8.0, 1.0, 4.0, 8192).speeds(64)
    wave = 2 * math.pi / plain
    fast, slow = wave < 8192 / 4, wave > 8192
    assert fast.any()
    assert slow.any()
    assert torch.equal(speeds[fast], plain[fast])
    assert torch.allclose(speeds[slow], plain[slow] / 8)
    between = speeds[~fast & ~slow] / plain[~fast & ~slow]
    assert len(between)
    assert ((between > 1 / 8) & (between < 1)).all()
    with pytest.raises(ModelError, match="heads of 5 units"):
        Rotary().speeds(5)


def slow_bucket(ahead, buckets, distance, *, both):
    start = 0
    if both:
        buckets //= 2
        start = buckets if ahead > 0 else 0
        far = abs(ahead)
    else:
        far = max(-ahead, 0)
    exact = buckets // 2
    if far < exact:
        return start + far
    grown = exact + int(math.log(far / exact) / math.log(distance / exact) * (buckets - exact))
    return start + min(grown, buckets - 1)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 20)])
def test_buckets_are_their_formula(both, buckets, distance):
    ahead = torch.arange(-200, 201)
    got = relative_buckets(ahead[None], buckets, distance=distance, both=both)[0]
    for a, bucket in zip(ahead.tolist(), got.tolist(), strict=True):
        want = slow_bucket(a, buckets, distance, both=both)
        # At an exact edge (a power) rounding may put a distance on either side.
        edge = slow_bucket(a - (a > 0) + (a < 0), buckets, distance, both=both)
        assert bucket in {want, edge}, a
    assert got.min() == 0
    assert got.max() == buckets - 1
    assert len(got.unique()) == buckets - both  # distance 0 has one bucket, not one each way


def test_buckets_that_cannot_be_told_apart_are_refused():
    for buckets, distance, both, words in (
        (1, 128, True, "1 buckets"),
        (3, 128, True, "an even number of 4"),
        (1, 128, False, "2 or more"),
        (32, 8, True, "a distance above 8"),
        (32, 16, False, "a distance above 16"),
    ):
        with pytest.raises(ModelError, match=words):
            RelativeBias(2, buckets, distance=distance, both=both)
    RelativeBias(2, 4, distance=2, both=True)(5, 5)
    RelativeBias(2, 2, distance=2, both=False)(5, 5)


def test_the_bias_of_late_queries_is_the_end_of_the_whole_one():
    bias = RelativeBias(3, 8, distance=20, both=False)
    whole = bias(6, 6)
    assert whole.shape == (3, 6, 6)
    assert torch.equal(bias(2, 6), whole[:, -2:])
    assert torch.equal(whole[:, 5, 5], bias.table.weight[0])
