"""Imports point strictly down. Every file is read with `ast`; imports inside functions count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.house.source import PACKAGE, VERSION, Import, files, imports

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = {
    "core": 0,
    "nn": 1, "losses": 1, "metrics": 1, "optim": 1, "text": 1,
    "models": 2, "data": 2,
    "tasks": 3,
    "train": 4, "baselines": 4,
    "doctor": 5, "plan": 5,
    "study": 6, "report": 6, "deploy": 6, "launch": 6,
    "api": 7,
    "cli": 8, "testing": 8,
    "__init__": 9, "__main__": 9,
}  # fmt: skip
FORBIDDEN = {("tasks", "models"), ("report", "models"), ("launch", "train")}

# Third-party packages that are slow or optional: imported where they are needed, in one file each.
WRAPPED = {
    "sklearn", "matplotlib", "pyarrow", "pandas", "polars", "tensorboard", "yaml",
    "faster_coco_eval", "pycocotools",
}  # fmt: skip
# Where an import of anything may stand inside a function: help must answer without torch.
LAZY = {"cli", "__init__", "__main__"}
# Modules of the standard library that some platforms do not have.
PLATFORM = {"resource", "fcntl", "msvcrt"}
# A submodule of torch that brings in a package of its own.
ALIASES = {"torch.utils.tensorboard": "tensorboard"}


def folder(module: str) -> str:
    """Return the part of the house that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def third_party(module: str) -> str:
    """Return the package behind an import."""
    return next((name for key, name in ALIASES.items() if module.startswith(key)),
                module.split(".", maxsplit=1)[0])  # fmt: skip


def graph(package: Path = PACKAGE) -> dict[str, list[Import]]:
    """Return module -> imports."""
    known = files(package)
    return {name: imports(path, name, set(known)) for name, path in known.items()}


def level_faults(house: dict[str, list[Import]]) -> list[str]:
    """Return every import that does not point strictly down, in words."""
    faults = []
    for module, found in house.items():
        here = folder(module)
        if here not in LEVELS:
            faults.append(f"{module}: the folder '{here}' has no level")
            continue
        for imp in found:
            if imp.module.split(".")[0] != "gipi" or imp.module == VERSION:
                continue
            there = folder(imp.module)
            where = f"{module}:{imp.line} imports {imp.module}"
            if there == "__init__":
                # The package itself holds only the version and the lazy names.
                if here not in {"cli", "api", "__init__", "__main__"}:
                    faults.append(f"{where}: only cli and api may read the package itself")
            elif there == here:
                continue
            elif there not in LEVELS:
                faults.append(f"{where}: the folder '{there}' has no level")
            elif LEVELS[there] >= LEVELS[here]:
                faults.append(f"{where}: level {LEVELS[here]} may not import {LEVELS[there]}")
            elif (here, there) in FORBIDDEN:
                faults.append(f"{where}: forbidden pair")
    return faults


def function_import_faults(house: dict[str, list[Import]]) -> list[str]:
    """Return imports inside functions that are neither wrapped packages nor in the lazy places."""
    return [
        f"{module}:{imp.line} imports {imp.module} inside a function"
        for module, found in house.items()
        for imp in found
        if imp.inside_function
        and folder(module) not in LAZY
        and third_party(imp.module) not in WRAPPED | PLATFORM
    ]


def wrapper_faults(house: dict[str, list[Import]]) -> list[str]:
    """Return packages of `WRAPPED` that more than one file imports at run time."""
    users: dict[str, set[str]] = {}
    for module, found in house.items():
        for imp in found:
            if (name := third_party(imp.module)) in WRAPPED and not imp.typing_only:
                users.setdefault(name, set()).add(module)
    return [
        f"{name} is imported by {sorted(modules)}: one file wraps it"
        for name, modules in users.items()
        if len(modules) > 1
    ]


