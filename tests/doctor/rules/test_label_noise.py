"""Wrong labels are told from classes that meet."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import (
    blobs,
    cnn,
    experiment,
    findings,
    halves,
    mlp,
    seen,
    shapes,
)
from torch import nn

from gipi.doctor.facts import Facts
from gipi.doctor.passed_off import one_way
from gipi.doctor.rules.label_noise import RULE, _even, leave_out, smooth, wrong_of_two
from gipi.doctor.sheet import linear_answer, sheet


def wrong(data, share: float, classes: int = 4, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    y = data[1].clone()
    hit = torch.rand(len(y), generator=g) < share
    y[hit] = (y[hit] + torch.randint(1, classes, (int(hit.sum()),), generator=g)) % classes
    return data[0], y


def test_wrong_labels_in_both_splits_are_named_and_left_to_a_person() -> None:
    train, val = blobs(1200)
    noisy = wrong(train, 0.25)
    exp = experiment(mlp(), (noisy, wrong(val, 0.25, seed=1)), epochs=6)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity) == ("label_noise", "problem")
    changed = noisy[1] != train[1]
    assert float(changed[list(first.rows)].double().mean()) > 0.9
    assert 0.15 < first.evidence["share"] < 0.35
    assert diagnosis.repair() is None
    assert smooth(exp) == "labels are smoothed by 0.1"
    leave_out(exp)
    assert len(exp.train[0]) < 720


def test_wrong_labels_of_few_rows_are_a_hint() -> None:
    torch.manual_seed(0)
    first = seen(experiment(mlp(10, 2), two_kinds(0.25, rows=500), epochs=6), RULE, train=True)
    assert [f.severity for f in first.findings] == ["hint"]
    for seed in range(3):
        clean = experiment(mlp(10, 2), two_kinds(0.0, seed, rows=500), epochs=6)
        assert findings(clean, RULE, train=True) == []


def test_wrong_labels_of_images_that_pixels_do_not_tell_are_named() -> None:
    train, val = shapes(1000, 12, share=0.7)
    for share, found in ((0.3, [RULE.code]), (0.0, [])):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
                            nn.Linear(16, 4))  # fmt: skip
        exp = experiment(net, (wrong(train, share), wrong(val, share, seed=1)), epochs=12)
        assert findings(exp, RULE, train=True) == found


def test_a_net_that_knows_wrong_labels_by_heart_still_speaks_against_new_ones() -> None:
    train, val = shapes(1000, 12, share=0.7)
    for share, found in ((0.3, [RULE.code]), (0.0, [])):
        torch.manual_seed(0)  # convolutions that end in a table of places learn rows by heart
        exp = experiment(cnn(), (wrong(train, share), wrong(val, share, seed=1)), epochs=8, lr=3e-3)
        assert findings(exp, RULE, train=True) == found


def test_wrong_labels_of_training_rows_alone_are_named() -> None:
    train, val = blobs(1000)
    exp = experiment(mlp(), (wrong(train, 0.2), val), epochs=4)
    assert findings(exp, RULE, train=True) == ["label_noise"]


def test_classes_that_meet_and_clean_ones_are_left_alone() -> None:
    for apart in (0.4, 0.8, 2.0, 6.0):
        exp = experiment(mlp(), blobs(1000, apart=apart), epochs=4)
        assert findings(exp, RULE, train=True) == []


def two_kinds(share: float, seed: int = 0, rows: int = 1500):
    """Return two classes that a line divides, a share of them wrong."""
    g = torch.Generator().manual_seed(seed)
    X, w = torch.randn(rows, 10, generator=g), torch.randn(10, generator=g)
    data = halves(X, (X @ w > 0).long(), 0.66)
    return tuple(wrong(pair, share, classes=2, seed=seed + i) for i, pair in enumerate(data))


def test_a_fifth_of_two_classes_wrong_is_told_from_classes_that_meet() -> None:
    torch.manual_seed(0)
    first = seen(experiment(mlp(10, 2), two_kinds(0.2), epochs=6), RULE, train=True).findings[0]
    assert (first.code, first.severity) == ("label_noise", "problem")
    assert 0.15 < first.evidence["share"] < 0.3
    for apart in (0.15, 0.3):
        meet = experiment(mlp(10, 2), blobs(1500, 2, 10, apart=apart), epochs=6)
        assert findings(meet, RULE, train=True) == []


def test_wrong_labels_stay_where_answers_are_sure() -> None:
    g = torch.Generator().manual_seed(0)
    score = 3 * torch.randn(8000, generator=g)
    label = (torch.rand(8000, generator=g) < score.sigmoid()).long()
    said = torch.stack([-score, score], 1) / 7
    assert wrong_of_two(said, label).gain < 4
    for share in (0.1, 0.3):
        told = wrong_of_two(said, wrong((said, label), share, classes=2, seed=1)[1])
        assert abs(told.share - share) < 0.06
        assert told.gain > 9


def clouds_with_tails(seed: int, rows: int = 1600, width: int = 8):
    """Return two clean classes, each a multivariate t distribution with two degrees of freedom."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (rows,), generator=g)
    centre = torch.randn(width, generator=g)
    z = torch.randn(rows, width, generator=g)
    z = z / torch.randn(rows, 2, generator=g).square().mean(1, keepdim=True).sqrt()
    return halves(z + (2.0 * y - 1)[:, None] * centre / centre.norm(), y, 0.66)


