"""The charts that only the report draws: every count at its place, all names escaped."""

import math
import re
import xml.etree.ElementTree as ET

import pytest

from gipi.report.charts import (
    confusion_chart,
    histogram_chart,
    layer_chart,
    reliability_chart,
    scatter_chart,
    share_bar,
    short,
)  # fmt: skip

EVIL = "\"><script>alert(1)</script>&'"


@pytest.mark.parametrize(
    "svg",
    [
        confusion_chart([[1, 2], [3, 4]], [EVIL, "b"], 340),
        reliability_chart([(0.5, 0.4, 3.0)], x_label=EVIL, width=300, height=200),
        scatter_chart([1.0], [2.0], width=300, height=200, unit=EVIL),
        histogram_chart([1, 2], [0.0, 1.0, 2.0], x_label=EVIL, width=300, height=200),
        layer_chart({EVIL: [(0.0, 1.0)]}, width=300, x_label=EVIL, label=EVIL),
    ],
)  # fmt: skip
def test_names_never_become_markup(svg):
    tree = ET.fromstring(svg)
    assert "<script" not in svg
    assert not [e for e in tree.iter() if e.tag == "script"]


def test_the_confusion_matrix_shows_every_count_once():
    counts = [[50, 1, 0], [2, 47, 3], [0, 0, 60]]
    svg = confusion_chart(counts, ["a", "b", "c"], 540)
    shown = [int(t) for t in re.findall(r'class="count[^"]*"[^>]*>(\d+)<', svg)]
    assert sorted(shown) == sorted(c for row in counts for c in row if c)
    assert svg.count("<rect") == 9
    assert "true b, predicted c: 3 (5.8%)" in svg


@pytest.mark.parametrize("k", [1, 2, 10, 24])
@pytest.mark.parametrize("width", [340, 540])
def test_the_confusion_matrix_stays_in_its_width(k, width):
    names = [f"a long class name {i}" for i in range(k)]
    svg = confusion_chart([[1.0] * k for _ in range(k)], names, width)
    for e in ET.fromstring(svg).iter("rect"):
        assert 0 <= float(e.get("x")) <= width - float(e.get("width"))


def test_layers_show_every_layer_and_mark_what_is_not_finite():
    layers = {f"layer{i}": [(s, 10.0**-i) for s in range(5)] for i in range(8)}
    layers["layer3"][2] = (2, math.nan)
    svg = layer_chart(layers, width=540, x_label="epoch", label="x")
    assert svg.count('class="miss"') == 1
    assert svg.count('class="hit"') == 39
    assert all(f">{name}<" in svg for name in layers)


def test_charts_of_odd_values_do_not_fail():
    scatter_chart([], [], width=300, height=200, unit="x")
    scatter_chart([math.nan], [1.0], width=300, height=200, unit="x")
    reliability_chart([], x_label="p", width=300, height=200)
    histogram_chart([0], [0.0, 1.0], x_label="e", width=300, height=200)
    layer_chart({"a": [(0.0, 0.0)]}, width=300, x_label="e", label="l")
    assert share_bar(None) == share_bar(math.nan) == ""
    assert 'width="100.0"' in share_bar(2.0)


def test_long_names_are_cut_in_the_middle():
    assert short("short", 9) == "short"
    assert short("very_long_class_name", 9) == "very…name"
    assert len(short("x" * 50, 9)) == 9
