"""Weights far too large or small are found and drawn anew; usual rules of drawing are silent."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import (
    Recurrent,
    blobs,
    cnn,
    experiment,
    findings,
    halves,
    images,
    mlp,
    regression,
    seen,
    waves,
)
from tests.doctor.wired import Attention, cured, next_words, words_loss
from torch import nn

from gipi.doctor.facts import Facts
from gipi.doctor.late import KEY
from gipi.doctor.reinit import renew
from gipi.doctor.rules.bad_init_scale import RULE, before, gain_of


def scaled(model: nn.Module, factor: float, only: str = "") -> nn.Module:
    torch.manual_seed(0)
    for m in model.modules():
        if isinstance(m, (nn.Linear, nn.Conv2d)):
            m.reset_parameters()
    with torch.no_grad():
        for n, p in model.named_parameters():
            if p.ndim > 1 and only in n:
                p.mul_(factor)
    return model


@pytest.mark.parametrize(("factor", "only"), [(20.0, ""), (1e-3, ""), (100.0, "2.")])
def test_weights_of_a_wrong_size(factor, only) -> None:
    treatment = cured(experiment(scaled(mlp(), factor, only), blobs(), epochs=3, lr=3e-3), RULE)
    assert treatment.proof.gain > 0


@pytest.mark.parametrize(("spread", "asked"), [(1.9, True), (0.6, False)])
def test_a_usual_spread_excuses_a_head_only_where_the_loss_is_usual(spread, asked) -> None:
    (X, y), val = regression()
    net = scaled(mlp(out=1), 20.0, "2.")
    size = spread / float(net(X).detach().std())
    exp = experiment(net, ((size * X, y), val))
    with torch.no_grad():
        net[0].bias.mul_(size)
    assert 0.3 < float(net(size * X).detach().std()) < 2
    assert [f.where for f in before(Facts(exp))] == [("2.weight",)] * asked


def test_embeddings_far_too_large() -> None:
    torch.manual_seed(0)
    net = Attention()
    with torch.no_grad():
        net.embed.weight.mul_(100)
    cured(experiment(net, next_words(), loss=words_loss, epochs=3), RULE)


@pytest.mark.parametrize("draw", [
    nn.init.xavier_uniform_, nn.init.kaiming_normal_,
    lambda w: nn.init.orthogonal_(w, 1.4), lambda w: nn.init.normal_(w, std=0.1),
])  # fmt: skip
def test_usual_draws_are_silent(draw) -> None:
    torch.manual_seed(0)
    model = mlp()
    for p in model.parameters():
        if p.ndim > 1:
            draw(p)
    assert findings(experiment(model, blobs()), RULE) == []


def test_small_heads_images_tied_weights_and_far_targets_are_silent() -> None:
    assert findings(experiment(scaled(mlp(out=1), 0.01, "2."), regression()), RULE) == []
    assert findings(experiment(cnn(), images()), RULE) == []
    tied = Attention()
    tied.head.weight = tied.embed.weight
    nn.init.normal_(tied.embed.weight, std=0.25)  # torch's own of 1 says a loss six times a guess's
    assert findings(experiment(tied, next_words(), loss=words_loss), RULE) == []
    far = mlp(out=1)
    nn.init.constant_(far[-1].bias, 200.0)
    data = [(X, y + 200) for X, y in regression()]
    assert findings(experiment(far, data), RULE) == []


def test_large_weights_that_keep_the_size_of_signals_are_silent() -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(*[m for _ in range(5) for m in (nn.LazyLinear(32), nn.Tanh())],
                         nn.LazyLinear(4))  # fmt: skip
    train, val = blobs()
    small = ((0.05 * train[0], train[1]), (0.05 * val[0], val[1]))
    exp = experiment(deep, small)
    renew(exp)  # makes up for inputs that are small
    assert gain_of(exp.model[0].weight.detach(), exp.model[0]) > 4
    assert list(before(Facts(exp))) == []


def test_a_deep_net_is_drawn_by_what_passes_through_it() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 48))
    for _ in range(8):
        net.extend([nn.ReLU(), nn.Linear(48, 48)])
    net.extend([nn.ReLU(), nn.Linear(48, 4)])
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            layer.weight.data *= 2.2
    exp = experiment(net, blobs(), lr=0.01, optimizer="sgd", epochs=8)
    treatment = seen(exp, RULE).repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.7  # torch's own draw hardly learns: 1.38 says nothing


@pytest.mark.parametrize(("gain", "past", "many"), [(0.5, 0, 1), (1, 0, 0), (0.5, 1, 0)])
def test_layers_each_a_little_small_are_named_together(gain, past, many) -> None:
    """Four of half torch's own size leave nothing of what comes in; a stream past them keeps it.

    What they cost is known at the end: a run that makes up for it is not told of.
    """

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.open, self.head = nn.Linear(8, 32), nn.Linear(32, 1)
            self.body = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))
            with torch.no_grad():
                for m in self.body:
                    m.weight.mul_(gain)
                    m.bias.zero_()

        def forward(self, x):
            x = self.open(x).tanh()
            for m in self.body:
                x = past * x + m(x).tanh()
            return self.head(x)

    exp = experiment(Deep(), regression(), lr=0.05, optimizer="sgd", epochs=20)
    diagnosis = seen(exp, RULE, train=True)
    assert [f.severity for f in diagnosis.findings] == ["problem"] * many
    if many:
        evidence = diagnosis.findings[0].evidence
        assert 0.04 < evidence["together"] < 0.08  # 0.5 to the fourth power
        assert evidence["loss_changed_at_the_end"] < evidence["loss_at_the_end"]
    quick = experiment(Deep(), regression(), lr=3e-3, epochs=20)
    assert seen(quick, RULE, train=True).findings == []


class Weighted(nn.Module):
    """A linear layer of the user's own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, x):
        return nn.functional.linear(x, self.weight)


