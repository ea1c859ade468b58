"""The pages of the documentation as data: their code blocks, links and anchors."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.house.source import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language and its text."""

    language: str
    text: str


def pages() -> list[Path]:
    """Return every page for people."""
    top = [ROOT / n for n in ("README.md", "README.ko.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*top, *sorted((ROOT / "docs").rglob("*.md"))]


def name(page: Path) -> str:
    """Return a page's path below the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """Return the fenced blocks of a page, all or those of one language."""
    found = [Block(m[1], m[2]) for m in FENCE.finditer(page.read_text(encoding="utf-8"))]
    return [b for b in found if language is None or b.language == language]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures that do not lead elsewhere."""
    found = LINK.findall(prose(page)) + re.findall(r'(?:src|href)="([^"]+)"', prose(page))
    return [t for t in found if not re.match(r"[a-z]+:", t)]


def anchors(page: Path) -> set[str]:
    """Return the anchors that the headings of a page make."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in heads}


def calls(block: Block) -> list[list[str]]:
    """Return the `gipi` calls of a shell block as argument lists, comments and pipes removed."""
    text = block.text.replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        call: list[str] = []
        for word in [*words, ";"]:
            if word in {"&&", ";", "|", "||"}:
                if call[:1] == ["gipi"]:
                    found.append(call[1:])
                call = []
            else:
                call.append(word)
    return found
