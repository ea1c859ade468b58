"""Every problem of the doctor has a page and a picture, and they say what the doctor says today."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch
from benchmarks.doctor.settings import SETTINGS
from benchmarks.doctor.setup import build
from scripts import doctor_charts as charts
from scripts import doctor_pages as made
from scripts.doctor_patients import SEED, diagnosed, patient, plain, seen
from tests.house.pages import links
from tests.house.source import ROOT

from gipi.doctor import RULES, diagnose
from gipi.doctor.causes import parents

CODES = [r.code for r in RULES]
BY_CODE = {r.code: r for r in RULES}
TOLD = json.loads(made.FOUND.read_text(encoding="utf-8"))
LARGEST = 15 * 1024


def wordless(text: str) -> str:
    """Return a message without its numbers: these may differ by a rounding between machines."""
    return re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "N", text)


# ------------------------------------------------------------------------ completeness


def test_every_rule_has_a_page_and_a_picture_and_nothing_else_has() -> None:
    for folder, ending in ((made.FOLDER, ".md"), (made.PICTURES, ".svg")):
        assert sorted(p.stem for p in folder.glob(f"*{ending}")) == sorted(CODES)
    assert sorted(TOLD) == sorted(CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_picture_is_small_readable_and_shown_on_its_page(code: str) -> None:
    picture = made.PICTURES / f"{code}.svg"
    assert picture.stat().st_size <= LARGEST
    root = ET.fromstring(picture.read_text(encoding="utf-8"))
    panels = [e for e in root if e.tag.endswith("svg")]
    assert len(panels) == 2
    assert root.get("aria-label") == BY_CODE[code].title
    page = made.FOLDER / f"{code}.md"
    assert picture in {(page.parent / t).resolve() for t in links(page)}


def test_the_index_lists_every_problem_and_its_rates() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    problems, rates = (
        page.split(f"<!-- begin generated: {n} -->")[1].split(f"<!-- end generated: {n} -->")[0]
        for n in ("problems", "rates")
    )
    for part in (problems, rates):
        assert re.findall(r"^\| \[(\w+)\]\(doctor/\1\.md\)", part, re.MULTILINE) == CODES
    assert re.search(r"commit \w{7}.*cores.*seeds \d", rates)


def test_every_look_says_in_a_sentence_what_it_does() -> None:
    for rule in RULES:
        for look in (rule.before, rule.during, rule.confirm):
            assert look is None or made.summary(look).endswith("."), rule.code


# ------------------------------------------------------------------------ truth


def test_pages_say_what_rule_and_patient_say() -> None:
    rule, told = BY_CODE["dead_relu"], TOLD["dead_relu"]
    page = made.page(rule, told)
    repair = told["finding"]["repairs"][0]
    for words in (rule.why, rule.do, rule.source, told["finding"]["message"], repair["name"]):
        assert words.rstrip(".")[1:] in page
    assert all(f"]({code}.md)" in page for code in (*rule.causes, *parents(RULES)["dead_relu"]))
    for other in (
        made.page(replace(rule, why="a new reason"), told),
        made.page(rule, {**told, "finding": {**told["finding"], "message": "other words"}}),
        made.page(replace(rule, causes=()), told),
    ):
        assert other != page  # so that the comparison with the committed page fails


def test_a_planted_change_makes_the_committed_page_outdated(monkeypatch) -> None:
    path = made.FOLDER / "overfit.md"
    assert made.generated()[path] == path.read_text(encoding="utf-8")
    rules = [replace(r, do="pray") if r.code == "overfit" else r for r in RULES]
    monkeypatch.setattr(made, "RULES", tuple(rules))
    fresh = made.generated()
    stale = [p.stem for p, text in fresh.items() if p.read_text(encoding="utf-8") != text]
    assert stale == ["overfit"]


def told_now(code: str) -> tuple[dict, dict]:
    """Return what is committed of a patient, and what the doctor says of it now, by one rule."""
    built = build(patient(code), SETTINGS, SEED)
    found = diagnose(built.sick, rules=(BY_CODE[code],)).findings[0].as_dict()
    return TOLD[code]["finding"], plain(found)


@pytest.mark.parametrize("code", ["double_softmax", "sentinel_values", "missing_zero_grad"])
def test_what_a_page_quotes_is_what_the_doctor_says(code: str) -> None:
    then, now = told_now(code)
    for key in ("message", "advice"):
        assert wordless(then[key]) == wordless(now[key])
    for key in ("severity", "confirmed", "phase", "where"):
        assert then[key] == now[key]


@pytest.mark.slow
@pytest.mark.parametrize("code", CODES)
def test_every_patient_is_still_found_as_its_page_says(code: str) -> None:
    built, diagnosis, place = diagnosed(patient(code))
    finding = diagnosis.findings[place]
    then = TOLD[code]
    assert place + 1 == then["place"]
    assert (finding.severity, finding.phase) == (
        then["finding"]["severity"],
        then["finding"]["phase"],
    )
    courses = {charts.AS_IS: charts.Course([1.0, 0.5])}
    panels = (seen(built, finding, courses).words, then["panels"][0])
    assert len({wordless(words).partition(", means")[0] for words in panels}) == 1


# ------------------------------------------------------------------------ charts


def drawn(panel: charts.Panel, tag: str) -> list[ET.Element]:
    return list(ET.fromstring(panel.svg).iter(tag))


def test_bars_are_as_long_as_their_values() -> None:
    panel = charts.bars([("a", 1.0, 2), ("b", 0.5, 3), ("c", 0.0, 3)], title="t")
    widths = [float(e.get("width")) for e in drawn(panel, "rect")]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.01)
    assert widths[2] <= 1.0
    assert panel.colours == {2, 3}
    far = charts.bars([("a", 1000.0, 2), ("b", 1.0, 2), ("c", float("inf"), 2)], title="t")
    a, b, c = (float(e.get("width")) for e in drawn(far, "rect"))
    assert 0 < b < a <= c
    many = charts.bars([(f"layer {i}", 1.0, 2) for i in range(20)], title="t")
    assert len(drawn(many, "rect")) == charts.MOST_BARS
    assert "layer 0" in many.svg
    assert "layer 19" in many.svg


def test_the_kind_of_a_panel_follows_from_the_evidence() -> None:
    def nothing() -> tuple[str, dict]:
        return "", {}

    def kinds(evidence: dict) -> list[str]:
        every = ("values", "named", "listed", "trial", "shares")
        return [k for k in every if charts.evidence_panel(k, evidence, nothing)]

    assert kinds({"dead_units": {"body.1": 0.9}}) == ["named"]
    assert kinds({"moves_by_place": [0.1, 0.2, 0.3]}) == ["listed"]
    assert kinds({"loss_as_is": 2.0, "loss_revived": 0.5}) == ["trial"]
    assert kinds({"loss_at": {"lr x 1": 2.0, "lr x 0.1": "nan"}}) == ["trial"]
    assert kinds({"alike": 0.9, "expected": 0.1}) == ["shares"]
    assert kinds({"std": [1.0, 2.0]}) == ["named"]
    assert [r[0] for r in charts.trial({"loss_at": {"1.0": 2.0, "0.1": 1.0}})] == [
        "lr x 1", "lr x 0.1",
    ]  # fmt: skip
    assert kinds({"share": 0.9, "rows": 12, "modules": {"a": "Dropout"}}) == []


def test_a_histogram_has_one_outline_a_split_and_a_bin_a_word() -> None:
    words = {charts.TRAIN: torch.tensor([1, 1, 2, 5]), charts.VAL: torch.tensor([1, 3])}
    panel = charts.evidence_panel("values", {}, lambda: ("word", words))
    assert panel is not None
    assert panel.colours == {charts.TRAIN, charts.VAL}
    paths = [e.get("d") for e in drawn(panel, "path")]
    assert len(paths) == 2
    assert all(d.count("L") == 2 * 5 + 1 for d in paths)  # 1..5, two corners each, and the ends


def test_losses_are_means_of_steps_and_what_is_lost_is_marked() -> None:
    course = charts.Course([float(i) for i in range(120)])
    panel = charts.loss_panel(
        {charts.AS_IS: course, charts.TWIN: charts.Course([1.0, float("nan")])}
    )
    assert "means of 2 steps" in panel.words
    assert len([e for e in drawn(panel, "path") if e.get("class") == "lost"]) == 1
