"""Nets that are well and look odd: residuals that begin at zero, experts without rows, two heads."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.doctor.nets import ACTS, Net, split
from torch import Tensor, nn


class Residual(nn.Module):
    """Layers beside residuals over (N, D) numbers.

    zero   the last layer of every branch begins at zero
    scale  a learned factor of every branch that begins here (0: none)
    skip   probability with which a branch is left out in training
    """

    def __init__(self, inputs: int, *, width: int = 48, depth: int = 4, zero: bool = False,
                 scale: float = 0.0, skip: float = 0.0, act: str = "relu") -> None:  # fmt: skip
        super().__init__()
        self.open = nn.Linear(inputs, width)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), ACTS[act](), nn.Linear(width, width)
            )
            for _ in range(depth)
        )
        self.scales = nn.Parameter(torch.full((depth,), scale)) if scale else None
        self.skip = skip
        for branch in self.branches if zero else ():
            nn.init.zeros_(branch[-1].weight)
            nn.init.zeros_(branch[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.open(x)
        for i, branch in enumerate(self.branches):
            if self.training and self.skip and torch.rand(()) < self.skip:
                continue
            h = h + (branch(h) if self.scales is None else self.scales[i] * branch(h))
        return h


def residual(inputs: int, outputs: int, *, width: int = 48, **knobs: Any) -> nn.Module:
    """Return a residual perceptron."""
    body, net = split(knobs)
    return Net(Residual(inputs, width=width, **body), nn.Linear(width, outputs), **net)


class Experts(nn.Module):
    """A gate sends every row to one of several experts: in a batch some may get no row."""

    def __init__(self, inputs: int, outputs: int, *, width: int = 24, experts: int = 4) -> None:
        super().__init__()
        self.gate = nn.Linear(inputs, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))
            for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.gate(x).softmax(-1).max(-1)
        out = x.new_zeros(len(x), self.experts[0][-1].out_features)
        for i, expert in enumerate(self.experts):
            rows = (chosen == i).nonzero()[:, 0]
            if len(rows):
                out = out.index_add(0, rows, weight[rows, None] * expert(x[rows]))
        return out


class Variational(nn.Module):
    """A variational autoencoder: outputs are (rebuilt, mean, log variance)."""

    def __init__(self, inputs: int, *, code: int = 6, width: int = 48) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, 2 * code)
        )
        self.decoder = nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, inputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = self.encoder(x).chunk(2, -1)
        code = mean + torch.randn_like(mean) * (0.5 * logvar).exp() if self.training else mean
        return self.decoder(code), mean, logvar


class Probed(nn.Module):
    """A net with a second head that reads its features without teaching them."""

    def __init__(self, net: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.net, self.probe = net, nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.net.body(x)
        return self.net.head(h), self.probe(h.detach())


class TwoInputs(nn.Module):
    """A perceptron over two groups of columns given apart."""

    def __init__(self, first: int, second: int, outputs: int, *, width: int = 48) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(first, width), nn.Linear(second, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head(torch.relu(self.one(left) + self.two(right)))
