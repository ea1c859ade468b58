"""Tiny runs that must reach a stated score: adding, parity, copying, reversing, a text by heart."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gipi import models
from gipi.core.schema import Signature
from gipi.nn import detached

SEEDS = (0, 1)


def train(model, loss, *, steps, lr, clip=1.0):
    """Take `steps` steps of Adam on `loss(step)`."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    model.eval()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_adding_two_marked_numbers_of_a_long_row(cell, seed):
    """Hochreiter and Schmidhuber 1997: to answer with the mean is an error of 0.167."""
    steps, generator = 30, torch.Generator().manual_seed(seed)

    def draw(rows):
        x = torch.zeros(rows, steps, 2)
        x[..., 0] = torch.rand(rows, steps, generator=generator)
        for half in (0, steps // 2):
            place = torch.randint(half, half + steps // 2, (rows,), generator=generator)
            x[torch.arange(rows), place, 1] = 1.0
        return x, (x[..., 0] * x[..., 1]).sum(1)

    model = models.build(cell, Signature(numbers=2, length=steps), seed=seed,
                         options={"width": 32})  # fmt: skip

    def error(rows):
        x, y = draw(rows)
        return F.mse_loss(model(x)[:, 0], y)

    train(model, lambda _: error(64), steps=500, lr=0.01)
    assert float(error(512).detach()) < 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_running_parity_of_rows_of_unequal_length(seed):
    """Every step's answer is the parity of all bits so far: no window of fixed width can tell."""
    pad, longest, generator = 0, 16, torch.Generator().manual_seed(seed)

    def draw(rows):
        x = torch.randint(1, 3, (rows, longest), generator=generator)
        lengths = torch.randint(1, longest + 1, (rows, 1), generator=generator)
        x = x.where(torch.arange(longest) < lengths, pad)
        return x, (x == 2).cumsum(1) % 2

    model = models.build(
        "gru", Signature(vocab=3, length=longest, pad=pad, outputs=2), seed=seed,
        options={"topology": "sequence-to-sequence", "bidirectional": False, "width": 24,
                 "embedding": 8},
    )  # fmt: skip

    def loss(_):
        x, y = draw(64)
        return F.cross_entropy(model(x)[x != pad], y[x != pad])

    train(model, loss, steps=300, lr=0.02)
    x, y = draw(256)
    right = (model(x).argmax(2) == y)[x != pad].float().mean()
    assert float(right) > 0.98


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_reversing_a_row_with_attention(attention):
    begin, pad, vocab, generator = 1, 0, 10, torch.Generator().manual_seed(0)

    def draw(rows, longest=6):
        lengths = torch.randint(2, longest + 1, (rows,), generator=generator)
        source = torch.randint(2, vocab, (rows, longest), generator=generator)
        inside = torch.arange(longest) < lengths[:, None]
        source = source.where(inside, pad)
        turn = (lengths[:, None] - 1 - torch.arange(longest)).clamp(min=0)
        target = source.gather(1, turn).where(inside, pad)
        return source, target

    model = models.build(
        "gru", Signature(vocab=vocab, length=6, pad=pad, outputs=vocab),
        options={"topology": "encoder-decoder", "attention": attention, "width": 32,
                 "embedding": 16},
    )  # fmt: skip

    def loss(_):
        source, target = draw(64)
        entered = F.pad(target, (1, -1), value=begin)
        return F.cross_entropy(model(source, entered).flatten(0, 1), target.flatten(),
                               ignore_index=pad)  # fmt: skip

    train(model, loss, steps=400, lr=0.01)
    source, target = draw(200)
    state, written = model.start(source), []
    token = torch.full((200,), begin)
    for _ in range(target.shape[1]):
        scores, state = model.step(token, state)
        token = scores.argmax(1)
        written.append(token)
    right = (torch.stack(written, 1) == target)[target != pad].float().mean()
    assert float(right) > 0.95


@pytest.mark.parametrize(("name", "options", "score"),
                         [("textcnn", {"maps": 16, "embedding": 16}, 0.97),
                          ("fasttext", {"ngrams": 2, "buckets": 512}, 0.97),
                          ("fasttext", {}, 0.6)])  # fmt: skip
def test_a_phrase_is_found_where_order_is_seen(name, options, score):
    """Whether 2 stands right before 3: both tokens are in every row, so a bag cannot know."""
    generator = torch.Generator().manual_seed(0)

    def draw(rows, length=10):
        x = torch.randint(4, 12, (rows, length), generator=generator)
        y = torch.randint(0, 2, (rows,), generator=generator)
        place = torch.randint(0, length - 1, (rows,), generator=generator)
        index = torch.arange(rows)
        x[index, place] = torch.where(y == 1, 2, 3)
        x[index, place + 1] = torch.where(y == 1, 3, 2)
        return x, y

    model = models.build(name, Signature(vocab=12, length=10, outputs=2), options=options)

    def loss(_):
        x, y = draw(64)
        return F.cross_entropy(model(x), y)

    train(model, loss, steps=200, lr=0.02)
    x, y = draw(500)
    right = float((model(x).argmax(1) == y).float().mean())
    assert right > score if options else right < score


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"norm": "layer"}],
                         ids=["plain", "tied", "layer norm"])  # fmt: skip
def test_a_text_by_heart_in_pieces_shorter_than_its_period(options):
    """Truncated back-propagation: what must be told apart lies outside of each piece."""
    period = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 3, 1])
    text = period.repeat(40)[None].expand(4, -1)
    model = models.build(
        "lstm", Signature(vocab=5, length=6, pad=4, outputs=5),
        options={"topology": "language-model", "width": 24, "embedding": 16, **options},
    )  # fmt: skip
    kept = {"state": model.begin(4)}

    def loss(step):
        at = 6 * (step % 79)
        if at == 0:
            kept["state"] = model.begin(4)
        scores, state = model.advance(text[:, at : at + 6], kept["state"])
        kept["state"] = detached(state)
        return F.cross_entropy(scores.flatten(0, 1), text[:, at + 1 : at + 7].flatten())

    train(model, loss, steps=300, lr=0.02)
    scores = model(text[:1, :-1])[0, 24:]
    right = (scores.argmax(1) == text[0, 25:]).float().mean()
    assert float(right) > 0.98
