"""Write docs/reference from the code, the doctor's pages, and tables from the benchmarks' results.

`scripts/docs` writes the pages; `scripts/docs --check` only says whether they are up to date.
A test compares too, so the pages cannot drift from the code.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.main import get_command

import gipi
from gipi.cli import catalogue
from gipi.cli.commands import app
from gipi.core.config import Config, Recipe

if TYPE_CHECKING:
    from gipi.core.registry import Record

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
HEAD = "<!-- Written by scripts/docs from the code. Change the code, then run it again. -->\n"

COMMANDS = """\
Every command has `--help` and `--json`; with `--json` the last line of stdout is one JSON object
and everything for people goes to stderr.

Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 75 interrupted and resumable,
130 interrupted twice.
"""
CONFIGURATION = """\
One YAML file mirrors these keys; a flag of the same name, or `--set key=value`, wins over the file.
The resolved values are saved in `config.yaml` of the run folder with the origin of each. An empty
default means that the value is chosen from the data, and printed with the reason.
"""
NAMES = """\
What `gipi list KIND` prints. Wherever a name is accepted, the object is accepted too; a package of
yours adds a name with an entry point of the group `gipi.KIND` (see [Extending](../extending.md)).
"""
PYTHON = """\
The names of the package itself. Each is imported when it is first used: `import gipi` is quick.
"""


def cell(text: object) -> str:
    """Return `text` as the content of one table cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(head: list[str], rows: list[list[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(c) for c in line) + " |" for line in lines) + "\n"


def type_name(annotation: object) -> str:
    """Return an annotation as people write it."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    text = re.sub(r"\b(?:typing|collections\.abc|pathlib)\.", "", text)
    return re.sub(r"Literal\[([^\]]*)\]", lambda m: m[1].replace(", ", " or "), text)


def default(field: Any) -> str:
    """Return the default of a configuration key as it is written in YAML."""
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in ({}, ()) else str(value)


def command_page(name: str, command: Any) -> list[str]:
    """Return what the page says of one command."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join(f"[{p.name.upper()}]" if not p.required else p.name.upper() for p in arguments)
    usage = " | ".join(command.commands) if hasattr(command, "commands") else f"{usage} [OPTIONS]"
    rows: list[list[object]] = [[f"`{p.name.upper()}`", p.help or ""] for p in arguments]
    rows += [
        [f"`{', '.join([*p.opts, *p.secondary_opts])}`"
         + ("" if p.is_flag else f" {p.metavar or 'VALUE'}"), p.help]
        for p in options
    ]  # fmt: skip
    return [
        f"## gipi {name}\n",
        f"```\ngipi {name} {usage.strip()}\n```\n",
        inspect.cleandoc(command.help or "") + "\n",
        *([table(["argument or option", "meaning"], rows)] if rows else []),
    ]


def commands() -> str:
    """Return the page of the commands."""
    group: Any = get_command(app)
    parts = [
        "# Commands\n",
        COMMANDS,
    ]
    for name, command in group.commands.items():
        parts += command_page(name, command)
        for verb, inner in getattr(command, "commands", {}).items():
            parts += command_page(f"{name} {verb}", inner)
    return "\n".join(parts)


def configuration() -> str:
    """Return the page of the configuration keys."""

    def rows(names: list[str]) -> list[list[object]]:
        return [
            [f"`{n}`", f"`{type_name(f.annotation)}`", f"`{default(f)}`".replace("``", ""),
             f.description]
            for n in names
            for f in [Config.model_fields[n]]
        ]  # fmt: skip

    head = ["key", "type", "default", "meaning"]
    what = [n for n in Config.model_fields if n not in Recipe.model_fields]
    return "\n".join(
        [
            "# Configuration\n",
            CONFIGURATION,
            "## What to learn from and with\n",
            table(head, rows(what)),
            "## How to train\n",
            table(head, rows(list(Recipe.model_fields))),
        ]
    )


def options_of(record: Record) -> str:
    """Return the options of a record with their defaults, in one line."""
    found = catalogue.options(record).items()
    return ", ".join(f"`{n}`" if d == "required" else f"`{n}={d}`" for n, d in found)


def names() -> str:
    """Return the page of everything that can be named."""
    parts = [
        "# Names\n",
        NAMES,
    ]
    for kind in catalogue.KINDS:
        rows: list[list[object]] = [
            [f"`{r.name}`", r.summary, options_of(r), r.citation] for r in catalogue.registry(kind)
        ]
        parts.append(f"## {kind}\n")
        parts.append(table(["name", "what it is", "options", "source"], rows))
    return "\n".join(parts)


def signature(name: str, thing: Any) -> str:
    """Return a signature with one argument a line, as it is written in the source."""
    found = inspect.signature(thing)
    lines, star = [f"{name}("], False
    for p in found.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not star:
            star = True
            lines.append("    *,")
        kind = "" if p.annotation is p.empty else f": {p.annotation}"
        value = "" if p.default is p.empty else f" = {p.default!r}"
        if "<factory>" in value:
            value = " = {}"
        lines.append(f"    {p.name}{kind}{value},")
    back = "" if found.return_annotation is found.empty else f" -> {found.return_annotation}"
    return "\n".join([*lines, f"){back}"])


def python() -> str:
    """Return the page of the Python interface."""
    parts = ["# Python interface\n", PYTHON]
    for name in gipi.__all__:
        thing = getattr(gipi, name)
        parts.append(f"## gipi.{name}\n")
        settings = inspect.isclass(thing) and issubclass(thing, Recipe)
        if settings:
            parts.append("Its fields are the keys of the [configuration](config.md).\n")
        elif callable(thing):
            parts.append(f"```python\n{signature(name, thing)}\n```\n")
        parts.append(f"```text\n{inspect.getdoc(thing) or ''}\n```\n")
        if inspect.isclass(thing) and not settings:
            rows: list[list[object]] = [
                [f"`{n}`", (inspect.getdoc(m) or "").split("\n")[0]]
                for n, m in vars(thing).items()
                if not n.startswith("_")
                and (callable(m) or isinstance(m, property | cached_property))
            ]
            if rows:
                parts.append(table(["member", "meaning"], rows))
    return "\n".join(parts)


def speed(kinds: tuple[str, ...]) -> str:
    """Return the tables of the speed benchmark that have results."""
    sys.path.insert(0, str(ROOT / "benchmarks" / "speed"))
    try:
        tables = importlib.import_module("table")
    finally:
        sys.path.pop(0)
    parts = []
    for kind in kinds:
        rows, _ = tables.newest(kind)
        if rows:
            parts.append("\n".join(getattr(tables, kind)()))
    return "\n\n".join(parts)


def scores() -> dict[str, str]:
    """Return the tables of scores and of texts' speed that have results, by their scripts."""
    found = {}
    for script in SCORES:
        words = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--table"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
        found[script] = done.stdout.strip()
    return found


def doctor() -> Any:
    """Return the module that makes the pages of the doctor's problems."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module("scripts.doctor_pages")
    finally:
        sys.path.pop(0)


def filled(path: Path, name: str, text: str) -> str:
    """Return a page of a file with `text` between its marks of that name."""
    return between(path.read_text(encoding="utf-8"), name, text)


def between(page: str, name: str, text: str) -> str:
    """Return a page with `text` between its marks `begin generated: name` and `end ...`."""
    begin, end = f"<!-- begin generated: {name} -->\n", f"<!-- end generated: {name} -->"
    head, rest = page.split(begin)
    _, tail = rest.split(end)
    return f"{head}{begin}{text}\n{end}{tail}" if text else f"{head}{begin}{end}{tail}"


def generated() -> dict[Path, str]:
    """Return every page that is written by the code, wholly or between marks, as it should be."""
    pages = {FOLDER / name: f"{HEAD}\n{page().rstrip()}\n" for name, page in PAGES.items()}
    for name in ("README.md", "README.ko.md"):
        pages[ROOT / name] = filled(ROOT / name, "speed", speed(("pairs", "warm")))
    path = ROOT / "docs" / "speed.md"
    pages[path] = filled(path, "speed", speed(("pairs", "warm", "startup", "crowded")))
    path = ROOT / "docs" / "scores.md"
    pages[path] = path.read_text(encoding="utf-8")
    for name, text in scores().items():
        pages[path] = between(pages[path], name, text)
    problems = doctor()
    pages |= problems.generated()
    path = ROOT / "docs" / "doctor.md"
    pages[path] = between(filled(path, "problems", problems.problems()), "rates", problems.rates())
    return pages


SCORES = (
    *(f"quality/{name}" for name in ("time_budget", "language", "pretraining", "transfer")),
    *(f"speed/{name}" for name in ("language", "tokenizers_speed")),
)
PAGES = {
    "commands.md": commands,
    "config.md": configuration,
    "names.md": names,
    "python.md": python,
}


def main() -> int:
    """Write the pages, or say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if outdated")
    check = parser.parse_args().check
    outdated = []
    for path, text in generated().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        outdated.append(path.relative_to(ROOT).as_posix())
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    print(f"{', '.join(outdated) or 'nothing'} {'outdated' if check else 'written'}")
    return int(check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
