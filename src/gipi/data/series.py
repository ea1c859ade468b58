"""From the rows of a table to windows of a series: made regular, split by time, standardised.

The split has borders in time. What a training window forecasts lies before the first border; a
validation or test window forecasts steps of its own part alone, but may look back into the steps
before it, as is usual in the literature on long-term forecasting. Means and spreads are those of
the steps before the first border.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import Signature
from gipi.data.date_forms import dates_as_trained, with_date_forms
from gipi.data.divide import given_parts
from gipi.data.form import Form, Parts
from gipi.data.options import DataOptions
from gipi.data.prepare import encode_weight
from gipi.data.season import choose_geometry
from gipi.data.series_schema import fields_of, infer_series, spread
from gipi.data.source import TEST, TRAIN, VAL, Source
from gipi.data.split import LARGEST, SMALL
from gipi.data.stream import Columns
from gipi.data.timeline import Timeline, is_months, read_timeline, regular, where
from gipi.data.transforms import as_numbers
from gipi.data.windows import KEY, Geometry, Windows, geometry_of

if TYPE_CHECKING:
    from gipi.core.schema import Schema
    from gipi.data.form import Progress

NAME = "series"
"""Of the input of a batch: (B, lookback, F)."""
FARTHEST = 1e100  # from zero: squares of what is larger overflow
_ADVICE = (
    "correct them, or use --set bad_rows=skip (windows that touch them are left out) or "
    "--set bad_rows=fill (the last value goes on)"
)
_BACK = (
    "validation and test windows look back into earlier steps; what they forecast lies in their "
    "own part alone"
)


def open_series(found: Source, options: DataOptions) -> Parts:
    """Return the windows of a series, split by time.

    Raises `DataError` where the series is not regular, has missing or infinite values (unless
    `bad_rows` says what becomes of them), is constant, or is too short; `ConfigError` for shares
    and lengths that do not fit each other.
    """
    table = spread(found)
    line = read_timeline(table, options)
    schema = fields_of(table, options, line)
    notes = [*table.notes, *line.notes]
    if options.split_column is not None:
        table = replace(table, given_split=given_parts(table, options.split_column))
    values, made, more = _values(table, schema, line, options.bad_rows)
    notes += more
    source = regular(table, line)
    borders, reason = _borders(source, options)
    geometry, said = choose_geometry(
        values, line.step, options, usual=source.horizon, train=borders[0], name=source.name
    )
    geometry = replace(geometry, policy=options.bad_rows)
    if source.given_split is None:
        borders, reason = _widened(borders, options, geometry, source)
    else:
        _fit_given(borders, geometry, source)
    notes += [*said, *_scored(made, borders)]
    schema = _fit(schema, values, borders[0], geometry, source)
    splits, left = _windows(borders, geometry, values)
    notes += left
    columns = _columns(source, schema, values, geometry, gaps=line.rows < 0)
    _check_weights(columns, splits, options)
    if len(splits) > 1:
        notes.append(_BACK)
    schema = with_date_forms(schema, source)
    return Parts(source, schema, columns, splits, reason, tuple(notes))


def read_series(found: Source, schema: Schema, *, target: bool) -> Parts:
    """Return the windows of other rows, encoded by a fitted schema.

    target  True: every window whose target is known, as split "all" (and the parts that the data
            came with). False: the one window that ends with the last row; its forecast begins there

    Raises `DataError` where a series is missing, the steps are others than in training, or there
    are too few rows.
    """
    geometry, table = geometry_of(schema), spread(found)
    lost = [
        f.name for f in (*schema.of("target"), *schema.of("input")) if f.name not in table.columns
    ]
    time = next((f.name for f in schema.of("time")), None)
    if lost or (time is not None and time not in table.columns):
        name = lost[0] if lost else str(time)
        raise DataError(
            f"the column '{name}' is missing in {table.name}",
            "every series that the model was trained on: "
            + ", ".join(f.name for f in schema.fields if f.role in ("time", "target", "input")),
            "add the column",
        )
    need = geometry.lookback + (geometry.horizon if target else 0)
    if table.rows < need:
        ahead = f" and forecasts {geometry.horizon}" if target else ""
        raise DataError(
            f"{table.name} has {table.rows:,} rows",
            f"at least {need:,}: the model looks back {geometry.lookback:,} steps{ahead}",
            "give a longer piece of the series",
        )
    options = DataOptions(time_column=time, bad_rows=geometry.policy)  # type: ignore[arg-type]
    if target:
        line = read_timeline(table, options, step=geometry.step)
    else:
        table, line = _recent(table, options, geometry)
    if time is None:  # rows are counted from the first of the whole table
        first = 1 + found.rows - table.rows
        line = replace(line, moments=replace(line.moments, first=first))
    policy = "refuse" if geometry.policy == "skip" and not target else geometry.policy
    values, made, notes = _values(table, schema, line, policy)
    source = regular(table, line)
    columns = _columns(source, schema, values, geometry, gaps=line.rows < 0, target=target)
    n = len(values)
    if not target:
        bad = np.flatnonzero(np.isnan(values[-geometry.lookback :]).any(1))
        if len(bad):
            raise DataError(
                f"{source.name} lacks values in the last {geometry.lookback:,} steps: "
                f"{source.row_name(n - geometry.lookback + int(bad[0]))}",
                "every step that the model looks back on",
                "add what is missing, or train with --set bad_rows=fill",
            )
        splits = {"all": np.array([n])}
    else:
        splits, left = _windows((n, n, n), geometry, values)
        notes += [*_scored(made, (0, n, n)), *left]
        splits = {"all": splits["train"]}
        if source.given_split is not None:
            parts, more = _windows(_given(source)[0], geometry, values)
            splits |= parts
            notes += more
    schema = with_date_forms(schema, source)
    return Parts(source, schema, columns, splits, "all windows",
                 (*found.notes, *line.notes, *notes))  # fmt: skip


def _recent(table: Source, options: DataOptions, geometry: Geometry) -> tuple[Source, Timeline]:
    """Return the last rows, as many as the model looks back on, and where they lie in time.

    An old gap does not matter to what comes next. Rows that repeat the row before them are no step,
    and what is filled must be known before.
    """
    need = (2 if geometry.policy == "fill" else 1) * geometry.lookback
    while True:
        part = _tail(table, options.time_column, need)
        line = read_timeline(part, options, step=geometry.step)
        if len(line.rows) >= geometry.lookback:
            return part, line
        if part.rows == table.rows:
            raise DataError(
                f"{table.name} has {len(line.rows):,} different steps in {table.rows:,} rows",
                f"at least {geometry.lookback:,}: as many as the model looks back on",
                "give a longer piece of the series",
            )
        need *= 2


def _tail(table: Source, time: str | None, rows: int) -> Source:
    """Return the last rows, by time where the table can be ordered; they keep their names."""
    order = np.arange(table.rows)
    column = table.columns.get(time or "")
    if isinstance(column, np.ndarray) and (column.dtype.kind in "iufM" or is_months(column)):
        order = np.argsort(column, kind="stable")
        last = order[-rows:]
        return table.take(np.sort(last))
    return table.take(order[-rows:])


# ------------------------------------------------------------------ values


def _values(
    table: Source, schema: Schema, line: Timeline, policy: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return (N, F) float64 of the regular series, targets first, which are made up, and notes.

    NaN where skipped; (N,) bool: steps of which a value that is forecast was filled.
    """
    columns = []
    notes: list[str] = []
    for field in (*schema.of("target"), *schema.of("input")):
        raw = table.columns[field.name]
        assert isinstance(raw, np.ndarray)
        column = as_numbers(raw, field.name, row_name=lambda i: where(table, i)).astype(np.float64)
        wild = np.flatnonzero(np.abs(column) > FARTHEST)
        if len(wild):
            value = column[wild[0]]
            said = "infinite" if np.isinf(value) else f"{value:g}"
            raise DataError(
                f"{where(table, int(wild[0]))}: '{field.name}' is {said}",
                f"finite numbers, up to {FARTHEST:g}", "correct the value or leave it empty",
            )  # fmt: skip
        lost = np.flatnonzero(np.isnan(column))
        if len(lost) and policy == "refuse":
            more = f" (and in {len(lost) - 1:,} more rows)" if len(lost) > 1 else ""
            raise DataError(
                f"{where(table, int(lost[0]))}: '{field.name}' is missing{more}",
                "a value in every row of a series", _ADVICE,
            )  # fmt: skip
        if len(lost):
            notes.append(f"'{field.name}' is missing in {len(lost):,} rows")
        columns.append(np.where(line.rows < 0, np.nan, column[np.maximum(line.rows, 0)]))
    values, made = np.stack(columns, axis=1), np.zeros(len(line.rows), dtype=bool)
    if policy == "fill" and np.isnan(values).any():
        known = np.maximum.accumulate(
            np.where(np.isnan(values), -1, np.arange(len(values))[:, None]), axis=0
        )
        filled = np.take_along_axis(values, np.maximum(known, 0), axis=0)
        new = np.isnan(values) & (known >= 0)
        made = new[:, : len(schema.of("target"))].any(1)
        values = np.where(known >= 0, filled, np.nan)
        notes.append(f"{new.sum():,} values filled with the last one before them (bad_rows=fill)")
    return values, made, notes


