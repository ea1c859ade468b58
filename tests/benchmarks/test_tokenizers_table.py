"""The table of tokenizers' speed says where its figures were made, wherever it is printed."""

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
