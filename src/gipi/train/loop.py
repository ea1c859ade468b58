"""The loop: one function, top to bottom. Everything else watches it or serves it.

A step is: lr from the schedule, gradient of Σ loss over the rows of all ranks and micro-batches
divided by the global count, check, clip, step. Only the log row waits for the device.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from gipi.core import dist
from gipi.core.device import pick_device
from gipi.core.errors import DataError
from gipi.train.begin import begin, closure_step, schedule_of, steps_between_evaluations
from gipi.train.evaluate import in_layout
from gipi.train.finish import finish, validate
from gipi.train.inputs import as_stream, as_task
from gipi.train.lanes import backward, clip_factor
from gipi.train.mode import train_mode
from gipi.train.parallel import unsynced
from gipi.train.run import place
from gipi.train.signals import StopRequest
from gipi.train.take import in_order, take

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from gipi.core.batch import Stream
    from gipi.core.config import Recipe
    from gipi.core.events import Action, Observer
    from gipi.core.schema import Schema
    from gipi.tasks import Task
    from gipi.train.precision import Setup
    from gipi.train.state import State

ROW_S, ROW_SHARE = 0.1, 0.002
"""Where `log_every` is open, rows come this many seconds apart, and cost this share of the time."""


def fit(
    model: nn.Module,
    task: Task | Callable[[Tensor, Tensor], Tensor],
    train: Stream | Any,
    recipe: Recipe,
    *,
    val: Stream | Any | None = None,
    observers: Sequence[Observer] = (),
    out: Path | None = None,
    schema: Schema | None = None,
    setup: Setup | None = None,
    resume: bool = False,
    device: torch.device | str | None = None,
    reserve_s: float = 0.0,
    reserve_rows: int = 0,
) -> State:
    """Train `model` on `task` with the batches of `train` until the recipe's budget is used.

    task          a `Task`, or a plain function ``loss(outputs, target)``
    train, val    streams, (X, y) arrays or tensors, or torch Datasets and DataLoaders
    val           rows for scores and for the choice of the best weights, which are restored
    observers     called with every row, evaluation and save; see `gipi.core.events`
    out           run folder for rows and checkpoints; None keeps nothing on the disk
    schema        units of the target, for metrics
    setup         arithmetic, layout and threads; None: chosen by a trial, or pinned by the run
    resume        go on from the newest good checkpoint of `out`
    reserve_s, reserve_rows  under a time budget: seconds and evaluated rows still to come after

    Returns the final `State`; its model is `model`, holding the best weights. Raises `ConfigError`
    for a recipe that cannot be run, `NonFiniteError` when steps stay non-finite, `CheckpointError`,
    `StorageError`, and `Interrupted` after SIGINT or SIGTERM, with everything saved.
    """
    device = device if isinstance(device, torch.device) else pick_device(device)
    dist.start(device)
    task, train = as_task(task), as_stream(train, recipe, device, shuffle=True)
    if val is not None:
        val = as_stream(val, recipe, device, shuffle=False)
    run = begin(
        model, task, train, recipe, val=val, observers=observers, out=out, schema=schema,
        setup=setup, resume=resume, device=device, reserve_s=reserve_s, reserve_rows=reserve_rows,
    )  # fmt: skip
    state, clock, guard, window = run.state, run.clock, run.guard, run.window
    net, context, layout = run.net, run.context, run.setup.memory_format
    recipe, shape = run.recipe, schedule_of(run.recipe)
    world, micro, on_host = dist.world(), recipe.micro_batch, device.type == "cpu"
    seeds: dict[float, torch.Tensor] = {}
    eval_steps = steps_between_evaluations(recipe, train, val)
    row_due = state.step + (recipe.log_every or 1)
    window_began, window_step = time.perf_counter(), state.step
    row_cost, waited, ended, stopping = 0.0, 0.0, time.perf_counter(), state.finished
    save_anywhere = recipe.save_every is not None or recipe.log_every is not None
    train_mode(net)

    with StopRequest() as stop, run.recorder:
        run.tell("start", {"step": state.step, "epoch": state.epoch})
        while not stopping and not clock.done(state.step):
            first, batches = state.batch, 0
            for given in train.epoch(state.epoch, state.batch):
                batches += 1
                progress = clock.progress(state.step)
                if progress >= 1.0:
                    stopping = True
                    break
                waited += time.perf_counter() - ended
                batch = given if on_host else place(given, device)
                if layout is not None:
                    batch.inputs = in_layout(batch.inputs, layout)
                lr = recipe.lr * shape(progress) * state.lr_scale
                logging = state.step + 1 >= row_due
                if logging:
                    run.layers.begin()

                for lane in run.lanes:
                    for _ in range(lane.phase.repeats):
                        grads: list[torch.Tensor] = []  # a second reference would keep the memory
                        for p in lane.params:
                            p.grad = None
                        if run.kept is not None:
                            run.kept.keep()
                        factor = None
                        if lane.closure:
                            bad = closure_step(lane, net, batch, context, lr, window)
                            run.skip(bad, lane, batch)
                            continue
                        if micro is None and world == 1:
                            with context:
                                loss = lane.phase.loss(net, batch)
                            count = loss.count
                            if isinstance(count, float):
                                seed = seeds.get(count)
                                if seed is None or seed.dtype != loss.total.dtype:
                                    seed = torch.full_like(loss.total.detach(), 1.0 / count)
                                    seeds[count] = seed
                            else:
                                # A number of tokens is an int64: 1 / count would be a float32.
                                seed = 1.0 / count.to(loss.total.dtype).clamp_min(1e-30)
                            backward(loss.total, seed * guard.scale if guard.scaled else seed)
                            total = loss.total.item() if on_host else loss.total.detach()
                            window.add(total, loss, batch.target, batch.weight)
                        else:  # the global count is known after the last forward pass
                            pieces = batch.split(micro) if micro else [batch]
                            sums = torch.zeros(2, dtype=torch.float64, device=device)
                            for i, piece in enumerate(pieces):
                                with unsynced(net, last=i == len(pieces) - 1):
                                    with context:
                                        loss = lane.phase.loss(net, piece)
                                    (loss.total * (world / batch.rows) * guard.scale).backward()
                                sums[0] += loss.count
                                sums[1] += loss.total.detach()
                                total = loss.total.item() if on_host else loss.total.detach()
                                window.add(total, loss, piece.target, piece.weight)
                            dist.sum_over_ranks(sums)  # a bad loss anywhere is bad everywhere
                            factor = batch.rows / sums[0].clamp_min(1e-30)
                            total = sums[1].item() if on_host else sums[1]
                        grads = [p.grad for p in lane.params if p.grad is not None]
                        where = (state.step, state.epoch, state.batch)
                        bad = guard.check(grads, total, factor, where)
                        if bad:
                            run.skip(bad, lane, batch)
                            continue
                        if run.kept is not None and not on_host:
                            run.kept.restore(guard.found_inf)
                        if lane.add_l1 is not None:
                            lane.add_l1()
                        divisor = None
                        if run.recipe.clip_norm is not None or logging:
                            run.norm, divisor = clip_factor(grads, run.recipe.clip_norm)
                        lane.step(lr, guard.found_inf, divisor)

                if state.average is not None:
                    state.average.update(progress)
                if task.after_step is not None:
                    task.after_step(model)
                state.step += 1
                state.batch += 1
                state.progress = progress
                actions: list[Action] = []

                if logging:
                    now = time.perf_counter()
                    steps, seconds = state.step - window_step, max(now - window_began, 1e-9)
                    row: dict[str, Any] = {
                        "step": state.step, "epoch": state.epoch, "progress": round(progress, 6),
                        "lr": lr, **window.close(), "grad_norm": float(run.norm),  # sync
                        "samples_per_s": steps * batch.rows / seconds,
                        "data_wait": waited / seconds, "memory_bytes": run.memory_in_use(),
                        "seconds": round(clock.elapsed(), 3), "remaining_s":
                        round(clock.remaining_s(state.step, steps / seconds), 1),
                        **run.layers.read(),
                    }  # fmt: skip
                    run.explain_skipped(train)
                    actions += run.tell("row", row)
                    cost = time.perf_counter() - now - run.layers.read_s
                    row_cost += 0.2 * (cost - row_cost)  # the first rows come closer together
                    wait = max(ROW_S, row_cost / ROW_SHARE) * steps / seconds
                    every = recipe.log_every or max(1, min(10_000, round(wait)))
                    row_due = state.step + dist.largest(every, device)
                    window_step, window_began, waited = state.step, time.perf_counter(), 0.0
                    if world > 1 and dist.any_rank(bool(stop.asked), device):
                        stop.asked = stop.asked or "another rank"

                if eval_steps and state.step % eval_steps == 0:
                    actions += validate(run)
                if actions:
                    for action in in_order(actions):
                        stopping |= take(run, action)
                    recipe, shape = run.recipe, schedule_of(run.recipe)
                    eval_steps = steps_between_evaluations(recipe, train, val)
                if (logging or save_anywhere) and run.save_due(at_row=logging):
                    run.save()
                if stop.asked and (world == 1 or logging):
                    run.save()
                    raise run.interrupted(stop.asked)
                ended = time.perf_counter()
                if stopping or run.rewound:
                    run.rewound = False
                    break
            else:
                state.epoch, state.batch = state.epoch + 1, 0
                if first == batches == 0:
                    raise DataError("the stream yielded no batch", "rows", "check the data set")
        finish(run, train)
        if dist.any_rank(bool(stop.asked), device):  # what is left belongs to `resume`
            raise run.interrupted(stop.asked or "another rank")
    return state
