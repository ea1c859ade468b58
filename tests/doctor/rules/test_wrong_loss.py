"""Losses that do not fit targets or outputs are named; odd ones that fit are not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs, experiment, findings, halves, mlp, regression, seen
from tests.doctor.wired import cured, named
from torch import nn

from gipi.doctor.rules.wrong_loss import RULE


def test_class_numbers_fitted_by_square_are_named_and_changed_on_request() -> None:
    data = [(X, y) for X, y in blobs(classes=5, apart=1.5)]
    exp = experiment(mlp(out=1), data, loss=lambda o, y: F.mse_loss(o[:, 0], y.float()))
    diagnosis = named(exp, RULE)
    evidence = diagnosis.findings[0].evidence
    assert evidence["right_as_classes"] > evidence["right_as_numbers"] + 0.1
    assert diagnosis.repair() is None
    assert "nn.Linear(..., 5)" in diagnosis.why_not
    assert cured(exp, RULE, apply=["wrong_loss"]).after["loss"] < 1


def test_an_output_without_its_last_dimension() -> None:
    data = [(X, y.float()) for X, y in blobs(classes=5, apart=1.5)]
    named(experiment(nn.Sequential(*mlp(out=1), nn.Flatten(0)), data, loss=nn.L1Loss()), RULE)


def test_counts_fitted_by_square_are_numbers() -> None:
    data = [(X, (2 * y + 4).round().clamp(0, 9)) for X, y in regression()]
    assert findings(experiment(mlp(out=1), data), RULE) == []


def test_levels_that_lie_far_from_zero_are_numbers() -> None:
    g = torch.Generator().manual_seed(1)
    X = torch.randn(1000, 6, generator=g)
    y = (1.5 * X[:, :2].sum(1, keepdim=True) + 5).round().clamp(0, 10)
    assert findings(experiment(mlp(6, out=1), halves(X, y)), RULE) == []


def test_levels_with_two_peaks_are_numbers() -> None:
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        X = torch.randn(1000, 6, generator=g)
        peak = torch.where(torch.rand(1000, 1, generator=g) < 0.5, 2.0, 7.0)
        y = (peak + 0.7 * X[:, :2].sum(1, keepdim=True)).round().clamp(0, 9)
        assert findings(experiment(mlp(6, out=1), halves(X, y)), RULE) == []


@pytest.mark.parametrize(("seed", "held"), [(15, 12), (17, 20)])
def test_of_few_held_rows_counts_are_not_called_classes_by_chance(seed, held) -> None:
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(500 + held, 6, generator=g)
    y = torch.poisson((0.6 + 0.5 * X[:, :1]).exp().clamp(max=6), generator=g).clamp(max=8)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    exp = experiment(net, ((X[:500], y[:500]), (X[500:], y[500:])), lr=3e-3)
    assert findings(exp, RULE) == []


def rain(said: torch.Tensor) -> torch.Tensor:
    """Return whole millimetres: often none at all, and many where more is said."""
    g = torch.Generator().manual_seed(0)
    wet = said + torch.randn(said.shape, generator=g) > 0.5
    falls = torch.exp(1.2 + 0.4 * said + 0.3 * torch.randn(said.shape, generator=g))
    return falls.round().clamp(1, 15) * wet


def test_rain_is_a_number_though_none_at_all_is_its_commonest() -> None:
    g = torch.Generator().manual_seed(1)
    X = torch.randn(600, 6, generator=g)
    assert (
        findings(experiment(mlp(6, out=1), halves(X, rain(X[:, :2].sum(1))[:, None])), RULE) == []
    )


class Shared(nn.Module):
    """A net whose last layer is a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 16)
        self.last = nn.Parameter(torch.zeros(1, 16))

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return F.linear(self.inner(X).relu(), self.last)


def test_where_classes_cannot_be_tried_nothing_is_said() -> None:
    data = [(X, (2 * y + 4).round().clamp(0, 9)) for X, y in regression()]
    exp = experiment(Shared(), data)
    assert seen(exp, RULE).findings == []


