"""What can be set about a registered thing: names, types, allowed values, defaults, meanings."""

from __future__ import annotations

import inspect
import re
import types
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import partial
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

if TYPE_CHECKING:
    from gipi.core.registry import Record

REQUIRED = "required"
HIDDEN = {"device", "dtype", "inplace", "generator"}  # of torch's classes; not for people
BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
TYPES = {"str": "text", "NoneType": "none", "Any": ""}


@dataclass(frozen=True)
class Option:
    """One thing that can be set.

    type     in words: "text", "int > 0", "list of int"; "" where nothing is declared
    values   the allowed values, where they are few and named
    default  as it is written in Python; "required" without one, "" where it is unknown
    """

    name: str
    type: str = ""
    values: tuple[str, ...] = ()
    default: str = ""
    meaning: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the option as JSON-able values."""
        return asdict(self)


def option_rows(record: Record) -> tuple[Option, ...]:
    """Return the options of a record.

    A model has a config class, an optimizer names its options; of another class all parameters
    count, and of a function those that are keyword-only.
    """
    config, names = record.facts.get("config"), record.facts.get("options")
    if is_dataclass(config) and isinstance(config, type):
        hints = get_type_hints(config, include_extras=True)
        told = meanings(inspect.getdoc(config) or "")
        return tuple(
            Option(f.name, words(hints[f.name]), choices(hints[f.name]), _field_default(f),
                   told.get(f.name, ""))
            for f in fields(config)
        )  # fmt: skip
    parameters = _parameters(record.build)
    if names is not None and not isinstance(names, dict):
        return tuple(_option(n, parameters.get(n), {}) for n in names)
    thing = record.build.func if isinstance(record.build, partial) else record.build
    told = {} if thing.__module__.startswith("torch.") else meanings(inspect.getdoc(thing) or "")
    every = inspect.isclass(thing)
    return tuple(
        _option(p.name, p, told)
        for p in parameters.values()
        if p.kind is p.KEYWORD_ONLY or (every and p.kind is p.POSITIONAL_OR_KEYWORD)
    )


def meanings(text: str) -> dict[str, str]:
    r"""Return what a docstring says about each name: lines of "name   what it is", and what hangs.

    >>> meanings("Do it.\n\nrate   how fast,\n       in steps\nsize   of what\n\nMore.")
    {'rate': 'how fast, in steps', 'size': 'of what'}
    """
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        start = re.match(r"(\w+) {2,}(\S.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif name and re.match(r" {4,}\S", line):
            found[name] += " " + line.strip()
        else:
            name = ""
    return found


# ------------------------------------------------------------------------ types in words


def words(kind: Any) -> str:
    """Return a type in words.

    >>> words(tuple[int, ...] | None), words(Literal["a", "b"]), words(float)
    ('list of int or none', 'text', 'float')
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([words(inner[0]), *filter(None, [_bounds(m) for m in inner[1:]])])
    if origin is Literal:
        return " or ".join(dict.fromkeys(words(type(v)) for v in inner))
    if origin in {Union, types.UnionType}:
        return " or ".join(dict.fromkeys(words(k) for k in inner))
    if origin in {tuple, list} or str(origin).endswith("Sequence'>"):
        return f"list of {words(inner[0])}" if inner else "list"
    if origin is not None:
        return str(origin.__name__)
    if isinstance(kind, str):
        return _string(kind)
    name = getattr(kind, "__name__", str(kind))
    return TYPES.get(name, name)


def choices(kind: Any) -> tuple[str, ...]:
    """Return the values that a type allows, where they are named.

    >>> choices(Literal["auto"] | Literal["a", "b"]), choices(bool), choices(int)
    (('auto', 'a', 'b'), ('true', 'false'), ())
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return tuple(str(v) for v in inner)
    if kind is bool or kind == "bool":
        return "true", "false"
    if isinstance(kind, str):
        written = re.fullmatch(r"Literal\[(.*)\]", kind)
        return tuple(v.strip(" \"'") for v in written[1].split(",")) if written else ()
    if origin in {Union, types.UnionType}:
        each = [choices(k) for k in inner]
        return tuple(v for vs in each for v in vs) if all(each) else ()
    return ()


def _bounds(mark: Any) -> str:
    """Return the bounds that an annotation's mark sets, such as "> 0"."""
    marks = getattr(mark, "metadata", None) or [mark]
    said = [f"{sign} {getattr(m, key)}" for m in marks for key, sign in BOUNDS.items()
            if hasattr(m, key)]  # fmt: skip
    return " and ".join(said)


def _string(kind: str) -> str:
    """Return an annotation that was never evaluated, in words as far as that goes."""
    if kind.startswith("Literal["):
        return "text"
    kind = kind.replace(" | ", " or ").replace("None", "none")
    listed = re.sub(r"(?:Sequence|tuple|list)\[(\w+)(?:, \.\.\.)?\]", r"list of \1", kind)
    return re.sub(r"\bstr\b", "text", listed)


def _parameters(build: Any) -> dict[str, inspect.Parameter]:
    try:
        found = inspect.signature(build).parameters
    except (TypeError, ValueError):
        return {}
    return {n: p for n, p in found.items() if n not in HIDDEN}


def _option(name: str, parameter: inspect.Parameter | None, told: dict[str, str]) -> Option:
    if parameter is None:
        return Option(name)
    kind = parameter.annotation
    known = kind is not inspect.Parameter.empty
    return Option(name, words(kind) if known else "", choices(kind) if known else (),
                  _default(parameter.default), told.get(name, ""))  # fmt: skip


def _field_default(field: Any) -> str:
    if field.default_factory is not MISSING:
        return repr(field.default_factory())
    return _default(field.default)


def _default(value: Any) -> str:
    return REQUIRED if value in (MISSING, inspect.Parameter.empty) else repr(value)
