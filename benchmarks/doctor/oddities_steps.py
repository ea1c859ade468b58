"""Healthy runs that look odd by their optimizer, schedule, step or augmentation."""

from __future__ import annotations

import copy
from typing import Any

import torch
from benchmarks.doctor.oddities import odd, pretrain
from benchmarks.doctor.setup import Setup
from torch import Tensor, nn
from torch.optim import lr_scheduler

from gipi.doctor.experiment import call


def restarts(s: Setup, times: float) -> None:
    """Cosines that start again, with the loss jumping up each time."""
    s.scheduler = lambda optimizer, steps: lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, max(2, round(steps / times))
    )
    s.scheduler_every, s.lr = "step", 2 * s.lr


def on_plateau(s: Setup, _: float) -> None:
    """The rate falls where validation stands."""
    s.scheduler = lambda optimizer, steps: lr_scheduler.ReduceLROnPlateau(optimizer, patience=2)


def step_decay(s: Setup, _: float) -> None:
    """The rate is a tenth in the last third."""
    s.scheduler = lambda optimizer, steps: lr_scheduler.StepLR(
        optimizer, max(1, round(s.epochs * 0.67)), 0.1
    )


def heavy_momentum(s: Setup, _: float) -> None:
    """Momentum of 0.95 at a rate that fits, with Nesterov."""
    s.optimizer = lambda params, lr: torch.optim.SGD(params, lr, momentum=0.95, nesterov=True)
    s.lr = 0.01


def adagrad(s: Setup, _: float) -> None:
    """Adagrad at a rate of 0.05."""
    s.optimizer = torch.optim.Adagrad
    s.lr = 0.05


def lbfgs(s: Setup, _: float) -> None:
    """L-BFGS over all rows, whose step calls the loss many times."""
    s.optimizer = lambda params, lr: torch.optim.LBFGS(
        params, lr, max_iter=5, line_search_fn="strong_wolfe"
    )
    s.batch_size, s.lr, s.epochs = 4096, 1.0, 6
    s.knobs["width"] = 8

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        def closure() -> Tensor:
            exp.optimizer.zero_grad()
            loss = exp.loss(call(exp.model, xb), yb)
            loss.backward()
            return loss

        return exp.optimizer.step(closure).detach()

    s.step = step


def accumulates(s: Setup, batches: float) -> None:
    """Gradients of several batches make one step."""
    count, every = [0], round(batches)
    s.batch_size = max(4, s.batch_size // every)

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        loss = exp.loss(call(exp.model, xb), yb)
        (loss / every).backward()
        count[0] += 1
        if count[0] % every == 0:
            exp.optimizer.step()
            exp.optimizer.zero_grad()
        return loss.detach()

    s.step = step


def mixes_rows(s: Setup, share: float) -> None:
    """Mixup: rows and their losses are blended, so training loss stays above validation."""

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        part = float(torch.rand(())) * share
        other = torch.randperm(len(yb))
        exp.optimizer.zero_grad()
        said = exp.model((1 - part) * xb + part * xb[other])
        loss = (1 - part) * exp.loss(said, yb) + part * exp.loss(said, yb[other])
        loss.backward()
        exp.optimizer.step()
        return loss.detach()

    s.step = step


def penalised(s: Setup, strength: float) -> None:
    """The step adds a small L1 penalty of the weights to the loss."""

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        exp.optimizer.zero_grad()
        loss = exp.loss(call(exp.model, xb), yb)
        (loss + strength * sum(p.abs().sum() for p in exp.model.parameters())).backward()
        exp.optimizer.step()
        return loss.detach()

    s.step = step


def light_noise(s: Setup, strength: float) -> None:
    """Augmentation by a little noise."""
    std = float(s.train[0].std())
    s.transform = lambda X: X + strength * std * torch.randn_like(X)


def shifts(s: Setup, _: float) -> None:
    """Augmentation by a shift of at most one pixel."""

    def change(X: Tensor) -> Tensor:
        down, right = (int(v) for v in torch.randint(-1, 2, (2,)))
        return X.roll((down, right), (-2, -1))

    s.transform = change


def finetunes(s: Setup, factor: float) -> None:
    """A learnt body moves at a small rate, a new head at a larger one."""

    def after(model: nn.Module) -> None:
        pretrain(s, model, 5)
        model.zero_grad()

    s.after.append(after)
    lr = s.lr
    s.params = lambda m: [{"params": list(m.body.parameters()), "lr": lr * factor},
                          {"params": list(m.head.parameters())}]  # fmt: skip
    s.epochs = max(3, s.epochs // 2)


def averaged(s: Setup, decay: float) -> None:
    """Evaluation uses a running mean of the weights, kept inside the model."""
    make = s.make

    class Averaged(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net, self.slow = net, copy.deepcopy(net).requires_grad_(requires_grad=False)

        def forward(self, x: Any) -> Any:
            return (self.net if self.training else self.slow)(x)

    def step(exp: Any, xb: Any, yb: Any) -> Tensor:
        exp.optimizer.zero_grad()
        loss = exp.loss(call(exp.model, xb), yb)
        loss.backward()
        exp.optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(
                exp.model.slow.parameters(), exp.model.net.parameters(), strict=True
            ):
                slow.lerp_(fast, 1 - decay)
        return loss.detach()

    s.make = lambda **knobs: Averaged(make(**knobs))
    s.params = lambda model: list(model.net.parameters())
    s.step = step


ODDITIES = (
    odd("restarts", restarts, ("digits_mlp", "digits_bncnn", "friedman_mlp"), 3, 5),
    odd("on_plateau", on_plateau, ("digits_mlp", "friedman_mlp", "waves_gru", "moons_mlp")),
    odd("step_decay", step_decay, ("digits_bncnn", "clouds_mlp", "pictures_auto")),
    odd("heavy_momentum", heavy_momentum, ("digits_mlp", "moons_mlp", "friedman_mlp")),
    odd("adagrad", adagrad, ("reviews_bag", "clouds_mlp")),
    odd("lbfgs", lbfgs, ("friedman_mlp", "three_mlp")),
    odd("accumulates", accumulates, ("digits_mlp", "waves_gru", "friedman_mlp", "prose_gpt"), 2, 4),
    odd("mixes_rows", mixes_rows, ("digits_mlp", "digits_cnn", "clouds_mlp"), 0.3, 0.5),
    odd("penalised", penalised, ("digits_mlp", "friedman_mlp", "waves_conv"), 1e-5, 2e-4),
    odd("light_noise", light_noise, ("digits_mlp", "waves_conv", "friedman_mlp"), 0.05, 0.3),
    odd("shifts", shifts, ("gratings_cnn", "digits_bncnn")),
    odd("finetunes", finetunes, ("digits_cnn", "digits_mlp", "reviews_lstm"), 0.01, 0.1),
    odd("averaged", averaged, ("digits_mlp", "friedman_mlp", "waves_conv"), 0.9, 0.95),
)  # fmt: skip
