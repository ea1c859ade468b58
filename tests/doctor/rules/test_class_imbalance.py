"""A rare class that the net gives up is found and weighted; one that it finds is left alone."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, findings, mlp, seen
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from gipi.doctor.experiment import Experiment
from gipi.doctor.facts import Facts
from gipi.doctor.hits import Hits, at_most, raised
from gipi.doctor.look import LEAST_PASSES
from gipi.doctor.proof import compare
from gipi.doctor.rules import class_imbalance
from gipi.doctor.rules.class_imbalance import RECALL, RULE, Told, recalls, weigh

RARE = {"classes": 2, "weights": [0.97, 0.03]}


def test_a_class_that_is_given_up_is_named_weighted_and_undone() -> None:
    exp = experiment(mlp(out=2), blobs(1500, apart=0.5, **RARE), epochs=5)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("class_imbalance", "problem", True)
    assert first.evidence["mean_recall_weighted"] > first.evidence["mean_recall_as_is"]
    treatment = diagnosis.repair()
    assert treatment is not None
    assert float(treatment.experiment.loss.weight[1]) > 10
    assert findings(treatment.experiment, RULE, train=True) == []
    assert treatment.undo() is exp


def test_a_rare_class_that_is_found_is_left_alone() -> None:
    exp = experiment(mlp(out=2), blobs(1500, apart=2.0, **RARE), epochs=8)
    assert findings(exp, RULE, train=True) == []


def test_what_was_weighted_or_declared_is_left_alone() -> None:
    data = blobs(800, apart=0.5, **RARE)
    weights = nn.CrossEntropyLoss(torch.tensor([1.0, 30.0]))
    assert findings(experiment(mlp(out=2), data, loss=weights, epochs=2), RULE, train=True) == []
    known = experiment(mlp(out=2), data, epochs=2, declared={"imbalance": True})
    assert findings(known, RULE, train=True) == []


def test_one_output_is_weighted_too() -> None:
    data = tuple((X, y[:, None].float()) for X, y in blobs(800, apart=0.5, **RARE))
    exp = experiment(mlp(out=1), data, loss=nn.BCEWithLogitsLoss())
    before = exp.loss
    weigh(exp)
    assert float(exp.loss.positive) > 5 * float(exp.loss.negative)
    assert exp.judge is before


def test_few_rare_rows_of_validation_are_joined_by_those_of_training() -> None:
    facts = Facts(experiment(mlp(out=2), blobs(600, **RARE)))

    def hits(split: str, was: int, now: int, rows: int) -> tuple[Hits, Hits]:
        label = torch.tensor([1] * rows + [0] * 200)
        told = [torch.tensor([1.0] * n + [0.0] * (rows - n) + [1.0] * 200) for n in (was, now)]
        return Hits(split, label, told[0]), Hits(split, label, told[1])

    val, train = hits("val", 2, 4, 6), hits("train", 2, 7, 10)
    assert raised([val[0]], [val[1]], facts) is None
    both = raised([val[0], train[0]], [val[1], train[1]], facts)
    assert both is not None
    assert both["mean_recall_as_is"] == 0.5 * (1 + 4 / 16)


def test_weights_are_judged_by_all_classes_alike() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(out=2), blobs(1500, apart=0.5, **RARE), epochs=5)
    diagnosis = seen(exp, RULE, train=True)
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] > treatment.before["loss"]  # as it was asked
    assert "every class weighing alike" in treatment.grounds[0]
    measure = diagnosis.findings[0].repairs[0].measure
    assert measure is not None
    assert compare(diagnosis.trained, treatment.experiment, measure=measure).gain > 0
    backwards = compare(treatment.experiment, diagnosis.trained, measure=measure)
    assert not backwards.holds("not worse")


def rows_of_two(split: str, rare: tuple[int, int], usual: tuple[int, int]) -> Hits:
    label = torch.tensor([1] * rare[1] + [0] * usual[1])
    hit = torch.cat([(torch.arange(n) < found).double() for found, n in (rare, usual)])
    return Hits(split, label, hit)


def test_fewer_hits_than_others_have_are_told_from_chance(monkeypatch) -> None:
    facts = Facts(experiment(mlp(out=2), blobs(600, **RARE)))
    rare = torch.tensor([False, True])
    for val, expected in (((6, 9), "val"), ((8, 9), None), ((1, 4), "val"), ((1, 2), None)):
        there = rows_of_two("val", val, (126, 127))
        monkeypatch.setattr(class_imbalance, "hits_of", lambda *_, there=there: [there])
        said = recalls(facts, rare)
        assert (said and said.split) == expected
    two = [rows_of_two("val", (2, 2), (99, 99)), rows_of_two("train", (20, 40), (490, 500))]
    monkeypatch.setattr(class_imbalance, "hits_of", lambda *_: two)
    assert recalls(facts, rare) == Told("train", 1, 0.5, 0.98)


def test_one_class_in_many_that_is_given_up_is_told_by_itself(monkeypatch) -> None:
    weights = [0.9, *[0.02] * 5]
    facts = Facts(experiment(mlp(out=6), blobs(1500, 6, weights=weights)))
    rare = torch.tensor([False] + [True] * 5)

    def there(*found: int) -> Hits:
        label = torch.tensor([0] * 200 + [c for c in range(1, 6) for _ in range(12)])
        hit = torch.cat([(torch.arange(200) < 180).double(),
                         *((torch.arange(12) < n).double() for n in found)])  # fmt: skip
        return Hits("val", label, hit)

    monkeypatch.setattr(class_imbalance, "hits_of", lambda *_: [there(12, 12, 3, 12, 12)])
    assert recalls(facts, rare) == Told("val", 3, 0.25, 0.9)
    # One class in five has so few by chance in one of fifteen draws.
    monkeypatch.setattr(class_imbalance, "hits_of", lambda *_: [there(8, 8, 8, 8, 8)])
    assert recalls(facts, rare) is None


def test_what_few_rows_cannot_prove_is_a_hint(monkeypatch) -> None:
    exp = experiment(mlp(out=2), blobs(1500, apart=0.5, **RARE), epochs=3)
    monkeypatch.setattr(class_imbalance, "raised", lambda *_, **__: None)
    first = seen(exp, RULE, train=True).findings[0]
    assert (first.severity, first.confirmed, first.repairs) == ("hint", False, ())


def test_few_hits_have_the_probability_of_coins() -> None:
    assert abs(at_most(1, 3, 0.5) - 0.5) < 1e-12
    assert 0 < at_most(4000, 10_000, 0.5) < 1e-9


def one_rare_row_of_validation(apart: float, *, seed: int = 3, batch_size: int = 64) -> Experiment:
    torch.manual_seed(0)
    train, (V, v) = blobs(1500, apart=apart, seed=seed, **RARE)
    keep = (v == 0) | ((v == 1).cumsum(0) <= 1)
    splits = train, (V[keep], v[keep])
    return experiment(mlp(out=2), splits, epochs=12, batch_size=batch_size)


def test_where_validation_holds_no_rare_rows_a_copy_is_asked_about_rows_left_out() -> None:
    diagnosis = seen(one_rare_row_of_validation(1.5), RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("class_imbalance", "problem", True)
    assert first.evidence["recall_rare"] < RECALL * first.evidence["recall_others"]
    assert "a copy never saw" in first.message
    assert diagnosis.passes < LEAST_PASSES


@pytest.mark.parametrize("cycle", [False, True])
def test_a_rare_class_that_a_copy_tells_is_not_given_up(*, cycle: bool) -> None:
    easy = one_rare_row_of_validation(2.0, seed=4)
    if cycle:
        easy.scheduler = OneCycleLR(easy.optimizer, 0.03, total_steps=easy.total_steps)
        easy.scheduler_every = "step"
    diagnosis = seen(easy, RULE, train=True)
    assert diagnosis.findings == []
    assert diagnosis.passes > easy.total_steps  # the copy was asked


def test_what_no_copy_can_be_asked_about_is_not_said() -> None:
    long = one_rare_row_of_validation(1.5, batch_size=16)
    diagnosis = seen(long, RULE, train=True)
    assert (diagnosis.findings, long.total_steps) == ([], 684)
    assert diagnosis.passes < 100
    by_epoch = one_rare_row_of_validation(1.5)
    by_epoch.scheduler = CosineAnnealingLR(by_epoch.optimizer, 12)
    diagnosis = seen(by_epoch, RULE, train=True)
    assert (diagnosis.findings, diagnosis.passes < 100) == ([], True)
