from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from gipi.core.errors import DataError
from gipi.data import cache
from gipi.data.cache import (
    ALIGN,
    Cache,
    cache_info,
    clear,
    default_folder,
    key_of,
    ragged,
    ragged_take,
)

LAYOUT = {"pixels": ((7, 3), "uint8"), "offsets": ((4,), "int64"), "none": ((0, 5), "float32")}


class Filler:
    """Fills columns and counts how often it was asked to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, columns: dict[str, np.ndarray]) -> None:
        self.calls += 1
        columns["pixels"][:] = np.arange(21).reshape(7, 3)
        columns["offsets"][:] = [0, 1, 5, 7]


def entry_file(folder: Path, key: str) -> Path:
    """Return the file of columns of an entry."""
    return folder / key / "columns.bin"


def test_columns_are_written_once_and_mapped(tmp_path: Path) -> None:
    cache, fill = Cache(tmp_path, 1 << 20), Filler()
    for _ in range(3):
        opened = cache.open("k", LAYOUT, fill, name="things")
        assert opened.columns["pixels"].tolist() == np.arange(21).reshape(7, 3).tolist()
        assert opened.columns["offsets"].tolist() == [0, 1, 5, 7]
        assert opened.columns["none"].shape == (0, 5)
        assert opened.note == ""
    assert fill.calls == 1
    assert isinstance(opened.columns["pixels"], np.memmap)
    assert opened.columns["offsets"].offset % ALIGN == 0
    opened.columns["pixels"][:] = 0  # copy-on-write: the file stays as it is
    assert cache.open("k", LAYOUT, fill, name="things").columns["pixels"][6, 2] == 20


def test_damage_is_found_and_repaired(tmp_path: Path) -> None:
    cache, fill = Cache(tmp_path, 1 << 20), Filler()
    cache.open("k", LAYOUT, fill, name="things")
    for position in (0, 20, 70):
        path = entry_file(tmp_path, "k")
        content = bytearray(path.read_bytes())
        content[position] ^= 4
        path.write_bytes(content)
        calls = fill.calls
        opened = cache.open("k", LAYOUT, fill, name="things")
        assert fill.calls == calls + 1
        assert "things were damaged" in opened.note
        assert opened.columns["pixels"][6, 2] == 20
    for name in ("columns.bin", "entry.json"):
        path = tmp_path / "k" / name
        path.write_bytes(path.read_bytes()[:-3])
        assert "damaged" in cache.open("k", LAYOUT, fill, name="things").note


def test_nothing_remains_of_a_failed_fill(tmp_path: Path) -> None:
    def fail(columns: dict[str, np.ndarray]) -> None:
        columns["pixels"][:] = 1
        raise DataError("a", "b", "c")

    with pytest.raises(DataError):
        Cache(tmp_path, 1 << 20).open("k", LAYOUT, fail, name="x")
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_the_longest_unused_makes_room(tmp_path: Path) -> None:
    layout = {"pixels": ((100_000,), "uint8")}

    def fill(columns: dict[str, np.ndarray]) -> None:
        columns["pixels"][:] = 1

    cache = Cache(tmp_path, 330_000)
    for i, key in enumerate("abc"):
        cache.open(key, layout, fill, name=key)
        os.utime(tmp_path / key / "used", (i, i))
    cache.open("a", layout, fill, name="a")  # used again: now b is the oldest
    cache.open("d", layout, fill, name="d")
    assert {entry.key for entry in cache_info(tmp_path)} == {"a", "c", "d"}
    assert cache_info(tmp_path)[0].used > time.time() - 60


def test_info_and_clear(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1 << 20)
    for key in "ab":
        cache.open(key, LAYOUT, Filler(), name=f"set {key}")
    assert {e.name for e in cache_info(tmp_path)} == {"set a", "set b"}
    assert clear(tmp_path, keys=["a"]) > 64
    assert [e.key for e in cache_info(tmp_path)] == ["b"]
    clear(tmp_path)
    assert cache_info(tmp_path) == []
    assert cache_info(tmp_path / "not there") == []


def _race(folder: Path, log: Path, start: Barrier) -> None:
    def fill(columns: dict[str, np.ndarray]) -> None:
        with log.open("a") as f:
            f.write("filled\n")
        time.sleep(0.2)  # long enough for the others to arrive; the result does not depend on it
        columns["pixels"][:] = 5

    start.wait()
    opened = Cache(folder, 1 << 20).open("k", {"pixels": ((9,), "uint8")}, fill, name="x")
    assert opened.columns["pixels"].tolist() == [5] * 9


def test_one_process_decodes_while_others_wait(tmp_path: Path) -> None:
    log = tmp_path / "log"
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(3)
    workers = [spawn.Process(target=_race, args=(tmp_path / "c", log, start)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert log.read_text() == "filled\n"


def test_folder_and_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIPI_CACHE", str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here"
    assert Cache.of().budget_bytes > 0
    monkeypatch.delenv("GIPI_CACHE")
    assert default_folder().name == "gipi"
    assert key_of("a", 1) == key_of("a", 1) != key_of("a", 2)


def test_ragged_rows_come_back() -> None:
    rows = [np.arange(n, dtype=np.float32) + 10 * n for n in (3, 0, 5, 1)]
    values, offsets = ragged(rows)
    assert offsets.tolist() == [0, 3, 3, 8, 9]
    taken, at = ragged_take(values, offsets, np.array([2, 1, 0, 2]))
    for i, row in enumerate((2, 1, 0, 2)):
        assert np.array_equal(taken[at[i] : at[i + 1]], rows[row])


def test_an_entry_that_vanishes_while_it_is_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanishing(path: Path) -> Iterator[Path]:
        yield from ()
        raise FileNotFoundError(path)

    entry = tmp_path / "key"
    entry.mkdir()
    (entry / "entry.json").write_text('{"name": "x", "layout": {}, "sha256": ""}')
    assert len(cache_info(tmp_path)) == 1
    monkeypatch.setattr(type(tmp_path), "iterdir", vanishing)
    assert cache_info(tmp_path) == []


def test_what_is_slow_to_make_is_kept(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"x": np.arange(12).reshape(3, 4), "y": np.ones(5, np.uint8)}

    for _ in range(3):
        found = cache.keep("k" * 32, make, name="slow", folder=tmp_path)
        assert found["x"].tolist() == np.arange(12).reshape(3, 4).tolist()
        assert found["y"].dtype == np.uint8
    assert made == [1]
    data = tmp_path / ("k" * 32) / "columns.bin"
    raw = bytearray(data.read_bytes())
    raw[3] ^= 1
    data.write_bytes(raw)
    assert cache.keep("k" * 32, make, name="slow", folder=tmp_path)["x"][0].tolist() == [0, 1, 2, 3]
    assert made == [1, 1]
    file = tmp_path / "file"
    file.write_text("")
    assert "x" in cache.keep("k" * 32, make, name="slow", folder=file / "inside")
