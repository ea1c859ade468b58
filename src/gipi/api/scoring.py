"""Scoring and answering: what `evaluate`, `predict` and the command line end in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipi import tasks
from gipi.api.training import held_back
from gipi.core import resolve, rundir
from gipi.core.errors import RequestError
from gipi.deploy.drawn import final_metrics
from gipi.deploy.folder import is_model_folder
from gipi.deploy.forecasts import floor_scores
from gipi.deploy.predict import load as load_predictor
from gipi.deploy.predict import rows_at_once, seen_from
from gipi.deploy.predictions import Predictions, joined
from gipi.deploy.spans import officially
from gipi.deploy.texts import pairs_of
from gipi.models import load_weights
from gipi.train import evaluate as evaluate_
from gipi.train.prepare import Own, prepare
from gipi.train.record import check_own, check_same, read_start, read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from gipi.core.resolve import Layer
    from gipi.data import Dataset
    from gipi.tasks import Task
    from gipi.train.prepare import Prepared


def predict_inputs(
    where: str | Path, inputs: Sequence[str], *, tta: Sequence[str] = ()
) -> Predictions:
    """Return the answers for several files, folders and texts, one after the other.

    tta  views of each picture whose answers are merged, such as ["flip"]
    """
    predictor = load_predictor(where).seeing(tta)
    inputs = pairs_of(inputs, predictor.schema)
    found = [predictor.predict(item) for item in inputs]
    rows = tuple(name for answers in found for name in answers.rows)
    if len(set(rows)) < len(rows):  # "row 1" of two tables
        rows = tuple(f"{item} {r}" for item, said in zip(inputs, found, strict=True)
                     for r in said.rows)  # fmt: skip
    values = joined([answers.values for answers in found])
    notes = tuple(dict.fromkeys(note for answers in found for note in answers.notes))
    first = found[0]
    return Predictions(rows, values, first.classes, first.target, notes, first.title)


def evaluate_layers(
    subject: str | Path,
    layer: Layer,
    *,
    data: Any = None,
    weights: str | Path | None = None,
    tta: Sequence[str] = (),
) -> dict[str, Any]:
    """Score what a configuration layer asks for; `evaluate` and the command line end here."""
    useless = [*layer.where] if weights is None else ["data"] if data is not None else []
    if useless:
        raise RequestError(
            f"{layer.where.get(useless[0], '--data')} has no effect here",
            "--model, --target and --set with --weights, where the data comes first; --data with a "
            "run, which is scored as it was trained",
            f"leave {useless[0]} out",
        )
    if weights is not None:
        return _evaluate_weights(subject, layer, Path(weights), tta)
    if data is not None or is_model_folder(Path(subject)):
        if data is None:
            raise RequestError(
                f"{subject} is a model folder: it has no test rows of its own",
                "data to score it on",
                f"gipi evaluate {subject} --data DATA",
            )
        loaded = load_predictor(subject).seeing(tta)
        judged = loaded.evaluate(data)
        name = str(data) if isinstance(data, (str, Path)) else type(data).__name__
        metrics, notes = final_metrics(judged, loaded.task, loaded.schema)
        return {"data": name, "rows": judged.rows, "metrics": metrics, **notes}
    folder = rundir.resolve_run(subject)
    rundir.check_begun(folder)
    given, about = read_start(folder)
    check_own(Own(), about)
    prepared = prepare([given], Own(), again=True, tokenizer=read_tokenizer(folder))
    check_same(prepared, about)
    loaded = load_predictor(folder).seeing(tta)
    found = _score(prepared.dataset, loaded.model, loaded.task)
    return {"run": str(folder), **found}


def _score(dataset: Dataset, model: nn.Module, task: Task) -> dict[str, Any]:
    """Return {"data", "rows", "metrics"} on the rows that are held back."""
    split = held_back(dataset)
    size, dense = rows_at_once(dataset.schema), task.decode_original is not None
    stream = dataset.stream(split, batch_size=size, shuffle=False)
    keep = dense or dataset.schema.task == "answer"
    judged = evaluate_(model, task, stream, schema=dataset.schema, keep=keep)
    judged = officially(judged, dataset.source, dataset.schema)
    metrics, notes = final_metrics(judged, task, dataset.schema)
    named = {f"{split}/{name}": value for name, value in metrics.items()}
    naive = floor_scores(dataset, split, task)
    floors = {"baselines": {f"{split}/{task.primary}": naive}} if naive else {}
    return {"data": dataset.name, "rows": judged.rows, "metrics": named, **notes, **floors}


def _unsmoothed(prepared: Prepared) -> Task:
    """Return the task without label smoothing that only our recipe would have trained with.

    Others trained the weights, by a loss that is not known: theirs is the plain one.
    """
    name, options = prepared.task.spec
    asked = prepared.origins.get("task.label_smoothing", "recipe")
    if not options.get("label_smoothing") or not asked.startswith("recipe"):
        return prepared.task
    return tasks.build(name, {**options, "label_smoothing": 0.0})


def _evaluate_weights(
    subject: str | Path, layer: Layer, weights: Path, tta: Sequence[str]
) -> dict[str, Any]:
    """Score weights from elsewhere on the test rows of named data."""
    config = resolve.resolve(layer).config
    if config.model is None:
        raise RequestError(
            f"{weights} says nothing about its model",
            "the model of the weights",
            "name it with --model, see `gipi list models`",
        )
    prepared = prepare([layer, resolve.layer_from_values({"data": str(subject)})], Own())
    print("\n".join(load_weights(prepared.model, weights).lines()), flush=True)  # noqa: T201
    task = seen_from(_unsmoothed(prepared), prepared.dataset.schema, tta)
    found = _score(prepared.dataset, prepared.model, task)
    return {"data": found.pop("data"), "model": config.model, **found}