@pytest.mark.parametrize("layer", [Weighted, nn.Linear])
def test_maps_that_begin_as_a_mean_of_the_past_are_left_alone(layer) -> None:
    """A series apart in its trend and the rest, each with a map that begins at 1/L."""

    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trend, self.rest = layer(96, 24), layer(96, 24)
            for m in (self.trend, self.rest):
                nn.init.constant_(m.weight, 1 / 96)

        def forward(self, x):
            trend = nn.functional.avg_pool1d(x[:, None], 25, 1, 12, count_include_pad=False)[:, 0]
            return self.rest(x - trend) + self.trend(trend)

    t = torch.arange(1000.0)
    series = (t * 6.28 / 24).sin() + 0.1 * torch.randn(1000, generator=torch.manual_seed(0))
    rows = series.unfold(0, 120, 1)
    exp = experiment(Apart(), halves(rows[:, :96], rows[:, 96:]), lr=1e-3, epochs=3)
    assert seen(exp, RULE, train=True).findings == []


def test_large_weights_that_learn_fast_and_by_heart_are_left_to_the_end() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 2.2 * torch.randn(15, 6, generator=generator)
    of = torch.randint(0, 15, (900,), generator=generator)
    X = centres[of] + torch.randn(900, 6, generator=generator)
    X, y = (X - X.mean(0)) / X.std(0), of % 5

    def left_open(spread, epochs):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5)
        )
        for layer in (model[0], model[2]):
            nn.init.normal_(layer.weight, std=spread or layer.in_features**-0.5)
        rows = (X[:500], y[:500]), (X[500:], y[500:])
        exp = experiment(model, rows, epochs=epochs, optimizer="sgd", lr=0.1, batch_size=25)
        facts = Facts(exp)
        assert all(RULE.confirm(facts, f) is None for f in before(facts))
        return [question.finding.code for question in facts.notes.get(KEY, [])]

    assert left_open(1.2, 20) == ["bad_init_scale"]
    assert left_open(1.2, 200) == []  # its steps are more than the other side would be given
    assert left_open(None, 20) == []


class Own(nn.Module):
    """A layer of the user's own, whose matrix stands as it is multiplied, or turned."""

    def __init__(self, i: int, o: int, size: float, how: str) -> None:
        super().__init__()
        w = torch.randn(i, o) * size
        self.W, self.b = nn.Parameter(w if how == "@" else w.T.contiguous()), nn.Parameter(w[0] * 0)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "linear":
            return nn.functional.linear(x, self.W, self.b)
        return x @ (self.W if self.how == "@" else self.W.T) + self.b


