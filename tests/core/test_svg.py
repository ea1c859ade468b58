"""Scales, ticks and lines: right numbers at the right places, nothing smoothed, all escaped."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gipi.core.svg import Line, Mark, line_chart, log_ticks, number, thinned, ticks

FINITE = st.floats(-1e12, 1e12, allow_nan=False, allow_infinity=False)
ANY = st.floats(allow_nan=True, allow_infinity=True, width=32)


def chart(*lines, **more):
    svg = line_chart(lines, width=400, height=200, x_label="epoch", label="loss", **more)
    return svg, ET.fromstring(svg)


def points(tree):
    d = next(e.get("d") for e in tree.iter("path") if e.get("class", "").startswith("line"))
    return d, [tuple(map(float, p.split())) for p in re.split("[ML]", d)[1:]]


@given(FINITE, st.floats(1e-9, 1e12), st.integers(2, 12))
def test_ticks_are_few_round_and_inside(low, span, most):
    high = low + span
    found = ticks(low, high, most=most)
    assert len(found) <= most + 1
    slack = 1e-6 * max(span, abs(low), abs(high))
    assert all(low - slack <= t <= high + slack for t in found)
    assert found == sorted(found)


def test_ticks_of_nothing():
    assert ticks(3.0, 3.0) == [3.0]
    assert ticks(0.0, math.inf) == [0.0]


@given(st.floats(1e-12, 1e6), st.floats(1.01, 1e9))
def test_log_ticks_are_inside(low, factor):
    found = log_ticks(low, low * factor)
    assert all(low * 0.999 <= t <= low * factor * 1.001 for t in found)
    assert len(found) <= 12


@given(ANY)
def test_every_number_can_be_said(value):
    said = number(value)
    assert 1 <= len(said) <= 12
    if math.isfinite(value) and 1e-3 <= abs(value) < 1e6:
        assert float(said.replace(",", "")) == pytest.approx(value, rel=0.02)


def test_a_line_goes_through_its_points():
    _, tree = chart(Line("train", [0, 1, 2], [0.0, 1.0, 0.5]))
    _, found = points(tree)
    (x0, y0), (x1, y1), (x2, y2) = found
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 < y2 < y0  # up is less
    assert (y0 - y2) == pytest.approx((y0 - y1) / 2, abs=0.2)


def test_a_logarithmic_axis_gives_equal_steps_to_equal_factors():
    _, tree = chart(Line("loss", [0, 1, 2], [100.0, 1.0, 0.01]), log=True)
    _, ((_, a), (_, b), (_, c)) = points(tree)
    assert b - a == pytest.approx(c - b, abs=0.2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_breaks_the_line_and_is_marked(bad):
    svg, tree = chart(Line("loss", [0, 1, 2, 3, 4], [3.0, 2.0, bad, 1.0, 0.5]))
    d, found = points(tree)
    assert len(found) == 4
    assert d.count("M") == 2
    assert svg.count('class="lost"') == 1
    assert f"{bad} at 2" in svg


def test_a_lone_point_between_gaps_is_still_seen():
    svg, _ = chart(Line("loss", [0, 1, 2], [math.nan, 2.0, math.nan]))
    assert svg.count("<circle") == 1


def test_all_non_finite_is_a_chart_of_crosses():
    svg, _ = chart(Line("loss", [0, 1], [math.nan, math.inf]))
    assert svg.count('class="lost"') == 2
    chart(Line("loss", [0, 1], [math.nan, 0.0]), log=True)


def test_long_lines_are_thinned_but_keep_their_extremes_and_gaps():
    y = [math.sin(i / 50) for i in range(10_000)]
    y[1234], y[5000], y[7777] = 9.0, math.nan, -9.0
    xs, ys = thinned(range(10_000), y)
    assert len(xs) < 600
    assert xs == sorted(xs)
    assert {9.0, -9.0} <= set(ys)
    assert sum(map(math.isnan, ys)) == 1
    assert (xs[0], xs[-1]) == (0, 9999)


def test_best_is_marked_at_its_place():
    svg, tree = chart(Line("loss", [0, 10], [1.0, 0.0]), marks=[Mark(5, "best")])
    mark = next(e for e in tree.iter("line") if e.get("class") == "mark")
    _, ((x0, _), (x1, _)) = points(tree)
    assert float(mark.get("x1")) == pytest.approx((x0 + x1) / 2, abs=0.2)
    assert ">best<" in svg


def test_a_title_and_a_logarithmic_horizontal_axis():
    svg, tree = chart(Line("loss", [0.01, 1, 100], [1.0, 2.0, 3.0]), log_x=True, title="a title")
    _, ((a, _), (b, _), (c, _)) = points(tree)
    assert b - a == pytest.approx(c - b, abs=0.2)
    assert ">a title<" in svg


def test_a_given_range_is_kept_and_what_lies_beyond_sits_on_its_edge():
    _, tree = chart(Line("loss", [0, 1, 2], [0.0, 5.0, 99.0]), y_range=(0.0, 10.0))
    _, ((_, low), (_, middle), (_, high)) = points(tree)
    assert low - middle == pytest.approx(middle - high, abs=0.2)


def test_shares_beyond_the_whole_are_drawn_where_they_are():
    _, tree = chart(Line("nme", [0, 1, 2], [2.1, 1.4, 0.7]), percent=True)
    _, ((_, high), (_, middle), (_, low)) = points(tree)
    assert low - middle == pytest.approx(middle - high, abs=0.2)
    assert low - high > 100  # of the 200 pixels


def test_large_and_small_numbers_are_short():
    assert [number(v, 2) for v in (7.04e16, 1e20, 1.5e-7)] == ["7e16", "1e20", "1.5e-7"]


def test_names_never_become_markup():
    evil = "\"><script>alert(1)</script>&'"
    svg = line_chart(
        [Line(evil, [0, 1], [1.0, math.nan])], width=300, height=100, x_label=evil, label=evil,
        title=evil, marks=[Mark(0, evil)],
    )  # fmt: skip
    assert "<script" not in svg
    assert not [e for e in ET.fromstring(svg).iter() if e.tag == "script"]
