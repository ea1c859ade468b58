"""Padding that is read, or counted by the loss, is found; nets that leave it out are not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.doctor.patients import Reader, experiment, findings, seen, token_rows
from tests.doctor.wired import Attention, Reading, cured, named, next_words
from torch import nn

from gipi.doctor.rules import wrong_mask
from gipi.doctor.rules.padding import RULE
from gipi.doctor.sequences import PadsFirst, Trimmed


def long_pads():
    """Return rows with much padding."""
    return [(F.pad(X, (0, 20)), y) for X, y in token_rows(400, length=10)]


def tailed(rows=160, pad=0):
    """Return rows of next words, of which a half is padding behind the end."""
    found = []
    for X, y in next_words(rows):
        ends = torch.arange(len(X)) % 5 + 2
        gone = torch.arange(X.shape[1])[None] >= ends[:, None]
        found.append(((X + 1).masked_fill(gone, pad), (y + 1).masked_fill(gone, pad)))
    return found


def words(o, y, ignore=-100):
    return F.cross_entropy(o.reshape(-1, o.shape[-1]), y.reshape(-1), ignore_index=ignore)


def test_a_state_behind_the_padding_is_named_and_cured() -> None:
    torch.manual_seed(0)
    exp = experiment(Reading(lengths=False), long_pads(), epochs=3, lr=5e-3)
    treatment = cured(exp, RULE)
    assert treatment.proof.gain > 0


def test_it_is_no_wrong_mask() -> None:
    torch.manual_seed(0)
    exp = experiment(Reading(lengths=False), long_pads())
    assert findings(exp, wrong_mask.RULE) == []


def test_what_the_user_calls_padding_is_at_least_a_hint() -> None:
    torch.manual_seed(0)
    net = Attention(40, 2, causal=False, every=False, places=40)
    found = seen(experiment(net, long_pads(), declared={"tokens": {"pad": 0}}), RULE).findings
    assert [f.code for f in found] == ["padding"]


def test_a_loss_over_padding_is_named_and_cured() -> None:
    torch.manual_seed(0)
    exp = experiment(Attention(13, 13, places=12), tailed(), loss=words, epochs=2)
    diagnosis = named(exp, RULE)
    assert "targets are padding" in diagnosis.findings[0].message
    change = diagnosis.findings[0].repair.change
    change(exp)
    assert not [f for f in seen(exp, RULE).findings if "targets" in f.message]


def test_a_loss_that_leaves_padding_out_is_silent() -> None:
    net = Attention(13, 13, places=12)
    exp = experiment(net, tailed(), loss=lambda o, y: words(o, y, ignore=0))
    assert findings(exp, RULE) == []


def test_nets_that_leave_padding_out_and_rows_without_any_are_silent() -> None:
    torch.manual_seed(0)
    for net in (Reading(), Reader(), Attention(40, 2, causal=False, every=False, mask="right")):
        assert findings(experiment(net, token_rows()), RULE) == []
    full = [(X.clamp(min=2), y) for X, y in token_rows()]
    assert findings(experiment(Reading(lengths=False), full), RULE) == []


def test_wrappers_show_each_row_as_if_it_stood_alone() -> None:
    torch.manual_seed(0)
    (X, _), _ = token_rows(20)
    net = Reading(lengths=False)
    alone = torch.cat([net(row[row != 0][None]) for row in X])
    assert torch.allclose(Trimmed(net, 0, front=False)(X), alone, atol=1e-6)
    turned = PadsFirst(nn.Identity(), 0)(X)
    assert (turned[:, -1] != 0).all()
    assert [r[r != 0].tolist() for r in turned] == [r[r != 0].tolist() for r in X]
    turned = Trimmed(net, 0, front=True)(X.flip(1))[0]
    assert torch.allclose(turned, net(X[:1][X[:1] != 0].flip(0)[None])[0], atol=1e-6)
    tagger = Attention(40, 3, causal=False)
    said = Trimmed(tagger, 0, front=False)(X)
    first = X[0][X[0] != 0]
    assert said.shape == (*X.shape, 3)
    assert torch.allclose(said[0, : len(first)], tagger(first[None])[0], atol=1e-6)
