"""Pictures and masks brought to one size, once: in memory, in the cache, or read again each epoch.

Whatever the place, every file is decoded while the data is opened, so that a picture that cannot be
decoded is found and named before training. What was found is kept in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError, StorageError
from gipi.data import cache
from gipi.data.decode import VERSION, Decoder, decode, decode_array
from gipi.data.masks import VERSION as LABELS
from gipi.data.source import ImageFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gipi.data.masks import MaskFiles
    from gipi.data.options import DataOptions
    from gipi.data.source import Source

_SMALL = Decoder(3, 32, 32)
_BLOCK = 1024  # pictures in memory that are looked through at once
_WITHOUT_CACHE = 64 << 20  # decoded bytes that are held in memory instead of in the cache


@dataclass(frozen=True)
class Decoded:
    """Pixels (N, C, H, W) and masks (N, H, W), or their files; what was done; what cannot be used.

    faults   row -> why its picture cannot be decoded; its pixels are 0
    """

    pixels: np.ndarray | ImageFiles
    masks: np.ndarray | MaskFiles | None = None
    note: str = ""
    faults: dict[int, str] = field(default_factory=dict)


def decode_all(
    column: ImageFiles | np.ndarray, decoder: Decoder, source: Source, options: DataOptions, *,
    masks: MaskFiles | None = None, leave: Iterable[int] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Decoded:  # fmt: skip
    """Return the pixels (and masks) of all rows.

    leave      rows that are known to be unusable: they are not looked at
    progress   called with (done, total)
    """
    if not isinstance(column, ImageFiles):
        values = decode_array(column, decoder)
        return Decoded(values, faults=_no_numbers(values))
    n, skipped = len(column), set(leave)
    rows = [row for row in range(n) if row not in skipped]
    layout: cache.Layout = {"pixels": ((n, *decoder.shape), "uint8"), "bad": ((n,), "bool")}
    if masks is not None:
        layout = {**layout, "masks": ((n, *decoder.shape[1:]), "uint8")}
    total = n * int(np.prod(decoder.shape)) + (0 if masks is None else n * _area(decoder))
    faults: dict[int, str] = {}

    def fill(columns: dict[str, np.ndarray]) -> None:
        for done, row in enumerate(rows, 1):
            try:
                columns["pixels"][row] = decode(
                    column.paths[row], decoder, column.name(row), crop=column.crop(row)
                )
            except DataError as error:
                faults[row] = fault_of(error)
                columns["bad"][row] = True
                continue
            if masks is not None:
                columns["masks"][row] = masks.read(row)
            if progress is not None:
                progress(done, len(rows))

    def result(columns: dict[str, np.ndarray], note: str = "") -> Decoded:
        return Decoded(columns["pixels"], columns.get("masks"), note, faults)

    if options.mode == "streaming":
        why = "pictures are decoded while training, as asked"
        return Decoded(column, masks, why, _verify(column, rows, source, options, progress))
    if total <= _WITHOUT_CACHE and options.mode != "mapped":
        columns = {name: np.zeros(shape, kind) for name, (shape, kind) in layout.items()}
        fill(columns)
        return result(columns)
    store = cache.Cache.of(options.cache, options.cache_budget_bytes)
    if total > store.budget_bytes:
        why = (
            f"{total / 1e9:.1f} GB of pixels exceed the cache's budget of "
            f"{store.budget_bytes / 1e9:.1f} GB: pictures are decoded while training"
        )
        return Decoded(column, masks, why, _verify(column, rows, source, options, progress))
    table = b"" if masks is None else masks.table.tobytes() + bytes([LABELS])
    key = cache.key_of(
        source.fingerprint, column.digest(), decoder, VERSION, tuple(sorted(skipped)), table
    )
    entry = store.open(key, layout, fill, name=source.name)
    _known(column, np.flatnonzero(entry.columns["bad"]), faults)
    return result(entry.columns, entry.note)


def _no_numbers(pixels: np.ndarray) -> dict[int, str]:
    """Return the rows of float pictures with a value that is no number, and that reason."""
    if pixels.dtype.kind != "f":
        return {}
    bad = [
        start + np.flatnonzero(~np.isfinite(pixels[start : start + _BLOCK]).all((1, 2, 3)))
        for start in range(0, len(pixels), _BLOCK)
    ]
    return {
        row: "its picture has a value that is no number" for rows in bad for row in rows.tolist()
    }


def _area(decoder: Decoder) -> int:
    return decoder.height * decoder.width


def fault_of(error: DataError) -> str:
    """Return why a picture cannot be decoded, without its name."""
    return "the picture cannot be decoded" + error.found.partition("cannot be decoded")[2]


def _known(column: ImageFiles, bad: np.ndarray, faults: dict[int, str]) -> None:
    """Add the reasons of rows that an earlier look found to be bad."""
    for row in bad.tolist():
        if row not in faults:
            faults[row] = _try(column, row) or "the picture could not be decoded before"


def _try(column: ImageFiles, row: int) -> str:
    try:  # small, but with every step of the decoder: one may fail where the file opens
        decode(column.paths[row], _SMALL, column.name(row), crop=column.crop(row))
    except DataError as error:
        return fault_of(error)
    return ""


def _verify(
    column: ImageFiles, rows: list[int], source: Source, options: DataOptions,
    progress: Callable[[int, int], None] | None,
) -> dict[int, str]:  # fmt: skip
    """Decode every picture once and keep what was found, not the pixels."""
    faults: dict[int, str] = {}

    def fill(columns: dict[str, np.ndarray]) -> None:
        for done, row in enumerate(rows, 1):
            reason = _try(column, row)
            if reason:
                faults[row] = reason
                columns["bad"][row] = True
            if progress is not None:
                progress(done, len(rows))

    layout: cache.Layout = {"bad": ((len(column),), "bool")}
    looked = np.isin(np.arange(len(column)), rows).tobytes()
    key = cache.key_of("verified", source.fingerprint, column.digest(), looked, VERSION)
    try:
        store = cache.Cache.of(options.cache, options.cache_budget_bytes)
        columns = store.open(key, layout, fill, name=f"check of {source.name}").columns
        _known(column, np.flatnonzero(columns["bad"]), faults)
    except StorageError:
        fill({"bad": np.zeros(len(column), dtype=bool)})
    return faults
