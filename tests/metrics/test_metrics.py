"""Metrics against scikit-learn, and the contract of states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn import metrics as sk
from torch.nn import functional as F

from gipi import metrics
from gipi.core.errors import ConfigError, ModelError, UnknownName
from gipi.metrics.ranks import rank_correlation

N = 400
G = torch.Generator().manual_seed(0)
W = torch.rand(N, generator=G)
LOGITS = {k: 2 * torch.randn(N, k, generator=G) for k in (2, 5)}
CLASSES = {
    k: torch.where(
        torch.rand(N, generator=G) < 0.5, z.argmax(1), torch.randint(0, k, (N,), generator=G)
    )
    for k, z in LOGITS.items()
}  # fmt: skip
TRUTH = 100 + 5 * torch.randn(N, generator=G)
GUESS = TRUTH + torch.randn(N, generator=G)


def score(metric, outputs, target, weight=None, pieces=1):
    state = metric.init("cpu")
    for part in torch.arange(len(target)).chunk(pieces):
        metric.update(state, outputs[part], target[part], None if weight is None else weight[part])
    return metric.compute(state)


def inputs(name, k):
    tags = metrics.METRICS.get(name).tags
    if "classify" in tags:
        return metrics.build(name, classes=k), LOGITS[k], CLASSES[k]
    if "multi-label" in tags:
        return metrics.build(name, classes=k), LOGITS[k], F.one_hot(CLASSES[k], k).float()
    if "segment" in tags:
        maps = (
            LOGITS[k].view(N, k, 1, 1)
            + torch.arange(6).view(1, 1, 2, 3) * LOGITS[5][:, :1, None, None]
        )
        return metrics.build(name, classes=k), maps, CLASSES[k].view(N, 1, 1).expand(N, 2, 3)
    if "pose" in tags:
        truth = torch.cat([LOGITS[5].view(N, 5, 1), LOGITS[5].flip(0).view(N, 5, 1)], 2)
        seen = torch.cat([truth, (LOGITS[5] > -1).view(N, 5, 1).float()], 2)
        return metrics.build(name, classes=5), truth + 0.1 * truth.flip(1), seen
    return metrics.build(name, classes=1), GUESS, TRUTH


OWN_TESTS = {"detect", "tokens", "retrieval", "strings"}
NAMES = [r.name for r in metrics.METRICS if not OWN_TESTS & set(r.tags)]


def sk_ece(y, p, w, bins=15):
    confidence, right, total = p.max(1), p.argmax(1) == y, 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            gap = np.average(right[inside], weights=w[inside])
            gap -= np.average(confidence[inside], weights=w[inside])
            total += abs(gap) * w[inside].sum()
    return total / w.sum()


REFERENCE = {
    "accuracy": lambda y, p, w: sk.accuracy_score(y, p.argmax(1), sample_weight=w),
    "balanced_accuracy": lambda y, p, w: sk.balanced_accuracy_score(
        y, p.argmax(1), sample_weight=w
    ),
    "f1": lambda y, p, w: sk.f1_score(y, p.argmax(1), average="macro", sample_weight=w),
    "log_loss": lambda y, p, w: sk.log_loss(y, p, sample_weight=w),
    "ece": sk_ece,
    "mae": lambda y, p, w: sk.mean_absolute_error(y, p, sample_weight=w),
    "mse": lambda y, p, w: sk.mean_squared_error(y, p, sample_weight=w),
    "rmse": lambda y, p, w: sk.root_mean_squared_error(y, p, sample_weight=w),
    "r2": lambda y, p, w: sk.r2_score(y, p, sample_weight=w),
    "pearson": lambda y, p, w: (
        np.cov(y, p, aweights=w) / np.sqrt(np.cov(y, aweights=w) * np.cov(p, aweights=w))
    )[0, 1],
}


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("weight", [None, W])
@pytest.mark.parametrize("name", REFERENCE)
def test_equal_to_scikit_learn(name, weight, k):
    metric, outputs, target = inputs(name, k)
    p = outputs.double()
    p = p.softmax(1).numpy() if outputs.ndim > 1 else p.numpy()
    w = np.ones(N) if weight is None else weight.double().numpy()
    expected = REFERENCE[name](target.double().numpy(), p, w)
    assert score(metric, outputs, target, weight) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weight", [None, W])
@pytest.mark.parametrize(("k", "tolerance"), [(2, 1e-4), (5, 1e-3)])
def test_auc_equals_scikit_learns_up_to_its_bins(k, tolerance, weight):
    w = None if weight is None else weight.double().numpy()
    p, y = LOGITS[k].double().softmax(1).numpy(), CLASSES[k].numpy()
    if k == 2:
        expected = sk.roc_auc_score(y, p[:, 1], sample_weight=w)
    else:
        expected = np.mean([sk.roc_auc_score(y == c, p[:, c], sample_weight=w) for c in range(k)])
    got = score(metrics.build("auc", classes=k), LOGITS[k], CLASSES[k], weight)
    assert got == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("scale", [0.1, 1.0, 1e5])
def test_spearman_equals_scipys_up_to_its_bins(scale):
    truth = (TRUTH - 100) * scale
    for noise in (0.1, 5.0, 20.0):
        guess = ((LOGITS[2][:, 0] * noise + truth / scale) / 20).exp() * scale
        expected = spearmanr(truth.numpy(), guess.numpy()).statistic
        got = score(metrics.build("spearman"), guess, truth, pieces=7)
        assert got == pytest.approx(expected, abs=0.005)
        assert rank_correlation(guess, truth) == pytest.approx(expected)
    whole = truth.round() if scale == 1 else truth.sign()  # many ties: they share a rank
    exact = spearmanr(whole.numpy(), CLASSES[5].numpy()).statistic
    assert score(metrics.build("spearman"), CLASSES[5], whole) == pytest.approx(exact, abs=1e-3)
    assert rank_correlation(CLASSES[5], whole) == pytest.approx(exact)


def test_spearman_of_similarities_is_within_its_bound():
    """Cosines between 0.5 and 1 against grades 0, 0.1 .. 5, where bins are few."""
    grades = (torch.rand(519, generator=torch.Generator().manual_seed(1)) * 50).round() / 10
    noise = torch.randn(519, generator=torch.Generator().manual_seed(2))
    cosines = (0.6 + 0.06 * grades + 0.05 * noise).clamp(-1, 1)
    expected = spearmanr(cosines.numpy(), grades.numpy()).statistic
    assert score(metrics.build("spearman"), cosines, grades) == pytest.approx(expected, abs=0.01)
    assert rank_correlation(cosines, grades) == pytest.approx(expected)


def test_a_weight_counts_in_ranks_as_so_many_rows():
    w = torch.randint(0, 4, (N,), generator=torch.Generator().manual_seed(3))
    repeated = torch.arange(N).repeat_interleave(w)
    exact = spearmanr(GUESS[repeated].numpy(), TRUTH[repeated].numpy()).statistic
    assert rank_correlation(GUESS, TRUTH, w.float()) == pytest.approx(exact)


def test_spearman_takes_one_value_a_row():
    with pytest.raises(ModelError, match="2 values a row for spearman"):
        score(metrics.build("spearman"), torch.zeros(3, 2), torch.zeros(3, 2))


def test_auc_counts_ties_one_half_and_knows_extremes():
    metric = metrics.build("auc", classes=2)
    y = torch.tensor([0, 0, 1, 1])
    assert score(metric, torch.zeros(4), y) == 0.5
    assert score(metric, torch.tensor([-1e9, -1e-9, 1e-9, 1e9]), y) == 1.0
    assert score(metric, torch.tensor([1e9, 0.5, -0.5, -1e9]), y) == 0.0
    assert score(metric, torch.tensor([-3.0, 2.0, 1.0, 3.0]), y) == 0.75


def test_auc_bins_rise_with_the_score():
    from gipi.metrics.auc import ordered_bins

    x = torch.randn(5000, generator=G) * torch.logspace(-7, 7, 5000)
    x = torch.cat([x, torch.tensor([0.0, -0.0, torch.inf, -torch.inf])]).sort().values
    for mantissa in (7, 10):
        bins = ordered_bins(x, mantissa)
        assert bool((bins.diff() >= 0).all())
        assert int(bins.min()) >= 0
        assert int(bins.max()) < 2 << (5 + mantissa)


@pytest.mark.parametrize("name", NAMES)
def test_states_of_pieces_and_ranks_add_up(name):
    metric, outputs, target = inputs(name, 5)
    whole = score(metric, outputs, target, W)
    assert score(metric, outputs, target, W, pieces=7) == pytest.approx(whole, rel=1e-9)
    states = [metric.init("cpu") for _ in range(2)]
    for state, part in zip(states, torch.arange(N).split(150), strict=False):
        metric.update(state, outputs[part], target[part], W[part])
    rest = torch.arange(300, N)
    metric.update(states[1], outputs[rest], target[rest], W[rest])
    total = {k: states[0][k] + states[1][k] for k in states[0]}
    assert metric.compute(total) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_weight_zero_removes_a_row_and_the_state_keeps_its_size(name):
    metric, outputs, target = inputs(name, 5)
    weight = torch.ones(N)
    weight[200:] = 0
    expected = score(metric, outputs[:200], target[:200])
    assert score(metric, outputs, target, weight) == pytest.approx(expected, rel=1e-9)
    state = metric.init("cpu")
    before = {k: (v.shape, v.data_ptr()) for k, v in state.items()}
    metric.update(state, outputs, target, None)
    assert before == {k: (v.shape, v.data_ptr()) for k, v in state.items()}


@pytest.mark.parametrize("record", list(metrics.METRICS), ids=lambda r: r.name)
def test_every_record_says_what_it_is_and_which_way_is_better(record):
    assert record.summary
    assert record.citation
    assert set(record.tags) <= {
        "classify", "multi-label", "regress", "segment", "detect", "pose",
        "tokens", "retrieval", "strings", "forecast",
    }  # fmt: skip
    if record.name not in NAMES:
        return
    metric, outputs, target = inputs(record.name, 5)
    assert metric.name == record.name
    assert metric.greater_is_better is record.facts["greater_is_better"]
    best_logits = 20.0 * F.one_hot(CLASSES[5], 5) - 10
    perfect = {
        "classify": best_logits, "multi-label": best_logits, "regress": TRUTH, "pose": target,
        "forecast": target,
        "segment": best_logits.view(N, 5, 1, 1).expand(N, 5, 2, 3),
    }[record.tags[0]]  # fmt: skip
    best, usual = score(metric, perfect, target), score(metric, outputs, target)
    assert (best > usual) is metric.greater_is_better


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "f1", "log_loss", "ece", "auc"])
def test_one_logit_is_two_classes(name):
    metric = metrics.build(name, classes=2)
    z = LOGITS[2][:, 1] - LOGITS[2][:, 0]
    expected = score(metric, LOGITS[2], CLASSES[2])
    assert score(metric, z, CLASSES[2]) == pytest.approx(expected, rel=1e-5)
    assert score(metric, z.unsqueeze(1), CLASSES[2]) == pytest.approx(expected, rel=1e-5)


def test_soft_targets_count_by_their_largest_class():
    metric = metrics.build("accuracy", classes=5)
    soft = 0.7 * F.one_hot(CLASSES[5], 5) + 0.06
    assert score(metric, LOGITS[5], soft) == score(metric, LOGITS[5], CLASSES[5])


def test_a_confidence_on_the_edge_of_a_bin_belongs_to_the_lower_one():
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
    target = torch.tensor([0, 0, 0])
    sure = 1 / (1 + np.exp(-4.0))
    metric = metrics.build("ece", classes=2, options={"bins": 2})
    assert score(metric, logits, target) == pytest.approx((2 * 0.5 + sure) / 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_rows_does_not_matter(name):
    metric, outputs, target = inputs(name, 5)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    shuffled = score(metric, outputs[order], target[order], W[order])
    assert shuffled == pytest.approx(score(metric, outputs, target, W), rel=1e-9)


def test_several_columns_are_averaged():
    y = torch.stack([TRUTH, 3 * GUESS], 1)
    p = y + torch.randn(N, 2, generator=G)
    got = score(metrics.build("r2", classes=2), p, y)
    assert got == pytest.approx(sk.r2_score(y.numpy(), p.numpy()), rel=1e-5)
    got = score(metrics.build("rmse", classes=2), p, y)
    assert got == pytest.approx(float((y - p).square().mean().sqrt()), rel=1e-5)


def test_a_constant_target_has_no_variance_to_explain():
    metric, y = metrics.build("r2", classes=1), torch.full((5,), 3.0)
    assert score(metric, y, y) == 1.0
    assert score(metric, y + 1, y) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_seen_is_nan(name):
    metric = inputs(name, 5)[0]
    assert np.isnan(metric.compute(metric.init("cpu")))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: metrics.build("acuracy"), UnknownName, "'accuracy'"),
        (lambda: metrics.build("ece", options={"bin": 3}), ConfigError, "'bins'"),
        (lambda: metrics.build("f1", options={"bins": 3}), ConfigError, "no options"),
        (lambda: score(metrics.build("mse"), torch.zeros(4, 2), torch.zeros(4)), ModelError,
         "spread"),
    ],
)  # fmt: skip
def test_wrong_requests_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
