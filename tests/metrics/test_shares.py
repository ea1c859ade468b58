"""Wilson's interval of a share against published figures, and how often it covers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gipi.metrics.shares import wilson


@pytest.mark.parametrize(
    "hits, rows, low, high",
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (90, 100, 0.8256, 0.9448), (1, 2, 0.0945, 0.9055),
     (5, 10, 0.2366, 0.7634), (98, 100, 0.9300, 0.9945)],
)  # fmt: skip
def test_wilsons_interval_is_the_published_one(hits, rows, low, high):
    got = wilson(hits / rows, rows)
    assert got == pytest.approx((low, high), abs=5e-5)


def test_wilson_covers_as_promised():
    draw = np.random.default_rng(0)
    for share in (0.05, 0.5, 0.97):
        hits = draw.binomial(80, share, 4000)
        inside = [low <= share <= high for low, high in (wilson(h / 80, 80) for h in hits)]
        assert 0.92 < np.mean(inside) < 0.98


def test_wilson_of_nothing_is_everything():
    assert wilson(math.nan, 10) == wilson(0.5, 0) == (0.0, 1.0)
