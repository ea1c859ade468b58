"""Losses for numbers: squared, absolute, Huber, and a Gaussian with its own spread.

Every loss answers (total, count) as in `classes`; for targets of T values a row's loss is the mean
over them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.losses.shapes import matched, per_row, row_means

if TYPE_CHECKING:
    from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
HALVES = (torch.bfloat16, torch.float16)
STD_FLOOR = 1e-3  # in units of the standardised target


def mse(
    outputs: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, float | Tensor]:
    """Return the squared error, lᵢ = (yᵢ - ŷᵢ)².

    outputs, target  (B,), (B, 1) or (B, T) floats;  weight  (B,) or None

    Legendre 1805, Gauss 1809 (least squares).
    """
    outputs = matched(outputs, target)
    if weight is None:
        return per_row(F.mse_loss(outputs, target, reduction="sum"), target), float(len(target))
    rows = row_means(F.mse_loss(outputs, target, reduction="none"))
    return (rows * weight).sum(), weight.sum()


def l1(
    outputs: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, float | Tensor]:
    """Return the absolute error, lᵢ = |yᵢ - ŷᵢ|; its minimiser is the median.

    outputs, target  (B,), (B, 1) or (B, T) floats;  weight  (B,) or None

    Boscovich 1757, Laplace 1793 (least absolute deviations).
    """
    outputs = matched(outputs, target)
    if weight is None:
        return per_row(F.l1_loss(outputs, target, reduction="sum"), target), float(len(target))
    rows = row_means(F.l1_loss(outputs, target, reduction="none"))
    return (rows * weight).sum(), weight.sum()


def huber(
    outputs: Tensor, target: Tensor, weight: Tensor | None = None, *, delta: float = 1.0
) -> tuple[Tensor, float | Tensor]:
    """Return Huber's loss of r = y - ŷ: r²/2 where |r| <= δ, else δ(|r| - δ/2).

    outputs, target  (B,), (B, 1) or (B, T) floats;  weight  (B,) or None;  delta  δ > 0

    Huber 1964, "Robust estimation of a location parameter".
    """
    outputs = matched(outputs, target)
    if outputs.dtype is not target.dtype:  # torch's own backward does not promote
        dtype = torch.promote_types(outputs.dtype, target.dtype)
        outputs, target = outputs.to(dtype), target.to(dtype)
    if weight is None:
        total = F.huber_loss(outputs, target, reduction="sum", delta=delta)
        return per_row(total, target), float(len(target))
    rows = row_means(F.huber_loss(outputs, target, reduction="none", delta=delta))
    return (rows * weight).sum(), weight.sum()


def gaussian_nll(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    beta: float = 0.0,
    floor: float = STD_FLOOR,
) -> tuple[Tensor, float | Tensor]:
    """Return the negative log-likelihood of a normal whose mean and spread are predicted.

        l = log σ + ((y - μ)/σ)²/2 + log(2π)/2,   (μ, s) = outputs,   σ = floor + log(1 + eˢ)

    The softplus keeps σ positive, grows only linearly where e^s would explode, and its floor bounds
    the gradient of a row that is fitted exactly.

    outputs  (B, 2T): T means, then T raw spreads s
    target   (B,), (B, 1) or (B, T)
    beta     each row's loss is multiplied by σ^2β without a gradient through it; 0.5 keeps badly
             fitted rows from being explained by a large σ alone (Seitzer et al. 2022,
             arXiv:2203.09168)

    Nix and Weigend 1994, "Estimating the mean and variance of the target probability distribution".
    """
    if outputs.ndim < 2 or outputs.shape[1] * len(outputs) != 2 * target.numel():
        raise ModelError(
            f"outputs of shape {tuple(outputs.shape)} for targets of shape {tuple(target.shape)}",
            "a mean and a spread for each target value",
            "give the model a head twice as wide as the target",
        )
    if outputs.dtype in HALVES:  # log and square need more than eight bits
        outputs = outputs.float()
    mean, raw = outputs.chunk(2, dim=1)
    std = F.softplus(raw) + floor
    values = std.log() + 0.5 * ((target.reshape(mean.shape) - mean) / std).square() + HALF_LOG_2PI
    if beta:
        values = values * std.detach() ** (2 * beta)
    if weight is None:
        return per_row(values.sum(), values), float(len(target))
    return (row_means(values) * weight).sum(), weight.sum()


def gaussian_std(outputs: Tensor, *, floor: float = STD_FLOOR) -> Tensor:
    """Return σ (B, T) of outputs (B, 2T) as `gaussian_nll` reads them."""
    return F.softplus(outputs.chunk(2, dim=1)[1]) + floor