def own(size: float | None, how: str = "@", out: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    parts = [(8, 64), (64, 64), (64, out)]
    made = [Own(i, o, size or (2 / i) ** 0.5, how) for i, o in parts]
    return nn.Sequential(made[0], nn.ReLU(), made[1], nn.ReLU(), made[2])


@pytest.mark.parametrize("how", ["@", "@ T", "linear"])
def test_own_layers_drawn_too_large(how) -> None:
    treatment = cured(experiment(own(1.0, how), blobs(), epochs=6), RULE)
    assert treatment.proof.gain > 0


@pytest.mark.parametrize("how", ["@", "linear"])
def test_own_layers_of_a_usual_size_are_silent(how) -> None:
    assert list(before(Facts(experiment(own(None, how), blobs())))) == []
    far = [(X, y + 200) for X, y in regression()]  # a far target, not the weights
    assert list(before(Facts(experiment(own(None, how, out=1), far)))) == []


def test_own_matrices_that_make_waves_are_silent() -> None:
    """Frequencies may be as large as they like: a sine says no more for it."""

    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.B, self.head = nn.Parameter(10 * torch.randn(8, 64)), nn.Linear(64, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head((x @ self.B).sin())

    assert list(before(Facts(experiment(Waves(), regression())))) == []
    far = [(X, y + 200) for X, y in regression()]
    assert list(before(Facts(experiment(Waves(), far)))) == []


def test_own_layers_that_divide_what_they_said_are_silent() -> None:
    """Unit weights and a division within forward are a way of their own (Jacot et al. 2018)."""

    class Divided(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            self.W, self.size = nn.Parameter(torch.randn(i, o)), i**-0.5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.W * self.size

    torch.manual_seed(0)
    net = nn.Sequential(Divided(8, 64), nn.ReLU(), Divided(64, 64), nn.ReLU(), Divided(64, 4))
    assert findings(experiment(net, blobs()), RULE) == []
    torch.manual_seed(0)
    net = nn.Sequential(Divided(8, 64), nn.Tanh(), Divided(64, 1))
    far = [(X, y + 200) for X, y in regression()]
    assert list(before(Facts(experiment(net, far)))) == []


def test_own_layers_drawn_far_too_small() -> None:
    treatment = cured(experiment(own(1e-3), blobs(), epochs=6, lr=3e-3), RULE)
    assert treatment.proof.gain > 0


def test_tied_tables_of_torchs_own_spread_make_scores_far_too_large() -> None:
    torch.manual_seed(0)
    tied = Attention()
    tied.head.weight = tied.embed.weight
    diagnosis = seen(experiment(tied, next_words(), loss=words_loss, epochs=3), RULE)
    assert ["embed.weight" in f.where for f in diagnosis.findings] == [True]
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.5 * treatment.before["loss"]


@pytest.mark.parametrize(
    ("leaf", "value", "many"), [("bias_ih_l0", 12.0, 1), ("bias_ih_l0", 1.0, 0)]
)
def test_biases_that_shut_a_gate_are_named_and_set_to_zero(leaf, value, many) -> None:
    """The update gate of a GRU that keeps what was there never takes anything in."""
    torch.manual_seed(0)
    net = Recurrent()
    net.body = nn.GRU(2, 16, batch_first=True)
    with torch.no_grad():
        getattr(net.body, leaf)[16:32] = value
    found = list(before(Facts(experiment(net, waves(), lr=5e-3))))
    assert [f.where for f in found] == [(f"body.{leaf}",)] * many
    for f in found:
        f.repair.change(exp := experiment(net, waves()))
        assert not getattr(exp.model.body, leaf).any()


def test_norms_that_shrink_are_set_to_one() -> None:
    torch.manual_seed(0)
    parts = [m for i in (8, 32, 32, 32)
             for m in (nn.Linear(i, 32), nn.LayerNorm(32), nn.ReLU())]  # fmt: skip
    net = nn.Sequential(*parts, nn.Linear(32, 4))
    for m in net:
        if isinstance(m, nn.LayerNorm):
            nn.init.constant_(m.weight, 0.01)
    treatment = cured(experiment(net, blobs(), lr=0.02, optimizer="sgd", epochs=6), RULE)
    assert treatment.proof.gain > 0
