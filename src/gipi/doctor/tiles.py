"""Tiles of images and signals that an attention takes for tokens: their order, and places for them.

Images (N, C, H, W) of a x b tiles, signals (N, C, L) of a = 1 row of b; P = a b tiles, D numbers
each. A tile is not overlapped by others, as in a vision transformer (Dosovitskiy et al. 2021).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.copies import peeking, renewed_optimizer
from gipi.doctor.experiment import batches, call
from gipi.doctor.finding import CannotRepair, Change
from gipi.doctor.rewire import replace_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

LEAST, TRIED = 4, 4
"""Tiles of an image, at least, and ways to cut it that are tried."""
MOVED = 0.1
"""Share of an image's numbers that must change when its tiles change places."""
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.Embedding)


def grids(facts: Facts, x: Tensor) -> list[tuple[int, int]]:
    """Return how an image may be cut into as many tiles as an attention has places, or one less.

    One place may be that of a token for the class.
    """
    if x.ndim not in (3, 4) or not x.is_floating_point():
        return []
    high, wide = (1, x.shape[2]) if x.ndim == 3 else (x.shape[2], x.shape[3])
    found: list[tuple[int, int]] = []
    for places in _places(facts):
        for tiles in (places, places - 1):
            found += [
                (a, tiles // a) for a in range(1, tiles + 1)
                if tiles >= LEAST and tiles % a == 0 and high % a == 0 and wide % (tiles // a) == 0
            ]  # fmt: skip
    # Tiles are square as a rule: of two ways to cut an image that one comes first.
    found = sorted(dict.fromkeys(found), key=lambda g: abs(math.log(high * g[1] / (wide * g[0]))))
    return found[:TRIED]


def _places(facts: Facts) -> list[int]:
    """Return the numbers of places that look at each other by attention."""
    found = []
    for op in facts.tape.of({"attention", "softmax"}):
        if op.kind == "softmax":
            shape = op.output.shape
            if len(shape) > 2 and shape[-1] == shape[-2]:
                found.append(shape[-1])
        elif len(op.inputs) > 1:
            query, key = op.inputs[:2]
            at = 0 if "embed_dim_to_check" in op.named or query.ndim == 3 else -2
            if query.shape[at] == key.shape[at]:
                found.append(query.shape[at])
    return list(dict.fromkeys(found))


def rearranged(x: Tensor, grid: tuple[int, int]) -> Tensor | None:
    """Return images whose tiles have changed places; None where that changes hardly anything."""
    image = x if x.ndim == 4 else x[:, :, None]
    (n, c, high, wide), (a, b) = image.shape, grid
    tiles = image.reshape(n, c, a, high // a, b, wide // b).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.randperm(a * b, generator=torch.Generator().manual_seed(0))
    tiles = tiles[:, order.to(x.device)].unflatten(1, (a, b))
    other = tiles.permute(0, 3, 1, 4, 2, 5).reshape(image.shape).reshape(x.shape)
    return other if float((other != x).double().mean()) >= MOVED else None


class PlacedTiles(nn.Module):
    """A layer that makes tokens of tiles, which get their places: sines at first, then learned.

    Half of the D numbers tell the row and half the column, each by
    p_2i = sin(t / s^(2i/d)), p_2i+1 = cos of the same, s twice as many as there are (Vaswani et al.
    2017; Dosovitskiy et al. 2021, appendix D.4), times `size`.
    """

    def __init__(self, inner: nn.Module, grid: tuple[int, int], width: int, size: float) -> None:
        super().__init__()
        self.inner = inner
        rows, columns = (torch.arange(k).float() for k in grid)
        own = width if 1 in grid else width // 2
        said = torch.zeros(*grid, width)
        if grid[0] > 1:
            said[..., :own] += _waves(rows, own)[:, None]
        if grid[1] > 1:
            said[..., width - own :] += _waves(columns, own)[None]
        self.place = nn.Parameter(size * said.flatten(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, P, D), or (N, D, a, b), with places."""
        said: Tensor = self.inner(x)
        place = self.place
        if said.shape[1:] == place.shape:
            return said + place
        return said + place.T.reshape(said.shape[1:])


def _waves(t: Tensor, width: int) -> Tensor:
    slowest = 2.0 * len(t)  # 10 000 is for a thousand words: a few tiles would look alike
    rate = torch.exp(-math.log(slowest) * torch.arange(0, width, 2).float() / width)
    angle = t[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]


def placed(grid: tuple[int, int]) -> Change:
    """Return the change that tells tokens of tiles their places, behind the layer that makes them.

    Raises `CannotRepair` where no layer puts out as many tokens as there are tiles.
    """

    def change(exp: Experiment) -> str:
        name, said = _tokens(exp, grid)
        width = said.shape[2] if _of_vectors(said, grid) else said.shape[1]
        # Sines have a mean square of a half: places are as strong as what stands there.
        size = max(math.sqrt(2) * float(said.std()), 0.02)
        by = PlacedTiles(exp.model.get_submodule(name), grid, width, size)
        replace_module(exp.model, name, by=by.to(said))
        renewed_optimizer(exp)
        return f"'{name}' gives tokens with positions"

    return change


def _tokens(exp: Experiment, grid: tuple[int, int]) -> tuple[str, Tensor]:
    """Return the first layer that puts out a token for each tile, and what it puts out."""
    found: list[tuple[str, Tensor]] = []

    def hook(name: str) -> Callable[..., None]:
        def heard(layer: nn.Module, _: Any, said: Tensor) -> None:
            maps = isinstance(layer, (nn.Conv1d, nn.Conv2d)) and said.ndim == layer.weight.ndim
            whole = maps and said.shape[2:].numel() == math.prod(grid)
            if _of_vectors(said, grid) or whole:
                found.append((name, said.detach()))

        return heard

    parts = [(n, m) for n, m in exp.model.named_modules() if n and isinstance(m, LAYERS)]
    handles = [m.register_forward_hook(hook(n)) for n, m in parts]
    try:
        with peeking(exp), torch.no_grad():
            call(exp.model, next(iter(batches(exp, 0)))[0])
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        message = "no layer makes tokens of the tiles"
        raise CannotRepair(message)
    return found[0]


def _of_vectors(said: Tensor, grid: tuple[int, int]) -> bool:
    """Whether outputs are (N, P, D)."""
    return said.ndim == 3 and said.shape[1] == math.prod(grid)