def _scored(made: np.ndarray, borders: tuple[int, int, int]) -> list[str]:
    """Return a note where a forecast is compared with values that were filled."""
    count = int(made[borders[0] : borders[2]].sum())
    if not count:
        return []
    return [f"{count:,} of the steps that are scored hold filled values, taken as true"]


def _columns(
    source: Source, schema: Schema, values: np.ndarray, geometry: Geometry, *, gaps: np.ndarray,
    target: bool = True,
) -> Columns:  # fmt: skip
    """Return the columns of a stream: windows of standardised values, and their weights.

    gaps  (N,) bool steps that no row of the table has: their weight is 0
    """
    fields = (*schema.of("target"), *schema.of("input"))
    mean = np.array([f.stats["mean"] for f in fields])
    std = np.array([f.stats["std"] for f in fields])
    scaled = torch.from_numpy(((values - mean) / std).astype(np.float32)).contiguous()
    seen = Windows(scaled, -geometry.lookback, geometry.lookback)
    if not target:
        return Columns({NAME: seen})
    goals = scaled[:, : len(schema.of("target"))].contiguous()
    weight = None
    named = schema.of("weight")
    if named and named[0].name in source.columns:
        column = np.array(source.columns[named[0].name])
        column[gaps] = 0
        steps = encode_weight(named[0].name, column, row_name=source.row_name)
        total = torch.cat([torch.zeros(1, dtype=torch.float64), steps.double().cumsum(0)])
        end = (torch.arange(len(steps)) + geometry.horizon).clamp(max=len(steps))
        weight = ((total[end] - total[:-1]) / geometry.horizon).float()
    return Columns({NAME: seen}, Windows(goals, 0, geometry.horizon), weight)


