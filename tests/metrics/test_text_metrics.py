"""Metrics of strings against sacreBLEU and the published rules of SQuAD and KorQuAD."""

from __future__ import annotations

import math
import re
import string
from collections import Counter

import pytest
import sacrebleu
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gipi import metrics
from gipi.core.errors import ConfigError, DataError
from gipi.data.sources import read_source
from gipi.metrics.rouge import longest_common

few = settings(max_examples=150, deadline=None)
WORDS = st.sampled_from((
    "the", "a", "an", "cat", "Cat's", "dog.", "3.5", "1,000", "e-mail", "U.S.", "&quot;x&quot;",
    "&amp;", "(no)", "-", "7-8", "the,", "½", "한국어", "[a]", "{b}", "x_y", "$5", "50%", '"q"',
    "‘k’", "《책》", "<t>", "〈z〉", "...", "?!", "don't",
))  # fmt: skip
TEXT = st.lists(WORDS, max_size=9).map(" ".join)
SOME = st.lists(TEXT, min_size=1, max_size=3)


def build(name, **options):
    return metrics.build_text(name, options=options)


# ------------------------------------------------------------------ BLEU


@few
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=6))
def test_bleu_equals_sacrebleu_with_two_references(rows):
    answers = [a for a, _, _ in rows]
    right = [[b, c] for _, b, c in rows]
    expected = sacrebleu.corpus_bleu(answers, [[r[0] for r in right], [r[1] for r in right]])
    assert build("bleu").score(answers, right) == pytest.approx(expected.score, abs=1e-9)


@few
@given(st.text(max_size=30), st.text(max_size=30))
def test_bleu_equals_sacrebleu_on_any_text(a, b):
    for words, lowercase in (("13a", False), ("char", True), ("none", False)):
        ours = build("bleu", words=words, lowercase=lowercase).score([a, b], [[b], [b]])
        theirs = sacrebleu.corpus_bleu([a, b], [[b, b]], tokenize=words, lowercase=lowercase)
        assert ours == pytest.approx(theirs.score, abs=1e-9)


def test_bleu_of_longer_texts_and_its_smoothing():
    said = ["the quick brown fox jumps over the lazy dog .", "an unlike line of words here"]
    right = [["a quick brown fox jumped over the lazy dog !"], ["nothing is the same at all"]]
    expected = sacrebleu.corpus_bleu(said, [[r[0] for r in right]]).score
    assert build("bleu").score(said, right) == pytest.approx(expected, abs=1e-9)
    none = sacrebleu.corpus_bleu([said[1]], [right[1]]).score
    assert build("bleu").score([said[1]], [right[1]]) == none == 0
    three = ["fox over dog jumps", "quick lazy"], [["jumps over the dog", "x"], ["lazy quick"]]
    expected = sacrebleu.corpus_bleu(three[0], [["jumps over the dog", "lazy quick"]]).score
    assert 0 < expected < 30
    one = [["jumps over the dog"], ["lazy quick"]]
    assert build("bleu").score(three[0], one) == pytest.approx(expected, abs=1e-9)


# ------------------------------------------------------------------ answers


def squad_normal(text):
    """The four steps of the official script, from last to first in its order of calls."""
    text = text.lower()
    text = "".join(c for c in text if c not in set(string.punctuation))
    text = re.sub(r"\b(a|an|the)\b", " ", text)
    return " ".join(text.split())


def korquad_normal(text):
    for sign in ("'", '"', "《", "》", "<", ">", "〈", "〉", r"\(", r"\)", "‘", "’"):
        text = re.sub(sign, " ", text)
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(text.split())


def plain_f1(said, right):
    same = sum((Counter(said) & Counter(right)).values())
    if same == 0:
        return 0
    precision, recall = same / len(said), same / len(right)
    return 2 * precision * recall / (precision + recall)


@few
@given(TEXT, SOME)
def test_answers_are_scored_as_squad_1_1(answer, right):
    f1 = max(plain_f1(squad_normal(answer).split(), squad_normal(r).split()) for r in right)
    exact = max(squad_normal(answer) == squad_normal(r) for r in right)
    assert build("answer_f1").score([answer], [right]) == pytest.approx(f1)
    assert build("exact_match_text").score([answer], [right]) == exact


@few
@given(TEXT, st.lists(TEXT, max_size=3))
def test_answers_are_scored_as_squad_2(answer, right):
    """Without a right answer that holds a word, the only right one is to say nothing."""
    golds = [r for r in right if squad_normal(r)] or [""]
    scores = []
    for gold in golds:
        said, wanted = squad_normal(answer).split(), squad_normal(gold).split()
        empty = not said or not wanted
        scores.append(int(said == wanted) if empty else plain_f1(said, wanted))
    exact = max(squad_normal(answer) == squad_normal(g) for g in golds)
    assert build("answer_f1", kind="squad2").score([answer], [right]) == pytest.approx(max(scores))
    assert build("exact_match_text", kind="squad2").score([answer], [right]) == exact


@few
@given(TEXT, SOME)
def test_answers_are_scored_as_korquad(answer, right):
    characters = lambda text: [c for word in korquad_normal(text).split() for c in word]
    f1 = max(plain_f1(characters(answer), characters(r)) for r in right)
    exact = max(korquad_normal(answer) == korquad_normal(r) for r in right)
    assert build("answer_f1", kind="korquad").score([answer], [right]) == pytest.approx(f1)
    assert build("exact_match_text", kind="korquad").score([answer], [right]) == exact


