"""What a metric is: three functions over a state of fixed size.

`update` adds a batch to the state in place, without a device-host sync; states of ranks or of
micro-batches simply add up (where a state must keep rows, `join` puts those of ranks together);
`compute` turns a state into one number. Row weights multiply a row's share everywhere. Outputs and
targets have no gradient here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence  # noqa: TC003  a dataclass shows its field types
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

State = dict[str, "Tensor"]


@dataclass(frozen=True)
class Metric:
    """A named number over (outputs, target, weight) and whether more of it is better.

    init     device -> state of zeros
    update   (state, outputs, target, weight or None) -> None, adds in place
    compute  state -> float; NaN where nothing was seen
    join     states of several ranks -> one, where a state keeps rows; None: they add up
    """

    name: str
    greater_is_better: bool
    init: Callable[[torch.device | str], State]
    update: Callable[[State, Tensor, Tensor, Tensor | None], None]
    compute: Callable[[State], float]
    join: Callable[[Sequence[State]], State] | None = None


def accumulator(device: torch.device | str) -> torch.dtype:
    """Return the dtype of sums: float64, or float32 where the device has none (MPS)."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def zeros(sizes: Mapping[str, tuple[int, ...]]) -> Callable[[torch.device | str], State]:
    """Return an `init` for named tensors of these shapes."""

    def init(device: torch.device | str) -> State:
        dtype = accumulator(device)
        return {k: torch.zeros(s, dtype=dtype, device=device) for k, s in sizes.items()}

    return init


def add(state: State, name: str, values: Tensor, weight: Tensor | None) -> None:
    """Add Σᵢ wᵢ vᵢ of (B,) values to a scalar of the state."""
    total = state[name]
    if weight is not None:
        values = values.to(total.dtype) * weight
    total.add_(values.sum(dtype=total.dtype))


def add_rows(state: State, name: str, rows: int, weight: Tensor | None) -> None:
    """Add the number of rows, or the sum of their weights, to a scalar of the state."""
    total = state[name]
    total.add_(rows if weight is None else weight.sum(dtype=total.dtype))


def count(state: State, name: str, index: Tensor, weight: Tensor | None) -> None:
    """Add each row's weight to the bin `index` (B,) of a flat tensor of the state."""
    bins = state[name].view(-1)
    ones = weight.to(bins.dtype) if weight is not None else bins.new_ones(()).expand(len(index))
    bins.index_add_(0, index, ones)


def ratio(state: State, above: str, below: str) -> float:
    """Return the quotient of two scalars of the state; NaN over zero."""
    divisor = float(state[below])
    return float(state[above]) / divisor if divisor else float("nan")
