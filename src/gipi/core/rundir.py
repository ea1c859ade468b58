"""The run folder: where everything of a run lies, who may write it, and its configuration.

    config.yaml   setup.json   rows.jsonl   split.json   findings.json   report.html   run.lock
    checkpoints/step-N/   model/   evaluation/

A run that was refused before its first step leaves config.yaml, split.json, findings.json and
refusal.json. `runs/last` is a small text file that names the newest run. A run folder from someone
else is data, never code: everything in it is YAML, JSON, safetensors or plain arrays.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipi.core.atomic import storage_error, write_file
from gipi.core.errors import ConfigError, RequestError, StorageError, did_you_mean
from gipi.core.rows import plain
from gipi.core.yamlfile import dump_yaml, parse_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

CONFIG = "config.yaml"
SETUP = "setup.json"
ROWS = "rows.jsonl"
SPLIT = "split.json"
FINDINGS = "findings.json"
REFUSAL = "refusal.json"
REPORT = "report.html"
LOCK = "run.lock"
CHECKPOINTS = "checkpoints"
MODEL = "model"
HUB = "pretrained"  # a model in the form of Hugging Face, to start other runs from
EVALUATION = "evaluation"
RUNS = "runs"
LAST = "last"

_MARKS = (CONFIG, ROWS, SETUP, MODEL, CHECKPOINTS)


# ---------------------------------------------------------------------------- folders


def create_run(out: Path | None, name: str) -> Path:
    """Make the folder of a new run and let `runs/last` name it.

    `out` None means runs/<date>-<time>-<name>. A folder that already holds something is never
    used: `ConfigError`. `StorageError` where the folder cannot be made.
    """
    try:
        run = _dated(name) if out is None else _wanted(Path(out))
    except OSError as error:
        raise storage_error(error, Path(RUNS) if out is None else Path(out)) from error
    _point(run, must=out is None)
    return run


def _dated(name: str) -> Path:
    """Make runs/<date>-<time>-<name>, with a number behind it when that is taken."""
    slug = re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:60] or "run"
    stem = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{slug}"
    number = 1
    while True:
        run = Path(RUNS) / (stem if number == 1 else f"{stem}-{number}")
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            if not Path(RUNS).is_dir():
                raise
            number += 1
        else:
            return run


def _wanted(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out: {out} is a file", "a folder for the run", "choose another --out")
    if out.is_dir() and any(p.name != LOCK for p in out.iterdir()):
        what = "already holds a run" if is_run(out) else "is not empty"
        raise ConfigError(
            f"out: the folder {out} {what}",
            "a new or an empty folder: a run never writes over anything",
            f"choose another --out, or go on with `gipi resume {out}`"
            if is_run(out)
            else "choose another --out",
        )
    out.mkdir(parents=True, exist_ok=True)
    return out


def _point(run: Path, *, must: bool) -> None:
    """Let runs/last name `run`: relative to runs/ where it lies in it, else absolute."""
    runs = Path(RUNS)
    inside = run.resolve().is_relative_to(runs.resolve())
    text = os.path.relpath(run, runs) if inside else str(run.resolve())
    try:
        runs.mkdir(exist_ok=True)
        write_file(runs / LAST, text + "\n")
    except (OSError, StorageError):  # a pointer that fails spoils no run that lies elsewhere
        if must:
            raise


def is_run(path: Path) -> bool:
    """Return whether `path` is a folder that a run has written to."""
    return path.is_dir() and any((path / mark).exists() for mark in _MARKS)


def resolve_run(where: str | Path) -> Path:
    """Return the run folder behind "last", "runs/last", a folder, or a name in runs/.

    Raises `RequestError` with the nearest name when there is none.
    """
    path = Path(RUNS) / LAST if str(where) == LAST and not Path(where).exists() else Path(where)
    if not path.exists() and (Path(RUNS) / path).exists():
        path = Path(RUNS) / path
    if path.is_file() and path.name == LAST:
        path = _follow(path)
    if path.is_file() and path.name in (*_MARKS, REPORT):
        path = path.parent
    if is_run(path):
        return path
    if path.is_dir():
        inner = sorted(p.name for p in path.iterdir() if is_run(p))
        raise RequestError(
            f"{path} is not a run folder",
            f"a folder with {CONFIG} and {ROWS} in it",
            f"name one of its runs: {', '.join(inner[-3:])}" if inner else "run `gipi train`",
        )
    parent = path.parent if path.parent.is_dir() else Path(RUNS)
    known = sorted(p.name for p in parent.iterdir() if is_run(p)) if parent.is_dir() else []
    raise RequestError(
        f"there is no run '{where}'",
        "a run folder, its name in runs/, or runs/last",
        did_you_mean(path.name, known[-5:]) if known else "train one with `gipi train`",
    )


def _follow(pointer: Path) -> Path:
    """Return the run that a `runs/last` file names."""
    try:
        text = pointer.read_text(encoding="utf-8").strip()
        run = pointer.parent / text
        if text and "\0" not in text and run.is_dir():
            return run
    except (OSError, UnicodeDecodeError):
        text = "something unreadable"
    raise RequestError(
        f"{pointer} names {text or 'nothing'}, which is not there",
        "a run folder that still exists",
        "name the run folder itself",
    )


def refusal_of(run: Path) -> dict[str, Any]:
    """Return why a run was refused before its first step; empty for one that began."""
    path = run / REFUSAL
    try:
        said = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError):
        said = {}
    return said if isinstance(said, dict) else {}


def check_begun(run: Path) -> None:
    """Raise `RequestError` for a run that was refused before its first step."""
    said = refusal_of(run)
    if said:
        raise RequestError(
            f"the run {run} was refused before its first step: {said.get('found')}",
            "a run that was trained",
            f"see `gipi doctor {run}`, train again without what dooms it, or name an earlier run",
        )


# ---------------------------------------------------------------------------- the lock


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold the run folder: a second process gets a `StorageError` that names the first one's pid.

    The lock belongs to the open file, so the operating system drops it when the process ends,
    however it ends.
    """
    path = run / LOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        try:
            _take(fd)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise storage_error(error, path) from error
            os.lseek(fd, 0, os.SEEK_SET)
            pid = os.read(fd, 32).decode(errors="replace").strip()
            raise StorageError(
                f"the run folder {run} is in use by process {pid or 'unknown'}",
                "one process per run folder",
                "wait for it or stop it, or choose another folder with --out",
            ) from error
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise storage_error(error, path) from error
        yield
    finally:
        os.close(fd)


