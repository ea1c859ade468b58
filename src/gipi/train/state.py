"""The state of a run: all that must be remembered to go on as if nothing had happened."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gipi.train.carry import remembered, remind
from gipi.train.tree import like

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from gipi.optim import Average


@dataclass
class Best:
    """The best weights so far: by the primary metric of the validation rows, then by their loss."""

    step: int
    score: float
    loss: float
    weights: dict[str, Tensor]


@dataclass
class State:
    """Where a run stands. Everything here is in a checkpoint.

    step      optimizer steps attempted; skipped: those left out because they were not finite
    epoch     passes over the data begun; batch: batches done within this pass
    progress  share of the budget used, 0..1; lr = initial_lr x schedule(progress) x lr_scale
    elapsed   seconds of training in earlier processes of this run
    history   the rows of all evaluations
    extras    states of the observers and of the gradient scaler, by name
    """

    model: nn.Module
    optimizers: dict[str, Optimizer]
    step: int = 0
    epoch: int = 0
    batch: int = 0
    progress: float = 0.0
    lr_scale: float = 1.0
    skipped: int = 0
    elapsed: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Best | None = None
    average: Average | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    setup: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    finished: bool = False


_COUNTERS = ("step", "epoch", "batch", "progress", "lr_scale", "skipped", "elapsed", "finished")


def to_tree(state: State) -> dict[str, Any]:
    """Return everything of a state as nested containers, scalars and tensors."""
    best = state.best
    return {
        **{name: getattr(state, name) for name in _COUNTERS},
        "model": dict(state.model.state_dict()),
        "memory": remembered(state.model),
        "optimizers": {k: _optimizer_tree(o) for k, o in state.optimizers.items()},
        "best": None
        if best is None
        else {
            "step": best.step,
            "score": best.score,
            "loss": best.loss,
            "weights": best.weights,
        },
        "average": None if state.average is None else state.average.state(),
        "history": state.history,
        "extras": state.extras,
        "rng": rng_state(),
    }


def from_tree(state: State, tree: dict[str, Any]) -> None:
    """Put a tree from `to_tree` into a freshly built state, in place.

    Raises `RuntimeError` where a tensor's name or shape does not fit the model.
    """
    for name in _COUNTERS:
        setattr(state, name, tree[name])
    state.model.load_state_dict(tree["model"])
    remind(state.model, tree.get("memory", {}))
    for name, optimizer in state.optimizers.items():
        _load_optimizer(optimizer, tree["optimizers"][name])
    best = tree["best"]
    state.best = None if best is None else Best(**best)
    if state.average is not None and tree["average"] is not None:
        state.average.load_state(tree["average"])
    state.history = tree["history"]
    state.extras = tree["extras"]
    set_rng_state(tree["rng"])


def _optimizer_tree(optimizer: Optimizer) -> dict[str, Any]:
    content = optimizer.state_dict()
    groups = [
        {k: v for k, v in group.items() if k != "lr" or not callable(v)}
        for group in content["param_groups"]
    ]
    return {"state": content["state"], "param_groups": groups}


def _load_optimizer(optimizer: Optimizer, content: dict[str, Any]) -> None:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        index: {
            key: like(value, params[index]) if torch.is_tensor(value) else value
            for key, value in values.items()
        }
        for index, values in content["state"].items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": content["param_groups"]})
    for index, param in enumerate(params):
        if index not in state:
            continue
        for key, value in state[index].items():  # load_state_dict may have changed the layout
            if torch.is_tensor(value) and value.shape == param.shape:
                optimizer.state[param][key] = value


def rng_state() -> dict[str, Any]:
    """Return the state of Python's and torch's global generators."""
    version, numbers, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"python": [version, list(numbers), gauss], "torch": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(saved: dict[str, Any]) -> None:
    """Restore what `rng_state` returned."""
    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda"][: torch.cuda.device_count()])
