"""Gaps in the input, and values that stand for one, filled in front of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.experiment import outputs

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment

NEAR = 1e-5


class Fill(nn.Module):
    """x where it is a number, the column's fill where it is none or the column's code for none.

    fill, code      (columns,): what is put in; the code that stands for a gap, NaN where none does,
                    of several codes (codes, columns)
    channels_first  columns are dimension 1, else the last one
    marked          columns (m,) whose gaps are told by a further column each: (N, D) -> (N, D + m)
    mean, std       what is subtracted and divided by afterwards, where given
    """

    fill: Tensor
    code: Tensor
    marked: Tensor
    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        fill: Tensor,
        code: Tensor,
        *,
        channels_first: bool = False,
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.channels_first = channels_first
        self.register_buffer("fill", fill)
        self.register_buffer("code", code)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("marked", torch.zeros(0, dtype=torch.int64))

    def forward(self, x: Any) -> Any:
        """Return the input without gaps; what is no tensor of numbers passes as it is."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        shape = [1] * x.ndim
        shape[1 if self.channels_first else -1] = -1
        fill, gap = self.fill.view(shape).to(x.dtype), ~x.isfinite()
        for one in self.code.reshape(-1, self.fill.numel()):
            code = one.view(shape)
            gap = gap | ((x - code).abs() <= NEAR * (1 + code.abs()))
        x = torch.where(gap, fill, x)
        if self.mean is not None and self.std is not None:
            x = (x - self.mean.view(shape).to(x.dtype)) / self.std.view(shape).to(x.dtype)
        if len(self.marked):
            x = torch.cat([x, gap[:, self.marked].to(x.dtype)], -1)
        return x


def add_marks(exp: Experiment, filled: Fill, marked: Tensor, X: Tensor, *, most: int = 64) -> bool:
    """Widen the first linear layer of a table's net by a column a mark; whether that was possible.

    The new weights are zero: the net answers as it did before, and learns what a gap tells.
    Parameters stay the objects that the optimizer knows.
    """
    first = next((m for m in exp.model.modules() if not list(m.children())), None)
    if type(first) is not nn.Linear or first.in_features != X.shape[1]:
        return False
    if not 0 < len(marked) <= most:
        return False
    old, width = first.weight.data, first.in_features
    some = torch.nan_to_num(X[:8], posinf=0.0, neginf=0.0)
    before = outputs(exp, some)
    zeros = old.new_zeros(len(old), len(marked))
    first.weight.data = torch.cat([old, zeros], 1)
    first.in_features = width + len(marked)
    try:
        after = outputs(exp, torch.cat([some, some.new_zeros(len(some), len(marked))], 1))
        same = isinstance(after, Tensor) and after.shape == before.shape
        same = same and bool(torch.allclose(after, before, atol=1e-4, rtol=1e-4))
    except (RuntimeError, ValueError, IndexError, TypeError):
        same = False
    if not same:
        first.weight.data, first.in_features = old, width
        return False
    exp.optimizer.state.pop(first.weight, None)
    first.weight.grad = None
    filled.marked = marked
    return True
