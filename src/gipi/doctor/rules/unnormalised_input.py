"""Columns of the input stand on scales so different, or so large, that one rate fits none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.drift import as_trained
from gipi.doctor.edits import Moments, put_in_front
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.named import called
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import columns
from gipi.doctor.tape import NORMS, WEIGHTED
from gipi.doctor.trials import lead, trial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment

SPREAD = 100.0
SCALE = 10.0
SMALL = 0.02
STEPS = 80
PROBLEM, HINT = 0.15, 0.06
LEARNED, LARGE = 0.95, 10.0
"""By these shares of the first loss must the loss be lower where the input is standardised."""
KINDS = ("table", "sequence", "image")


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect columns whose spreads differ a hundredfold, or values beyond ten, or all tiny ones.

    What counts is what arrives at the first weights: a model may scale its input itself.
    """
    X = facts.X
    if X is None or not X.is_floating_point() or facts.inputs not in KINDS or _is_normed(facts):
        return
    fed = as_trained(facts, X)
    seen = _scale(facts, fed) if fed is not None and fed.ndim == X.ndim else None
    if seen is None or not _is_off(*seen[:2]):
        return
    if facts.exp.transform is None and not _arrives(facts):
        return
    spread, size, mean, std = seen
    worst = int((mean.abs() + std).argmax()) if size > SMALL else 0
    name = called(facts.exp, len(mean))[worst]
    what = f"the largest spread is {spread:.3g} times the smallest"
    if size < SMALL:
        what = f"no column's values lie further than {size:.3g} from zero"
    yield Finding(
        "unnormalised_input",
        f"{name} has mean {float(mean[worst]):.4g} and standard deviation "
        f"{float(std[worst]):.4g}; {what}",
        "subtract the mean of the training rows and divide by their standard deviation",
        where=(name,),
        evidence={"spread": spread, "size": size, "mean": mean[:64].tolist(),
                  "std": std[:64].tolist()},
        strength=max(spread / SPREAD, size / SCALE, SMALL / max(size, 1e-30)),
        repairs=(
            Repair("standardise within the model", standardise, proof="not worse",
                   edit="X = (X - X_train.mean(0)) / X_train.std(0), in every split"),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little with and without a standardiser: the finding stands where it wins clearly."""
    steps = min(STEPS, max(30, facts.exp.total_steps // 2))
    plain = trial(facts, steps)
    better = trial(facts, steps, change=standardise)
    ends = {"loss_as_is": plain.train, "loss_standardised": better.train}
    sure = finding.but(confirmed=True, evidence={**finding.evidence, **ends})
    won = lead(plain, better)
    if won > PROBLEM:
        return sure
    # Where neither learns within so few steps the numbers alone are left to tell.
    slow = better.train > LEARNED * abs(better.start) and finding.strength > LARGE
    return sure.but(severity="hint", confirmed=False) if won > HINT or slow else None


class Standardise(Moments):
    """(x - mean) / std by the training rows; what is no tensor of numbers passes as it is."""

    def forward(self, x: Any) -> Any:
        """Return the standardised input."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        return (x - self.mean) / self.std


def standardise(exp: Experiment) -> str:
    """Put a standardiser, fitted on training rows, in front of the model.

    Columns of zeros and ones stay as they are: a rare one would be blown up.
    """
    facts = Facts(exp)
    X = facts.X
    if X is None or not X.is_floating_point() or X.ndim not in (2, 3, 4):
        message = "the input is not one tensor of numbers"
        raise CannotRepair(message)
    flat = columns(facts, X)
    flat = flat[flat.isfinite().all(1)]
    if len(flat) < 2:
        message = "hardly a row is without a gap"
        raise CannotRepair(message)
    mean, std = flat.mean(0), flat.std(0)
    live = std > 1e-9 * (1 + mean.abs())
    binary = ((flat == 0) | (flat == 1)).all(0)
    std = torch.where(live & ~binary, std, torch.ones_like(std))
    mean = torch.where(binary, torch.zeros_like(mean), mean)
    shape = [-1] if X.ndim == 2 else [-1, 1] if _second(X, flat) else [-1]
    if X.ndim == 4:
        shape = [-1, 1, 1]
    put_in_front(exp, Standardise(mean.to(X.dtype).view(shape), std.to(X.dtype).view(shape)))
    return "a standardiser, fitted on the training rows, stands in front of the model"


def _second(X: Tensor, flat: Tensor) -> bool:
    """Whether the columns are the second of three dimensions."""
    return X.ndim == 3 and flat.shape[1] == X.shape[1] and flat.shape[1] != X.shape[2]


def _scale(facts: Facts, X: Tensor) -> tuple[float, float, Tensor, Tensor] | None:
    """Return the ratio of spreads, the largest |mean| + std, means and spreads of live columns."""
    flat = columns(facts, X)
    flat = flat[flat.isfinite().all(1)]
    if len(flat) < 2:
        return None
    mean, std = flat.mean(0), flat.std(0)
    # A rare yes among noes has a small spread and is no matter of scale.
    live = (std > 1e-9 * (1 + mean.abs())) & ~((flat == 0) | (flat == 1)).all(0)
    if not bool(live.any()):
        return None
    spread = float(std[live].max() / std[live].min())
    return spread, float((mean.abs() + std)[live].max()), mean, std


def _is_off(spread: float, size: float) -> bool:
    return spread > SPREAD or size > SCALE or size < SMALL


def _arrives(facts: Facts) -> bool:
    """Whether the first weights see numbers that are as far off as those of the data."""
    first = facts.tape.of(WEIGHTED)
    if not first or not first[0].inputs:
        return True
    fed = first[0].inputs[0].detach()
    if not fed.is_floating_point() or fed.ndim < 2 or not bool(fed.isfinite().all()):
        return True
    if fed.ndim == 4 or (fed.ndim == 3 and first[0].kind == "conv"):
        fed = fed.transpose(1, -1)
    flat = fed.reshape(-1, fed.shape[-1]).cpu().double()
    mean, std = flat.mean(0), flat.std(0)
    live = (std > 1e-9 * (1 + mean.abs())) & ~((flat == 0) | (flat == 1)).all(0)
    if len(flat) < 2 or not bool(live.any()):
        return True
    spread = float(std[live].max() / std[live].min())
    return _is_off(spread, float((mean.abs() + std)[live].max()))


def _is_normed(facts: Facts) -> bool:
    """Whether a normalisation or an embedding comes before the first weights."""
    first = facts.tape.of(NORMS | WEIGHTED)
    return bool(first) and first[0].kind in NORMS | {"embedding"}


RULE = Rule(
    code="unnormalised_input",
    title="inputs are not standardised",
    looks="the loss falls along a few columns and hardly along the others, or jumps",
    why="the curvature along a weight grows with the square of its input: a rate that is right for "
    "one column is too large or too small for another",
    do="standardise every column by the mean and the spread of the training rows",
    source="LeCun, Bottou, Orr and Müller 1998, Efficient BackProp, section 4.3",
    before=before,
    confirm=confirm,
    passes=2 * STEPS + 4,
    causes=("saturated_activation", "dead_relu", "exploding_gradient", "vanishing_gradient",
            "plateau", "lr_too_high", "lr_too_low", "oscillating_loss", "bad_init_scale",
            "underfit", "nan_inf"),
)  # fmt: skip
