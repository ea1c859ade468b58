"""Nets that see what they are to foretell are found and masked; taggers may look both ways."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import experiment, findings
from tests.doctor.wired import WORDS, Attention, cured, named, next_words, words_loss
from torch import nn

from gipi.doctor.rules.causal_leak import RULE


class Encoder(nn.Module):
    """Torch's own encoder, with a mask or without."""

    def __init__(self, *, masked: bool) -> None:
        super().__init__()
        self.embed, self.masked = nn.Embedding(WORDS, 16), masked
        layer = nn.TransformerEncoderLayer(16, 2, 16, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, WORDS)

    def forward(self, x):
        mask = torch.ones(x.shape[1], x.shape[1]).triu(1).bool() if self.masked else None
        return self.head(self.body(self.embed(x), mask=mask))


class Conv(nn.Module):
    def __init__(self, *, left: bool) -> None:
        super().__init__()
        self.embed, self.left, self.head = nn.Embedding(WORDS, 16), left, nn.Linear(16, WORDS)
        self.conv = nn.Conv1d(16, 16, 3, padding=0 if left else 1)

    def forward(self, x):
        h = self.embed(x).transpose(1, 2)
        h = self.conv(F.pad(h, (2, 0)) if self.left else h)
        return self.head(h.relu().transpose(1, 2))


class Both(nn.Module):
    def __init__(self, *, both: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 16)
        self.cell = nn.GRU(16, 16, batch_first=True, bidirectional=both)
        self.head = nn.Linear(32 if both else 16, WORDS)

    def forward(self, x):
        return self.head(self.cell(self.embed(x))[0])


@pytest.mark.parametrize("model", [
    lambda: Attention(causal=False), lambda: Attention(causal=False, how="torch"),
    lambda: Encoder(masked=False), lambda: Conv(left=False),
])  # fmt: skip
def test_leaks_are_named_and_masked(model) -> None:
    torch.manual_seed(0)
    cured(experiment(model(), next_words(), loss=words_loss, epochs=2), RULE)


def test_reading_from_both_ends_is_made_one_way() -> None:
    torch.manual_seed(0)
    cured(experiment(Both(both=True), next_words(), loss=words_loss, epochs=1), RULE)


def test_two_layers_that_read_from_both_ends_need_a_person() -> None:
    model = Both(both=True)
    model.cell = nn.GRU(16, 16, 2, batch_first=True, bidirectional=True)
    exp = experiment(model, next_words(), loss=words_loss, epochs=1)
    diagnosis = named(exp, RULE)
    assert diagnosis.repair() is None
    assert "another way" in diagnosis.why_not


def test_a_loss_that_shifts_and_outputs_with_classes_first() -> None:
    (X, _), (Xv, _) = next_words()

    def shifting(o, y):
        return F.cross_entropy(o[:, :-1].reshape(-1, WORDS), y[:, 1:].reshape(-1))

    named(experiment(Attention(causal=False), ((X, X), (Xv, Xv)), loss=shifting), RULE)
    assert findings(experiment(Attention(), ((X, X), (Xv, Xv)), loss=shifting), RULE) == []
    turned = nn.Sequential(Attention(causal=False), nn.Flatten(2))
    exp = experiment(turned, next_words(), loss=lambda o, y: F.cross_entropy(o.mT, y))
    named(exp, RULE)


@pytest.mark.parametrize("model", [
    Attention, lambda: Attention(how="torch"), lambda: Encoder(masked=True),
    lambda: Conv(left=True), lambda: Both(both=False),
])  # fmt: skip
def test_models_that_do_not_look_ahead_are_silent(model) -> None:
    assert findings(experiment(model(), next_words(), loss=words_loss), RULE) == []


def test_taggers_autoencoders_and_masked_words_may_look_both_ways() -> None:
    (X, y), (Xv, yv) = next_words()
    both = Attention(causal=False)
    tags = [(X, X % 3), (Xv, Xv % 3)]
    assert findings(experiment(both, tags, loss=words_loss), RULE) == []
    assert findings(experiment(both, [(X, X), (Xv, Xv)], loss=words_loss), RULE) == []
    hidden = torch.rand(X.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    asked = [(X.masked_fill(hidden, 0), X.masked_fill(~hidden, -100)), None]
    assert findings(experiment(both, asked, loss=words_loss), RULE) == []
    declared = {"causal": False}
    assert findings(experiment(both, next_words(), loss=words_loss, declared=declared), RULE) == []
    assert y.shape == X.shape
    assert yv.shape == Xv.shape
