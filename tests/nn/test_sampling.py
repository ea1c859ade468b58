"""Choosing a token: equal to the logits processors of transformers, and to the distribution."""

from __future__ import annotations

import math

import pytest
import torch

from gipi.core.errors import ConfigError
from gipi.nn import sampling
from gipi.nn.sampling import (
    NOTHING,
    Limits,
    Sampling,
    draw,
    forbid,
    forbid_ngrams,
    keep_top_k,
    keep_top_p,
    penalise_repetition,
    row_keys,
)

VOCAB = 40


@pytest.fixture
def logits():
    return 4 * torch.randn(16, VOCAB, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def history():
    return torch.randint(0, 8, (16, 12), generator=torch.Generator().manual_seed(1))


def processors():
    return pytest.importorskip(
        "transformers.generation.logits_process", reason="transformers is the reference here"
    )


# ------------------------------------------------------------------------ against transformers


@pytest.mark.parametrize("k", [1, 3, VOCAB, 99])
def test_top_k_is_that_of_transformers(logits, history, k):
    theirs = processors().TopKLogitsWarper(k)(history, logits)
    assert torch.equal(keep_top_k(logits, k), theirs)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999, 1.0])
def test_top_p_is_that_of_transformers(logits, history, p):
    theirs = processors().TopPLogitsWarper(p)(history, logits)
    assert torch.equal(keep_top_p(logits, p), theirs)


@pytest.mark.parametrize(
    ("k", "p"), [(1, 0.5), (7, 0.3), (7, 0.999), (20, 0.9), (VOCAB, 0.9), (99, 0.9)]
)
def test_top_p_among_the_top_k_is_that_of_transformers(logits, history, k, p):
    theirs = processors().TopKLogitsWarper(k)(history, logits)
    theirs = processors().TopPLogitsWarper(p)(history, theirs)
    ours = keep_top_k(logits, k)
    assert torch.equal(keep_top_p(ours, p, most=k), theirs)
    assert torch.equal(keep_top_p(ours, p), theirs)


@pytest.mark.parametrize("penalty", [0.5, 1.3, 5.0])
def test_the_repetition_penalty_is_that_of_transformers(logits, history, penalty):
    theirs = processors().RepetitionPenaltyLogitsProcessor(penalty)(history, logits.clone())
    assert torch.equal(penalise_repetition(logits, history, penalty=penalty), theirs)


@pytest.mark.parametrize("size", [1, 2, 3, 12, 13])
def test_forbidden_ngrams_are_those_of_transformers(logits, history, size):
    theirs = processors().NoRepeatNGramLogitsProcessor(size)(history, logits)
    ours = forbid_ngrams(logits, history, size=size)
    assert torch.equal(ours, theirs)
    if size < 3:
        assert ours.isinf().any()


@pytest.mark.parametrize("said", [0, 2, 3])
def test_the_least_length_is_that_of_transformers(logits, history, said):
    theirs = processors().MinNewTokensLengthLogitsProcessor(12 - said, 3, [5, 6])(history, logits)
    ours = Limits(min_new_tokens=3).apply(logits, history, step=said, most=9, stop=[5, 6])
    assert torch.equal(ours, theirs)


def test_forbidden_ids_are_those_of_transformers(logits, history):
    theirs = processors().SuppressTokensLogitsProcessor([3, 7])(history, logits)
    assert torch.equal(
        Limits(forbidden=(3, 7)).apply(logits, history, step=0, most=9, stop=[]), theirs
    )


# ------------------------------------------------------------------------ padding and purity


def test_padding_of_a_history_is_no_repetition(logits):
    told = torch.tensor([[5, 6, 5, 6, 5]])
    longer = torch.cat([torch.full((1, 4), NOTHING), told], 1)
    one = logits[:1]
    both = Limits(repetition_penalty=1.5, no_repeat_ngram=2)
    assert torch.equal(both.apply(one, told, step=5, most=9, stop=[]),
                       both.apply(one, longer, step=5, most=9, stop=[]))  # fmt: skip
    nothing = torch.full((1, 4), NOTHING)
    assert torch.equal(both.apply(one, nothing, step=0, most=9, stop=[]), one)


def test_a_token_of_the_history_beyond_the_vocabulary_is_left_alone(logits):
    told = torch.tensor([[VOCAB + 5, 3]])
    out = penalise_repetition(logits[:1], told, penalty=2.0)
    assert (out != logits[:1]).nonzero().tolist() == [[0, 3]]


def test_logits_are_not_changed_in_place(logits, history):
    before = logits.clone()
    Limits(2.0, 2, 3, (1,)).apply(logits, history, step=0, most=9, stop=[2])
    Sampling(0.5, top_k=3, top_p=0.9).choose(logits, range(16), step=0)
    assert torch.equal(logits, before)


# ------------------------------------------------------------------------ the draw


def chi_square(counts, expected):
    keep = expected > 0
    assert counts[~keep].sum() == 0  # what has no probability was never drawn
    return float(((counts - expected)[keep] ** 2 / expected[keep]).sum()), int(keep.sum()) - 1