def test_errors_of_long_tails_grow_with_the_size_of_rows_and_wrong_labels_do_not() -> None:
    for data, even in (
        (clouds_with_tails(0), False),
        (clouds_with_tails(1), False),
        (two_kinds(0.28), True),
    ):
        facts = Facts(experiment(mlp(data[0][0].shape[1], 2), data))
        train = sheet(facts)
        assert train is not None
        assert _even(linear_answer(facts).told_nk, train) == even


def test_two_clean_classes_with_long_tails_are_left_alone() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(8, 2), clouds_with_tails(0), epochs=4)
    assert seen(exp, RULE, train=True).problems == []


def one_kind(data, share: float, seed: int = 0):
    """Return rows of which some of class 1 were given class 0."""
    hit = torch.rand(len(data[1]), generator=torch.Generator().manual_seed(seed)) < share
    return data[0], torch.where(hit & (data[1] == 1), 0, data[1])


def test_one_kind_of_rows_that_is_given_as_another_is_hinted_at() -> None:
    for seed in range(3):
        train, val = blobs(1200, apart=3.0, seed=seed)
        for share, found in ((0.4, ["hint"]), (0.0, [])):
            torch.manual_seed(seed)
            exp = experiment(mlp(), (one_kind(train, share), one_kind(val, share, 1)), epochs=6)
            told = seen(exp, RULE, train=True).findings
            assert [f.severity for f in told] == found
            if told:
                assert told[0].where == ("class 1", "class 0")
                assert bool((train[1][list(told[0].rows)] == 1).double().mean() > 0.9)


def test_classes_that_meet_and_classes_that_are_the_same_are_no_labels_of_one_kind() -> None:
    for seed in range(3):
        for near in (0.0, 1.0, 2.0):  # how far the clouds of class 1 and class 0 are apart
            train, val = blobs(1000, seed=seed)
            centre = [train[0][train[1] == k].mean(0) for k in (0, 1)]
            moved = near * (centre[0] - centre[1]) / (centre[0] - centre[1]).norm()
            splits = tuple(
                (torch.where((y == 1)[:, None], X - centre[1] + centre[0] + moved, X), y)
                for X, y in (train, val)
            )
            torch.manual_seed(seed)
            assert findings(experiment(mlp(), splits, epochs=6), RULE, train=True) == []


def pairs_given(data, pairs, share: float, seed: int = 0):
    """Return rows of which some of the first class of each pair were given the second."""
    hit = torch.rand(len(data[1]), generator=torch.Generator().manual_seed(seed)) < share
    y = data[1].clone()
    for one, other in pairs:
        y[hit & (data[1] == one)] = other
    return data[0], y


@pytest.mark.parametrize("pairs", [((1, 0),), ((1, 0), (2, 3))])
@pytest.mark.parametrize(("width", "epochs"), [(48, 6), (200, 30)])  # the latter by heart
def test_pairs_of_classes_are_hinted_at_where_no_net_says_so_by_itself(
    pairs, width, epochs
) -> None:
    train, val = blobs(1500, 5, 10, apart=1.3, seed=2)
    for share, found in ((0.42, ["hint"]), (0.0, [])):
        torch.manual_seed(0)
        splits = (pairs_given(train, pairs, share), pairs_given(val, pairs, share, 1))
        exp = experiment(mlp(10, 5, width), splits, epochs=epochs, lr=3e-3)
        told = seen(exp, RULE, train=True).findings
        assert [f.severity for f in told] == found
        if told:
            classes = [f"class {c}" for pair in pairs for c in pair]
            assert sorted(told[0].where) == sorted(classes)
            ones = torch.tensor([one for one, _ in pairs])
            assert bool(torch.isin(train[1][list(told[0].rows)], ones).double().mean() > 0.9)


