"""Beam search: all answers of a small vocabulary compared, rows alone and together, limits."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from tests.nn.tiny_lm import TinyDecoder, TinyRecurrent, TinyTranslator

from gipi.core.errors import ConfigError, NonFiniteError
from gipi.nn.beam import _advanced, _begin, beam_search
from gipi.nn.decode import decode
from gipi.nn.sampling import Limits
from gipi.nn.steppers import DecoderOnly, EncoderDecoder, Recurrent, Uncached

SMALL, STOP = 4, 3
PROMPTS = [[1, 2], [0], [2, 2, 1, 0, 1], [1]]


def small(seed=0):
    return TinyDecoder(seed, vocab=SMALL)


def sum_log_p(net, prompt, said):
    """Return Σ log p of an answer, read all at once."""
    with torch.no_grad():
        log_p = net(torch.tensor([[*prompt, *said]])).logits[0].log_softmax(1)
    return sum(float(log_p[len(prompt) - 1 + i, t]) for i, t in enumerate(said))


def every_answer(net, prompt, *, most, alpha):
    """Return (score, tokens) of all answers that end with the stop id or are `most` long."""
    found = []
    for length in range(1, most + 1):
        for said in itertools.product(range(SMALL), repeat=length):
            ends = [i for i, t in enumerate(said) if t == STOP]
            if ends == [length - 1] or (not ends and length == most):
                found.append((sum_log_p(net, prompt, said) / length**alpha, said))
    return sorted(found, reverse=True)


def said(hypothesis):
    return hypothesis.tokens + (() if hypothesis.stopped is None else (hypothesis.stopped,))


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_wide_enough_beams_find_the_best_of_all_answers(seed, alpha):
    net = small(seed)
    # 64 beams hold every beginning of 3 tokens, so nothing can be lost on the way
    found = beam_search(DecoderOnly(net), PROMPTS, beams=64, max_new_tokens=4, stop=[STOP],
                        length_penalty=alpha, early_stopping="never", best=5)  # fmt: skip
    for prompt, answers in zip(PROMPTS, found, strict=True):
        best = every_answer(net, prompt, most=4, alpha=alpha)[:5]
        assert [said(a) for a in answers] == [tokens for _, tokens in best]
        assert [a.score for a in answers] == pytest.approx([s for s, _ in best], abs=1e-4)


@pytest.mark.parametrize("early", [True, False, "never"])
@pytest.mark.parametrize("alpha", [-1.0, 0.0, 1.0, 2.0])
def test_scores_are_those_of_the_tokens(early, alpha):
    net = small(2)
    for answers, prompt in zip(
        beam_search(DecoderOnly(net), PROMPTS, beams=3, max_new_tokens=6, stop=[STOP],
                    length_penalty=alpha, early_stopping=early, best=3),
        PROMPTS, strict=True,
    ):  # fmt: skip
        assert len({said(a) for a in answers}) == len(answers) == 3
        for a in answers:
            whole = sum_log_p(net, prompt, said(a))
            assert a.score == pytest.approx(whole / len(said(a)) ** alpha, abs=1e-4)
        assert [a.score for a in answers] == sorted((a.score for a in answers), reverse=True)


def test_beams_find_what_greedy_misses():
    gains = []
    for seed in range(6):
        net = small(seed)
        rows = [[a, b] for a in range(3) for b in range(3)]
        greedy = decode(DecoderOnly(net), rows, max_new_tokens=6)
        beams = beam_search(DecoderOnly(net), rows, beams=8, max_new_tokens=6)
        gains += [
            sum_log_p(net, row, b[0].tokens) - sum_log_p(net, row, g.tokens)
            for row, g, b in zip(rows, greedy, beams, strict=True)
        ]
    assert min(gains) > -1e-4
    assert max(gains) > 0.1


def test_one_beam_without_a_stop_is_greedy():
    net = TinyDecoder()
    rows = [[4, 5], [7], [1, 2, 3, 4]]
    greedy = decode(DecoderOnly(net), rows, max_new_tokens=8)
    beams = beam_search(DecoderOnly(net), rows, beams=1, max_new_tokens=8)
    assert [b[0].tokens for b in beams] == [g.tokens for g in greedy]


@pytest.mark.parametrize("early", [True, False, "never"])
def test_a_row_alone_equals_the_row_in_a_batch_however_it_is_read(early):
    net, cells, translator = TinyDecoder(), TinyRecurrent(), TinyTranslator()
    rows = [[4, 5], [7], [1, 2, 3, 4, 9, 9], [8, 2]]
    options = {"beams": 4, "max_new_tokens": 9, "stop": [2, 6], "early_stopping": early, "best": 2}
    steppers = [DecoderOnly(net), Uncached(net), Recurrent(cells), EncoderDecoder(translator, (0,))]
    found = []
    for model in steppers:
        together = beam_search(model, rows, **options)
        alone = [beam_search(model, [row], **options)[0] for row in rows]
        assert [[said(a) for a in t] for t in together] == [[said(a) for a in t] for t in alone]
        found.append([[said(a) for a in t] for t in together])
    assert found[0] == found[1]  # with and without a cache
    assert translator.encoded == 2 * len(rows)  # once a source, not once a beam


def test_a_decided_prompt_leaves_the_batch():
    net = TinyDecoder()
    rows = [[4, 5], [7], [1, 2, 3, 4, 9, 9], [8, 2]]
    beam_search(DecoderOnly(net), rows, beams=3, max_new_tokens=12, stop=[2, 6, 9, 11],
                early_stopping=True)  # fmt: skip
    sizes = [shape[0] for shape in net.calls]
    assert sizes[0] == 4
    assert sizes[1] == 12
    assert sizes == [4, *sorted(sizes[1:], reverse=True)]
    assert sizes[-1] < 12


def test_beams_go_on_however_many_stop_ids_are_likelier():
    """Three stop ids lead in each of two beams: six candidates end, and two go on."""
    log_p = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0, -1.0]).log_softmax(0).expand(2, 6)
    search = _begin(1, 2, 3, torch.device("cpu"))
    search = replace(search, score=torch.tensor([[0.0, -0.1]]))
    after, came_from = _advanced(search, log_p, 0, [0, 1, 2], 1.0, last=False)
    assert after.score.isfinite().all()
    assert after.said[0, :, 0].tolist() == [3, 3]
    assert came_from.tolist() == [[0, 1]]
    assert after.ended[0, :, 0].tolist() == [0, 0]


def test_never_stopping_early_waits_for_what_grows_better():
    """With α = 2 the best answer is the longest; a stop at once is only good as long as short."""

    class Wavering(TinyDecoder):
        def forward(self, input_ids, attention_mask=None, *, cache=None):
            out = super().forward(input_ids, attention_mask, cache=cache)
            p = [0.45, 0.05, 0.0, 0.5] if cache.filled < 3 else [0.98, 0.01, 0.0, 0.01]
            out.logits = torch.tensor(p).log().expand_as(out.logits)
            return out

    net = Wavering(vocab=SMALL)
    options = {"beams": 1, "max_new_tokens": 9, "stop": [STOP], "length_penalty": 2.0}
    never = beam_search(DecoderOnly(net), [[1]], early_stopping="never", **options)[0][0]
    early = beam_search(DecoderOnly(net), [[1]], early_stopping=True, **options)[0][0]
    assert said(early) == (STOP,)
    assert len(never.tokens) > 5
    assert never.score > early.score


def test_limits_hold_in_every_beam():
    net = TinyDecoder()
    limits = Limits(repetition_penalty=1.2, no_repeat_ngram=2, min_new_tokens=4, forbidden=(5,))
    rows = [[4, 5], [7, 7], [1, 2, 3, 4, 9, 9]]
    options = {"beams": 4, "max_new_tokens": 12, "stop": [2, 6], "limits": limits, "best": 4}
    found = beam_search(DecoderOnly(net), rows, **options)
    assert found != beam_search(DecoderOnly(net), rows, **{**options, "limits": None})
    for row, answers in zip(rows, found, strict=True):
        for a in answers:
            told = [*row, *a.tokens]
            fresh = list(itertools.pairwise(told))[len(row) - 1 :]
            assert len(fresh) == len(set(fresh))
            assert len(a.tokens) >= 4
            assert 5 not in a.tokens
    alone = [beam_search(DecoderOnly(net), [row], **options)[0] for row in rows]
    assert [[said(a) for a in t] for t in found] == [[said(a) for a in t] for t in alone]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beams": 0}, "beams=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"best": 3}, "the best 3 of 2 beams"),
        ({"limits": Limits(forbidden=(0, 1, 2, 3))}, "prompt 0 has no token left"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(change, words):
    options = {"beams": 2, "max_new_tokens": 3, **change}
    with pytest.raises(ConfigError, match=words):
        beam_search(DecoderOnly(small()), [[1]], **options)


def test_spoilt_logits_are_named():
    net = small()
    with torch.no_grad():
        net.tokens[2] = math.nan
    with pytest.raises(NonFiniteError, match="prompt 1 after 0 new tokens"):
        beam_search(DecoderOnly(net), [[1], [2]], beams=2, max_new_tokens=3)
    assert beam_search(DecoderOnly(net), [], beams=2, max_new_tokens=3) == []
