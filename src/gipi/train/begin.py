"""What must stand before the first step: device, state, lanes, pinned choices, a resumed past."""

from __future__ import annotations

import json
import os
import time
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import torch

from gipi import optim
from gipi.core import dist
from gipi.core.atomic import storage_error, write_file
from gipi.core.errors import CheckpointError, ConfigError, DataError
from gipi.core.memory import keep_freed_pages
from gipi.core.rows import Rows, read_rows, truncate_rows
from gipi.core.rundir import ROWS, SETUP
from gipi.core.seed import derive
from gipi.train import checkpoint
from gipi.train.carry import hold
from gipi.train.clock import make_clock, set_span
from gipi.train.crowd import Crowd
from gipi.train.evaluate import evaluate
from gipi.train.fits import check_fits
from gipi.train.guard import Guard
from gipi.train.kept import check_last_batch, kept_of
from gipi.train.lanes import Lane, build_lanes, build_optimizer
from gipi.train.look import first_look
from gipi.train.mode import eval_mode
from gipi.train.parallel import check_separable, wrap
from gipi.train.precision import Setup, apply_threads_and_gemm, autocast
from gipi.train.run import Run, load_observers, place
from gipi.train.setup import baseline, choose
from gipi.train.state import State, set_rng_state
from gipi.train.stopping import EarlyStopping, Plateau
from gipi.train.transfer import Thaw
from gipi.train.window import Layers, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import nn

    from gipi.core.batch import Batch, Stream
    from gipi.core.config import Recipe
    from gipi.core.events import Observer
    from gipi.core.schema import Schema
    from gipi.tasks import Task

AGAIN = 0.02
"""An evaluation that takes less than this share of a time budget is measured a second time."""
ANSWERED = 16  # rows whose answers are timed


