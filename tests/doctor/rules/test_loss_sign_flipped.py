"""A turned sign is found in the loss, the optimizer and the step; two of them make none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs, experiment, findings, halves, mlp, regression
from tests.doctor.wired import cured, named

from gipi.doctor.against import driven
from gipi.doctor.bottomless import bottomless
from gipi.doctor.experiment import call
from gipi.doctor.facts import Facts
from gipi.doctor.rules.loss_sign_flipped import RULE, _finding, confirm


def focal(o, y):
    told = F.log_softmax(o, -1).gather(-1, y[:, None])[:, 0]
    return -((1 - told.exp()) ** 2 * told).mean()


@pytest.mark.parametrize("loss", [
    lambda o, y: -F.cross_entropy(o, y),
    lambda o, y: o.log_softmax(-1).gather(1, y[:, None]).mean(),
    lambda o, y: -F.cross_entropy(o, y, label_smoothing=0.1),
    lambda o, y: -focal(o, y),
])  # fmt: skip
def test_losses_with_the_wrong_sign(loss) -> None:
    treatment = cured(experiment(mlp(), blobs(), loss=loss, epochs=3), RULE, apply=[RULE.code])
    assert treatment.after["loss"] < 1


def test_it_is_not_turned_without_a_yes() -> None:
    exp = experiment(mlp(out=1), regression(), loss=lambda o, y: -F.mse_loss(o, y))
    diagnosis = named(exp, RULE)
    assert diagnosis.repair() is None
    assert "loss = -loss" in diagnosis.why_not


def test_an_optimizer_that_climbs_and_a_step_that_turns() -> None:
    exp = experiment(mlp(), blobs())
    exp.optimizer = torch.optim.SGD(exp.model.parameters(), 0.1, maximize=True)
    named(exp, RULE)

    def step(exp, xb, yb):
        exp.optimizer.zero_grad()
        loss = exp.loss(call(exp.model, xb), yb)
        (-loss).backward()
        exp.optimizer.step()
        return loss.detach()

    named(experiment(mlp(), blobs(), step=step), RULE)
    both = experiment(mlp(), blobs(), step=step)
    both.optimizer = torch.optim.SGD(both.model.parameters(), 0.1, maximize=True)
    assert findings(both, RULE) == []


def test_usual_and_unusual_losses_are_silent() -> None:
    for loss in (F.cross_entropy, focal, F.multi_margin_loss):
        assert findings(experiment(mlp(), blobs(), loss=loss), RULE) == []

    def gaussian(o, y):
        return 0.5 * ((y - o[:, :1]) ** 2 * (-o[:, 1:]).exp() + o[:, 1:]).mean() - 3

    assert findings(experiment(mlp(out=2), regression(), loss=gaussian), RULE) == []
    likeness = experiment(mlp(out=8), [(X, X) for X, _ in blobs()],
                          loss=lambda o, y: -F.cosine_similarity(o, y).mean())  # fmt: skip
    assert findings(likeness, RULE) == []


def test_numbers_that_aredriven_away_are_named() -> None:
    torch.manual_seed(0)
    rows = [(X, X) for X, _ in blobs()]
    away = experiment(mlp(out=8), rows, loss=lambda o, y: F.cosine_similarity(o, y).mean(), lr=3e-3)
    found = named(away, RULE).findings[0].evidence
    assert found["correlation_after"] < found["correlation_before"]

    def explained(o, y):
        return 1 - (o - y).square().sum() / (y - y.mean()).square().sum()

    named(experiment(mlp(out=1), regression(), loss=explained), RULE)
    for away in (lambda o, y: -F.smooth_l1_loss(o, y), lambda o, y: torch.exp(-F.mse_loss(o, y))):
        assert driven(Facts(experiment(mlp(out=1), regression(), loss=away)))


def gaussian(o, y):
    mean, log_var = o.split(1, 1) if isinstance(o, torch.Tensor) else o
    return (0.5 * log_var + 0.5 * (y - mean).square() * (-log_var).exp()).mean()


class TwoHeads(torch.nn.Module):
    """A mean and the logarithm of a variance, as two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(out=2)

    def forward(self, x):
        return self.body(x).split(1, 1)


@pytest.mark.parametrize("net", [lambda: mlp(out=2), TwoHeads])
def test_a_likelihood_whose_sign_is_turned(net) -> None:
    torch.manual_seed(0)
    named(experiment(net(), regression(), loss=lambda o, y: -gaussian(o, y)), RULE)
    torch.manual_seed(0)
    assert findings(experiment(net(), regression(), loss=gaussian), RULE) == []


