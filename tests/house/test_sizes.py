"""A file is one idea, and the loop is one function that a person can read."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.house.source import PACKAGE, files, tree

if TYPE_CHECKING:
    from pathlib import Path

LIMIT, USUAL = 600, 400
LOOP_LINES, API_LINES = 300, 40


def lines(path: Path) -> int:
    """Return the number of lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def size_faults(sizes: dict[str, int]) -> list[str]:
    """Return what is wrong with these file sizes."""
    faults = [
        f"{name} has {n} lines, the limit is {LIMIT}" for name, n in sizes.items() if n > LIMIT
    ]
    large = sorted(name for name, n in sizes.items() if n > USUAL)
    if 10 * len(large) > len(sizes):  # 90 % stay under it
        faults.append(f"{len(large)} of {len(sizes)} files are over {USUAL} lines: {large}")
    return faults


def functions(path: Path) -> dict[str, int]:
    """Return the number of lines of every top-level function."""
    return {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef)
    }


def test_files_are_short() -> None:
    assert size_faults({name: lines(path) for name, path in files().items()}) == []


def test_tests_stay_under_the_hard_limit() -> None:
    tests = PACKAGE.parents[1] / "tests"
    sizes = {str(p.relative_to(tests)): lines(p) for p in tests.rglob("*.py")}
    assert {name: n for name, n in sizes.items() if n > LIMIT} == {}


def test_too_long_and_too_many_are_found() -> None:
    assert "limit" in size_faults({"a": 601, **{f"b{i}": 1 for i in range(20)}})[0]
    assert "over 400" in size_faults({"a": 401, "b": 401, **{f"c{i}": 100 for i in range(10)}})[0]
    assert size_faults({"a": 401, **{f"b{i}": 400 for i in range(9)}}) == []


def test_the_loop_is_one_readable_function() -> None:
    loop = functions(PACKAGE / "train" / "loop.py")
    assert "fit" in loop
    assert loop["fit"] < LOOP_LINES


def test_the_functions_of_the_readme_are_short() -> None:
    pages = [functions(path) for path in (PACKAGE / "api").glob("*.py")]
    assert any("train" in page for page in pages)
    assert {name: n for page in pages for name, n in page.items() if n > API_LINES} == {}
