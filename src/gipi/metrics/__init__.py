"""Metrics: numbers for people, over outputs, targets and row weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gipi.core.errors import ConfigError, did_you_mean
from gipi.core.registry import Record, Registry
from gipi.metrics.ap import ap, ap50
from gipi.metrics.auc import auc
from gipi.metrics.classes import accuracy, balanced_accuracy, ece, f1, log_loss
from gipi.metrics.forecast import mase, original_mae
from gipi.metrics.labels import exact_match, label_f1_macro, label_f1_micro, label_map
from gipi.metrics.masks import mean_dice, mean_iou, pixel_accuracy
from gipi.metrics.metric import Metric
from gipi.metrics.points import nme, oks, pck
from gipi.metrics.values import mae, mse, pearson, r2, rmse

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["METRICS", "Metric", "build"]

_UP: dict[str, Any] = {"greater_is_better": True}
_DOWN: dict[str, Any] = {"greater_is_better": False}

METRICS = Registry(
    "metrics",
    (
        Record("accuracy", accuracy, "share of rows classified rightly",
               "Duda and Hart 1973, Pattern classification and scene analysis",
               ("classify",),
               {**_UP, "formula": "right / n"}),
        Record("balanced_accuracy", balanced_accuracy, "mean share found over the classes",
               "Brodersen et al. 2010, The balanced accuracy", ("classify",),
               {**_UP, "formula": "mean over classes of right / true"}),
        Record("f1", f1, "macro F1, harmonic mean of precision and recall",
               "van Rijsbergen 1979, Information retrieval", ("classify",),
               {**_UP, "formula": "mean over classes of 2·right / (true + guessed)"}),
        Record("log_loss", log_loss, "mean -log of the true class's probability",
               "Good 1952, Rational decisions", ("classify",),
               {**_DOWN, "formula": "mean of -log p(true class)"}),
        Record("ece", ece, "expected calibration error, 15 bins",
               "Guo et al. 2017, On calibration of modern neural networks, arXiv:1706.04599",
               ("classify",), {**_DOWN, "formula": "Σ_b n_b/n·|accuracy_b - confidence_b|",
                "options": ("bins",)}),
        Record("auc", auc, "area under the ROC curve (macro, one against the rest)",
               "Hanley and McNeil 1982, The meaning and use of the area under a ROC curve",
               ("classify",),
               {**_UP, "formula": "P(score of a positive > score of a negative), ties one half"}),
        Record("mae", mae, "mean absolute error", "Laplace 1793 (least absolute deviations)",
               ("regress",),
               {**_DOWN, "formula": "mean of |y - ŷ|"}),
        Record("mse", mse, "mean squared error", "Legendre 1805; Gauss 1809 (least squares)",
               ("regress",),
               {**_DOWN, "formula": "mean of (y - ŷ)²"}),
        Record("rmse", rmse, "root mean squared error, in units of the target",
               "Legendre 1805; Gauss 1809 (least squares)",
               ("regress",),
               {**_DOWN, "formula": "√(mean of (y - ŷ)²)"}),
        Record("r2", r2, "share of the variance explained",
               "Wright 1921, Correlation and causation", ("regress",),
               {**_UP, "formula": "1 - Σ(y - ŷ)² / Σ(y - ȳ)²"}),
        Record("pearson", pearson, "correlation of prediction and truth",
               "Pearson 1895, Notes on regression and inheritance", ("regress",),
               {**_UP, "formula": "cov(y, ŷ) / (s(y)·s(ŷ))"}),
        Record("original_mae", original_mae, "forecasts: mean absolute error in units of the data",
               "Laplace 1793 (least absolute deviations)", ("forecast",),
               {**_DOWN, "formula": "mean of s_k·|y - ŷ|, s_k the spread of series k",
                "options": ("spread",)}),
        Record("mase", mase, "forecasts: absolute error beside that of one season before",
               "Hyndman and Koehler 2006, Another look at measures of forecast accuracy",
               ("forecast",),
               {**_DOWN, "formula": "mean of |y - ŷ| / q_k, q_k = mean |y_k(t) - y_k(t - season)|",
                "options": ("scale",)}),
        Record("label_map", label_map, "several labels a row: mean average precision",
               "Salton and McGill 1983, Introduction to modern information retrieval",
               ("multi-label",),
               {**_UP, "formula": "mean over labels of Σ (recall step)·precision"}),
        Record("label_f1_macro", label_f1_macro, "several labels a row: mean F1 of the labels",
               "van Rijsbergen 1979, Information retrieval", ("multi-label",),
               {**_UP, "formula": "mean over labels of 2·right / (true + guessed)"}),
        Record("label_f1_micro", label_f1_micro, "several labels a row: F1 of all pairs together",
               "van Rijsbergen 1979, Information retrieval", ("multi-label",),
               {**_UP, "formula": "2·right / (true + guessed) over all pairs"}),
        Record("exact_match", exact_match, "share of rows whose labels are all right",
               "Tsoumakas and Katakis 2007, Multi-label classification", ("multi-label",),
               {**_UP, "formula": "rows with all labels right / n"}),
        Record("mean_iou", mean_iou, "mean over classes of intersection over union",
               "Everingham et al. 2010, The Pascal visual object classes challenge",
               ("segment",),
               {**_UP, "formula": "mean over classes of |A∩B| / |A∪B|"}),
        Record("dice", mean_dice, "mean over classes of the Dice coefficient",
               "Dice 1945, Measures of the amount of ecologic association", ("segment",),
               {**_UP, "formula": "mean over classes of 2·|A∩B| / (|A| + |B|)"}),
        Record("pixel_accuracy", pixel_accuracy, "share of labelled pixels classified rightly",
               "Long, Shelhamer and Darrell 2015, arXiv:1411.4038", ("segment",),
               {**_UP, "formula": "right pixels / labelled pixels"}),
        Record("ap50", ap50, "average precision of boxes, a hit from IoU 0.5",
               "Everingham et al. 2010, The Pascal visual object classes challenge",
               ("detect",),
               {**_UP, "formula": "1/101·Σ_r max{precision at recall >= r}, hits from IoU 0.5"}),
        Record("ap", ap, "average precision of boxes, mean over IoU 0.50 to 0.95",
               "Lin et al. 2014, Microsoft COCO, arXiv:1405.0312", ("detect",),
               {**_UP, "formula": "mean over IoU 0.50, 0.55 ... 0.95 of "
                                 "1/101·Σ_r max{precision at recall >= r}"}),
        Record("nme", nme, "mean distance of points, divided by the size of the subject",
               "Sagonas et al. 2013, 300 faces in-the-wild challenge",
               ("pose",),
               {**_DOWN, "formula": "mean over rows of (mean distance of the points) / size",
                "options": ("points", "size")}),
        Record("pck", pck, "share of points within a tenth of the subject's size",
               "Yang and Ramanan 2013, Articulated human detection",
               ("pose",),
               {**_UP, "formula": "points within share·size / points",
                "options": ("share", "points", "size")}),
        Record("oks", oks, "mean object keypoint similarity",
               "Ronchi and Perona 2017, arXiv:1707.05388",
               ("pose",),
               {**_UP, "formula": "mean over rows of the mean of exp(-d² / (2·s²·κ²)), κ = 2·σ",
                "options": ("sigmas", "size")}),
    ),
)  # fmt: skip


def build(name: str, *, classes: int = 0, options: Mapping[str, Any] | None = None) -> Metric:
    """Return the metric called `name`.

    classes  number of classes; for regression the number of target values (0: one)

    Raises `UnknownName` with the nearest name, and `ConfigError` for an option it does not have.

    >>> m = build("accuracy", classes=3)
    >>> import torch
    >>> state = m.init("cpu")
    >>> m.update(state, torch.eye(3), torch.tensor([0, 1, 1]), None)
    >>> round(m.compute(state), 3)
    0.667
    """
    record = METRICS.get(name)
    known = record.facts.get("options", ())
    for key in options or {}:
        if key not in known:
            raise ConfigError(
                f"the metric '{name}' has no option '{key}'",
                f"one of: {', '.join(known)}" if known else "no options",
                did_you_mean(key, known) if known else "leave it out",
            )
    metric: Metric = record.build(classes, **(options or {}))
    return metric
