"""A transform that destroys the signal is found and taken out, alone or within a chain."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits, make_classification
from tests.doctor.patients import blobs, cnn, experiment, findings, halves, images, mlp, seen
from torch import Tensor
from torch.optim import lr_scheduler

from gipi.doctor.drift import as_trained
from gipi.doctor.facts import Facts
from gipi.doctor.finding import Finding
from gipi.doctor.rules import augmentation_destroys_signal
from gipi.doctor.rules.augmentation_destroys_signal import IN_DOUBT, RULE, Chain, without_worst
from gipi.doctor.sheet import origin


def scatter(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    return flat[:, torch.randperm(flat.shape[1])].view_as(x)


def grain(x: Tensor) -> Tensor:
    return x + 0.05 * torch.randn_like(x)


def test_scattered_pixels_are_named_and_left_out() -> None:
    exp = experiment(cnn(), images(), transform=scatter, epochs=4)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == (
        "augmentation_destroys_signal", "problem", True)  # fmt: skip
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.experiment.transform is None
    assert treatment.undo() is exp


def test_the_harmful_step_of_a_chain_is_taken_out() -> None:
    exp = experiment(cnn(), images(), transform=Chain([grain, scatter]))
    assert without_worst(exp) == "took step 2 (scatter) out of the transform"
    assert exp.transform.transforms == [grain]


def test_rows_mixed_within_a_batch_are_named() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), transform=lambda x: x[torch.randperm(len(x))])
    assert findings(exp, RULE) == ["augmentation_destroys_signal"]


def test_mild_transforms_are_left_alone() -> None:
    assert findings(experiment(cnn(), images(), transform=grain), RULE) == []
    assert findings(experiment(mlp(), blobs(), transform=grain), RULE) == []
    assert findings(experiment(cnn(), images()), RULE) == []


def erased(share: float):
    return lambda x: x * (torch.rand(x.shape) >= share)


def clouds():
    """Return five classes in 16 columns that depend on one another."""
    X, y = make_classification(
        1000, 16, n_informative=8, n_redundant=4, n_classes=5, n_clusters_per_class=1,
        class_sep=1.4, random_state=0,
    )  # fmt: skip
    X = torch.as_tensor(X).float()
    return halves((X - X.mean(0)) / X.std(0), torch.as_tensor(y).long(), 0.75)


def scheduled(transform, schedule: str):
    torch.manual_seed(0)
    exp = experiment(mlp(16, 5, 48), clouds(), transform=transform, lr=4e-3, epochs=8)
    steps = exp.total_steps
    made = {
        "constant": lambda: None,
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(exp.optimizer, steps),
        "one cycle": lambda: lr_scheduler.OneCycleLR(exp.optimizer, 8e-3, total_steps=steps),
    }
    exp.scheduler, exp.scheduler_every = made[schedule](), "step"
    return exp


SCHEDULES = ("constant", "cosine", "one cycle")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_a_run_learns_in_spite_of_its_transform_is_named_at_its_end(schedule: str) -> None:
    exp = scheduled(erased(0.9), schedule)
    assert findings(exp, RULE) == []  # a short training gets somewhere too
    first = seen(exp, RULE, train=True).findings[0]
    assert (first.severity, first.confirmed, first.phase) == ("problem", True, "epoch")
    assert first.evidence["loss_going_on_without"] < first.evidence["loss_going_on"]


def test_what_only_training_rows_gain_without_a_transform_is_a_hint() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(16, 5, 48), clouds(), transform=erased(0.9), lr=4e-3, epochs=8)
    exp.val = None

    def at_the_end(facts, finding):
        if facts.start is not None:
            return RULE.confirm(facts, finding)
        facts.notes[IN_DOUBT] = finding
        return None

    found = seen(exp, replace(RULE, confirm=at_the_end), train=True).findings
    assert [(f.severity, f.confirmed) for f in found] == [("hint", True)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_an_augmentation_costs_little_is_left_alone_to_the_end(schedule: str) -> None:
    for transform in (erased(0.3), grain):
        assert findings(scheduled(transform, schedule), RULE, train=True) == []


def turned(x: Tensor) -> Tensor:
    quarter = torch.randint(4, (len(x),)).tolist()
    return torch.stack([row.rot90(k, (1, 2)) for row, k in zip(x, quarter, strict=True)])


def moved(x: Tensor) -> Tensor:
    by = torch.randint(-1, 2, (len(x),)).tolist()
    return torch.stack([row.roll(k, 2) for row, k in zip(x, by, strict=True)])


@pytest.mark.parametrize(("transform", "said"), [(turned, ["hint"]), (moved, [])])
def test_digits_that_stand_on_their_head_are_worth_a_word(transform, said) -> None:
    found = seen(digits(transform, epochs=5), RULE, train=True).findings
    assert [f.severity for f in found] == said


def test_what_a_net_that_learns_no_more_misses_is_a_problem() -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(4, (900,), generator=g)
    bright = torch.zeros(8, 8)
    bright[:, :4] = 1.0
    X = torch.stack([bright.rot90(int(k)) for k in y]) + torch.randn(900, 8, 8, generator=g)

    def mirrored(x: Tensor) -> Tensor:  # left is as often right
        return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)

    def run(epochs: int):
        torch.manual_seed(0)
        split = halves(X[:, None], y)
        exp = experiment(cnn(out=4), split, transform=mirrored, lr=3e-3, epochs=epochs)
        return [(f.severity, f.confirmed, f.phase) for f in seen(exp, RULE, train=True).findings]

    assert run(epochs=2) == [("hint", True, "epoch")]
    assert run(epochs=12) == [("problem", True, "epoch")]


def digits(transform, epochs: int):
    X, y = load_digits(return_X_y=True)
    X, y = torch.as_tensor(X).float().view(-1, 1, 8, 8) / 16, torch.as_tensor(y).long()
    torch.manual_seed(0)
    split = halves(X[:900], y[:900])
    return experiment(cnn(out=10), split, transform=transform, lr=3e-3, epochs=epochs)


def test_a_look_at_random_rows_is_the_same_each_time() -> None:
    looks = []
    for _ in range(2):
        exp = experiment(mlp(), blobs(), transform=lambda x: x + torch.randn_like(x))
        facts = Facts(exp)
        looks.append(as_trained(facts, origin(facts).X))
    assert torch.equal(*looks)


def test_a_run_that_ends_far_below_a_simple_learner_is_worth_the_question(monkeypatch) -> None:
    start = Facts(experiment(mlp(), blobs(200), epochs=40))
    short = Facts(experiment(mlp(), blobs(200), epochs=4))
    found = Finding("augmentation_destroys_signal", "", "")
    assert RULE.cost is not None
    monkeypatch.setattr(augmentation_destroys_signal, "_beaten", lambda _: True)
    assert RULE.cost(Facts(short.exp, start=short), found) > short.exp.total_steps
    for beaten, passes in ((True, 0), (False, 2 * (start.exp.total_steps // 4) + 6)):
        monkeypatch.setattr(augmentation_destroys_signal, "_beaten", lambda _, b=beaten: b)
        assert RULE.cost(Facts(start.exp, start=start), found) == passes
        assert RULE.cost(start, found) == RULE.passes
    start.passes = start.exp.total_steps  # all was spent before
    monkeypatch.setattr(augmentation_destroys_signal, "_beaten", lambda _: True)
    assert RULE.cost(Facts(start.exp, start=start), found) > 0


def glyphs(rows=1200):
    """Return a hook, the same upside down, and a ring, anywhere on noise."""
    g = torch.Generator().manual_seed(0)
    hook = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]])
    ring = torch.ones(5, 4)
    ring[1:4, 1:3] = 0
    marks = torch.stack([hook, hook.flip(0, 1), ring])
    y = torch.randint(3, (rows,), generator=g)
    X = 0.3 * torch.randn(rows, 1, 12, 12, generator=g)
    for i, (a, b) in enumerate(torch.randint(8, (rows, 2), generator=g).tolist()):
        X[i, 0, a : a + 5, b : b + 4] += 2 * marks[y[i]]
    return halves(X, y, 0.75)


def upside_down(x: Tensor) -> Tensor:
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(2, 3), x)


def of_glyphs(transform, *, epochs=10, lr=5e-3):
    torch.manual_seed(0)
    return experiment(cnn(out=3), glyphs(), transform=transform, lr=lr, epochs=epochs)


def test_what_no_simple_learner_can_judge_is_named_where_the_net_confuses_two_classes() -> None:
    diagnosis = seen(of_glyphs(upside_down), RULE, train=True)
    (found,) = diagnosis.findings
    assert (found.severity, found.confirmed, found.phase) == ("problem", True, "epoch")
    assert found.evidence["told_in_worst_class"] < 0.6
    assert [r.name for r in found.repairs] == ["train without the transform"]
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.experiment.transform is None


def test_of_a_chain_the_step_is_named_that_confuses_the_net() -> None:
    exp = of_glyphs(Chain([grain, upside_down, moved]))
    (found,) = seen(exp, RULE, train=True).findings
    assert found.repairs[0].edit == "take upside_down out of the transform"
    exp = of_glyphs(Chain([grain, upside_down, moved]))
    assert found.repairs[0].change is not None
    assert found.repairs[0].change(exp) == "took step 2 (upside_down) out of the transform"
    assert exp.transform.transforms == [grain, moved]


def noisy_half(exp):
    X, y = exp.train
    wrong = torch.rand(len(y), generator=torch.Generator().manual_seed(1)) < 0.5
    exp.train = X, torch.where(wrong, y.roll(7), y)
    exp.val = exp.val[0], exp.val[1].roll(1)
    return exp


@pytest.mark.parametrize("transform", [moved, grain, lambda x: (0.7 + torch.rand(1)) * x])
def test_what_changes_nothing_that_matters_is_left_alone_however_the_run_ends(transform) -> None:
    assert findings(of_glyphs(transform), RULE, train=True) == []
    assert findings(of_glyphs(transform, epochs=2), RULE, train=True) == []  # had no time
    assert findings(of_glyphs(transform, lr=1e-5), RULE, train=True) == []  # learned nothing
    assert findings(noisy_half(of_glyphs(transform)), RULE, train=True) == []  # nobody could


def test_mirrored_rings_are_left_alone() -> None:
    (X, y), (V, v) = glyphs()
    splits = (X, (y == 2).long()), (V, (v == 2).long())
    torch.manual_seed(0)
    exp = experiment(cnn(out=2), splits, transform=upside_down, lr=5e-3, epochs=10)
    assert findings(exp, RULE, train=True) == []


def test_the_question_is_dropped_where_it_would_cost_too_much() -> None:
    found = Finding("augmentation_destroys_signal", "", "", evidence={"told_in_worst_class": 0.4})
    assert RULE.weak is not None
    assert RULE.weak(found)
    assert not RULE.weak(replace(found, evidence={}))
