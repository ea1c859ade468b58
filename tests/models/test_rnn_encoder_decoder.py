"""Encoder and decoder: one call equals step by step, attention ignores padding, rows stay apart."""

from __future__ import annotations

import itertools
from dataclasses import asdict

import pytest
import torch
from torch import nn

from gipi import models
from gipi.core.errors import ModelError
from gipi.core.schema import Signature

V, W, S, T, PAD = 9, 7, 6, 4, 0
LENGTHS = (6, 1, 3)
TEXT = Signature(vocab=V, length=S, pad=PAD, outputs=W)
SERIES = Signature(numbers=2, length=S, pad=PAD, outputs=W)
NETS = list(itertools.product(("rnn", "lstm", "gru"), ("additive", "dot", "none")))


def build(cell="lstm", attention="additive", signature=TEXT, **more):
    options = {"topology": "encoder-decoder", "attention": attention, "width": 5, "embedding": 4,
               **more}  # fmt: skip
    return models.build(cell, signature, options=options).eval().double()


def source():
    found = torch.randint(1, V, (len(LENGTHS), S), generator=torch.Generator().manual_seed(0))
    for row, length in zip(found, LENGTHS, strict=True):
        row[length:] = PAD
    return found


def target(steps=T):
    return torch.randint(1, W, (len(LENGTHS), steps), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("cell", "attention"), NETS)
@pytest.mark.parametrize("more", [{}, {"layers": 2, "tied": True, "norm": "layer"},
                                  {"bidirectional": False}],
                         ids=["plain", "deep", "one-direction"])  # fmt: skip
def test_one_call_equals_step_by_step(cell, attention, more):
    model = build(cell, attention, **more)
    scores = model(source(), target())
    assert scores.shape == (len(LENGTHS), T, W)
    state = model.start(source())
    for t in range(T):
        assert all(len(part) == len(LENGTHS) for part in state)
        step, state = model.step(target()[:, t], state)
        torch.testing.assert_close(step, scores[:, t])
    scores.square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    again = models.build(cell, TEXT, options=asdict(model.config)).eval().double()
    assert torch.equal(again(source(), target()), scores)
    assert attention in model.choices[-1]


@pytest.mark.parametrize(("cell", "attention"), NETS)
def test_rows_do_not_meet_padding_changes_nothing_and_no_future_leaks(cell, attention):
    model = build(cell, attention)
    scores = model(source(), target())
    longer = nn.functional.pad(source(), (0, 4), value=PAD)
    torch.testing.assert_close(model(longer, target()), scores)
    for i, length in enumerate(LENGTHS):
        alone = model(source()[i : i + 1, :length], target()[i : i + 1])
        torch.testing.assert_close(alone, scores[i : i + 1])
    later = target()
    later[:, 2:] = later[:, 2:] % (W - 1) + 1
    changed = model(source(), later)
    assert torch.equal(changed[:, :2], scores[:, :2])
    assert not torch.isclose(changed[:, 2], scores[:, 2]).all()


@pytest.mark.parametrize(("cell", "attention"), NETS)
def test_the_source_reaches_every_step(cell, attention):
    model = build(cell, attention)
    other = source()
    other[:, 0] = other[:, 0] % (V - 1) + 1
    assert not torch.isclose(model(other, target()), model(source(), target())).all(2).any()


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_the_alignment_sums_to_one_and_ignores_padding(attention):
    weights = build("gru", attention).alignment(source(), target())
    assert weights.shape == (len(LENGTHS), T, S)
    torch.testing.assert_close(weights.sum(2), torch.ones(len(LENGTHS), T).double())
    for row, length in zip(weights, LENGTHS, strict=True):
        assert not row[:, length:].any()
        assert (row[:, :length] > 0).all()


@pytest.mark.parametrize("attention", ["additive", "dot", "none"])
def test_an_empty_source_gives_numbers_and_no_weight(attention):
    model = build("lstm", attention)
    empty = torch.full((2, S), PAD)
    assert torch.isfinite(model(empty, target()[:2])).all()
    if attention != "none":
        assert not model.alignment(empty, target()[:2]).any()


@pytest.mark.parametrize("attention", ["additive", "dot", "none"])
def test_a_state_is_reordered_with_its_memory(attention):
    model, index = build("lstm", attention, layers=2), torch.tensor([2, 2, 0, 1])
    state = model.step(target()[:, 0], model.start(source()))[1]
    scores, _ = model.step(torch.tensor([1, 2, 3, 4]), model.reorder(state, index))
    direct = model.step(target()[index, 0], model.start(source()[index]))[1]
    torch.testing.assert_close(scores, model.step(torch.tensor([1, 2, 3, 4]), direct)[0])


def test_a_series_can_be_the_source():
    model = build(signature=SERIES)
    scores = model(torch.randn(3, S, 2).double(), target())
    assert scores.shape == (3, T, W)
    assert model.config.bidirectional is False


def test_no_attention_has_no_alignment_and_no_memory():
    model = build(attention="none")
    with pytest.raises(ModelError, match="additive or dot"):
        model.alignment(source(), target())
    assert model.start(source()).memory.shape[1] == 0


@pytest.mark.parametrize(("cell", "attention"), NETS)
def test_half_precision_by_autocast(cell, attention):
    model = build(cell, attention).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(source(), target())
        step, _ = model.step(target()[:, 0], model.start(source()))
    torch.testing.assert_close(step.float(), scores[:, 0].float(), rtol=0.05, atol=0.05)
    scores.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_gradient_is_the_slope():
    model = build("gru", signature=SERIES)
    x = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda v: model(v, target()[:2, :2]), (x.requires_grad_(),))
