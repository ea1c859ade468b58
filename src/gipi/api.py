"""The functions of the README: train, resume, evaluate, load, open, model, fit.

Wherever a name is accepted the object is accepted too: data may be a frame, arrays or a torch
Dataset, a model any `nn.Module`, a task a `Task`. Nothing here trains or reads by itself; it hands
what was asked to `train`, `data`, `deploy` and `report`, in that order.
"""

from __future__ import annotations

import json
import time as time_
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipi import data as data_
from gipi import models
from gipi import report as report_
from gipi.core import dist, resolve, rundir
from gipi.core.atomic import write_file
from gipi.core.device import pick_device
from gipi.core.errors import RequestError
from gipi.core.schema import Signature
from gipi.deploy.evidence import write_evidence
from gipi.deploy.folder import is_model_folder, save_model_folder
from gipi.deploy.predict import load as load_predictor
from gipi.deploy.predictions import Predictions, joined
from gipi.deploy.weights import load_weights
from gipi.report.tensorboard import TensorBoard
from gipi.train import Setup, fit
from gipi.train import evaluate as evaluate_
from gipi.train.precision import autocast
from gipi.train.prepare import Own, Prepared, columns, data_options, prepare
from gipi.train.progress import Progress
from gipi.train.record import (
    RESULT,
    check_larger,
    check_own,
    check_same,
    read_start,
    result,
    write_start,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import nn

    from gipi.core.config import Config
    from gipi.core.events import Observer
    from gipi.core.resolve import Layer
    from gipi.deploy.predict import Predictor
    from gipi.tasks import Task
    from gipi.train import State

__all__ = ["Run", "evaluate", "fit", "load", "model", "open", "resume", "train"]

RESERVE_S = 0.8  # seconds that the model folder, the report and the exit take after the evaluation
EVAL_BATCH = 256


@dataclass(frozen=True)
class Run:
    """A run folder and what can be asked of it.

    path    the folder
    result  what `gipi train --json` prints; empty while the run is not finished
    module  the user's own module, where the model has no name
    """

    path: Path
    result: dict[str, Any] = field(default_factory=dict)
    module: nn.Module | None = field(default=None, repr=False, compare=False)

    @property
    def metrics(self) -> dict[str, float]:
        """Scores such as {"test/accuracy": 0.98}; of the last evaluation while unfinished."""
        if self.result:
            return dict(self.result["metrics"])
        last: dict[str, Any] = next(
            (r for r in reversed(self.rows) if any(k.startswith("val/") for k in r)), {}
        )
        return {k: v for k, v in last.items() if k.startswith("val/")}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Everything that was logged, one dictionary a row."""
        return rundir.read_rows(self.path / rundir.ROWS)

    @cached_property
    def predictor(self) -> Predictor:
        """The trained model with all that prediction needs."""
        return load_predictor(self.path, module=self.module)

    @property
    def model(self) -> nn.Module:
        """The trained model: a plain `torch.nn.Module` in evaluation mode."""
        if self.module is not None and self.result:
            return self.module.eval()
        return self.predictor.model

    def predict(self, data: Any) -> Predictions:
        """Return the answers for a file, folder, table, frame, arrays, or one row."""
        return self.predictor.predict(data)

    def report(self, *, samples: bool = True) -> Path:
        """Write report.html again and return its path; `samples` False hides data rows."""
        return report_.write_report(self.path, samples=samples)

    def summary(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return self.result or {"run": str(self.path), "metrics": self.metrics}

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        page = self.path / rundir.REPORT
        if not page.exists():
            return f"<code>{self.path}</code>"
        text = page.read_text(encoding="utf-8").replace("&", "&amp;").replace('"', "&quot;")
        return f'<iframe srcdoc="{text}" width="100%" height="640" style="border:0"></iframe>'


def train(
    data: Any = None,
    target: str | None = None,
    *,
    model: str | nn.Module | None = None,
    task: str | Task | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    time: float | str | None = None,
    batch_size: int | str | None = None,
    lr: float | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    observers: Sequence[Observer] = (),
    quiet: bool = False,
) -> Run:
    """Train on `data` and return the finished run.

    data      name, path, DataFrame, (X, y) arrays or torch Dataset; None: the embedded digits
    time      budget such as "10m"; exactly one of epochs, steps, time, or none of them
    config    YAML file; settings: any key of it, such as {"model.widths": [256, 128]}
    observers further watchers of the loop, see `gipi.core.events`

    Raises `RequestError` when the request is wrong, `RunError` when training fails.
    """
    flat = {"data": data, "target": target, "model": model, "task": task, "epochs": epochs,
            "steps": steps, "time": time, "batch_size": batch_size, "lr": lr, "seed": seed,
            "out": out}  # fmt: skip
    named, own = _separate(flat)
    layers = [] if config is None else [resolve.layer_from_file(Path(config))]
    layers.append(resolve.layer_from_values(named, settings=settings))
    return train_layers(layers, own=own, observers=observers, quiet=quiet)


def train_layers(
    layers: Sequence[Layer],
    *,
    own: Own | None = None,
    observers: Sequence[Observer] = (),
    quiet: bool = False,
) -> Run:
    """Train what configuration layers ask for; `train` and the command line end here."""
    began = time_.time()
    own = own or Own()
    prepared = prepare(layers, own)
    config = prepared.config
    dist.start(pick_device(config.device))
    first, folder = dist.rank() == 0, Path()
    if first:
        folder = rundir.create_run(_path(config.out), prepared.dataset.name)
    folder, quiet = Path(dist.from_first(str(folder))), quiet or not first
    with rundir.lock(folder) if first else nullcontext():
        if first:
            write_start(folder, prepared, own)
        fields = columns(prepared.dataset.schema)
        _say(quiet, f"run: {folder}", *fields, *prepared.choices, _origins(prepared))
        return _work(folder, prepared, observers, quiet=quiet, began=began, again=False)


def resume(
    run: str | Path | Run,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    time: float | str | None = None,
    data: Any = None,
    model: nn.Module | None = None,
    task: Task | None = None,
    observers: Sequence[Observer] = (),
    quiet: bool = False,
) -> Run:
    """Go on with a run from its last good checkpoint, with a new budget where one is given.

    data, model, task  the objects that the run was started with, where they had no name

    Raises `RequestError` when there is no such run or the data has changed.
    """
    budget = resolve.layer_from_values({"epochs": epochs, "steps": steps, "time": time})
    where = run.path if isinstance(run, Run) else run
    own = Own(data, model, task)
    return resume_layers(where, budget, own=own, observers=observers, quiet=quiet)


def resume_layers(
    where: str | Path,
    budget: Layer,
    *,
    own: Own | None = None,
    observers: Sequence[Observer] = (),
    quiet: bool = False,
) -> Run:
    """Go on with the run `where`; `resume` and the command line end here."""
    began = time_.time()
    folder = rundir.resolve_run(where)
    own = own or Own()
    if (folder / RESULT).exists() and not budget.values:
        _say(quiet, f"{folder} is finished; a larger budget goes on, for instance --epochs")
        return load(folder)
    given, about = read_start(folder)
    check_own(own, about)
    prepared = prepare([given, budget], own)
    check_same(prepared, about)
    if budget.values:
        check_larger(folder, prepared)
    dist.start(pick_device(prepared.config.device))
    first = dist.rank() == 0
    quiet = quiet or not first
    with rundir.lock(folder) if first else nullcontext():
        if first and budget.values:
            write_start(folder, prepared, own)
        _say(quiet, f"run: {folder} (resumed)")
        return _work(folder, prepared, observers, quiet=quiet, began=began, again=True)


def evaluate(
    subject: str | Path | Run,
    *,
    data: Any = None,
    model: str | None = None,
    weights: str | Path | None = None,
    target: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score a run on its test rows or on `data`; or foreign `weights` of `model` on named data.

    subject  a run or model folder; with `weights`, the data
    Returns {"data", "rows", "metrics", ...}. Raises `RequestError` where something is missing.
    """
    layer = resolve.layer_from_values({"model": model, "target": target}, settings=settings)
    where = subject.path if isinstance(subject, Run) else subject
    return evaluate_layers(where, layer, data=data, weights=weights)


def load(run: str | Path, *, model: nn.Module | None = None) -> Run:
    """Open a run: its folder, its name in runs/, or "runs/last".

    model  a module of your own that the run was started with, to be filled with its weights

    Raises `RequestError` with the nearest name when there is none, `ModelError` where the weights
    do not fit the module.
    """
    folder = rundir.resolve_run(run)
    result = folder / RESULT
    opened = Run(folder, json.loads(result.read_text()) if result.exists() else {}, model)
    if model is not None:
        _ = opened.predictor  # fills it now, not when it is first asked
    return opened


def open(  # noqa: A001  the README's name; the built-in is not used here
    data: Any, target: str | None = None, *, settings: Mapping[str, Any] | None = None
) -> data_.Dataset:
    """Open data as `train` would: schema inferred, split, ready to stream.

    settings  any data key of the configuration, such as {"schema.age": "number", "val": 0.2}
    """
    layer = resolve.layer_from_values({"target": target}, settings=settings)
    return data_.open_data(data, data_options(resolve.resolve(layer).config))


def model(
    name: str,
    *,
    classes: int = 1,
    image: tuple[int, int, int] | None = None,
    numbers: int = 0,
    cardinalities: tuple[int, ...] = (),
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a model by name for inputs of a known shape.

    classes  width of the head; image: (C, H, W); numbers: float columns of a table

    >>> type(model("lenet5", classes=10, image=(1, 28, 28))).__name__
    'LeNet5'
    """
    signature = Signature(image, numbers, cardinalities, classes)
    return models.build(name, signature, seed=seed, options=dict(options or {}))


# ---------------------------------------------------------------------------- the work


def _work(
    folder: Path,
    prepared: Prepared,
    observers: Sequence[Observer],
    *,
    quiet: bool,
    began: float,
    again: bool,
) -> Run:
    """Train, judge once on the test rows, and write model, evaluation and report."""
    config, dataset = prepared.config, prepared.dataset
    device = pick_device(config.device)
    stream, val = _streams(prepared, device)
    split = _held_back(dataset)
    watchers = _watchers(folder, config, observers, quiet=quiet)
    state = fit(
        prepared.model, prepared.task, stream, config, val=val, observers=watchers, out=folder,
        schema=dataset.schema, device=device, resume=again, reserve_s=RESERVE_S,
        reserve_rows=len(dataset.splits.get(split, ())),
    )  # fmt: skip
    first = dist.rank() == 0
    dist.stop()  # what follows is the work of one process
    if not first:
        return Run(folder)
    return _conclude(folder, prepared, state, steps=stream.steps, quiet=quiet, began=began)


def _conclude(
    folder: Path, prepared: Prepared, state: State, *, steps: int, quiet: bool, began: float
) -> Run:
    """Judge the restored weights once and write what a finished run leaves behind."""
    config, dataset = prepared.config, prepared.dataset
    split, device = _held_back(dataset), pick_device(config.device)
    rows = rundir.read_rows(folder / rundir.ROWS)
    facts = result(folder, prepared, state, rows=rows, steps=steps)
    facts["metrics"], primary = _judge(folder, prepared, state, split, device)
    facts["weights_sha256"] = save_model_folder(
        folder / rundir.MODEL, model=prepared.model, model_name=prepared.model_name,
        options=config.model_options, signature=prepared.signature, schema=dataset.schema,
        task_spec=prepared.task.spec, extra={"data": dataset.name, "metrics": facts["metrics"]},
    )  # fmt: skip
    facts["seconds"] = round(time_.time() - began, 2)
    write_file(folder / RESULT, json.dumps(facts, indent=1))
    page = report_.write_report(folder, samples=config.samples)
    facts["seconds"] = round(time_.time() - began, 2)
    write_file(folder / RESULT, json.dumps(facts, indent=1))
    _say(quiet, *_summary(facts, primary, state, page))
    return Run(folder, facts, prepared.model if prepared.model_name is None else None)


def _streams(
    prepared: Prepared, device: torch.device
) -> tuple[data_.RowStream, data_.RowStream | None]:
    """Return this rank's stream of training rows, and that of validation rows where there are."""
    config, dataset = prepared.config, prepared.dataset
    size = _batch_size(config.batch_size, len(dataset.splits["train"]))
    stream = dataset.stream(
        "train", batch_size=size, seed=config.seed, augment=config.augment or (), device=device,
        mode=config.stream, workers=config.workers, rank=dist.rank(), world=dist.world(),
    )  # fmt: skip
    val = None
    if len(dataset.splits.get("val", ())):
        val = dataset.stream("val", batch_size=EVAL_BATCH, shuffle=False, device=device,
                             rank=dist.rank(), world=dist.world())  # fmt: skip
    return stream, val


def _watchers(
    folder: Path, config: Config, observers: Sequence[Observer], *, quiet: bool
) -> list[Observer]:
    """Return the user's observers, the progress line and the sink for TensorBoard."""
    watchers = [*observers] if quiet else [*observers, Progress()]
    if config.tensorboard and dist.rank() == 0:
        watchers.append(TensorBoard(folder / "tensorboard"))
    return watchers


def _judge(
    folder: Path, prepared: Prepared, state: State, split: str, device: torch.device
) -> tuple[dict[str, float], dict[str, Any] | None]:
    """Score the restored weights on the rows held back; write the evaluation folder."""
    dataset, setup = prepared.dataset, Setup.from_dict(state.setup)
    stream = dataset.stream(split, batch_size=EVAL_BATCH, shuffle=False, device=device)
    judged = evaluate_(
        prepared.model, prepared.task, stream, schema=dataset.schema, device=device,
        autocast=autocast(setup, device), layout=setup.memory_format, keep=True,
    )  # fmt: skip
    found = write_evidence(
        folder / rundir.EVALUATION, judged, prepared.task, dataset.schema, split=split,
        rows=dataset if prepared.config.samples else None, samples=prepared.config.samples,
    )  # fmt: skip
    metrics = {f"{split}/{name}": value for name, value in judged.metrics.items()}
    return {**state.metrics, **metrics}, found.get("primary")


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _held_back(dataset: data_.Dataset) -> str:
    """Return the split that judges: test, else val, else (nothing was held back) train."""
    return next(s for s in ("test", "val", "train") if len(dataset.splits.get(s, ())))


def _batch_size(wanted: int | str, rows: int) -> int:
    """Return the rows of a step: all of them for "full", never more than there are."""
    return rows if wanted == "full" else min(int(wanted), rows)


def _separate(given: Mapping[str, Any]) -> tuple[dict[str, Any], Own]:
    """Part a call into configuration values and a user's own objects."""
    named = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
    own: dict[str, Any] = {}
    for key in ("data", "model", "task"):
        if named[key] is not None and not isinstance(named[key], str):
            own[key] = named[key]
            named[key] = None
    return named, Own(**own)


def _say(quiet: bool, *lines: str) -> None:  # noqa: FBT001
    """Print what people want to know, unless they asked for quiet."""
    if not quiet:
        print("\n".join(line for line in lines if line), flush=True)  # noqa: T201


def _origins(prepared: Prepared) -> str:
    """Return one line with every value that is no default, and where it is from."""
    parts = []
    for key, place in prepared.origins.items():
        head, _, option = key.partition(".")
        value = getattr(prepared.config, head)
        options = getattr(prepared.config, resolve.SECTIONS[head]) if option else {}
        parts.append(f"{key}={options.get(option) if option else value} ({place})")
    return "settings: " + ", ".join(parts) if parts else ""


def _summary(
    facts: dict[str, Any], primary: dict[str, Any] | None, state: State, page: Path
) -> list[str]:
    """Return the last lines: where the weights are from, the score, the report."""
    lines = []
    if state.best is not None:
        lines.append(f"best weights: those of step {state.best.step}, restored")
    scores = [f"{name} {value:.5g}" for name, value in facts["metrics"].items()]
    lines.append("  ".join(scores))
    if primary is not None:
        low, high = primary["low"], primary["high"]
        lines.append(
            f"{primary['name']} {primary['value']:.5g}, 95 % interval {low:.5g}-{high:.5g}"
        )
    lines.append(f"{facts['seconds']:.1f} s, {facts['steps']} steps, {facts['precision']}")
    lines.append(f"report: {page}")
    return lines


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
    split = _held_back(prepared.dataset)
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
    load_weights(prepared.model, weights)
    split = _held_back(prepared.dataset)
    stream = prepared.dataset.stream(split, batch_size=EVAL_BATCH, shuffle=False)
    judged = evaluate_(prepared.model, prepared.task, stream, schema=prepared.dataset.schema)
    return {
        "data": prepared.dataset.name, "model": config.model, "rows": judged.rows,
        "metrics": {f"{split}/{name}": value for name, value in judged.metrics.items()},
    }  # fmt: skip
