"""What first was no number is named: the operation, the place, the row."""

from __future__ import annotations

import math

import pytest
import torch
from tests.doctor.patients import blobs, experiment, halves, mlp, seen
from torch import nn

from gipi.doctor.edits import finite_rows
from gipi.doctor.finding import CannotRepair
from gipi.doctor.guard import finite_steps
from gipi.doctor.rules.nan_inf import RULE, passed_over
from gipi.doctor.trace import Trace


def yes_or_no(rows: int = 500):
    g = torch.Generator().manual_seed(0)
    X = torch.randn(rows, 8, generator=g)
    return halves(X, (X[:, :1] > 0).float())


def by_hand(said, y):
    """Binary cross-entropy as people write it."""
    return -(y * torch.log(said) + (1 - y) * torch.log(1 - said)).mean()


class Scaled(nn.Module):
    """Every row over its own deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        return self.net(x / x.std(1, keepdim=True))


def test_a_logarithm_of_zero_is_named_and_the_loss_made_stable() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
    exp = experiment(net, yes_or_no(), loss=by_hand, lr=0.3, epochs=20)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("nan_inf", "problem", True)
    assert "log" in first.message
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.changes[0].startswith("the loss is computed as F.binary_cross_entropy")
    assert treatment.after["loss"] < 3.0
    assert treatment.undo() is exp


def test_a_division_by_zero_names_the_row() -> None:
    torch.manual_seed(0)
    (X, y), val = blobs()
    X[17] = 1.0
    exp = experiment(Scaled(), ((X, y), val))
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert first.rows == (17,)
    assert first.evidence["made_by"] in {"div", "__truediv__"}
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.changes == ["took out 1 rows whose answer is no number"]
    assert treatment.after["loss"] < 1.0
    assert len(treatment.experiment.train[0]) == len(X) - 1


def test_rows_are_not_taken_out_where_they_are_many_or_none() -> None:
    torch.manual_seed(0)
    (X, y), val = blobs()
    with pytest.raises(CannotRepair, match="every row by itself"):
        finite_rows(experiment(Scaled(), ((X, y), val)))
    X[::3] = 1.0
    with pytest.raises(CannotRepair, match="rows of train have no answer"):
        finite_rows(experiment(Scaled(), ((X, y), val)))


def test_a_gradient_that_breaks_where_the_loss_does_not_is_named() -> None:
    torch.manual_seed(0)

    class Length(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(out=8)
            self.head = nn.Linear(1, 4)

        def forward(self, x):
            return self.head((self.net(x) * 0).square().sum(1, keepdim=True).sqrt())

    first = seen(experiment(Length(), blobs()), RULE, train=True).findings[0]
    assert first.evidence["in_gradient"]
    assert first.evidence["made_by"] in {"sqrt", "pow"}


def test_infinities_of_a_mask_are_healthy() -> None:
    torch.manual_seed(0)

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            said = self.net(x)
            hidden = torch.zeros_like(said, dtype=torch.bool)
            return said + 0 * said.masked_fill(hidden, -torch.inf).softmax(-1)

    assert seen(experiment(Masked(), blobs()), RULE, train=True).findings == []


def test_a_step_that_reached_no_weight_is_a_hint() -> None:
    torch.manual_seed(0)
    (X, y), val = blobs()
    X[17] = 1.0
    exp = experiment(Scaled(), ((X, y), val))
    finite_steps(exp)
    exp.step = exp.step.__call__  # somebody's own guard
    (found,) = seen(exp, RULE, train=True).findings
    assert (found.severity, found.confirmed, found.rows) == ("hint", True, (17,))
    assert "the run went on" in found.message


def test_steps_that_a_treatment_leaves_out_are_counted_and_a_hint_of_the_next_look() -> None:
    torch.manual_seed(0)

    class Length(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.net = nn.Linear(8, 8, bias=False), mlp()

        def forward(self, x):
            x = self.first(x)
            return self.net(x) + 0.1 * x.square().sum(1, keepdim=True).sqrt()

    (X, y), val = blobs()
    X[[17, 40]] = 0.0
    exp = experiment(Length(), ((X, y), val), epochs=4)
    diagnosis = seen(exp, RULE, train=True)
    assert [f.code for f in diagnosis.problems] == ["nan_inf"]
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.changes == ["steps whose gradient is not finite are left out"]
    step = treatment.experiment.step
    assert 4 <= step.left_out <= 8 < step.taken
    said = f"{step.left_out} of {step.taken} steps had no finite gradient and are left out"
    assert treatment.partly["nan_inf"].startswith(said)
    assert "first in the gradient of" in str(treatment)
    again = experiment(Length(), ((X, y), val), epochs=4)
    finite_steps(again)
    (left,) = seen(again, RULE, train=True).findings
    assert (left.severity, left.repairs[0].mode) == ("hint", "auto")
    assert "of 48 steps" in left.message
    assert (again.step.taken, again.step.left_out) == (0, 0)  # a look leaves its counts alone
    with torch.no_grad():
        again.model.first.weight[0] = math.nan  # it came too late
    assert [f.severity for f in seen(again, RULE, train=True).findings] == ["problem"]


def test_a_run_of_which_hardly_a_step_is_left_is_not_kept() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.net = nn.Linear(8, 8), mlp()

        def forward(self, x):
            real = x[:, :1] > -1.5
            return self.net((self.first(x).clamp_min(0) * real).sqrt())  # no gradient at 0

    torch.manual_seed(0)
    diagnosis = seen(experiment(Root(), blobs(), epochs=2), RULE, train=True)
    assert [f.code for f in diagnosis.problems] == ["nan_inf"]
    assert diagnosis.repair() is None
    assert "it is hardly trained" in diagnosis.why_not


def test_what_cannot_be_told_yet_is_waited_for() -> None:
    exp = experiment(mlp(), blobs())
    trace = Trace(100, 10, losses=[1.0] * 9 + [math.nan], norms=[1.0] * 10, broken=9)
    assert passed_over(exp, trace) is None
    trace.losses.append(0.9)
    assert passed_over(exp, trace) is True
    trace.losses[-1:] = [math.nan] * 9
    assert passed_over(exp, trace) is False
    with torch.no_grad():
        exp.model[0].bias[0] = math.nan
    trace.losses[-1] = 0.9  # not every row needs the weight
    assert passed_over(exp, trace) is False
