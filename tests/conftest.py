"""What every test stands on: one thread, quiet libraries, an empty cache, and the real data."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported anywhere: on two cores one thread a test process is the fastest, and the
# same number of threads everywhere keeps sums in one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests out of the user's cache; child processes inherit the setting."""
    os.environ["GIPI_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _doctor_that_fails_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an error of the doctor's own fail the test, though it would not end the run."""

    def seen(error: Exception) -> None:
        raise error

    if consult := sys.modules.get("gipi.doctor.consult"):
        monkeypatch.setattr(consult, "forgone", seen)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of real data sets; skip where there is none."""
    folder = os.environ.get("GIPI_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GIPI_DATA names no folder of data sets")
    return Path(folder)


@pytest.fixture
def asked(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call a command in the folder `place` and return the last line of what it prints, as JSON."""
    from gipi.cli import main

    monkeypatch.chdir(place)

    def call(*args: str, code: int = 0) -> dict[str, Any]:
        assert main([*args, "--json"]) == code
        found: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        return found

    return call
