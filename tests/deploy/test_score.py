"""Scores of texts: perplexity, bits per byte, surprise by token and word, rescoring."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from tests.deploy.lm import Bytes, Letters
from tests.nn.tiny_lm import TinyDecoder, TinyEncoder, TinyTranslator

from gipi.core.errors import ConfigError, DataError, ModelError
from gipi.deploy.score import TextScore, odd_words, rescore, score, score_hidden, words

TEXTS = ["the cat sat on the mat", "a", "so long and thanks for all", "ab"]
TEXTS = ["".join(c for c in text if c in Letters.LETTERS) for text in TEXTS]


def model(*, context=None, vocab=23, seed=0):
    net = TinyDecoder(seed, vocab=vocab)
    positions = {"positions": context, "offset": 0} if context else {}
    net.config = SimpleNamespace(embed=SimpleNamespace(vocab=vocab, **positions))
    return net


def log2_p(net, ids):
    with torch.no_grad():
        log_p = net(torch.tensor([ids])).logits[0].log_softmax(1) / math.log(2)
    return [float(log_p[t - 1, ids[t]]) for t in range(1, len(ids))]


class Knows(TinyDecoder):
    """Gives every letter of "abcabc..." three quarters, whatever comes before it."""

    def forward(self, input_ids, attention_mask=None, *, cache=None):
        out = super().forward(input_ids, attention_mask, cache=cache)
        follows = {1: 2, 2: 3, 3: 1}
        p = torch.full((*input_ids.shape, 23), 0.25 / 22)
        for place in input_ids.ne(-1).nonzero().tolist():
            p[*place, follows.get(int(input_ids[*place]), 0)] = 0.75
        out.logits = p.log()
        return out


# ------------------------------------------------------------------------ numbers


def test_surprise_is_minus_log_two_of_p():
    net = model()
    found = score(net, Letters(), TEXTS)
    for text, one in zip(TEXTS, found.texts, strict=True):
        bits = [-v for v in log2_p(net, Letters().encode(text))]
        assert list(one.surprise) == pytest.approx(bits, abs=1e-4)
        assert one.spans == tuple((i, i + 1) for i in range(1, len(text)))
        assert one.bytes == len(text) - 1  # the first letter is not scored
        if len(text) > 1:
            assert one.perplexity == pytest.approx(2 ** (sum(bits) / len(bits)), rel=1e-4)
            assert one.bits_per_byte == pytest.approx(sum(bits) / (len(text) - 1), rel=1e-4)
    count = sum(len(text) - 1 for text in TEXTS)
    total = sum(one.bits for one in found.texts)
    assert found.perplexity == pytest.approx(2 ** (total / count))
    assert found.bits_per_byte == pytest.approx(total / count)


def test_a_known_distribution_has_its_perplexity():
    found = score(Knows(), Letters(), ["abcabcabc"])
    assert found.texts[0].surprise == pytest.approx([-math.log2(0.75)] * 8, abs=1e-5)
    assert found.perplexity == pytest.approx(4 / 3, rel=1e-5)


def test_with_an_id_before_it_the_first_token_is_scored_too():
    net = model(vocab=259)
    text = "né😀"
    found = score(net, Bytes(), [text]).texts[0]
    ids = [1, *(b + 3 for b in text.encode())]
    assert list(found.surprise) == pytest.approx([-v for v in log2_p(net, ids)], abs=1e-4)
    assert found.bytes == len(text.encode()) == len(found.surprise)
    assert found.spans == ((0, 1), *[(1, 2)] * 2, *[(2, 3)] * 4)
    assert found.bits_per_byte == pytest.approx(found.bits / 7)


def test_a_model_of_documents_is_scored_behind_the_end_of_one():
    net, told = model(), Letters()
    found = score(net, told, ["cab"], begin=(told.eos,)).texts[0]
    bits = [-v for v in log2_p(net, [told.eos, *told.encode("cab")])]
    assert list(found.surprise) == pytest.approx(bits, abs=1e-4)
    assert found.bytes == 3
    two = score(net, told, ["cab"], begin=(1, told.eos)).texts[0]
    bits = [-v for v in log2_p(net, [1, told.eos, *told.encode("cab")])][1:]
    assert list(two.surprise) == pytest.approx(bits, abs=1e-4)
    assert score(model(vocab=259), Bytes(), ["ab"], begin=()).texts[0].bytes == 1
    ranked = rescore(net, told, [["cab", "abc"]], begin=(told.eos,))[0]
    for r in ranked:
        alone = score(net, told, [r.text], begin=(told.eos,)).texts[0]
        assert r.log_p == pytest.approx(-alone.bits * math.log(2), abs=1e-4)


def test_long_texts_are_read_in_windows():
    net, plain = model(context=8), model()
    text = "the cat sat on the mat and then it ate a rat".replace("w", "")
    text = "".join(c for c in text if c in Letters.LETTERS)
    cut = score(net, Letters(), [text])
    assert max(length for _, length in net.calls) == 8
    assert len(cut.texts[0].surprise) == len(text) - 1
    assert cut == score(plain, Letters(), [text], context=8, stride=4)
    assert score(net, Letters(), [text], stride=1) != cut
    with pytest.raises(ConfigError, match="context=9"):
        score(net, Letters(), [text], context=9)


def test_scores_are_plain_values():
    found = json.loads(
        json.dumps(score(model(), Letters(), ["ab", "a"]).as_dict(), allow_nan=False)
    )
    assert found["texts"][1] == {
        "text": "a", "bits": 0.0, "perplexity": None, "bits_per_byte": None, "tokens": [],
    }  # fmt: skip
    assert [t["text"] for t in found["texts"][0]["tokens"]] == ["b"]
    assert score(model(), Letters(), "ab") == score(model(), Letters(), ["ab"])
    assert math.isnan(score(model(), Letters(), []).perplexity)
    impossible = TextScore("ab", ((1, 2),), (math.inf,), 1).as_dict()
    assert (impossible["bits"], impossible["tokens"]) == (None, [{"text": "b", "bits": None}])


# ------------------------------------------------------------------------ words


def test_a_word_has_the_bits_of_its_tokens():
    spans = ((0, 3), (3, 5), (5, 8), (8, 9), (9, 13), (13, 14))
    one = TextScore("The dogbite  is.x", spans, (1.0, 2.0, 4.0, 8.0, 16.0, 32.0), 17)
    #                012345678901234567: The| d|ogb|i|te  |i
    assert [(w.word, w.begin, w.end, w.bits) for w in words(one)] == [
        ("The", 0, 3, 1.0), ("dogbite", 4, 11, 30.0), ("is.x", 13, 17, 32.0),
    ]  # fmt: skip
    space = TextScore("a b", ((1, 2), (2, 3)), (5.0, 7.0), 2)
    assert [(w.word, w.bits) for w in words(space)] == [("b", 7.0)]


def test_the_odd_word_is_pointed_at():
    found = score(Knows(), Letters(), ["abcabc abqabc abc", "abc"])
    odd = odd_words(found, most=1)
    assert [w.word for w in odd[0]] == ["abqabc"]
    assert "abcabc abqabc abc"[odd[0][0].begin : odd[0][0].end] == "abqabc"
    assert odd_words(found, above_bits=8.0)[1] == []
    everything = odd_words(found, most=9)[0]
    assert [w.bits for w in everything] == sorted((w.bits for w in everything), reverse=True)
    assert len(everything) == 3
    with pytest.raises(ConfigError, match="most=0"):
        odd_words(found, most=0)


# ------------------------------------------------------------------------ rescoring


def test_the_most_fluent_candidate_comes_first():
    found = rescore(Knows(), Letters(), [["abqabc", "abcabcab", "cba"], ["a", "ab"]])
    assert [r.text for r in found[0]] == ["abcabcab", "abqabc", "cba"]
    assert [r.number for r in found[0]] == [1, 0, 2]
    assert found[0][0].log_p == pytest.approx(7 * math.log(0.75), abs=1e-4)
    assert found[0][0].total == pytest.approx(math.log(0.75), abs=1e-4)


def test_another_systems_scores_are_weighed_against_fluency():
    rows, given = [["abqabc", "abcabc"]], [[0.0, -9.0]]
    first = lambda **more: rescore(Knows(), Letters(), rows, scores=given, **more)[0][0].text
    assert first() == "abqabc"
    assert first(weight=20.0) == "abcabc"
    sums = rescore(Knows(), Letters(), [["abc", "abcabcabc"]], mean=False)
    assert sums[0][0].text == "abc"  # without a mean the short one wins


def test_translations_are_scored_given_their_source():
    net, told = TinyTranslator(), Letters()
    rows = [["ab", "cd", "efg"], ["ab", "hi"]]
    found = rescore(net, told, rows, sources=["cat", "dog"], start_ids=(22,))
    assert net.encoded == 2
    for source, several in zip(["cat", "dog"], found, strict=True):
        for r in several:
            target = [*told.encode(r.text), told.eos]
            with torch.no_grad():
                log_p = net(torch.tensor([told.encode(source)]),
                            decoder_input_ids=torch.tensor([[22, *target]])
                            ).logits[0].log_softmax(1)  # fmt: skip
            assert r.log_p == pytest.approx(
                sum(float(log_p[t, token]) for t, token in enumerate(target)), abs=1e-4
            )
            assert r.total == pytest.approx(r.log_p / len(target))
    # a model that goes on reads the source before the candidate
    going_on = rescore(model(), told, [["ab"]], sources=["cat"])[0][0]
    expected = log2_p(model(), [*told.encode("catab"), told.eos])[-3:]
    assert going_on.log_p == pytest.approx(sum(expected) * math.log(2), abs=1e-4)


# ------------------------------------------------------------------------ wrong requests


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: score(model(), Letters(), ["a", ""]), DataError, "text 1 is empty"),
        (lambda: score(model(), Letters(), ["a", None]), DataError, "text 1 is NoneType"),
        (lambda: score(model(), Bytes(), ["a"]), ModelError, "a tokenizer of 259 ids"),
        (lambda: rescore(model(), Letters(), [["a"], []]), DataError, "row 1 has no candidate"),
        (
            lambda: rescore(model(), Letters(), [["a"]], sources=["a", "b"]),
            ConfigError, "2 sources for 1 rows",
        ),
        (
            lambda: rescore(model(), Letters(), [["ab", "a"]], scores=[[1.0]]),
            ConfigError, "not as many as the candidates",
        ),
    ],
)  # fmt: skip
def test_requests_that_mean_nothing_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_text_without_tokens_is_named():
    class Deaf(Letters):
        def encode(self, text):
            return super().encode(text.replace("q", ""))

    with pytest.raises(DataError, match=r"text 1 \('qq'\) has no token"):
        score(model(), Deaf(), ["a", "qq"])


def test_a_model_that_reads_both_ways_is_refused():
    net = torch.nn.Linear(1, 1)
    net.config = SimpleNamespace(stack=SimpleNamespace(causal=False))
    with pytest.raises(ModelError, match="reads a text in both directions"):
        score(net, Letters(), ["ab"])


# ------------------------------------------------------------------------ hidden tokens


class Masks(Bytes):
    mask = 258 + 1
    vocab_size = 260


def encoder(places=64):
    net = TinyEncoder(vocab=260, context=places)
    net.config = SimpleNamespace(
        embed=SimpleNamespace(vocab=260, positions=places, offset=0),
        stack=SimpleNamespace(causal=False),
    )
    return net


def test_a_model_that_reads_both_ways_scores_hidden_tokens():
    net = encoder()
    texts = ["né it", "a"]
    found = score_hidden(net, Masks(), texts)
    for text, one in zip(texts, found.texts, strict=True):
        ids = [1, *(b + 3 for b in text.encode()), 2]
        for place, bits in enumerate(one.surprise, 1):
            hidden = [Masks.mask if i == place else token for i, token in enumerate(ids)]
            with torch.no_grad():
                log_p = net(torch.tensor([hidden])).logits[0, place].log_softmax(0)
            assert bits == pytest.approx(-float(log_p[ids[place]]) / math.log(2), abs=1e-4)
        assert one.bytes == len(one.surprise) == len(ids) - 2
    assert [w.word for w in words(found.texts[0])] == ["né", "it"]
    assert score_hidden(net, Masks(), "a").texts == found.texts[1:]


def test_hidden_tokens_need_a_mask_and_a_context():
    with pytest.raises(ModelError, match="without an id that hides a token"):
        score_hidden(encoder(), Bytes(), ["a"])
    with pytest.raises(DataError, match=r"text 1 \('hello hello'\) has 13 tokens"):
        score_hidden(encoder(12), Masks(), ["hello", "hello hello"])
    with pytest.raises(DataError, match="text 0 is empty"):
        score_hidden(encoder(), Masks(), [""])
