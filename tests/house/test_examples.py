"""Every example is short, runs with `--quick` in seconds, and is listed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.house.source import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "examples"
EXAMPLES = sorted(FOLDER.rglob("*.py"))
LINES = 60


def ids(path: Path) -> str:
    """Return the name of an example."""
    return path.relative_to(FOLDER).as_posix()


@pytest.mark.parametrize("path", EXAMPLES, ids=ids)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES
    out = subprocess.run(
        [sys.executable, "-W", "error", str(path), "--quick"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr[-2000:]
    assert out.stdout.strip()


def test_examples_are_listed() -> None:
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert EXAMPLES
    assert [ids(p) for p in EXAMPLES if f"({ids(p)})" not in listed] == []
