"""Validation rows that were prepared differently are found and brought in line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.doctor.patients import blobs, cnn, experiment, findings, images, mlp, seen
from torch import Tensor, nn

from gipi.doctor.affine import affine_to_training
from gipi.doctor.drift import domain, is_repeatable, mismatch
from gipi.doctor.facts import Facts
from gipi.doctor.rules.preprocessing_mismatch import RULE, align


def test_another_scale_is_named_brought_in_line_and_undone() -> None:
    torch.manual_seed(0)
    train, (V, v) = blobs()
    exp = experiment(mlp(), (train, (20 * V + 7, v)), epochs=4)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == (
        "preprocessing_mismatch",
        "problem",
        True,
    )
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.5 * treatment.before["loss"]
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp


def test_a_transform_that_only_prepares_moves_into_the_model() -> None:
    def prepare(x: Tensor) -> Tensor:
        return (x / 255 - 0.2) / 0.3

    bright = tuple((X * 255, y) for X, y in images())
    exp = experiment(cnn(), bright, transform=prepare)
    assert findings(exp, RULE) == ["preprocessing_mismatch"]
    said = seen(exp, RULE).findings[0].repairs[0].change(exp)
    assert said == "the transform prepares inputs within the model now, for every split"
    assert exp.transform is None
    assert findings(exp, RULE) == []


def test_inverted_images_are_named() -> None:
    train, (V, v) = images()
    assert findings(experiment(cnn(), (train, (1 - V, v)), lr=0.003), RULE) == [
        "preprocessing_mismatch"
    ]


def test_columns_that_were_standardised_in_one_split_alone_are_named() -> None:
    scale = torch.linspace(1.5, 3.0, 8)
    (X, y), (V, v) = ((X * scale - 4, y) for X, y in blobs())
    mean, std = X.mean(0), X.std(0)
    exp = experiment(mlp(), (((X - mean) / std, y), (V, v)))
    assert findings(exp, RULE) == ["preprocessing_mismatch"]
    exp = experiment(mlp(), (((X - mean) / std, y), ((V - mean) / std, v)))
    assert findings(exp, RULE) == []


def test_healthy_twins_are_left_alone() -> None:
    assert findings(experiment(mlp(), blobs()), RULE) == []
    assert findings(experiment(cnn(), images()), RULE) == []
    bright = tuple((X * 255, y) for X, y in images())
    assert findings(experiment(cnn(norm=True), bright), RULE) == []


def test_one_scale_for_all_columns_is_told_as_one() -> None:
    g = torch.Generator().manual_seed(0)
    spread = torch.logspace(-3, 0, 16)
    X, y = torch.rand(600, 16, generator=g) * spread, torch.randint(4, (600,), generator=g)
    V = X[500:]
    exp = experiment(mlp(16), ((X[:500], y[:500]), (255 * V + 3, y[500:])))
    back = affine_to_training(Facts(exp))(255 * V + 3)
    factor = (back[1:] - back[:-1]) / (V[1:] - V[:-1])
    assert float(factor.std()) < 1e-2
    assert abs(float(factor.mean()) - 1) < 0.1
    each = spread.flip(0)
    exp = experiment(mlp(16), ((X[:500], y[:500]), (V * each, y[500:])))
    back = affine_to_training(Facts(exp))(V * each)
    assert torch.allclose(back.std(0), X[:500].std(0), rtol=1e-3)


def test_targets_of_what_gives_back_its_input_are_brought_in_line_where_they_are_inputs() -> None:
    (X, _), (V, _) = blobs()
    for given in (20 * V + 7, V):
        exp = experiment(mlp(out=8), ((X, X), (20 * V + 7, given)), loss=nn.MSELoss(), epochs=4)
        (found,) = seen(exp, RULE).findings
        found.repairs[0].change(exp)
        apart = (exp.val[0] - exp.val[1]).square().mean()
        assert float(apart) < 0.02 * float(exp.val[1].var())
        assert 0.8 < float(exp.val[1].std() / V.std()) < 1.2


def test_targets_that_the_loss_refuses_once_in_line_are_judged_as_they_are() -> None:
    torch.manual_seed(0)
    X = torch.rand(400, 8)
    V = X[300:] / 4
    V[0] = 1.0
    net = nn.Sequential(mlp(out=8), nn.Sigmoid())
    exp = experiment(net, ((X[:300], X[:300]), (V, V.clone())), loss=nn.BCELoss())
    facts = Facts(exp)
    assert list(RULE.before(facts)) != []
    assert float(affine_to_training(facts)(V).max()) > 1
    assert seen(exp, RULE).broken == {}


def test_one_column_on_another_scale_is_brought_in_line_whatever_the_others_say() -> None:
    torch.manual_seed(0)
    X = torch.randn(600, 16)
    X[:, 3] *= 0.01
    V = X[400:].clone()
    V[:, 3] *= 20
    exp = experiment(mlp(16, 1), ((X[:400], X[:400, :1]), (V, X[400:, :1])), loss=nn.MSELoss())
    in_line = affine_to_training(Facts(exp))(V)
    assert float(in_line[:, 3].std()) < 0.02


def test_random_numbers_of_a_transform_are_not_taken_from_the_run() -> None:
    exp = experiment(mlp(), blobs(), transform=lambda x: x + np.random.rand())  # noqa: NPY002
    old = np.random.get_state()[2]  # noqa: NPY002
    assert not is_repeatable(Facts(exp), blobs()[0][0])
    assert np.random.get_state()[2] == old  # noqa: NPY002


def test_channels_in_another_order_are_named_where_every_channel_has_the_same_picture() -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (500,), generator=g)
    hue = torch.tensor([[1.2, 0.2, 0.2], [0.9, 0.9, 0.1], [0.2, 0.6, 0.9]])[y]
    bright = 0.7 + 0.6 * torch.rand(500, 1, 1, 1, generator=g)
    ramp = torch.linspace(0.0, 2.0, 6)[:, None] + torch.linspace(0, 1, 6)
    X = hue[:, :, None, None] * bright * ramp + 0.2 * torch.randn(500, 3, 6, 6, generator=g)
    train, val = (X[:350], y[:350]), (X[350:], y[350:])
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    assert seen(experiment(net, (train, val)), RULE).findings == []
    exp = experiment(net, (train, (val[0].flip(1), val[1])), lr=3e-3, epochs=8)
    (found,) = seen(exp, RULE).problems
    assert "channels in reverse order" in found.message
    align(exp)
    assert torch.equal(exp.val[0], val[0])


def of_digits(rows: int = 500) -> tuple[Tensor, Tensor]:
    """Return pictures of ink on paper, whose edge is always paper, and their classes."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(4, (rows,), generator=g)
    X = torch.zeros(rows, 1, 8, 8)
    X[:, :, 2:6, 2:6] = (16 * torch.rand(4, 1, 4, 4, generator=g))[y].round()
    X[:, :, 2:6, 2:6] += torch.randint(-4, 5, (rows, 1, 4, 4), generator=g)
    return X.clamp(0, 16), y


