"""Hidden tokens: equal to hiding one after the other, whatever the batch and its padding."""

from __future__ import annotations

import math

import pytest
import torch
from tests.nn.tiny_lm import TinyEncoder

from gipi.core.errors import DataError, NonFiniteError
from gipi.nn.hidden_tokens import hidden_log_likelihoods

MASK = 22
TEXTS = [[1, 5, 6, 7, 2], [1, 9, 2], [1, 3, 4, 5, 6, 7, 8, 9, 2]]
PLACES = [[1, 2, 3], [1], [1, 3, 7]]


def one_by_one(net, ids, places):
    out = []
    for place in places:
        hidden = [MASK if i == place else token for i, token in enumerate(ids)]
        with torch.no_grad():
            log_p = net(torch.tensor([hidden])).logits[0, place].log_softmax(0)
        out.append(float(log_p[ids[place]]))
    return out


@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_each_token_is_hidden_alone(batch_size):
    net = TinyEncoder()
    found = hidden_log_likelihoods(net, TEXTS, PLACES, mask=MASK, batch_size=batch_size)
    for ids, places, log_p in zip(TEXTS, PLACES, found, strict=True):
        assert log_p.tolist() == pytest.approx(one_by_one(net, ids, places), abs=1e-4)
    assert hidden_log_likelihoods(net, [], [], mask=MASK) == []


def test_only_the_judged_logits_are_made_where_the_model_can():
    class Choosy(TinyEncoder):
        def forward(self, input_ids, attention_mask=None, *, at=None):
            out = super().forward(input_ids, attention_mask)
            out.logits = out.logits.flatten(0, 1)[at]
            return out

    plain = hidden_log_likelihoods(TinyEncoder(), TEXTS, PLACES, mask=MASK)
    for a, b in zip(hidden_log_likelihoods(Choosy(), TEXTS, PLACES, mask=MASK), plain, strict=True):
        assert torch.equal(a, b)


def test_empty_texts_and_spoilt_scores_are_named():
    with pytest.raises(DataError, match="text 1 has no token"):
        hidden_log_likelihoods(TinyEncoder(), [[1], []], [[0], []], mask=MASK)
    net = TinyEncoder()
    with torch.no_grad():
        net.tokens[9] = math.nan
    with pytest.raises(NonFiniteError, match="score of text 2 is not a number"):
        hidden_log_likelihoods(net, [TEXTS[0], [1, 3], TEXTS[2]], [[1], [1], [1]], mask=MASK)
