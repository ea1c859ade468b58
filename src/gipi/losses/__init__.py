"""Losses: tensors in, (total, count) out."""

from __future__ import annotations

from gipi.core.registry import Record, Registry
from gipi.losses.classes import binary_cross_entropy, cross_entropy, perceptron
from gipi.losses.dense import ce_dice, dice, pixel_cross_entropy, pixel_focal
from gipi.losses.points import (
    gaussian_maps,
    heatmap_cross_entropy,
    heatmap_mse,
    point_l1,
    point_smooth_l1,
    wing,
)
from gipi.losses.values import gaussian_nll, gaussian_std, huber, l1, mse

__all__ = [
    "LOSSES",
    "binary_cross_entropy",
    "ce_dice",
    "cross_entropy",
    "dice",
    "gaussian_maps",
    "gaussian_nll",
    "gaussian_std",
    "heatmap_cross_entropy",
    "heatmap_mse",
    "huber",
    "l1",
    "mse",
    "perceptron",
    "pixel_cross_entropy",
    "pixel_focal",
    "point_l1",
    "point_smooth_l1",
    "wing",
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
        Record("pixel_cross_entropy", pixel_cross_entropy, "cross-entropy over pixels",
               "Long, Shelhamer and Darrell 2015, arXiv:1411.4038",
               ("segment",), {"options": ("class_weights", "label_smoothing")}),
        Record("pixel_focal", pixel_focal, "cross-entropy that lets go of easy pixels",
               "Lin, Goyal, Girshick, He and Dollár 2017, arXiv:1708.02002",
               ("segment",), {"options": ("gamma", "class_weights")}),
        Record("dice", dice, "overlap of the whole batch: small classes count like large ones",
               "Milletari, Navab and Ahmadi 2016, V-Net, arXiv:1606.04797",
               ("segment", "mixes-rows"), {"options": ("squared", "generalised")}),
        Record("ce_dice", ce_dice, "cross-entropy over pixels plus Dice",
               "Isensee et al. 2021, nnU-Net, arXiv:1809.10486", ("segment", "mixes-rows"),
               {"options": ("class_weights", "label_smoothing", "dice_weight")}),
        Record("heatmap_cross_entropy", heatmap_cross_entropy, "cross-entropy over positions",
               "He, Gkioxari, Dollár and Girshick 2017, Mask R-CNN, arXiv:1703.06870",
               ("pose",), {"options": ("stride", "sigma")}),
        Record("heatmap_mse", heatmap_mse, "squared error of heatmaps",
               "Tompson et al. 2014, Joint training of a convolutional network, arXiv:1406.2984",
               ("pose",), {"options": ("stride", "sigma")}),
        Record("wing", wing, "coordinates: steep near zero, L1 far away",
               "Feng, Kittler, Awais, Huber and Wu 2018, arXiv:1711.06753",
               ("pose",), {"options": ("width", "curvature")}),
        Record("point_l1", point_l1, "absolute error of coordinates",
               "Sun et al. 2018, Integral human pose regression, arXiv:1711.08229",
               ("pose",), {"options": ()}),
        Record("point_smooth_l1", point_smooth_l1, "coordinates: squared near zero, L1 far away",
               "Girshick 2015, Fast R-CNN, arXiv:1504.08083", ("pose",), {"options": ("beta",)}),
    ),
)  # fmt: skip
