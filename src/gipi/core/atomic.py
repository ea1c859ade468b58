"""Files and folders that are either whole or not there, and say when they are damaged.

A file is written beside its place, flushed to the disk and renamed over it. A folder gets a
`manifest.json` with the SHA-256 of every file, written last; the manifest guards itself with a
hash of its own content.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gipi.core.errors import CheckpointError, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFEST = "manifest.json"


def storage_error(error: OSError, path: Path) -> StorageError:
    """Return the error for people behind an OSError met while writing `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"the disk is full: {path} could not be written",
            "free space for the checkpoints (what was saved before is untouched)",
            "free space or choose another folder with --out, then `gipi resume`",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(
            f"no permission to write {path}",
            "a folder that this user may write",
            "choose another folder with --out",
        )
    return StorageError(
        f"writing {path} failed: {error.strerror or error}",
        "a working disk",
        "check the disk, then `gipi resume`",
    )


def fsync_dir(path: Path) -> None:
    """Flush a folder's entries to the disk (nothing to do where folders cannot be opened)."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content` in one step: temp file, fsync, rename, fsync of the folder."""
    data = content.encode() if isinstance(content, str) else content
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temp.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temp.replace(path)
        fsync_dir(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temp.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise storage_error(error, path) from error
        raise


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` and a manifest into a temporary folder and rename it to `path`.

    An existing `path` is replaced; where that fails it is put back. Should the process die between
    the two renames, `read_folder` still finds the old one. Raises `StorageError`; then nothing of
    the new folder remains.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(temp, ignore_errors=True)
        temp.mkdir(parents=True)
        hashes = {name: digest(data) for name, data in files.items()}
        body = json.dumps(hashes, sort_keys=True)
        manifest = json.dumps({"files": hashes, "sha256": digest(body.encode())}, sort_keys=True)
        for name, data in {**files, MANIFEST: manifest.encode()}.items():
            with (temp / name).open("wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        fsync_dir(temp)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        temp.rename(path)
        fsync_dir(path.parent)
    except BaseException as error:
        shutil.rmtree(temp, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        if isinstance(error, OSError):
            raise storage_error(error, path) from error
        raise
    for rest in _set_aside(path):
        shutil.rmtree(rest, ignore_errors=True)


def _set_aside(path: Path) -> list[Path]:
    """Return what a replacement of `path` has put aside, by this process or one that died."""
    if not path.parent.is_dir():
        return []
    return sorted(
        p
        for p in path.parent.iterdir()
        if p.name.startswith(f".{path.name}.") and p.name.endswith(".old")
    )


def read_folder(path: Path) -> dict[str, bytes]:
    """Return every file of a folder made by `write_folder`, each checked against its hash.

    Raises `CheckpointError` that names the damaged or missing file.
    """
    if not path.exists():
        path = next(iter(_set_aside(path)), path)
    do = "use an earlier one; this folder can be deleted"
    needed = "a folder as it was written, with its hashes intact"
    try:
        hashes = _hashes((path / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} has no {MANIFEST}", needed, do) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path / MANIFEST} is damaged", needed, do) from error
    content = {}
    for name, expected in hashes.items():
        try:
            content[name] = (path / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path / name} cannot be read", needed, do) from error
        if digest(content[name]) != expected:
            raise CheckpointError(f"{path / name} is damaged (its hash differs)", needed, do)
    return content


def _hashes(manifest: bytes) -> dict[str, str]:
    """Return file name -> SHA-256 of a manifest; any of several errors where it is damaged."""
    found = json.loads(manifest)
    hashes: dict[str, str] = found["files"]
    body = json.dumps(hashes, sort_keys=True)
    if set(found) != {"files", "sha256"} or digest(body.encode()) != found["sha256"]:
        raise ValueError(MANIFEST)
    if any(name != Path(name).name for name in hashes):  # a name that points out of the folder
        raise ValueError(MANIFEST)
    return dict(hashes.items())
