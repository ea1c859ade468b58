"""A chain of layers that answers what comes out of some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Tapped(nn.Module):
    """h₀ = x, hᵢ = layerᵢ(hᵢ₋₁); answers the hᵢ of the layers named in `taps`, in order.

    Like `nn.Sequential` its tensors are called by the names of its layers, so that a chain that is
    called "features" in published checkpoints can answer all its stages.

    >>> import torch
    >>> chain = Tapped({"a": nn.ReLU(), "b": nn.Flatten()}, ("a", "b"))
    >>> [tuple(h.shape) for h in chain(torch.zeros(2, 3, 4))]
    [(2, 3, 4), (2, 12)]
    """

    def __init__(self, layers: Mapping[str, nn.Module], taps: tuple[str, ...]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.taps = frozenset(taps)
        assert self.taps <= layers.keys()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the tapped outputs."""
        maps = []
        for name, layer in self.named_children():
            x = layer(x)
            if name in self.taps:
                maps.append(x)
        return maps