def test_maps_of_whole_numbers_are_not_accused() -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(200, 1, 8, 8, generator=g)
    smooth = 3 * F.avg_pool2d(X, 3, 1, 1)
    wet = torch.rand(X.shape, generator=g) < 0.55
    counts = (torch.poisson(4 * torch.exp(0.4 * smooth - 0.2), generator=g) * wet).clamp(max=12)
    near = torch.where(smooth > 0.5, 9.0, (smooth + 2).round().clamp(0, 3))  # a thing far before
    for numbers in (counts, rain(smooth), near):
        for last in (nn.Conv2d(8, 1, 1), nn.ConvTranspose2d(8, 1, 1)):
            net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), last)
            exp = experiment(net, halves(X, numbers.long()), epochs=2,
                             loss=lambda o, y: F.mse_loss(o, y.float()))  # fmt: skip
            assert seen(exp, RULE).findings == []


def test_scores_and_probabilities_given_to_the_loss_of_log_probabilities() -> None:
    cured(experiment(mlp(), blobs(), loss=nn.NLLLoss(), epochs=4), RULE)
    spoken = nn.Sequential(*mlp(), nn.Softmax(-1))
    cured(experiment(spoken, blobs(), loss=F.nll_loss, epochs=4), RULE)
    right = nn.Sequential(*mlp(), nn.LogSoftmax(-1))
    assert findings(experiment(right, blobs(), loss=nn.NLLLoss()), RULE) == []


def shares(data):
    return data[0], (0.3 * torch.nn.functional.one_hot(data[1], 4) + 0.175)


@pytest.mark.parametrize("loss", [nn.KLDivLoss(), nn.KLDivLoss(reduction="batchmean"), F.kl_div])
def test_scores_and_probabilities_given_to_a_divergence(loss) -> None:
    splits = tuple(map(shares, blobs()))
    cured(experiment(mlp(), splits, loss=loss, epochs=4), RULE)
    spoken = nn.Sequential(*mlp(), nn.Softmax(-1))
    cured(experiment(spoken, splits, loss=loss, epochs=4), RULE)
    right = nn.Sequential(*mlp(), nn.LogSoftmax(-1))
    assert findings(experiment(right, splits, loss=loss), RULE) == []
    within = experiment(mlp(), splits, loss=lambda o, y: loss(o.log_softmax(-1), y))
    assert findings(within, RULE) == []


def test_the_chance_of_the_truth_is_a_loss_that_is_learned_rightly() -> None:
    def missed(p, y):
        return -(p * y).sum(-1).mean()

    splits = tuple((X, F.one_hot(y).float()) for X, y in blobs())
    torch.manual_seed(0)
    spoken = nn.Sequential(*mlp(), nn.Softmax(-1))
    exp = experiment(spoken, splits, loss=missed, epochs=4, lr=0.02)
    diagnosis = seen(exp, RULE, train=True)
    assert diagnosis.findings == []
    assert diagnosis.trace.epochs[-1]["val"] < -0.9
    named(experiment(mlp(), splits, loss=missed), RULE)
    named(experiment(spoken, splits, loss=nn.KLDivLoss()), RULE)


def test_a_divergence_of_every_place() -> None:
    train, val = ((X[:, None].expand(-1, 3, -1), y[:, None].expand(-1, 3, -1))
                  for X, y in map(shares, blobs()))  # fmt: skip
    cured(experiment(mlp(), (train, val), loss=nn.KLDivLoss(), epochs=4), RULE)
    right = nn.Sequential(*mlp(), nn.LogSoftmax(-1))
    assert findings(experiment(right, (train, val), loss=nn.KLDivLoss()), RULE) == []


def test_cross_entropy_over_one_output() -> None:
    data = [(X, (y == 0).float()[:, None]) for X, y in blobs(classes=2)]
    exp = experiment(mlp(out=1), data, loss=nn.CrossEntropyLoss(), epochs=4)
    assert "always zero" in named(exp, RULE).findings[0].message
    assert cured(exp, RULE, apply=["wrong_loss"]).after["loss"] < 0.5


