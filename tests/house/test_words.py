"""What is committed stands on its own: no path of one machine, no unfinished marks."""

from __future__ import annotations

import re
import subprocess

import pytest
from tests.house.source import ROOT

TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".cfg", ".txt", ".sh", ".json", ".html", ".css", ""}
# Each pattern is written so that it does not match this file.
PATTERNS = {
    "a path of one machine": r"(?<![\w.~])/(?:work|home|root|Users|mnt)/[a-z]",
    "a folder beside the checkout": r"\.\./share[d]",
    "a temporary path": r"""["'(= ]/tm[p]/\w""",
    "an unfinished mark": r"\b(?:TO[D]O|FIX[M]E|XX[X])\b",
    "a merge mark": r"^(?:<{7}|>{7}|={7})( |$)",
    "a placeholder text": r"(?i)lorem ipsu[m]|to be writte[n]|coming soo[n]",
}


def faults(name: str, text: str) -> list[str]:
    """Return the forbidden words of a text, with their lines."""
    return [
        f"{name}:{number}: {what}: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in PATTERNS.items()
        if re.search(pattern, line)
    ]


def committed() -> list[str]:
    """Return the text files that git tracks, or every file where there is no git."""
    try:
        out = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        out = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file()]
    return [n for n in out if (ROOT / n).suffix in TEXT and (ROOT / n).is_file()]


def test_committed_text_has_no_word_of_one_machine() -> None:
    found = [
        f for name in committed() if name != "LICENSE"
        for f in faults(name, (ROOT / name).read_text(encoding="utf-8"))
    ]  # fmt: skip
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "x = '/ho" + "me/someone/data'",
        "cp ../shar" + "ed/data .",
        "open('/t" + "mp/x')",
        "# TO" + "DO: later",
        "<<<<<<" + "< HEAD",
        "coming so" + "on",
    ],
)
def test_a_planted_word_is_found(text: str) -> None:
    assert faults("planted", text)
