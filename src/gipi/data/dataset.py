"""`open_data`: from whatever holds the data to a `Dataset` whose splits stream batches."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as made
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.core.schema import WRITTEN
from gipi.data.augment import build_augment
from gipi.data.decode import as_array, header, open_picture, placements, to_pixels
from gipi.data.forms import form_of
from gipi.data.options import DataOptions
from gipi.data.pictures import Pictures
from gipi.data.running import TASK
from gipi.data.source import Annotations, ImageFiles, Source
from gipi.data.sources import read_source
from gipi.data.stream import Columns, RowStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from gipi.core.schema import Schema, Signature
    from gipi.data.form import Form, Parts
    from gipi.data.pretext import PretextStream
    from gipi.data.text_windows import Running, WindowStream


@dataclass(frozen=True)
class Dataset:
    """Data ready for training: what it is, how it is split, and streams of batches.

    schema        every column, with what preparation learnt from the training rows
    splits        "train", "val", "test" (or "all") -> (n,) int64 row ids
    split_reason  the rule of the split in words
    notes         what was inferred, dropped or repaired, and why
    columns       all rows as tensors
    sizes         (N, 2) height and width of the original pictures, where they are known already
    running       tokens of a running text, whose rows are windows of it; None for all other data
    """

    source: Source
    schema: Schema
    columns: Columns
    splits: dict[str, np.ndarray]
    split_reason: str = ""
    notes: tuple[str, ...] = ()
    options: DataOptions = made(default_factory=DataOptions)
    sizes: np.ndarray | None = None
    running: Running | None = None

    @property
    def name(self) -> str:
        """What people call this data."""
        return self.source.name

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the raw data."""
        return self.source.fingerprint

    @property
    def citation(self) -> str:
        """Where the data comes from, empty where unknown."""
        return self.source.citation

    @property
    def licence(self) -> str:
        """The licence of the data, empty where unknown."""
        return self.source.licence

    @property
    def _form(self) -> Form:
        return form_of(self.schema.task)

    @cached_property
    def _image(self) -> tuple[str, Pictures] | None:
        found = [(k, v) for k, v in self.columns.inputs.items() if isinstance(v, Pictures)]
        return found[0] if found else None

    def stream(
        self, split: str, *, batch_size: int | str, seed: int = 0, shuffle: bool | None = None,
        augment: Sequence[str | dict[str, Any]] = (), device: torch.device | str = "cpu",
        rank: int = 0, world: int = 1, mode: str | None = None, workers: int | None = None,
        channels_last: bool = False,
    ) -> RowStream | WindowStream | PretextStream:  # fmt: skip
        """Return the batches of one split.

        batch_size     rows per optimizer step over all ranks; "full" for all rows of the split
        seed           of the order and of the augmentation
        shuffle        None: only the split "train"
        augment        names or {"name": ..., option: value}, from `gipi list augmentations`
        mode, workers  None: as in the options of this data
        channels_last  give pictures in that memory layout (same values)
        """
        if split not in self.splits:
            raise DataError(
                f"no split is called '{split}' in {self.name}",
                "one of " + ", ".join(self.splits),
                did_you_mean(split, self.splits),
            )
        stream, mixed = self._form.stream, split == "train" if shuffle is None else shuffle
        if stream is not None:
            assert self.running is not None
            return stream(
                self.schema, self.running, split, batch_size=batch_size, seed=seed, shuffle=mixed,
                augment=augment, device=device, rank=rank, world=world,
            )  # fmt: skip
        return RowStream(
            self.columns, self.splits[split],
            batch_size=batch_size, seed=seed, shuffle=mixed,
            augment=build_augment(augment, self.schema) if augment else None,
            device=device, rank=rank, world=world,
            mode=mode or self.options.mode,
            workers=self.options.workers if workers is None else workers,
            channels_last=channels_last,
        )  # fmt: skip

    def signature(self, outputs: int) -> Signature:
        """Return what a model builder must know, with a head of width `outputs`."""
        return self._form.signature(self.schema, self.columns.inputs, outputs=outputs)

    def original_size(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return (n, 2) int64 height and width of pictures as a viewer shows them."""
        rows = np.asarray(ids, dtype=np.int64)
        if self.sizes is not None:
            return self.sizes[rows]
        column = self._picture_column
        if isinstance(column, ImageFiles):
            found = [header(column.paths[i], column.name(i))[1:] for i in rows.tolist()]
            return np.array(found, dtype=np.int64).reshape(-1, 2)
        return np.tile(np.array(column.shape[1:3], dtype=np.int64), (len(rows), 1))

    def placement(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return (n, 3, 3) float64: from pixels of the original to pixels that the model sees.

        Exact: its inverse takes what was predicted back to the picture of the file.
        """
        rows = np.asarray(ids, dtype=np.int64)
        column = self._picture_column
        assert self._image is not None
        return placements(column, self._image[1].decoder, rows, self.original_size(rows))

    @property
    def _picture_column(self) -> ImageFiles | np.ndarray:
        if self._image is None:
            raise DataError(f"{self.name} has no pictures", "picture data", "use raw(ids) instead")
        name = next(f.name for f in self.schema.inputs if f.kind == "image")
        column = self.source.columns[name]
        assert not isinstance(column, Annotations)
        return column

    def row_names(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Return what people call these rows: file names, or "row 17" counted from 1."""
        return [self.source.row_name(int(i)) for i in ids]

    def raw(self, ids: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Return the original values of these rows; None where missing, pictures by name."""
        fields = {f.name: f for f in self.schema.fields}
        rows = []
        for i in map(int, ids):
            row: dict[str, Any] = {}
            for name, column in self.source.columns.items():
                if isinstance(column, ImageFiles):
                    row[name] = column.name(i)
                elif isinstance(column, Annotations):
                    row[name] = column.describe(i)
                elif name in fields and fields[name].kind == "image":
                    row[name] = self.source.row_name(i)
                else:
                    row[name] = _plain(column[i])
            rows.append(row)
        return rows

    def picture(self, row: int) -> np.ndarray:
        """Return uint8 (H, W, C) of one picture for people; files in their original size."""
        if self._image is None:
            raise DataError(f"{self.name} has no pictures", "picture data", "use raw(ids) instead")
        pixels = self._image[1].pixels
        original = next(
            (c for c in self.source.columns.values() if isinstance(c, ImageFiles)), None
        )
        if original is not None:
            image = open_picture(original.paths[row], original.name(row))
            return as_array(to_pixels(image, self._image[1].shape[0])).transpose(1, 2, 0)
        values = np.asarray(pixels[row])  # type: ignore[index]
        if values.dtype != np.uint8:
            low, high = float(values.min()), float(values.max())
            values = np.rint((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
        return np.ascontiguousarray(values.transpose(1, 2, 0))


BELONGS = {
    "image": (("image_size", "normalise"), "pictures",
              "numbers of a table are always scaled by the training rows"),
    "text": (("tokenizer", "tokenizer_options", "max_length"), "texts",
             "there is nothing to cut into tokens"),
}  # fmt: skip
"""Options that only data of a kind can have: they would be read by nobody, and silently."""


def open_data(
    data: Any,
    options: DataOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read, infer, split, decode and prepare data.

    data      a name (`gipi list data`), a path, a frame, (X, y), a dict of arrays, a torch Dataset
    options   `DataOptions`; None for all defaults
    progress  called with (done, total) while pictures are decoded into the cache

    Raises `DataError` or `UnknownName`, each with what to do.
    """
    chosen = options or DataOptions()
    source = read_source(data, target=chosen.target, task=chosen.task)
    form = form_of(chosen.task or source.task)
    if chosen.carry and TASK not in form.tasks:
        raise ConfigError(
            f"carry=true, and {source.name} is not read as running text",
            "the task generate: rows of other data have nothing before them",
            f"use --task {TASK}, or leave carry out",
        )
    parts = form.open(source, chosen, progress)
    _check_belongs(chosen, parts.schema, source)
    return _made_of(parts, chosen)


def _check_belongs(options: DataOptions, schema: Schema, source: Source) -> None:
    """Raise `ConfigError` for an option of pictures or texts where the data has none of them."""
    for kind, (names, what, instead) in BELONGS.items():
        if schema.of("input", kind):
            continue
        for name in names:
            value = getattr(options, name)
            if value not in (None, {}):
                raise ConfigError(
                    f"{name}={value}, and {source.name} has no {what} among its inputs",
                    f"data with {what}", f"leave {name} out: {instead}",
                )  # fmt: skip


def read_rows(
    data: Any, schema: Schema, *, options: DataOptions | None = None, target: bool = True
) -> Dataset:
    """Return data as the split "all", encoded by a fitted schema exactly as in training.

    Where the data comes with a split of its own (the official test rows of a named set), its parts
    are there as well, under "train", "val" and "test".

    target   False: do not look at the target column. It is also left out (None in the batches)
             where the column is absent or any row lacks a value.

    Raises `DataError` naming the row for a label that training did not know.
    """
    chosen = options or DataOptions()
    alone = schema.task in WRITTEN and not target  # then one column of texts is enough
    source = read_source(data, task=None if alone else schema.task)
    return _made_of(form_of(schema.task).read(schema, source, chosen, target=target), chosen)


def _made_of(parts: Parts, options: DataOptions) -> Dataset:
    return Dataset(
        parts.source, parts.schema, parts.columns, parts.splits, parts.reason, parts.notes,
        options, parts.sizes, parts.running,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    """Return a JSON-able value: Python numbers, ISO dates, None where missing."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and plain != plain else plain  # noqa: PLR0124
