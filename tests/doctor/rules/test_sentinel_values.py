"""A code for 'unknown' is found, filled and undone; caps and zeros are left alone."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import (
    blobs,
    cnn,
    experiment,
    findings,
    images,
    mlp,
    regression,
    seen,
    waves,
)
from torch import Tensor, nn

from gipi.doctor.facts import Facts
from gipi.doctor.gaps import Fill
from gipi.doctor.rules.sentinel_values import (
    RULE,
    STEPS,
    confirm,
    drop,
    fill,
    sentinel,
    sentinels,
)


def coded(data: tuple[Tensor, Tensor], code: float) -> tuple[Tensor, Tensor]:
    X = data[0].clone()
    X[::12, 2] = code
    return X, data[1]


def test_a_code_is_named_filled_and_undone() -> None:
    train, val = blobs()
    exp = experiment(mlp(), (coded(train, -999.0), coded(val, -999.0)), epochs=6)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("sentinel_values", "problem", True)
    assert first.evidence["column 2"]["value"] == -999
    assert first.where == ("column 2",)
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["score"] > treatment.before["score"]
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp


def test_the_healthy_twin_caps_and_zeros_are_left_alone() -> None:
    train, val = blobs()
    assert findings(experiment(mlp(), (train, val)), RULE) == []
    capped = tuple((X.clamp(max=1.0), y) for X, y in (train, val))
    assert findings(experiment(mlp(), capped), RULE) == []
    spent = tuple((X.abs() * (X > 0.5), y) for X, y in (train, val))
    assert findings(experiment(mlp(), spent), RULE) == []


def test_a_code_among_targets_needs_a_yes() -> None:
    (X, y), val = regression()
    y = y.clone()
    y[::20] = -999
    exp = experiment(mlp(out=1), ((X, y), val))
    first = seen(exp, RULE).findings[0]
    assert first.where == ("target",)
    assert first.repairs[0].mode == "ask"
    assert drop(exp) == "took out 18 rows without a known target"
    assert float(exp.train[1].min()) > -10
    assert torch.is_tensor(exp.val[1])


def test_all_columns_at_once_find_what_one_by_one_is_found() -> None:
    g = torch.Generator().manual_seed(0)
    flat = torch.randn(300, 40, generator=g, dtype=torch.float64)
    for j, code in enumerate((-999.0, -9.0, -5.0, -4.0, -3.0, 0.0, 3.0, 4.0, 5.0, 9.0, 99.0)):
        flat[:: 5 + j, j] = code
    flat[:, 20:30] = flat[:, 20:30].round()
    flat[::7, 30:35] = torch.nan
    flat[::9, 33] = 99.0
    flat[:, 36] = torch.nan
    one_by_one = [sentinel(flat[:, j], j) for j in range(40)]
    found = sentinels(flat)
    assert found == [s for s in one_by_one if s is not None]
    assert {s.column for s in found} >= {0, 10, 33}


@pytest.mark.parametrize("first", [False, True])
def test_gaps_within_a_signal_are_no_padding(first: bool) -> None:
    """The value may stand in every column at once, or in the only one, and be read side by side."""

    def gaps(data: tuple[Tensor, Tensor], begin: slice | None) -> tuple[Tensor, Tensor]:
        X = data[0].clone()
        if begin is not None:
            X[::4, begin] = -999.0
        return (X.mT.contiguous() if first else X), data[1]

    def made(begin: slice | None, width: int):
        torch.manual_seed(0)
        read = nn.Conv1d(width, 8, 3) if first else nn.Sequential(nn.Flatten(), nn.LazyLinear(32))
        model = nn.Sequential(read, nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
        return experiment(model, tuple(gaps(d, begin) for d in waves(width=width)), epochs=8)

    for width in (1, 2):
        found = seen(made(slice(7, 10), width), RULE).findings
        assert [(f.code, f.confirmed) for f in found] == [("sentinel_values", True)]
        assert findings(made(slice(12, None), width), RULE) == []
        assert findings(made(None, width), RULE) == []


def squeezed(*, told: float, code: float = 9999.0):
    """Return rows whose last column matters little but for a code, standardised with the code."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(900, 4, generator=g)
    y = X[:, :3].sum(1) + told * (2 * X[:, 3]).sin() + 0.1 * torch.randn(900, generator=g)
    year = 1960 + 20 * X[:, 3]
    year[torch.rand(900, generator=g) < 0.05] = code
    X[:, 3] = (year - year.mean()) / year.std()
    return (X[:700], y[:700, None] / 2), (X[700:], y[700:, None] / 2)