def _fit(
    schema: Schema, values: np.ndarray, train: int, geometry: Geometry, source: Source
) -> Schema:
    """Return the schema with what is learnt from the training steps.

    mean, std  of each series; naive: mean |y(t) - y(t - season)|, the yardstick of MASE
    """
    for k, field in enumerate((*schema.of("target"), *schema.of("input"))):
        known = values[:train, k]
        finite = known[np.isfinite(known)]
        mean, std = (float(finite.mean()), float(finite.std())) if len(finite) else (0.0, 0.0)
        if not std > 1e-12 * max(1.0, abs(mean)):
            raise DataError(
                f"the series '{field.name}' is {mean:g} in every training step of {source.name}",
                "a series that varies",
                f"leave it out with --set schema.{field.name}=ignored",
            )
        apart = np.abs(known[geometry.season :] - known[: -geometry.season])
        near = float(np.nanmean(apart)) if np.isfinite(apart).any() else std
        stats: dict[str, Any] = {"mean": mean, "std": std, "naive": near}
        if k == 0:
            stats[KEY] = geometry.to_dict()
        shape = (geometry.lookback,) if field.role == "input" else (geometry.horizon,)
        schema = schema.with_field(replace(field, stats=stats, shape=shape))
    return schema


# ------------------------------------------------------------------ split


def _borders(source: Source, options: DataOptions) -> tuple[tuple[int, int, int], str]:
    """Return the steps at which training, validation and test end, and the rule in words."""
    if source.given_split is not None:
        borders, reason = _given(source)
        if options.test == 0:
            return (borders[0], borders[1], borders[1]), reason + "; test=0: the test is left out"
        return borders, reason
    n = source.rows
    usual = {"val": 0.1, "test": 0.2 if n < SMALL else 0.1}
    held = {}
    for name, share in (("val", options.val), ("test", options.test)):
        if share is not None and not 0 <= share < 1:
            raise ConfigError(f"{name}={share}", "a share from 0 up to (not) 1", f"{name}=0.1")
        wanted = round(n * (usual[name] if share is None else share))
        held[name] = min(wanted, LARGEST) if share is None else wanted
    train = n - held["val"] - held["test"]
    if train < 1:
        raise ConfigError(
            f"{held['val']:,} steps that validate and {held['test']:,} that test leave none of "
            f"{n:,} to train on", "a sum of val and test below 1", "lower them",
        )  # fmt: skip
    return (train, train + held["val"], n), ""


