"""Losses: tensors in, (total, count) out."""

from __future__ import annotations

from gipi.core.registry import Record, Registry
from gipi.losses.classes import binary_cross_entropy, cross_entropy, perceptron
from gipi.losses.values import gaussian_nll, gaussian_std, huber, l1, mse

__all__ = [
    "LOSSES",
    "binary_cross_entropy",
    "cross_entropy",
    "gaussian_nll",
    "gaussian_std",
    "huber",
    "l1",
    "mse",
    "perceptron",
]

LOSSES = Registry(
    "losses",
    (
        Record("mse", mse, "squared error; predicts the mean",
               "Legendre 1805, Nouvelles méthodes pour la détermination des orbites des comètes",
               ("regress",), {"options": ()}),
        Record("l1", l1, "absolute error; predicts the median",
               "Laplace 1793 (least absolute deviations)", ("regress",), {"options": ()}),
        Record("huber", huber, "squared near zero, absolute far from it",
               "Huber 1964, Robust estimation of a location parameter",
               ("regress",), {"options": ("delta",)}),
        Record("cross_entropy", cross_entropy, "-log of the probability of the true class",
               "Bridle 1990, Probabilistic interpretation of feedforward classification outputs",
               ("classify",), {"options": ("label_smoothing", "class_weights")}),
        Record("binary_cross_entropy", binary_cross_entropy, "-log of the probability, one logit",
               "Cox 1958, The regression analysis of binary sequences",
               ("classify",), {"options": ("label_smoothing", "positive_weight")}),
        Record("gaussian_nll", gaussian_nll, "predicts a mean and a spread",
               "Nix and Weigend 1994, Estimating the mean and variance of the target",
               ("regress",), {"options": ("beta", "floor")}),
        Record("perceptron", perceptron, "its gradient is the perceptron learning rule",
               "Rosenblatt 1958, The perceptron", ("classify",), {"options": ()}),
    ),
)  # fmt: skip
