"""Nets as people write them, with the places where bugs get in.

A `Net` is a body, a head and an end. All bodies know the knobs `act`, `norm`, `dropout`, `depth`,
`width`; `Net` itself knows the bugs of a forward pass: `detach`, `mix`, `extra`, `end`. Shapes:
N rows, T places, D numbers, V words, H width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "elu": nn.ELU, "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU, "leaky": nn.LeakyReLU, "selu": nn.SELU, "prelu": nn.PReLU,
    "none": nn.Identity, "softmax": lambda: nn.Softmax(-1), "log_softmax": lambda: nn.LogSoftmax(-1),
    "softplus": nn.Softplus,
}  # fmt: skip
"""Activations, and ends of nets."""


class Net(nn.Module):
    """A body of features and a head, with what can go wrong between them.

    detach  features lose their graph: "call" by `.detach()`, "numpy" by a way through numpy
    mix     rows see each other: "centre" subtracts the batch's mean, "softmax" is over rows
    extra   width of a module that is made and never called
    end     an activation after the head; functional: called as a function and no module
    """

    def __init__(
        self,
        body: nn.Module,
        head: nn.Module,
        *,
        end: str = "",
        functional_end: bool = False,
        detach: str = "",
        mix: str = "",
        extra: int = 0,
        squeeze: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.end = ACTS[end]() if end and not functional_end else None
        self.called = end if functional_end else ""
        self.detach, self.mix, self.squeeze, self.gain = detach, mix, squeeze, gain
        if extra:
            self.extra = nn.Sequential(nn.Linear(16, extra), nn.ReLU(), nn.Linear(extra, 16))

    def forward(self, x: Any) -> Any:
        h = self.body(x)
        if self.detach == "call":
            h = h.detach()
        elif self.detach == "numpy":
            h = torch.from_numpy(h.detach().cpu().numpy())
        if self.mix == "centre":
            h = h - h.mean(0, keepdim=True)
        elif self.mix == "softmax":
            h = h * torch.softmax(h.mean(-1, keepdim=True), 0) * len(h)
        o = self.head(h)
        if self.end is not None:
            o = self.end(o)
        if self.called == "softmax":
            o = F.softmax(o, dim=-1)
        elif self.called:
            o = getattr(torch, self.called)(o)
        if self.gain != 1.0:
            o = self.gain * o
        return o.squeeze(-1) if self.squeeze else o


def _norm(kind: str, width: int) -> list[nn.Module]:
    return {"": [], "batch": [nn.BatchNorm1d(width)], "layer": [nn.LayerNorm(width)]}[kind]


def stack(
    inputs: int, width: int, depth: int, *, act: str = "relu", norm: str = "", dropout: float = 0.0
) -> nn.Sequential:
    """Return `depth` layers of linear, norm, activation, dropout."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else width, width), *_norm(norm, width), ACTS[act]()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


NET = ("end", "functional_end", "detach", "mix", "extra", "squeeze", "gain")


