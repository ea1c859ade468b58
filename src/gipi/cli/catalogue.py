"""`gipi list` and `gipi show`: the registries, in words."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gipi.core.errors import UnknownName, did_you_mean, nearest

if TYPE_CHECKING:
    from gipi.core.registry import Record, Registry

KINDS: dict[str, tuple[str, str]] = {
    "models": ("gipi.models", "MODELS"),
    "data": ("gipi.data", "SOURCES"),
    "tasks": ("gipi.tasks", "TASKS"),
    "optimizers": ("gipi.optim", "OPTIMIZERS"),
    "schedules": ("gipi.optim", "SCHEDULES"),
    "activations": ("gipi.nn", "ACTIVATIONS"),
    "inits": ("gipi.nn", "INITS"),
    "norms": ("gipi.nn", "NORMS"),
    "layers": ("gipi.nn", "LAYERS"),
    "advice": ("gipi.nn", "RULES"),
    "losses": ("gipi.losses", "LOSSES"),
    "metrics": ("gipi.metrics", "METRICS"),
    "augmentations": ("gipi.data", "AUGMENTATIONS"),
}


def registry(kind: str) -> Registry:
    """Return the registry of one kind; raise `UnknownName` with the nearest kind."""
    if kind not in KINDS:
        raise UnknownName(
            f"nothing is listed under '{kind}'",
            "one of " + ", ".join(KINDS),
            did_you_mean(kind, KINDS),
        )
    module, name = KINDS[kind]
    found: Registry = getattr(import_module(module), name)
    return found


def show_list(kind: str) -> dict[str, Any]:
    """Print the records of one kind (without one: the kinds) and return them."""
    if not kind:
        print("gipi list " + "|".join(KINDS))
        return {"kinds": list(KINDS)}
    records = list(registry(kind))
    width = max((len(r.name) for r in records), default=0)
    for record in records:
        print(f"{record.name:<{width}}  {record.summary}")
    return {
        "kind": kind,
        "records": [
            {"name": r.name, "summary": r.summary, "citation": r.citation, "tags": list(r.tags)}
            for r in records
        ],
    }


def show_one(name: str) -> dict[str, Any]:
    """Print everything that is registered under `name` and return it."""
    found: list[dict[str, Any]] = []
    known: list[str] = []
    for kind in KINDS:
        records = registry(kind)
        known += records.names()
        if name in records:
            found.append(describe(kind, records.get(name)))
    if not found:
        close = nearest(name, known)
        raise UnknownName(
            f"nothing is called '{name}'",
            "a name that `gipi list KIND` prints",
            f"did you mean '{close}'?" if close else "see `gipi list models` and its like",
        )
    for number, one in enumerate(found):
        if number:
            print()
        _print(one)
    return {"name": name, "found": found}


def describe(kind: str, record: Record) -> dict[str, Any]:
    """Return what is known of a record: summary, source, facts, options and its builder's page."""
    return {
        "kind": kind,
        "name": record.name,
        "summary": record.summary,
        "citation": record.citation,
        "tags": list(record.tags),
        "facts": {k: v for k, v in record.facts.items() if isinstance(v, str | int | float | bool)},
        "options": options(record),
        "page": inspect.getdoc(record.build) or "",
    }


def options(record: Record) -> dict[str, str]:
    """Return what can be set about a record, with the defaults, as text.

    A model has a config class, an optimizer names its options; anything else is a function whose
    keyword-only arguments they are.
    """
    config, names = record.facts.get("config"), record.facts.get("options")
    if is_dataclass(config):
        return {f.name: _default(f.default) for f in fields(config)}
    if names is not None and not isinstance(names, dict):
        return dict.fromkeys(names, "")
    try:
        parameters = inspect.signature(record.build).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: _default(p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def _default(value: Any) -> str:
    return "required" if value in (MISSING, inspect.Parameter.empty) else repr(value)


def _print(one: dict[str, Any]) -> None:
    print(f"{one['name']} ({one['kind']})\n  {one['summary']}")
    if one["citation"]:
        print(f"  source: {one['citation']}")
    for key, value in one["facts"].items():
        print(f"  {key}: {value}")
    if one["options"]:
        print("  options:")
        for option, default in one["options"].items():
            print(f"    {option} = {default}" if default else f"    {option}")
    if one["page"]:
        print("\n" + "\n".join(f"  {line}".rstrip() for line in one["page"].splitlines()))
