"""Figures say where they were made, wherever they are printed or added to."""

import importlib
import json
from pathlib import Path

import pytest


def test_it_names_the_machine_of_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "speed"))
    speed = importlib.import_module("tokenizers_speed")
    rows = [
        {"work": next(iter(speed.WORKS)), "variant": f"bpe: train{end}", "mb_per_s": rate}
        for end, rate in (("", 2.0), (" plain", 2.5))
    ]
    body = {"machine": {"processor": "an abacus"}, "rows": rows}
    (tmp_path / "2020-01-01-tokenizers.json").write_text(json.dumps(body))
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    table = speed.table()
    assert any("2.0 (2.5)" in line for line in table)
    assert table[-1] == "One thread of an abacus."


def test_a_row_of_another_machine_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "speed"))
    stats = importlib.import_module("stats")
    monkeypatch.setattr(stats, "RESULTS", tmp_path)
    for here, work in (("an abacus", "one"), ("a slide rule", "two"), ("an abacus", "three")):
        monkeypatch.setattr(stats, "machine", lambda here=here: {"processor": here})
        stats.Results("sums").add(work, "plain", ms=1.0)
    body = json.loads(next(tmp_path.glob("*-sums.json")).read_text())
    assert body["machine"] == {"processor": "an abacus"}
    assert {r["work"]: r.get("machine") for r in body["rows"]} == {
        "one": None, "two": {"processor": "a slide rule"}, "three": None,
    }  # fmt: skip
