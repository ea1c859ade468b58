"""A file or folder is whole, or the old one, or an error that names the damage. Never between."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gipi.core import atomic
from gipi.core.atomic import MANIFEST, digest, read_folder, write_file, write_folder
from gipi.core.errors import CheckpointError, StorageError

FILES = {"weights.bin": bytes(range(256)) * 8, "facts.json": b'{"step": 3}', "empty": b""}
SMALL = {"weights.bin": b"old", "facts.json": b"{}"}


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "step-1", FILES)
    return tmp_path / "step-1"


# ---------------------------------------------------------------------------- files


@pytest.mark.parametrize("content", [b"", b"\0\xff" * 1000, "깊이\n"])
def test_a_file_is_replaced(tmp_path, content):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    write_file(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "number, words", [(errno.ENOSPC, "disk is full"), (errno.EROFS, "no permission"),
                      (errno.EIO, "failed")],
)  # fmt: skip
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch, number, words, call):
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(StorageError, match=words) as caught:
        write_file(path, b"new")
    assert str(path) in caught.value.found
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_an_interrupt_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def interrupt(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(path, b"new")
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "g", FILES)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


LIMITED = """
import resource, sys
from pathlib import Path
from gipi.core.atomic import write_file, write_folder
from gipi.core.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
path = Path(sys.argv[1])
try:
    if sys.argv[2] == "file":
        write_file(path, b"x" * 80_000)
    else:
        write_folder(path, {"small": b"y", "large": b"x" * 80_000})
except StorageError as error:
    print(error.found)
    sys.exit(7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes on Windows")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_size_limit_of_the_system_leaves_the_old_one(tmp_path, kind):
    path = tmp_path / "out"
    if kind == "file":
        path.write_bytes(b"old")
    else:
        write_folder(path, SMALL)
    command = [sys.executable, "-c", LIMITED, str(path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, str(path) in done.stdout) == (7, True), done.stderr
    assert path.read_bytes() == b"old" if kind == "file" else read_folder(path) == SMALL
    assert leftovers(tmp_path) == []


# ---------------------------------------------------------------------------- folders


def test_a_folder_comes_back(folder):
    assert read_folder(folder) == FILES


def test_a_folder_is_replaced_as_a_whole(folder):
    write_folder(folder, SMALL)
    assert read_folder(folder) == SMALL
    assert leftovers(folder.parent) == []


def test_truncations_are_found(folder):
    path = folder / "weights.bin"
    whole = path.read_bytes()
    for size in range(0, len(whole), len(whole) // 100):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"weights\.bin is damaged"):
            read_folder(folder)
    path.write_bytes(whole)
    manifest = (folder / MANIFEST).read_bytes()
    for size in range(len(manifest)):
        (folder / MANIFEST).write_bytes(manifest[:size])
        with pytest.raises(CheckpointError, match=MANIFEST):
            read_folder(folder)


def test_single_bit_flips_are_found_and_named(folder):
    draw = np.random.default_rng(0)
    paths = [folder / "weights.bin", folder / "facts.json", folder / MANIFEST]
    sizes = np.array([p.stat().st_size for p in paths])
    for _ in range(1000):
        path = paths[draw.choice(3, p=sizes / sizes.sum())]
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[draw.integers(len(whole))] ^= 1 << draw.integers(8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError) as caught:
            read_folder(folder)
        assert path.name in caught.value.found
        path.write_bytes(whole)
    assert read_folder(folder) == FILES


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        read_folder(folder)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="has no manifest"):
        read_folder(tmp_path / "nothing")


@pytest.mark.parametrize(
    "files", [{"../secret": digest(b"s")}, {"/etc/hostname": "0"}, ["weights.bin"], "text", None],
)  # fmt: skip
def test_a_forged_manifest_cannot_point_elsewhere(folder, files):
    (folder.parent / "secret").write_bytes(b"s")
    body = json.dumps(files, sort_keys=True)
    forged = {"files": files, "sha256": digest(body.encode())}
    (folder / MANIFEST).write_text(json.dumps(forged))
    with pytest.raises(CheckpointError, match="is damaged"):
        read_folder(folder)


def test_deeply_nested_json_is_only_damage(folder):
    (folder / MANIFEST).write_bytes(b"[" * 200_000)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_folder(folder)


@pytest.mark.parametrize("which", range(5))
def test_a_full_disk_at_any_file_leaves_the_old_folder(folder, monkeypatch, which):
    real, calls = os.fsync, []

    def fail(fd):
        calls.append(fd)
        if len(calls) > which:
            raise OSError(errno.ENOSPC, "no space")
        real(fd)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="disk is full"):
        write_folder(folder, SMALL)
    monkeypatch.undo()
    assert read_folder(folder) == (FILES if which < 4 else SMALL)
    assert [n for n in leftovers(folder.parent) if n.endswith(".tmp")] == []


@pytest.mark.parametrize("place", [1, 2])
def test_a_rename_that_fails_puts_the_old_folder_back(folder, monkeypatch, place):
    real, calls = Path.rename, []

    def fail(self, target):
        calls.append(target)
        if len(calls) == place:
            raise OSError(errno.EIO, "input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StorageError):
        write_folder(folder, SMALL)
    assert read_folder(folder) == FILES
    assert leftovers(folder.parent) == []


def test_death_between_the_two_renames_loses_nothing(folder):
    folder.rename(folder.with_name(".step-1.4711.old"))
    assert read_folder(folder) == FILES
    write_folder(folder, SMALL)
    assert read_folder(folder) == SMALL
    assert leftovers(folder.parent) == []


def test_rubbish_of_a_dead_process_with_our_number_is_no_obstacle(folder):
    for end in ("tmp", "old"):
        rest = folder.with_name(f".step-1.{os.getpid()}.{end}")
        rest.mkdir()
        (rest / "x").write_text("rubbish")
    write_folder(folder, SMALL)
    assert read_folder(folder) == SMALL
    assert leftovers(folder.parent) == []


WRITER = """
import sys
from pathlib import Path
from gipi.core.atomic import write_folder
path, n = Path(sys.argv[1]), 0
print("ready", flush=True)
while True:
    n += 1
    write_folder(path, {"a": b"%d" % n * 2000, "b": b"%d" % n * 3000})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_kill_9_at_any_moment_leaves_a_whole_folder(tmp_path):
    path = tmp_path / "step"
    write_folder(path, {"a": b"0" * 2000, "b": b"0" * 3000})
    for delay in np.random.default_rng(1).uniform(0.0, 0.04, 8):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        files = read_folder(path)
        number = files["a"][: len(files["a"]) // 2000]
        assert files == {"a": number * 2000, "b": number * 3000}


def test_no_permission_is_said(tmp_path):
    error = atomic.storage_error(PermissionError(errno.EACCES, "denied"), tmp_path)
    assert "no permission" in error.found
    assert "--out" in error.do
