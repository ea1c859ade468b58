"""Predictions: what a model said about some rows, and how it is written down."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.atomic import write_file
from gipi.core.errors import ConfigError, did_you_mean
from gipi.data.sources.arrow import parquet_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Predictions:
    """One answer a row, in the order of the data.

    rows     what people call each row: a file name, or "row 17"
    values   "label" (N,) names, "index" (N,), "probability" (N,) of the label and "probabilities"
             (N, K) for classes; "value" (N,) or (N, T) and perhaps "std" for numbers
    classes  the K class names, empty for numbers
    """

    rows: tuple[str, ...]
    values: dict[str, np.ndarray]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records())

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self.records()[place]

    @property
    def labels(self) -> list[str]:
        """The predicted class names; empty for numbers."""
        return [str(v) for v in self.values.get("label", ())]

    def columns(self) -> dict[str, list[Any]]:
        """Return flat columns: row, then label, probability, p_<class> ..., or value, std."""
        out: dict[str, list[Any]] = {"row": list(self.rows)}
        for key, array in self.values.items():
            if key == "index":
                continue
            if key == "probabilities":
                names = self.classes or tuple(map(str, range(array.shape[1])))
                out |= {f"p_{name}": array[:, k].tolist() for k, name in enumerate(names)}
            elif array.ndim > 1:
                flat = array.reshape(len(array), -1)
                out |= {f"{key}_{k}": flat[:, k].tolist() for k in range(flat.shape[1])}
            else:
                out[key] = array.tolist()
        return out

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary a row; the probabilities of all classes under "probabilities"."""
        out: list[dict[str, Any]] = [{"row": row} for row in self.rows]
        for key, array in self.values.items():
            if key == "index":
                continue
            if key == "probabilities" and self.classes:
                for record, p in zip(out, array.tolist(), strict=True):
                    record[key] = dict(zip(self.classes, p, strict=True))
            else:
                for record, value in zip(out, array.tolist(), strict=True):
                    record[key] = value
        return out

    def to_csv(self, path: str | Path) -> Path:
        """Write the flat columns as CSV with a header, UTF-8; return the path."""
        columns = self.columns()
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        write_file(Path(path), text.getvalue())
        return Path(path)

    def to_json(self, path: str | Path) -> Path:
        """Write the records: one JSON list, or one object a line for ".jsonl". NaN becomes null."""
        records = [_finite(r) for r in self.records()]
        lines = [json.dumps(r, ensure_ascii=False, allow_nan=False) for r in records]
        body = "\n".join(lines)
        if Path(path).suffix != ".jsonl":
            body = "[" + ",\n ".join(lines) + "]"
        write_file(Path(path), body + "\n")
        return Path(path)

    def to_parquet(self, path: str | Path) -> Path:
        """Write the flat columns as Parquet; return the path."""
        write_file(Path(path), parquet_bytes(self.columns()))
        return Path(path)

    def save(self, path: str | Path) -> Path:
        """Write in the form that the file's suffix names; raise `ConfigError` for another one."""
        suffix = Path(path).suffix.lower()
        if suffix == ".csv":
            return self.to_csv(path)
        if suffix in {".json", ".jsonl"}:
            return self.to_json(path)
        if suffix == ".parquet":
            return self.to_parquet(path)
        raise ConfigError(
            f"predictions cannot be written as '{suffix or Path(path).name}'",
            "a file that ends in " + ", ".join(SUFFIXES),
            did_you_mean(suffix, SUFFIXES),
        )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the batches of a decoded answer as one."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
