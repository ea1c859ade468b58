"""Language models of one layer that keep to the protocol of decoding, with hot weights.

B rows, T tokens, S tokens of a source, K tokens so far, D units, V of the vocabulary.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

VOCAB, WIDTH = 23, 16


class TinyCache:
    """Keys and values, allocated once; `reorder` changes it in place."""

    def __init__(self, rows, length, width):
        self.k = torch.zeros(rows, length, width)
        self.v = torch.zeros(rows, length, width)
        self.filled = 0

    def write(self, k, v):
        end = self.filled + k.shape[1]
        assert end <= self.k.shape[1], "no room left in the cache"
        self.k[:, self.filled : end], self.v[:, self.filled : end] = k, v
        self.filled = end
        return self.k[:, :end], self.v[:, :end]

    def reorder(self, index):
        self.k, self.v = self.k[index], self.v[index]


class TinyDecoder(nn.Module):
    """Causal attention over embeddings and positions that count real tokens only."""

    def __init__(self, seed=0, *, vocab=VOCAB, width=WIDTH, heat=3.0, context=64):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        make = lambda *shape: nn.Parameter(torch.randn(shape, generator=draw))
        self.tokens, self.places = make(vocab, width), make(context, width)
        self.q, self.k, self.v = (make(width, width) for _ in range(3))
        self.head = nn.Parameter(make(width, vocab) * heat / width**0.5)
        self.calls = []

    def new_cache(self, batch, length):
        return TinyCache(batch, length, WIDTH)

    def forward(self, input_ids, attention_mask=None, *, cache=None, extra=None):
        self.calls.append(tuple(input_ids.shape))
        before = 0 if cache is None else cache.filled
        keys = before + input_ids.shape[1]
        mask = attention_mask
        if mask is None:
            mask = torch.ones(len(input_ids), keys, dtype=torch.bool)
        assert mask.shape == (len(input_ids), keys)
        places = (mask.long().cumsum(1) - 1).clamp(min=0)[:, before:]
        x = self.tokens[input_ids] + self.places[places]
        if extra is not None:
            x = x + extra
        k, v = x @ self.k, x @ self.v
        if cache is not None:
            k, v = cache.write(k, v)
        seen = torch.ones(keys, keys).tril().bool()[before:] & mask[:, None].bool()
        score = (x @ self.q) @ k.mT / WIDTH**0.5
        # an own place is always seen, so that padding gives no NaN
        own = torch.eye(keys).bool()[before:]
        weight = score.masked_fill(~(seen | own), -torch.inf).softmax(2)
        return SimpleNamespace(logits=(x + weight @ v).tanh() @ self.head)


class TinyEncoder(TinyDecoder):
    """Every token sees all real tokens, its own place too."""

    def forward(self, input_ids, attention_mask=None):
        self.calls.append(tuple(input_ids.shape))
        x = self.tokens[input_ids] + self.places[: input_ids.shape[1]]
        score = (x @ self.q) @ (x @ self.k).mT / WIDTH**0.5
        if attention_mask is not None:
            score = score.masked_fill(~attention_mask[:, None].bool(), -torch.inf)
        return SimpleNamespace(logits=(x + score.softmax(2) @ (x @ self.v)).tanh() @ self.head)


class TinyTranslator(nn.Module):
    """A decoder that adds the mean of the source's embeddings to every token."""

    def __init__(self, seed=0):
        super().__init__()
        self.decoder = TinyDecoder(seed)
        self.encoded = 0

    def new_cache(self, batch, length):
        return self.decoder.new_cache(batch, length)

    def forward(self, input_ids=None, attention_mask=None, *, decoder_input_ids,
                encoder_hidden=None, cache=None):  # fmt: skip
        if encoder_hidden is None:
            self.encoded += len(input_ids)
            encoder_hidden = self.decoder.tokens[input_ids]
        real = attention_mask
        if real is None:
            real = torch.ones(encoder_hidden.shape[:2])
        weight = real.float()[:, :, None]
        mean = (encoder_hidden * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        out = self.decoder(decoder_input_ids, cache=cache, extra=2 * mean)
        return SimpleNamespace(logits=out.logits, encoder_hidden=encoder_hidden)


class TinyRecurrent(nn.Module):
    """An LSTM that is begun, advanced and reordered."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.tokens = nn.Embedding(VOCAB, WIDTH)
        self.net = nn.LSTM(WIDTH, WIDTH, num_layers=2, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCAB)
        with torch.no_grad():
            for p in self.parameters():
                p.mul_(3)

    def begin(self, rows):
        nothing = torch.zeros(rows, 2, WIDTH)
        return nothing, nothing

    def advance(self, ids, state):
        # rows stand first in a state, unlike torch's
        out, state = self.net(
            self.tokens(ids), tuple(s.transpose(0, 1).contiguous() for s in state)
        )
        return self.head(out), tuple(s.transpose(0, 1) for s in state)

    def reorder(self, state, index):
        return tuple(s[index] for s in state)

    def forward(self, ids):
        return self.advance(ids, self.begin(len(ids)))[0]


class TinyRecurrentAnswer(nn.Module):
    """An LSTM that begins where another one ended on a source; 0 is padding."""

    def __init__(self, seed=0):
        super().__init__()
        self.net = TinyRecurrent(seed)

    def start(self, source):
        state = self.net.begin(len(source))
        for tokens in source.unbind(1):
            new = self.net.advance(tokens[:, None], state)[1]
            real = (tokens != 0)[:, None, None]
            state = tuple(torch.where(real, n, s) for n, s in zip(new, state, strict=True))
        return state

    def step(self, tokens, state):
        logits, state = self.net.advance(tokens[:, None], state)
        return logits[:, 0], state

    def reorder(self, state, index):
        return self.net.reorder(state, index)


def naive_greedy(logits_after, prompt, *, most, stop=()):
    """Return the greedy answer of one prompt; `logits_after(ids)` reads everything each time."""
    said = []
    while len(said) < most:
        said.append(int(logits_after([*prompt, *said]).argmax()))
        if said[-1] in stop:
            return tuple(said[:-1])
    return tuple(said)


def after(model):
    """Return the function from ids to the logits that follow, one row and no cache."""
    return lambda ids: model(torch.tensor([ids])).logits[0, -1]
