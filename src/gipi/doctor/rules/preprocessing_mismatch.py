"""Validation inputs were prepared in another way than training inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.affine import affine_to_training
from gipi.doctor.arranged import in_time_order
from gipi.doctor.drift import (
    EVERY,
    REFUTED,
    TURNS,
    is_repeatable,
    mismatch,
    stats,
    turn,
)
from gipi.doctor.edits import mapped, put_in_front
from gipi.doctor.experiment import outputs
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.named import called
from gipi.doctor.regain import regained
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import origin
from gipi.doctor.trials import some, trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gipi.doctor.experiment import Experiment

STEPS = 60
WORSE, SURE = 0.1, 10.0
"""As they are, validation rows must cost this share of the first loss more than brought in line.
From a factor of 10 on it is enough that the model does not undo the difference itself."""


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect columns on another scale, or mean images that are turned against each other."""
    found = mismatch(facts)
    if found is None:
        yield from _exchanged(facts)
        return
    what, worst, strength = found
    s = stats(facts)
    width = len(s.mean) if s is not None else 0
    names = called(facts.exp, width)
    where = [names[i] if i < width else f"column {i}" for i in worst]
    evidence: dict[str, Any] = {}
    said = what
    if s is not None and worst:
        i = worst[0]
        said = (
            f"{what}: {where[0]} has mean {float(s.mean[i]):.4g} and standard deviation "
            f"{float(s.std[i]):.4g} in training, {float(s.val_mean[i]):.4g} and "
            f"{float(s.val_std[i]):.4g} in validation"
        )
        evidence = {n: {"train": [float(s.mean[i]), float(s.std[i])],
                        "val": [float(s.val_mean[i]), float(s.val_std[i])]}
                    for i, n in zip(worst, where, strict=True)}  # fmt: skip
    yield Finding(
        "preprocessing_mismatch",
        said,
        "prepare validation inputs by the same function, with the numbers of the training rows",
        where=tuple(where),
        evidence=evidence,
        strength=min(strength, 1e3),
        repairs=(ONE_PREPARATION,),
    )  # fmt: skip


