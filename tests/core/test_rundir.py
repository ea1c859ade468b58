"""Run folders: never written over, held by one process, rows that survive a crash."""

import errno
import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from gipi.core.errors import ConfigError, RequestError, StorageError
from gipi.core.rows import NONFINITE, Rows, encode_row, read_rows, truncate_rows
from gipi.core.rundir import (
    check_begun,
    create_run,
    is_run,
    lock,
    read_config,
    resolve_run,
    write_config,
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finished(name=None, out=None):
    run = create_run(out, name or "digits")
    write_config(run, {"epochs": 1}, origins={}, about={})
    return run


# ---------------------------------------------------------------------------- folders


def test_a_run_gets_a_dated_folder_and_last_names_it(home):
    first, second = finished("digits"), finished("digits")
    assert first != second
    assert first.parent.name == "runs"
    assert first.name.endswith("-digits")
    assert resolve_run("runs/last").resolve() == second.resolve()
    assert (home / "runs" / "last").read_text() == second.name + "\n"


def test_a_name_with_separators_and_markup_stays_in_runs(home):
    run = create_run(None, "../../a b/<깊이>")
    assert run.resolve().parent == (home / "runs").resolve()


def test_an_empty_name_is_no_obstacle():
    assert create_run(None, "").name.endswith("-run")


def test_out_is_taken_when_new_or_empty(home):
    (home / "empty").mkdir()
    for name in ("new/deep", "empty"):
        run = finished(out=home / name)
        assert run == home / name
        assert resolve_run("last").resolve() == run.resolve()


def test_a_run_is_never_written_over(home):
    run = finished(out=home / "mine")
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="already holds a run") as caught:
        create_run(run, "digits")
    assert "gipi resume" in caught.value.do
    assert (run / "config.yaml").read_bytes() == before


def test_a_folder_with_something_else_or_a_file_is_refused(home):
    (home / "mine").mkdir()
    (home / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="is not empty"):
        create_run(home / "mine", "digits")
    with pytest.raises(ConfigError, match="is a file"):
        create_run(home / "mine" / "thesis.txt", "digits")


def test_a_folder_that_cannot_be_made_is_a_storage_error(home):
    (home / "runs").write_text("a file")
    with pytest.raises(StorageError, match="runs"):
        create_run(None, "digits")


def test_last_outside_runs_is_absolute_and_survives_a_change_of_folder(home, monkeypatch):
    run = finished(out=home / "elsewhere")
    (home / "sub").mkdir()
    monkeypatch.chdir(home / "sub")
    assert resolve_run(home / "runs" / "last").resolve() == run.resolve()


def test_a_run_is_found_by_every_name(home):
    run = finished()
    for where in (run, str(run), run.name, run / "config.yaml", "last", "runs/last"):
        assert resolve_run(where).resolve() == run.resolve()


def test_a_misspelt_run_gets_the_nearest(home):
    run = finished("flowers")
    with pytest.raises(RequestError, match="there is no run") as caught:
        resolve_run(f"runs/{run.name[:-1]}")
    assert run.name in caught.value.do


@pytest.mark.parametrize("content", [b"", b"gone\n", b"\xff\xfe\x00", b"a\0b"])
def test_a_pointer_to_nothing_says_so(home, content):
    (home / "runs").mkdir()
    (home / "runs" / "last").write_bytes(content)
    with pytest.raises(RequestError, match="last names"):
        resolve_run("runs/last")


def test_a_folder_of_runs_is_no_run(home):
    run = finished()
    with pytest.raises(RequestError, match="not a run folder") as caught:
        resolve_run("runs")
    assert run.name in caught.value.do
    assert not is_run(home / "runs")


def test_nothing_at_all(home):
    with pytest.raises(RequestError, match="there is no run 'runs/last'"):
        resolve_run("runs/last")


# ---------------------------------------------------------------------------- the lock

