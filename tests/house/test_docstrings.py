"""Every example in a docstring prints what it says it prints."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch
from tests.house.source import ROOT

SOURCES = ROOT / "src"
SHOWING = sorted(p for p in SOURCES.rglob("*.py") if ">>> " in p.read_text(encoding="utf-8"))
FINDER = doctest.DocTestFinder(exclude_empty=True)


def module_of(path: object) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(SOURCES).with_suffix("").parts  # type: ignore[attr-defined]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("name", [module_of(p) for p in SHOWING])
def test_docstring_examples(name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)  # type: ignore[arg-type]
    torch.manual_seed(0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in FINDER.find(module):
        runner.run(test, out=said.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(said)
