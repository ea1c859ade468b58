"""Prediction: load a run or a model folder, and ask it about new rows.

New rows go through the very functions that prepared the training rows (`data.read_rows` with the
schema of the model folder), so what the model sees does not depend on who asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from gipi import data as data_
from gipi.core.device import pick_device
from gipi.core.errors import DataError, ModelError, RequestError
from gipi.core.rundir import MODEL, resolve_run
from gipi.data.decode import to_pixels
from gipi.deploy.folder import ModelFolder, is_model_folder, load_model_folder
from gipi.deploy.predictions import Predictions, joined
from gipi.train.evaluate import Evaluation, evaluate

if TYPE_CHECKING:
    from torch import nn

    from gipi.core.schema import Schema
    from gipi.data import Dataset
    from gipi.tasks import Task

BATCH_SIZE = 256


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

    def predict(self, data: Any, *, batch_size: int = BATCH_SIZE) -> Predictions:
        """Return the answers for every row of `data`, in its order.

        data  a file, a folder, a table, a frame, arrays, one row as a dictionary, or one picture

        Raises `DataError` that names the file or row that cannot be read or lacks a column.
        """
        rows = self._rows(data, target=False)
        return Predictions(*self._answers(rows, batch_size), self.classes)

    @torch.inference_mode()
    def _answers(
        self, rows: Dataset, batch_size: int
    ) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
        names: list[str] = []
        parts = []
        for batch in rows.stream("all", batch_size=batch_size, shuffle=False).epoch(0):
            outputs = self.task.forward(self.model, batch.to(self.device))
            parts.append(self.task.decode(outputs.float(), self.schema))
            assert batch.ids is not None  # a data set of our own always numbers its rows
            names += rows.row_names(batch.ids.cpu().numpy())
        if not parts:
            raise DataError("there is no row to predict", "at least one row", "check the data")
        return tuple(names), joined(parts)

    def evaluate(self, data: Any, *, batch_size: int = BATCH_SIZE) -> Evaluation:
        """Return loss and metrics on rows with known targets, and the outputs.

        Of data that comes with test rows of its own (a named set, a folder with train and test
        in it) only these are scored; of other data, all rows.

        Raises `DataError` where a target is missing.
        """
        rows = self._rows(data, target=True)
        split = "test" if "test" in rows.splits else "all"
        stream = rows.stream(split, batch_size=batch_size, shuffle=False)
        if next(iter(stream.epoch(0))).target is None:
            name = self.schema.target.name if self.schema.target else "target"
            gaps = next((n for n in rows.notes if n.endswith("not compared")), "")
            raise DataError(
                gaps.partition(":")[0] or f"{rows.name} has no column '{name}'",
                "known targets: an evaluation compares with them",
                "add the column, or use `gipi predict`",
            )
        return evaluate(
            self.model, self.task, stream, schema=self.schema, device=self.device, keep=True
        )

    def _rows(self, data: Any, *, target: bool) -> Dataset:
        return data_.read_rows(one_row(data, self.schema), self.schema, target=target)


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
