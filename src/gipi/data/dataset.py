"""`open_data`: from whatever holds the data to a `Dataset` whose splits stream batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from dataclasses import field as made
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.core.schema import PRETEXT, Signature
from gipi.data import dense, images, multilabel, prepare
from gipi.data.augment import build_augment
from gipi.data.decode import as_array, header, open_picture, placements, to_pixels
from gipi.data.decoded import decode_all
from gipi.data.divide import rows_to_split
from gipi.data.faults import settle
from gipi.data.infer import infer_schema
from gipi.data.masks import Masks
from gipi.data.options import DataOptions
from gipi.data.pairs import open_pairs, read_pairs
from gipi.data.partners import is_paired, partner_groups
from gipi.data.pictures import Pictures
from gipi.data.pretext_open import open_pretext, pretext_splits, pretext_stream, read_pretext
from gipi.data.running import Opened, Running, is_running, open_running, read_running
from gipi.data.sequences import OF_TOKENS, open_rows, read_tokens
from gipi.data.series import Series, open_series, read_series
from gipi.data.series_schema import is_series
from gipi.data.source import (
    TEST,
    TRAIN,
    VAL,
    Annotations,
    ImageFiles,
    Source,
    is_missing,
)
from gipi.data.sources import read_source
from gipi.data.split import split_rows
from gipi.data.stream import Columns, RowStream
from gipi.data.text_windows import WindowStream
from gipi.data.transforms import dates_as_in_training, form_of_dates
from gipi.data.windows import geometry_of
from gipi.data.written import is_written, lost_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gipi.core.schema import Field, Schema
    from gipi.data.pretext import PretextStream
    from gipi.data.tokens import Tokens


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
        if self.running is not None:
            if self.schema.task in PRETEXT:
                return pretext_stream(self.schema, self.running, split, batch_size=batch_size,
                                      seed=seed, shuffle=shuffle, device=device, rank=rank,
                                      world=world)  # fmt: skip
            _nothing_augments(augment)
            return WindowStream(
                self.running, split, batch_size=batch_size, seed=seed, device=device, rank=rank,
                shuffle=split == "train" if shuffle is None else shuffle, world=world,
            )  # fmt: skip
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
        if self.schema.task == "forecast":
            window = geometry_of(self.schema)
            width = len(self.schema.of("target")) + len(self.schema.of("input"))
            return Signature(
                numbers=width, length=window.lookback, horizon=window.horizon, outputs=outputs
            )
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
    if is_series(source, chosen):
        return _of_series(open_series(source, chosen), chosen)
    _no_series_options(chosen)
    if chosen.task in PRETEXT:
        return _as_running(source, open_pretext(source, chosen), chosen)
    if chosen.target is not None:
        chosen = replace(chosen, target=source.target)  # its number, or several columns joined
    if is_running(source, chosen):
        return _as_running(source, open_running(source, chosen), chosen)
    schema = infer_schema(source, chosen)
    wanted, paired = schema.target, is_paired(schema.task)
    if wanted is None and not paired:
        raise DataError(
            f"{source.name} has no column to predict",
            "a target column: one of " + ", ".join(source.columns),
            "name it with --target",
        )
    found = dense.view(source, schema, chosen)
    notes = list(source.notes)
    if found is not None:
        notes += [*found.notes, *settle(found.survey.faults, source, chosen)]
    rows = rows_to_split(source, schema, found=found)
    split = split_rows(rows, seed=chosen.seed, val=chosen.val, test=chosen.test)
    notes += split.notes
    lost = int((~rows.usable).sum())
    if lost and found is None:
        what = f"a value of '{wanted.name}'" if wanted else "both texts"
        notes.append(lost_rows(lost, schema) if is_written(schema.task) else
                     f"{lost} rows without {what} take no part")  # fmt: skip
    schema = _with_date_forms(
        prepare.fit(schema, source.columns, split.ids["train"], classes=source.classes), source
    )
    schema, pictures, masks, splits, more = _pictures(
        source, schema, split.ids, chosen, progress, found
    )
    notes += more
    opening = open_pairs if is_written(schema.task) else open_rows
    texts = opening(schema, source, splits, chosen)
    schema, splits, source = texts.schema, texts.splits, texts.source or source
    notes += texts.notes
    inputs: dict[str, Any] = {} if pictures is None else {"image": pictures}
    inputs.update(texts.inputs)
    inputs.update(prepare.encode_inputs(schema, source.columns, row_name=source.row_name))
    used = np.sort(np.concatenate(list(splits.values())))
    target: torch.Tensor | Masks | Tokens | None = texts.target if masks is None else masks
    if target is None:
        target = _target(source, schema, found, pictures, used)
    weight = _weight(source, schema)
    for name, ids in splits.items():
        if weight is not None and not weight[torch.from_numpy(ids)].any():
            raise DataError(
                f"every weight of the {name} rows in '{chosen.weight}' is 0",
                "rows that count",
                "correct the weight column, or leave it out",
            )
    columns = Columns(inputs, target, weight, texts.references)
    sizes = None if found is None else found.survey.sizes
    return Dataset(source, schema, columns, splits, split.reason, tuple(notes), chosen, sizes)


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
    if schema.task == "forecast":
        found_rows = _dates_as_trained(read_source(data, task="forecast"), schema)
        return _of_series(read_series(found_rows, schema, target=target), chosen)
    alone = is_written(schema.task) and not target  # then one column of texts is enough
    read = read_source(data, task=None if alone else schema.task)
    if schema.task in PRETEXT:
        return _as_running(read, read_pretext(schema, read, chosen), chosen)
    if schema.task == "generate":
        return _as_running(read, read_running(schema, read, chosen), chosen)
    read = _renamed(_joined(read, schema), schema)
    source = _dates_as_trained(read, schema)
    field_y = schema.target
    notes = list(source.notes)
    found = None
    if target and field_y is not None and _complete(source, field_y, notes):
        found = dense.view(source, schema, chosen)
    faults: dict[int, str] = {}
    if found is not None and field_y is not None:
        faults = {**dense.strange_labels(found, field_y), **found.survey.faults}
        notes += [*found.notes, *settle(faults, source, chosen)]
    inputs: dict[str, Any] = {}
    pictures: Pictures | None = None
    values: torch.Tensor | Masks | Tokens | None = None
    for field in schema.inputs:
        if field.kind == "image":
            decoder = images.decoder_of(field)
            masks = None
            if found is not None and field_y is not None and field_y.kind == "mask":
                masks = dense.mask_files(found, field_y, decoder)
            decoded = decode_all(
                _picture_column(source, field), decoder, source, chosen, masks=masks, leave=faults
            )
            notes += [decoded.note] if decoded.note else []
            notes += settle(decoded.faults, source, chosen)
            faults |= decoded.faults
            inputs["image"] = pictures = images.pictures_of(field, decoded.pixels)
            values = None if decoded.masks is None else Masks(decoded.masks)
    if is_written(schema.task):
        known = target and field_y is not None and _complete(source, field_y, [])
        texts = read_pairs(schema, source, chosen, target=known)
    else:
        texts = read_tokens(schema, source, chosen, target=target)
    source = texts.source or source
    notes += texts.notes
    inputs.update(texts.inputs)
    inputs.update(prepare.encode_inputs(schema, source.columns, row_name=source.row_name))
    rows = np.setdiff1d(np.arange(source.rows, dtype=np.int64), list(faults))
    rows = np.intersect1d(rows, texts.splits.get("all", rows))
    if is_written(schema.task) or (field_y is not None and field_y.kind in OF_TOKENS):
        values = texts.target
    elif values is None and target and (
        is_paired(schema.task) or (field_y is not None and _complete(source, field_y, []))
    ):  # fmt: skip
        values = _target(source, schema, found, pictures, rows)
    weighted = target and any(f.name in source.columns for f in schema.of("weight"))
    weights = _weight(source, schema) if weighted else None
    columns = Columns(inputs, values, weights, texts.references)
    splits = {"all": rows}
    if source.given_split is not None:
        parts = (("train", TRAIN), ("val", VAL), ("test", TEST))
        given = {name: rows[source.given_split[rows] == code] for name, code in parts}
        splits |= {name: ids for name, ids in given.items() if len(ids)}
    sizes = None if found is None else found.survey.sizes
    return Dataset(source, schema, columns, splits, "all rows", tuple(notes), chosen, sizes)


def _as_running(source: Source, found: Opened, options: DataOptions) -> Dataset:
    """Return a running text as a data set whose rows are windows."""
    splits = pretext_splits(found) if found.schema.task in PRETEXT else found.splits
    return Dataset(
        source, found.schema, Columns({}), splits, found.reason,
        (*source.notes, *found.notes), options, running=found.running,
    )  # fmt: skip


def _nothing_augments(augment: Sequence[str | dict[str, Any]]) -> None:
    if augment:
        raise DataError("augment for running text", "pictures to augment", "leave augment out")


def _of_series(found: Series, options: DataOptions) -> Dataset:
    """Return the data set of a series: a row is a window."""
    schema = _with_date_forms(found.schema, found.source)
    return Dataset(found.source, schema, found.columns, found.splits, found.reason,
                   found.notes, options)  # fmt: skip


def _no_series_options(options: DataOptions) -> None:
    """Raise where something is asked for that only a series has."""
    for name in ("horizon", "lookback", "season"):
        value = getattr(options, name)
        if value is not None:
            raise ConfigError(
                f"{name}={value}, but the rows are not read as a series",
                "task=forecast beside it",
                f"add --task forecast, or leave {name} out",
            )


def _complete(source: Source, field: Field, notes: list[str]) -> bool:
    """Return whether every row has a target; add a note where only some have."""
    column = source.columns.get(field.name)
    if column is None or isinstance(column, Annotations) != field.dense:
        return False
    missing = 0 if field.multi else int(is_missing(column).sum())
    if missing:
        notes.append(f"{missing} of {source.rows} rows have no '{field.name}': not compared")
    return not missing


def _target(
    source: Source, schema: Schema, found: dense.View | None, pictures: Pictures | None,
    rows: np.ndarray,
) -> torch.Tensor:  # fmt: skip
    """Return the targets of `rows` as a tensor over all rows."""
    if is_paired(schema.task):
        return torch.from_numpy(partner_groups(source, schema))
    field = schema.target
    assert field is not None
    if found is not None:
        assert pictures is not None
        return dense.encode(found, field, pictures.decoder, rows)
    return prepare.encode_target(
        schema, source.columns[field.name], rows=rows, row_name=source.row_name
    )


def _picture_column(source: Source, field: Field) -> ImageFiles | np.ndarray:
    """Return the pictures of a source, (N, H, W, C) where they are in memory."""
    column = source.columns.get(field.name)
    if column is None or isinstance(column, Annotations):
        raise DataError(
            f"{source.name} has no pictures in a column '{field.name}'",
            "pictures, as in training",
            "give picture files, a folder of them, or an array",
        )
    return column[..., None] if isinstance(column, np.ndarray) and column.ndim == 3 else column


def _pictures(
    source: Source, schema: Schema, splits: dict[str, np.ndarray], options: DataOptions,
    progress: Callable[[int, int], None] | None, found: dense.View | None,
) -> tuple[Schema, Pictures | None, Masks | None, dict[str, np.ndarray], list[str]]:  # fmt: skip
    """Decode; return the fitted schema, pixels, masks, splits without faulty rows, and notes."""
    field = next((f for f in schema.inputs if f.kind == "image"), None)
    if field is None:
        return schema, None, None, splits, []
    column, train, masks = _picture_column(source, field), splits["train"], None
    if found is not None:
        decoder, reason = dense.choose_size(found, train, options, schema.task)
        used = np.sort(np.concatenate(list(splits.values())))
        assert schema.target is not None
        target = dense.fit_target(schema.target, found, decoder, used)
        schema = schema.with_field(target)
        if target.kind == "mask":
            masks = dense.mask_files(found, target, decoder)
    else:
        decoder, reason = images.choose_decoder(column, train, options)
    decoded = decode_all(
        column, decoder, source, options, masks=masks, progress=progress,
        leave=() if found is None else found.survey.faults,
    )  # fmt: skip
    notes = [decoded.note] if decoded.note else []
    notes += settle(decoded.faults, source, options)
    bad = np.fromiter(decoded.faults, np.int64, len(decoded.faults))
    splits = {name: np.setdiff1d(ids, bad) for name, ids in splits.items()}
    splits = {name: ids for name, ids in splits.items() if len(ids)}
    if "train" not in splits:
        raise DataError(
            "no training picture can be decoded", "pictures to train on", "check the files"
        )
    fitted = images.fit_pictures(
        field, decoder, decoded.pixels, splits["train"], reason=reason, normalise=options.normalise
    )
    pictures = images.pictures_of(fitted, decoded.pixels)
    laid = None if decoded.masks is None else Masks(decoded.masks)
    return schema.with_field(fitted), pictures, laid, splits, notes


def _joined(source: Source, schema: Schema) -> Source:
    """Return the source with the 0/1 columns of training as one target, where they are there."""
    field = schema.target
    if field is None or not field.multi or field.name in source.columns:
        return source
    if "separator" in field.stats or not set(field.classes) <= set(source.columns):
        return source
    return multilabel.join(source, field.classes, name=field.name)


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
    for field in (*schema.inputs, *schema.of("time")):
        form = form_of_dates(source.notes, field.name) if field.kind == "date" else ""
        if form:
            schema = schema.with_field(replace(field, stats={**field.stats, "form": form}))
    return schema


def _dates_as_trained(source: Source, schema: Schema) -> Source:
    columns = dict(source.columns)
    for field in (*schema.inputs, *schema.of("time")):
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