def test_what_explains_labels_of_two_classes_is_a_share_only_where_one_was_given() -> None:
    g = torch.Generator().manual_seed(0)
    score = 2 * torch.randn(4000, generator=g)
    second = torch.rand(4000, generator=g) < (2 * score).sigmoid()
    assert one_way(score, second).share <= 0.1
    given = second | (torch.rand(4000, generator=g) < 0.35)
    fit = one_way(score, given)
    assert abs(fit.share - 0.35) < 0.08
    assert fit.gain > 20
    assert abs(fit.border) < 0.6


def test_a_net_that_tells_what_learners_do_not_keeps_them_from_asking() -> None:
    for near, found in ((1.2, False), (0.0, True)):  # a kind of class 0 beside class 1, or in it
        X, y = (torch.cat(p) for p in zip(*blobs(1500, 5, 8), strict=True))
        aside = torch.randn(8, generator=torch.Generator().manual_seed(2))
        X[y == 4] += X[y == 1].mean(0) - X[y == 4].mean(0) + near * aside / aside.norm()
        splits = halves(X, torch.where(y == 4, 0, y), 0.78)
        torch.manual_seed(0)
        exp = experiment(mlp(8, 4, 48), splits, epochs=6)
        assert bool(findings(exp, RULE, train=True)) == found


def rising(rows: int = 1500):
    """Return numbers that rise with a table, nearly along a line."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(rows, 6, generator=g)
    y = X[:, :1] + 0.7 * X[:, 1:2] + 0.3 * (2 * X[:, 2:3]).sin()
    return halves(X, y + 0.2 * torch.randn(y.shape, generator=g))


def changed(data, share: float, change, seed: int = 0):
    """Return numbers of which a share was changed."""
    X, y = data
    hit = torch.rand(len(y), 1, generator=torch.Generator().manual_seed(seed)) < share
    return X, torch.where(hit, change(y), y)


@pytest.mark.parametrize(
    "change",
    [
        lambda y: -y,
        lambda y: 2.5 * y,
        lambda y: y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))],
        lambda y: 0 * y - 1,
    ],
)
def test_numbers_that_follow_another_line_are_asked_about(change) -> None:
    torch.manual_seed(0)
    splits = tuple((X, y + 2) for X, y in rising())
    noisy = tuple(changed(d, 0.2, change, i) for i, d in enumerate(splits))
    found = seen(experiment(mlp(6, 1), noisy, epochs=8), RULE, train=True).findings
    assert [(f.code, f.severity) for f in found] == [("label_noise", "hint")]


@pytest.mark.parametrize("kind", ["none", "tails", "uneven", "jump", "count"])
def test_numbers_that_scatter_widely_follow_the_same_line(kind) -> None:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(2)

    def scattered(data):
        X, y = data
        e = torch.randn(y.shape, generator=g)
        tails = e / (torch.randn(y.shape, generator=g).square() + 0.02).sqrt()
        return X, {
            "none": y,
            "tails": y + 0.3 * tails,
            "uneven": y + 0.8 * e * X[:, :1].square(),
            "jump": y + 2.5 * (e > 0.8),
            "count": torch.poisson(y.exp(), generator=g),
        }[kind]

    exp = experiment(mlp(6, 1), tuple(map(scattered, rising())), epochs=8)
    assert findings(exp, RULE, train=True) == []


def test_numbers_that_a_learner_bends_too_little_for_are_left_alone() -> None:
    g = torch.Generator().manual_seed(19)
    X, w = torch.randn(1500, 7, generator=g), torch.randn(7, generator=g)
    y = (1.3 * X[:, 0]).sin() + 0.6 * X[:, 1] * X[:, 2] + 0.5 * X @ w / w.norm()
    y = y + 0.4 * X[:, 3].abs()
    y = (y - y.mean()) / y.std() + 0.3 * torch.randn(1500, generator=g)
    splits = halves(torch.cat([X, torch.randn(1500, 1, generator=g)], 1), y[:, None], 0.8)
    for share, found in ((0.0, []), (0.2, [RULE.code])):
        torch.manual_seed(0)
        noisy = tuple(changed(d, share, lambda v: v.roll(7, 0), i) for i, d in enumerate(splits))
        exp = experiment(mlp(8, 1, 48), noisy, epochs=6, lr=2e-3)
        assert findings(exp, RULE, train=True) == found


def test_much_that_is_wrong_is_asked_about_and_classes_that_meet_are_not() -> None:
    torch.manual_seed(0)
    splits = blobs(2000, 6, apart=0.9)
    noisy = tuple(wrong(d, 0.42, 6, seed=i) for i, d in enumerate(splits))
    assert findings(experiment(mlp(out=6), noisy, epochs=6), RULE, train=True) == [RULE.code]
    meeting = blobs(2000, 6, apart=0.5)
    assert findings(experiment(mlp(out=6), meeting, epochs=6), RULE, train=True) == []
