"""Zip archives, unpacked once into the cache under the checksum of their content."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from gipi.core.errors import DataError
from gipi.data.cache import default_folder

MOST_BYTES = 50 << 30  # what an archive may become: more is a bomb
MOST_TIMES = 200  # larger than the archive itself


def unpacked(archive: Path) -> Path:
    """Return the folder that holds the content of a zip; unpack it where it is not there yet.

    Raises `DataError` for a damaged archive, one that would become far too large, and one whose
    names lead out of the folder.
    """
    with archive.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    folder = default_folder() / "unpacked" / f"{archive.stem}-{digest[:16]}"
    if folder.is_dir():
        return folder
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        with zipfile.ZipFile(archive) as packed:
            _check(packed, archive)
            packed.extractall(temporary)
        if not folder.is_dir():
            temporary.rename(folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(
            f"{archive} is damaged or no zip ({error})", "a whole zip", "get it again"
        ) from error
    except OSError as error:
        if not folder.is_dir():
            raise DataError(
                f"{archive} cannot be unpacked into {folder.parent}: {error.strerror or error}",
                "a cache folder with space in it",
                "set GIPI_CACHE to a folder that this user may write",
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _check(packed: zipfile.ZipFile, archive: Path) -> None:
    total = sum(one.file_size for one in packed.infolist())
    if total > MOST_BYTES or total > MOST_TIMES * max(archive.stat().st_size, 1 << 20):
        raise DataError(
            f"{archive} would become {total / 1e9:.1f} GB", "an archive of usual size",
            "unpack it yourself and name the folder",
        )  # fmt: skip
    for one in packed.infolist():
        name = PurePosixPath(one.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in one.filename:
            raise DataError(
                f"{archive} holds the name {one.filename!r}, which leads out of its folder",
                "names inside the folder", "do not use this archive",
            )  # fmt: skip
