"""`open_data`: from whatever holds the data to a `Dataset` whose splits stream batches."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from dataclasses import field as made
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.core.errors import DataError, did_you_mean
from gipi.data import images, prepare
from gipi.data.augment import build_augment
from gipi.data.decode import as_array, header, open_picture, placements, to_pixels
from gipi.data.infer import infer_schema
from gipi.data.keys import codes, row_keys
from gipi.data.options import DataOptions
from gipi.data.pictures import Pictures
from gipi.data.source import (
    TEST,
    TRAIN,
    VAL,
    Annotations,
    ImageFiles,
    Source,
    as_labels,
    is_missing,
)
from gipi.data.sources import read_source
from gipi.data.split import SplitRows, split_rows
from gipi.data.stream import Columns, RowStream
from gipi.data.transforms import dates_as_in_training, form_of_dates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gipi.core.schema import Field, Schema, Signature

_PART_NAMES = {
    "train": TRAIN, "training": TRAIN, "fit": TRAIN, "val": VAL, "valid": VAL, "validation": VAL,
    "dev": VAL, "test": TEST, "testing": TEST, "eval": TEST,
}  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """Data ready for training: what it is, how it is split, and streams of batches.

    schema        every column, with what preparation learnt from the training rows
    splits        "train", "val", "test" (or "all") -> (n,) int64 row ids
    split_reason  the rule of the split in words
    notes         what was inferred, dropped or repaired, and why
    columns       all rows as tensors
    sizes         (N, 2) height and width of the original pictures, where they are known already
    """

    source: Source
    schema: Schema
    columns: Columns
    splits: dict[str, np.ndarray]
    split_reason: str = ""
    notes: tuple[str, ...] = ()
    options: DataOptions = made(default_factory=DataOptions)
    sizes: np.ndarray | None = None

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

    @cached_property
    def _image(self) -> tuple[str, Pictures] | None:
        found = [(k, v) for k, v in self.columns.inputs.items() if isinstance(v, Pictures)]
        return found[0] if found else None

    def stream(
        self, split: str, *, batch_size: int | str, seed: int = 0, shuffle: bool | None = None,
        augment: Sequence[str | dict[str, Any]] = (), device: torch.device | str = "cpu",
        rank: int = 0, world: int = 1, mode: str | None = None, workers: int | None = None,
        channels_last: bool = False,
    ) -> RowStream:  # fmt: skip
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
        return RowStream(
            self.columns, self.splits[split],
            batch_size=batch_size, seed=seed,
            shuffle=split == "train" if shuffle is None else shuffle,
            augment=build_augment(augment, self.schema) if augment else None,
            device=device, rank=rank, world=world,
            mode=mode or self.options.mode,
            workers=self.options.workers if workers is None else workers,
            channels_last=channels_last,
        )  # fmt: skip

    def signature(self, outputs: int) -> Signature:
        """Return what a model builder must know, with a head of width `outputs`."""
        return prepare.signature(self.schema, self.columns.inputs, outputs=outputs)

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
    source = read_source(data, target=chosen.target)
    schema = infer_schema(source, chosen)
    wanted = schema.target
    if wanted is None:
        raise DataError(
            f"{source.name} has no column to predict",
            "a target column: one of " + ", ".join(source.columns),
            "name it with --target",
        )
    rows = _split_rows(source, schema)
    split = split_rows(rows, seed=chosen.seed, val=chosen.val, test=chosen.test)
    lost = int((~rows.usable).sum())
    notes = [*source.notes, *split.notes]
    if lost:
        notes.append(f"{lost} rows without a value of '{wanted.name}' take no part")
    train = split.ids["train"]
    schema = _with_date_forms(
        prepare.fit(schema, source.columns, train, classes=source.classes), source
    )
    inputs: dict[str, Any] = {}
    for field in schema.inputs:
        if field.kind == "image":
            fitted, pictures, note = _pictures(field, source, train, chosen, progress)
            schema, inputs["image"] = schema.with_field(fitted), pictures
            notes.extend([note] if note else [])
    inputs.update(prepare.encode_inputs(schema, source.columns, row_name=source.row_name))
    used = np.sort(np.concatenate(list(split.ids.values())))
    target = prepare.encode_target(
        schema, source.columns[wanted.name], rows=used, row_name=source.row_name
    )
    weight = _weight(source, schema)
    for name, ids in split.ids.items():
        if weight is not None and not weight[torch.from_numpy(ids)].any():
            raise DataError(
                f"every weight of the {name} rows in '{chosen.weight}' is 0",
                "rows that count",
                "correct the weight column, or leave it out",
            )
    columns = Columns(inputs, target, weight)
    return Dataset(source, schema, columns, split.ids, split.reason, tuple(notes), chosen)


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
    source = _dates_as_trained(_renamed(read_source(data), schema), schema)
    inputs: dict[str, Any] = {}
    for field in schema.inputs:
        if field.kind == "image":
            column = source.columns.get(field.name)
            if column is None:
                raise DataError(
                    f"{source.name} has no pictures in a column '{field.name}'",
                    "pictures, as in training",
                    "give picture files, a folder of them, or an array",
                )
            if isinstance(column, np.ndarray) and column.ndim == 3:
                column = column[..., None]
            pixels, _ = images.pixels_of(
                column, images.decoder_of(field), options=chosen,
                fingerprint=source.fingerprint, name=source.name,
            )  # fmt: skip
            inputs["image"] = images.pictures_of(field, pixels)
    inputs.update(prepare.encode_inputs(schema, source.columns, row_name=source.row_name))
    rows = np.arange(source.rows, dtype=np.int64)
    field_y = schema.target
    values = None
    notes = list(source.notes)
    if target and field_y is not None and field_y.name in source.columns:
        missing = int(is_missing(source.columns[field_y.name]).sum())
        if missing:
            notes.append(f"{missing} of {source.rows} rows have no '{field_y.name}': not compared")
        else:
            values = prepare.encode_target(
                schema, source.columns[field_y.name], rows=rows, row_name=source.row_name
            )
    weighted = target and any(f.name in source.columns for f in schema.of("weight"))
    columns = Columns(inputs, values, _weight(source, schema) if weighted else None)
    splits = {"all": rows}
    if source.given_split is not None:
        parts = (("train", TRAIN), ("val", VAL), ("test", TEST))
        found = {name: np.flatnonzero(source.given_split == code) for name, code in parts}
        splits |= {name: ids for name, ids in found.items() if len(ids)}
    return Dataset(source, schema, columns, splits, "all rows", tuple(notes), chosen)


def _pictures(
    field: Field, source: Source, train: np.ndarray, options: DataOptions,
    progress: Callable[[int, int], None] | None,
) -> tuple[Field, Pictures, str]:  # fmt: skip
    column = source.columns[field.name]
    if isinstance(column, np.ndarray) and column.ndim == 3:
        column = column[..., None]
    decoder, reason = images.choose_decoder(column, train, options)
    pixels, note = images.pixels_of(
        column, decoder, options=options, fingerprint=source.fingerprint, name=source.name,
        progress=progress,
    )  # fmt: skip
    fitted = images.fit_pictures(
        field, decoder, pixels, train, reason=reason, normalise=options.normalise
    )
    return fitted, images.pictures_of(fitted, pixels), note


def _split_rows(source: Source, schema: Schema) -> SplitRows:
    """Return what the split must know of the rows."""
    target = schema.target
    assert target is not None
    column = source.columns[target.name]
    usable = ~is_missing(column)
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    if schema.task == "classify" and isinstance(column, np.ndarray):
        labelled = as_labels(column)
        usable = np.fromiter((v is not None for v in labelled), bool, source.rows)
        found, inverse = np.unique(np.where(usable, labelled, ""), return_inverse=True)
        labels, names = inverse.reshape(-1).astype(np.int64), tuple(str(v) for v in found)
    group, moment, part = (schema.of(role) for role in ("group", "time", "split"))
    given = source.given_split
    if part:
        given = _given(source, part[0].name)
    return SplitRows(
        usable=usable,
        keys=row_keys([source.columns[f.name] for f in schema.inputs], source.rows),
        labels=labels,
        classes=names,
        groups=codes(source.columns[group[0].name]) if group else None,
        times=_times(source, moment[0].name, usable) if moment else None,
        given=given,
    )


def _given(source: Source, name: str) -> np.ndarray:
    labels = as_labels(np.asarray(source.columns[name]))
    found = np.empty(len(labels), dtype=np.int8)
    for i, label in enumerate(labels):
        part = _PART_NAMES.get((label or "").strip().lower())
        if part is None:
            raise DataError(
                f"{source.row_name(i)}: the split column '{name}' says {label!r}",
                "train, val or test in every row",
                "correct the value",
            )
        found[i] = part
    return found


def _times(source: Source, name: str, usable: np.ndarray) -> np.ndarray:
    column = source.columns[name]
    lost = np.flatnonzero(is_missing(column) & usable)
    if len(lost):
        raise DataError(
            f"{source.row_name(int(lost[0]))}: the time column '{name}' is empty",
            "a time in every row",
            "fill it in, or remove the row",
        )
    values = np.asarray(column)
    if values.dtype.kind == "O":
        shapes = {re.sub(r"\d", "0", str(v)) for v in values[usable]}
        if len(shapes) > 1 or not next(iter(shapes), "0000").startswith("0000"):
            raise DataError(
                f"the time column '{name}' holds text that has no order in time: {values[0]!r}",
                "dates, numbers, or text that begins with the year, such as 2024-01",
                "write its values as 2024-01-31",
            )
        return np.unique(values.astype(str), return_inverse=True)[1].reshape(-1)
    return values


def _weight(source: Source, schema: Schema) -> torch.Tensor | None:
    found = schema.of("weight")
    if not found:
        return None
    name = found[0].name
    return prepare.encode_weight(name, source.columns[name], row_name=source.row_name)


def _renamed(source: Source, schema: Schema) -> Source:
    """Give the only input column of `source` the name that the schema's only input has."""
    inputs = schema.inputs
    target = schema.target.name if schema.target else None
    others = [name for name in source.columns if name not in (target, source.target)]
    if len(inputs) != 1 or inputs[0].name in source.columns or len(others) != 1:
        return source
    columns = {
        (inputs[0].name if name == others[0] else name): column
        for name, column in source.columns.items()
    }
    return replace(source, columns=columns)


def _with_date_forms(schema: Schema, source: Source) -> Schema:
    """Record in which form dates were read, so that they are read so in prediction."""
    for field in schema.inputs:
        form = form_of_dates(source.notes, field.name) if field.kind == "date" else ""
        if form:
            schema = schema.with_field(replace(field, stats={**field.stats, "form": form}))
    return schema


def _dates_as_trained(source: Source, schema: Schema) -> Source:
    columns = dict(source.columns)
    for field in schema.inputs:
        column = columns.get(field.name)
        if "form" in field.stats and isinstance(column, np.ndarray) and column.dtype.kind == "M":
            columns[field.name] = dates_as_in_training(
                column, field.name, now=form_of_dates(source.notes, field.name),
                then=field.stats["form"], row_name=source.row_name,
            )  # fmt: skip
    return replace(source, columns=columns)


def _plain(value: Any) -> Any:
    """Return a JSON-able value: Python numbers, ISO dates, None where missing."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and plain != plain else plain  # noqa: PLR0124
