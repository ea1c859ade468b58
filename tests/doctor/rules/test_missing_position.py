"""Attention that cannot see the order is found where order matters."""

from __future__ import annotations

import torch
from tests.doctor.patients import Reader, experiment, findings, seen, token_rows
from tests.doctor.wired import Attention, Reading, named, next_words, words_loss
from torch import nn

from gipi.doctor.rules.missing_position import RULE


def which_first(rows=600, seed=0):
    """Return rows of eight tokens with one 1 and one 2: the class is which comes first."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randint(3, 12, (rows, 8), generator=g)
    at = torch.rand(rows, 8, generator=g).argsort(1)[:, :2]
    X.scatter_(1, at[:, :1], 1)
    X.scatter_(1, at[:, 1:], 2)
    y = (at[:, 0] < at[:, 1]).long()
    n = rows * 3 // 4
    return (X[:n], y[:n]), (X[n:], y[n:])


def classifier(*, positions: bool):
    torch.manual_seed(0)
    return Attention(12, 2, causal=False, every=False, positions=positions, width=32)


def test_it_is_named_where_order_tells_the_class_and_the_change_sees_it() -> None:
    exp = experiment(classifier(positions=False), which_first(), lr=3e-3, epochs=8)
    diagnosis = named(exp, RULE)
    evidence = diagnosis.findings[0].evidence
    assert evidence["loss_changed"] < evidence["loss_as_is"]
    diagnosis.findings[0].repair.change(exp)
    assert findings(exp, RULE) == []


def test_a_language_model_without_places_is_seen_at_any_depth() -> None:
    net = nn.Sequential(Attention(positions=False, causal=True, out=12))
    assert findings(experiment(net, next_words(), loss=words_loss), RULE) == [RULE.code]


def test_where_order_says_nothing_it_is_a_hint() -> None:
    torch.manual_seed(0)
    net = Attention(40, 2, causal=False, every=False, positions=False, mask="right")
    exp = experiment(net, token_rows())
    assert [f.severity for f in seen(exp, RULE).findings] == ["hint"]
    assert seen(exp, RULE, train=True).findings == []  # the end of the run takes it back


def test_nets_with_places_without_attention_and_sets_of_vectors_are_silent() -> None:
    assert findings(experiment(classifier(positions=True), which_first()), RULE) == []
    assert findings(experiment(Reader(), token_rows()), RULE) == []
    assert findings(experiment(Reading(), token_rows()), RULE) == []
    assert findings(experiment(Attention(), next_words(), loss=words_loss), RULE) == []

    class Points(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.open, self.head = nn.Linear(3, 16), nn.Linear(16, 2)
            self.look = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x):
            h = self.open(x)
            return self.head((h + self.look(h, h, h, need_weights=False)[0]).mean(1))

    g = torch.Generator().manual_seed(0)
    y = torch.randint(2, (300,), generator=g)
    X = torch.randn(300, 8, 3, generator=g) * (1 + y[:, None, None])
    assert findings(experiment(Points(), ((X[:200], y[:200]), (X[200:], y[200:]))), RULE) == []
