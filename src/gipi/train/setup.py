"""The trial: which arithmetic, layout, threads and library make the real step fastest here.

Each candidate takes the same real step (forward, loss, backward, optimizer) on copies of the model,
in turn, so that drift of the machine hits all alike. A candidate replaces plain fp32 only when its
median is faster by more than the noise, and only when its loss agrees. The choice is cached per
machine and model, printed, recorded and pinned for resume.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.core import device as machine_facts
from gipi.core.atomic import write_file
from gipi.core.errors import StorageError
from gipi.train.precision import Setup, onednn_usable, require_precision
from gipi.train.trial import Work, compete, compiled, row_storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.core.batch import Batch
    from gipi.core.config import Recipe
    from gipi.tasks import Task

BUDGET_S = 2.0
QUICK_S = 0.05
"""One thread can only win where a step is shorter than this, or on a crowded machine."""
COMPILE_S = 20.0
"""Seconds that compiling a net of the usual size takes; tried where that is 1 % of the run."""


def choose(
    model: nn.Module,
    task: Task,
    batch: Batch,
    recipe: Recipe,
    *,
    device: torch.device,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    run_s: float | None = None,
    run_steps: int | None = None,
    stored: bool = False,
) -> Setup:
    """Return the fastest setup for this model, batch and machine.

    batch      one real training batch (rows of one optimizer or micro step), on the device
    optimizer  builds the run's optimizer for a copy of the model
    stored     the stream can keep its rows in the layout and precision of the setup
    run_s, run_steps  length of the whole run where known: the trial may take 1 % of it

    What the recipe gives by name is not tried but taken. The model and the global random state are
    left as they were. Raises `ConfigError` for a precision that the device does not have.
    """
    base = baseline(recipe, device)
    setups = candidates(model, recipe, base, device)
    work = Work(model, task, device, optimizer, stored)
    threads_open = device.type == "cpu" and recipe.threads == "auto" and base.threads > 1
    if len(setups) == 1 and not threads_open:
        return replace(setups[0], rows=row_storage(work, batch, setups[0]), origin="given")
    key = _key(model, batch, recipe, setups, stored=stored)
    cached = _read_cache(key)
    if cached is not None:
        return cached
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        setups = [replace(s, rows=row_storage(work, batch, s)) for s in setups]
        budget = max(BUDGET_S, 0.01 * (run_s or 0.0))
        found = compete(work, batch, setups, budget, run_s=run_s, run_steps=run_steps)
        if len(setups) > 1 and setups[0].gemm == setups[-1].gemm and found.precision == "fp32":
            others = [replace(found, gemm="onednn")] if gemm_open(model, recipe, device) else []
            found = _also(work, batch, found, others, budget / 4, run_s, run_steps)
        if threads_open and (found.step_s < QUICK_S or found.origin != "trial"):
            found = _also(
                work, batch, found, [replace(found, threads=1)], budget / 4, run_s, run_steps
            )
        expected = run_s or (run_steps or 0) * found.step_s
        if recipe.compile == "auto" and 0.01 * expected >= COMPILE_S:
            found = compiled(work, batch, found, expected)
    finally:
        torch.set_rng_state(before)
        torch.set_num_threads(threads)
    if found.origin == "trial":
        _write_cache(key, found)
    return found


def _also(
    work: Work, batch: Batch, found: Setup, others: list[Setup], budget_s: float,
    run_s: float | None, run_steps: int | None,
) -> Setup:  # fmt: skip
    """Return the best of what was found and its variants, with everything that was measured."""
    if not others:
        return found
    better = compete(work, batch, [found, *others], budget_s, run_s=run_s, run_steps=run_steps)
    return replace(better, trial=tuple(dict([*found.trial, *better.trial]).items()))


def baseline(recipe: Recipe, device: torch.device) -> Setup:
    """Return plain fp32 eager with what the recipe fixes."""
    if recipe.precision != "auto":
        require_precision(
            recipe.precision,
            supported=machine_facts.supports(device, recipe.precision),
            device=device,
        )
    cores = _cores()
    return Setup(
        precision="fp32" if recipe.precision == "auto" else recipe.precision,
        layout="contiguous" if recipe.layout == "auto" else recipe.layout,
        threads=cores if recipe.threads == "auto" else int(recipe.threads),
        gemm="native" if recipe.gemm == "auto" else recipe.gemm,
        compile=recipe.compile == "on",
    )


def candidates(model: nn.Module, recipe: Recipe, base: Setup, device: torch.device) -> list[Setup]:
    """Return the setups worth a trial, plain fp32 first."""
    kinds = {type(m) for m in model.modules()}
    has_images = any(issubclass(k, nn.Conv2d) for k in kinds)
    has_products = any(issubclass(k, nn.Linear | nn.RNNBase | nn.MultiheadAttention) for k in kinds)
    precisions, layouts, gemms = [base.precision], [base.layout], [base.gemm]
    in_fp32 = all(p.dtype == torch.float32 for p in model.parameters())
    if recipe.precision == "auto" and in_fp32 and machine_facts.supports(device, "bf16"):
        precisions.append("bf16")
    if recipe.layout == "auto" and has_images:
        layouts.append("channels_last")
    if has_products and not has_images and gemm_open(model, recipe, device):
        gemms.append("onednn")
    last = device.type == "cpu" and len(layouts) > 1  # bf16 convolutions are made for that layout
    return [
        replace(base, precision=p, layout=lay, gemm=g)
        for p in precisions
        for lay in (layouts[1:] if last and p == "bf16" else layouts)
        for g in gemms
        if g == base.gemm or p == "fp32"
    ]


def gemm_open(model: nn.Module, recipe: Recipe, device: torch.device) -> bool:
    """Whether the library of fp32 products may be chosen."""
    in_fp32 = all(p.dtype == torch.float32 for p in model.parameters())
    return recipe.gemm == "auto" and in_fp32 and onednn_usable(device)


# ---------------------------------------------------------------------------- cache


def _cores() -> int:
    """Processors that this process may use, as torch would take them."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return max(1, min(available or os.cpu_count() or 1, torch.get_num_threads()))


def _key(
    model: nn.Module, batch: Batch, recipe: Recipe, setups: list[Setup], *, stored: bool
) -> str:
    """Name of a cached choice: machine, architecture, batch shape, optimizer and candidates."""
    shape = {k: list(v.shape) for k, v in batch.inputs.items()}
    parts = [machine_facts.machine(), repr(model), shape, recipe.optimizer, recipe.micro_batch,
             stored, [s.name for s in setups]]  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """Return where measured choices are kept: GIPI_CACHE, else the user's cache folder."""
    given = os.environ.get("GIPI_CACHE")
    root = Path(given) if given else Path.home() / ".cache" / "gipi"
    return root / "setup"


def _read_cache(key: str) -> Setup | None:
    path = cache_folder() / f"{key}.json"
    try:
        setup = Setup.from_dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return replace(setup, origin="cache")


def _write_cache(key: str, setup: Setup) -> None:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / f"{key}.json", json.dumps(setup.to_dict()))
    except (OSError, StorageError):
        return  # a cache that cannot be written costs two seconds next time, nothing else
