"""What a run writes down about itself: at the start how it was set up, at the end what came out."""

from __future__ import annotations

import hashlib
import json
import math
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipi import data, models, optim, tasks
from gipi.core import device as machine
from gipi.core import resolve, rundir
from gipi.core.atomic import write_file
from gipi.core.errors import ConfigError, RequestError
from gipi.core.resolve import Layer
from gipi.core.rows import read_rows
from gipi.text import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from gipi.core.registry import Registry
    from gipi.train.prepare import Own, Prepared
    from gipi.train.state import State

RESULT = rundir.RESULT
TOKENIZER = "tokenizer"
"""Folder of the tokenizer with which the run reads its texts, as other libraries read it too."""


def write_start(
    folder: Path, prepared: Prepared, own: Own, *, before: Mapping[str, Any] | None = None
) -> None:
    """Write config.yaml, split.json, and the tokenizer: all that another start needs.

    before  what an earlier start of the run wrote about itself: its reasons stay
    """
    dataset, schema = prepared.dataset, prepared.dataset.schema
    about = {
        "versions": {"gipi": gipi_version()},
        "machine": machine.machine(),
        "data": dataset.name,
        "fingerprint": dataset.fingerprint,
        "citation": dataset.citation,
        "licence": dataset.licence,
        "rows": {name: len(ids) for name, ids in dataset.splits.items()},
        "split": dataset.split_reason,
        "fields": {f.name: f"{f.kind} {f.role}: {f.reason}" for f in schema.fields},
        "notes": list(dataset.notes),
        "choices": list((before or {}).get("choices", prepared.choices)),
        "citations": citations(prepared),
        "parameters": sum(p.numel() for p in prepared.model.parameters()),
        "model": model_fingerprint(prepared.model),
        "own": [name for name in ("data", "model", "task") if getattr(own, name) is not None],
    }
    values = resolve.to_values(prepared.config)
    if own.data is None and isinstance(values.get("data"), str):
        values["data"] = _from_anywhere(values["data"])
    rundir.write_config(folder, values, origins=prepared.origins, about=about)
    ids = {name: [int(i) for i in rows] for name, rows in dataset.splits.items()}
    if any("tokenizer" in f.stats for f in data.text_fields(schema)):
        data.tokenizer_of(schema).save(folder / TOKENIZER)
    write_file(folder / rundir.SPLIT, json.dumps({"reason": dataset.split_reason, "rows": ids}))


