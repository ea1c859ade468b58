"""Prediction: load a run or a model folder, and ask it about new rows.

New rows go through the very functions that prepared the training rows (`data.read_rows` with the
schema of the model folder), so what the model sees does not depend on who asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from gipi import data as data_
from gipi.core.device import pick_device
from gipi.core.errors import DataError, ModelError, RequestError
from gipi.core.rundir import MODEL, check_begun, resolve_run
from gipi.core.schema import PRETEXT
from gipi.data import text_fields
from gipi.data.decode import to_pixels
from gipi.data.source import is_missing
from gipi.data.sources.folder import is_image
from gipi.deploy.entities import placed
from gipi.deploy.folder import ModelFolder, is_model_folder, load_model_folder
from gipi.deploy.forecasts import as_table
from gipi.deploy.predictions import Predictions, joined
from gipi.deploy.spans import by_question, officially
from gipi.deploy.texts import as_texts
from gipi.tasks.views import with_views
from gipi.train.evaluate import Evaluation, evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema
    from gipi.data import Dataset
    from gipi.tasks import Task

BATCH_SIZE = 256
PIXELS = 1 << 22  # of the pictures of one batch
LOGITS = 1 << 25  # of one batch, where tokens are answered with a score of every id
TOKENS = 1 << 15  # of the texts of one batch, as wide as the longest


@dataclass(frozen=True)
class Predictor:
    """A trained model with everything it needs to answer.

    model   the module, in evaluation mode, on `device`
    schema  what the columns of the data are, as fitted on the training rows
    task    how outputs become answers
    """

    folder: ModelFolder
    task: Task
    device: torch.device

    @property
    def model(self) -> nn.Module:
        """The module itself: a plain `torch.nn.Module`."""
        return self.folder.model

    @property
    def schema(self) -> Schema:
        """What the columns of the data are."""
        return self.folder.schema

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the outputs; empty for numbers."""
        return self.folder.schema.classes

    def seeing(self, tta: Sequence[str]) -> Predictor:
        """Return a predictor that merges its answers over several views of each picture.

        tta  steps of the views, such as ["flip", "zoom"]; empty: the picture as it is
        """
        return replace(self, task=seen_from(self.task, self.schema, tta))

    def predict(self, data: Any, *, batch_size: int | None = None) -> Predictions:
        """Return the answers for every row of `data`, in its order; of a series what comes next.

        data        a file, a folder, a table, a frame, arrays, one row as a dictionary, one
                    picture, one text or a list of texts; masks, boxes and points come back in
                    pixels of the original pictures
        batch_size  rows at once; None: by the size of a row

        Raises `DataError` that names the file or row that cannot be read or lacks a column.
        """
        if self.task.name == "generate":
            raise RequestError(
                "the model goes on with texts: it has no answer for a row",
                "a prompt to go on from, or a text to judge",
                "use `gipi generate RUN TEXT`, or `gipi score RUN TEXT`",
            )
        if self.task.name in PRETEXT:
            raise RequestError(
                "the model was trained on text alone: it has no answer for a row",
                "a model of a task with answers",
                "start one from it: gipi train DATA --set pretrained=RUN",
            )
        rows = self._rows(data, target=False)
        names, values = self._answers(rows, batch_size or rows_at_once(self.schema))
        if self.task.name == "forecast":
            return as_table(values, rows, rows.notes)
        target = self.schema.target.name if self.schema.target else ""
        said = tuple(n for n in rows.notes if n.startswith("texts: "))
        return Predictions(names, values, self.classes, target, (*unseen(rows), *said))

    @torch.inference_mode()
    def _answers(
        self, rows: Dataset, batch_size: int
    ) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
        names: list[str] = []
        parts, numbers = [], []
        for batch in rows.stream("all", batch_size=batch_size, shuffle=False).epoch(0):
            outputs = self._outputs(batch.to(self.device)).float()
            assert batch.ids is not None  # a data set of our own always numbers its rows
            ids = batch.ids.cpu().numpy()
            parts.append(self._said(outputs, rows, ids))
            numbers.append(ids)
            names += rows.row_names(ids)
        if not parts:
            raise DataError("there is no row to predict", "at least one row", "check the data")
        found = joined(parts)
        if not text_fields(self.schema):
            return tuple(names), found
        order = np.argsort(np.concatenate(numbers), kind="stable")  # texts come by length
        found = {k: v[order] for k, v in found.items()}
        if self.schema.task == "answer":
            ids = np.concatenate(numbers)[order]
            asked, found = by_question(found, rows.source, ids, self.schema)
            return tuple(asked), found
        return tuple(names[i] for i in order), found

    def _outputs(self, batch: Batch) -> Tensor:
        """Return what the task decodes: one forward pass, or an answer of its own making."""
        if self.task.predict is not None:
            return self.task.predict(self.model, batch, self.schema)
        return self.task.forward(self.model, batch)

    def _said(self, outputs: Tensor, rows: Dataset, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return answers, in pixels of the original pictures where they lie on pictures."""
        if self.task.decode_original is None:
            said = self.task.decode(outputs, self.schema)
            return placed(said, rows.source, ids) if self.schema.task == "tag" else said
        placement, sizes = rows.placement(ids), rows.original_size(ids)
        return self.task.decode_original(outputs, self.schema, placement, sizes)

    def evaluate(self, data: Any, *, batch_size: int | None = None) -> Evaluation:
        """Return loss and metrics on rows with known targets, and the outputs.

        Of data that comes with test rows of its own (a named set, a folder with train and test
        in it) only these are scored; of other data, all rows.

        Raises `DataError` where a target is missing.
        """
        rows = self._rows(data, target=True)
        split = "test" if "test" in rows.splits else "all"
        size = batch_size or rows_at_once(self.schema)
        stream = rows.stream(split, batch_size=size, shuffle=False)
        if next(iter(stream.epoch(0))).target is None:
            name = self.schema.target.name if self.schema.target else "target"
            gaps = next((n for n in rows.notes if n.endswith("not compared")), "")
            raise DataError(
                gaps.partition(":")[0] or f"{rows.name} has no column '{name}'",
                "known targets: an evaluation compares with them",
                "add the column, or use `gipi predict`",
            )
        judged = evaluate(
            self.model, self.task, stream, schema=self.schema, device=self.device, keep=True
        )
        return officially(judged, rows.source, self.schema)

    def _rows(self, data: Any, *, target: bool) -> Dataset:
        found = one_row(as_texts(data, self.schema), self.schema)
        _right_kind(found, self.schema)
        try:
            return data_.read_rows(found, self.schema, target=target)
        except DataError as error:
            raise DataError(error.found, error.needed, _later(error.do)) from error


def _later(do: str) -> str:
    """Return advice without settings that only training has."""
    return do.replace(", or leave them out with --set bad_rows=skip", "").replace(
        "use --set bad_rows", "train with --set bad_rows"
    )


def seen_from(task: Task, schema: Schema, tta: Sequence[str]) -> Task:
    """Return `task` with answers merged over the views that `tta` spans; itself without any."""
    return with_views(task, schema, views=data_.tta_views(tta)) if tta else task


def rows_at_once(schema: Schema) -> int:
    """Return how many rows go through the model at once where nothing is learned from them."""
    texts, written = text_fields(schema), schema.of("target", "text")
    if written:
        longest = max(written[0].stats["length"], texts[0].stats["length"])
        return max(1, min(BATCH_SIZE, LOGITS // (int(longest) * int(texts[0].stats["vocab"]))))
    if texts:
        length = max(int(texts[0].stats["length"]), 1)
        most = TOKENS // length
        if schema.task == "generate":
            most = min(most, LOGITS // (length * int(texts[0].stats["vocab"])))
        if schema.task in PRETEXT:  # the head for words answers at a quarter of the places at most
            most = min(most, 4 * LOGITS // (length * int(texts[0].stats["vocab"])))
        return max(1, min(BATCH_SIZE, most))
    picture = next((f for f in schema.inputs if f.kind == "image" and len(f.shape) == 3), None)
    if picture is None:
        return BATCH_SIZE
    return max(1, min(BATCH_SIZE, PIXELS // (picture.shape[1] * picture.shape[2])))


def unseen(rows: Dataset) -> list[str]:
    """Return a sentence for each category column with values that training never saw."""
    codes = rows.columns.inputs.get("categories")
    fields = [f for f in rows.schema.inputs if f.kind == "category"]
    if not isinstance(codes, torch.Tensor):
        return []
    notes = []
    for place, field in enumerate(fields):
        column = rows.source.columns[field.name]
        if not isinstance(column, np.ndarray):
            continue
        strange = (codes[:, place] == 0).numpy() & ~is_missing(column)
        if not strange.any():
            continue
        found = list(dict.fromkeys(str(v) for v in column[strange].tolist()))
        shown = ", ".join(f"'{v[:40]}'" for v in found[:5]) + (", ..." if len(found) > 5 else "")
        rare = " or saw too rarely" if field.stats.get("pooled") else ""
        notes.append(
            f"column '{field.name}': {int(strange.sum())} of {len(strange)} rows hold values that "
            f"training never saw{rare}: {shown}; they count as unknown"
        )
    return notes


def _right_kind(data: Any, schema: Schema) -> None:
    """Raise where a picture is given to a model of tables, or a table to a model of pictures."""
    pictures = any(f.kind == "image" for f in schema.inputs)
    if isinstance(data, Image.Image) or _is_picture_file(data):
        given = "a picture" if isinstance(data, Image.Image) else f"{data} is a picture"
    else:
        return
    if not pictures:
        names = ", ".join(f"'{f.name}'" for f in schema.inputs[:6])
        more = f" and {len(schema.inputs) - 6} more" if len(schema.inputs) > 6 else ""
        raise DataError(
            f"{given}, and the model was trained on a table",
            f"rows with the columns {names}{more}",
            "give a table (CSV, Parquet, JSON lines), or use a model that was trained on pictures",
        )


def _is_picture_file(data: Any) -> bool:
    if not isinstance(data, (str, Path)):
        return False
    return is_image(Path(data)) and Path(data).is_file()


def load(
    where: str | Path, *, module: nn.Module | None = None, device: str | None = None
) -> Predictor:
    """Load the model of a run ("runs/last", a run folder) or of a model folder.

    module  the module to fill, for a model that was not built by name
    device  where it runs; default the best of this machine

    Raises `RequestError` where there is nothing, `CheckpointError` for damage, `ModelError` where
    the module does not fit.
    """
    path = Path(where)
    if not is_model_folder(path):
        run = resolve_run(where)
        path = run / MODEL
        if not path.is_dir():
            check_begun(run)
            raise RequestError(
                f"the run {run} has no model yet: it was stopped before its end",
                "a finished run",
                f"finish it with `gipi resume {run}`",
            )
    target = pick_device(device)
    folder = load_model_folder(path, module=module, device=target)
    if folder.task is None:
        raise ModelError(
            f"{path} was trained with a loss function of your own",
            "a task that gipi knows by name, to turn outputs into answers",
            "load the module with gipi.deploy.load_model_folder and call it yourself",
        )
    return Predictor(folder, folder.task, target)


def one_row(data: Any, schema: Schema) -> Any:
    """Return a single sample as a table or batch of one; anything else unchanged.

    A dictionary of scalars, or a pandas Series of them, is one row of a table; an array with the
    axes of one picture (H, W) or (H, W, C), or of one table row (F,), is a batch of one.
    """
    if type(data).__name__ == "Series" and hasattr(data, "to_dict"):  # a row of a pandas frame
        data = {str(key): value for key, value in data.to_dict().items()}
    if isinstance(data, dict) and data and not any(_is_column(v) for v in data.values()):
        return {key: [value] for key, value in data.items()}
    if isinstance(data, torch.Tensor):
        data = data.detach().cpu().numpy()
    picture = next((f for f in schema.inputs if f.kind == "image"), None)
    if isinstance(data, Image.Image) and picture is not None:
        return np.asarray(to_pixels(data, picture.shape[0]))[None]
    if isinstance(data, np.ndarray):
        single = data.ndim == 2 or (data.ndim == 3 and data.shape[2] in {1, 3, 4})
        if single if picture is not None else data.ndim == 1:
            return data[None]
    return data


def _is_column(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray, torch.Tensor)) or hasattr(value, "to_numpy")
