"""The source tree as data: every file of `src/gipi`, parsed once, and what it imports."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "gipi"
VERSION = "gipi.__version__"  # the one name of the package itself that anybody may read


@dataclass(frozen=True)
class Import:
    """One import: the dotted module, the line, and where it stands."""

    module: str
    line: int
    inside_function: bool
    typing_only: bool


def name_of(path: Path, root: Path = SOURCE) -> str:
    """Return the dotted module name of a file below `root`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def files(package: Path = PACKAGE) -> dict[str, Path]:
    """Return module name -> file, for every file of the package."""
    found = {name_of(p, package.parent): p for p in sorted(package.rglob("*.py"))}
    assert found, f"no source below {package}"
    return found


@cache
def tree(path: Path) -> ast.Module:
    """Return the parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path, module: str, known: frozenset[str] | set[str]) -> list[Import]:
    """Return every import of a file, those inside functions and type-checking blocks included.

    `from a import b` counts as `a.b` where that is a module of `known`, else as `a`.
    """
    found: list[Import] = []

    def visit(node: ast.AST, *, inside: bool, typing: bool) -> None:
        def add(name: str) -> None:
            found.append(Import(name, node.lineno, inside, typing))

        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative: climb from the package that holds the file
                parts = module.split(".")
                keep = len(parts) - node.level + (path.name == "__init__.py")
                base = ".".join([*parts[:keep], *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                add(full if full in known or full == VERSION else base)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name | ast.Attribute)
            and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr)
            in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            add(str(node.args[0].value))
        deeper = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, inside=deeper, typing=typing or guarded)

    visit(tree(path), inside=False, typing=False)
    return found


def is_public(module: str) -> bool:
    """Tell whether no part of a dotted name begins with an underscore."""
    return not any(part.startswith("_") for part in module.split("."))