def begin(
    model: nn.Module,
    task: Task,
    train: Stream,
    recipe: Recipe,
    *,
    val: Stream | None,
    observers: Sequence[Observer],
    out: Path | None,
    schema: Schema | None,
    setup: Setup | None,
    resume: bool,
    device: torch.device,
    reserve_s: float,
    reserve_rows: int,
) -> Run:
    """Check the request, build everything, choose the setup, restore the past."""
    with ExitStack() as recorder:  # what is opened or changed for the run ends with it
        recorder.callback(optim.allow_compiler)
        optim.spare_compiler()
        check_separable(model, task, recipe)
        clock = make_clock(recipe, train)
        clock.device = device if dist.world() > 1 else None
        check_folder(out, resume=resume)
        if not train.rows and train.steps == 0:
            raise DataError(
                "the training stream has no rows", "rows to learn from", "check the split"
            )
        if recipe.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
            torch.use_deterministic_algorithms(mode=True)
        model.to(device).train()
        hold(model, train, recipe)
        if device.type == "cpu":
            keep_freed_pages()
        can_store = bool(getattr(train, "can_store", False))
        if can_store:
            train.store(half=False, channels_last=False)  # type: ignore[attr-defined]
        if not (resume and out is not None and checkpoint.list_checkpoints(out)):
            first_look(model, train, device)
        first = place(next(iter(train.epoch(0))), device)
        pinned = _pinned(out) if resume else None
        chosen = setup or pinned
        check_fits(model, task, train, first, micro=recipe.micro_batch,
                   context=autocast(chosen or baseline(recipe, device), device))  # fmt: skip
        check_last_batch(model, task, train, recipe, first)
        if recipe.micro_batch:
            first = first.slice(0, min(recipe.micro_batch, len(first)))
        if chosen is None and any(phase.closure for phase in task.phases):
            chosen = baseline(recipe, device)
        if chosen is None and recipe.optimizer == "lbfgs":
            chosen = baseline(recipe, device)
        if chosen is None:
            chosen = choose(
                model, task, first, recipe, device=device, run_s=recipe.time,
                run_steps=clock.total_steps, stored=can_store,
                optimizer=lambda net: build_optimizer(net, recipe),
            )  # fmt: skip
        if dist.world() > 1:  # every rank must compute alike
            chosen = Setup.from_dict(json.loads(dist.from_first(json.dumps(chosen.to_dict()))))
        apply_threads_and_gemm(chosen, device)
        if chosen.memory_format is not None:
            model.to(memory_format=chosen.memory_format)  # type: ignore[call-overload]
        if can_store:
            train.store(half=chosen.rows == "bf16", channels_last=chosen.memory_format is not None)  # type: ignore[attr-defined]
        lanes = build_lanes(model, task, recipe)
        state = State(model, {lane.phase.name: lane.optimizer for lane in lanes})
        if recipe.ema is not None and recipe.swa is not None:
            raise ConfigError(f"ema={recipe.ema} and swa={recipe.swa}", "one average", "drop one")
        if recipe.ema is not None:
            state.average = optim.ema(model, decay=recipe.ema)
        elif recipe.swa is not None:
            state.average = optim.swa(model, start=recipe.swa)
        state.setup = chosen.to_dict()
        watchers = [*_own_observers(task, schema, recipe, device, val), *observers]
        guard = Guard(device, scaled=chosen.precision == "fp16")
        # Dropout draws from torch's generator: the run's seed decides, not what ran before it.
        torch.manual_seed(derive(recipe.seed, "noise", dist.rank()))
        damage: list[str] = []
        if resume and out is not None and checkpoint.list_checkpoints(out):
            damage = checkpoint.load(out, state)
            load_observers(watchers, state.extras.get("observers", {}))
            if "guard" in state.extras:
                guard.load_state(state.extras["guard"])
            if len(state.extras.get("ranks", ())) == dist.world() > 1:
                set_rng_state(state.extras["ranks"][dist.rank()])
            if "changed" in state.extras:  # by an observer, while the run went on
                recipe = recipe.model_copy(update=state.extras["changed"])
                lanes = build_lanes(model, task, recipe, optimizers=state.optimizers)
            state.finished = state.extras.get("stopped") == clock.budget
        if chosen.compile:
            optim.allow_compiler()
        net: Any = torch.compile(model) if chosen.compile else model
        names = {n: p for n, p in model.named_parameters() if p.requires_grad and p.ndim > 1}
        run = Run(
            model=model, net=wrap(net, device), task=task, recipe=recipe, schema=schema, val=val,
            out=out, device=device, setup=chosen, state=state, lanes=lanes, clock=clock,
            guard=guard, window=Window(task, schema, list(task.metrics(schema)), device),
            layers=Layers(names), context=autocast(chosen, device), observers=watchers,
            recorder=recorder, kept=kept_of(model), epoch_steps=train.steps,
            thaw=Thaw(model, recipe),
        )  # fmt: skip
        if out is not None and dist.rank() == 0:
            make_folder(out)
            if resume:
                truncate_rows(out / ROWS, state.step)
            run.rows = run.recorder.enter_context(Rows(out / ROWS))
            if pinned is None:
                write_file(out / SETUP, json.dumps(chosen.to_dict(), indent=1))
        for found in damage:
            run.note("checkpoint damaged", f"{found}; went on from step {state.step}")
        if recipe.time is not None:
            _set_time(run, train, reserve_s, reserve_rows)
        clock.start(state.elapsed)
        if state.step == 0 and out is not None:
            run.save()
        run.recorder = recorder.pop_all()
        return run


def check_folder(out: Path | None, *, resume: bool) -> None:
    """Raise where a run would start afresh in silence, or mix its checkpoints with another's."""
    if out is None:
        if resume:
            raise ConfigError(
                "resume without a run folder", "the folder of the run", "give out=..."
            )
        return
    saved = checkpoint.list_checkpoints(out)
    if saved and not resume:
        raise ConfigError(
            f"{out} holds a run that is at {saved[0].name}",
            "a folder of its own for each run",
            "go on with resume=True, or choose another folder",
        )
    if resume and not saved and any("train/loss" in row for row in read_rows(out / ROWS)):
        raise CheckpointError(
            f"{out} has trained and holds no checkpoint",
            "at least one undamaged checkpoint to go on from",
            "put its checkpoints back, or start a new run",
        )


def schedule_of(recipe: Recipe) -> optim.Schedule:
    """Return progress -> multiplier of the learning rate."""
    return optim.build_schedule(
        recipe.schedule, warmup=recipe.warmup, options=recipe.schedule_options
    )


def steps_between_evaluations(recipe: Recipe, train: Stream, val: Stream | None) -> int:
    """Return the steps from one evaluation to the next, 0 for none but the last."""
    if val is None or not train.steps:
        return 0
    return max(1, round(recipe.eval_every * train.steps))


