"""The sign of losses that have no name: likelihoods of any outputs, likeness, orders, updates."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs, experiment, findings, halves, mlp, regression, seen
from tests.doctor.wired import named
from torch import nn

from gipi.doctor.experiment import call
from gipi.doctor.facts import Facts
from gipi.doctor.rules.loss_sign_flipped import RULE


def minus(loss):
    return lambda o, y: -loss(o, y)


def counts(*, waits: bool = False):
    g = torch.Generator().manual_seed(0)
    X = torch.randn(600, 8, generator=g)
    y = torch.poisson((0.6 * X[:, :1] + 0.8).exp(), generator=g)
    told = (torch.rand(600, 1, generator=g) < 0.7).float()
    return halves(X, torch.cat([y + 0.5, told], 1) if waits else y)


def rates(o, y):
    return (o.exp() - y * o).mean()


def lognormal(o, y):
    """Minus the log-likelihood of waiting times of which some are cut."""
    z, n = (y[:, 0].log() - o[:, 0]) / o[:, 1].exp(), torch.distributions.Normal(0.0, 1.0)
    cut = (1 - n.cdf(z)).clamp_min(1e-6).log()
    return -torch.where(y[:, 1] > 0, n.log_prob(z) - o[:, 1], cut).mean()


@pytest.mark.parametrize(("loss", "out", "waits"), [(rates, 1, False), (lognormal, 2, True)])
def test_a_turned_likelihood_of_outputs_that_are_no_targets(loss, out, waits) -> None:
    for way, found in ((minus(loss), ["loss_sign_flipped"]), (loss, [])):
        torch.manual_seed(0)
        exp = experiment(mlp(out=out), counts(waits=waits), loss=way)
        assert findings(exp, RULE) == found


class Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = mlp(out=4), mlp(2, 8)

    def forward(self, x):
        mean, log_var = self.encode(x).chunk(2, 1)
        return self.decode(mean), mean, log_var


def bound(error: float, spread: float):
    """Return the error of what is told again, and how far codes are from a normal spread."""

    def loss(o, y):
        far = 0.5 * (o[1].square() + o[2].exp() - 1 - o[2]).sum(1).mean()
        return error * (o[0] - y).square().sum(1).mean() + spread * far

    return loss


def test_one_of_two_terms_is_turned_or_both() -> None:
    data = [(X, X) for X, _ in blobs()]
    for signs in ((1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)):
        torch.manual_seed(0)
        named(experiment(Variational(), data, loss=bound(*signs)), RULE)
    torch.manual_seed(0)
    assert findings(experiment(Variational(), data, loss=bound(1.0, 1.0)), RULE) == []


def test_shares_that_are_made_less_likely() -> None:
    data = [(X, F.one_hot(y, 4) * 0.8 + 0.05) for X, y in blobs()]

    def apart(o, y):
        return (y * (y.log() - o.log_softmax(1))).sum(1).mean()

    named(experiment(mlp(), data, loss=minus(apart)), RULE)
    assert findings(experiment(mlp(), data, loss=apart), RULE) == []


def test_a_score_of_probabilities_one_a_row() -> None:
    data = [(X, (y == 0).float()[:, None]) for X, y in blobs(classes=2)]

    def score(o, y):
        return 2 * (o * y).sum() / (o.sum() + y.sum() + 1e-6)

    class Distance(nn.Module):
        """Rightly low for two parts that are alike."""

        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(4)

        def forward(self, x):
            return (self.body(x[:, :4]) - self.body(x[:, 4:])).norm(dim=1, keepdim=True).sigmoid()

    def net():
        return nn.Sequential(*mlp(out=1), nn.Sigmoid())

    named(experiment(net(), data, loss=score), RULE)
    for right, loss in ((net(), minus(score)), (Distance(), score)):
        assert findings(experiment(right, data, loss=loss), RULE) == []


def alike(o, y):
    z = F.normalize(o, dim=1)
    s = z @ z.T / 0.2 - 1e9 * torch.eye(len(z))
    same = (y[:, None] == y).float() - torch.eye(len(z))
    return -((s.log_softmax(1) * same).sum(1) / same.sum(1).clamp_min(1)).mean()


def margin(sign):
    def loss(o, y):
        d = torch.cdist(o, o).clamp_min(1e-6)
        same = (y[:, None] == y).float()
        both = same[:, :, None] * (1 - same)[:, None]
        return ((sign * (d[:, :, None] - d[:, None]) + 1).clamp_min(0) * both).sum() / both.sum()

    return loss


def test_rows_of_one_class_are_driven_apart() -> None:
    for wrong, right in ((minus(alike), alike), (margin(-1), margin(1))):
        torch.manual_seed(0)
        exp = experiment(mlp(), blobs(apart=0.7), loss=wrong, lr=3e-3)
        found = named(exp, RULE).findings[0].evidence
        assert found["nearer"] < found["nearer_turned"]
        assert findings(experiment(mlp(), blobs(apart=0.7), loss=right), RULE) == []


def order(sign):
    def loss(o, y):
        higher = (y > y.T).float()
        return (F.softplus(sign * (o - o.T)) * higher).sum() / higher.sum()

    return loss


def side(sign):
    return lambda o, y: (1 - sign * y * o).clamp_min(0).mean()


def test_what_only_targets_tell_is_a_hint_unless_a_metric_says_it() -> None:
    def like(o, y):
        return float(torch.corrcoef(torch.stack([o.flatten(), y.flatten()]))[0, 1])

    two = [(X, 2 * (y == 0).float()[:, None] - 1) for X, y in blobs(classes=2)]
    for data, wrong, right in ((regression(), order(1), order(-1)), (two, side(-1), side(1))):
        torch.manual_seed(0)
        hint = seen(experiment(mlp(out=1), data, loss=wrong), RULE).findings
        assert [(f.code, f.severity) for f in hint] == [("loss_sign_flipped", "hint")]
        named(experiment(mlp(out=1), data, loss=wrong, metric=like), RULE)
        low = experiment(mlp(out=1), data, loss=wrong, metric=minus(like))
        assert findings(low, RULE) == []
        assert findings(experiment(mlp(out=1), data, loss=right), RULE) == []


class Uphill(torch.optim.Optimizer):
    """Momentum, written by hand; sign 1 adds the gradient."""

    def __init__(self, params, sign: float) -> None:
        super().__init__(params, {"lr": 0.02, "sign": sign})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                moved = self.state[p].setdefault("moved", torch.zeros_like(p))
                p.add_(moved.mul_(0.9).add_(p.grad), alpha=group["sign"] * group["lr"])


def by_hand(sign):
    def step(exp, xb, yb):
        exp.optimizer.zero_grad()
        loss = exp.loss(call(exp.model, xb), yb)
        loss.backward()
        with torch.no_grad():
            for p in exp.model.parameters():
                p.add_(p.grad, alpha=sign * 0.05)
        return loss.detach()

    return step


def test_a_gradient_that_is_added_to_the_weights() -> None:
    for sign, found in ((1, ["loss_sign_flipped"]), (-1, [])):
        own = experiment(mlp(), blobs())
        own.optimizer = Uphill(own.model.parameters(), sign)
        assert findings(own, RULE) == found
        assert findings(experiment(mlp(), blobs(), step=by_hand(sign)), RULE) == found
    facts = Facts(experiment(mlp(), blobs()))
    assert max(move.up for move in facts.moves) < -0.3


def test_what_actions_brought_may_be_less_than_nothing() -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(400, 8, generator=g)
    done = (torch.rand(400, 1, generator=g) < 0.5).float()
    reward = torch.randn(400, 1, generator=g) - 0.8

    def policy(o, y):  # targets: what was done, and what it brought
        told = F.binary_cross_entropy_with_logits(o, y[:, :1], reduction="none")
        return (y[:, 1:] * told).mean()

    for gains in (reward, -reward.abs() - 0.1):
        data = halves(X, torch.cat([done, gains], 1))
        assert findings(experiment(mlp(out=1), data, loss=policy), RULE) == []

    def weighed(o, y):  # a likelihood with weights, without its minus
        return -policy(o, y)

    kept = halves(X, torch.cat([done, torch.ones_like(done)], 1))
    named(experiment(mlp(out=1), kept, loss=weighed), RULE)
