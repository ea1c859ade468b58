"""Healthy runs that look odd by the form of their data or their net."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from benchmarks.doctor import nets, nets_odd
from benchmarks.doctor.oddities import odd
from benchmarks.doctor.setup import Setup
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset


def both_ways(s: Setup, _: float) -> None:
    """A classifier that reads from both ends, as it may."""
    s.knobs["both_ways"] = True


def no_order(s: Setup, _: float) -> None:
    """Attention without places where the order of words says nothing."""
    s.knobs["positions"] = False


def masked_words(s: Setup, share: float) -> None:
    """A masked language model: most targets are -100, and it sees both ways."""
    words = s.facts["vocabulary"]
    g = s.generator("masked")

    def change(X: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        hit = torch.rand(X.shape, generator=g) < share
        hit[:, 0] |= ~hit.any(1)
        return torch.where(hit, words, X), torch.where(hit, X, -100)

    s.each(change)
    make = s.make
    assert isinstance(make, partial)
    s.make = partial(nets.attention, words + 1, s.train[0].shape[1], words, every=True)
    s.epochs *= 2


def easily_rare(s: Setup, ratio: float) -> None:
    """A class is rare, and told as well as the others."""
    g = s.generator("rare")

    def thin(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        keep = (y != 0) | (torch.rand(len(y), generator=g) < 1 / ratio)
        keep[(y == 0).nonzero()[:4]] = True
        return X[keep], y[keep]

    s.each(thin)
    s.epochs *= 1.5


def wide(s: Setup, times: float) -> None:
    """Many more parameters than rows, which does no harm here."""
    s.knobs["width"] = round(times) * s.facts["width"]
    s.lr /= 2
    s.epochs = max(3, s.epochs // 2)


def weight_normed(s: Setup, _: float) -> None:
    """Weights are a direction and a length."""

    def change(model: nn.Module) -> None:
        for m in list(model.modules()):
            if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                parametrizations.weight_norm(m)

    s.after.append(change)


def doubles(s: Setup, _: float) -> None:
    """Everything in float64."""
    s.after.append(lambda m: m.double())
    s.inputs(lambda X: X.double())
    if s.train[1].is_floating_point():
        s.targets(lambda y: y.double())


class Stream:
    """Batches in a new order every pass; `length`: it tells how many there are."""

    def __init__(self, pair: tuple[Any, Tensor], size: int, shape: Callable[[Any], Any]) -> None:
        self.pair, self.size, self.shape, self.passes = pair, size, shape, 0

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        self.passes += 1
        X, y = self.pair
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(self.passes))
        for rows in order.split(self.size):
            yield self.shape(X[rows]), y[rows]


class Counted(Stream):
    """A stream that tells how many batches a pass has."""

    def __len__(self) -> int:
        return (len(self.pair[1]) + self.size - 1) // self.size


def stream(s: Setup, _: float) -> None:
    """Rows come from an iterable that does not tell its length."""
    s.loader = lambda pair, size: Stream(pair, size, lambda X: X)


def loader(s: Setup, _: float) -> None:
    """Rows come from a loader that shuffles."""
    s.loader = lambda pair, size: DataLoader(TensorDataset(*pair), batch_size=size, shuffle=True)


def two_inputs(s: Setup, _: float) -> None:
    """Two groups of columns, given as a tuple."""
    _shaped(s, lambda X: (X[:, :4], X[:, 4:]))


def named_inputs(s: Setup, _: float) -> None:
    """Two groups of columns, given by name."""
    _shaped(s, lambda X: {"left": X[:, :4], "right": X[:, 4:]})


def _shaped(s: Setup, shape: Callable[[Tensor], Any]) -> None:
    inputs = s.train[0].shape[1]
    outputs = s.facts.get("classes") or s.facts["outputs"]
    s.make = lambda **_: nets_odd.TwoInputs(4, inputs - 4, outputs)
    s.loader = lambda pair, size: Counted(pair, size, shape)
    s.val = Counted(s.val, 64, shape)  # type: ignore[arg-type, assignment]
    X, y = s.test
    s.test = (shape(X), y)


def no_validation(s: Setup, _: float) -> None:
    """There are no validation rows."""
    s.val = None


def small_validation(s: Setup, rows: float) -> None:
    """Twenty or thirty validation rows, with the noise that this brings."""
    s.each(lambda X, y: (X[: round(rows)], y[: round(rows)]), "val")


def probed(s: Setup, _: float) -> None:
    """A second head reads detached features: a detach that is meant."""
    make, outputs = s.make, s.facts["classes"]
    width = s.knobs.get("width", s.facts["width"])
    s.make = lambda **knobs: nets_odd.Probed(make(**knobs), width, outputs)
    first = s.loss
    s.loss = lambda said, y: first(said[0], y) + first(said[1], y)


def experts(s: Setup, count: float) -> None:
    """Experts of which some get no row of a batch."""
    inputs = s.train[0].shape[1]
    outputs = s.facts.get("classes") or s.facts["outputs"]
    s.make = lambda **_: nets_odd.Experts(inputs, outputs, experts=round(count))


def in_any_order(s: Setup, _: float) -> None:
    """Rows lie in no order at all and are read as they lie."""
    s.shuffle = False


def lagged(s: Setup, noise: float) -> None:
    """A column that rightly says much, such as last year's value: in all splits alike."""
    g = s.generator("lag")

    def change(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        X = X.clone()
        X[:, -1] = (y[:, 0] + noise * torch.randn(len(y), generator=g)) / (1 + noise**2) ** 0.5
        return X, y

    s.each(change)


def heavy_tails(s: Setup, _: float) -> None:
    """Columns with rare, large, true values."""

    def change(X: Tensor) -> Tensor:
        X = X.clone()
        X[:, :3] = X[:, :3].sign() * (X[:, :3].abs().exp() - 1) / 2
        return X

    s.inputs(change)


def no_biases(s: Setup, _: float) -> None:
    """Layers without biases."""

    def strip(model: nn.Module) -> None:
        for m in model.modules():
            if isinstance(m, nn.Linear):
                m.bias = None  # type: ignore[assignment]

    s.after.append(strip)


def orthogonal(s: Setup, gain: float) -> None:
    """Orthogonal first weights."""

    def change(model: nn.Module) -> None:
        for p in model.parameters():
            if p.ndim == 2:
                nn.init.orthogonal_(p, gain)

    s.after.append(change)


def linear_question(s: Setup, epochs: float) -> None:
    """A linear model where the answer is linear, trained long after it stands still."""
    w = torch.randn(s.train[0].shape[1], 1, generator=s.generator("linear"))
    g = s.generator("linear noise")
    s.each(lambda X, y: (X, 0.5 * X @ w + 0.5 * torch.randn(len(X), 1, generator=g)))
    inputs = s.train[0].shape[1]
    s.make, s.epochs, s.lr = lambda **_: nn.Sequential(nn.Linear(inputs, 1)), round(epochs), 0.01


ODDITIES = (
    odd("both_ways", both_ways, ("reviews_lstm", "waves_gru", "rows_lstm")),
    odd("no_order", no_order, ("reviews_attention",)),
    odd("masked_words", masked_words, ("markov_gpt",), 0.27, 0.35),
    odd("easily_rare", easily_rare, ("waves_gru", "waves_conv", "gratings_cnn"), 8, 16),
    odd("wide", wide, ("digits_mlp", "clouds_mlp", "waves_conv"), 4, 8),
    odd("weight_normed", weight_normed, ("digits_mlp", "digits_cnn", "friedman_mlp")),
    odd("doubles", doubles, ("clouds_mlp", "friedman_mlp", "waves_conv")),
    odd("stream", stream, ("digits_mlp", "friedman_mlp", "markov_gru")),
    odd("loader", loader, ("digits_cnn", "reviews_attention", "diabetes_mlp")),
    odd("two_inputs", two_inputs, ("clouds_mlp", "friedman_mlp")),
    odd("named_inputs", named_inputs, ("clouds_mlp", "friedman_mlp")),
    odd("no_validation", no_validation, ("digits_mlp", "friedman_mlp", "prose_gpt", "waves_gru")),
    odd("small_validation", small_validation, ("clouds_mlp", "friedman_mlp", "reviews_bag"), 15, 30),
    odd("probed", probed, ("digits_mlp", "clouds_mlp")),
    odd("experts", experts, ("clouds_mlp", "friedman_mlp"), 3, 6),
    odd("in_any_order", in_any_order, ("digits_mlp", "friedman_mlp", "waves_gru")),
    odd("lagged", lagged, ("friedman_mlp", "diabetes_mlp"), 0.4, 0.8),
    odd("heavy_tails", heavy_tails, ("clouds_mlp", "friedman_mlp", "three_mlp")),
    odd("no_biases", no_biases, ("digits_mlp", "clouds_mlp", "pictures_auto")),
    odd("orthogonal", orthogonal, ("digits_mlp", "rows_lstm", "clouds_mlp"), 0.8, 1.4),
    odd("linear_question", linear_question, ("friedman_mlp", "diabetes_mlp"), 15, 40),
)  # fmt: skip
