"""What shallow learners say of rows, without asking how much of it is chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.doctor.shallow import predict, told_by_near
from gipi.doctor.sheet import label_answer, linear_answer, noted, sheet

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.doctor.facts import Facts


def told_of_val(facts: Facts) -> Tensor:
    """Return what ridge regression on the training rows says of the validation rows; asked once."""
    return noted(facts, "told of val", _of_val)


def _of_val(facts: Facts) -> Tensor:
    train, val = sheet(facts), sheet(facts, "val")
    assert train is not None
    assert val is not None
    return predict(train.ridge, train.Y, val.F, penalty=linear_answer(facts).penalty)


def told_of_train(facts: Facts) -> list[Tensor]:
    """Return what each learner says of a training row by the others: those of `sheet.answers`."""
    train = sheet(facts)
    assert train is not None
    found = [linear_answer(facts).told_nk, told_by_near(train.near, train.Y)]
    labels = label_answer(facts)
    return found if labels is None else [*found, labels.told_nk]