def make_folder(out: Path) -> None:
    """Make the run folder; raise `StorageError` where that is not allowed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, out) from error


class Few:
    """A stream of one batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.steps = batch, 1
        self.rows = self.batch_size = len(batch)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        """Yield the batch."""
        yield self.batch


def _set_time(run: Run, train: Stream, reserve_s: float, reserve_rows: int) -> None:
    """Fix the span of a time budget, reserving what evaluation will take after the last step."""
    per_row, least = 0.0, AGAIN * (run.recipe.time or 0.0)
    stream = run.val if run.val is not None else Few(place(next(iter(train.epoch(0))), run.device))
    if run.val is not None or reserve_rows:
        for _ in range(2):  # a first pass is slow for other reasons: what is short is done again
            seen = evaluate(
                run.net, run.task, stream, schema=run.schema, device=run.device,
                autocast=run.context, layout=run.setup.memory_format, answers=0,
            )  # fmt: skip
            per_row = seen.seconds / max(seen.rows, 1)
            if not dist.any_rank(seen.seconds < least, run.device):
                break
        once = seen.rows if run.val is not None else 0
        reserve_s += _answer_s(run, stream) * (reserve_rows + once)
        reserve_rows += 2 * once
    set_span(run.clock, run.recipe, reserve_s + per_row * reserve_rows)


def _answer_s(run: Run, stream: Stream) -> float:
    """Return the seconds that one answer of a task that writes takes; 0 for others.

    A net that has learned nothing writes until it is stopped, about twice as long as it will later.
    """
    if run.task.predict is None or run.schema is None:
        return 0.0
    few = place(next(iter(stream.epoch(0))), run.device).slice(0, ANSWERED)
    began = time.perf_counter()
    with eval_mode(run.net), torch.inference_mode():
        run.task.predict(run.net, few, run.schema)
    return (time.perf_counter() - began) / len(few) / 2


def _pinned(out: Path | None) -> Setup | None:
    """Return the setup that the first start of this run wrote down."""
    if out is None or not (out / SETUP).exists():
        return None
    return Setup.from_dict(json.loads((out / SETUP).read_text()))


def _own_observers(
    task: Task, schema: Schema | None, recipe: Recipe, device: torch.device, val: Stream | None
) -> list[Observer]:
    """Return the observers that the recipe implies."""
    found: list[Observer] = []
    if recipe.patience is not None:
        if val is None:
            raise ConfigError(
                f"patience={recipe.patience} without validation rows",
                "rows to judge by",
                "keep some rows for validation, or drop patience",
            )
        name, greater = primary(task, schema)
        found.append(EarlyStopping(f"val/{name}", greater, recipe.patience))
    if recipe.schedule == "plateau":
        if val is None:
            raise ConfigError(
                "schedule=plateau without validation rows",
                "rows to judge by",
                "keep some rows for validation, or use another schedule",
            )
        found.append(Plateau())
    if device.type == "cpu":
        found.append(Crowd(adapt=recipe.threads == "auto"))
    return found


def primary(task: Task, schema: Schema | None) -> tuple[str, bool]:
    """Return the name of the metric that decides, and whether more of it is better."""
    for metric in task.metrics(schema):
        if metric.name == task.primary:
            return metric.name, metric.greater_is_better
    return "loss", False


def closure_step(
    lane: Lane,
    net: nn.Module,
    batch: Batch,
    context: AbstractContextManager[Any],
    lr: float,
    window: Window,
) -> bool:
    """One step of an optimizer that evaluates the loss itself (L-BFGS, Liu and Nocedal 1989).

    Returns True, with the weights restored, where the step ended in something non-finite.
    """
    before = [p.detach().clone() for p in lane.params]
    for group in lane.optimizer.param_groups:
        group["lr"] = lr
    first = True

    def closure() -> torch.Tensor:
        nonlocal first
        for p in lane.params:
            p.grad = None
        with context:
            loss = lane.phase.loss(net, batch)
        mean = loss.total / loss.count
        mean.backward()
        if first:
            window.add(loss.total.detach(), loss, batch.target, batch.weight)
            first = False
        return mean

    lane.optimizer.step(closure)  # type: ignore[arg-type]
    good = all(bool(p.isfinite().all()) for p in lane.params)
    if not good:
        with torch.no_grad():
            for p, old in zip(lane.params, before, strict=True):
                p.copy_(old)
    return not good


__all__ = ["Run", "begin", "closure_step", "place", "primary"]
