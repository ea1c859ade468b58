"""How branches of a net join again: by a sum, by concatenation, or not at all for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Residual(nn.Module):
    """y = s(x) + drop_path(f(x)); s is the identity unless given.

    The gradient of y by x holds s' whatever f does, so depth costs less to learn. He, Zhang, Ren
    and Sun 2016, "Deep residual learning", arXiv:1512.03385.

    body       f, of the shape of s(x)
    shortcut   s, such as a 1x1 convolution where the widths differ
    drop_path  chance that a row skips f in training, see `DropPath`
    """

    def __init__(
        self, body: nn.Module, *, shortcut: nn.Module | None = None, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.drop_path = DropPath(drop_path) if drop_path else None

    def forward(self, x: Tensor) -> Tensor:
        """Return s(x) + f(x), of the shape of f(x)."""
        out: Tensor = self.body(x)
        if self.drop_path is not None:
            out = self.drop_path(out)
        return out + (x if self.shortcut is None else self.shortcut(x))


class DropPath(nn.Module):
    """Stochastic depth: y = x·b / (1 - p) with one b of {0, 1} for each row, P(b = 0) = p.

    For the branch of a residual sum: a row whose b is 0 goes past it. In prediction y = x, as the
    mean of y is x in training. torch.nn has dropout of elements and of channels, not of rows.

    Huang, Sun, Liu, Sedra and Weinberger 2016, "Deep networks with stochastic depth",
    arXiv:1603.09382. Differs in that the division is done in training (they multiply by 1 - p in
    prediction), and in that each row draws for itself (they drop a layer for the whole batch).

    x (B, ...) -> the same
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigError(f"drop path p={p}", "a share from 0 up to, not including, 1",
                              "use p=0.1")  # fmt: skip
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return x with rows left out, and the others scaled up."""
        if not self.training or self.p == 0:
            return x
        kept = x.new_empty(len(x), *([1] * (x.ndim - 1))).bernoulli_(1 - self.p)
        return x * kept.div_(1 - self.p)

    def extra_repr(self) -> str:
        """Return p, for printing."""
        return f"p={self.p}"


def drop_rates(blocks: int, last: float) -> tuple[float, ...]:
    """Return the chance to skip each of `blocks` blocks, pₗ = l / L · `last`, as in the paper.

    Early blocks are needed by all later ones, so they are skipped least.

    >>> drop_rates(4, 0.2)
    (0.05, 0.1, 0.15000000000000002, 0.2)
    """
    return tuple(last * (i + 1) / blocks for i in range(blocks))


class DenseConcat(nn.Module):
    """y = [x, f(x)] along the channels: every later layer sees this one's input too.

    x (B, C, ...), f(x) (B, K, ...) -> (B, C + K, ...); K is the growth rate. Huang, Liu, van der
    Maaten and Weinberger 2017, "Densely connected convolutional networks", arXiv:1608.06993.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return x and f(x) side by side."""
        return torch.cat([x, self.body(x)], 1)


class Branches(nn.Module):
    """y = [f₁(x), ..., fₙ(x)] along the channels, the join of an Inception module.

    Szegedy et al. 2015, "Going deeper with convolutions", arXiv:1409.4842; see `inception`.
    """

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all branches side by side."""
        return torch.cat([branch(x) for branch in self.branches], 1)
