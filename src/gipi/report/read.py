"""Reading a run folder for the report: every file is optional, and damage is a remark.

What is read, and the keys that the page knows (all of them may be missing):

    config.yaml      config (every value), origins (of what is no default), and about: data,
                     fingerprint, licence, rows {split: n}, split, notes, choices, citations,
                     parameters, versions, machine
    setup.json       measured choices; "trial" holds (candidate, seconds per step)
    rows.jsonl       see core.rundir
    result.json      of a finished run: model, steps, epochs, seconds
    model/model.json schema, versions, weights_sha256
    evaluation/      summary.json, arrays.npz, pictures (see deploy.evidence)
    findings.json    a list of findings, or {"findings": [...]}
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.atomic import read_folder
from gipi.core.errors import GipiError
from gipi.core.rows import read_rows
from gipi.core.rundir import (
    EVALUATION,
    FINDINGS,
    MODEL,
    RESULT,
    ROWS,
    SETUP,
    read_config,
    refusal_of,
)  # fmt: skip

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 64 << 20  # bytes of one JSON file; a larger one is no report's business


@dataclass(frozen=True)
class RunData:
    """What a run folder holds, as far as it could be read; `problems` says what could not."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    setup: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)
    findings: list[Any] = field(default_factory=list)
    refusal: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_run(run: Path) -> RunData:
    """Return everything of a run folder that can be read. Never raises for missing or bad parts."""
    problems: list[str] = []
    config, origins, about = _config(run, problems)
    summary, arrays, pictures = _evaluation(run / EVALUATION, problems)
    found = _json(run / FINDINGS, problems)
    findings = found.get("findings") if isinstance(found, dict) else found
    return RunData(
        name=run.resolve().name,
        config=config,
        origins=origins,
        about=about,
        setup=_mapping(_json(run / SETUP, problems)),
        result=_mapping(_json(run / RESULT, problems)),
        rows=_rows(run / ROWS, problems),
        model=_mapping(_json(run / MODEL / "model.json", problems)),
        evaluation=summary,
        arrays=arrays,
        pictures=pictures,
        findings=findings if isinstance(findings, list) else [],
        refusal=refusal_of(run),
        problems=problems,
    )


def _config(
    run: Path, problems: list[str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    try:
        config, origins, about = read_config(run)
    except GipiError as error:
        problems.append(error.found)
        return {}, {}, {}
    return config, dict(origins), about


def _rows(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    try:
        return read_rows(path)
    except GipiError as error:
        problems.append(error.found)
        return []


def _json(path: Path, problems: list[str]) -> Any:
    try:
        if path.stat().st_size > _LARGEST:
            problems.append(f"{path.name} is too large")
            return None
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        problems.append(f"{path.name} cannot be read")
        return None


def _evaluation(
    path: Path, problems: list[str]
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, bytes]]:
    if not path.exists():
        return {}, {}, {}
    try:
        files = read_folder(path)
        summary = _mapping(json.loads(files.pop("summary.json")))
        with np.load(io.BytesIO(files.pop("arrays.npz")), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except GipiError as error:
        problems.append(error.found)
        return {}, {}, {}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, RecursionError):
        problems.append(f"{path.name}/ cannot be read")
        return {}, {}, {}
    return summary, arrays, files


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# ---------------------------------------------------------------------------- asking


def dig(data: Any, *keys: str) -> Any:
    """Return data[key][key]..., or None where a step is missing or is no mapping."""
    for key in keys:
        if not isinstance(data, dict):
            return None
        data = data.get(key)
    return data


def num(value: Any) -> float | None:
    """Return a number ("nan" and "inf" in words included), or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def finite(value: Any) -> float | None:
    """Return a finite number, or None."""
    found = num(value)
    return found if found is not None and math.isfinite(found) else None


def listed(value: Any) -> list[Any]:
    """Return a list as it is, a tuple as a list, a lone text as a list of it, else nothing."""
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, (list, tuple)) else []


def column(run: RunData, key: str) -> tuple[list[float], list[float]]:
    """Return (steps, values) of one key over the rows: ascending, the last word on each step.

    A run that was resumed may have written a step twice. Non-finite values stay in.
    """
    found: dict[float, float] = {}
    for row in run.rows:
        step, value = finite(row.get("step")), num(row.get(key))
        if step is not None and value is not None:
            found[step] = value
    steps = sorted(found)
    return steps, [found[s] for s in steps]


def layer_columns(run: RunData, key: str) -> dict[str, list[tuple[float, float]]]:
    """Return layer -> [(step, value)] of one figure of the "layers" of the rows."""
    found: dict[str, dict[float, float]] = {}
    for row in run.rows:
        step, layers = finite(row.get("step")), row.get("layers")
        if step is None or not isinstance(layers, dict):
            continue
        for name, figures in layers.items():
            value = num(dig(figures, key))
            if value is not None:
                found.setdefault(str(name), {})[step] = value
    return {name: sorted(points.items()) for name, points in found.items()}
