"""Training rows among the validation rows are found and taken out; chance copies are left alone."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import (
    Reader,
    blobs,
    cnn,
    experiment,
    findings,
    halves,
    images,
    mlp,
    seen,
    token_rows,
)
from tests.doctor.wired import Attention as Letters
from tests.doctor.wired import words_loss
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gipi.doctor import Experiment, diagnose
from gipi.doctor.rules.train_val_overlap import RULE
from gipi.doctor.twins import keys_of


def overlapping(splits, count: int = 60, noise: float = 0.0):
    (X, y), (V, v) = splits
    V, v = V.clone(), v.clone()
    V[:count], v[:count] = X[:count], y[:count]
    if noise:
        V[:count] += noise * torch.randn(
            V[:count].shape, generator=torch.Generator().manual_seed(0)
        )
    return (X, y), (V, v)


def test_copies_are_named_taken_out_and_undone() -> None:
    exp = experiment(mlp(), overlapping(blobs()), epochs=3)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("train_val_overlap", "problem", True)
    assert first.rows[:50] == tuple(range(50))
    treatment = diagnosis.repair()
    assert treatment is not None
    assert len(treatment.experiment.val[0]) == 180
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp
    assert len(exp.val[0]) == 240


def test_copies_of_images_with_noise_are_found_though_some_pixels_hardly_vary() -> None:
    dim = torch.ones(10, 10)
    dim[:, 6:] = 0.02
    splits = tuple((X * dim, y) for X, y in images(500))
    exp = experiment(cnn(), overlapping(splits, 60, noise=0.004))
    assert [f.code for f in seen(exp, RULE).problems] == ["train_val_overlap"]
    assert findings(experiment(cnn(), splits), RULE) == []


def test_loaders_images_and_tokens_are_compared_too() -> None:
    train, val = overlapping(blobs())
    exp = experiment(
        mlp(),
        (DataLoader(TensorDataset(*train), 32, shuffle=True), DataLoader(TensorDataset(*val), 50)),
    )
    diagnosis = seen(exp, RULE)
    diagnosis.findings[0].repairs[0].change(exp)
    assert len(exp.val.dataset) == 180
    assert exp.val.batch_size == 50
    for model, splits in ((cnn(), images()), (Reader(), token_rows(length=24))):
        assert findings(experiment(model, splits), RULE) == []
        assert findings(experiment(model, overlapping(splits)), RULE) == ["train_val_overlap"]


def test_a_few_new_rows_are_validation_enough_and_cost_no_training_row() -> None:
    train, val = blobs()
    exp = experiment(mlp(), overlapping((train, (val[0][:100], val[1][:100])), 87), epochs=3)
    diagnosis = seen(exp, RULE)
    assert "13 are left" in diagnosis.findings[0].advice
    treatment = diagnosis.repair()
    assert treatment is not None
    assert [len(y) for _, y in (treatment.experiment.train, treatment.experiment.val)] == [360, 13]
    assert "took 87 of 100 validation rows out; 13 are left" in treatment.changes[0]
    assert treatment.proof.gain == 0


def test_of_a_validation_loader_that_leaves_the_last_rows_out_every_row_counts() -> None:
    train, val = overlapping(blobs(), 215)
    exp = experiment(mlp(), (train, DataLoader(TensorDataset(*val), 64, drop_last=True)), epochs=3)
    treatment = seen(exp, RULE).repair()
    assert treatment is not None
    assert sum(len(y) for _, y in treatment.experiment.val) == 25


def test_rows_are_held_back_from_training_only_where_that_is_asked_for() -> None:
    train, val = blobs()
    both = torch.cat([train[0], val[0]]), torch.cat([train[1], val[1]])
    exp = experiment(mlp(), (both, val), epochs=3)
    diagnosis = seen(exp, RULE)
    assert diagnosis.repair() is None
    assert "needs a person" in diagnosis.why_not
    assert "0 of 240 validation rows are new" in diagnosis.findings[0].advice
    treatment = diagnosis.repair(apply=("train_val_overlap",))
    assert treatment is not None
    assert treatment.changes == ["took 30 of 600 training rows and 210 of 240 validation rows out"]
    (X, _), (V, _) = treatment.experiment.train, treatment.experiment.val
    assert not torch.isin(keys_of(V), keys_of(X)).any()
    assert len(V) == 30
    assert findings(treatment.experiment, RULE) == []


def test_copies_with_a_little_noise_are_named() -> None:
    exp = experiment(mlp(), overlapping(blobs(), noise=1e-3))
    first = seen(exp, RULE).findings[0]
    assert first.evidence["exact"] is False


def test_few_values_and_independent_rows_are_left_alone() -> None:
    assert findings(experiment(mlp(), blobs()), RULE) == []
    g = torch.Generator().manual_seed(0)
    X = torch.randint(0, 4, (800, 4), generator=g).float()
    assert findings(experiment(mlp(4, 2), halves(X, (X.sum(1) > 6).long())), RULE) == []
    proto = torch.randint(0, 5, (12, 12), generator=g).float()
    kind = torch.randint(0, 12, (800,), generator=g)
    assert findings(experiment(mlp(12, 3), halves(proto[kind], kind % 3)), RULE) == []


@pytest.mark.parametrize("named", [False, True])
def test_several_inputs_a_row(*, named: bool) -> None:
    """Two tensors a row, by position or by name: equal where both are equal."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(11, 2)

        def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return self.b(torch.cat([self.a(x).relu(), z], -1))

    def split(rows: list[int]) -> list:
        pairs = [((x[i : i + 40], z[i : i + 40]), y[i : i + 40]) for i in rows]
        return [({"x": a, "z": b}, c) for (a, b), c in pairs] if named else pairs

    torch.manual_seed(0)
    x, z = torch.randn(240, 4), torch.randn(240, 3)
    y = (x[:, 0] + z[:, 0] > 0).long()
    for val, found in ([120, 160, 200], []), ([0, 160, 200], ["train_val_overlap"]):
        model = Two()
        exp = Experiment(model, train=split([0, 40, 80]), val=split(val), epochs=2,
                         loss=nn.CrossEntropyLoss(),
                         optimizer=torch.optim.Adam(model.parameters(), 1e-2))  # fmt: skip
        diagnosis = diagnose(exp, train=False)
        assert not diagnosis.broken
        assert [f.code for f in diagnosis.problems] == found