def overlap(o, y):
    p = o.sigmoid()
    return (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


def test_a_score_of_zeros_and_ones_that_is_minimised() -> None:
    rows = [(X, torch.stack([y == k for k in range(3)], 1).float()) for X, y in blobs()]
    named(experiment(mlp(out=3), rows, loss=overlap), RULE)

    def fine(o, y):
        return 1 - overlap(o, y)

    def certain(o, y):  # a binary focal loss, written by hand
        p = torch.where(y > 0, o.sigmoid(), (-o).sigmoid())
        return -((1 - p).square() * p.clamp_min(1e-7).log()).mean()

    def distance(o, y):  # of pairs that are alike where the target is one
        return (y * o.square() + (1 - y) * (1 - o).clamp_min(0).square()).mean()

    def energies(o, y):  # low where the target is one
        return F.binary_cross_entropy((-o).sigmoid(), y)

    for loss in (fine, certain, distance, energies):
        assert findings(experiment(mlp(out=3), rows, loss=loss), RULE) == []

    def others(o, y):
        return (o.sigmoid() - (1 - y)).square().mean()

    named(experiment(mlp(out=3), rows, loss=others), RULE)

    def low(o, y):
        return ((o < 0) == (y > 0)).float().mean()

    assert findings(experiment(mlp(out=3), rows, loss=others, metric=low), RULE) == []
    named(experiment(mlp(out=3), rows, loss=lambda o, y: -certain(o, y)), RULE)


def test_what_choices_cost_is_rightly_minimised() -> None:
    def costs(rows, classes):
        return [(X, torch.stack([y != k for k in range(classes)], 1).float()) for X, y in rows]

    def expected(p, y):
        return (p * y).sum(1).mean()

    def of_scores(o, y):
        return expected(o.softmax(1), y)

    many, two = costs(blobs(classes=3), 3), costs(blobs(classes=2), 2)
    for net, rows, loss in (
        (mlp(out=3), many, of_scores),
        (torch.nn.Sequential(mlp(out=3), torch.nn.Softmax(1)), many, expected),
        (torch.nn.Sequential(mlp(out=2), torch.nn.Softmax(1)), two, expected),
    ):
        assert findings(experiment(net, rows, loss=loss), RULE) == []
    shares = [(X, 1 - y) for X, y in many]
    turned = experiment(torch.nn.Sequential(mlp(out=3), torch.nn.LogSoftmax(1)), shares,
                        loss=lambda o, y: -F.kl_div(o, y, reduction="batchmean"))  # fmt: skip
    assert findings(turned, RULE) == [RULE.code]


class Masks(torch.nn.Module):
    """Logits, or probabilities, of every place of a picture; all of one sign at first."""

    def __init__(self, end=None, bias: float = -1.0, out: int = 1) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(),
                                        torch.nn.Conv2d(8, out, 3, padding=1))  # fmt: skip
        torch.nn.init.constant_(self.body[2].bias, bias)
        self.end = end

    def forward(self, x):
        said = self.body(x)
        return said if self.end is None else self.end(said)


def pictures(*, both: bool = False):
    g = torch.Generator().manual_seed(0)
    y = (torch.rand(96, 1, 4, 4, generator=g) < 0.3).float().repeat_interleave(2, 2)
    X = y.repeat_interleave(2, 3) + 0.3 * torch.randn(96, 1, 8, 8, generator=g)
    y = y.repeat_interleave(2, 3)
    return halves(X, torch.cat([1 - y, y], 1) if both else y)


def one_minus(loss):
    return lambda o, y: 1 - loss(o, y)


def test_an_overlap_is_a_score_whatever_outputs_are_at_first() -> None:
    def of_chances(p, y):
        return (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)

    def of_softmax(o, y):
        return of_chances(o.softmax(1), y)

    for net, loss, both in (
        (Masks, overlap, False),
        (lambda: Masks(bias=1.0), overlap, False),
        (lambda: Masks(torch.sigmoid), of_chances, False),
        (lambda: Masks(out=2), of_softmax, True),
    ):
        torch.manual_seed(0)
        named(experiment(net(), pictures(both=both), loss=loss, lr=0.1), RULE)
        fine = experiment(net(), pictures(both=both), loss=one_minus(loss), lr=0.1)
        assert findings(fine, RULE) == []


def test_distances_that_go_into_a_sigmoid_are_low_where_the_target_is_one() -> None:
    def alike(d, y):  # the chance that two are apart
        return F.binary_cross_entropy(d.sigmoid(), 1 - y)

    assert findings(experiment(Masks(torch.square), pictures(), loss=alike), RULE) == []


