"""Ranks check one folder at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.cli import checks

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_only_the_first_rank_tries_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rank that made and took it away would take the first one's."""
    made: list[str] = []
    real = type(tmp_path).mkdir

    def noted(self: Path, *args: object, **options: object) -> None:
        made.append(self.name)
        real(self, *args, **options)

    monkeypatch.setattr(type(tmp_path), "mkdir", noted)
    monkeypatch.setenv("RANK", "1")
    checks._can_be_made(tmp_path / "run")
    assert made == []
    monkeypatch.setenv("RANK", "0")
    checks._can_be_made(tmp_path / "run")
    assert made == ["run"]
    assert not (tmp_path / "run").exists()
