"""The trial: which arithmetic, layout, threads and library make the real step fastest here.

Each candidate takes the same real step (forward, loss, backward, optimizer) on copies of the model,
in turn, so that drift of the machine hits all alike. A candidate replaces plain fp32 only when its
median is faster by more than the noise, and only when its loss agrees. The choice is cached per
machine and model, printed, recorded and pinned for resume.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gipi.core import device as machine_facts
from gipi.core.atomic import write_file
from gipi.core.errors import StorageError
from gipi.train.evaluate import in_layout
from gipi.train.precision import (
    Setup,
    apply_threads_and_gemm,
    autocast,
    onednn_usable,
    require_precision,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.core.batch import Batch
    from gipi.core.config import Recipe
    from gipi.tasks import Task

BUDGET_S = 2.0
MIN_STEPS = 3
GAIN = 0.03
"""A candidate must be at least this share faster: below it lies the noise of a short trial."""
COMPILE_S = 20.0
"""Seconds that compiling a net of the usual size takes; tried where that is 1 % of the run."""
LOSS_TOLERANCE = 0.02
CROWDED = 0.15
"""Share of the trial spent waiting for a processor above which its result is not cached."""
_MAX_TRIAL_ROWS_S = 0.12


@dataclass
class _Trial:
    """One candidate with its own copy of the model, ready to step."""

    setup: Setup
    step: Callable[[], float]
    times: list[float]
    loss: float = 0.0


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
    open_choices = candidates(model, recipe, base, device)
    if len(open_choices) == 1:
        given = replace(open_choices[0], origin="given")
        rows = row_storage(model, task, batch, given, device) if stored else "fp32"
        return replace(given, rows=rows)
    key = _key(model, batch, recipe, open_choices, stored=stored)
    cached = _read_cache(key)
    if cached is not None:
        return cached
    budget = max(BUDGET_S, 0.01 * (run_s or 0.0))
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    try:
        if stored:
            open_choices = [
                replace(s, rows=row_storage(model, task, batch, s, device)) for s in open_choices
            ]
        found = _compete(model, task, batch, open_choices, device, optimizer, budget, stored=stored)
        expected = run_s or (run_steps or 0) * found.step_s
        if recipe.compile == "auto" and 0.01 * expected >= COMPILE_S:
            found = _compiled(model, task, batch, found, device, optimizer, expected)
    finally:
        torch.set_rng_state(before)
        torch.set_num_threads(threads)
    if found.origin == "trial":
        _write_cache(key, found)
    return found


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
    if recipe.gemm == "auto" and in_fp32 and has_products and onednn_usable(device):
        gemms.append("onednn")
    found = [
        replace(base, precision=p, layout=lay, gemm=g)
        for p in precisions
        for lay in layouts
        for g in gemms
        if g == base.gemm or p == "fp32"
    ]
    if device.type == "cpu" and recipe.threads == "auto" and base.threads > 1:
        found += [replace(s, threads=1) for s in found]
    return found


def _compete(
    model: nn.Module,
    task: Task,
    batch: Batch,
    setups: list[Setup],
    device: torch.device,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    budget: float,
    *,
    stored: bool,
) -> Setup:
    """Let the candidates step in turn and return the winner."""
    began, queued = time.perf_counter(), machine_facts.run_delay_s()
    batch = _affordable(model, task, batch, setups[0], device, optimizer)
    trials = [_trial(model, task, batch, s, device, optimizer, stored=stored) for s in setups]
    for trial in trials:
        trial.loss = trial.step()
    rounds = 0
    while rounds < MIN_STEPS or (time.perf_counter() - began < budget and rounds < 200):
        for trial in trials:
            start = time.perf_counter()
            trial.step()
            trial.times.append(time.perf_counter() - start)
        rounds += 1
        if rounds >= MIN_STEPS and len(trials) > 2:
            best = min(statistics.median(t.times) for t in trials)
            slow = [t for t in trials[1:] if statistics.median(t.times) > 1.5 * best]
            trials = [t for t in trials if t not in slow]
    plain = trials[0]
    reference = statistics.median(plain.times)
    sane = [t for t in trials if _agrees(t.loss, plain.loss)]
    best_trial = min(sane, key=lambda t: statistics.median(t.times))
    gain = 1 - statistics.median(best_trial.times) / reference
    noise = _spread(plain.times) / max(len(plain.times), 1) ** 0.5
    winner = best_trial if gain > max(GAIN, noise) else plain
    table = tuple((t.setup.name, statistics.median(t.times)) for t in trials)
    queued = (machine_facts.run_delay_s() - queued) / (time.perf_counter() - began)
    origin = "trial" if queued < CROWDED else "trial on a crowded machine"
    return replace(winner.setup, step_s=statistics.median(winner.times), origin=origin, trial=table)


def _compiled(
    model: nn.Module,
    task: Task,
    batch: Batch,
    eager: Setup,
    device: torch.device,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    run_s: float,
) -> Setup:
    """Return `eager` compiled where the whole run repays what compiling costs, else `eager`."""
    rival = _trial(model, task, batch, replace(eager, compile=True), device, optimizer)
    plain = _trial(model, task, batch, eager, device, optimizer)
    began = time.perf_counter()
    try:
        rival.loss, plain.loss = rival.step(), plain.step()
    except Exception:  # noqa: BLE001  no compiler, or a graph it cannot take: eager it stays
        return eager
    cost = time.perf_counter() - began
    for _ in range(2 * MIN_STEPS):
        for trial in (plain, rival):
            start = time.perf_counter()
            trial.step()
            trial.times.append(time.perf_counter() - start)
    slow, fast = (statistics.median(t.times) for t in (plain, rival))
    saved = run_s * (1 - fast / slow)
    table = (*eager.trial, (rival.setup.name, fast))
    if fast > slow * (1 - GAIN) or saved < cost or not _agrees(rival.loss, plain.loss):
        return replace(eager, trial=table)
    return replace(rival.setup, step_s=fast, trial=table)


def _affordable(
    model: nn.Module,
    task: Task,
    batch: Batch,
    base: Setup,
    device: torch.device,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
) -> Batch:
    """Return the batch, or as many of its rows as keep a step of the trial short."""
    rows = min(len(batch), 8)
    probe = _trial(model, task, batch.slice(0, rows), base, device, optimizer)
    probe.step()
    start = time.perf_counter()
    probe.step()
    per_row = (time.perf_counter() - start) / rows
    allowed = max(rows, int(_MAX_TRIAL_ROWS_S / max(per_row, 1e-9)))
    return batch if allowed >= len(batch) else batch.slice(0, allowed)


def _trial(
    model: nn.Module,
    task: Task,
    batch: Batch,
    setup: Setup,
    device: torch.device,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    *,
    stored: bool = False,
) -> _Trial:
    net = copy.deepcopy(model).train()
    given = dict(batch.inputs)
    if setup.memory_format is not None:
        net = net.to(memory_format=setup.memory_format)  # type: ignore[call-overload]
    steps = optimizer(net)
    ready: Any = torch.compile(net) if setup.compile else net
    phase, context, layout = task.phases[0], autocast(setup, device), setup.memory_format
    kept = given  # as the stream would hand them out
    if setup.rows == "bf16":
        kept = {k: v.bfloat16() if v.is_floating_point() else v for k, v in given.items()}
    if stored and layout is not None:
        kept = in_layout(kept, layout)

    def step() -> float:
        apply_threads_and_gemm(setup, device)
        batch.inputs = kept if layout is None else in_layout(kept, layout)
        steps.zero_grad(set_to_none=True)
        with context:
            loss = phase.loss(ready, batch)
        (loss.total / loss.count).backward()
        steps.step()
        machine_facts.synchronize(device)
        batch.inputs = given
        return float(loss.total.detach()) / float(loss.count)

    return _Trial(setup, step, [])


def _agrees(loss: float, reference: float) -> bool:
    """Whether the first loss of a candidate is that of plain fp32 to within `LOSS_TOLERANCE`."""
    return abs(loss - reference) <= LOSS_TOLERANCE * max(abs(reference), 0.1)


def _spread(times: list[float]) -> float:
    """Relative half-width of the middle half of the times: the noise of one step."""
    ordered = sorted(times)
    n = len(ordered)
    return (ordered[3 * (n - 1) // 4] - ordered[(n - 1) // 4]) / 2 / statistics.median(ordered)


def row_storage(
    model: nn.Module, task: Task, batch: Batch, setup: Setup, device: torch.device
) -> str:
    """Return "bf16" where inputs stored in bf16 give the same loss and outputs to the last bit.

    That is so where the first layer rounds them under autocast anyway; a model that looks at its
    input in fp32 first, or refuses bf16, keeps fp32 rows.
    """
    if setup.precision != "bf16":
        return "fp32"
    net, phase = copy.deepcopy(model).eval(), task.phases[0]
    rounded = batch.slice(0, len(batch))
    rounded.inputs = {
        k: v.bfloat16() if v.is_floating_point() else v for k, v in batch.inputs.items()
    }
    apply_threads_and_gemm(setup, device)
    try:
        with torch.no_grad(), autocast(setup, device):
            plain, stored = phase.loss(net, batch), phase.loss(net, rounded)
    except Exception:  # noqa: BLE001  a model that cannot take bf16 input keeps fp32 rows
        return "fp32"
    same = torch.equal(plain.total, stored.total) and torch.equal(plain.outputs, stored.outputs)
    return "bf16" if same else "fp32"


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
