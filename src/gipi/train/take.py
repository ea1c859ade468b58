"""Carries out what observers ask for: a closed set of actions, each of them logged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ConfigError, did_you_mean
from gipi.core.events import PRECEDENCE
from gipi.train import checkpoint
from gipi.train.finish import validate
from gipi.train.lanes import build_lanes

if TYPE_CHECKING:
    from gipi.core.events import Action
    from gipi.train.run import Run

LIVE = ("threads", "clip_norm", "l1", "lr_scale")
"""Fields that `change` may set while the run goes on."""


def in_order(actions: list[Action]) -> list[Action]:
    """Return the actions in the order of `PRECEDENCE`; raise `ConfigError` for an unknown kind."""
    for action in actions:
        if action.kind not in PRECEDENCE:
            raise ConfigError(
                f"an observer answered with the action '{action.kind}'",
                "one of: " + ", ".join(PRECEDENCE),
                did_you_mean(action.kind, PRECEDENCE),
            )
    return sorted(actions, key=lambda action: PRECEDENCE.index(action.kind))


def take(run: Run, action: Action) -> bool:
    """Carry out one action and write it down; return True where the run must end."""
    if action.kind == "rollback" and run.out is None:
        raise ConfigError(
            "rollback without a run folder",
            "checkpoints to go back to",
            "give fit a folder: out=...",
        )
    run.note(action.kind, action.reason, more=_value(action))
    match action.kind:
        case "stop":
            run.state.extras["stopped"] = run.clock.budget
            return True
        case "save":
            run.save()
        case "evaluate":
            if run.val is not None:
                validate(run)
        case "scale_lr":
            run.state.lr_scale *= float(action.value)
        case "change":
            _change(run, action)
        case "rollback":
            assert run.out is not None
            checkpoint.load(run.out, run.state)
            run.rewound = True  # the rows of the steps to come are those after the checkpoint
        case "replace":
            state, recipe = action.value
            run.model.load_state_dict(state)
            run.recipe = recipe
            run.lanes[:] = build_lanes(run.model, run.task, recipe)
            run.state.optimizers = {lane.phase.name: lane.optimizer for lane in run.lanes}
        case "note":
            pass
    return False


def _change(run: Run, action: Action) -> None:
    """Set one live field; raises `ConfigError` for a field that is fixed during a run."""
    if action.field == "threads":
        torch.set_num_threads(int(action.value))
        run.setup = replace(run.setup, threads=int(action.value))
        return
    if action.field not in LIVE:
        raise ConfigError(
            f"change of '{action.field}' during a run",
            "one of: " + ", ".join(LIVE),
            "start a new run with the value",
        )
    if action.field == "lr_scale":
        run.state.lr_scale = float(action.value)
        return
    run.state.extras.setdefault("changed", {})[action.field] = action.value
    run.recipe = run.recipe.model_copy(update={action.field: action.value})
    run.lanes[:] = build_lanes(run.model, run.task, run.recipe, optimizers=run.state.optimizers)


def _value(action: Action) -> dict[str, object]:
    simple = isinstance(action.value, str | int | float | bool)
    return {
        **({"field": action.field} if action.field else {}),
        **({"value": action.value} if simple else {}),
    }
