"""How good a trained experiment is on held-out rows: a number a row, so that runs can be compared.

classes, binary, multilabel  1 where the answer is right
numbers, reconstruct         1 - squared error / variance of the targets, not below -3
counts                       as numbers, of outputs that are logarithms of what is expected
language                     log-likelihood a word in nats, not below -3 log(words)

An answer of a binary net is told by the loss that it is trained with: where the loss of 0 and of 1
are equal at one half it speaks of probabilities, else of log-odds.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gipi.doctor import Experiment
from gipi.doctor.experiment import outputs

WORST = -3.0


def row_scores(exp: Experiment, test: tuple[Any, Any], kind: str) -> Tensor:
    """Return the score of every held-out row; the worst where the net says nothing finite."""
    X, y = test
    said = outputs(exp, X)
    if isinstance(said, (tuple, list)):
        said = said[0]
    said = said.detach()
    with torch.no_grad():
        if kind == "classes":
            found = torch.nan_to_num(said, nan=-math.inf).argmax(-1)
            fine = torch.isfinite(said).all(-1)
            return ((found == y) & fine).double()
        if kind in ("binary", "multilabel"):
            yes = (said > middle(exp, said)).reshape(y.shape) == (y > 0.5)
            fine = torch.isfinite(said).reshape(y.shape)
            return (yes & fine).double().flatten(1).mean(1)
        if kind == "language":
            words = said.shape[-1]
            told = torch.log_softmax(said.double(), -1)
            found = told.gather(-1, y.clamp(min=0)[..., None])[..., 0]
            found = torch.nan_to_num(found, nan=-math.inf).clamp(min=WORST * math.log(words))
            real = (y >= 0).double()
            return (found * real).sum(1) / real.sum(1).clamp(min=1)
        if kind == "counts":
            said = said.exp()
        if said.ndim == y.ndim == 2 and said.shape[1] > y.shape[1]:
            said = said[:, : y.shape[1]]  # the rest are scales or quantiles
        said = said.reshape(y.shape).double() if said.numel() == y.numel() else said.double()
        if said.shape != y.shape:
            return torch.full((len(y),), WORST, dtype=torch.float64)
        target = y.double()
        error = (said - target).square().flatten(1).mean(1) if y.ndim > 1 else (said - target) ** 2
        variance = (target - target.mean(0)).square().mean()
        return torch.nan_to_num(1 - error / variance, nan=WORST).clamp(min=WORST)


def middle(exp: Experiment, said: Tensor) -> float:
    """Return the output above which the answer is yes."""
    half = torch.full_like(said[:1], 0.5)
    try:
        no, yes = (float(exp.loss(half, torch.full_like(half, v))) for v in (0.0, 1.0))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return 0.0
    return 0.5 if abs(no - yes) < 1e-6 else 0.0


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Return the mean and its standard error."""
    n = len(values)
    return float(values.mean()), float(values.std() / math.sqrt(n)) if n > 1 else 0.0