def test_a_code_that_was_standardised_is_found_where_its_column_is_read_late() -> None:
    def findings_of(told: float):
        torch.manual_seed(0)
        return seen(experiment(mlp(4, 1), squeezed(told=told), lr=0.01, epochs=40), RULE).findings

    (found,) = findings_of(0.4)
    assert (found.severity, found.confirmed, found.where) == ("problem", True, ("column 3",))
    assert findings_of(0.0) == []


def test_several_codes_of_one_column_and_one_beside_grades_are_found_and_filled() -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.cat([12 + 3 * torch.randn(900, 1, generator=g).clamp(-2, 2),
                   torch.randint(1, 6, (900, 2), generator=g)], 1)  # fmt: skip
    y = (X - X.mean(0)) @ torch.tensor([0.3, 0.7, -0.6]) + 0.1 * torch.randn(900, generator=g)
    for i, code in enumerate((77.0, 88.0, 99.0)):
        X[i::25, 0] = code
        X[3 + i :: 50, 1] = 99.0
    torch.manual_seed(0)
    X = (X - X.mean(0)) / X.std(0)
    exp = experiment(mlp(3, 1), ((X[:700], y[:700, None]), (X[700:], y[700:, None])), epochs=30)
    (found,) = seen(exp, RULE).findings
    assert (found.confirmed, found.where) == (True, ("column 0", "column 1"))
    assert abs(found.evidence["column 0"]["share"] - 0.12) < 0.01
    fill(exp)
    assert (
        float(next(m for m in exp.model.modules() if isinstance(m, Fill))(X)[:, :2].abs().max()) < 3
    )


def test_whole_numbers_that_end_in_steps_have_no_codes() -> None:
    g = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.full((900,), 2.0), generator=g)
    grades = torch.randint(1, 6, (900,), generator=g).float()
    skewed = (2 * torch.randn(900, generator=g)).exp().round()
    assert sentinels(torch.stack([counts, grades, skewed, grades.square()], 1).double()) == []


def test_masked_pixels_of_images_are_named() -> None:
    train, val = images()

    def masked(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        X = data[0].clone()
        X[::2, :, 3:6, 4:7] = -20.0
        return X, data[1]

    torch.manual_seed(0)
    exp = experiment(cnn(), (masked(train), masked(val)), epochs=12)
    (found,) = seen(exp, RULE).findings
    assert (found.severity, found.confirmed) == ("problem", True)
    assert findings(experiment(cnn(), (train, val)), RULE) == []


def test_asking_again_keeps_to_what_can_be_afforded() -> None:
    torch.manual_seed(0)
    facts = Facts(experiment(mlp(4, 1), squeezed(told=0.4), lr=0.01, epochs=40), allowed=400)
    (finding,) = RULE.before(facts)
    confirm(facts, finding)
    assert 2 * STEPS + 8 < facts.passes <= 400


def test_the_border_of_pictures_is_no_code() -> None:
    train, val = images()

    def framed(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        X = 6 + 0.3 * data[0].clone()
        X[:, :, 0], X[:, :, -1], X[..., 0], X[..., -1] = 0.0, 0.0, 0.0, 0.0
        return X, data[1]

    assert findings(experiment(cnn(), (framed(train), framed(val))), RULE) == []
