"""The proof of a repair: two trained experiments compared on the same validation rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.experiment import judged, outputs, whole
from gipi.doctor.judge import right

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Measure

PARTS = 20
"""Parts of the validation rows by whose differences the noise of a comparison is told."""
JUDGED = 10_000
BETTER_SE, WORSE_SE, WON_SE = 2.0, 1.0, 3.0
CHANCE, DRAWS = 0.01, 2000
"""Share of samples in which a gain may be none, and how many are drawn."""
FEWEST = 12
"""Parts of which samples are drawn: of fewer, too many samples are alike."""
UNKNOWN = 0.05
"""Where the noise cannot be told, this share of the score stands for its standard error."""
ALIKE = 0.1
"""Of its standard error or of itself: by less a mean over parts is no other figure, as parts are of
unequal size."""


@dataclass(frozen=True)
class Proof:
    """How a changed run compares with the one before, on validation rows; more is better.

    gain   mean difference of scores over parts of the rows, and its standard error `se`
    won    standard errors by which more than half of the parts gained: a run that failed has losses
           so wild that their mean says little
    low    what the gain exceeds in all but a hundredth of the samples of parts, drawn with
           replacement (Efron 1979): where a few rows of the old run are lost by hundreds, `se` is
           as large as the gain, though hardly any choice of rows makes the old run the better one
    """

    before: float
    after: float
    gain: float
    se: float
    won: float = 0.0
    low: float = -math.inf

    def __str__(self) -> str:
        """Both scores with their difference; how the parts gained, where that is another figure."""
        if not math.isfinite(self.before):  # nothing can be subtracted from it
            return f"{self.before:.4g} -> {self.after:.4g}"
        less = self.after - self.before
        parts = ""
        if not math.isclose(self.gain, less, rel_tol=ALIKE, abs_tol=ALIKE * self.se):
            parts = f"on average over parts of the rows {self.gain:+.3g}, "
        return (f"{self.before:.4g} -> {self.after:.4g} ({less:+.3g}, {parts}"
                f"standard error {self.se:.2g})")  # fmt: skip

    def holds(self, wanted: str) -> bool:
        """Whether a repair with that kind of proof is kept."""
        if not math.isfinite(self.after):
            return False
        if wanted == "exact" or not math.isfinite(self.before):
            return True
        if wanted == "not worse":
            return self.gain >= -WORSE_SE * self.se
        sure = self.gain > BETTER_SE * self.se or self.won >= WON_SE or self.low > 0
        return self.gain > 0 and sure


def scores(exp: Experiment) -> dict[str, float]:
    """Return score and loss, as asked, of the validation rows (training rows where none are)."""
    X, y = _rows(exp)
    said = outputs(exp, X)
    with torch.no_grad():
        loss = float((exp.judge or exp.loss)(said, y))
    return {"score": _scores((exp, said, y))[0], "loss": loss}


def side_by_side(*exps: Experiment) -> list[float]:
    """Return comparable scores of trained experiments, each on its own validation rows.

    NaN for one whose own loss is no number, where another one's is.
    """
    rows = [_rows(exp) for exp in exps]
    said = [(exp, outputs(exp, X), y) for exp, (X, y) in zip(exps, rows, strict=True)]
    found = _scores(*said)
    whole = [math.isfinite(_score(exp, o, y, None)) for exp, o, y in said]
    return [v if w or not any(whole) else math.nan for v, w in zip(found, whole, strict=True)]


def _scores(*said: tuple[Experiment, Any, Any], measure: Measure | None = None) -> list[float]:
    """Return comparable scores of (experiment, outputs, targets).

    Where a loss is not finite though the outputs are, as the logarithm of a zero, all are judged by
    their share of right classes; outputs that are not finite have no score.
    """
    found = [_score(exp, o, y, measure) for exp, o, y in said]
    sound = [isinstance(o, Tensor) and bool(o.isfinite().all()) for _, o, _ in said]
    if not any(s and not math.isfinite(v) for s, v in zip(sound, found, strict=True)):
        return found
    shares = [right(o, y) if s else math.nan for s, (_, o, y) in zip(sound, said, strict=True)]
    return shares if any(math.isfinite(v) for v in shares) else found


def _score(exp: Experiment, said: Any, y: Any, measure: Measure | None) -> float:
    return judged(exp, said, y) if measure is None else measure.of(said, y)


def compare(old: Experiment, new: Experiment, *, measure: Measure | None = None) -> Proof:
    """Return how two trained experiments compare on the same validation rows.

    measure  what they are judged by; None: the metric, or the loss as asked

    Rows are those of the changed one: a repair may have taken rows out that nobody can be judged
    by. Both answer the same rows, so that what is hard about a row is hard for both: the noise is
    that of the differences between parts of the rows, not of the scores.
    """
    X, y = _rows(new)
    said_old, said_new = outputs(old, X), outputs(new, X)
    before, after = _scores((old, said_old, y), (new, said_new, y), measure=measure)
    unknown = Proof(before, after, after - before, UNKNOWN * abs(before))
    parts = _parts(y)
    if parts is None or not isinstance(said_old, Tensor) or not isinstance(said_new, Tensor):
        return unknown
    try:
        gains = [
            _score(new, said_new[p], y[p], measure) - _score(old, said_old[p], y[p], measure)
            for p in parts
        ]
    except (RuntimeError, ValueError, IndexError, TypeError):
        return unknown
    values = torch.tensor([g for g in gains if math.isfinite(g)], dtype=torch.float64)
    if len(values) < 3:
        return unknown
    n = len(values)
    se = float(values.std() / math.sqrt(n))
    won = (int((values > 0).sum()) - n / 2) / math.sqrt(n / 4)
    return Proof(before, after, float(values.mean()), se, won, _low(values))


def _low(values: Tensor) -> float:
    """Return the quantile `CHANCE` of the means of samples of the values; -inf for too few."""
    n = len(values)
    if n < FEWEST:
        return -math.inf
    chosen = torch.randint(n, (DRAWS, n), generator=torch.Generator().manual_seed(0))
    return float(values[chosen].mean(1).quantile(CHANCE))


def _rows(exp: Experiment) -> tuple[Any, Any]:
    found = whole(exp.val if exp.val is not None else exp.train, JUDGED, exp.device)
    assert found is not None
    return found


def _parts(y: Any) -> list[Tensor] | None:
    """Return the numbers of rows of up to `PARTS` parts of two rows or more."""
    if not isinstance(y, Tensor) or len(y) < 8:
        return None
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return list(order.to(y.device).tensor_split(min(PARTS, len(y) // 2)))