def _exchanged(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where columns in another order, sign or unit tell again what they told."""
    change = regained(facts)
    if change is None:
        return
    X = origin(facts).X
    width = 0 if X is None else X.shape[1 if X.ndim == 4 else -1]
    names = called(facts.exp, width)
    where = [names[i] if i < width else f"column {i}" for i in change.columns[:8]]
    yield Finding(
        "preprocessing_mismatch",
        f"{change.what} in validation{': ' if where else ''}{', '.join(where[:4])}: what training "
        f"rows tell explains {max(change.told, 0.0):.0%} of its targets, and {change.back:.0%} "
        "where that is undone",
        "prepare validation inputs by the same function, with the numbers of the training rows",
        where=tuple(where),
        evidence={"explained_as_is": change.told, "explained_in_line": change.back},
        strength=5.0,
        repairs=(ONE_PREPARATION,),
    )


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little: validation rows must be told better once they are brought in line."""
    fix = _fix(facts)
    rows = some(facts.val)
    if fix is None or rows is None:
        return finding.but(severity="hint", repairs=())
    steps = max(20, min(STEPS, facts.exp.total_steps // 4))
    seen = trial(facts, steps)
    loss = facts.exp.judge or facts.exp.loss
    X = fix(rows[0])
    # Cross-entropy takes targets from 0 to 1 alone; on a GPU others would end the process.
    taken = not facts.loss.name.startswith("bce") or bool(((X >= 0) & (X <= 1)).all())
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        as_is, in_line = outputs(seen.exp, rows[0]), outputs(seen.exp, X)
        better = float(loss(in_line, X if taken and _gives_back(rows) else rows[1]))
    evidence = {**finding.evidence, "loss_as_is": seen.val, "loss_in_line": better}
    worse = seen.val - better if math.isfinite(seen.val) else math.inf
    if not math.isfinite(better):
        origin(facts).notes[REFUTED] = True
        return None
    # A net of rectifiers may answer rightly on any scale: then the outputs' scale tells.
    sure = finding.strength >= SURE or "standardised" in finding.message
    told = sure and finding.message.startswith(EVERY)
    told = told and _moves(as_is, in_line)
    if worse < WORSE * max(abs(seen.train), 0.1 * abs(seen.first)) and not told:
        origin(facts).notes[REFUTED] = True
        return None
    if in_time_order(facts):
        return finding.but(severity="hint", evidence=evidence)
    return finding.but(confirmed=True, evidence=evidence)


def _moves(as_is: Any, in_line: Any) -> bool:
    """Whether outputs depend on how the rows were prepared: a model may do that itself."""
    if not isinstance(as_is, Tensor) or not isinstance(in_line, Tensor):
        return False
    return float((as_is - in_line).norm()) > 0.5 * float(in_line.norm())


def align(exp: Experiment) -> str:
    """Prepare validation inputs as training inputs are.

    A transform that only prepares moves into the model, where every split passes it.
    """
    facts = Facts(exp)
    X = facts.X
    if mismatch(facts) is None and regained(facts) is None:
        message = "no difference was found again"
        raise CannotRepair(message)
    transform = exp.transform
    if transform is not None and X is not None and is_repeatable(facts, X):
        plain = Facts(exp)
        exp.transform = None
        if mismatch(plain) is None:
            put_in_front(exp, Prepare(transform))
            return "the transform prepares inputs within the model now, for every split"
        exp.transform = transform
    fix = _fix(facts)
    if fix is None:
        message = "the difference is not one of scale"
        raise CannotRepair(message)
    if _gives_back(some(facts.val)):
        exp.val = mapped(exp.val, of_x=fix, of_y=fix)
    else:
        exp.val = mapped(exp.val, of_x=fix)
    change = regained(facts) if mismatch(facts) is None else None
    if change is not None:
        return f"{change.what} in validation: that is undone"
    turned = turn(facts)
    if turned in TURNS:
        return f"validation images are turned back ({turned})"
    return "validation inputs are brought to the training columns' mean and spread"


def _gives_back(rows: tuple[Any, Any] | None) -> bool:
    """Whether validation targets are the inputs themselves, prepared in the same wrong way."""
    if rows is None:
        return False
    X, y = rows
    if not isinstance(X, Tensor) or not isinstance(y, Tensor) or X.shape != y.shape:
        return False
    return X.is_floating_point() and torch.equal(X, y.to(X.dtype))


class Prepare(nn.Module):
    """A function over the inputs."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        """Return the prepared input."""
        return self.function(x)


def _fix(facts: Facts) -> Callable[[Tensor], Tensor] | None:
    """Return the function that brings validation inputs in line."""
    change = regained(facts) if mismatch(facts) is None else None
    if change is not None:
        return change.undo
    turned = turn(facts)
    if stats(facts) is None:
        return None
    if turned is None or turned.startswith("light"):
        fix: Callable[[Tensor], Tensor] = affine_to_training(facts, negative=turned is not None)
        return fix
    return TURNS[turned]


ONE_PREPARATION = Repair(
    "the same preparation", align, proof="exact",
    edit="X_val = prepare(X_val): the function, mean and spread of the training rows",
)  # fmt: skip

RULE = Rule(
    code="preprocessing_mismatch",
    title="validation is prepared in another way than training",
    looks="training goes well and validation is at the level of guessing from the first epoch on",
    why="the net has never seen numbers on that scale: what it learned does not apply to them",
    do="put the preparation into one function, fit its numbers on training rows, use it everywhere",
    source="Sculley et al. 2015, Hidden technical debt in machine learning systems",
    before=before,
    confirm=confirm,
    passes=STEPS + 4,
    causes=("train_val_shift", "overfit", "labels_misaligned", "bn_stats_mismatch",
            "class_imbalance", "label_noise"),
)  # fmt: skip
