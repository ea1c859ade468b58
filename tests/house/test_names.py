"""Names, annotations and docstrings: what a reader may rely on in every file."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest
from tests.house.source import files, is_public, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_WORDS = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "handler"}
CLASS_WORDS = ("Manager", "Handler", "Helper", "Utils", "Util")
# What has a default and is an operand all the same: row weights, where an epoch begins, a counter,
# a factor, a caption, the third of the three inputs that every tokenizer gives, and that of a net
# whose rows go on from batch to batch.
OPERANDS = {"weight", "skip", "stream", "gain", "note", "token_type_ids", "fresh_B"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_definitions(module: ast.Module) -> Iterator[tuple[str, ast.AST, bool]]:
    """Yield (name, node, is a method) of everything public: functions, classes, their methods."""
    for node in module.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield node.name, node, False
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, Function) and not child.name.startswith("_"):
                    yield f"{node.name}.{child.name}", child, True


def name_faults(module: str, source: ast.Module) -> list[str]:
    """Return names that say nothing."""
    faults = []
    last = module.rsplit(".", maxsplit=1)[-1]
    if last.lower() in FILE_WORDS or last.startswith("base_"):
        faults.append(f"{module}: a file is named after its idea, not '{last}'")
    for node in ast.walk(source):
        if isinstance(node, ast.ClassDef) and node.name.endswith(CLASS_WORDS):
            faults.append(f"{module}:{node.lineno} class {node.name}")
        if isinstance(node, Function | ast.ClassDef) and node.name.startswith("base_"):
            faults.append(f"{module}:{node.lineno} {node.name}")
    return faults


def signature_faults(module: str, source: ast.Module) -> list[str]:
    """Return public functions with **kwargs, missing annotations or many positional arguments."""
    faults = []
    for name, node, method in public_definitions(source):
        if not isinstance(node, Function):
            continue
        where = f"{module}:{node.lineno} {name}"
        a = node.args
        if a.kwarg is not None:
            faults.append(f"{where}: **{a.kwarg.arg}")
        static = any(
            isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list
        )
        positional = [*a.posonlyargs, *a.args][int(method and not static) :]
        faults += [
            f"{where}: '{arg.arg}' has no annotation"
            for arg in [*positional, *a.kwonlyargs, *([a.vararg] if a.vararg else [])]
            if arg.annotation is None
        ]
        if node.returns is None:
            faults.append(f"{where}: no return annotation")
        # After the first two arguments an option is named where it is given.
        options = positional[max(2, len(positional) - len(a.defaults)) :]
        faults += [
            f"{where}: option '{arg.arg}' can be given by position"
            for arg in options
            if arg.arg not in OPERANDS
        ]
    return faults


def docstring_faults(module: str, source: ast.Module) -> list[str]:
    """Return public things without a docstring."""
    faults = [] if ast.get_docstring(source) else [f"{module} has no docstring"]
    for name, node, _ in public_definitions(source):
        if not ast.get_docstring(node):  # type: ignore[arg-type]
            faults.append(f"{module}:{node.lineno} {name} has no docstring")  # type: ignore[attr-defined]
    return faults


@pytest.mark.parametrize("check", [name_faults, signature_faults, docstring_faults])
def test_every_file(check) -> None:  # type: ignore[no-untyped-def]
    faults = [
        f for name, path in files().items() if is_public(name) for f in check(name, tree(path))
    ]
    assert faults == []


@pytest.mark.parametrize(
    ("check", "module", "code"),
    [
        (name_faults, "gipi.core.utils", ""),
        (name_faults, "gipi.core.base_thing", ""),
        (name_faults, "gipi.core.a", "class RunManager: ..."),
        (signature_faults, "gipi.core.a", "def f(x: int, **kwargs: int) -> None: ..."),
        (signature_faults, "gipi.core.a", "def f(x) -> None: ..."),
        (signature_faults, "gipi.core.a", "def f(x: int): ..."),
        (signature_faults, "gipi.core.a", "def f(x: int, y: int, z: int = 1) -> None: ..."),
        (signature_faults, "gipi.core.a", "class A:\n  def f(self, *x) -> None: ..."),
        (docstring_faults, "gipi.core.a", "'''x'''\ndef f(): ..."),
        (docstring_faults, "gipi.core.a", "'''x'''\nclass A:\n  '''x'''\n  def f(): ..."),
        (docstring_faults, "gipi.core.a", ""),
    ],
)
def test_a_planted_fault_is_found(check, module: str, code: str) -> None:  # type: ignore[no-untyped-def]
    assert check(module, ast.parse(code))