@pytest.mark.parametrize("wrong", [lambda V: V - 0.3, lambda V: 0.7 - V / 16])
def test_paper_and_ink_are_brought_in_line_exactly(wrong) -> None:
    X, y = of_digits()
    right = X / 16 - 0.3
    torch.manual_seed(0)
    exp = experiment(cnn(), ((right[:360], y[:360]), (wrong(X[360:]), y[360:])))
    (found,) = seen(exp, RULE).findings
    found.repairs[0].change(exp)
    assert torch.allclose(exp.val[0], right[360:], atol=1e-5)
    told = domain(Facts(exp))
    assert told is not None
    assert told[0] < 0.7


def test_a_class_of_a_tenth_of_the_rows_has_no_other_scale_by_a_few_rows() -> None:
    g = torch.Generator().manual_seed(0)
    X, y = torch.randn(800, 6, generator=g), torch.randint(2, (800,), generator=g)
    X[:, 5] = 0
    X[:65, 5] = 1.0  # 13 % of 500, 10 % of 300
    X[500:530, 5] = 1.0
    facts = Facts(experiment(mlp(6, 2), ((X[:500], y[:500]), (X[500:], y[500:]))))
    assert mismatch(facts) is None
    X[500:560, 5] = 12.0
    facts = Facts(experiment(mlp(6, 2), ((X[:500], y[:500]), (X[500:], y[500:]))))
    assert mismatch(facts) is not None


def told_by_each(seed: int = 0) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return standardised columns of equal marginals, each of which says something else."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(900, 5, generator=g)
    y = X @ torch.tensor([2.0, 1.0, 0.5, -1.5, 0.0]) + 0.3 * torch.randn(900, generator=g)
    return (X[:600], y[:600, None] / 3), (X[600:], y[600:, None] / 3)


def exchanged(x: Tensor) -> Tensor:
    return x[:, [1, 3, 2, 0, 4]]


def turned(x: Tensor) -> Tensor:
    return x * torch.tensor([-1.0, 1, 1, -1, 1])


def another_unit(x: Tensor) -> Tensor:
    return torch.cat([1.8 * x[:, :1] + 2, x[:, 1:]], 1)


@pytest.mark.parametrize("wrong", [exchanged, turned, another_unit])
def test_columns_in_another_order_sign_or_unit_are_told_by_what_they_say(wrong) -> None:
    train, (V, v) = told_by_each()
    torch.manual_seed(0)
    exp = experiment(mlp(5, 1), (train, (wrong(V), v)), epochs=20)
    (found,) = seen(exp, RULE).findings
    assert (found.severity, found.confirmed) == ("problem", True)
    assert found.evidence["explained_as_is"] < 0.5
    assert found.evidence["explained_in_line"] > 0.9
    align(exp)
    assert isinstance(exp.val, tuple)
    assert float((exp.val[0] - V).abs().mean()) < 0.15
    assert findings(exp, RULE) == findings(experiment(mlp(5, 1), told_by_each()), RULE) == []


def test_rows_that_lie_elsewhere_are_no_other_columns() -> None:
    train, (V, v) = told_by_each()
    beyond = V.sum(1) > 1
    exp = experiment(mlp(5, 1), (train, (V[beyond] + 1.5, v[beyond])), epochs=20)
    assert findings(exp, RULE) == []


def test_series_that_run_backwards_in_validation_are_named() -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(2, (500,), generator=g)
    at = torch.where(y == 0, 4.0, 11.0)[:, None] + torch.randn(500, 1, generator=g)
    X = (-((torch.arange(16) - at) ** 2) / 4).exp() + 0.2 * torch.randn(500, 16, generator=g)
    X = torch.stack([X, torch.randn(500, 16, generator=g)], 2)
    torch.manual_seed(0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(32, 2))
    exp = experiment(made, ((X[:300], y[:300]), (X[300:].flip(1), y[300:])))
    (found,) = seen(exp, RULE).findings
    assert found.message.startswith("series run backwards")
    align(exp)
    assert torch.equal(exp.val[0], X[300:])
