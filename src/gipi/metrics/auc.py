"""Area under the ROC curve in a state of fixed size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.metrics.classes import hard, two_columns
from gipi.metrics.metric import Metric, State, count, zeros

if TYPE_CHECKING:
    from torch import Tensor

EXPONENTS = 5  # bits: magnitudes from 2^-16 to 2^16
MANTISSA_TWO, MANTISSA_MANY = 10, 7  # bits of resolution for two and for more classes


def ordered_bins(scores: Tensor, mantissa: int, *, low: float = 2.0**-16) -> Tensor:
    """Return a bin for each score, in [0, 2^(6 + mantissa)), rising with the score.

    A bin is the sign, five bits of exponent and `mantissa` bits of the float32 itself: it is
    narrow in proportion to the score, over 32 octaves, so nothing must be known of the range.
    Magnitudes below `low`, a power of two, and above 2^32 of it fall into the outermost bins.
    """
    size = 1 << (EXPONENTS + mantissa)
    magnitude = scores.float().abs()
    bits = magnitude.clamp(low, low * 2.0**32 * (1 - 2.0**-24)).view(torch.int32)
    base = torch.tensor(low).view(torch.int32).item()
    step = ((bits - base) >> (23 - mantissa)).long()
    step.clamp_(max=size - 1)  # NaN, whose bits lie above
    return torch.where(scores < 0, size - 1 - step, size + step)


def auc(classes: int = 2) -> Metric:
    """Return P(score of a positive > score of a negative), ties counting one half.

    Two classes: the score is the difference of the logits. K > 2: each class against the rest, by
    its log-odds, averaged over the classes that have both kinds of rows (macro).

    Scores are counted in 65,536 bins whose width is 0.1 % of the score (K > 2: 8,192 a class,
    0.8 %), so that the state has a fixed size and ranks can add theirs; scores in one bin count as
    ties. The error is at most half the share of such pairs: below 0.001 in practice.

    Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve".
    """
    columns = classes if classes > 2 else 1
    mantissa = MANTISSA_MANY if columns > 1 else MANTISSA_TWO
    bins = 2 << (EXPONENTS + mantissa)

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        logits, truth = two_columns(outputs).to(state["bins"].dtype), hard(target)
        if columns == 1:
            scores, positive = (logits[:, 1] - logits[:, 0]).unsqueeze(1), (truth == 1).unsqueeze(1)
        else:
            log_p = logits.log_softmax(1)
            scores = log_p - (-log_p.expm1()).log()
            positive = torch.nn.functional.one_hot(truth, columns)
        place = 2 * torch.arange(columns, device=logits.device) + positive.long()
        index = ordered_bins(scores, mantissa) + place * bins
        rows = None if weight is None else weight.unsqueeze(1).expand(-1, columns).reshape(-1)
        count(state, "bins", index.reshape(-1), rows)

    def compute(state: State) -> float:
        negative, positive = state["bins"].cpu().unbind(1)  # cumsum on CUDA has no fixed order
        below = negative.cumsum(1) - negative
        wins = (positive * (below + 0.5 * negative)).sum(1)
        pairs = positive.sum(1) * negative.sum(1)
        return float((wins[pairs > 0] / pairs[pairs > 0]).mean())

    return Metric(
        "auc",
        greater_is_better=True,
        init=zeros({"bins": (columns, 2, bins)}),
        update=update,
        compute=compute,
    )