def split(knobs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the knobs of a body, and those of `Net`."""
    return (
        {k: v for k, v in knobs.items() if k not in NET},
        {k: v for k, v in knobs.items() if k in NET},
    )


def mlp(inputs: int, outputs: int, *, width: int = 48, depth: int = 2, **knobs: Any) -> nn.Module:
    """Return a multi-layer perceptron."""
    body, net = split(knobs)
    return Net(stack(inputs, width, depth, **body), nn.Linear(width, outputs), **net)


class Convs(nn.Module):
    """Two convolutions of 3 x 3 with activations called as functions, a pool, a flat end."""

    def __init__(
        self,
        size: int,
        *,
        channels: int = 1,
        width: int = 12,
        act: str = "relu",
        norm: str = "",
        dropout: float = 0.0,
        depth: int = 2,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.act, self.drop = act, nn.Dropout(dropout)
        wide = [channels] + [width] * depth
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(wide, wide[1:], strict=False)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(width, momentum=momentum) if norm == "batch" else
            nn.GroupNorm(2, width) if norm else nn.Identity() for _ in range(depth)
        )  # fmt: skip
        self.wide = width * (size // 4) ** 2

    def forward(self, x: Tensor) -> Tensor:
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = called(self.act, norm(conv(x)))
            if i < 2:
                x = F.max_pool2d(x, 2)
        return self.drop(x.flatten(1))


def called(act: str, x: Tensor) -> Tensor:
    """Return an activation called as a function."""
    if act == "none":
        return x
    if act in ("tanh", "sigmoid"):
        return getattr(torch, act)(x)
    return getattr(F, {"leaky": "leaky_relu"}.get(act, act))(x)


def cnn(size: int, outputs: int, *, width: int = 12, **knobs: Any) -> nn.Module:
    """Return a small convolutional net for images of `size` x `size`."""
    body, net = split(knobs)
    convs = Convs(size, width=width, **body)
    hidden = nn.Sequential(nn.Linear(convs.wide, 32), ACTS[body.get("act", "relu")]())
    return Net(nn.Sequential(convs, hidden), nn.Linear(32, outputs), **net)


class Recurrent(nn.Module):
    """A recurrent layer over (N, T, D) numbers or (N, T) words.

    every      an output at every place (language) instead of the last one
    lengths    words: the state at the last word that is not padding, else at the last place
    sideways   the bug: batch and time are taken for each other
    """

    def __init__(
        self,
        inputs: int,
        *,
        cell: str = "gru",
        width: int = 32,
        vocabulary: int = 0,
        every: bool = False,
        lengths: bool = False,
        sideways: bool = False,
        both_ways: bool = False,
        dropout: float = 0.0,
        depth: int = 1,
        act: str = "tanh",
        norm: str = "",
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, inputs) if vocabulary else None
        kind = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[cell]
        more = {"nonlinearity": act} if cell == "rnn" and act in ("tanh", "relu") else {}
        self.cell = kind(
            inputs, width, depth, batch_first=not sideways, bidirectional=both_ways, **more
        )
        self.wide = width * (2 if both_ways else 1)
        self.norm = nn.LayerNorm(self.wide) if norm == "layer" else nn.Identity()
        self.drop, self.every, self.lengths = nn.Dropout(dropout), every, lengths

    def forward(self, x: Tensor) -> Tensor:
        words = x
        if self.embed is not None:
            x = self.embed(x)
        h, _ = self.cell(x)
        if self.every:
            return self.drop(self.norm(h))
        if self.lengths:
            last = (words != 0).sum(1).clamp(min=1) - 1
            h = h[torch.arange(len(h)), last]
        else:
            h = h[:, -1]
        return self.drop(self.norm(h))


def recurrent(inputs: int, outputs: int, **knobs: Any) -> nn.Module:
    """Return a recurrent net."""
    body, net = split(knobs)
    made = Recurrent(inputs, **body)
    return Net(made, nn.Linear(made.wide, outputs), **net)


class Block(nn.Module):
    """Attention and a feed-forward part, each after a norm and beside a residual.

    over  the bug: the dimension of the attention's softmax; -1 is right, 0 runs over the batch
    """

    def __init__(self, width: int, *, heads: int = 2, act: str = "gelu", dropout: float = 0.0,
                 over: int = -1) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.over, self.act = heads, over, act
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        N, T, H = x.shape
        q, k, v = (
            part.reshape(N, T, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        score = q @ k.transpose(-2, -1) / math.sqrt(H / self.heads)
        if seen is not None:
            score = score.masked_fill(~seen, -1e9)
        said = score.softmax(self.over) @ v
        x = x + self.drop(self.out(said.transpose(1, 2).reshape(N, T, H)))
        return x + self.drop(self.narrow(called(self.act, self.wide(self.norm2(x)))))


class Attention(nn.Module):
    """A transformer over words.

    causal     every place sees itself and earlier ones
    positions  learned positions are added
    mask       padding: "right" is not seen and not averaged, "inverted" is all that is seen,
               "ignored" is treated as words
    every      an output at every place instead of the mean over places
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        *,
        width: int = 32,
        depth: int = 1,
        causal: bool = False,
        positions: bool = True,
        mask: str = "",
        every: bool = False,
        over: int = -1,
        dropout: float = 0.0,
        act: str = "gelu",
        norm: str = "layer",
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Embedding(length, width) if positions else None
        self.blocks = nn.ModuleList(
            Block(width, act=act, dropout=dropout, over=over) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width) if norm == "layer" else nn.Identity()
        self.causal, self.mask, self.every = causal, mask, every

    def forward(self, words: Tensor) -> Tensor:
        N, T = words.shape
        x = self.embed(words)
        if self.place is not None:
            x = x + self.place(torch.arange(T, device=words.device))
        seen = None
        real = words != 0
        if self.mask == "inverted":
            real = ~real
        if self.mask in ("right", "inverted"):
            seen = real[:, None, None, :].expand(N, 1, T, T)
        if self.causal:
            before = torch.ones(T, T, dtype=torch.bool, device=words.device).tril()
            seen = before if seen is None else seen & before
        for block in self.blocks:
            x = block(x, seen)
        x = self.norm(x)
        if self.every:
            return x
        if self.mask in ("right", "inverted"):
            weight = real[..., None].float()
            return (x * weight).sum(1) / weight.sum(1).clamp(min=1)
        return x.mean(1)


def attention(
    vocabulary: int, length: int, outputs: int, *, width: int = 32, **knobs: Any
) -> nn.Module:
    """Return a small transformer."""
    body, net = split(knobs)
    return Net(Attention(vocabulary, length, width=width, **body), nn.Linear(width, outputs), **net)


class Bag(nn.Module):
    """The mean of the words' vectors, and layers on it.

    pads  "left out" of the mean, "counted" like words, or, the bug, "alone" in it
    """

    def __init__(self, vocabulary: int, *, width: int = 32, depth: int = 1, pads: str = "left out",
                 **knobs: Any) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.pads = pads
        self.layers = stack(width, width, depth, **knobs)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words)
        if self.pads == "counted":
            return self.layers(x.mean(1))
        seen = ((words == 0) if self.pads == "alone" else (words != 0))[..., None].float()
        return self.layers((x * seen).sum(1) / seen.sum(1).clamp(min=1))