def cycles(house: dict[str, list[Import]]) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle (Tarjan 1972)."""
    edges = {
        module: {i.module for i in found if i.module in house and i.module != module}
        for module, found in house.items()
    }
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == node:
                    break
            if len(group) > 1:
                groups.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return groups


def reachable(house: dict[str, list[Import]], start: str) -> set[str]:
    """Return every module of the package that importing `start` can reach."""
    seen: set[str] = set()
    todo = [name for name in house if name == start or name.startswith(start + ".")]
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += [i.module for i in house[module] if i.module in house]
    return seen


def test_imports_point_strictly_down() -> None:
    assert level_faults(graph()) == []


def test_no_cycles_inside_a_folder_or_between_folders() -> None:
    assert cycles(graph()) == []


def test_imports_inside_functions_only_for_wrapped_packages() -> None:
    assert function_import_faults(graph()) == []


def test_one_file_wraps_each_slow_or_optional_package() -> None:
    assert wrapper_faults(graph()) == []


def test_the_loop_never_reaches_the_doctor() -> None:
    house = graph()
    assert any(name.startswith("gipi.train") for name in house)
    assert {folder(m) for m in reachable(house, "gipi.train")} & {
        "doctor",
        "plan",
        "report",
    } == set()


PLANTED = {
    "up": ("core/a.py", "from gipi.nn import b", level_faults, "may not import"),
    "sideways": ("nn/a.py", "def f():\n    import gipi.losses", level_faults, "may not import"),
    "relative": ("data/a.py", "from ..models import b", level_faults, "may not import"),
    "dynamic": (
        "core/a.py",
        "import importlib\nimportlib.import_module('gipi.train.b')",
        level_faults,
        "may not import",
    ),
    "pair": ("tasks/a.py", "from gipi import models", level_faults, "forbidden"),
    "pair of plans": ("launch/a.py", "from gipi.train import b", level_faults, "forbidden"),
    "unknown folder": ("misc/a.py", "x = 1", level_faults, "no level"),
    "doctor": ("train/a.py", "import gipi.doctor.b", level_faults, "may not import"),
    "text": ("text/a.py", "import gipi.nn.b", level_faults, "may not import"),
    "study": ("study/a.py", "import gipi.report.b", level_faults, "may not import"),
    "lazy": ("models/a.py", "def f():\n    import torch", function_import_faults, "inside"),
    "two wrappers": (
        "core/a.py",
        "def f():\n    import sklearn.svm\ndef g():\n    from . import other",
        wrapper_faults,
        "one file wraps",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(tmp_path: Path, name: str) -> None:
    path, code, check, words = PLANTED[name]
    house = tmp_path / "gipi"
    for part in ["core", "nn", "losses", "models", "data", "tasks", "train", "doctor", "text",
                 "study", "report", "launch"]:  # fmt: skip
        (house / part).mkdir(parents=True)
        (house / part / "__init__.py").write_text("")
        (house / part / "b.py").write_text("")
    (house / "__init__.py").write_text("")
    (house / "core" / "other.py").write_text("from sklearn import svm" * (name == "two wrappers"))
    (house / path).parent.mkdir(exist_ok=True)
    assert check(graph(house)) == []
    files.cache_clear()
    (house / path).write_text(code)
    faults = check(graph(house))
    files.cache_clear()
    assert faults
    assert words in faults[0]


def test_a_planted_cycle_is_found(tmp_path: Path) -> None:
    house = tmp_path / "gipi"
    (house / "core").mkdir(parents=True)
    (house / "__init__.py").write_text("")
    (house / "core" / "__init__.py").write_text("")
    (house / "core" / "a.py").write_text("def f():\n    from gipi.core import b")
    (house / "core" / "b.py").write_text("from gipi.core.c import x")
    (house / "core" / "c.py").write_text("import gipi.core.a")
    assert cycles(graph(house)) == [["gipi.core.a", "gipi.core.b", "gipi.core.c"]]
