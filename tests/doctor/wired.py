"""Nets of tokens and rows for the tests of wiring, and what a test of a rule asks."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from tests.doctor.patients import findings, seen
from torch import Tensor, nn

from gipi.doctor import Experiment, Treatment
from gipi.doctor.diagnose import Diagnosis

WORDS = 12


def named(exp: Experiment, rule: Any) -> Diagnosis:
    """Return the diagnosis of one rule, whose first finding is a confirmed problem of its own."""
    diagnosis = seen(exp, rule)
    assert diagnosis.findings, "nothing was found"
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == (rule.code, "problem", True)
    assert first.message
    assert first.advice
    assert all(r.edit for r in first.repairs[:1])
    return diagnosis


def cured(exp: Experiment, rule: Any, *, apply: Iterable[str] = ()) -> Treatment:
    """Return the treatment of what a rule names: afterwards it finds nothing, and undo works."""
    diagnosis = named(exp, rule)
    before = [p.detach().clone() for p in exp.model.parameters()]
    treatment = diagnosis.repair(apply=apply)
    assert treatment is not None, diagnosis.why_not
    assert treatment.cured == [rule.code]
    assert findings(treatment.experiment, rule) == []
    kept = copy.copy(treatment)
    assert treatment.undo() is exp
    assert all(torch.equal(p, q) for p, q in zip(exp.model.parameters(), before, strict=True))
    return kept


def next_words(rows: int = 160, places: int = 10, seed: int = 0) -> tuple[Any, Any]:
    """Return rows of words that mostly count on, and the next words."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(WORDS, (rows, 1), generator=g)
    for _ in range(places):
        jump = torch.where(torch.rand(rows, 1, generator=g) < 0.8, 1, 5)
        x = torch.cat([x, (x[:, -1:] + jump) % WORDS], 1)
    X, y = x[:, :-1], x[:, 1:]
    n = rows * 3 // 4
    return (X[:n], y[:n]), (X[n:], y[n:])


def words_loss(said: Tensor, y: Tensor) -> Tensor:
    """Return cross-entropy at every place."""
    return F.cross_entropy(said.reshape(-1, said.shape[-1]), y.reshape(-1))


class Attention(nn.Module):
    """A block of attention over tokens; outputs at every place, or the mean over real places.

    mask  padding (token 0): "right", "inverted", "" for none
    how   "hand" with a softmax, "torch" by scaled_dot_product_attention
    """

    def __init__(self, vocabulary=WORDS, out=WORDS, *, places=16, width=16, causal=True,
                 every=True, positions=True, mask="", how="hand", over=-1) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Embedding(places, width) if positions else None
        self.qkv, self.head = nn.Linear(width, 3 * width), nn.Linear(width, out)
        self.causal, self.every, self.mask, self.how, self.over = causal, every, mask, how, over

    def forward(self, x: Tensor) -> Tensor:
        T = x.shape[1]
        h = self.embed(x)
        if self.place is not None:
            h = h + self.place(torch.arange(T))
        real = (x != 0) if self.mask != "inverted" else (x == 0)
        sight = torch.ones(len(x), T, T, dtype=torch.bool)
        if self.causal:
            sight = sight.tril()
        if self.mask:
            sight = sight & real[:, None, :]
        q, k, v = self.qkv(h).chunk(3, -1)
        if self.how == "torch":
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=sight)
        else:
            score = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
            seen = score.masked_fill(~sight, -1e9).softmax(self.over) @ v
        h = h + seen
        if self.every:
            return self.head(h)
        weight = (x != 0)[..., None].float() if self.mask else torch.ones_like(h[..., :1])
        return self.head((h * weight).sum(1) / weight.sum(1).clamp_min(1))


class Reading(nn.Module):
    """An embedding, a recurrent layer, and a head on the last real place, or the last of all."""

    def __init__(self, vocabulary: int = 40, out: int = 2, *, lengths=True, width=16) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.head, self.lengths = nn.Linear(width, out), lengths

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.cell(self.embed(x))
        if not self.lengths:
            return self.head(h[:, -1])
        last = (x != 0).sum(1).clamp_min(1) - 1
        return self.head(h[torch.arange(len(h)), last])
