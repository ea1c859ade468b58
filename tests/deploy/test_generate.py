"""Texts generated: whole and in pieces, in any batch, beyond the context; wrong requests named."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from tests.deploy.lm import Bytes, Letters, Pieces
from tests.nn.tiny_lm import TinyDecoder, TinyRecurrent, TinyTranslator

from gipi.core.errors import ConfigError, DataError, ModelError, NonFiniteError
from gipi.core.schema import Signature
from gipi.deploy.generate import generate, stream
from gipi.deploy.generation import Generation, generation_of
from gipi.deploy.score import score
from gipi.models.from_tokens import (
    GPT2Options,
    LlamaOptions,
    language_model,
    modern_language_model,
)
from gipi.nn.decode import decode
from gipi.nn.steppers import DecoderOnly, stepper

TEXTS = ["the cat", "a", "so", "hello madam", "ab", "b"]


def model(*, context=None, vocab=23, width=16):
    """Return a tiny decoder that says how long a context and how many ids it knows."""
    net = TinyDecoder(vocab=vocab, context=context or 64)
    positions = {"positions": context, "offset": 0} if context else {}
    net.config = SimpleNamespace(embed=SimpleNamespace(vocab=vocab, **positions))
    return net


DRAWN = Generation(max_new_tokens=12, temperature=1.5)


# ------------------------------------------------------------------------ whole answers


def test_answers_are_those_of_the_tokens():
    net, told = model(), Letters()
    how = Generation(max_new_tokens=12, stop=(5, 21))
    found = generate(net, told, TEXTS, how=how)
    ids = [told.encode(text) for text in TEXTS]
    plain = decode(DecoderOnly(net), ids, max_new_tokens=12, stop=how.stop)
    assert [g.tokens for g in found] == [a.tokens for a in plain]
    assert [g.text for g in found] == [told.decode(a.tokens) for a in plain]
    assert [(g.row, g.prompt) for g in found] == list(enumerate(TEXTS))
    assert {g.stopped for g in found} == {"stop", "length"}
    assert [g.stopped == "stop" for g in found] == [a.stopped is not None for a in plain]
    assert json.loads(json.dumps([asdict(g) for g in found]))[1]["prompt"] == "a"


def test_ids_and_single_prompts_are_taken_too():
    net, told = model(), Letters()
    texts = generate(net, told, TEXTS, how=DRAWN)
    ids = generate(net, told, [told.encode(text) for text in TEXTS], how=DRAWN)
    assert [g.tokens for g in ids] == [g.tokens for g in texts]
    assert {g.prompt for g in ids} == {""}
    assert generate(net, told, "the cat", how=DRAWN) == texts[:1]
    assert generate(net, told, told.encode("the cat"), how=DRAWN) == ids[:1]
    row = torch.tensor(told.encode("the cat"))
    assert generate(net, told, row, how=DRAWN) == ids[:1]
    assert generate(net, told, row[None].numpy(), how=DRAWN) == ids[:1]
    assert generate(net, told, [], how=DRAWN) == []


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_the_batch_size_changes_nothing(batch_size):
    net = model()
    how = replace(DRAWN, samples=3, seed=4)
    found = generate(net, Letters(), TEXTS, how=how, batch_size=batch_size)
    assert found == generate(net, Letters(), TEXTS, how=how, batch_size=5)
    assert [g.row for g in found] == [i for i in range(len(TEXTS)) for _ in range(3)]
    assert len({g.text for g in found[:3]}) == 3
    alone = generate(net, Letters(), [TEXTS[3]], how=how)
    assert [g.text for g in alone] == [g.text for g in found[9:12]]


def test_beams_give_their_best():
    net = model()
    how = Generation(max_new_tokens=8, beams=4, samples=2)
    found = generate(net, Letters(), TEXTS, how=how, batch_size=4)
    assert len(found) == 2 * len(TEXTS)
    assert all(a.score >= b.score for a, b in zip(found[::2], found[1::2], strict=True))
    assert found[:2] == generate(net, Letters(), TEXTS[:1], how=how)


def test_sources_are_answered():
    net = TinyTranslator()
    found = generate(net, Letters(), TEXTS, how=Generation(max_new_tokens=6, start_ids=(22,)))
    assert net.encoded == len(TEXTS)
    assert len({g.text for g in found}) > 2
    with pytest.raises(ModelError, match="no id with which an answer begins"):
        generate(net, Letters(), TEXTS, how=Generation(start_ids=()))


def test_a_text_is_written_from_nothing_behind_what_begins_one():
    net, told = model(), Letters()
    how = replace(DRAWN, begin=(told.eos,), samples=4)
    found = generate(net, told, ["", "ab"], how=how)
    plain = generate(net, told, [[told.eos], [told.eos, *told.encode("ab")]], how=how)
    assert [g.text for g in found] == [g.text for g in plain]
    assert generate(net, told, "ab", how=replace(how, begin=()))[0].text == generate(
        net, told, "ab", how=replace(how, begin=None))[0].text  # fmt: skip

    class Encoders(Bytes):
        bos = None  # the id before a text is one of encoders

    wide = model(vocab=259)
    generate(wide, Encoders(), ["ab"], how=Generation(max_new_tokens=1))
    assert wide.calls == [(1, 2)]


def test_what_the_tokenizer_puts_before_a_text_is_read_and_what_it_puts_behind_is_not():
    net = model(vocab=259)
    generate(net, Bytes(), ["ab"], how=Generation(max_new_tokens=1))
    assert net.calls == [(1, 3)]  # the beginning, a, b
    source = TinyTranslator()
    source.decoder = TinyDecoder(vocab=259)
    seen = []
    source.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    generate(source, Bytes(), ["ab"], how=Generation(max_new_tokens=1, start_ids=(0,)))
    assert seen[0].tolist() == [[1, 100, 101, 2]]  # a source has its end


def test_the_space_between_prompt_and_answer_is_kept():
    net = model()
    how = replace(DRAWN, samples=20, temperature=4.0)
    letters = generate(net, Letters(), TEXTS, how=how)
    pieces = generate(net, Pieces(), TEXTS, how=how)
    assert [g.text for g in letters] == [g.text for g in pieces]
    assert any(g.text.startswith(" ") for g in letters)


def test_ids_without_a_text_are_never_said():
    net = model(vocab=40)  # a table that is filled up to 40 rows
    found = generate(net, Letters(), TEXTS, how=replace(DRAWN, samples=6, stop=()))
    said = {t for g in found for t in g.tokens}
    assert max(said) < Letters.vocab_size
    assert len(said) > 15


def test_the_model_is_evaluated_and_put_back():
    net = model()
    net.drop = torch.nn.Dropout(0.5).train()
    modes = []
    net.register_forward_pre_hook(lambda m, _: modes.append(m.training))
    net.train()
    generate(net, Letters(), TEXTS[:2], how=DRAWN)
    list(stream(net, Letters(), TEXTS[:1], how=DRAWN))
    assert set(modes) == {False}
    assert net.training
    assert net.drop.training


def test_models_that_are_trained_here_are_asked_as_they_are():
    signature = Signature(vocab=23, length=16, pad=22, outputs=23)
    draw = torch.Generator().manual_seed(0)
    net = language_model(
        GPT2Options(width=16, layers=2, heads=2, dropout=0.5), signature, draw
    ).train()
    found = generate(net, Letters(), TEXTS, how=replace(DRAWN, max_new_tokens=40, stop=()))
    assert {len(g.tokens) for g in found} == {40}  # beyond the context of 16
    assert net.training
    with pytest.raises(ModelError, match="a tokenizer of 259 ids for a model of 23"):
        generate(net, Bytes(), TEXTS)
    with pytest.raises(DataError, match="at most 16, the context of the model"):
        generate(net, Letters(), "a" * 17)
    recurrent = TinyRecurrent()
    assert len(generate(recurrent, Letters(), TEXTS, how=DRAWN)) == len(TEXTS)
    with pytest.raises(ModelError, match="a tokenizer of 259 ids for a model of 23"):
        generate(recurrent, Bytes(), TEXTS)


def test_turned_positions_go_no_further_than_they_were_trained():
    signature = Signature(vocab=23, length=16, pad=22, outputs=23)
    draw = torch.Generator().manual_seed(0)
    net = modern_language_model(LlamaOptions(width=16, layers=1, heads=2), signature, draw)
    assert stepper(net).context == 16
    with pytest.raises(DataError, match="at most 16, the context of the model"):
        generate(net, Letters(), "a" * 17)
    text = "the cat" * 6
    assert score(net, Letters(), [text]) == score(net, Letters(), [text], context=16)
    assert score(net, Letters(), [text]) != score(net, Letters(), [text], context=8)


# ------------------------------------------------------------------------ beyond the context


def test_answers_go_on_beyond_the_context_each_row_on_its_own():
    net = model(context=12)
    how = replace(DRAWN, max_new_tokens=40, stop=())
    found = generate(net, Letters(), TEXTS, how=how)
    assert {len(g.tokens) for g in found} == {40}
    assert max(length for _, length in net.calls) <= 12
    for text, g in zip(TEXTS, found, strict=True):
        assert generate(net, Letters(), [text], how=how)[0].tokens == g.tokens
    with pytest.raises(ConfigError, match="give max_new_tokens=6, or slide=True"):
        generate(net, Letters(), ["the cat"], how=replace(how, slide=False))
    exactly = generate(net, Letters(), ["the cat"],
                       how=replace(how, slide=False, max_new_tokens=6))  # fmt: skip
    assert exactly[0].tokens == found[0].tokens[:6]


def test_a_prompt_beyond_the_context_is_never_cut():
    with pytest.raises(DataError, match=r"text 1 \('hello madam'\) has 11 tokens") as caught:
        generate(model(context=8), Letters(), ["a", "hello madam"])
    assert "at most 8" in caught.value.needed


def test_an_answer_to_a_source_must_fit_the_positions():
    net = TinyTranslator()
    net.config = SimpleNamespace(embed=SimpleNamespace(vocab=23, positions=8, offset=0))
    how = Generation(start_ids=(22,), max_new_tokens=8)
    assert len(generate(net, Letters(), ["abc"], how=how)) == 1
    with pytest.raises(ConfigError, match="give max_new_tokens=8"):
        generate(net, Letters(), ["abc"], how=replace(how, max_new_tokens=9))
    with pytest.raises(DataError, match="at most 8, the context of the model"):
        generate(net, Letters(), ["abcabcabc"], how=how)


# ------------------------------------------------------------------------ streams


@pytest.mark.parametrize("how", [DRAWN, Generation(max_new_tokens=9, stop=(5, 6))])
def test_pieces_joined_are_the_text(how):
    net = model()
    pieces = list(stream(net, Letters(), TEXTS, how=how))
    whole = generate(net, Letters(), TEXTS, how=how)
    for row, g in enumerate(whole):
        mine = [p for p in pieces if p.row == row]
        assert "".join(p.text for p in mine) == g.text
        assert [p.last for p in mine] == [False] * (len(mine) - 1) + [True]


@pytest.mark.parametrize("tokenizer", [Letters, Pieces])
def test_a_long_stream_decodes_each_token_a_few_times(tokenizer):
    class Counting(tokenizer):
        read = 0

        def decode(self, ids):
            Counting.read += len(ids)
            return super().decode(ids)

    net, how = model(), replace(DRAWN, max_new_tokens=400, stop=(), temperature=3.0)
    net.places = torch.nn.Parameter(net.places.repeat(8, 1))
    prompt = "the cat " * 10
    text = "".join(p.text for p in stream(net, Counting(), prompt, how=how))
    assert Counting.read < 400 * 40
    assert text == generate(net, tokenizer(), prompt, how=how)[0].text
    assert " " in text


def test_characters_are_held_back_until_they_are_whole():
    class Fixed(TinyDecoder):
        """Writes "a😀é" byte by byte, then ends."""

        def forward(self, input_ids, attention_mask=None, *, cache=None):
            out = super().forward(input_ids, attention_mask, cache=cache)
            text = [*(b + 3 for b in "a😀é".encode()), 2]
            out.logits = torch.full((*out.logits.shape[:2], 259), -9.0)
            out.logits[:, -1, text[len(self.calls) - 1]] = 9.0
            return out

    pieces = list(stream(Fixed(vocab=259), Bytes(), ["x"]))
    assert [p.text for p in pieces] == ["a", "😀", "é", ""]
    cut = list(stream(Fixed(vocab=259), Bytes(), ["x"], how=Generation(max_new_tokens=3)))
    assert "".join(p.text for p in cut).startswith("a")
    assert cut[-1].last


def test_streams_begin_before_they_end_and_slide():
    net = model(context=12)
    found = stream(net, Letters(), "ab", how=replace(DRAWN, max_new_tokens=40, stop=()))
    next(found)
    assert len(net.calls) <= 2
    rest = list(found)
    assert rest[-1].last
    with pytest.raises(ConfigError, match="prompts of several lengths beyond the model's context"):
        stream(net, Letters(), ["a", "ab"], how=replace(DRAWN, max_new_tokens=40))
    for change in ({"beams": 2, "temperature": None}, {"samples": 2}):
        with pytest.raises(ConfigError, match="stream of beams or of several samples"):
            stream(net, Letters(), ["a"], how=replace(DRAWN, **change))


def test_a_stop_text_ends_an_answer():
    net = model()
    plain = generate(net, Letters(), TEXTS, how=replace(DRAWN, max_new_tokens=30, stop=()))
    found = generate(net, Letters(), TEXTS,
                     how=replace(DRAWN, max_new_tokens=30, stop=(), stop_texts=("e",)))  # fmt: skip
    assert [g.text for g in found] == [g.text.split("e")[0] for g in plain]
    assert any("e" in g.text for g in plain)


# ------------------------------------------------------------------------ wrong requests


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (Generation(max_new_tokens=0), "max_new_tokens=0"),
        (Generation(samples=0), "samples=0"),
        (Generation(beams=0), "beams=0"),
        (Generation(samples=3), "samples=3 of the likeliest tokens"),
        (Generation(beams=2, samples=3), "samples=3 of 2 beams"),
        (Generation(beams=2, temperature=1.0), "beams with temperature"),
        (Generation(min_new_tokens=60), "min_new_tokens=60 and max_new_tokens=50"),
        (Generation(temperature=-1.0), "temperature=-1.0"),
        (Generation(forbidden=(23,)), "id 23 is forbidden"),
        (Generation(stop=(70,)), "stop id 70 for a model of 23 ids"),
        (Generation(stop_texts=("ab",)), "stop text 'ab' is 2 tokens"),
    ],
)
def test_options_that_do_not_fit_are_refused(how, words):
    with pytest.raises(ConfigError, match=words):
        generate(model(), Letters(), ["a"], how=how)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="batch_size=0"):
        generate(model(), Letters(), ["a"], batch_size=0)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [(["a", ""], "text 1 is empty"), (["a", 3], "text 1 is int"), ([[1], []], "prompt 1 has no")],
)
def test_prompts_without_anything_are_named(prompts, words):
    with pytest.raises(DataError, match=words):
        generate(model(), Letters(), prompts)


def test_errors_on_the_way_call_a_prompt_by_its_number():
    net = model()
    with torch.no_grad():
        net.tokens[3] = float("nan")
    prompts = [[1, 2, 4, 5], [1, 2], [5, 3, 1], [6]]  # read in the order of their lengths
    for how in (Generation(), Generation(beams=2)):
        with pytest.raises(NonFiniteError, match="the logits of prompt 2 after 0 new tokens"):
            generate(net, Letters(), prompts, how=how)


def test_a_tokenizer_of_another_model_is_refused():
    with pytest.raises(ModelError, match="a tokenizer of 259 ids for a model of 23"):
        generate(model(), Bytes(), ["a"])
    with pytest.raises(ModelError, match="id 23 in text 1"):
        generate(model(), Letters(), [[1], [23]])
    with pytest.raises(ModelError, match="id -1 in text 0"):
        generate(model(), Letters(), [[-1]])

    class Strange(Letters):
        vocab_size = None
        eos = 70

    with pytest.raises(ModelError, match="eos id 70 for a model of 23 ids"):
        generate(model(), Strange(), ["a"])


# ------------------------------------------------------------------------ published defaults


def test_the_words_of_published_models_are_understood():
    gpt2 = generation_of({"eos_token_id": 50256, "decoder_start_token_id": None},
                         reads_source=False)  # fmt: skip
    assert gpt2 == Generation(stop=(50256,))
    marian = generation_of(
        {"decoder_start_token_id": 58100, "eos_token_id": 0},
        {"num_beams": 4, "forced_eos_token_id": 0, "bad_words_ids": [[58100], [1, 2]],
         "length_penalty": 0.6, "early_stopping": True, "max_length": 512},
        reads_source=True,
    )  # fmt: skip
    assert marian == Generation(
        beams=4, last=0, forbidden=(58100,), stop=(0,), start_ids=(58100,), length_penalty=0.6,
        early_stopping=True,
    )  # fmt: skip
    llama = generation_of(
        {}, {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [5, 6],
             "max_new_tokens": 7}, reads_source=False,
    )  # fmt: skip
    assert llama == Generation(temperature=0.6, top_p=0.9, stop=(5, 6), max_new_tokens=7)
