"""Linear layers in a row are found where a ReLU helps; bottlenecks are not."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import torch
from tests.doctor.patients import blobs, cnn, experiment, findings, images, mlp, seen
from tests.doctor.wired import WORDS, Attention, cured, next_words, words_loss
from torch import nn

from gipi.doctor.facts import Facts
from gipi.doctor.look import look_before
from gipi.doctor.rules.missing_nonlinearity import RULE, in_a_row


def rings(rows=500, seed=0):
    """Return two classes that differ in their distance from the origin."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(rows, 2, generator=g)
    y = (X.norm(dim=1) > 1.2).long()
    n = rows * 3 // 5
    return (X[:n], y[:n]), (X[n:], y[n:])


def linear(*widths):
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(a, b) for a, b in pairwise(widths)])


def test_a_deep_linear_net_is_named_and_changed_on_request() -> None:
    exp = experiment(linear(2, 24, 24, 2), rings(), epochs=10)
    treatment = cured(exp, RULE, apply=[RULE.code])
    assert treatment.proof.gain > 0
    assert treatment.changes == ["a ReLU stands behind 0, 1"]


def test_flattening_and_dropout_do_not_hide_it() -> None:
    model = nn.Sequential(nn.Unflatten(1, (2, 1)), nn.Linear(1, 8), nn.Flatten(), nn.Dropout(0.1),
                          nn.Linear(16, 2))  # fmt: skip
    assert findings(experiment(model, rings(), epochs=10), RULE) == [RULE.code]


def test_dropout_of_nothing_and_an_average_pool_do_not_hide_it() -> None:
    model = linear(2, 24, 2)
    model.insert(1, nn.Dropout(0.0))
    assert findings(experiment(model, rings(), epochs=10), RULE) == [RULE.code]
    pooled = nn.Sequential(nn.Conv2d(1, 6, 3), nn.AvgPool2d(2), nn.Conv2d(6, 6, 3), nn.Flatten(),
                           nn.Dropout(0.0), nn.LazyLinear(4))  # fmt: skip
    pooled(images()[0][0][:1])
    pairs = in_a_row(Facts(experiment(pooled, images())))
    assert [(a.module, b.module) for a, b in pairs] == [("0", "2"), ("2", "5")]


def test_nets_with_activations_bottlenecks_and_linear_questions_are_silent() -> None:
    assert findings(experiment(mlp(), blobs()), RULE) == []
    assert findings(experiment(cnn(), images()), RULE) == []
    assert findings(experiment(Attention(), next_words(), loss=words_loss), RULE) == []
    code = nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 8))
    assert findings(experiment(code, [(X, X) for X, _ in blobs()]), RULE) == []
    narrow = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1),
                           nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),
                           nn.LazyLinear(4))  # fmt: skip
    narrow(images()[0][0][:1])
    assert findings(experiment(narrow, images()), RULE) == []


def test_what_a_linear_question_does_not_need_is_a_hint() -> None:
    lines = [(X, X @ torch.ones(8, 1)) for X, _ in blobs()]
    (found,) = seen(experiment(linear(8, 16, 1), lines), RULE).findings
    assert (found.severity, found.confirmed) == ("hint", False)
    assert "one layer in their place would do" in found.message


class Mean(nn.Module):
    """A pool between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.head = nn.Linear(1, 16), nn.Linear(16, 1)

    def forward(self, x):
        return self.head(self.each(x[..., None]).mean(1))


def test_a_pool_between_layers_that_does_no_harm_is_silent() -> None:
    lines = [(X, X.mean(1, keepdim=True)) for X, _ in blobs()]
    assert findings(experiment(Mean(), lines), RULE) == []


def test_what_could_not_be_trained_is_not_told_of_and_pairs_at_once_alone_are_named() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.next, self.head = nn.Linear(1, 16), nn.Linear(16, 16), nn.Linear(16, 1)

        def forward(self, x):
            return self.head(self.next(self.each(x[..., None])).mean(1))

    lines = [(X, X.mean(1, keepdim=True)) for X, _ in blobs()]
    (found,) = seen(experiment(Pooled(), lines), RULE).findings
    assert found.where == ("each",)
    assert "each -> next" in found.message
    assert "next -> head" not in found.message
    assert found.advice.startswith("put one layer in their place")

    def fails(*_):
        raise RuntimeError

    exp = experiment(linear(8, 16, 1), [(X, X @ torch.ones(8, 1)) for X, _ in blobs()])
    facts = Facts(exp)
    (found,) = RULE.before(facts)
    exp.loss = fails
    assert RULE.confirm(facts, found) is None


class Stream(nn.Module):
    """A residual net: what its first layer says goes into a branch, and past it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.open, self.branch, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, x):
        h = self.open(x)
        return self.head(h + torch.relu(self.branch(h)))


def test_the_first_layer_of_a_residual_stream_is_no_second_one_too_many() -> None:
    X = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    y = X @ torch.ones(8, 1) / 8**0.5
    splits = [(X[:300], y[:300]), (X[300:], y[300:])]
    assert findings(experiment(Stream(), splits), RULE) == []


def test_what_a_residual_stream_begins_with_is_only_suspected_in_a_net_that_never_bends() -> None:
    class Straight(Stream):
        def forward(self, x):
            h = self.open(x)
            return self.head(h + self.branch(h))

    lines = [(X, X @ torch.ones(8, 1)) for X, _ in blobs()]
    assert list(RULE.before(Facts(experiment(Stream(), lines)))) == []
    (found,) = RULE.before(Facts(experiment(Straight(), lines)))
    assert found.where == ("open",)


def test_where_no_training_can_be_afforded_only_layers_at_once_are_a_hint() -> None:
    lines = [(X, X @ torch.ones(8, 1)) for X, _ in blobs()]
    notes = SimpleNamespace(broken={}, unlooked=[])

    def told(net):
        return list(look_before(Facts(experiment(net, lines)), (RULE,), notes, allowed=20))

    assert told(Mean()) == []
    (found,) = told(linear(8, 16, 1))
    assert (found.severity, found.confirmed) == ("hint", False)
    assert "short training" not in found.message


def test_a_layer_before_one_that_is_tied_to_an_embedding_is_silent() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.emb, self.body = nn.Embedding(WORDS, 24), nn.GRU(24, 12, batch_first=True)
            self.turn, self.head = nn.Linear(12, 24), nn.Linear(24, WORDS)
            self.head.weight = self.emb.weight

        def forward(self, x):
            return self.head(self.turn(self.body(self.emb(x))[0]))

    assert findings(experiment(Tied(), next_words(), loss=words_loss), RULE) == []