def _from_anywhere(name: str) -> str:
    """Return a path of data as an absolute one, so that a run resumes from any folder."""
    if name in data.SOURCES:
        return name
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def read_start(folder: Path) -> tuple[Layer, dict[str, Any]]:
    """Return the configuration of a run as a layer, and what config.yaml says about the run.

    Raises `ConfigError` where the file is damaged.
    """
    values, origins, about = rundir.read_config(folder)
    layer = resolve.layer("run", [(key, value, "run") for key, value in values.items()])
    where = {key: origins.get(key, place) for key, place in layer.where.items()}
    if not isinstance(about.get("fingerprint"), str):
        raise ConfigError(
            f"{folder / rundir.CONFIG} does not say what data the run was started on",
            "the file as the run wrote it",
            "restore it from a copy, or train again",
        )
    return Layer("run", layer.values, where), about


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Return the tokenizer of a run; None where it reads no texts.

    Raises `DataError` where its file is damaged.
    """
    place = folder / TOKENIZER
    return Tokenizer.from_file(place) if place.is_dir() else None


def check_own(own: Own, about: Mapping[str, Any], *, do: str = "") -> None:
    """Raise `RequestError` when an object that the run was started with was not given again.

    do  what to do, where going on with the run is not what was asked
    """
    missing = [name for name in about.get("own", ()) if getattr(own, name) is None]
    if missing:
        raise RequestError(
            f"the run was started with its own {' and '.join(missing)}",
            "the same objects again",
            do or f"gipi.resume(run, {', '.join(f'{m}=...' for m in missing)})",
        )


def check_same(prepared: Prepared, about: Mapping[str, Any]) -> None:
    """Raise `ConfigError` when data or model are not those that the run was started with."""
    if prepared.dataset.fingerprint != about["fingerprint"]:
        raise ConfigError(
            f"the data {prepared.dataset.name} has changed since the run was started",
            "the very rows that it was trained on",
            "restore the data, or start a new run with `gipi train`",
        )
    if model_fingerprint(prepared.model) != about.get("model"):
        raise ConfigError(
            f"the model {type(prepared.model).__name__} has other weights than the run's",
            "the same names and shapes",
            "build it with the same options as at the start",
        )


def check_larger(folder: Path, prepared: Prepared) -> None:
    """Raise `ConfigError` when a new budget is smaller than what the run has already done."""
    config, rows = prepared.config, len(prepared.dataset.splits["train"])
    size = rows if config.batch_size == "full" else min(int(config.batch_size), rows)
    total = config.steps
    if config.epochs is not None:
        total = math.ceil(config.epochs * math.ceil(rows / size))
    logged = read_rows(folder / rundir.ROWS)
    done = max((int(r["step"]) for r in logged if "train/loss" in r), default=0)
    if total is not None and total < done:
        raise ConfigError(
            f"the run has already done {done} steps and the new budget is {total}",
            "a budget larger than what is done",
            f"for instance --steps {2 * done}",
        )


def result(
    folder: Path, prepared: Prepared, state: State, *, rows: list[dict[str, Any]], steps: int
) -> dict[str, Any]:
    """Return the facts of a finished run that do not need its test: see `--json`.

    steps  optimizer steps of an epoch
    """
    setup = state.setup
    speeds = [r["samples_per_s"] for r in rows if r.get("samples_per_s")]
    epochs = state.step / steps if steps else float(state.epoch)
    return {
        "run": str(folder),
        "data": prepared.dataset.name,
        "task": prepared.task.name,
        "model": prepared.model_name or type(prepared.model).__name__,
        "epochs": int(epochs) if epochs == int(epochs) else round(epochs, 3),
        "steps": state.step,
        "samples_per_s": sorted(speeds)[len(speeds) // 2] if speeds else 0.0,
        "precision": setup.get("precision", "fp32"),
        "compile": bool(setup.get("compile", False)),
        "threads": setup.get("threads", 1),
        "layout": setup.get("layout", "contiguous"),
        "findings": findings(folder, rows),
    }


def findings(folder: Path, rows: list[dict[str, Any]]) -> list[Any]:
    """Return what was found wrong with the training: findings.json, and skipped steps."""
    path = folder / rundir.FINDINGS
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    skipped = [r for r in rows if str(r.get("event", "")).startswith("skipped")]
    for row in skipped[:3]:
        found.append({"step": row["step"], "finding": row["event"], "reason": row["reason"]})
    return list(found)


def citations(prepared: Prepared) -> list[str]:
    """Return the sources of the data, model, task, optimizer, schedule and augmentations used."""
    config = prepared.config
    used: list[tuple[Registry, str | None]] = [
        (models.MODELS, prepared.model_name),
        (tasks.TASKS, prepared.task.name),
        (optim.OPTIMIZERS, config.optimizer),
        (optim.SCHEDULES, config.schedule),
    ]
    for entry in config.augment or ():
        name = entry if isinstance(entry, str) else entry.get("name")
        used.append((data.AUGMENTATIONS, name))
    found = [prepared.dataset.citation]
    found += [registry.get(name).citation for registry, name in used if name and name in registry]
    return [text for text in dict.fromkeys(found) if text]


def model_fingerprint(model: nn.Module) -> str:
    """Return a hash of the names, dtypes and shapes of a model's tensors, not of their values."""
    state = model.state_dict()
    lines = [f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in state.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def gipi_version() -> str:
    """Return the installed version, "unknown" for sources that were never installed."""
    try:
        return version("gipi")
    except PackageNotFoundError:
        return "unknown"