def test_cross_entropy_of_several_answers_or_of_numbers() -> None:
    data = [(X, (X[:, :4] > 0).float()) for X, _ in blobs()]
    exp = experiment(mlp(), data, loss=nn.CrossEntropyLoss(), epochs=4)
    assert "BCEWithLogitsLoss" in named(exp, RULE).findings[0].advice
    numbers = [(X, X[:, :4]) for X, _ in blobs()]
    named(experiment(mlp(), numbers, loss=nn.CrossEntropyLoss()), RULE)
    soft = [(X, F.one_hot(y, 4) * 0.9 + 0.025) for X, y in blobs()]
    assert findings(experiment(mlp(), soft, loss=nn.CrossEntropyLoss()), RULE) == []


def test_yes_or_no_of_class_numbers() -> None:
    data = [(X, y.float()[:, None]) for X, y in blobs()]
    named(experiment(mlp(out=1), data, loss=nn.BCEWithLogitsLoss()), RULE)
    one_hot = [(X, F.one_hot(y, 4).float()) for X, y in blobs()]
    hint = seen(experiment(mlp(), one_hot, loss=nn.BCEWithLogitsLoss()), RULE)
    assert [f.severity for f in hint.findings] == ["hint"]


def test_losses_that_fit_are_silent() -> None:
    assert findings(experiment(mlp(), blobs()), RULE) == []
    assert findings(experiment(mlp(out=1), regression()), RULE) == []
    binary = [(X, (y == 0).float()[:, None]) for X, y in blobs(classes=2)]
    assert findings(experiment(mlp(out=1), binary, loss=nn.BCEWithLogitsLoss()), RULE) == []
    assert findings(experiment(mlp(out=1), binary, loss=nn.MSELoss()), RULE) == []  # Brier's score
    several = [(X, (X[:, :4] > 0).float()) for X, _ in blobs()]
    assert findings(experiment(mlp(), several, loss=nn.BCEWithLogitsLoss()), RULE) == []
    rated = experiment(mlp(out=1), [(X, torch.poisson(y.exp())) for X, y in regression()],
                       loss=nn.PoissonNLLLoss())  # fmt: skip
    assert findings(rated, RULE) == []
    assert findings(experiment(mlp(), blobs(), loss=F.multi_margin_loss), RULE) == []


def within(how):
    return lambda o, y: F.nll_loss(how(o), y)


def test_what_a_loss_function_gives_the_loss_of_log_probabilities() -> None:
    def shared(o, y):
        return F.kl_div(o.softmax(1), F.one_hot(y, 4) * 0.9 + 0.025, reduction="batchmean")

    for loss in (within(lambda o: o.softmax(1)), within(lambda o: o.log_softmax(0)),
                 within(torch.sigmoid), shared):  # fmt: skip
        named(experiment(mlp(), blobs(), loss=loss), RULE)
    looks = torch.randn(3, 1, 1, generator=torch.Generator().manual_seed(0))
    for loss in (within(lambda o: o.log_softmax(1)),
                 within(lambda o: (o * (1 + looks)).log_softmax(-1).mean(0))):  # fmt: skip
        assert findings(experiment(mlp(), blobs(), loss=loss), RULE) == []


def test_a_softmax_over_rows_by_hand() -> None:
    def spoken(dim):
        return lambda o, y: -o.log_softmax(dim).gather(1, y[:, None]).mean()

    named(experiment(mlp(), blobs(), loss=spoken(0)), RULE)
    assert findings(experiment(mlp(), blobs(), loss=spoken(1)), RULE) == []


def paired(o, y):
    """Distances of rows of one class, and of others up to a margin: names do not matter."""
    d = (o[:, None] - o).square().sum(-1).clamp_min(1e-6).sqrt()
    same = (y[:, None] == y).float()
    return (same * d.square() + (1 - same) * (2 - d).clamp_min(0).square()).mean()


