"""The pictures and the page of the lab: right shades, right lines, nothing from outside."""

import json
import math
import re
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from gipi.cli import lab as command
from gipi.cli import main
from gipi.core.errors import StorageError, UnknownName
from gipi.core.svg import Line, line_chart
from gipi.nn import ACTIVATIONS, INITS, NORMS
from gipi.optim import OPTIMIZERS
from gipi.study import EXPERIMENTS, Experiment, Picture, run_lab, write_lab
from gipi.study.lab_charts import (
    EDGES,
    SHADES,
    contours,
    layer_map,
    ridges,
    shade,
    shade_key,
    surface,
)  # fmt: skip
from gipi.study.lab_page import lab_page, standalone

EVIL = "\"><script>alert(1)</script>&'"
SIZE = (300, 200)


def panel(title=EVIL):
    return line_chart([Line(title, [0, 1], [0.0, 1.0])], width=300, height=200, x_label=title,
                      label=title, title=title)  # fmt: skip


def picture(panels=2, **more):
    return Picture(**{
        "name": "lab-x", "title": EVIL, "about": EVIL, "formula": EVIL, "source": EVIL,
        "panels": tuple(panel() for _ in range(panels)), "size": SIZE, "keys": ((EVIL, 1),),
        **more,
    })  # fmt: skip


def test_shades_are_ordered_and_the_middle_is_kept():
    assert len(SHADES) == len(EDGES) + 1
    values = [0.0, 1e-9, 1e-4, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e4, 1e9]
    found = [shade(v) for v in values]
    assert found == sorted(found)
    assert shade(1.0) == shade(0.5) == shade(2.5) == 4
    assert shade(math.nan) == shade(math.inf) == 8


def test_a_layer_map_has_one_cell_a_layer_and_says_the_last_value():
    svg = layer_map([("he", [1.0, 0.9, 0.8]), ("small", [1.0, 1e-4, 0.0])], title="relu", size=SIZE)
    cells = "".join(e.get("d") for e in ET.fromstring(svg).iter("path"))
    assert cells.count("M") == 6
    assert ">0.8<" in svg
    assert ">0<" in svg
    assert "layer 1" in svg
    bad = layer_map([("x", [1.0, math.inf])], title="t", size=SIZE)
    assert ">∞<" in bad


def test_ridges_are_as_high_as_their_fullest_bin():
    svg = ridges([("one", [0, 10, 5]), ("two", [0, 1, 0.5])], span=(-1, 1), title="t", size=SIZE)
    bars = [e.get("d") for e in ET.fromstring(svg).iter("path") if e.get("class") == "bar"]
    heights = []
    for d in bars:
        ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", d)]
        heights.append(max(ys) - min(ys))
    assert heights[0] == pytest.approx(heights[1], abs=0.2)
    assert heights[0] > 20


def test_contours_lie_on_their_level():
    def bowl(x, y):
        return x * x + y * y

    found = contours(bowl, span=(-2, 2, -2, 2), levels=[1.0], cells=60)
    assert len(found) > 60
    ends = [(x, y) for a, b, c, d in found for x, y in ((a, b), (c, d))]
    assert all(bowl(x, y) == pytest.approx(1.0, abs=0.02) for x, y in ends)
    length = sum(math.hypot(c - a, d - b) for a, b, c, d in found)
    assert length == pytest.approx(2 * math.pi, rel=0.01)


def test_a_path_ends_where_it_leaves_the_frame():
    svg = surface(
        lambda x, y: x + y, span=(0, 1, 0, 1), levels=[1.0], stars=[(0.5, 0.5)], title="t",
        paths=[(1, [(0.1, 0.1), (0.2, 0.2), (9.0, 9.0), (0.3, 0.3)]), (2, [(math.nan, 0.0)])],
        size=SIZE,
    )  # fmt: skip
    lines = [e for e in ET.fromstring(svg).iter("path") if e.get("class") == "line c1"]
    assert len(lines) == 1
    assert lines[0].get("d").count("L") == 1


