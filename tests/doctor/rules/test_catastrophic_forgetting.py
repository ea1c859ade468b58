"""An old task that is lost is named and kept by replay; one that is kept is left alone."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, findings, mlp, seen
from torch.utils.data import DataLoader, TensorDataset

from gipi.doctor.copies import duplicate
from gipi.doctor.facts import Facts
from gipi.doctor.play import play
from gipi.doctor.rules.catastrophic_forgetting import (
    RULE,
    drawn,
    replay,
    replayed,
    score,
    slow_replay,
)


def after_an_old_task(seed: int):
    torch.manual_seed(seed)
    old, model = blobs(400, seed=100), mlp()
    play(experiment(model, old, epochs=6))
    return model, old[1]


@pytest.mark.parametrize("seed", range(2))
def test_a_lost_task_is_named_replayed_and_undone(seed) -> None:
    model, old = after_an_old_task(seed)
    exp = experiment(model, blobs(400), declared={"old_task": old}, epochs=8)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity) == ("catastrophic_forgetting", "problem")
    assert first.evidence["before"] > max(0.9, first.evidence["now"] + 0.05)
    treatment = diagnosis.repair()
    assert treatment is not None
    kept, lost = score(treatment.experiment, old), score(diagnosis.trained, old)
    assert kept is not None
    assert lost is not None
    assert kept[0] > 0.9  # of 160 rows about 0.98 were right before, and 0.5 to 0.65 are without it
    assert lost[0] < 0.75
    assert treatment.undo() is exp


def test_a_kept_task_is_left_alone() -> None:
    splits = blobs(400)
    exp = experiment(mlp(), splits, declared={"old_task": splits[1]}, epochs=3)
    assert findings(exp, RULE, train=True) == []
    assert findings(experiment(mlp(), splits, epochs=2), RULE, train=True) == []


def test_old_rows_may_come_in_a_loader() -> None:
    model, old = after_an_old_task(0)
    loader = DataLoader(TensorDataset(*old), 50)
    exp = experiment(model, blobs(400), declared={"old_task": loader}, epochs=8)
    (found,) = seen(exp, RULE, train=True).findings
    assert (found.code, found.severity) == ("catastrophic_forgetting", "problem")


def test_a_task_that_both_can_have_is_told_though_its_loss_is_slow_to_come_back() -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.cat([torch.randn(800, 6, generator=g), torch.zeros(800, 1)], 1)
    X[400:, 6] = 3.0
    y = (X[:, :1] * X[:, 1:2]).where(X[:, 6:] == 0, (2 * X[:, 2:3]).sin() - X[:, 1:2])
    torch.manual_seed(0)
    net = mlp(7, 1, 48)
    play(experiment(net, ((X[:300], y[:300]), None), epochs=30))
    new = (X[400:700], y[400:700]), (X[700:], y[700:])
    exp = experiment(net, new, declared={"old_task": (X[300:400], y[300:400])}, epochs=20)
    (found,) = seen(exp, RULE, train=True).findings
    assert (found.severity, found.confirmed) == ("problem", True)


def halves_of_the_classes():
    """Return a net that learned two of four classes, its rows, and the rows of the other two."""
    torch.manual_seed(0)
    model, splits = mlp(), blobs(800, seed=100)
    old, new = (
        tuple((X[chosen], y[chosen]) for X, y in splits for chosen in [(y < 2) == first])
        for first in (True, False)
    )
    play(experiment(model, old, epochs=8))
    return model, old[0], new


def test_after_its_repair_it_is_no_problem_any_more() -> None:
    model, old, new = halves_of_the_classes()
    exp = experiment(model, new, declared={"old_task": old}, epochs=8)
    diagnosis = seen(exp, RULE, train=True)
    assert [f.severity for f in diagnosis.findings] == ["problem"]
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.cured == ["catastrophic_forgetting"]
    assert "catastrophic_forgetting is gone" in treatment.grounds[0]
    replay(exp)
    assert replayed(Facts(exp)) == pytest.approx(0.2, abs=0.01)
    assert seen(exp, RULE, train=True).problems == []


def test_it_is_cured_only_where_the_old_task_is_done_as_before() -> None:
    model, old, new = halves_of_the_classes()
    exp = experiment(model, new, declared={"old_task": old}, epochs=8)
    (finding,) = seen(exp, RULE, train=True).findings
    assert finding.restored is not None
    twin = duplicate(exp)
    play(twin, quiet=True)
    assert finding.restored(exp, twin)[0]
    whole, said = finding.restored(twin, twin)
    now = score(twin, old)
    assert now is not None
    assert not whole
    assert said.startswith(f"{now[0]:.1%} of the old task's rows are answered rightly, ")


def test_few_old_rows_do_not_excuse_a_lost_task() -> None:
    model, old, new = halves_of_the_classes()
    (X, y), val = new
    few = (torch.cat([X, old[0][:8]]), torch.cat([y, y[:8]]))  # old rows with other answers
    exp = experiment(model, (few, val), declared={"old_task": old}, epochs=8)
    assert replayed(Facts(exp)) > 0.02
    (found,) = seen(exp, RULE, train=True).findings
    assert found.severity == "problem"
    assert found.step == exp.total_steps


def test_where_a_quarter_does_not_suffice_as_many_rows_come_at_a_lower_rate() -> None:
    model, old, new = halves_of_the_classes()
    exp = experiment(model, new, declared={"old_task": old}, epochs=8)
    (found,) = seen(exp, RULE, train=True).findings
    assert [r.change for r in found.repairs][:2] == [replay, slow_replay]
    rate, rows = exp.optimizer.param_groups[0]["lr"], len(exp.train[0])
    slow_replay(exp)
    assert exp.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * rate)
    assert len(exp.train[0]) == pytest.approx(2 * rows, abs=len(old[0]) / 2)


@pytest.mark.parametrize("seed", [2, 3])
def test_what_is_lost_beside_other_rows_of_the_old_task_is_the_price_of_both(seed) -> None:
    torch.manual_seed(seed)
    (X, y), held = blobs(1600, seed=100 + seed, apart=0.9)
    model = mlp()
    play(experiment(model, ((X, y), held), epochs=6))
    new, val = blobs(800, seed=seed, apart=0.9)
    both = (torch.cat([new[0], X]), torch.cat([new[1], y]))
    exp = experiment(model, (both, val), declared={"old_task": held}, epochs=4)
    before = score(exp, held)
    diagnosis = seen(exp, RULE, train=True)
    now = score(diagnosis.trained, held)
    assert before is not None
    assert now is not None
    assert before[0] - now[0] > max(0.05, 2 * before[1])  # as much as is named without old rows
    assert replayed(Facts(exp)) == 0
    assert diagnosis.findings == []


def test_few_old_rows_come_more_than_once() -> None:
    chosen, said = drawn(30, 90.4, 0)
    assert torch.bincount(chosen).tolist() == [3] * 30
    assert said == "30 rows, each 3 times,"
    chosen, said = drawn(100, 40.0, 0)
    assert len(chosen.unique()) == len(chosen) == 40
    assert said == "40 rows"


def test_places_of_one_row_go_together_in_the_noise_of_a_score() -> None:
    model = torch.nn.Embedding(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    X = torch.zeros(8, 5, dtype=torch.int64)
    y = X.clone()
    y[:4] = 1  # half of the rows are wrong at every place
    y[:, 4] = -100  # a place that nobody asks for
    exp = experiment(model, ((X, y), (X, y)))
    found = score(exp, (X, y))
    assert found is not None
    assert found[0] == pytest.approx(0.5)
    assert found[1] == pytest.approx((0.25 / 8) ** 0.5)
