"""Metrics of tokens, entities and retrieval against slow and official definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score
from torch.nn import functional as F

from gipi import metrics
from gipi.core.errors import ConfigError, ModelError
from gipi.metrics.entities import entity_scores, tag_set
from gipi.metrics.retrieval import ordered

B, T, V = 6, 9, 12
G = torch.Generator().manual_seed(0)
LOGITS = torch.randn(B, T, V, generator=G)
TARGET = torch.randint(0, V, (B, T), generator=G)
TARGET[0, 3:] = -100
TARGET[2] = -100
W = torch.rand(B, generator=G)


def score(metric, outputs, target, weight=None, pieces=1):
    """The score of all rows, in pieces whose states are added up."""
    total = metric.init("cpu")
    for part in torch.arange(len(target)).chunk(pieces):
        state = metric.init("cpu")
        metric.update(state, outputs[part], target[part], None if weight is None else weight[part])
        total = {k: v + state[k] for k, v in total.items()}
    return metric.compute(total)


# ------------------------------------------------------------------ tokens


def plain_mean(values, weight=None):
    w = torch.ones(B) if weight is None else weight
    kept = [(float(values[b, t]), float(w[b])) for b in range(B) for t in range(T)
            if TARGET[b, t] >= 0]  # fmt: skip
    return np.average([v for v, _ in kept], weights=[w for _, w in kept])


@pytest.mark.parametrize("weight", [None, W])
@pytest.mark.parametrize("pieces", [1, 4])
def test_accuracy_and_perplexity_are_means_over_predicted_tokens(weight, pieces):
    nll = -LOGITS.log_softmax(-1).gather(2, TARGET.clamp_min(0)[..., None])[..., 0]
    right = (LOGITS.argmax(-1) == TARGET).float()
    accuracy, perplexity = metrics.build("token_accuracy"), metrics.build("perplexity")
    assert score(accuracy, LOGITS, TARGET, weight, pieces) == pytest.approx(
        plain_mean(right, weight)
    )
    assert score(accuracy, LOGITS.argmax(-1), TARGET, weight) == pytest.approx(
        plain_mean(right, weight)
    )
    expected = math.exp(plain_mean(nll, weight))
    assert score(perplexity, LOGITS, TARGET, weight, pieces) == pytest.approx(expected, rel=1e-5)
    assert score(perplexity, nll, TARGET, weight, pieces) == pytest.approx(expected, rel=1e-5)


def test_a_uniform_model_has_the_vocabulary_as_perplexity_and_eight_bits_a_byte():
    flat = torch.zeros(1, 40, 256)
    target = torch.arange(40)[None]
    assert score(metrics.build("perplexity"), flat, target) == pytest.approx(256, rel=1e-5)
    assert score(metrics.build("bits_per_byte"), flat, target) == pytest.approx(8, rel=1e-5)


def test_bits_are_per_byte_of_the_predicted_tokens():
    sizes = [0, 1, 2, 3, 1, 1, 4, 2, 1, 5, 1, 1]
    metric = metrics.build("bits_per_byte", options={"token_bytes": sizes})
    nll = F.cross_entropy(LOGITS.flatten(0, 1), TARGET.flatten(), reduction="sum")
    total = sum(sizes[i] for i in TARGET[TARGET >= 0].tolist())
    assert score(metric, LOGITS, TARGET, pieces=3) == pytest.approx(
        float(nll) / math.log(2) / total, rel=1e-5
    )


def test_nothing_seen_is_no_number():
    none = torch.full((2, 3), -100)
    for name in ("token_accuracy", "perplexity", "bits_per_byte"):
        assert math.isnan(score(metrics.build(name), torch.zeros(2, 3, V), none))
    tags = metrics.build("entity_f1", options={"tags": ("O", "B-X")})
    assert math.isnan(score(tags, torch.zeros(2, 3).long(), torch.zeros(2, 3).long()))


# ------------------------------------------------------------------ entities


TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER", "B-ORG", "I-ORG")


def starts(before, tag):
    """conlleval: does a chunk start between these two tags?"""
    (b, b_type), (t, t_type) = before, tag
    return (
        (b == "B" and t == "B") or (b == "I" and t == "B") or (b == "O" and t == "B")
        or (b == "O" and t == "I") or (t != "O" and b_type != t_type)
    )  # fmt: skip


def ends(before, tag):
    """conlleval: does a chunk end between these two tags?"""
    (b, b_type), (t, t_type) = before, tag
    return (
        (b == "B" and t == "B") or (b == "B" and t == "O") or (b == "I" and t == "B")
        or (b == "I" and t == "O") or (b != "O" and b_type != t_type)
    )  # fmt: skip


def conlleval(sentences):
    """The counting loop of the scorer: one token after the other, a blank line after a sentence.

    sentences  lists of (true tag, guessed tag)
    """
    part = lambda tag: ("O", "") if tag == "O" else (tag[0], tag[2:])
    right, true, found = {}, {}, {}
    last_true = last_found = ("O", "")
    both_inside = False
    for sentence in sentences:
        for pair in [*sentence, ("O", "O")]:  # the blank line
            now_true, now_found = part(pair[0]), part(pair[1])
            end_true, end_found = ends(last_true, now_true), ends(last_found, now_found)
            if both_inside:
                if end_true and end_found and last_true[1] == last_found[1]:
                    both_inside = False
                    right[last_true[1]] = right.get(last_true[1], 0) + 1
                elif end_true != end_found or now_true[1] != now_found[1]:
                    both_inside = False
            start_true, start_found = starts(last_true, now_true), starts(last_found, now_found)
            if start_true and start_found and now_true[1] == now_found[1]:
                both_inside = True
            if start_true:
                true[now_true[1]] = true.get(now_true[1], 0) + 1
            if start_found:
                found[now_found[1]] = found.get(now_found[1], 0) + 1
            last_true, last_found = now_true, now_found
    return right, true, found


def f1_of(right, true, found):
    r, t, f = (sum(d.values()) for d in (right, true, found))
    return 2 * r / (t + f) if t + f else float("nan")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 12))
def test_entity_f1_equals_conlleval_on_any_tags(seed, pieces, width):
    g = np.random.default_rng(seed)
    true = g.choice(7, (5, width), p=[0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    guess = np.where(g.random((5, width)) < 0.6, true, g.integers(0, 7, (5, width)))
    counted = g.random((5, width)) < 0.8
    sentences = [
        [(TAGS[a], TAGS[b]) for a, b, c in zip(*row, strict=True) if c]
        for row in zip(true, guess, counted, strict=True)
    ]
    right, wanted, found = conlleval(sentences)
    metric = metrics.build("entity_f1", options={"tags": TAGS})
    target = torch.from_numpy(np.where(counted, true, -100))
    got = score(metric, torch.from_numpy(guess), target, pieces=pieces)
    assert got == pytest.approx(f1_of(right, wanted, found), nan_ok=True)
    logits = F.one_hot(torch.from_numpy(guess), 7).float()
    assert score(metric, logits, target) == pytest.approx(got, nan_ok=True)
    state = metric.init("cpu")
    metric.update(state, torch.from_numpy(guess), target, None)
    for name, (precision, recall, f1) in entity_scores(state, TAGS).items():
        r, t, f = (d.get(name, 0) for d in (right, wanted, found))
        assert (precision, recall) == (r / f if f else 0, r / t if t else 0)
        assert f1 == pytest.approx(2 * r / (t + f) if r else 0)


@pytest.mark.parametrize(
    ("true", "guess", "expected"),
    [
        ("B-LOC I-LOC O", "I-LOC I-LOC O", 1.0),  # I- without B- begins an entity
        ("B-LOC I-LOC", "B-LOC B-LOC", 0.0),  # a wrong end; two found, none right
        ("B-LOC B-LOC", "B-LOC I-LOC", 0.0),
        ("B-LOC I-PER", "B-LOC B-PER", 1.0),  # a change of type begins one
        ("B-LOC I-LOC O B-PER", "B-LOC I-LOC O O", 2 / 3),
        ("O O B-LOC", "O O B-PER", 0.0),
    ],
)
def test_entities_by_hand(true, guess, expected):
    ids = lambda text: torch.tensor([[TAGS.index(t) for t in text.split()]])
    metric = metrics.build("entity_f1", options={"tags": TAGS})
    assert score(metric, ids(guess), ids(true)) == pytest.approx(expected)
    pairs = [list(zip(true.split(), guess.split(), strict=True))]
    assert f1_of(*conlleval(pairs)) == pytest.approx(expected)


def test_an_entity_ends_with_its_row_and_row_weights_count():
    ids = torch.tensor([[0, 1], [2, 0]])  # ... B-LOC | I-LOC: two entities, not one
    metric = metrics.build("entity_f1", options={"tags": TAGS})
    state = metric.init("cpu")
    metric.update(state, ids, ids, torch.tensor([3.0, 0.5]))
    assert state["true"][tag_set(TAGS).types.index("LOC")] == 3.5
    miss = torch.tensor([[0, 1], [0, 0]])
    assert score(metric, miss, ids, torch.tensor([3.0, 0.5])) == pytest.approx(6 / 6.5)


# ------------------------------------------------------------------ retrieval


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 3))
def test_retrieval_equals_the_plain_definitions(seed, k, pieces):
    g = np.random.default_rng(seed)
    scores = g.permuted(np.arange(40.0).reshape(5, 8), axis=1)
    grades = g.choice([0, 0, 0, 1, 2], (5, 8))
    grades[0] = 0
    weight = g.random(5)
    recall, first, gain, known = [], [], [], []
    for row, grade, w in zip(scores, grades, weight, strict=True):
        if not grade.any():
            continue
        order = grade[np.argsort(-row)]
        recall.append((order[:k] > 0).sum() / (order > 0).sum())
        first.append(1 / (1 + np.flatnonzero(order)[0]))
        gain.append(ndcg_score([grade], [row], k=k))
        known.append(w)
    args = torch.from_numpy(scores), torch.from_numpy(grades)
    w = torch.from_numpy(weight)
    for name, values in (("recall_at_k", recall), ("mrr", first), ("ndcg", gain)):
        metric = metrics.build(name, options={} if name == "mrr" else {"k": k})
        got = score(metric, *args, w, pieces)
        if known:
            assert got == pytest.approx(np.average(values, weights=known))
            assert score(metric, *args) == pytest.approx(np.mean(values))
        else:
            assert math.isnan(got)


def test_one_relevant_candidate_is_an_index_and_ties_gain_nothing():
    scores = torch.tensor([[0.0, 0.0, 0.0], [3.0, 1.0, 2.0]])
    assert ordered(scores, torch.tensor([0, 2])).tolist() == [[0, 0, 1], [0, 1, 0]]
    assert score(metrics.build("mrr"), scores, torch.tensor([0, 2])) == pytest.approx(5 / 12)
    top = metrics.build("recall_at_k", options={"k": 2})
    assert score(top, scores, torch.tensor([0, 2])) == 0.5
    many = torch.randint(0, 9, (200, 30), generator=G).float()
    many[::7, 3] = -torch.inf
    truth = torch.randint(0, 30, (200,), generator=G)
    assert torch.equal(ordered(many, truth), ordered(many, F.one_hot(truth, 30)))


def test_a_score_that_is_no_number_gains_nothing():
    scores = torch.tensor([[0.5, torch.nan, 0.1], [torch.nan, 1.0, 2.0]])
    assert ordered(scores, torch.tensor([0, 0])).tolist() == [[0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (ConfigError, lambda: metrics.build("entity_f1"), ["without tags", "option tags"]),
        (ConfigError, lambda: metrics.build("entity_f1", options={"tags": ("O", "S-LOC")}),
         ["'S-LOC'", "BIOES"]),
        (ConfigError, lambda: metrics.build("ndcg", options={"k": 0}), ["k=0"]),
        (ConfigError, lambda: metrics.build("bleu"), ["'bleu' compares texts", "build_text"]),
        (ConfigError, lambda: metrics.build("entity_f1", options={"tag": ()}), ["'tag'", "'tags'"]),
        (ModelError, lambda: score(metrics.build("perplexity"), torch.zeros(2, 4, 3),
                                   torch.zeros(2, 3).long()), ["(2, 4, 3)", "(2, 3)"]),
        (ModelError, lambda: ordered(torch.zeros(2, 4), torch.zeros(3).long()),
         ["(2, 4)", "(3,)"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(error, call, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