def bag(vocabulary: int, outputs: int, *, width: int = 32, **knobs: Any) -> nn.Module:
    """Return a bag of words with a perceptron."""
    body, net = split(knobs)
    return Net(Bag(vocabulary, width=width, **body), nn.Linear(width, outputs), **net)


class Conv1d(nn.Module):
    """Convolutions along time over (N, T, D), and the largest value of each channel."""

    def __init__(self, inputs: int, *, width: int = 24, depth: int = 2, act: str = "relu",
                 norm: str = "", dropout: float = 0.0) -> None:  # fmt: skip
        super().__init__()
        wide = [inputs] + [width] * depth
        layers: list[nn.Module] = []
        for a, b in zip(wide, wide[1:], strict=False):
            layers += [nn.Conv1d(a, b, 5, padding=2)]
            layers += [nn.BatchNorm1d(b)] if norm == "batch" else []
            layers += [ACTS[act]()]
        self.layers, self.drop = nn.Sequential(*layers), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.layers(x.transpose(1, 2)).amax(-1))


def conv1d(inputs: int, outputs: int, *, width: int = 24, **knobs: Any) -> nn.Module:
    """Return a convolutional net along time."""
    body, net = split(knobs)
    return Net(Conv1d(inputs, width=width, **body), nn.Linear(width, outputs), **net)


def autoencoder(
    inputs: int, *, code: int = 8, width: int = 48, depth: int = 1, act: str = "relu",
    norm: str = "", dropout: float = 0.0, **net: Any,
) -> nn.Module:  # fmt: skip
    """Return an encoder to `code` numbers and a decoder."""
    more = {"act": act, "norm": norm, "dropout": dropout}
    encoder = nn.Sequential(stack(inputs, width, depth, **more), nn.Linear(width, code))
    decoder = nn.Sequential(stack(code, width, depth, **more), nn.Linear(width, inputs))
    return Net(encoder, decoder, **net)


class ConvCode(nn.Module):
    """Digits of 64 numbers as images: convolutions down to a code, and up again."""

    def __init__(self, *, width: int = 12, code: int = 8, act: str = "relu", end: str = "sigmoid",
                 depth: int = 1) -> None:  # fmt: skip
        super().__init__()
        self.act, self.width, self.end = act, width, end
        self.down = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.code = nn.Linear(width * 16, code)
        self.open = nn.Linear(code, width * 16)
        self.up = nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = called(self.act, self.down(x.reshape(-1, 1, 8, 8)))
        h = called(self.act, self.open(self.code(h.flatten(1))))
        o = self.up(h.reshape(-1, self.width, 4, 4)).flatten(1)
        return torch.sigmoid(o) if self.end == "sigmoid" else o
