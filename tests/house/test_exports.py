"""`__all__` is what can be imported, and `import gipi` costs nothing until a name is used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from tests.house.source import files, is_public, tree

import gipi

MODULES = [name for name in files() if is_public(name) and name != "gipi"]


def public_names(module: str, source: ast.Module, *, package: bool) -> set[str]:
    """Return the names that a module offers: what it defines, and what a package brings up.

    A package brings up what its `__init__` imports from its own files and does not use itself.
    """
    names: set[str] = set()
    for node in source.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {
                t.id for target in node.targets for t in ast.walk(target) if isinstance(t, ast.Name)
            }
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif package and isinstance(node, ast.ImportFrom):
            own = node.level or (node.module or "").startswith(module + ".")
            names |= imported(node) - used(source) if own else set()
    return {n for n in names if not n.startswith("_")}


def imported(node: ast.ImportFrom) -> set[str]:
    """Return the names that an import binds."""
    return {alias.asname or alias.name for alias in node.names}


def used(source: ast.Module) -> set[str]:
    """Return the names that the code of a file reads."""
    return {
        n.id for n in ast.walk(source) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
    }


def listed_names(source: ast.Module) -> list[str] | None:
    """Return `__all__` of a file, or None."""
    for node in source.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def export_faults(module: str, source: ast.Module, *, package: bool) -> list[str]:
    """Return the differences between `__all__` and what the module offers."""
    offered = public_names(module, source, package=package)
    listed = listed_names(source)
    if listed is None:
        return (
            [f"{module} offers {sorted(offered)} and lists nothing"] if package and offered else []
        )
    bound = offered.union(*(imported(n) for n in source.body if isinstance(n, ast.ImportFrom)))
    faults = [f"{n} is listed but not offered" for n in listed if n not in bound]
    faults += [f"{n} is listed twice" for n in set(listed) if listed.count(n) > 1]
    # A file may keep names for its neighbours; a package keeps none back.
    faults += [f"{n} is offered but not listed" for n in sorted(offered - set(listed)) if package]
    return faults


@pytest.mark.parametrize("name", MODULES)
def test_all_is_what_can_be_imported(name: str) -> None:
    path = files()[name]
    assert export_faults(name, tree(path), package=path.stem == "__init__") == []
    module = importlib.import_module(name)
    assert [n for n in getattr(module, "__all__", []) if not hasattr(module, n)] == []


def test_planted_faults_are_found() -> None:
    source = ast.parse("from a.b import g\nx = 1\ndef f(): ...\n__all__ = ['f', 'h', 'f']")
    faults = " ".join(export_faults("a", source, package=True))
    assert "h is listed but not" in faults
    assert "f is listed twice" in faults
    assert "g is offered but not" in faults
    assert "x is offered but not" in faults
    assert "lists nothing" in export_faults("a", ast.parse("x = 1"), package=True)[0]


def test_the_package_resolves_its_names_lazily() -> None:
    assert len(gipi.__all__) >= 5
    for name in gipi.__all__:
        assert getattr(gipi, name) is not None
    assert set(gipi.__all__) <= set(dir(gipi))
    with pytest.raises(AttributeError, match="no_such_name"):
        gipi.no_such_name  # noqa: B018


@pytest.mark.parametrize("statement", ["import gipi", "import gipi.cli", "import gipi.core.config"])
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    heavy = ["torch", "sklearn", "matplotlib", "pyarrow", "pandas", "PIL"]
    code = f"{statement}\nimport sys\nprint([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_types_of_the_package_are_shipped() -> None:
    assert (Path(gipi.__file__).parent / "py.typed").is_file()
