"""Labels by likelihood: zero-, one- and few-shot equal scoring whole texts; examples read once."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from tests.deploy.lm import Bytes
from tests.nn.tiny_lm import TinyDecoder, TinyTranslator

from gipi.core.errors import ConfigError, DataError
from gipi.deploy.by_likelihood import BETWEEN, PATTERN, classify_by_likelihood

LABELS = ["good", "bad", "no idea"]
TEXTS = ["fine", "awful!", "hm"]
EXAMPLES = [("great", "good"), ("poor", "bad")]


def model(*, context=None, places=256):
    net = TinyDecoder(vocab=259, context=places, heat=1.0)
    positions = {"positions": context, "offset": 0} if context else {}
    net.config = SimpleNamespace(embed=SimpleNamespace(vocab=259, **positions))
    return net


def log_p_of_end(net, text, end):
    """Return log p of the bytes of `end` behind a text."""
    ids = [1, *(b + 3 for b in (text + end).encode())]
    with torch.no_grad():
        log_p = net(torch.tensor([ids])).logits[0].log_softmax(1)
    return [float(log_p[t - 1, ids[t]]) for t in range(len(ids) - len(end.encode()), len(ids))]


def written(text, label, pattern=PATTERN):
    return pattern.replace("{text}", text).replace("{label}", label)


@pytest.mark.parametrize("normalise", ["sum", "mean", "prior"])
@pytest.mark.parametrize("examples", [[], EXAMPLES[:1], EXAMPLES], ids=["zero", "one", "few"])
def test_scores_are_those_of_the_whole_text(examples, normalise):
    net = model()
    found = classify_by_likelihood(net, Bytes(), TEXTS, LABELS, examples=examples,
                                   instruction="Rate it.\n", normalise=normalise)  # fmt: skip
    before = "Rate it.\n" + "".join(written(*pair) + BETWEEN for pair in examples)

    def points(text, label):
        values = log_p_of_end(net, before + written(text, "")[:-1], " " + label)
        return sum(values) / (len(values) if normalise == "mean" else 1)

    for text, guess in zip(TEXTS, found, strict=True):
        row = [points(text, label) for label in LABELS]
        if normalise == "prior":
            row = [s - points("N/A", label) for s, label in zip(row, LABELS, strict=True)]
        shares = torch.tensor(row, dtype=torch.float64).softmax(0).tolist()
        assert list(guess.scores.values()) == pytest.approx(shares, abs=1e-4)
        assert guess.label == LABELS[row.index(max(row))]
        assert (guess.text, list(guess.scores)) == (text, LABELS)
        assert math.fsum(guess.scores.values()) == pytest.approx(1.0)


def test_examples_are_read_once_and_a_text_once_for_all_labels():
    net = model()
    classify_by_likelihood(net, Bytes(), ["abc", "xyz"], ["good", "bad"], examples=EXAMPLES)
    shared = 1 + sum(len(written(*pair) + BETWEEN) for pair in EXAMPLES)
    stem = len(written("abc", "")) - 1
    assert net.calls == [(1, shared), (2, stem), (4, len(" good") - 1)]


def test_labels_may_be_written_in_other_words_and_patterns():
    net = model()
    pattern = "{text}={label}"
    found = classify_by_likelihood(net, Bytes(), TEXTS, {"pos": "+", "neg": "-"}, pattern=pattern,
                                   normalise="sum")  # fmt: skip
    for text, guess in zip(TEXTS, found, strict=True):
        plus, minus = (log_p_of_end(net, text + "=", sign)[0] for sign in "+-")
        assert guess.label == ("pos" if plus > minus else "neg")
    braces = classify_by_likelihood(net, Bytes(), ["{x} {label}"], LABELS)
    assert braces[0].text == "{x} {label}"  # a text is no pattern


def test_a_model_that_reads_a_source_is_asked_too():
    net = TinyTranslator()
    net.decoder = TinyDecoder(vocab=259, context=256)
    found = classify_by_likelihood(net, Bytes(), TEXTS, LABELS, examples=EXAMPLES, start_ids=(0,))
    assert net.encoded == len(TEXTS)
    text = "".join(written(*pair) + BETWEEN for pair in EXAMPLES) + written(TEXTS[0], "")[:-1]
    source = torch.tensor([[1, *(b + 3 for b in text.encode()), 2]])
    row = []
    for label in LABELS:
        target = [b + 3 for b in f" {label}".encode()]
        with torch.no_grad():
            log_p = (
                net(source, decoder_input_ids=torch.tensor([[0, *target]])).logits[0].log_softmax(1)
            )
        row.append(sum(float(log_p[t, i]) for t, i in enumerate(target)) / len(target))
    shares = torch.tensor(row, dtype=torch.float64).softmax(0).tolist()
    assert list(found[0].scores.values()) == pytest.approx(shares, abs=1e-4)


def test_the_prior_takes_out_how_common_a_label_is():
    class Biased(TinyDecoder):
        """Finds "y" likelier than "n" behind anything, less so behind a text of q."""

        def forward(self, input_ids, attention_mask=None, *, cache=None):
            out = super().forward(input_ids, attention_mask, cache=cache)
            has_q = (input_ids == ord("q") + 3).any(1)
            if cache is not None:
                cache.q = has_q if not hasattr(cache, "q") else cache.q | has_q
            out.logits = torch.zeros_like(out.logits)
            out.logits[:, :, ord("y") + 3] = 3.0
            out.logits[has_q, :, ord("y") + 3] = 1.0
            return out

    options = {"pattern": "{text}:{label}", "normalise": "sum"}
    plain = classify_by_likelihood(Biased(vocab=259), Bytes(), ["q", "abc"], ["y", "n"], **options)
    assert [g.label for g in plain] == ["y", "y"]
    options["normalise"] = "prior"
    better = classify_by_likelihood(Biased(vocab=259), Bytes(), ["q"], ["y", "n"], **options)
    assert better[0].label == "n"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"labels": ["one"]}, ConfigError, "1 label"),
        ({"labels": ["a", "a"]}, ConfigError, "two labels of one name"),
        ({"labels": {"a": "x", "b": "x"}}, ConfigError, "written alike"),
        ({"labels": {"a": "x", "b": ""}}, ConfigError, "as nothing"),
        ({"pattern": "{label}: {text}"}, ConfigError, "{label} at the end"),
        ({"pattern": "what {label}"}, ConfigError, "{text} once"),
        ({"examples": [("x", "good"), ("y", "ugly")]}, DataError, "example 1 has the label 'ugly'"),
        ({"normalise": "means"}, ConfigError, "did you mean 'mean'"),
        ({"texts": ["a", ""]}, DataError, "text 1 is empty"),
    ],
)
def test_requests_that_mean_nothing_are_refused(change, error, words):
    given = {"texts": TEXTS, "labels": LABELS, **change}
    with pytest.raises(error) as caught:
        classify_by_likelihood(model(), Bytes(), given.pop("texts"), given.pop("labels"), **given)
    assert words in str(caught.value)


def test_a_text_that_does_not_fit_beside_the_examples_is_named():
    long = "long " * 9
    with pytest.raises(DataError, match=r"text 1 \('long long.*and what stands before it has"):
        classify_by_likelihood(model(context=50), Bytes(), ["a", long], LABELS)
    assert len(classify_by_likelihood(model(context=50), Bytes(), ["a"], LABELS)) == 1
