"""Metrics of regression.

Outputs and targets are (B,), (B, 1) or (B, T), in the units in which the score is wanted. Errors
are means over all T values; `r2` and `pearson` are means over the T columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.errors import ModelError
from gipi.metrics.metric import Metric, State, add, add_rows, ratio, zeros

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def columns(outputs: Tensor, target: Tensor, state: State) -> tuple[Tensor, Tensor]:
    """Return both as (B, T) in the state's dtype; raise `ModelError` where they do not match."""
    if outputs.numel() != target.numel():
        raise ModelError(
            f"outputs of shape {tuple(outputs.shape)} for targets of shape {tuple(target.shape)}",
            "one predicted value for each target value",
            "check the model's head (a predicted spread is no value)",
        )
    dtype = next(iter(state.values())).dtype
    return outputs.reshape(len(target), -1).to(dtype), target.reshape(len(target), -1).to(dtype)


def widen(state: State, width: int) -> None:
    """Give every column of the target a place of its own, once its number T is known."""
    for name, value in state.items():
        if value.ndim == 1 and len(value) != width:
            state[name] = value.new_zeros(width)


def _error(name: str, of: Callable[[Tensor], Tensor], root: bool) -> Metric:  # noqa: FBT001
    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        guess, truth = columns(outputs, target, state)
        add(state, "error", of(guess - truth).mean(1), weight)
        add_rows(state, "count", len(target), weight)

    def compute(state: State) -> float:
        mean = ratio(state, "error", "count")
        return float(mean**0.5) if root else mean

    return Metric(
        name,
        greater_is_better=False,
        init=zeros({"error": (), "count": ()}),
        update=update,
        compute=compute,
    )


def mae(classes: int = 0) -> Metric:  # noqa: ARG001  one signature for all builders
    """Return the mean absolute error."""
    return _error("mae", lambda r: r.abs(), root=False)


def mse(classes: int = 0) -> Metric:  # noqa: ARG001
    """Return the mean squared error."""
    return _error("mse", lambda r: r.square(), root=False)


def rmse(classes: int = 0) -> Metric:  # noqa: ARG001
    """Return the root of the mean squared error, in the units of the target."""
    return _error("rmse", lambda r: r.square(), root=True)


def r2(classes: int = 0) -> Metric:
    """Return the share of the variance explained, 1 - Σ(y - ŷ)² / Σ(y - ȳ)², mean over columns.

    A constant column scores 1 when predicted exactly, else 0. Wright 1921. `classes` is T; where
    it is not known the first batch says it.
    """

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        guess, y = columns(outputs, target, state)
        widen(state, y.shape[1])
        w = 1.0 if weight is None else weight.to(y.dtype).unsqueeze(1)
        state["residual"].add_((w * (y - guess).square()).sum(0))
        state["y"].add_((w * y).sum(0))
        state["yy"].add_((w * y * y).sum(0))
        add_rows(state, "count", len(y), weight)

    def compute(state: State) -> float:
        if not state["count"]:
            return float("nan")
        spread = state["yy"] - state["y"].square() / state["count"]
        flat = spread <= 1e-12 * state["yy"]
        exact = (state["residual"] == 0).to(spread.dtype)
        score = 1 - state["residual"] / spread.masked_fill(flat, 1.0)
        return float(score.where(~flat, exact).mean())

    size = (max(classes, 1),)
    return Metric(
        "r2",
        greater_is_better=True,
        init=zeros({"residual": size, "y": size, "yy": size, "count": ()}),
        update=update,
        compute=compute,
    )


def pearson(classes: int = 0) -> Metric:
    """Return Pearson's correlation of prediction and truth, mean over columns. Pearson 1895.

    NaN where one of the two is constant. `classes` is T, or the first batch says it.
    """
    names = ("y", "p", "yy", "pp", "yp")

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        p, y = columns(outputs, target, state)
        widen(state, y.shape[1])
        w = 1.0 if weight is None else weight.to(y.dtype).unsqueeze(1)
        for name, values in zip(names, (y, p, y * y, p * p, y * p), strict=True):
            state[name].add_((w * values).sum(0))
        add_rows(state, "count", len(y), weight)

    def compute(state: State) -> float:
        n = state["count"]
        cov = n * state["yp"] - state["y"] * state["p"]
        var_y = n * state["yy"] - state["y"].square()
        var_p = n * state["pp"] - state["p"].square()
        return float((cov / (var_y.clamp(min=0) * var_p.clamp(min=0)).sqrt()).mean())

    size = (max(classes, 1),)
    return Metric(
        "pearson",
        greater_is_better=True,
        init=zeros({**dict.fromkeys(names, size), "count": ()}),
        update=update,
        compute=compute,
    )
