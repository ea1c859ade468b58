"""Columns of the input stand on scales so different, or so large, that one rate fits none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gipi.doctor.experiment import whole
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.probes import after_steps, end_of
from gipi.doctor.rule import Rule
from gipi.doctor.tape import NORMS, WEIGHTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

SPREAD = 100.0
SCALE = 10.0
WINS = 0.9


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect columns whose spreads differ a hundredfold, or values beyond ten."""
    X = facts.X
    if X is None or facts.inputs not in ("table", "sequence", "image") or _is_normed(facts):
        return
    flat = _columns(X)
    std, mean = flat.std(0), flat.mean(0)
    live = std > 0
    if not bool(live.any()):
        return
    spread = float(std[live].max() / std[live].min())
    size = float((mean.abs() + std)[live].max())
    if spread <= SPREAD and size <= SCALE:
        return
    worst = int((mean.abs() + std).argmax())
    names = facts.exp.declared.get("columns") or [f"column {i}" for i in range(len(std))]
    yield Finding(
        "unnormalised_input",
        f"{names[worst]} has mean {float(mean[worst]):.4g} and standard deviation "
        f"{float(std[worst]):.4g}; the largest spread is {spread:.3g} times the smallest",
        "subtract the mean of the training rows and divide by their standard deviation",
        where=(str(names[worst]),),
        evidence={"spread": spread, "size": size, "mean": mean[:64].tolist(),
                  "std": std[:64].tolist()},
        strength=max(spread / SPREAD, size / SCALE),
        repairs=(
            Repair("standardise within the model", standardise,
                   edit="X = (X - X_train.mean(0)) / X_train.std(0), in every split"),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little with and without a standardiser: the finding stands where it wins clearly."""
    steps = max(30, min(80, facts.exp.total_steps // 5))
    plain, _ = after_steps(facts.exp, steps)
    better, _ = after_steps(facts.exp, steps, change=standardise)
    facts.passes += 2 * steps
    ends = {"loss_as_is": end_of(plain), "loss_standardised": end_of(better)}
    if end_of(better) < WINS * end_of(plain):
        return finding.but(confirmed=True, evidence={**finding.evidence, **ends})
    return finding.but(severity="hint")


class Standardise(nn.Module):
    """(x - mean) / std by the training rows, in front of the model that it is given."""

    def __init__(self, model: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's outputs for the standardised input."""
        said: Tensor = self.model((x - self.mean) / self.std)
        return said


def standardise(exp: Experiment) -> str:
    """Put a standardiser, fitted on training rows, in front of the model."""
    rows = whole(exp.train, 10_000, exp.device)
    if rows is None or not isinstance(rows[0], Tensor):
        message = "the input is not one tensor"
        raise CannotRepair(message)
    flat = _columns(rows[0])
    mean, std = flat.mean(0), flat.std(0)
    std = torch.where(std > 0, std, torch.ones_like(std))
    if rows[0].ndim == 4:
        mean, std = mean[:, None, None], std[:, None, None]
    exp.model = Standardise(exp.model, mean.to(rows[0].dtype), std.to(rows[0].dtype))
    return "a standardiser, fitted on the training rows, stands in front of the model"


def _columns(X: Tensor) -> Tensor:
    """Return (rows, columns) in float64: the last dimension, or the channels of images."""
    if X.ndim == 4:
        X = X.transpose(1, -1)
    return X.reshape(-1, X.shape[-1]).double()


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
    passes=160,
    causes=("saturated_activation", "dead_relu", "exploding_gradient", "vanishing_gradient",
            "plateau", "lr_too_high", "bad_init_scale", "underfit", "nan_inf"),
)  # fmt: skip
