"""What can be known about a request before torch is imported: files, folders, the machine."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from gipi.core.errors import ConfigError, DataError, RequestError, nearest
from gipi.core.rundir import is_run, resolve_run

MODEL_FILE = "model.json"
TABLES = (".csv", ".json", ".jsonl", ".parquet")


def data_exists(data: str | None, *, or_text: bool = False) -> None:
    """Raise `DataError` when `data` can only be a path and there is nothing there.

    A bare word may be a named data set, which `gipi.data` knows.

    or_text  what has spaces, or no ending that a file of data has, is a text
    """
    if data is None or not _is_path(data) or (or_text and not _is_lost_file(data)):
        return
    try:
        path = Path(data).expanduser()
        if path.exists():
            return
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"the path {data[:80]!r} cannot be read: {error}", "a path to data", "correct it"
        ) from error
    folder = path.parent
    names = sorted(p.name for p in folder.iterdir())[:500] if folder.is_dir() else []
    close = nearest(path.name, names)
    hint = f"did you mean '{folder / close}'?" if close else "correct the path"
    if not folder.is_dir():
        hint = f"the folder {folder} is not there either"
    raise DataError(f"there is no file or folder {data}", "a path that exists", hint)


def file_exists(path: str | None, what: str) -> None:
    """Raise `RequestError` when `path` is given and is no file."""
    if path is not None and not Path(path).is_file():
        raise RequestError(f"{what} {path} is not there", "a file", "correct its path")


def run_exists(run: str) -> Path:
    """Return the folder of `run`; raise `RequestError` with the nearest name."""
    return resolve_run(run)


def model_or_run_exists(where: str) -> Path:
    """Return a run folder or a bare model folder; raise `RequestError` when it is neither."""
    path = Path(where)
    if path.is_dir() and not is_run(path) and (path / MODEL_FILE).is_file():
        return path
    return resolve_run(where)


def out_is_free(out: str | None) -> None:
    """Raise `ConfigError` when the run folder `out` cannot be a new one."""
    if out is None:
        return
    path = Path(out)
    try:
        taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
        beside = next((p for p in path.parents if p.exists()), None)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"out: the folder {out[:80]!r} cannot be used: {error}",
            "a new folder",
            "choose another",
        ) from error
    if taken and is_run(path):
        raise ConfigError(
            f"out: {out} already holds a run",
            "a new or empty folder: a run never writes over anything",
            f"choose another --out, or go on with `gipi resume {out}`",
        )
    if taken:
        what = "is not empty" if path.is_dir() else "is a file"
        raise ConfigError(f"out: {out} {what}", "a new or empty folder", "choose another --out")
    if beside is not None and not beside.is_dir():
        raise ConfigError(
            f"out: {out} lies under {beside}, which is a file",
            "a folder for the run",
            "choose another --out",
        )
    if beside is not None and not os.access(beside, os.W_OK):
        raise ConfigError(
            f"out: no permission to write in {beside}",
            "a folder that this user may write",
            "choose another --out",
        )
    _can_be_made(path)


def _can_be_made(path: Path) -> None:
    """Make the folder and take it away again: some file systems refuse whatever they promise.

    Among ranks only the first tries, as only the first writes: one would take away what the other
    has just made.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    missing = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        for made in missing:
            made.rmdir()
    except OSError as error:
        raise ConfigError(
            f"out: no folder {path} can be made ({error.strerror or error})",
            "a place where this user may make folders",
            "choose another --out",
        ) from error


def table_name(out: str | None) -> None:
    """Raise `ConfigError` when predictions cannot be written to a file of this name."""
    if out is None:
        return
    path = Path(out)
    if not path.suffix:
        _is_folder(path)
        return
    if path.suffix.lower() not in TABLES:
        raise ConfigError(
            f"--out {out}: the ending '{path.suffix}' is not known",
            "one of " + ", ".join(TABLES) + ", or a folder",
            f"for instance --out {path.stem}.csv",
        )
    if not path.parent.is_dir():
        raise ConfigError(
            f"--out {out}: the folder {path.parent} is not there", "a folder", "make it first"
        )


def _is_folder(path: Path) -> None:
    """Raise `ConfigError` where a folder of answers cannot be made."""
    if path.is_file():
        raise ConfigError(
            f"--out {path} is a file without an ending", "a folder, or a file that ends in "
            + ", ".join(TABLES), f"for instance --out {path}.csv",
        )  # fmt: skip
    if not path.parent.is_dir():
        raise ConfigError(
            f"--out {path}: the folder {path.parent} is not there", "a folder", "make it first"
        )


def views(tta: str | None) -> tuple[str, ...]:
    """Return the steps of --tta: names with commas between them.

    >>> views("flip, zoom"), views(None)
    (('flip', 'zoom'), ())
    """
    return tuple(part.strip() for part in (tta or "").split(",") if part.strip())


def prepare_environment() -> None:
    """Set what must be set before torch starts its threads.

    Where other processes already keep the cores busy, waiting threads must not spin: a spinning
    thread takes the core from the one it waits for. A setting that is already there stays.
    """
    if busy_share() > 0.5:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def busy_share() -> float:
    """Return the load that was there before this process, as a share of the cores (Linux)."""
    try:
        text = Path("/proc/loadavg").read_text(encoding="ascii")
    except OSError:
        return 0.0
    match = re.match(r"\S+ \S+ \S+ (\d+)/", text)
    running = max(int(match[1]) - 1, 0) if match else 0  # this process is one of them
    return running / (os.cpu_count() or 1)


def reads_text(folder: Path) -> bool:
    """Return whether the model of a run, or of a model folder, reads texts."""
    places = (folder / MODEL_FILE, folder / "model" / MODEL_FILE)
    try:
        found = json.loads(next(p for p in places if p.exists()).read_bytes())
        fields = found["schema"]["fields"]
        return any(f["kind"] == "text" and f["role"] == "input" for f in fields)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return False  # whoever loads the model says what is wrong


def _is_lost_file(data: str) -> bool:
    """Return whether a string looks like a file of data: one word with such an ending."""
    endings = (*TABLES, ".txt", ".tsv", "/", os.sep)
    return not any(c.isspace() for c in data.strip()) and data.lower().endswith(endings)


def _is_path(data: str) -> bool:
    """Return whether `data` is meant as a path: a separator, an ending, or something there."""
    return any(s and s in data for s in (os.sep, os.altsep, "\0")) or bool(Path(data).suffix)