def test_a_picture_is_a_file_of_its_own():
    found = ET.fromstring(standalone(picture(5, columns=3)))
    space = "{http://www.w3.org/2000/svg}"
    panels = [e for e in found if e.tag == f"{space}svg"]
    assert len(panels) == 5
    places = [(float(e.get("x")), float(e.get("y"))) for e in panels]
    assert len(set(places)) == 5
    wide, high = float(found.get("width")), float(found.get("height"))
    assert all(x + SIZE[0] <= wide and y + SIZE[1] <= high for x, y in places)
    style = found.find(f"{space}style").text
    assert "prefers-color-scheme:dark" in style
    assert "url(" not in style


def test_names_never_become_markup():
    for text in (
        standalone(picture()),
        lab_page([Experiment("x", EVIL, (picture(),)), Experiment("y", EVIL, (picture(),))]),
        layer_map([(EVIL, [1.0])], title=EVIL, size=SIZE),
        ridges([(EVIL, [1.0])], span=(0, 1), title=EVIL, size=SIZE),
        shade_key(SIZE, EVIL),
    ):
        assert "<script" not in text


def test_the_page_loads_nothing():
    html = lab_page([Experiment("x", "title", (picture(),))])
    assert "default-src 'none'" in html
    assert not re.search(r'(src|href)="(?!#)', html)


def test_files_are_replaced_and_others_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "x.html").write_text("old")
    page, pictures = write_lab(tmp_path, "x", [Experiment("x", "t", (picture(),))])
    assert page.read_text().startswith("<!doctype html>")
    assert [p.name for p in pictures] == ["lab-x.svg"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lab-x.svg", "mine.txt", "x.html"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_lab(tmp_path / "file", "x", [Experiment("x", "t", (picture(),))])


# ------------------------------------------------------------------------ the command


def test_the_command_knows_every_experiment():
    assert (*EXPERIMENTS, "all") == command.NAMES


def test_an_unknown_experiment_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'init'"):
        run_lab("inits", tmp_path)
    assert main(["lab", "optimisers", "--out", str(tmp_path)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_page_and_says_the_numbers(tmp_path, capsys):
    out = tmp_path / "deep" / "lab"
    assert main(["lab", "activations", "--out", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["lab"] == ["activations"]
    assert found["page"] == str(out / "activations.html")
    assert found["pictures"] == [str(out / "lab-activations.svg")]
    assert found["seed"] == 0
    assert found["numbers"]["activations"]["activations"]["tanh"]["steepest"] == pytest.approx(1.0)
    assert "page:" in captured.err
    first = (out / "activations.html").read_bytes()
    assert main(["lab", "activations", "--out", str(out)]) == 0
    assert (out / "activations.html").read_bytes() == first


@pytest.mark.parametrize("seed", ["-1", "x", "1.5", "²", str(2**63)])
def test_a_wrong_seed_is_refused(tmp_path, seed, capsys):
    assert main(["lab", "activations", "--out", str(tmp_path), f"--seed={seed}"]) == 2
    assert "seed" in capsys.readouterr().err


def test_an_out_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "f").write_text("")
    assert main(["lab", "activations", "--out", str(tmp_path / "f")]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.slow
def test_all_of_them_are_drawn_in_under_three_minutes_and_are_the_pictures_of_the_docs(tmp_path):
    began = time.process_time()  # one thread; a busy machine is not the lab's fault
    found = run_lab("all", tmp_path)
    assert time.process_time() - began < 180
    assert found["lab"] == list(EXPERIMENTS)
    assert found["page"] == str(tmp_path / "index.html")
    drawn = {Path(p).name for p in found["pictures"]}
    docs = Path(__file__).parents[2] / "docs" / "pictures"
    assert drawn == {p.name for p in docs.glob("lab-*.svg")}
    html = (tmp_path / "index.html").read_text()
    for record in (*ACTIVATIONS, *INITS, *NORMS, *OPTIMIZERS):
        assert record.name in html, record.name
    for path in found["pictures"]:
        ET.parse(path)


def test_an_experiment_draws_what_it_says(tmp_path):
    found = run_lab("activations", tmp_path, seed=3)
    assert found["seed"] == 3
    for path in found["pictures"]:
        ET.parse(path)
