"""Where the rows of a stream live: on the device, in host memory or a map, or still as files.

    resident    everything on the device, pictures already normalised: a chunk is one index_select
    mapped      pixels in host memory or a memory-mapped cache; a thread gathers one chunk ahead
    streaming   files decoded by worker processes (spawn), a bounded number of pieces ahead

All three give the same bits: they share the decoder, and `pictures.normalise` rounds step by step.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import torch

from gipi.core.errors import ConfigError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gipi.data.masks import Masks
    from gipi.data.pictures import Pictures

Mode = Literal["auto", "resident", "mapped", "streaming"]
MODES: tuple[str, ...] = ("auto", "resident", "mapped", "streaming")
HOST_SHARE, DEVICE_SHARE = 0.3, 0.4  # of the free memory that resident rows may take
PIECE = 32  # rows that a worker decodes per task

T = TypeVar("T")
R = TypeVar("R")


def free_memory(device: torch.device) -> int:
    """Return bytes free on the device (host: what the system and its control group leave)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [8 << 30]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found = [int(line.split()[1]) * 1024]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        found.append(max(0, int(text) - int(used.read_text())))
    return min(found)


def choose_mode(
    *, asked: str, float_bytes: int, files: bool, device: torch.device
) -> tuple[Mode, str]:
    """Return the mode of a stream and why: as asked, else resident where it fits.

    float_bytes   size of all rows as float32
    files         True where the pictures are still files (nothing was cached)
    """
    if asked not in MODES:
        raise ConfigError(
            f"mode '{asked}'", "auto, resident, mapped or streaming", "choose one of them"
        )
    if asked != "auto":
        return asked, "as asked"  # type: ignore[return-value]
    share = DEVICE_SHARE if device.type == "cuda" else HOST_SHARE
    budget = int(free_memory(device) * share)
    if float_bytes <= budget:
        return "resident", f"{float_bytes / 1e6:.0f} MB fit in {budget / 1e6:.0f} MB"
    if files:
        return "streaming", f"{float_bytes / 1e6:.0f} MB do not fit and nothing is cached"
    return "mapped", f"{float_bytes / 1e6:.0f} MB do not fit in {budget / 1e6:.0f} MB"


def ahead(items: Iterable[T], submit: Callable[[T], R], depth: int) -> Iterator[tuple[T, R]]:
    """Yield (item, submitted) in order, keeping `depth` submissions beyond the current one."""
    pending: deque[tuple[T, R]] = deque()
    for item in items:
        pending.append((item, submit(item)))
        if len(pending) > depth:
            yield pending.popleft()
    while pending:
        yield pending.popleft()


class Reader:
    """Fetches raw pixels (or masks) by row for the modes that are not resident.

    workers = 0: in this process (mapped: by one thread ahead). workers > 0: decoded by that many
    spawned processes. `submit(rows)` starts, `result` waits; order is the caller's.
    """

    def __init__(self, pictures: Pictures | Masks, *, workers: int, threaded: bool) -> None:
        self.pictures = pictures
        self.depth = 0
        self._pool: ProcessPoolExecutor | ThreadPoolExecutor | None = None
        self._processes = workers > 0
        if self._processes:
            self.depth = 2
            self._pool = ProcessPoolExecutor(
                workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_receive,
                initargs=(pictures,),
            )
        elif threaded:
            self.depth = 1
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="gipi-data")

    def submit(self, rows: np.ndarray) -> list[Future[np.ndarray]] | np.ndarray:
        """Begin to fetch these rows; without a pool this waits for them."""
        if self._pool is None:
            return rows
        if not self._processes:
            return [self._pool.submit(self.pictures.fetch, rows)]
        pieces = [rows[a : a + PIECE] for a in range(0, len(rows), PIECE)]
        try:
            return [self._pool.submit(_fetch, piece) for piece in pieces]
        except BrokenProcessPool as error:
            raise _worker_died() from error

    def result(self, handle: list[Future[np.ndarray]] | np.ndarray) -> np.ndarray:
        """Return the pixels (n, C, H, W) of a `submit`."""
        if isinstance(handle, np.ndarray):
            return self.pictures.fetch(handle)
        try:
            pieces = [future.result() for future in handle]
        except BrokenProcessPool as error:
            raise _worker_died() from error
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def close(self) -> None:
        """End the workers; a later `submit` is an error."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _worker_died() -> RunError:
    return RunError(
        "a data worker process died",
        "workers that can start and have memory for their pictures",
        "use fewer workers (workers=0 decodes in this process); in a script of your own, start "
        "training below `if __name__ == '__main__':`",
    )


_held: Pictures | Masks | None = None  # what this worker process decodes from


def _receive(pictures: Pictures | Masks) -> None:
    global _held  # noqa: PLW0603  one per worker process
    _held = pictures


def _fetch(rows: np.ndarray) -> np.ndarray:
    if _held is None:
        raise RuntimeError
    return _held.fetch(rows)