@pytest.mark.parametrize(
    ("how", "by"),
    [
        (Sampling(1.0), "step"),
        (Sampling(1.0), "key"),
        (Sampling(0.5), "key"),
        (Sampling(2.0, top_k=5), "key"),
        (Sampling(top_p=0.8), "step"),
    ],
)
def test_draws_follow_the_softmax(how, by):
    one = torch.randn(1, 12, generator=torch.Generator().manual_seed(3))
    n = 20_000
    if by == "key":
        keys = row_keys([[1]] * n, 0)
        drawn = how.choose(one.expand(n, -1), keys, step=0)
    else:
        drawn = torch.cat([how.choose(one, [77], step=s) for s in range(n // 5)])
    left = one / how.heat
    left = keep_top_k(left, how.top_k) if how.top_k else left
    left = keep_top_p(left, how.top_p) if how.top_p else left
    counts = torch.bincount(drawn, minlength=12).double()
    value, degrees = chi_square(counts, left.softmax(1)[0].double() * len(drawn))
    # Chi-square with f degrees has mean f and spread √(2f); five of these are one in a million.
    assert value < degrees + 5 * math.sqrt(2 * degrees)


def test_another_distribution_would_be_found():
    one = torch.randn(1, 12, generator=torch.Generator().manual_seed(3))
    drawn = draw(one.expand(20_000, -1), row_keys([[1]] * 20_000, 0), step=0)
    counts = torch.bincount(drawn, minlength=12).double()
    value, degrees = chi_square(counts, (one / 1.1).softmax(1)[0].double() * 20_000)
    assert value > degrees + 5 * math.sqrt(2 * degrees)


def test_two_steps_of_a_row_are_independent():
    keys = row_keys([[1]] * 20_000, 0)
    flat = torch.zeros(20_000, 4)
    pair = 4 * draw(flat, keys, step=0) + draw(flat, keys, step=1)
    value, degrees = chi_square(
        torch.bincount(pair, minlength=16).double(), torch.full((16,), 1250.0)
    )
    assert value < degrees + 5 * math.sqrt(2 * degrees)


def test_a_draw_depends_on_key_and_step_alone(logits):
    keys = row_keys([[i] for i in range(16)], 0)
    all_at_once = draw(logits, keys, step=4)
    one_by_one = [int(draw(logits[i : i + 1], keys[i : i + 1], step=4)) for i in range(16)]
    assert all_at_once.tolist() == one_by_one
    assert all_at_once.tolist() != draw(logits, keys, step=5).tolist()
    assert (
        all_at_once.tolist() != draw(logits, row_keys([[i] for i in range(16)], 1), step=4).tolist()
    )


def test_what_is_ruled_out_is_never_drawn():
    only = torch.full((2000, 9), -math.inf)
    only[:, 4] = -1e4
    assert draw(only, range(2000), step=0).unique().tolist() == [4]
    only[:, 8] = -1e4  # the last token of the vocabulary is as good as any
    assert draw(only, row_keys([[0]] * 2000, 0), step=0).unique().tolist() == [4, 8]


@pytest.mark.parametrize(("u", "first"), [(0.0, True), (1.0 - 2.0**-53, False), (1.0, False)])
def test_the_ends_of_the_interval_draw_what_is_possible(monkeypatch, u, first):
    monkeypatch.setattr(sampling, "uniform", lambda key, ids, stream: torch.full((len(ids),), u))
    logits = torch.randn(50, 9)
    logits[:, :2] = logits[:, 6:] = -math.inf
    assert draw(logits.double(), [0] * 50, step=0).unique().tolist() == [2 if first else 5]


def test_keys_of_equal_prompts_differ_and_do_not_depend_on_neighbours():
    keys = row_keys([[1, 2], [3], [1, 2]], 5)
    assert len(set(keys)) == 3
    assert row_keys([[3], [1, 2]], 5) == [keys[1], keys[0]]
    assert row_keys([[3]], 6) != [keys[1]]


# ------------------------------------------------------------------------ choices and errors


def test_temperature_zero_and_none_are_greedy(logits):
    for how in (Sampling(), Sampling(0.0), Sampling(top_k=1)):
        assert torch.equal(how.choose(logits, range(16), step=0), logits.argmax(1))


def test_a_row_that_can_say_nothing_is_marked(logits):
    logits[1], logits[2, 3], logits[4, 5] = -math.inf, math.nan, math.inf
    for how in (Sampling(), Sampling(1.0, top_k=5, top_p=0.5)):
        chosen = how.choose(logits, range(16), step=0).tolist()
        assert [i for i, token in enumerate(chosen) if token == NOTHING] == [1, 2, 4]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sampling(-1.0), "temperature=-1.0"),
        (lambda: Sampling(math.nan), "temperature=nan"),
        (lambda: Sampling(top_k=0), "at least one token"),
        (lambda: Sampling(top_p=0.0), "above 0 and at most 1"),
        (lambda: Sampling(top_p=1.5), "top_p=1.5"),
        (lambda: Sampling(0.0, top_k=5), "temperature 0 always takes"),
        (lambda: Limits(repetition_penalty=0.0), "repetition_penalty=0.0"),
        (lambda: Limits(no_repeat_ngram=-1), "no_repeat_ngram=-1"),
        (lambda: Limits(min_new_tokens=-1), "min_new_tokens=-1"),
        (lambda: forbid(torch.zeros(1, 4), [4]), "ids from 0 to 3"),
        (lambda: forbid(torch.zeros(1, 4), [-1]), "id -1 is forbidden"),
        (
            lambda: Limits(last=9).apply(
                torch.zeros(1, 4), torch.zeros(1, 0), step=0, most=1, stop=[]
            ),
            "id 9 is forbidden, or ends an answer",
        ),
    ],
)
def test_requests_that_mean_nothing_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
