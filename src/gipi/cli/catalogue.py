"""`gipi list` and `gipi show`: the registries, in words."""

from __future__ import annotations

import inspect
import sys
import textwrap
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gipi.cli.options import REQUIRED, Option, meanings, option_rows
from gipi.core.errors import UnknownName, did_you_mean, nearest

if TYPE_CHECKING:
    from gipi.core.registry import Record, Registry

KINDS: dict[str, tuple[str, str]] = {
    "models": ("gipi.models", "MODELS"),
    "backbones": ("gipi.models", "BACKBONES"),
    "data": ("gipi.data", "SOURCES"),
    "tasks": ("gipi.tasks", "TASKS"),
    "optimizers": ("gipi.optim", "OPTIMIZERS"),
    "schedules": ("gipi.optim", "SCHEDULES"),
    "activations": ("gipi.nn", "ACTIVATIONS"),
    "inits": ("gipi.nn", "INITS"),
    "norms": ("gipi.nn", "NORMS"),
    "layers": ("gipi.nn", "LAYERS"),
    "advice": ("gipi.nn", "RULES"),
    "rules": ("gipi.doctor.rules", "REGISTRY"),
    "losses": ("gipi.losses", "LOSSES"),
    "metrics": ("gipi.metrics", "METRICS"),
    "augmentations": ("gipi.data", "AUGMENTATIONS"),
}
# Facts as people read them; the others are called what they are called.
WORDS = {"use": "when to use it", "failure": "how it fails", "over": "statistics over",
         "init": "initial weights", "aliases": "other names", "looks": "what is seen",
         "why": "why it hurts", "do": "what to do", "when": "looked for", "causes": "brings about",
         "parents": "may come from"}  # fmt: skip
WIDTH = 96
_OFFERED = 6  # names that one piece of advice holds


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


def _near(name: str, known: list[str]) -> str:
    """Return advice: the names that begin with `name`, else the nearest one.

    >>> _near("resnet", ["relu", "resnet18", "resnet34"])
    'did you mean one of resnet18, resnet34?'
    """
    longer = list(dict.fromkeys(k for k in known if name and k.startswith(name)))
    if len(longer) > 1:
        more = ", ..." if len(longer) > _OFFERED else ""
        return f"did you mean one of {', '.join(longer[:_OFFERED])}{more}?"
    close = nearest(name, known)
    return f"did you mean '{close}'?" if close else "see `gipi list models` and its like"


def show_one(name: str) -> dict[str, Any]:
    """Print everything that is registered under `name` and return it."""
    found: list[dict[str, Any]] = []
    shown: list[Record] = []
    known: list[str] = []
    for kind in KINDS:
        records = registry(kind)
        known += [*records.names(), *records.aliases()]
        if name in records and records.get(name) not in shown:  # a backbone is a model, too
            shown.append(records.get(name))
            found.append(describe(kind, records.get(name)))
    if not found:
        raise UnknownName(
            f"nothing is called '{name}'", "a name that `gipi list KIND` prints", _near(name, known)
        )
    for number, one in enumerate(found):
        if number:
            print()
        _print(one)
    return {"name": name, "found": found}


# ------------------------------------------------------------------------ one record


def describe(kind: str, record: Record) -> dict[str, Any]:
    """Return what is known of a record: summary, source, facts, options and its own page.

    "built_by" is the class behind it, torch's own where torch has the part.
    """
    return {
        "kind": kind,
        "name": record.name,
        "summary": record.summary,
        "citation": record.citation,
        "tags": list(record.tags),
        "facts": facts(record),
        "built_by": built_by(record),
        "options": {row.name: row.as_dict() for row in option_rows(record)},
        "page": page(record),
    }


def facts(record: Record) -> dict[str, str | int | float | bool]:
    """Return the facts of a record that are words or numbers, in their order, but no empty ones."""
    found: dict[str, str | int | float | bool] = {}
    for key, value in record.facts.items():
        if key == "aliases":
            value = ", ".join(value)  # noqa: PLW2901
        if isinstance(value, str | int | float) and value != "":
            found[key] = value
    return found


def options(record: Record) -> dict[str, str]:
    """Return what can be set about a record, with the defaults, as text."""
    return {row.name: row.default for row in option_rows(record)}


def built_by(record: Record) -> str:
    """Return the public name of the class or function behind a record, "" where it has none."""
    thing = record.build.func if isinstance(record.build, partial) else record.build
    name = getattr(thing, "__qualname__", "")
    if not name or "<" in name or name.startswith("_"):
        return ""
    module = thing.__module__
    for public in ("torch.nn", "torch.optim"):
        if module.startswith(public) and hasattr(sys.modules[public], name):
            return f"{public}.{name}"
    return f"{module}.{name}"


def page(record: Record) -> str:
    """Return the text that stands in the code about a record: of a model its class, of torch none.

    torch's own pages are long and written for another reader.
    """
    thing = record.build.func if isinstance(record.build, partial) else record.build
    if thing.__module__.startswith("torch.") or getattr(thing, "__name__", "") == "<lambda>":
        return ""
    if "config" in record.facts:
        answer = str(getattr(thing, "__annotations__", {}).get("return", ""))
        thing = getattr(sys.modules[thing.__module__], answer, thing)
    return inspect.getdoc(thing) or ""


# ------------------------------------------------------------------------ in words


def _print(one: dict[str, Any]) -> None:
    print(f"{one['name']} ({one['kind']})\n  {one['summary']}")
    rows = {
        WORDS.get(k, k): f"{v:.4g}" if isinstance(v, float) else str(v)
        for k, v in one["facts"].items()
        if (k, v) != ("family", one["name"])
    }
    rows |= {"built by": one["built_by"], "source": one["citation"]}
    rows = {k: v for k, v in rows.items() if v}
    width = max(map(len, rows), default=0) + 2
    for key, value in rows.items():
        print(_hung(f"  {key:<{width}}", value))
    if one["options"]:
        print("  options")
        _print_options([Option(**row) for row in one["options"].values()])
    if one["page"]:
        text = without_meanings(one["page"], set(one["options"]))
        print("\n" + "\n".join(f"  {line}".rstrip() for line in text.splitlines()))


def _print_options(rows: list[Option]) -> None:
    width = max(len(row.name) for row in rows) + 2
    for row in rows:
        what = ", ".join(row.values) if row.values else row.type
        default = f"(default {row.default})" if row.default else ""
        if row.default == REQUIRED:
            default = "(required)"
        print(_hung(f"    {row.name:<{width}}", " ".join(filter(None, (what, default))) or "-"))
        if row.meaning:
            print(_hung(" " * (width + 4), row.meaning))


def without_meanings(text: str, names: set[str]) -> str:
    """Return a docstring without the lines that explain options which stand in a table already."""
    told = meanings(text)
    if not names or not names & told.keys():
        return text
    kept, inside = [], False
    for line in text.splitlines():
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        if word in told and not line.startswith(" "):
            inside = word in names
        elif inside and not line.startswith(" "):
            inside = False
        if not inside:
            kept.append(line)
    return "\n".join(kept).strip()


def _hung(head: str, text: str) -> str:
    """Return `text` after `head`, wrapped, further lines below its beginning."""
    return textwrap.fill(
        text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head),
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
