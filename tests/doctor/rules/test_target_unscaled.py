"""A target in the thousands is found and scaled within model and loss; outputs keep its units."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, findings, halves, mlp, regression, seen
from torch import nn

from gipi.doctor.experiment import outputs
from gipi.doctor.rules.target_unscaled import RULE


def scaled(mean: float, std: float):
    return tuple((X, std * y + mean) for X, y in regression())


def test_a_large_target_is_named_scaled_and_undone() -> None:
    exp = experiment(mlp(out=1), scaled(2000, 500), epochs=20, lr=0.01)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("target_unscaled", "problem", True)
    treatment = diagnosis.repair()
    assert treatment is not None
    said = outputs(treatment.experiment, exp.val[0])
    assert 1800 < float(said.mean()) < 2200
    assert treatment.after["loss"] < 0.8 * float(exp.val[1].var())
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp


def test_healthy_twins_are_left_alone() -> None:
    assert findings(experiment(mlp(out=1), regression()), RULE) == []
    assert findings(experiment(mlp(), blobs()), RULE) == []
    model = mlp(out=1)
    nn.init.constant_(model[2].bias, 500.0)
    assert findings(experiment(model, scaled(500, 20), lr=0.05, epochs=20), RULE) == []


def test_a_model_with_its_own_scale_is_left_alone() -> None:
    class Scaling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(out=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 500 * self.net(x) + 2000

    assert findings(experiment(Scaling(), scaled(2000, 500)), RULE) == []


class Table(nn.Module):
    """Columns of codes, each with vectors of its own."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 6) for size in sizes)
        self.end = nn.Sequential(nn.Linear(6 * len(sizes), 48), nn.ReLU(), nn.Linear(48, 48),
                                 nn.ReLU(), nn.Linear(48, 1))  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        read = [table(codes) for table, codes in zip(self.tables, x.unbind(1), strict=True)]
        return self.end(torch.cat(read, -1))


def test_what_a_few_steps_leave_open_is_told_by_the_whole_run() -> None:
    g, sizes = torch.Generator().manual_seed(3), (12, 30, 7, 24)
    X = torch.stack([torch.randint(size, (2000,), generator=g) for size in sizes], 1)
    mean, swing = torch.randn(2, 12, generator=g)
    y = mean[X[:, 0]] + 0.8 * torch.randn(30, generator=g)[X[:, 1]]
    y += 1.2 * swing[X[:, 0]] * (X[:, 3] / 24 * 6.283).sin()
    y = ((y - y.mean()) / y.std())[:, None]

    def made(mean: float, std: float):
        torch.manual_seed(0)
        splits = halves(X, std * y + mean, 0.8)
        return experiment(Table(*sizes), splits, lr=0.015, epochs=12, batch_size=40)

    assert [f.severity for f in seen(made(900, 600), RULE).findings] == ["hint"]
    (found,) = seen(made(900, 600), RULE, train=True).findings
    assert (found.severity, found.confirmed, found.phase) == ("problem", True, "epoch")
    assert found.evidence["unexplained_scaled"] < 0.5 * found.evidence["unexplained_by_run"]
    assert findings(made(0, 1), RULE, train=True) == []