@pytest.mark.parametrize(
    ("kind", "answer", "right", "exact", "f1"),
    [
        ("squad", "The Denver Broncos!", ["Denver Broncos", "Broncos"], 1, 1),
        ("squad", "in 1998", ["1998"], 0, 2 / 3),
        ("squad2", "", [], 1, 1),
        ("squad2", "Paris", [], 0, 0),
        ("squad2", "", ["Paris"], 0, 0),
        ("korquad", "서울에", ["서울"], 0, 0.8),
        ("korquad", "《서울》", ["서울"], 1, 1),
        ("korquad", "서 울", ["서울"], 0, 1),  # words differ, characters do not
    ],
)
def test_answers_by_hand(kind, answer, right, exact, f1):
    assert build("exact_match_text", kind=kind).score([answer], [right]) == exact
    assert build("answer_f1", kind=kind).score([answer], [right]) == pytest.approx(f1)


@pytest.mark.data
@pytest.mark.parametrize(("name", "kind"), [("korquad", "korquad"), ("xquad", "squad")])
def test_real_questions_score_as_the_official_scorer_counts_them(data_folder, name, kind):
    """Answers a few characters too long or too short, over all questions of the set."""
    columns = read_source(name).columns
    contexts, right, starts = (columns[n].tolist() for n in ("context", "answers", "starts"))
    normal = korquad_normal if kind == "korquad" else squad_normal
    answers, f1, exact = [], 0.0, 0
    for i, (context, texts, places) in enumerate(zip(contexts, right, starts, strict=True)):
        first, last = places[0] + i % 4 - 1, places[0] + len(texts[0]) + i % 5 - 2
        answers.append(context[max(first, 0) : last])
        said = normal(answers[-1])
        cut = (lambda t: [c for w in t.split() for c in w]) if kind == "korquad" else str.split
        f1 += max(plain_f1(cut(said), cut(normal(r))) for r in texts)
        exact += max(said == normal(r) for r in texts)
    n = len(answers)
    assert build("answer_f1", kind=kind).score(answers, right) == pytest.approx(f1 / n)
    assert build("exact_match_text", kind=kind).score(answers, right) == pytest.approx(exact / n)
    assert 0.1 < exact / n < f1 / n < 0.95
    assert build("exact_match_text", kind=kind).score([r[0] for r in right], right) == 1


# ------------------------------------------------------------------ ROUGE-L


def plain_lcs(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            down = max(table[i - 1][j], table[i][j - 1])
            table[i][j] = table[i - 1][j - 1] + 1 if x == y else down
    return table[-1][-1]


@few
@given(st.text("abcd", max_size=80), st.text("abcd", max_size=80))
def test_longest_common_subsequences(a, b):
    assert longest_common(a, b) == plain_lcs(a, b)


def test_rouge_takes_words_of_any_script_and_the_best_reference():
    rouge = build("rouge_l")
    # Lin 2004, section 3.1: both candidates of the paper, with beta 1
    assert rouge.score(["police kill the gunman"], [["police killed the gunman"]]) == 0.75
    assert rouge.score(["the gunman kill police"], [["police killed the gunman"]]) == 0.5
    assert rouge.score(["나는 밥을 먹었다"], [["나는 빵을 먹었다", "그는 갔다"]]) == pytest.approx(
        2 / 3
    )
    assert rouge.score(["", "?"], [["x"], ["!"]]) == 0


# ------------------------------------------------------------------ one contract for all


ANSWERS = ["the cat sat on the mat", "a dog", "no", "the third of four lines"]
RIGHT = [["the cat sat on a mat"], ["a dog", "two dogs"], ["yes"], ["a third of the four lines"]]
NAMES = [r.name for r in metrics.METRICS if "strings" in r.tags]


@pytest.mark.parametrize("name", NAMES)
def test_states_add_up_and_weight_two_is_a_row_twice(name):
    metric = build(name)
    whole = metric.score(ANSWERS, RIGHT)
    rows = metric.rows(ANSWERS, RIGHT)
    parts = []
    for part in (slice(0, 1), slice(1, 4)):
        parts.append(metric.metric.init("cpu"))
        metric.metric.update(parts[-1], rows[part], rows[part], None)
    both = {k: v + parts[1][k] for k, v in parts[0].items()}
    assert metric.metric.compute(both) == pytest.approx(whole)
    ones = torch.ones(4)
    assert metric.score(ANSWERS, RIGHT, weight=ones) == pytest.approx(whole)
    ones[1] = 2
    twice = metric.score([*ANSWERS, ANSWERS[1]], [*RIGHT, RIGHT[1]])
    assert metric.score(ANSWERS, RIGHT, weight=ones) == pytest.approx(twice)
    assert math.isnan(metric.score([], []))
    assert metric.greater_is_better


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (ConfigError, lambda: build("bleu", words="14a"), ["'14a'", "did you mean '13a'"]),
        (ConfigError, lambda: build("answer_f1", kind="korqad"), ["'korqad'", "'korquad'"]),
        (ConfigError, lambda: build("accuracy"), ["compares tensors", "bleu", "build"]),
        (ConfigError, lambda: build("rouge_l", stem=True), ["no option 'stem'"]),
        (DataError, lambda: build("bleu").score(["a b c"], [[]]), ["no reference", "'a b c'"]),
        (DataError, lambda: build("answer_f1").score(["a"], [[]]), ["without a right", "squad2"]),
        (DataError, lambda: build("bleu").score(["a"], [["b"], ["c"]]), ["1 answers", "2 rows"]),
        (DataError, lambda: build("rouge_l").score(["a", "b"], [["x"], "yes"]),
         ["row 2", "one string", "'yes'"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(error, call, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
