"""Likelihood: windows against a naive loop, endings against whole texts, rows on their own."""

from __future__ import annotations

import math
import random

import pytest
import torch
from tests.nn.tiny_lm import VOCAB, TinyDecoder, TinyRecurrent, TinyTranslator

from gipi.core.errors import ConfigError, DataError, NonFiniteError
from gipi.nn import likelihood
from gipi.nn.likelihood import ending_log_likelihoods, log_likelihoods, windows
from gipi.nn.steppers import DecoderOnly, EncoderDecoder, Recurrent, Uncached


def texts(count=6, seed=0, longest=40):
    draw = random.Random(seed)
    return [
        [draw.randrange(VOCAB) for _ in range(draw.randrange(1, longest))] for _ in range(count)
    ]


def whole(net, ids):
    """Return log p of every token but the first, the text being read at once."""
    with torch.no_grad():
        log_p = net(torch.tensor([ids])).logits[0].log_softmax(1)
    return [float(log_p[t - 1, ids[t]]) for t in range(1, len(ids))]


def naive_windows(net, ids, *, context, stride):
    """Return the same for a window that moves on by `stride`, token by token, without batches."""
    out = []
    for t in range(1, len(ids)):
        begin = 0 if t < context else -(-(t + 1 - context) // stride) * stride
        with torch.no_grad():
            log_p = net(torch.tensor([ids[begin:t]])).logits[0, -1].log_softmax(0)
        out.append(float(log_p[ids[t]]))
    return out


# ------------------------------------------------------------------------ windows


@pytest.mark.parametrize("length", [1, 2, 5, 6, 7, 9, 10, 31])
@pytest.mark.parametrize(("context", "stride"), [(6, 3), (6, 1), (6, 5), (2, 1)])
def test_every_token_is_scored_once_with_the_context_it_was_promised(length, context, stride):
    found = windows(length, context=context, stride=stride)
    scored = [t for w in found for t in range(w.first, w.end)]
    assert scored == list(range(1, length))
    for w in found:
        assert 0 <= w.begin < w.first < w.end <= length
        assert w.end - w.begin <= context
        assert w.begin == 0 or w.first - w.begin >= context - stride


def test_a_short_text_in_windows_is_the_text():
    net, rows = TinyDecoder(), texts(longest=16)
    found = log_likelihoods(DecoderOnly(net), rows, context=16, stride=4)
    for row, log_p in zip(rows, found, strict=True):
        assert log_p.tolist() == pytest.approx(whole(net, row), abs=1e-4)


@pytest.mark.parametrize(("context", "stride"), [(16, 4), (16, 15), (8, 1), (5, 3), (2, 1)])
def test_a_long_text_in_windows_equals_the_naive_loop(context, stride):
    net, rows = TinyDecoder(), texts()
    assert max(map(len, rows)) > 2 * context or context == 16
    found = log_likelihoods(DecoderOnly(net), rows, context=context, stride=stride)
    for row, log_p in zip(rows, found, strict=True):
        naive = naive_windows(net, row, context=context, stride=stride)
        assert log_p.tolist() == pytest.approx(naive, abs=1e-4)


def test_windows_change_the_score_of_a_long_text():
    net, row = TinyDecoder(), texts(1, seed=3, longest=60)[0]
    cut = log_likelihoods(DecoderOnly(net), [row], context=8, stride=4)[0]
    assert not torch.allclose(cut, torch.tensor(whole(net, row)), atol=0.1)


def test_scores_do_not_depend_on_the_batch(monkeypatch):
    net, rows = TinyDecoder(), texts(9, seed=1)
    found = log_likelihoods(DecoderOnly(net), rows)
    alone = [log_likelihoods(DecoderOnly(net), [row])[0] for row in rows]
    few = log_likelihoods(DecoderOnly(net), rows, batch_size=2)
    monkeypatch.setattr(likelihood, "LOGITS", 4 * VOCAB * 40)
    net.calls.clear()
    small = log_likelihoods(DecoderOnly(net), rows)
    assert max(rows * (length - 0) for rows, length in net.calls) <= 4 * 40
    assert len(net.calls) > 2
    for others in (alone, few, small):
        for a, b in zip(found, others, strict=True):
            assert torch.allclose(a, b, atol=1e-4)


def test_a_recurrent_net_scores_texts_too():
    net, rows = TinyRecurrent(), texts()
    for row, log_p in zip(rows, log_likelihoods(Recurrent(net), rows), strict=True):
        with torch.no_grad():
            all_p = net(torch.tensor([row]))[0].log_softmax(1)
        expected = [float(all_p[t - 1, row[t]]) for t in range(1, len(row))]
        assert log_p.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("length", [10, 11, 12, 13])
def test_a_long_text_is_read_on_where_no_context_is_known(monkeypatch, length):
    net, cells = TinyDecoder(), TinyRecurrent()
    rows = [[(7 * i) % VOCAB for i in range(length)], [4, 5, 6], [3]]
    for model in (DecoderOnly(net), Recurrent(cells)):
        whole_rows = log_likelihoods(model, rows)
        monkeypatch.setattr(likelihood, "PIECE", 4)
        net.calls.clear()
        found = log_likelihoods(model, rows)
        monkeypatch.undo()
        for a, b in zip(found, whole_rows, strict=True):
            assert torch.allclose(a, b, atol=1e-4)
        assert all(width <= 4 for _, width in net.calls)


def test_texts_of_one_token_have_no_score():
    found = log_likelihoods(DecoderOnly(TinyDecoder()), [[3], [4, 5]])
    assert [len(log_p) for log_p in found] == [0, 1]
    assert log_likelihoods(DecoderOnly(TinyDecoder()), []) == []


# ------------------------------------------------------------------------ endings


def stems_and_endings(seed=5):
    draw = random.Random(seed)
    some = lambda low, high: [draw.randrange(VOCAB) for _ in range(draw.randrange(low, high))]
    stems = [some(1, 7) for _ in range(7)]
    return stems, [[some(1, 5) for _ in range(draw.randrange(1, 4))] for _ in stems]


def flat(scores):
    return [value for several in scores for log_p in several for value in log_p.tolist()]


@pytest.mark.parametrize("kind", [DecoderOnly, Uncached])
@pytest.mark.parametrize("shared", [[], [7, 8, 9, 1]])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_endings_equal_whole_texts(kind, shared, batch_size):
    net = TinyDecoder()
    stems, endings = stems_and_endings()
    found = ending_log_likelihoods(kind(net), stems, endings, shared=shared, batch_size=batch_size)
    expected = [
        value
        for stem, several in zip(stems, endings, strict=True)
        for ending in several
        for value in whole(net, [*shared, *stem, *ending])[-len(ending) :]
    ]
    assert flat(found) == pytest.approx(expected, abs=1e-4)
    assert [[len(log_p) for log_p in row] for row in found] == [
        [len(e) for e in s] for s in endings
    ]


def test_a_recurrent_net_scores_endings_too():
    net = TinyRecurrent()
    stems, endings = stems_and_endings()
    for shared in ([], [7, 8, 9]):
        found = ending_log_likelihoods(Recurrent(net), stems, endings, shared=shared)
        expected = []
        for stem, several in zip(stems, endings, strict=True):
            for ending in several:
                ids = [*shared, *stem, *ending]
                with torch.no_grad():
                    log_p = net(torch.tensor([ids]))[0].log_softmax(1)
                begin = len(ids) - len(ending)
                expected += [float(log_p[t - 1, ids[t]]) for t in range(begin, len(ids))]
        assert flat(found) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", [DecoderOnly, Uncached])
def test_many_endings_are_read_a_few_at_a_time(kind, monkeypatch):
    net = TinyDecoder()
    stems, endings = stems_and_endings()
    whole_at_once = ending_log_likelihoods(kind(net), stems, endings)
    longest = max(len(ending) for several in endings for ending in several)
    monkeypatch.setattr(likelihood, "LOGITS", 3 * VOCAB * longest)
    net.calls.clear()
    found = ending_log_likelihoods(kind(net), stems, endings)
    assert max(rows for rows, _ in net.calls[1:]) == 3  # behind the stems
    assert flat(found) == pytest.approx(flat(whole_at_once), abs=1e-4)


def test_what_is_shared_is_read_once_and_a_stem_once_for_all_its_endings():
    net = TinyDecoder()
    shared = [1, 2, 3, 4, 5, 6, 7, 8]
    stems, endings = [[1, 2], [3, 4], [5]], [[[1, 2], [3, 4, 5]], [[6, 7]], [[1]]]
    ending_log_likelihoods(DecoderOnly(net), stems, endings, shared=shared)
    # the shared tokens; the stem of one token; stems of two; their three endings without the last
    assert net.calls == [(1, 8), (1, 1), (2, 2), (3, 2)]


def test_a_stem_may_be_empty_after_what_is_shared():
    net = TinyDecoder()
    found = ending_log_likelihoods(DecoderOnly(net), [[], [4]], [[[5, 6]], [[5]]], shared=[1, 2])
    assert flat(found) == pytest.approx(
        whole(net, [1, 2, 5, 6])[-2:] + whole(net, [1, 2, 4, 5])[-1:], abs=1e-4
    )


def test_translations_are_scored_given_their_source():
    net = TinyTranslator()
    sources, targets = stems_and_endings(6)
    found = ending_log_likelihoods(EncoderDecoder(net, (0,)), sources, targets)
    assert net.encoded == len(sources)
    expected = []
    for source, several in zip(sources, targets, strict=True):
        for target in several:
            with torch.no_grad():
                logits = net(
                    torch.tensor([source]), decoder_input_ids=torch.tensor([[0, *target]])
                ).logits
            log_p = logits[0].log_softmax(1)
            expected += [float(log_p[t, token]) for t, token in enumerate(target)]
    assert flat(found) == pytest.approx(expected, abs=1e-4)


# ------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: windows(5, context=1, stride=1), ConfigError, "a context of 1"),
        (lambda: windows(5, context=4, stride=4), ConfigError, "a stride from 1 to 3"),
        (lambda: windows(5, context=4, stride=0), ConfigError, "stride=0"),
        (
            lambda: log_likelihoods(DecoderOnly(TinyDecoder()), [[1], []]),
            DataError, "text 1 has no token",
        ),
        (
            lambda: ending_log_likelihoods(DecoderOnly(TinyDecoder()), [[1], [2]], [[[1]]]),
            ConfigError, "2 stems and 1 lists of endings",
        ),
        (
            lambda: ending_log_likelihoods(DecoderOnly(TinyDecoder()), [[1]], [[[1], []]]),
            DataError, "endings of stem 0, number 1 has no token",
        ),
        (
            lambda: ending_log_likelihoods(DecoderOnly(TinyDecoder()), [[]], [[[1]]]),
            DataError, "prompt 0 has no token",
        ),
    ],
)  # fmt: skip
def test_requests_that_mean_nothing_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_spoilt_scores_are_named():
    net = TinyDecoder()
    with torch.no_grad():
        net.tokens[5] = math.nan
    with pytest.raises(NonFiniteError, match="score of text 1 is not a number"):
        log_likelihoods(DecoderOnly(net), [[1, 2], [5, 2]])
    with pytest.raises(NonFiniteError, match="score of stem 1 is not a number"):
        ending_log_likelihoods(DecoderOnly(net), [[1], [5]], [[[1]], [[2]]])
