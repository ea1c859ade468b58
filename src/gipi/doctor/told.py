"""What shallow learners say of rows, without asking how much of it is chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.doctor.shallow import predict, told_by_near
from gipi.doctor.sheet import label_answer, linear_answer, origin, sheet

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.doctor.facts import Facts


def told_of_val(facts: Facts) -> Tensor:
    """Return what ridge regression on the training rows says of the validation rows; asked once."""
    notes = origin(facts).notes
    if "told of val" not in notes:
        train, val = sheet(facts), sheet(facts, "val")
        assert train is not None
        assert val is not None
        best = linear_answer(facts).penalty
        notes["told of val"] = predict(train.ridge, train.Y, val.F, penalty=best)
    found: Tensor = notes["told of val"]
    return found


def told_of_train(facts: Facts) -> list[Tensor]:
    """Return what each learner says of a training row by the others: those of `sheet.answers`."""
    train = sheet(facts)
    assert train is not None
    found = [linear_answer(facts).told_nk, told_by_near(train.near, train.Y)]
    labels = label_answer(facts)
    return found if labels is None else [*found, labels.told_nk]
