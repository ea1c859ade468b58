"""Layers whose units begin equal are found and drawn anew; zero heads and branches are not."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import (
    Recurrent,
    blobs,
    experiment,
    findings,
    images,
    mlp,
    regression,
    seen,
    waves,
)
from tests.doctor.wired import cured, named
from torch import nn

from gipi.doctor.facts import Facts
from gipi.doctor.rules.bad_init_symmetric import RULE, drawn


def filled(model: nn.Module, value: float, *, biases: bool) -> nn.Module:
    torch.manual_seed(0)
    for p in model.parameters():
        if p.ndim > 1 or biases:
            nn.init.constant_(p, value)
    return model


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constant_weights(value, biases) -> None:
    exp = experiment(filled(mlp(), value, biases=biases), blobs(), epochs=5)
    treatment = cured(exp, RULE)
    assert treatment.after["loss"] < treatment.before["loss"]


def test_convolutions_and_recurrent_layers() -> None:
    conv = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))
    named(experiment(filled(conv, 0.05, biases=True), images()), RULE)
    for seed in range(3):  # units of one gate are alike; gates are not
        diagnosis = named(experiment(filled(Recurrent(), 0.1, biases=True), waves(seed=seed)), RULE)
        assert diagnosis.findings[0].evidence["stuck"]


def test_zero_heads_branches_positions_and_usual_weights_are_silent() -> None:
    assert findings(experiment(mlp(), blobs()), RULE) == []
    blank = mlp()
    nn.init.zeros_(blank[-1].weight)
    assert findings(experiment(blank, blobs()), RULE) == []

    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.open, self.head = nn.Linear(8, 16), nn.Linear(16, 1)
            self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)
            nn.init.zeros_(self.two.weight)
            nn.init.zeros_(self.head.weight)

        def forward(self, x):
            h = self.open(x)
            return self.head(h + self.two(self.one(h).relu()))

    assert findings(experiment(Branch(), regression()), RULE) == []
    one = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    single = [(X[:, :1], y) for X, y in regression()]
    assert findings(experiment(one, single), RULE) == []


@pytest.mark.parametrize(
    ("kind", "hidden", "more"),
    [(nn.LSTM, 1, {}), (nn.GRU, 1, {}), (nn.LSTM, 16, {}), (nn.LSTM, 16, {"proj_size": 2})],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch says how it runs them
def test_recurrent_layers_as_they_are_drawn_are_silent(kind, hidden, more) -> None:
    """Also where a gate has one unit, which is equal to none, and where a state is projected."""
    torch.manual_seed(0)
    net = Recurrent(hidden=hidden)
    net.body = kind(2, hidden, batch_first=True, **more)
    net.head = nn.Linear(more.get("proj_size", hidden), 2)
    exp = experiment(net, waves(), epochs=3)
    assert findings(exp, RULE) == []
    if hidden > 1:
        assert named(experiment(filled(net, 0.1, biases=True), waves()), RULE)


def test_recurrent_matrices_without_gates_are_drawn_orthogonal() -> None:
    exp = experiment(nn.ModuleDict({"rnn": nn.RNN(2, 8), "gru": nn.GRU(2, 8)}), blobs())
    for p in exp.model.parameters():
        nn.init.constant_(p, 0.1)
    drawn(("rnn.weight_hh_l0", "gru.weight_hh_l0"))(exp)
    W = exp.model["rnn"].weight_hh_l0.detach()
    assert torch.allclose(W @ W.T, torch.eye(8), atol=1e-5)
    assert float(exp.model["gru"].weight_hh_l0.detach().std()) > 0.1


class Towers(nn.Module):
    """A user's row times an item's, and a number for each."""

    def __init__(self, *, std: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.users, self.items = nn.Embedding(20, 4), nn.Embedding(20, 4)
        self.level = nn.Embedding(20, 1)
        nn.init.normal_(self.users.weight, 0, std)
        nn.init.zeros_(self.items.weight)
        nn.init.zeros_(self.level.weight)

    def forward(self, x):
        rows = self.users(x[:, 0]) * self.items(x[:, 1])
        return rows.sum(1, keepdim=True) + self.level(x[:, 1])


def pairs(n: int = 640) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    x, rows = torch.randint(0, 20, (n, 2), generator=g), torch.randn(2, 20, 3, generator=g)
    y = (rows[0][x[:, 0]] * rows[1][x[:, 1]]).sum(1, keepdim=True)
    return [(x[:512], y[:512]), (x[512:], y[512:])]


def test_two_towers_of_zeros_hold_each_other() -> None:
    treatment = cured(experiment(Towers(std=0.0), pairs(), epochs=30), RULE)
    assert treatment.after["loss"] < 0.7 * treatment.before["loss"]
    assert findings(experiment(Towers(std=0.1), pairs(), epochs=30), RULE) == []


class Gated(nn.Module):
    """A branch behind a gate that begins at zero, and a correction of low rank behind zeros."""

    def __init__(self, *, last: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.open, self.head = nn.Linear(8, 16), nn.Linear(16, 1)
        self.branch = nn.Parameter(torch.randn(16, 16) * last)
        self.gate = nn.Parameter(torch.zeros(()))
        self.low = nn.Parameter(torch.randn(2, 16))
        self.high = nn.Parameter(torch.zeros(16, 2))
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        h = torch.relu(self.open(x))
        h = h + self.gate * (h @ self.branch) + h @ self.low.T @ self.high.T
        return self.head(h)


@pytest.mark.parametrize("lr", [0.0, 1e-2])
def test_zeros_behind_others_get_their_gradient_later(lr) -> None:
    """Also where the first steps, of a rate that warms up, move nothing."""
    exp = experiment(Gated(last=0.2), regression(), lr=lr)
    assert findings(exp, RULE) == []
    found = seen(experiment(Gated(last=0.0), regression(), lr=lr), RULE)
    assert [set(f.where) for f in found.findings] == [{"branch", "gate"}]


def test_a_head_of_one_number_is_drawn_with_the_layers_before_it() -> None:
    def drawn_anew(head):
        model = mlp(out=1)
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim > 1 and (len(p) > 1 or head):
                    p.fill_(0.05)
        exp = experiment(model, regression())
        begin = model[-1].weight.clone()
        finding = next(iter(RULE.before(Facts(exp))))
        finding.repairs[0].change(exp)
        assert model[0].weight.std(0).min() > 0
        return not torch.equal(model[-1].weight, begin)

    assert drawn_anew(head=True)
    assert not drawn_anew(head=False)


@pytest.mark.parametrize(
    ("task", "zero", "named"), [("curve", (0, 2), True), ("clouds", (0,), False)]
)
def test_zeros_that_hide_the_rows_are_named_where_the_whole_run_pays_for_it(
    task, zero, named
) -> None:
    """Gradients of their units differ, by the layer behind: they come apart, at first as one."""
    torch.manual_seed(0)
    out, splits = (1, regression()) if task == "curve" else (4, blobs())
    net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(),
                        nn.Linear(32, out))  # fmt: skip
    for at in zero:
        nn.init.zeros_(net[at].weight)
    exp = experiment(net, splits, lr=3e-3, epochs=20)
    found = seen(exp, RULE, train=True).findings
    assert [f.where for f in found] == [("0.weight", "2.weight")] * named


@pytest.mark.parametrize("value", [0.05, None])
def test_own_matrices_whose_units_are_equal(value) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            sizes = [(8, 32), (32, 32), (32, 4)]
            self.W = nn.ParameterList(torch.randn(i, o) / i**0.5 for i, o in sizes)
            for w in self.W:
                nn.init.constant_(w, w[0, 0] if value is None else value)
            if value is None:
                for w in self.W:
                    nn.init.normal_(w, std=len(w) ** -0.5)

        def forward(self, x):
            for w in self.W[:-1]:
                x = torch.relu(x @ w)
            return x @ self.W[-1]

    exp = experiment(Own(), blobs(), epochs=6)
    if value is None:
        assert findings(exp, RULE) == []
    else:
        assert cured(exp, RULE).proof.gain > 0
