"""Random weights that stand still are found; learned, declared and constant ones are not."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.doctor.patients import blobs, experiment, findings, mlp, seen
from tests.doctor.rules.test_params_not_in_optimizer import learned, rings
from tests.doctor.wired import cured, named
from torch import nn

from gipi.doctor.experiment import plain_step
from gipi.doctor.facts import Facts
from gipi.doctor.rules.frozen_layer import RULE


def narrow():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 4)
    )


def frozen(model, *names):
    for name, p in model.named_parameters():
        if name.startswith(names):
            p.requires_grad_(requires_grad=False)
    return model


def test_a_random_layer_that_stands_still() -> None:
    exp = experiment(frozen(narrow(), "0."), blobs(apart=1.0), epochs=4)
    assert set(named(exp, RULE).findings[0].where) == {"0.weight", "0.bias"}
    cured(exp, RULE)


def test_layers_that_the_optimizer_does_not_have_either() -> None:
    model = frozen(narrow(), "0.", "2.")
    exp = experiment(model, blobs(apart=1.0), epochs=4)
    exp.optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.01)
    cured(exp, RULE)


def test_a_model_without_any_trainable_weight() -> None:
    exp = experiment(frozen(narrow(), ""), blobs(), epochs=2)
    assert "every weight" in named(exp, RULE).findings[0].message


def test_learned_and_declared_weights_may_stand_still() -> None:
    data = rings()
    torch.manual_seed(0)
    model = learned(mlp(out=2), data)
    assert findings(experiment(frozen(model, "0."), data), RULE) == []
    exp = experiment(frozen(narrow(), "0."), data, declared={"frozen": ["0.*"]})
    assert findings(exp, RULE) == []
    assert findings(experiment(mlp(), data), RULE) == []


def test_tables_of_positions_and_running_means_of_weights_are_silent() -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.randn(1, 8), requires_grad=False)
            self.net = mlp()
            self.slow = copy.deepcopy(self.net).requires_grad_(requires_grad=False)

        def forward(self, x):
            return (self.net if self.training else self.slow)(x + self.place)

    def step(exp, xb, yb):
        loss = plain_step(exp, xb, yb)
        for s, p in zip(exp.model.slow.parameters(), exp.model.net.parameters(), strict=True):
            s.data.lerp_(p.data, 0.1)
        return loss

    assert findings(experiment(Placed(), blobs(), step=step), RULE) == []


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden = nn.Embedding(30, 8, padding_idx=0), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.hidden(self.words(x)).tanh().mean(1))


def test_an_embedding_as_it_was_drawn_is_freed_with_the_layers_behind_it() -> None:
    words = torch.randint(0, 30, (300, 6), generator=torch.Generator().manual_seed(0))
    rows = (words[:200], words[:200, 0] % 3), (words[200:], words[200:, 0] % 3)

    def where(*names, table=None):
        torch.manual_seed(0)
        model = Tagger()
        if table is not None:
            with torch.no_grad():
                model.words.weight.copy_(table)
        found = list(RULE.before(Facts(experiment(frozen(model, *names), rows))))
        return [set(f.where) for f in found]

    layer = {"hidden.weight", "hidden.bias"}
    assert where("words", "hidden") == [{"words.weight", *layer}]
    learned_elsewhere = 0.4 * torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    assert where("words", "hidden", table=learned_elsewhere) == [layer]
    assert where("words") == [{"words.weight"}]
    assert where("words", table=learned_elsewhere) == []


class Bag(nn.Module):
    def __init__(self, wide: int) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(60, wide, padding_idx=0), nn.Linear(wide, 4)

    def forward(self, x):
        return self.head(self.words(x).mean(1))


@pytest.mark.parametrize("seed", range(3))
def test_a_random_embedding_alone_is_named_where_learning_it_tells_more(seed) -> None:
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (700,), generator=g)
    about = torch.rand(700, 12, generator=g) < 0.4  # 15 words a topic, others are of any
    own = 15 * y[:, None] + torch.randint(15, (700, 12), generator=g)
    X = torch.where(about, own, torch.randint(60, (700, 12), generator=g))
    data = (X[:500], y[:500]), (X[500:], y[500:])

    def found(wide, *names):
        torch.manual_seed(seed)
        exp = experiment(frozen(Bag(wide), *names), data, lr=5e-3, epochs=20)
        return [(f.severity, f.where) for f in seen(exp, RULE).findings]

    assert found(8, "words") == [("problem", ("words.weight",))]
    assert found(8) == []


def test_random_vectors_of_places_may_stay() -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(30, 16), nn.Embedding(6, 16)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            places = self.places(torch.arange(6).expand_as(x))
            return self.head((self.words(x) * places).mean(1))

    words = torch.randint(0, 30, (600, 6), generator=torch.Generator().manual_seed(0))
    rows = (words[:400], words[:400, 2] % 3), (words[400:], words[400:, 2] % 3)
    torch.manual_seed(0)
    assert findings(experiment(frozen(Placed(), "places"), rows, epochs=20), RULE) == []
    torch.manual_seed(0)
    assert findings(experiment(frozen(Placed(), "words"), rows, epochs=20), RULE) != []
