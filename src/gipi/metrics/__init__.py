"""Metrics: numbers for people, over outputs, targets and row weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gipi.core.errors import ConfigError, did_you_mean
from gipi.core.registry import Record, Registry
from gipi.metrics.answers import answer_f1, exact_match_text
from gipi.metrics.ap import ap, ap50
from gipi.metrics.auc import auc
from gipi.metrics.bleu import bleu
from gipi.metrics.classes import accuracy, balanced_accuracy, ece, f1, log_loss
from gipi.metrics.entities import entity_f1
from gipi.metrics.forecast import mase, original_mae
from gipi.metrics.labels import exact_match, label_f1_macro, label_f1_micro, label_map
from gipi.metrics.masks import mean_dice, mean_iou, pixel_accuracy
from gipi.metrics.metric import Metric
from gipi.metrics.points import nme, oks, pck
from gipi.metrics.ranks import spearman
from gipi.metrics.retrieval import mrr, ndcg, recall_at_k
from gipi.metrics.rouge import rouge_l
from gipi.metrics.spans import span_f1
from gipi.metrics.strings import TextMetric
from gipi.metrics.tokens import bits_per_byte, perplexity, token_accuracy
from gipi.metrics.values import mae, mse, pearson, r2, rmse

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["METRICS", "Metric", "TextMetric", "build", "build_text"]

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
        Record("spearman", spearman, "correlation of the ranks of prediction and truth",
               "Spearman 1904, The proof and measurement of association between two things",
               ("regress",),
               {**_UP, "formula": "cov(rank y, rank ŷ) / (s(rank y)·s(rank ŷ))"}),
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
        Record("token_accuracy", token_accuracy, "share of predicted tokens that are right",
               "Bengio, Ducharme, Vincent and Jauvin 2003, A neural probabilistic language model",
               ("tokens",), {**_UP, "formula": "right / predicted tokens"}),
        Record("perplexity", perplexity, "among how many tokens a model is as good as undecided",
               "Jelinek, Mercer, Bahl and Baker 1977, Perplexity", ("tokens",),
               {**_DOWN, "formula": "exp(mean of -log p(token))"}),
        Record("bits_per_byte", bits_per_byte, "bits that a byte of text costs",
               "Gao et al. 2020, The Pile, arXiv:2101.00027", ("tokens",),
               {**_DOWN, "formula": "Σ -log₂ p(token) / Σ bytes(token)",
                "options": ("token_bytes",)}),
        Record("entity_f1", entity_f1, "strict F1 of entities, as conlleval counts them",
               "Tjong Kim Sang and De Meulder 2003, arXiv:cs/0306050", ("tokens",),
               {**_UP, "formula": "2·right / (true + found) over entities", "options": ("tags",)}),
        Record("span_f1", span_f1, "overlap of found and true answers, in tokens of a window",
               "Rajpurkar et al. 2016, SQuAD, arXiv:1606.05250", ("tokens",),
               {**_UP, "formula": "mean of 2·shared / (found + true) over windows with an answer"}),
        Record("recall_at_k", recall_at_k, "share of the relevant among the first k",
               "Manning, Raghavan and Schütze 2008, Introduction to information retrieval",
               ("retrieval",),
               {**_UP, "formula": "mean of relevant among the first k / relevant",
                "options": ("k",)}),
        Record("mrr", mrr, "how early the first relevant candidate comes",
               "Voorhees 1999, The TREC-8 question answering track report", ("retrieval",),
               {**_UP, "formula": "mean of 1 / place of the first relevant"}),
        Record("ndcg", ndcg, "discounted gain of the first k, as a share of the best",
               "Järvelin and Kekäläinen 2002, Cumulated gain-based evaluation", ("retrieval",),
               {**_UP, "formula": "mean of DCG / best DCG, DCG = Σ relevanceᵢ / log₂(i + 1)",
                "options": ("k",)}),
        Record("exact_match_text", exact_match_text, "share of answers that equal a right one",
               "Rajpurkar et al. 2016, SQuAD, arXiv:1606.05250", ("strings",),
               {**_UP, "formula": "answers equal to a right one / n", "options": ("kind",)}),
        Record("answer_f1", answer_f1, "words (Korean: characters) shared with the right answer",
               "Rajpurkar et al. 2016, SQuAD, arXiv:1606.05250", ("strings",),
               {**_UP, "formula": "mean of 2·shared / (said + right)", "options": ("kind",)}),
        Record("bleu", bleu, "n-grams that translations share with their references, 0 to 100",
               "Papineni et al. 2002, BLEU; Post 2018, arXiv:1804.08771", ("strings",),
               {**_UP, "formula": "100·exp(min(0, 1 - r/c))·exp(mean over n = 1..4 of log pₙ)",
                "options": ("words", "lowercase")}),
        Record("rouge_l", rouge_l, "longest common subsequence of summary and reference",
               "Lin 2004, ROUGE: a package for automatic evaluation of summaries", ("strings",),
               {**_UP, "formula": "mean of 2·LCS / (words said + words of the reference)"}),
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
    record = _checked(name, options)
    if "strings" in record.tags:
        raise ConfigError(
            f"the metric '{name}' compares texts, not tensors",
            "a metric over outputs and targets",
            "call gipi.metrics.build_text for it",
        )
    metric: Metric = record.build(classes, **(options or {}))
    return metric


def build_text(name: str, *, options: Mapping[str, Any] | None = None) -> TextMetric:
    """Return the metric called `name` over answers and references.

    Raises as `build`, and `ConfigError` for a metric over tensors.

    >>> build_text("exact_match_text").score(["Paris."], [["paris"]])
    1.0
    """
    record = _checked(name, options)
    if "strings" not in record.tags:
        raise ConfigError(
            f"the metric '{name}' compares tensors, not texts",
            "one of: " + ", ".join(r.name for r in METRICS if "strings" in r.tags),
            "call gipi.metrics.build for it",
        )
    metric: TextMetric = record.build(**(options or {}))
    return metric


def _checked(name: str, options: Mapping[str, Any] | None) -> Record:
    """Return the record of a metric that has all these options."""
    record = METRICS.get(name)
    known = record.facts.get("options", ())
    for key in options or {}:
        if key not in known:
            raise ConfigError(
                f"the metric '{name}' has no option '{key}'",
                f"one of: {', '.join(known)}" if known else "no options",
                did_you_mean(key, known) if known else "leave it out",
            )
    return record
