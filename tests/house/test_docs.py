"""The documentation says what the code does: generated pages, code blocks, commands, links."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.house.pages import anchors, blocks, calls, links, name, pages, prose
from tests.house.source import PACKAGE, ROOT, files, is_public
from typer.main import get_command

from gipi.cli import catalogue
from gipi.cli.commands import app
from gipi.core import resolve
from gipi.core.config import Config
from gipi.core.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.house.pages import Block

GROUP: Any = get_command(app)
DOCS = ROOT / "docs"
README = ROOT / "README.md"
RUNNABLE = [p for p in pages() if blocks(p, "python") and "reference" not in p.parts]


def reference() -> Any:
    """Return the generator of the reference pages."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------ completeness


def test_generated_pages_are_up_to_date() -> None:
    for path, fresh in reference().generated().items():
        committed = path.read_text(encoding="utf-8")
        assert committed == fresh, f"{name(path)} is outdated: run scripts/docs"


def test_every_command_is_documented_by_hand_and_in_the_reference() -> None:
    by_hand = (DOCS / "cli.md").read_text(encoding="utf-8")
    listed = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    assert [c for c in GROUP.commands if f"gipi {c}" not in by_hand] == []
    assert [c for c in GROUP.commands if f"## gipi {c}\n" not in listed] == []


def test_every_option_and_every_key_says_what_it_is() -> None:
    silent = [
        f"{verb} {option.name}"
        for verb, command in GROUP.commands.items()
        for option in command.params
        if not option.help
    ]
    assert silent == []
    assert [n for n, f in Config.model_fields.items() if not f.description] == []
    listed = (DOCS / "reference" / "config.md").read_text(encoding="utf-8")
    assert [n for n in Config.model_fields if f"| `{n}` |" not in listed] == []


def test_every_registry_is_listed() -> None:
    known = {id(catalogue.registry(kind)) for kind in catalogue.KINDS}
    lost = [
        f"{module}.{attribute}"
        for module in files()
        if is_public(module)
        for attribute, value in vars(importlib.import_module(module)).items()
        if isinstance(value, Registry) and id(value) not in known
    ]
    assert lost == []


@pytest.mark.parametrize("kind", list(catalogue.KINDS))
def test_every_record_is_documented_and_named_as_people_type_it(kind: str) -> None:
    listed = (DOCS / "reference" / "names.md").read_text(encoding="utf-8")
    section = listed.split(f"## {kind}\n")[1].split("\n## ")[0]
    for record in catalogue.registry(kind):
        assert f"| `{record.name}` |" in section
        assert record.summary, f"{kind} {record.name} says nothing about itself"
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", record.name)


def test_every_folder_is_in_the_picture_of_the_house() -> None:
    drawn = (DOCS / "pictures" / "house.svg").read_text(encoding="utf-8")
    folders = [p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name[0] != "_"]
    assert [f for f in folders if f">{f}</text>" not in drawn] == []


def test_every_net_for_pictures_and_tables_is_in_the_table_of_models() -> None:
    rows = [
        line for line in (DOCS / "models.md").read_text("utf-8").splitlines() if line[:1] == "|"
    ]
    for record in catalogue.registry("models"):
        if {"image", "table"} & set(record.tags):
            family = record.name.rstrip("0123456789")  # resnet18 ... resnet152 is one row
            assert any(f"`{family}" in row for row in rows), record.name


def test_every_folder_has_a_line_in_the_architecture_and_in_the_readme() -> None:
    parts = [p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.name[0] not in "_."]
    parts.remove("py.typed")
    plan = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert [p for p in parts if f"| `{p}` |" not in plan] == []
    for page in (README, ROOT / "README.ko.md"):
        tree = "".join(b.text for b in blocks(page) if "src/gipi" in b.text)
        assert [p for p in parts if not re.search(rf"^\s+{p}(/|\.py| )", tree, re.MULTILINE)] == []


def test_every_page_can_be_reached_from_the_index() -> None:
    for index in (DOCS / "index.md", DOCS / "ko" / "index.md"):
        seen: set[Path] = set()
        todo = [index]
        while todo:
            page = todo.pop()
            if page not in seen and page.suffix == ".md":
                seen.add(page)
                todo += [
                    (page.parent / t.split("#")[0]).resolve() for t in links(page) if t[0] != "#"
                ]
        wanted = {
            p for p in index.parent.rglob("*.md") if index.parent != DOCS or "ko" not in p.parts
        }
        assert sorted(name(p) for p in wanted - seen) == []