HOLD = """
import sys, time
from pathlib import Path
from gipi.core.rundir import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_who_holds_the_run(home):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(StorageError, match=str(process.pid)), lock(home):
                pass
        finally:
            process.kill()
    with lock(home):  # kill -9 has released it
        assert (home / "run.lock").read_text() == f"{os.getpid()}\n"
    with lock(home):
        pass


def test_the_lock_is_released_by_an_error(home):
    with pytest.raises(KeyError), lock(home):
        raise KeyError
    with lock(home), pytest.raises(StorageError, match="in use"), lock(home):
        pass


def test_a_missing_folder_cannot_be_locked(home):
    with pytest.raises(StorageError), lock(home / "gone"):
        pass


# ---------------------------------------------------------------------------- rows

ROW = {"step": 3, "train/loss": 0.25, "layers": {"fc": {"grad_norm": 1.5}}, "event": "깊이 \n x"}


def test_rows_come_back(home):
    path = home / "rows.jsonl"
    with Rows(path) as rows:
        rows.write(ROW)
        rows.write({"step": 4})
        rows.sync()
    with Rows(path) as rows:
        rows.write({"step": 5})
    assert read_rows(path) == [ROW, {"step": 4}, {"step": 5}]
    assert len(path.read_bytes().splitlines()) == 3


def test_numbers_of_numpy_and_torch_are_numbers(home):
    with Rows(home / "r") as rows:
        rows.write({"step": np.int64(3), "a": np.float32(0.5), "b": torch.tensor(2.0)})
        rows.write({"step": 4, "a": np.float32(math.nan), "b": torch.tensor(math.inf)})
    first, second = read_rows(home / "r")
    assert first == {"step": 3, "a": 0.5, "b": 2.0}
    assert math.isnan(second["a"])
    assert second["b"] == math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_number_is_null_and_named_never_smoothed(value):
    line = encode_row({"step": 1, "train/loss": value, "layers": {"fc": {"g": value}}})
    raw = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert raw["train/loss"] is None
    assert raw[NONFINITE] == {"train/loss": str(value)}
    assert raw["layers"]["fc"][NONFINITE] == {"g": str(value)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_number_is_read_again(home, value):
    with Rows(home / "r") as rows:
        rows.write({"step": 1, "train/loss": value, "layers": {"fc": {"g": value, "u": 1.0}}})
    (row,) = read_rows(home / "r")
    assert repr(row["train/loss"]) == repr(row["layers"]["fc"]["g"]) == repr(value)
    assert set(row) == {"step", "train/loss", "layers"}


def test_what_is_no_number_is_refused(home):
    with Rows(home / "r") as rows, pytest.raises(TypeError, match="cannot hold a set"):
        rows.write({"step": 1, "x": {1, 2}})
    assert read_rows(home / "r") == []


def test_no_file_means_no_rows(home):
    assert read_rows(home / "rows.jsonl") == []
    assert truncate_rows(home / "rows.jsonl", 3) == 0
    assert not (home / "rows.jsonl").exists()


def test_a_torn_last_line_is_passed_over_and_dropped_at_the_next_start(home):
    path = home / "rows.jsonl"
    whole = b'{"step":1}\n{"step":2}\n'
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        complete = whole[:size].count(b"\n")
        assert [r["step"] for r in read_rows(path)] == [1, 2][:complete]
        with Rows(path) as rows:
            rows.write({"step": 9})
        assert [r["step"] for r in read_rows(path)] == [*[1, 2][:complete], 9]


def test_a_torn_line_longer_than_a_block_is_dropped(home):
    path = home / "rows.jsonl"
    path.write_bytes(b'{"step":1}\n' + b"x" * 200_000)
    Rows(path).close()
    assert path.read_bytes() == b'{"step":1}\n'


@pytest.mark.parametrize("bad", [b"{broken", b"[1]", b"\xff\xfe", b"a\rb", b"[" * 100_000])
def test_a_damaged_line_is_neither_fatal_nor_hidden(home, bad):
    path = home / "rows.jsonl"
    path.write_bytes(b'{"step":1}\n' + bad + b'\n{"step":2}\n')
    rows = read_rows(path)
    assert [r.get("event") for r in rows] == [None, "damaged row", None]
    assert "line 2" in rows[1]["reason"]


def test_rows_after_a_step_are_dropped_and_others_untouched(home):
    path = home / "rows.jsonl"
    with Rows(path) as rows:
        for step in range(1, 6):
            rows.write({"step": step, "x": 0.1 * step})
        rows.write({"step": 5, "event": "saved"})
        rows.write({"event": "without a step"})
    before = path.read_bytes().splitlines(keepends=True)
    assert truncate_rows(path, 3) == 3
    assert path.read_bytes() == b"".join([*before[:3], before[6]])
    assert truncate_rows(path, 3) == 0


def test_a_full_disk_takes_the_half_line_back(home, monkeypatch):
    path = home / "rows.jsonl"
    rows = Rows(path)
    rows.write({"step": 1})
    real, calls = os.write, []

    def nearly_full(fd, data):
        calls.append(data)
        if len(calls) == 1:
            return real(fd, data[:5])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(StorageError, match="disk is full"):
        rows.write({"step": 2})
    monkeypatch.setattr(os, "write", real)
    rows.write({"step": 3})
    assert [r["step"] for r in read_rows(path)] == [1, 3]
    rows.close()


def test_a_short_write_is_finished(home, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    with Rows(home / "r") as rows:
        rows.write(ROW)
    assert read_rows(home / "r") == [ROW]


def test_a_row_is_one_write_and_no_flush_to_the_disk(home, monkeypatch):
    calls = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (calls.append("write"), real(fd, data))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync"))
    with Rows(home / "r") as rows:
        rows.write(ROW)
        rows.write(ROW)
        assert calls == ["write", "write"]
        rows.sync()
    assert calls == ["write", "write", "fsync"]


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_rows_written_before_kill_9_are_there(home):
    code = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom gipi.core.rows import Rows\n"
        "rows = Rows(Path(sys.argv[1]))\n"
        "for i in range(100): rows.write({'step': i})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(home / "r")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [r["step"] for r in read_rows(home / "r")] == list(range(100))


# ---------------------------------------------------------------------------- config.yaml


def test_the_configuration_comes_back(home):
    config = {"lr": 1e-5, "epochs": 3.0, "freeze": ("a*",), "on": "on", "data": home, "x": None}
    write_config(home, config, origins={"lr": "--lr"}, about={"rows": {"train": np.int64(3)}})
    got, origins, about = read_config(home)
    expected = {**config, "freeze": ["a*"], "data": str(home)}
    assert got == expected
    assert list(got) == list(config)
    assert (origins, about) == ({"lr": "--lr"}, {"rows": {"train": 3}})


@pytest.mark.parametrize(
    "content", [b"", b"a: [", b"- 1", b"config: {}\n", b"\xff\xfe\xfa", b"x", b"config: 1",
     b"[" * 100_000, b"- " * 100_000,
                b"!!python/object/apply:os.system ['true']", b"config: 3\norigins: {}\nabout: {}"],
)  # fmt: skip
def test_a_damaged_configuration_is_an_error_with_a_name(home, content):
    (home / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.yaml is damaged"):
        read_config(home)


def test_a_missing_configuration_is_an_error_with_a_name(home):
    with pytest.raises(ConfigError, match="is missing"):
        read_config(home)


def test_a_refused_run_names_the_newest_that_finished(home):
    older, newest, stopped, refused = (finished(name) for name in ("a", "b", "c", "d-refused"))
    (refused / "refusal.json").write_text(json.dumps({"found": "too high"}))
    with pytest.raises(RequestError) as alone:
        check_begun(refused)
    assert alone.value.do.endswith("or name an earlier run")
    for at, run in enumerate((newest, older)):
        (run / "result.json").write_text("{}")
        os.utime(run / "result.json", (1e9 - at, 1e9 - at))
    with pytest.raises(RequestError, match="too high") as error:
        check_begun(refused)
    assert error.value.do.endswith(str(newest))
    check_begun(stopped)