def logarithms(seed: int = 0):
    """Return rows with waiting times, and counts, whose logarithm of the mean is linear."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(800, 8, generator=g)
    f = X @ torch.randn(8, 1, generator=g) / 8**0.5
    wait = -torch.rand(800, 1, generator=g).clamp_min(1e-6).log() * (-f).exp()
    return halves(X, wait), halves(X, torch.poisson((1 + f).exp(), generator=g))


@pytest.mark.parametrize("lr", [0.01, 0.03])
def test_outputs_that_are_large_where_targets_are_small_are_learned_rightly(lr) -> None:
    waits, counts = logarithms()

    def rates(o, y):  # minus the log-likelihood of waiting times; outputs are logarithms of rates
        return (o.exp() * y - o).mean()

    def precisions(o, y):
        return (0.5 * y.square() * o.exp() - 0.5 * o).mean()

    def far(o, y):  # of energies: low where the target is high
        return (o + y).square().mean()

    losses = ((rates, waits), (precisions, waits), (far, waits), (F.poisson_nll_loss, counts))
    for loss, rows in losses:
        torch.manual_seed(0)
        assert findings(experiment(mlp(out=1), rows, loss=loss, lr=lr), RULE) == []


def ends(o, y):
    """Minus the log-likelihood of waiting times, some of which are cut; o: logarithms of rates."""
    return (o.clamp(max=10).exp() * y[:, :1] - y[:, 1:] * o).mean()


def ranks(o, y):
    """Minus the partial log-likelihood of who is the next to end."""
    rates = o[y[:, 0].argsort(descending=True), 0]
    told = y[y[:, 0].argsort(descending=True), 1]
    return -((rates - rates.logcumsumexp(0)) * told).sum() / told.sum().clamp_min(1)


def weighted(o, y):
    return (y[:, 1:] * (o - y[:, :1]).square()).mean()


def flat(o, y):  # concave but at the target
    return (y[:, 1:] * ((o - y[:, :1]).abs() + 1e-3).sqrt()).mean()


def cut_waits(far: float = 0):
    def cut(rows):
        X, wait = rows
        told = (wait < 1.5).to(wait)
        return X, torch.cat([wait.clamp(max=1.5) + far, told], 1)

    train, val = logarithms()[0]
    return cut(train), cut(val)


@pytest.mark.parametrize("loss", [ends, ranks, weighted])
def test_a_turned_likelihood_whose_targets_have_more_columns_than_outputs(loss) -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(out=1), cut_waits(), loss=lambda o, y: -loss(o, y), lr=0.01)
    assert named(exp, RULE).findings[0].confirmed


@pytest.mark.parametrize("far", [0, 1000])
def test_losses_of_more_targets_than_outputs_are_silent(far) -> None:
    def actions(o, y):  # what was done and how good it was, against the mean
        done = 2 * (y[:, :1] > y[:, :1].median()).to(o) - 1
        return -((y[:, :1] - y[:, :1].mean()) * F.logsigmoid(done * o)).mean()

    def bad(o, y):  # all that was done was bad, more or less
        done = 2 * (y[:, :1] > y[:, :1].median()).to(o) - 1
        return (y[:, :1] * F.logsigmoid(done * o)).mean()

    def critic(o, y):
        return (o * (1 - 2 * y[:, 1:])).mean()

    def log_error(o, y):
        return (o - y[:, :1]).abs().log1p().mean()

    def gain(o, y):  # what a share of all there is brings, of which too much brings less
        return -(o.sigmoid() * y[:, :1] - o.sigmoid().square()).mean()

    for loss in (ends, ranks, weighted, flat, log_error, actions, bad, critic, gain):
        torch.manual_seed(0)
        exp = experiment(mlp(out=1), cut_waits(far), loss=loss, lr=0.01)
        assert findings(exp, RULE) == [], loss.__name__


def test_what_is_maximised_under_a_bound_is_no_turned_loss() -> None:
    def spread(o, _):
        return -o.var()

    def held(net):
        return torch.nn.utils.parametrizations.orthogonal(net)

    def exp(net, loss=spread):
        return experiment(net, cut_waits(), loss=loss)

    torch.manual_seed(0)
    assert not bottomless(Facts(exp(held(torch.nn.Linear(8, 1, bias=False)))))
    standard = torch.nn.BatchNorm1d(1, affine=False)
    assert not bottomless(Facts(exp(torch.nn.Sequential(*mlp(out=1), standard))))
    assert bottomless(Facts(exp(mlp(out=1))))
    blank = torch.nn.Linear(8, 1)
    torch.nn.init.zeros_(blank.weight)
    assert bottomless(Facts(exp(blank, lambda o, y: -ends(o, y))))
    assert not bool(blank.weight.any())


def test_looking_leaves_the_loss_and_the_generator_as_they_are() -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, o, y):
            self.calls += 1
            return -(o - y).square().mean() + F.dropout(o, 0.5).mean() * 1e-6

    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.5), torch.nn.ReLU(),
                              torch.nn.Linear(16, 1))  # fmt: skip
    facts = Facts(experiment(net, regression(), loss=Counting()))
    assert facts.kind == "numbers"
    calls, state = facts.exp.loss.calls.clone(), torch.get_rng_state()
    finding = _finding("it", confirmed=False)
    assert driven(facts)
    assert confirm(facts, finding) is not None
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(calls, facts.exp.loss.calls)
