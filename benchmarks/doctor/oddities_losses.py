"""Healthy runs that look odd by their loss, their targets or what comes out of the net."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.doctor import nets_odd
from benchmarks.doctor.faults_wiring import as_binary
from benchmarks.doctor.oddities import odd
from benchmarks.doctor.setup import Setup
from torch import Tensor, nn

Loss = Callable[[Any, Tensor], Tensor]


def loss_of(loss: Loss, *, outputs: int = 0, end: str = "") -> Callable[[Setup, float], None]:
    """Return the change to another loss, with another number of outputs and an end."""

    def change(s: Setup, _: float) -> None:
        s.loss = loss
        if end:
            s.knobs["end"] = end
        if outputs:
            make = s.make
            assert isinstance(make, partial)
            s.make = partial(make.func, *make.args[:-1], outputs, **make.keywords)

    return change


def sigmoid_and_bce(s: Setup, _: float) -> None:
    """Probabilities, and the loss of probabilities."""
    as_binary(s, 0)
    s.knobs["end"], s.loss = "sigmoid", nn.BCELoss()


def gaussian(said: Tensor, y: Tensor) -> Tensor:
    """Minus log-likelihood of a mean and a log-variance: below zero where the fit is good."""
    mean, logvar = said[:, :1], said[:, 1:].clamp(-6, 6)
    return 0.5 * ((y - mean).square() * (-logvar).exp() + logvar).mean()


def quantiles(said: Tensor, y: Tensor) -> Tensor:
    """The pinball loss of the median and two outer quantiles."""
    q = torch.tensor([0.5, 0.1, 0.9])
    error = y - said
    return torch.maximum(q * error, (q - 1) * error).mean()


def focal(said: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy with easy rows weighted down."""
    told = F.log_softmax(said, -1).gather(-1, y[:, None])[:, 0]
    return -((1 - told.exp()) ** 2 * told).mean()


def hinge(said: Tensor, y: Tensor) -> Tensor:
    """The multi-class hinge."""
    return F.multi_margin_loss(said, y)


def counts(s: Setup, mean: float) -> None:
    """Whole numbers of events as targets of a Poisson loss."""
    g = s.generator("counts")
    s.targets(lambda y: torch.poisson((0.6 * y).exp().clamp(max=6) * mean, generator=g))
    s.loss, s.kind, s.epochs = nn.PoissonNLLLoss(), "counts", s.epochs / 2


def counts_by_square(s: Setup, mean: float) -> None:
    """Whole numbers from 0 to about nine, fitted by squared error as the numbers that they are.

    They lie three deviations off 0: a net that begins there spends its run on their mean, and tanh
    is driven to its ends by that. So it begins at the mean, and takes the steps that its spread of
    numbers asks for.
    """
    s.targets(lambda y: (y * 1.5 + mean).round().clamp(0, 9))
    s.after.append(lambda m: m.head.bias.data.copy_(s.train[1].mean(0)))
    s.epochs *= 2


def positive(s: Setup, _: float) -> None:
    """Targets above zero and a softplus that keeps outputs there."""
    s.targets(lambda y: (0.5 * y).exp())
    s.knobs["end"] = "softplus"


def relu_of_amounts(s: Setup, _: float) -> None:
    """Amounts, none of them below zero, after a ReLU that cannot go below it."""
    s.targets(lambda y: y + 3.0)
    s.targets(lambda y: y.clamp(min=0))
    s.knobs["end"] = "relu"
    s.after.append(lambda m: m.head.bias.data.fill_(3.0))


def labels_apart(s: Setup, _: float) -> None:
    """Several yes-or-no answers a row, some of them rare."""
    classes = s.facts["classes"]
    table = (torch.rand(classes, 6, generator=s.generator("labels")) < 0.35).float()
    table[0, 0] = 1.0
    s.targets(lambda y: table[y])
    make = s.make
    assert isinstance(make, partial)
    s.make = partial(make.func, *make.args[:-1], 6, **make.keywords)
    s.loss, s.kind = nn.BCEWithLogitsLoss(), "multilabel"


def variational(s: Setup, _: float) -> None:
    """A variational autoencoder, whose outputs are a tuple."""
    inputs = s.train[0].shape[1]

    def loss(said: Any, y: Tensor) -> Tensor:
        rebuilt, mean, logvar = said
        apart = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(-1).mean()
        return (rebuilt - y).square().sum(-1).mean() + 0.1 * apart

    s.make, s.loss = lambda **_: nets_odd.Variational(inputs), loss


ODDITIES = (
    odd("log_softmax_and_ce", loss_of(nn.CrossEntropyLoss(), end="log_softmax"), ("digits_mlp", "waves_gru", "digits_cnn")),
    odd("log_softmax_and_nll", loss_of(nn.NLLLoss(), end="log_softmax"), ("clouds_mlp", "digits_cnn", "reviews_lstm")),
    odd("sigmoid_and_bce", sigmoid_and_bce, ("cancer_mlp", "reviews_bag", "moons_mlp")),
    odd("gaussian", loss_of(gaussian, outputs=2), ("friedman_mlp", "forecast_rnn")),
    odd("quantiles", loss_of(quantiles, outputs=3), ("friedman_mlp", "forecast_rnn")),
    odd("huber", loss_of(nn.SmoothL1Loss()), ("friedman_mlp", "spots_cnn", "three_mlp")),
    odd("focal", loss_of(focal), ("digits_mlp", "clouds_mlp", "waves_conv")),
    odd("hinge", loss_of(hinge), ("digits_mlp", "clouds_mlp", "gratings_cnn")),
    odd("counts", counts, ("friedman_mlp",), 1.5, 3),
    odd("counts_by_square", counts_by_square, ("friedman_mlp", "three_mlp", "spots_cnn"), 4, 5),
    odd("positive", positive, ("friedman_mlp", "forecast_rnn", "spots_cnn")),
    odd("relu_of_amounts", relu_of_amounts, ("friedman_mlp", "spots_cnn", "forecast_rnn")),
    odd("labels_apart", labels_apart, ("digits_mlp", "clouds_mlp", "digits_cnn")),
    odd("variational", variational, ("pictures_auto", "factors_auto")),
)  # fmt: skip