def test_every_picture_is_shown_somewhere() -> None:
    shown = {(p.parent / t).resolve() for p in pages() for t in links(p)}
    drawn = [p for p in (DOCS / "pictures").rglob("*") if p.suffix in {".svg", ".png"}]
    assert drawn
    assert sorted(p.name for p in drawn if p not in shown) == []


# ------------------------------------------------------------------------ truth


def link_faults(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere."""
    faults = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (
            anchor and there.suffix == ".md" and anchor not in anchors(there)
        ):
            faults.append(f"{page.name}: {target}")
    return faults


def call_faults(block: Block) -> list[str]:
    """Return the `gipi` calls of a block that the command line would refuse."""
    faults = []
    for call in calls(block):
        verb, args = (call[0], call[1:]) if call else ("", [])
        if verb.startswith("-"):
            continue
        if verb not in GROUP.commands:
            faults.append(f"gipi {verb}: no such command")
            continue
        try:
            context = GROUP.commands[verb].make_context(verb, list(args))
            resolve.resolve(resolve.layer_from_flags({}, context.params.get("setting") or ()))
        except Exception as error:  # noqa: BLE001  whatever the parser says is a fault of the page
            faults.append(f"gipi {' '.join(call)}: {error}")
    return faults


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert link_faults(page) == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_commands_are_understood(page: Path) -> None:
    assert [f for b in blocks(page, "bash") for f in call_faults(b)] == []


@pytest.mark.parametrize("page", [p for p in pages() if blocks(p, "yaml")], ids=name)
def test_configurations_are_understood(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page, "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block.text, encoding="utf-8")
        resolve.resolve(resolve.layer_from_file(file))


@pytest.mark.parametrize("page", [p for p in RUNNABLE if "ko" not in name(p)], ids=name)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    """Run all Python blocks of a page in order, and compare what the README says they print."""
    code = "\n".join(b.text for b in blocks(page, "python"))
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr[-2000:]
    if page == README:
        shown = [b.text for b in blocks(page, "text") if b.text.startswith("test accuracy")]
        assert len(shown) == 1
        numbers = [[float(x) for x in re.findall(r"\d+\.\d+", t)] for t in (shown[0], out.stdout)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.02)
        words = [re.sub(r"\d+(\.\d+)?", "N", t).strip() for t in (shown[0], out.stdout)]
        assert words[0] == words[1]


def test_the_first_two_commands_of_the_readme_set_up_a_machine() -> None:
    for page in (README, ROOT / "README.ko.md"):
        first, second = [b.text.strip() for b in blocks(page, "bash")][:2]
        assert (
            first == "python3 -m venv .venv && . .venv/bin/activate && pip install . && gipi train"
        )
        assert second == "pip install '.[test]' && pytest -q"


def without_comments(page: Path) -> list[str]:
    """Return the code of a page without its comments and string literals in another language."""
    return [
        "\n".join(line.split("#")[0].rstrip() for line in b.text.splitlines())
        for b in blocks(page)
        if b.language in {"bash", "python", "yaml", "toml"}
    ]


@pytest.mark.parametrize(
    "page", [ROOT / "README.ko.md", *sorted((DOCS / "ko").glob("*.md"))], ids=name
)
def test_korean_pages_have_the_code_of_the_english_ones(page: Path) -> None:
    english = README if page.name == "README.ko.md" else DOCS / page.name
    assert without_comments(page) == without_comments(english)
    letters = re.findall(r"[가-힣]", prose(page))
    assert len(letters) > 100


def test_planted_faults_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n[x](nowhere.md) [y](#b) [z](#a)\n"
        "```bash\ngipi train && gipi trian\ngipi list --nope\ngipi train --set lrr=1\n```\n"
    )
    assert link_faults(page) == ["page.md: nowhere.md", "page.md: #b"]
    found = call_faults(blocks(page, "bash")[0])
    assert [f.split(":")[0] for f in found] == [
        "gipi trian", "gipi list --nope", "gipi train --set lrr=1",
    ]  # fmt: skip
