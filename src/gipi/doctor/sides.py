"""Whose side a net takes where a simple learner contradicts labels, on rows that both never saw.

A net that learned wrong labels by heart answers new rows far worse than a simple learner does. It
still says which of the two it believes: where labels are right, and the learner errs, a net that
learned anything says what the label says.

Shapes: n rows of the validation sheet, k classes of the sheets.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gipi.doctor.one_sided import probabilities
from gipi.doctor.patches import patches
from gipi.doctor.shallow import ask_ridge, predict, ridge
from gipi.doctor.sheet import origin, sheet
from gipi.doctor.told import told_of_val

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.doctor.facts import Facts


FIRM = 0.5
"""Share of the rows that a learner places most firmly."""
SIDE = 2.5
"""Standard errors by which a net must say more often what the learner says than what labels say."""


def margin(told: Tensor) -> Tensor:
    """Return by how much the first of a learner's answers is ahead of the second."""
    if told.shape[1] < 2:
        return (told[:, 0] - 0.5).abs()
    two = told.topk(2, 1).values
    return two[:, 0] - two[:, 1]


def speaks_against(facts: Facts, told_nk: Tensor, learners: list[Tensor]) -> bool:
    """Whether the net takes a learner's side against labels of validation rows.

    told_nk   what the learner says of the training rows
    learners  what those of `told_of_train` say of them, the linear one first; another is that of
              patches. What neighbours say of validation rows is not known.
    """
    if told_nk is learners[0]:
        new: Tensor | None = told_of_val(facts)
    elif any(told_nk is known for known in learners):
        return False
    else:
        new = _patches_of_val(facts)
    if new is None:
        return False
    sure = margin(new)
    return sides(facts, new, sure >= sure.quantile(1 - FIRM)) > SIDE


def sides(facts: Facts, told_nk: Tensor, firm_n: Tensor) -> float:
    """Return for which of the two a net speaks on firm rows whose label the learner contradicts.

    z = (a - b) / √(a + b), a rows where it says what the learner says, b what the label says. NaN
    where there are fewer than three classes: who does not say the one then says the other.
    """
    start, val = origin(facts), sheet(facts, "val")
    said = probabilities(facts, start.val)
    if said is None or val is None or val.label is None:
        return math.nan
    given, told = val.Y.argmax(1), told_nk.argmax(1)
    label = val.label.cpu()
    # A class by the column of the sheet that stands for it: any row of that class tells.
    named = {int(c): int(k) for k, c in zip(given.tolist(), label.tolist(), strict=True)}
    net = said[0].argmax(1)[val.rows]
    column = net.new_tensor([named.get(int(c), -1) for c in net])
    asked = firm_n & (told != given)
    a, b = int((asked & (column == told)).sum()), int((asked & (column == given)).sum())
    return (a - b) / math.sqrt(a + b) if a + b else math.nan


def _patches_of_val(facts: Facts) -> Tensor | None:
    """Return what a regression on likeness to patches of training images says of validation's."""
    start, train, val = origin(facts), sheet(facts), sheet(facts, "val")
    if train is None or val is None or start.val is None or start.X is None:
        return None
    X = start.X[train.rows.to(start.X.device)].cpu()
    likeness = patches(X)
    if likeness is None:
        return None
    F_np, new_mp = likeness(X), likeness(start.val[0][val.rows.to(start.val[0].device)].cpu())
    mean, std = F_np.mean(0), F_np.std(0).clamp_min(1e-6)
    fit = ridge((F_np - mean) / std)
    penalty = ask_ridge(fit, train.Y)[0].penalty
    return predict(fit, train.Y, (new_mp - mean) / std, penalty=penalty)