def _take(fd: int) -> None:
    if sys.platform == "win32":
        os.lseek(fd, 1 << 20, os.SEEK_SET)  # beyond the text, which stays readable
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---------------------------------------------------------------------------- config.yaml


def write_config(
    run: Path, config: Mapping[str, Any], *, origins: Mapping[str, str], about: Mapping[str, Any]
) -> None:
    """Write config.yaml: every option with its value, where it came from, and on what it ran.

    origins  option -> "default", "recipe", a file, or "flag"; options left out are defaults
    about    versions, device, data fingerprint and the like, for people and for resume
    """
    sections = {"config": config, "origins": origins, "about": about}
    write_file(run / CONFIG, dump_yaml(json.loads(json.dumps(sections, default=plain))))


def read_config(run: Path) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """Return (config, origins, about) as `write_config` wrote them.

    Raises `ConfigError` where the file is missing or is not such a file.
    """
    path = run / CONFIG
    try:
        data = parse_document(path.read_text(encoding="utf-8"), str(path)).values
        sections = [data[key] for key in ("config", "origins", "about")]
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing", "the run's configuration", "name a run") from error
    except OSError as error:
        raise storage_error(error, path) from error
    except (ConfigError, UnicodeDecodeError, KeyError) as error:
        sections = [None]
        cause: Exception | None = error
    else:
        cause = None
    if not all(isinstance(s, dict) for s in sections):
        raise ConfigError(
            f"{path} is damaged",
            "a YAML file with the sections config, origins and about",
            "restore it from a copy, or train again",
        ) from cause
    return sections[0], sections[1], sections[2]
