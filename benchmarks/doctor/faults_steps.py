"""Faults of the way of training: rates, schedules, clipping, regularisation, length."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.doctor.faults_data import few_rows
from benchmarks.doctor.setup import Fault, Setup, adamw, plain_sgd, sgd
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from gipi.doctor.experiment import call

MANY = ("digits_mlp", "clouds_mlp", "cancer_mlp", "friedman_mlp", "digits_cnn", "spots_cnn",
        "reviews_attention", "waves_gru", "prose_gpt", "factors_auto", "rows_lstm", "reviews_lstm")  # fmt: skip


class RowNorm(nn.Module):
    """Every row over its own standard deviation, with nothing against a deviation of 0."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True)
        return self.net(flat.reshape(x.shape))


def log_of_zero(s: Setup, gain: float) -> None:
    """The loss takes logs of probabilities that reach 0 and 1 exactly."""

    def loss(said: Tensor, y: Tensor) -> Tensor:
        p = torch.sigmoid(gain * said)
        return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()

    s.loss = loss


def blank_rows(s: Setup, count: float) -> None:
    """A few training rows are constant, and the net divides every row by its own deviation."""
    _row_norm(s, count)
    hit = torch.randperm(len(s.train[1]), generator=s.generator("blank"))[: round(count)]

    def blank(X: Tensor) -> Tensor:
        X = X.clone()
        X[hit] = 0.5
        return X

    s.inputs(blank, "train")


def _row_norm(s: Setup, _: float) -> None:
    make = s.make
    s.make = lambda **knobs: RowNorm(make(**knobs))


def hot(s: Setup, factor: float) -> None:
    """The learning rate is `factor` times too high."""
    s.lr *= factor


def cold(s: Setup, factor: float) -> None:
    """The learning rate is `factor` times too low."""
    s.lr /= factor


def decays(s: Setup, factor: float) -> None:
    """The rate is multiplied by `factor` after every epoch."""
    s.scheduler = lambda optimizer, steps: ExponentialLR(optimizer, factor)


def decays_every_step(s: Setup, factor: float) -> None:
    """An epoch's decay is made every step."""
    s.scheduler = lambda optimizer, steps: ExponentialLR(optimizer, factor)
    s.scheduler_every = "step"


def clipped(s: Setup, most: float) -> None:
    """Gradients are clipped to a norm that they never have."""

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        exp.optimizer.zero_grad()
        loss = exp.loss(call(exp.model, xb), yb)
        loss.backward()
        clip_grad_norm_(exp.model.parameters(), most)
        exp.optimizer.step()
        return loss.detach()

    s.step = step


def swings(s: Setup, factor: float) -> None:
    """Momentum of 0.99 and a rate that makes the loss swing."""
    s.optimizer = lambda params, lr: torch.optim.SGD(params, lr, momentum=0.99)
    s.lr = 0.01 * factor


def bounces(s: Setup, factor: float) -> None:
    """Whole-batch steps at the edge of what is stable: the loss bounces between two sides."""
    s.optimizer, s.batch_size = plain_sgd, 4096
    s.lr = factor
    s.epochs = 120


def _small_batches(s: Setup, _: float) -> None:
    s.batch_size, s.epochs = 4, max(3, s.epochs / 3)


def noise_floor(s: Setup, factor: float) -> None:
    """Small batches at a constant rate: the loss stands on the noise of the steps."""
    s.lr *= factor


def gives_up(s: Setup, threshold: float) -> None:
    """The rate falls to a tenth as soon as an epoch gains less than `threshold` of the loss."""
    s.scheduler = lambda optimizer, steps: ReduceLROnPlateau(
        optimizer, patience=0, factor=0.1, threshold=threshold
    )


def too_long(s: Setup, times: float) -> None:
    """Few rows, a wide net, `times` as many epochs as are good."""
    s.epochs = round(s.epochs * times)


GOOD_EPOCHS = {"prose_gpt": 12, "prose_gru": 10, "markov_gru": 15, "markov_gpt": 15, "three_mlp": 4,
               "friedman_mlp": 4, "diabetes_mlp": 50, "forecast_rnn": 20}  # fmt: skip
"""Passes over a seventh of the rows after which validation is best, about."""


def _memorable(s: Setup, _: float) -> None:
    few_rows(s, 0.3 if s.data == "diabetes" else 0.13)
    s.knobs["width"] = 3 * s.facts["width"]
    s.epochs = GOOD_EPOCHS[f"{s.data}_{s.net}"]
    if s.kind == "numbers" and s.data != "diabetes":
        g = s.generator("noise")
        s.targets(lambda y: y + torch.randn(y.shape, generator=g), "train", "val")


def drops(s: Setup, p: float) -> None:
    """Dropout with almost nothing left."""
    s.knobs["dropout"] = p


