"""Scoring and answering: what `evaluate`, `predict` and the command line end in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipi.api.training import EVAL_BATCH, held_back
from gipi.core import resolve, rundir
from gipi.core.errors import RequestError
from gipi.deploy.folder import is_model_folder
from gipi.deploy.predict import load as load_predictor
from gipi.deploy.predictions import Predictions, joined
from gipi.models import load_weights
from gipi.train import evaluate as evaluate_
from gipi.train.prepare import Own, prepare
from gipi.train.record import check_own, check_same, read_start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.core.resolve import Layer


def predict_inputs(where: str | Path, inputs: Sequence[str]) -> Predictions:
    """Return the answers for several files and folders, one after the other."""
    predictor = load_predictor(where)
    found = [predictor.predict(item) for item in inputs]
    rows = tuple(name for answers in found for name in answers.rows)
    if len(set(rows)) < len(rows):  # "row 1" of two tables
        rows = tuple(f"{item} {r}" for item, said in zip(inputs, found, strict=True)
                     for r in said.rows)  # fmt: skip
    values = joined([answers.values for answers in found])
    return Predictions(rows, values, predictor.classes)


def evaluate_layers(
    subject: str | Path, layer: Layer, *, data: Any = None, weights: str | Path | None = None
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
        return _evaluate_weights(subject, layer, Path(weights))
    if data is not None or is_model_folder(Path(subject)):
        if data is None:
            raise RequestError(
                f"{subject} is a model folder: it has no test rows of its own",
                "data to score it on",
                f"gipi evaluate {subject} --data DATA",
            )
        judged = load_predictor(subject).evaluate(data)
        name = str(data) if isinstance(data, (str, Path)) else type(data).__name__
        return {"data": name, "rows": judged.rows, "metrics": judged.metrics}
    folder = rundir.resolve_run(subject)
    given, about = read_start(folder)
    check_own(Own(), about)
    prepared = prepare([given], Own())
    check_same(prepared, about)
    loaded = load_predictor(folder)
    split = held_back(prepared.dataset)
    stream = prepared.dataset.stream(split, batch_size=EVAL_BATCH, shuffle=False)
    judged = evaluate_(loaded.model, loaded.task, stream, schema=loaded.schema)
    metrics = {f"{split}/{name}": value for name, value in judged.metrics.items()}
    return {"run": str(folder), "data": prepared.dataset.name, "rows": judged.rows,
            "metrics": metrics}  # fmt: skip


def _evaluate_weights(subject: str | Path, layer: Layer, weights: Path) -> dict[str, Any]:
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
    split = held_back(prepared.dataset)
    stream = prepared.dataset.stream(split, batch_size=EVAL_BATCH, shuffle=False)
    judged = evaluate_(prepared.model, prepared.task, stream, schema=prepared.dataset.schema)
    return {
        "data": prepared.dataset.name, "model": config.model, "rows": judged.rows,
        "metrics": {f"{split}/{name}": value for name, value in judged.metrics.items()},
    }  # fmt: skip