def test_lines_that_a_text_says_again_and_again_are_no_overlap() -> None:
    g = torch.Generator().manual_seed(0)
    part = torch.randint(0, 26, (2, 9000), generator=g)
    line = torch.randint(0, 26, (40,), generator=g)
    for start in range(0, 9000, 300):
        part[:, start : start + 40] = line
    cut = [t[torch.randint(0, 8900, (n, 1), generator=g) + torch.arange(17)]
           for t, n in zip(part, (900, 200), strict=True)]  # fmt: skip
    train, val = ((c[:, :-1], c[:, 1:]) for c in cut)
    assert bool(torch.isin(keys_of(val[0]), keys_of(train[0])).double().mean() > 0.02)
    assert findings(experiment(Letters(26, 26), (train, val), loss=words_loss), RULE) == []
    copied = (torch.cat([val[0][:100], train[0][:60]]), torch.cat([val[1][:100], train[1][:60]]))
    assert findings(experiment(Letters(26, 26), (train, copied), loss=words_loss), RULE) != []


def test_tables_of_a_few_numbers_and_texts_stored_twice() -> None:
    g = torch.Generator().manual_seed(0)
    X, y = torch.randint(0, 2, (500, 10), generator=g), torch.randint(0, 2, (500,), generator=g)
    net = nn.Sequential(nn.Embedding(2, 4), nn.Flatten(), nn.Linear(40, 2))
    assert findings(experiment(net, halves(X, y)), RULE) == []
    text = torch.randint(0, 26, (800,), generator=g)
    rows = text[torch.arange(700)[:, None] + torch.arange(17)].repeat(2, 1)
    copied = rows[torch.randperm(1400, generator=g)[:200]]
    splits = [(r[:, :-1], r[:, 1:]) for r in (rows, copied)]
    assert findings(experiment(Letters(26, 26), tuple(splits), loss=words_loss), RULE) != []
