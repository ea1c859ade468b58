"""Validation during the run, and the end of it: best weights restored and proven the best."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from gipi.core.errors import RunError
from gipi.train.begin import primary
from gipi.train.clock import ENDED
from gipi.train.evaluate import Evaluation, evaluate
from gipi.train.state import Best

if TYPE_CHECKING:
    from gipi.core.batch import Stream
    from gipi.core.events import Action
    from gipi.train.run import Run

BEST_TOLERANCE = 1e-3
"""Relative difference above which restored weights are not the ones that were recorded."""


def validate(run: Run) -> list[Action]:
    """Evaluate on the validation rows, remember better weights, write the row."""
    average = run.state.average
    with average.swapped() if average is not None else nullcontext():
        seen = _look(run, run.task.judged_rows)
        name, greater = primary(run.task, run.schema)
        score, loss, best = seen.metrics[name], seen.metrics["loss"], run.state.best
        gain = 0.0 if best is None else (score - best.score) * (1 if greater else -1)
        better = math.isfinite(score) and (
            best is None or gain > 0 or (gain == 0 and loss < best.loss)
        )
        if better:
            weights = {k: v.detach().clone() for k, v in run.model.state_dict().items()}
            run.state.best = Best(run.state.step, score, loss, weights)
    row = {
        "step": run.state.step,
        "epoch": run.state.epoch,
        **{f"val/{name}": value for name, value in seen.metrics.items()},
        "best": better,
        "seconds": round(run.clock.elapsed(), 3),
    }
    run.state.history.append(row)
    return run.tell("evaluate", row)


def finish(run: Run, train: Stream) -> None:
    """End a run: last row and evaluation, last checkpoint, best weights back, and their proof.

    Raises `RunError` when the restored weights do not score what was recorded for them.
    """
    state = run.state
    run.explain_skipped(train)
    if run.window.losses:
        row = {"step": state.step, "epoch": state.epoch, "progress": 1.0, **run.window.close(),
               "seconds": round(run.clock.elapsed(), 3)}  # fmt: skip
        run.tell("row", row)
    if run.val is not None and (not state.history or state.history[-1]["step"] != state.step):
        validate(run)
    state.progress, state.finished = 1.0, True
    run.save()
    if state.best is not None:
        run.model.load_state_dict(state.best.weights)
        name, _ = primary(run.task, run.schema)
        again = _look(run).metrics  # of a task that writes, all rows are answered now
        scale = max(abs(state.best.score), 1e-6)
        if abs(again[name] - state.best.score) > BEST_TOLERANCE * scale:
            raise RunError(
                f"the best weights (step {state.best.step}) score val/{name}={again[name]:.6g} "
                f"and were recorded with {state.best.score:.6g}",
                "the same score when the same weights see the same rows",
                "report this: the model's output depends on more than weights and input",
            )
        state.metrics = {f"val/{key}": value for key, value in again.items()}
    elif state.average is not None:
        state.average.swap()
    if run.recipe.time is not None:
        ENDED[:] = [time.time()]
    best = {} if state.best is None else {"best_step": state.best.step}
    run.tell("end", {"step": state.step, "epoch": state.epoch, **best, **state.metrics})


def _look(run: Run, answers: int | None = None) -> Evaluation:
    assert run.val is not None
    with torch.no_grad():
        return evaluate(
            run.net, run.task, run.val, schema=run.schema, device=run.device,
            autocast=run.context, layout=run.setup.memory_format, answers=answers,
        )  # fmt: skip
