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

from gipi.core.atomic import storage_error, write_file
from gipi.core.errors import ConfigError, did_you_mean
from gipi.data.sources.arrow import parquet_bytes
from gipi.deploy import answers, paint

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Predictions:
    """One answer a row, in the order of the data.

    rows     what people call each row: a file name, or "row 17"
    values   by task, one entry a row:
             classify  "label" names, "index", "probability" of the label, "probabilities" (N, K);
                       several labels a row: "labels" lists of names, and "probabilities"
             regress   "value" (N,) or (N, T) and perhaps "std"
             forecast  "forecast" (H, K): a row is a step ahead, named by its date
             segment   "mask" uint8 masks of the original pictures' sizes, 255 where nothing is said
             detect    "boxes" (k, 4), "scores", "index" and "labels", one array a row
             pose      "points" (N, K, 3) x, y, confidence
             translate, summarise  "text"
             tag       "tags", "tokens", "text" and "entities" (type, text, start, end), lists a row
             answer    "answer" texts, "" for none, their "start" and "end" in the context (-1),
                       and "margin", how far each lies above "no answer"
             coordinates are pixels of the original pictures, x right, y down
    classes  the names of classes, points or series, empty for numbers
    target   the name of the predicted column, under which a number is written
    notes    what people should know of these answers, such as categories that training never saw
    title    of the first column: "row", or the column of time of a forecast
    """

    rows: tuple[str, ...]
    values: dict[str, np.ndarray]
    classes: tuple[str, ...] = ()
    target: str = ""
    notes: tuple[str, ...] = ()
    title: str = "row"

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

    @property
    def places(self) -> bool:
        """Whether the answers lie on the pictures: masks, boxes or points."""
        return answers.kind_of(self.values) != ""

    def columns(self) -> dict[str, list[Any]]:
        """Return flat columns: row, then label, probability, p_<class> ..., or the value and std.

        Boxes have one line an object, so a row without any has none; points have x, y and
        confidence of each; a mask has the share of each class.
        """
        if self.places:
            return answers.columns(self.rows, self.values, self.classes)
        out: dict[str, list[Any]] = {self.title: list(self.rows)}
        for key, array in self.values.items():
            if key == "index":
                continue
            name = self._name(key)
            if key == "forecast":
                out |= {c: array[:, k].tolist() for k, c in enumerate(self.classes)}
            elif key == "probabilities":
                names = self.classes or tuple(map(str, range(array.shape[1])))
                out |= {f"p_{c}": array[:, k].tolist() for k, c in enumerate(names)}
            elif key == "labels":
                out[name] = [", ".join(found) for found in array.tolist()]
            elif array.ndim > 1:
                flat = array.reshape(len(array), -1)
                out |= {f"{name}_{k}": flat[:, k].tolist() for k in range(flat.shape[1])}
            else:
                out[name] = array.tolist()
        return out

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary a row; the probabilities of all classes under "probabilities"."""
        if self.places:
            return answers.records(self.rows, self.values, self.classes)
        out: list[dict[str, Any]] = [{self.title: row} for row in self.rows]
        for key, array in self.values.items():
            if key == "index":
                continue
            if key == "forecast":
                for record, steps in zip(out, array.tolist(), strict=True):
                    record |= dict(zip(self.classes, steps, strict=True))
            elif key == "probabilities" and self.classes:
                for record, p in zip(out, array.tolist(), strict=True):
                    record[key] = dict(zip(self.classes, p, strict=True))
            else:
                for record, value in zip(out, array.tolist(), strict=True):
                    record[self._name(key)] = value
        return out

    def _name(self, key: str) -> str:
        """Return the name of a column: that of the target for its value."""
        taken = ("row", "std", *self.values)
        return self.target if key == "value" and self.target and self.target not in taken else key

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

    def to_folder(self, path: str | Path) -> Path:
        """Write predictions.json and .csv into a folder, texts as lines, each mask as a PNG.

        The values of a mask's pixels are the class indices; its size is that of the picture.
        Returns the folder. Raises `StorageError` where it cannot be written.
        """
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from error
        if "mask" in self.values:
            names = answers.file_names(self.rows)
            for name, mask in zip(names, self.values["mask"], strict=True):
                write_file(folder / name, paint.mask_png(mask, len(self.classes)))
        if "text" in self.values and not self.places:  # a line a row, as translations are compared
            lines = [" ".join(str(text).split()) for text in self.values["text"].tolist()]
            write_file(folder / "predictions.txt", "\n".join(lines) + "\n")
        self.to_json(folder / "predictions.json")
        self.to_csv(folder / "predictions.csv")
        return folder

    def save(self, path: str | Path) -> Path:
        """Write in the form that the file's suffix names, without one into a folder.

        Raises `ConfigError` for another suffix.
        """
        suffix = Path(path).suffix.lower()
        if not suffix:
            return self.to_folder(path)
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
    return {key: np.concatenate([_rows(part[key]) for part in parts]) for key in parts[0]}


def _rows(values: Any) -> np.ndarray:
    """Return one entry a row as an array: an array of objects where entries differ in shape."""
    if isinstance(values, np.ndarray):
        return values
    out = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        out[i] = value
    return out