def yes(classes=2, low=0.0):
    return [(X, low + (1 - low) * (y == 0).float()[:, None]) for X, y in blobs(classes=classes)]


def margin(o, y):
    return (1 - y * o).clamp_min(0).mean()


class Pair(nn.Module):
    """Two parts of a row, seen by one net."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(width=4)

    def forward(self, x):
        return self.body(x[:, :4]), self.body(x[:, 4:])


def together(low):
    return lambda o, y: F.cosine_embedding_loss(*o, y[:, 0] * (1 - low) + low)


def test_classes_of_which_a_loss_asks_nothing() -> None:
    swapped = yes(), lambda o, y: F.binary_cross_entropy_with_logits(y, o)
    for data, loss in ((yes(), margin), (yes(), nn.SoftMarginLoss()), swapped):
        found = named(experiment(mlp(out=1), data, loss=loss), RULE).findings[0]
        assert found.evidence["class"] == 0
    for loss in (nn.CrossEntropyLoss(ignore_index=2),
                 nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1, 0, 1]))):  # fmt: skip
        (found,) = seen(experiment(mlp(), blobs(), loss=loss), RULE).findings
        assert (found.severity, found.evidence["class"]) == ("hint", 2)  # it may be meant
    named(experiment(Pair(), yes(), loss=together(0.0)), RULE)


def test_losses_that_ask_for_every_class_are_silent() -> None:
    for loss in (margin, nn.SoftMarginLoss()):
        assert findings(experiment(mlp(out=1), yes(low=-1.0), loss=loss), RULE) == []
    assert findings(experiment(Pair(), yes(), loss=together(-1.0)), RULE) == []

    def near(o, y):  # pairs that are alike, others up to a margin that few are within
        d = (o[0] - o[1]).square().sum(1, keepdim=True).clamp_min(1e-6).sqrt()
        return (y * d.square() + (1 - y) * (0.5 - d).clamp_min(0).square()).mean()

    def wide(o, y):
        return F.cosine_embedding_loss(*o, 2 * y[:, 0] - 1, margin=0.95)

    for loss in (near, wide):
        assert findings(experiment(Pair(), yes(), loss=loss), RULE) == []
    for loss in (paired, F.multi_margin_loss, nn.CrossEntropyLoss(ignore_index=-1)):
        assert findings(experiment(mlp(), blobs(), loss=loss), RULE) == []
    # rows without a label are not judged either
    (X, y), (V, v) = blobs()
    known = [(X, y), (V[v != 2], v[v != 2])]
    assert findings(experiment(mlp(), known, loss=nn.CrossEntropyLoss(ignore_index=2)), RULE) == []


def test_logarithms_of_shares_are_asked_for_all_classes() -> None:
    shares_of = [(X, F.one_hot(y, 4).float()) for X, y in blobs()]
    torch.manual_seed(0)
    spoken = nn.Sequential(*mlp(), nn.LogSoftmax(1))
    exp = experiment(spoken, shares_of, loss=lambda o, y: -(o * y).sum(1).mean())
    assert findings(exp, RULE) == []


def test_answers_that_a_loss_never_asks_for() -> None:
    several = [(X, (X[:, :4] > 0).long()) for X, _ in blobs()]
    exp = experiment(mlp(), several, loss=nn.MultiLabelMarginLoss())
    assert named(exp, RULE).findings[0].evidence["columns"] == [2, 3]
    soft = experiment(mlp(), several, loss=lambda o, y: F.multilabel_soft_margin_loss(o, y.float()))
    assert findings(soft, RULE) == []
    ones = [(X, y.float()) for X, y in several]
    assert named(experiment(mlp(), ones, loss=margin), RULE).findings[0].evidence["value"] == 0
    assert findings(experiment(mlp(), ones, loss=lambda o, y: margin(o, 2 * y - 1)), RULE) == []