def _widened(
    borders: tuple[int, int, int], options: DataOptions, geometry: Geometry, source: Source
) -> tuple[tuple[int, int, int], str]:
    """Return borders whose parts hold at least one horizon; said shares are not changed."""
    train, val, n = borders
    held = {"val": val - train, "test": n - val}
    for name, share in (("val", options.val), ("test", options.test)):
        if share == 0 or held[name] >= geometry.horizon:
            continue
        if share is not None:
            raise ConfigError(
                f"{name}={share} gives {held[name]} of {n:,} steps, and horizon={geometry.horizon}",
                "as many steps as are forecast at once",
                f"use {name}={geometry.horizon / n:.2g} or more, or a smaller horizon",
            )
        held[name] = geometry.horizon
    train = n - held["val"] - held["test"]
    need = geometry.lookback + geometry.horizon
    if train < need:
        raise DataError(
            f"{source.name} has {n:,} steps, {max(train, 0):,} of them to train on; "
            f"lookback={geometry.lookback} and horizon={geometry.horizon} need {need:,}",
            "at least one whole window before what is held back",
            (
                f"use lookback={train - geometry.horizon} or less"
                if train > geometry.horizon
                else f"use a horizon below {max(train, 2)}"
            )
            + ", or a longer series",
        )
    parts = [f"the last {held['test']:,} steps test"] if held["test"] else []
    if held["val"]:
        before = " before them" if held["test"] else ""
        parts.append(f"the {held['val']:,} steps{before} validate")
    return (train, train + held["val"], n), "by time: " + (", ".join(parts) or "all steps train")


def _given(source: Source) -> tuple[tuple[int, int, int], str]:
    part = source.given_split
    assert part is not None
    if not (part == TRAIN).any():
        raise DataError(
            f"{source.name}: none of the given parts is for training", "steps to train on",
            "correct the split column, or leave it out",
        )  # fmt: skip
    if (np.diff(part) < 0).any():
        row = int((np.diff(part) < 0).argmax()) + 1
        raise DataError(
            f"{source.name}: the given parts are not in the order of time ({source.row_name(row)})",
            "training steps, then validation, then test",
            "correct the split column, or leave it out",
        )
    ends = [int((part <= code).sum()) for code in (TRAIN, VAL, TEST)]
    sizes = [ends[0], ends[1] - ends[0], ends[2] - ends[1]]
    said = ", ".join(
        f"{n:,} {name}" for n, name in zip(sizes, ("train", "val", "test"), strict=True)
    )
    return (ends[0], ends[1], ends[2]), f"by time, as given: {said} steps"


def _fit_given(borders: tuple[int, int, int], geometry: Geometry, source: Source) -> None:
    """Raise where a part that the data came with is shorter than a forecast."""
    sizes = np.diff(borders).tolist()
    for name, size in zip(("val", "test"), sizes, strict=True):
        if 0 < size < geometry.horizon:
            raise DataError(
                f"the {name} part of {source.name} has {size:,} steps, and "
                f"horizon={geometry.horizon}",
                "as many steps as are forecast at once",
                f"use horizon={size} or less, or give a longer part",
            )


def _windows(
    borders: tuple[int, int, int], geometry: Geometry, values: np.ndarray
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the windows of each part by the step where their forecast begins, and notes."""
    splits: dict[str, np.ndarray] = {}
    lost = 0
    bad = np.concatenate([[0], np.cumsum(np.isnan(values).any(1))])
    begin = 0
    for name, end in zip(("train", "val", "test"), borders, strict=True):
        rows = np.arange(max(begin, geometry.lookback), end - geometry.horizon + 1)
        whole = bad[rows + geometry.horizon] == bad[rows - geometry.lookback]
        lost += int((~whole).sum())
        if whole.any():
            splits[name] = rows[whole].astype(np.int64)
        elif len(rows) or name == "train":
            raise DataError(
                f"no {name} window of {geometry.lookback} + {geometry.horizon} steps is whole",
                "windows without gaps and missing values",
                "use bad_rows=fill, or a smaller lookback",
            )
        begin = end
    if not lost:
        return splits, []
    return splits, [f"{lost:,} windows touch a missing step or value: left out (bad_rows=skip)"]


def _check_weights(columns: Columns, splits: dict[str, np.ndarray], options: DataOptions) -> None:
    for name, ids in splits.items():
        if columns.weight is not None and not columns.weight[torch.from_numpy(ids)].any():
            raise DataError(
                f"every weight of the {name} windows in '{options.weight}' is 0",
                "windows that count",
                "correct the weight column, or leave it out",
            )


# ------------------------------------------------------------------ the form


def _open(source: Source, options: DataOptions, _progress: Progress) -> Parts:
    return open_series(source, options)


def _read(schema: Schema, source: Source, _options: DataOptions, *, target: bool) -> Parts:
    return read_series(dates_as_trained(source, schema), schema, target=target)


def _signature(schema: Schema, _inputs: dict[str, Any], *, outputs: int) -> Signature:
    window = geometry_of(schema)
    width = len(schema.of("target")) + len(schema.of("input"))
    return Signature(numbers=width, length=window.lookback, horizon=window.horizon, outputs=outputs)


FORM = Form("a series", ("forecast",), infer_series, _open, _read, signature=_signature)