def shrinks(s: Setup, strength: float) -> None:
    """Weight decay that pulls harder than the data."""
    if s.optimizer in (sgd, plain_sgd):
        s.optimizer = lambda params, lr: torch.optim.SGD(
            params, lr, momentum=0.9, weight_decay=strength
        )
    else:
        decay = 0.05 * strength / s.lr
        s.optimizer = lambda params, lr: torch.optim.AdamW(params, lr, weight_decay=decay)


def _adamw(s: Setup, _: float) -> None:
    s.optimizer = adamw
    s.lr = 3e-3


def decays_norms(s: Setup, decay: float) -> None:
    """One group of parameters, norms and biases with them, decayed."""
    s.optimizer = lambda params, lr: torch.optim.AdamW(params, lr, weight_decay=decay)


# ---------------------------------------------------------------------- forgetting


def _before(s: Setup, _: float) -> None:
    """A net that learnt the first half of the classes is to learn the other half."""
    half = s.facts["classes"] // 2
    X, y = s.train
    old, new = y < half, y >= half
    s.facts["old"] = (X[old], y[old])
    s.facts["new"] = (X[new], y[new])
    Xv, yv = s.val  # type: ignore[misc]
    s.facts["old_val"] = (Xv[yv < half], yv[yv < half])

    def pretrain(model: nn.Module) -> None:
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(12):
            for rows in torch.randperm(len(s.facts["old"][1])).split(32):
                loss = nn.functional.cross_entropy(
                    model(s.facts["old"][0][rows]), s.facts["old"][1][rows]
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    s.after.append(pretrain)


def forgets(s: Setup, _: float) -> None:
    """Only rows of the new classes are trained on; the old ones are declared."""
    half = s.facts["classes"] // 2
    s.train = s.facts["new"]
    s.each(lambda X, y: (X[y >= half], y[y >= half]), "val")
    s.declared["old_task"] = s.facts["old"]


def replays(s: Setup, _: float) -> None:
    """A quarter of the old rows is trained on again, beside the new ones."""
    (X, y), (Xo, yo) = s.facts["new"], s.facts["old"]
    s.train = (torch.cat([X, Xo[: len(yo) // 4]]), torch.cat([y, yo[: len(yo) // 4]]))


FAULTS = (
    Fault("log_of_zero", "nan_inf", log_of_zero, ("cancer_mlp",), 12, 40),
    Fault("blank_rows", "nan_inf", blank_rows, ("digits_mlp", "digits_cnn", "waves_conv", "clouds_mlp"), 2, 8, base=_row_norm),
    Fault("hot", "lr_too_high", hot, MANY, 60, 400),
    Fault("cold", "lr_too_low", cold, MANY, 100, 2000),
    Fault("decays", "lr_decay_too_fast", decays, ("digits_mlp", "waves_gru", "prose_gpt", "gratings_cnn", "factors_auto"), 0.03, 0.2,
          also=("lr_too_low",)),
    Fault("decays_every_step", "lr_decay_too_fast", decays_every_step, ("friedman_mlp", "digits_cnn", "rows_lstm", "moons_mlp"), 0.8, 0.93,
          also=("lr_too_low",)),
    Fault("clipped", "grad_clip_too_small", clipped, ("cancer_mlp", "moons_mlp", "digits_bncnn", "diabetes_mlp"), 3e-4, 5e-3,
          also=("lr_too_low",)),
    Fault("swings", "oscillating_loss", swings, ("friedman_mlp", "diabetes_mlp", "clouds_mlp", "factors_auto"), 2, 6,
          also=("lr_too_high",)),
    Fault("bounces", "oscillating_loss", bounces, ("friedman_mlp", "three_mlp"), 0.4, 0.9, also=("lr_too_high",)),
    Fault("noise_floor", "plateau", noise_floor, ("friedman_mlp", "spots_cnn", "forecast_rnn", "factors_auto"), 6, 12,
          also=("lr_too_high", "oscillating_loss"), base=_small_batches),
    Fault("gives_up", "plateau", gives_up, ("three_mlp", "friedman_mlp", "prose_gpt", "pictures_auto"), 0.15, 0.3,
          also=("lr_decay_too_fast", "lr_too_low")),
    Fault("too_long", "overfit", too_long, ("prose_gpt", "three_mlp", "markov_gru", "diabetes_mlp", "forecast_rnn"), 10, 20,
          base=_memorable),
    Fault("drops", "dropout_too_high", drops, ("digits_mlp", "digits_cnn", "friedman_mlp", "rows_lstm"), 0.88, 0.97),
    Fault("shrinks", "weight_decay_too_high", shrinks, MANY[:6] + MANY[7:11], 0.5, 2),
    Fault("decays_norms", "weight_decay_on_norm_bias", decays_norms, ("digits_bncnn", "prose_gpt", "reviews_attention", "order_attention"), 0.1, 0.5, base=_adamw),
    Fault("forgets", "catastrophic_forgetting", forgets, ("digits_mlp", "digits_cnn", "rows_lstm"), base=_before, twin=replays),
)  # fmt: skip
