"""Decoding: cached equals uncached, a row alone equals the row in a batch, stops and streams."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest
import torch
from tests.nn.tiny_lm import (
    VOCAB,
    TinyDecoder,
    TinyEncoder,
    TinyRecurrent,
    TinyRecurrentAnswer,
    TinyTranslator,
    after,
    naive_greedy,
)

from gipi.core.errors import ConfigError, DataError, ModelError, NonFiniteError
from gipi.nn.decode import Answer, decode, decoding
from gipi.nn.sampling import Limits, Sampling, row_keys
from gipi.nn.stepper import padded
from gipi.nn.steppers import (
    DecoderOnly,
    EncoderDecoder,
    Recurrent,
    RecurrentAnswer,
    Uncached,
    stepper,
)

HOT = Sampling(1.5)


def prompts(count=6, seed=0, longest=9):
    draw = random.Random(seed)
    return [
        [draw.randrange(1, VOCAB) for _ in range(draw.randrange(1, longest))] for _ in range(count)
    ]


def translated(model, source):
    """Return the function from the answer so far to what follows; 0 begins an answer."""

    def logits(said):
        ids = torch.tensor([[0, *said]])
        return model(torch.tensor([source]), decoder_input_ids=ids).logits[0, -1]

    return logits


@pytest.fixture(scope="module")
def steppers():
    plain, cells = TinyDecoder(), TinyRecurrent()
    recurrent = lambda ids: cells(torch.tensor([ids]))[0, -1]
    return {
        "cached": (DecoderOnly(plain), after(plain)),
        "uncached": (Uncached(plain), after(plain)),
        "recurrent": (Recurrent(cells), recurrent),
    }


KINDS = ["cached", "uncached", "recurrent"]


# ------------------------------------------------------------------------ greedy


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_equals_reading_everything_again(steppers, kind):
    model, logits_after = steppers[kind]
    rows = prompts()
    found = decode(model, rows, max_new_tokens=12, stop=[2, 7])
    assert [a.tokens for a in found] == [
        naive_greedy(logits_after, row, most=12, stop=(2, 7)) for row in rows
    ]
    # some rows ended and some did not, else this test would have seen half of the loop
    assert len({a.stopped is None for a in found}) == 2
    assert {a.stopped for a in found} <= {None, 2, 7}


def test_greedy_translations_equal_reading_everything_again():
    net = TinyTranslator()
    sources = prompts(seed=4)
    found = decode(EncoderDecoder(net, (0,)), sources, max_new_tokens=12, stop=[2])
    assert net.encoded == len(sources)  # each source once
    assert [a.tokens for a in found] == [
        naive_greedy(translated(net, source), [], most=12, stop=(2,)) for source in sources
    ]


def test_long_prompts_of_a_recurrent_net_are_read_in_pieces(monkeypatch):
    net, seen = TinyRecurrent(), []
    whole = net.advance
    monkeypatch.setattr(
        net, "advance", lambda ids, state: seen.append(ids.shape[1]) or whole(ids, state)
    )
    prompt = [1 + i % 20 for i in range(150)]
    logits, _ = Recurrent(net).start([prompt, prompt[:3]], 5)
    assert sorted(seen) == [3, 22, 64, 64]
    with torch.no_grad():
        assert torch.allclose(logits[0], net(torch.tensor([prompt]))[0, -1], atol=1e-4)


def test_a_recurrent_net_answers_sources():
    net = TinyRecurrentAnswer()
    sources = prompts(seed=5)
    model = stepper(net, start_ids=(1, 3), pad=0)

    def after_source(source):
        def logits(said):
            state = net.start(torch.tensor([source]))
            for token in [1, 3, *said]:
                out, state = net.step(torch.tensor([token]), state)
            return out[0]

        return logits

    found = decode(model, sources, max_new_tokens=12, stop=[2])
    assert [a.tokens for a in found] == [
        naive_greedy(after_source(source), [], most=12, stop=(2,)) for source in sources
    ]
    drawn = decode(model, sources, max_new_tokens=12, stop=[2], sampling=HOT)
    assert drawn == [
        decode(model, [source], max_new_tokens=12, stop=[2], sampling=HOT)[0] for source in sources
    ]


def test_the_cache_is_used_and_taken_at_once():
    net = TinyDecoder()
    decode(DecoderOnly(net), [[1, 2, 3], [4]], max_new_tokens=5)
    assert net.calls == [(2, 3), *[(2, 1)] * 4]  # one call fewer than tokens: the last is not read


def test_a_row_that_has_ended_costs_nothing_more():
    net, rows = TinyDecoder(), prompts(8)
    lengths = [
        len(a.tokens) + 1 for a in decode(Uncached(net), rows, max_new_tokens=12, stop=[2, 7])
    ]
    net.calls.clear()
    decode(DecoderOnly(net), rows, max_new_tokens=12, stop=[2, 7])
    assert [shape[0] for shape in net.calls] == [
        sum(length > step for length in lengths) for step in range(len(net.calls))
    ]


# ------------------------------------------------------------------------ samples


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [HOT, Sampling(2.0, top_k=7, top_p=0.9)])
def test_a_sample_alone_equals_the_sample_in_a_batch(steppers, kind, how):
    model, _ = steppers[kind]
    rows = prompts(7, seed=2)
    options = {"max_new_tokens": 14, "stop": [2], "sampling": how, "seed": 3}
    together = decode(model, rows, **options)
    assert together == [decode(model, [row], **options)[0] for row in rows]
    # whatever padding the neighbours need, wherever the row stands
    longer = [rows[3], list(range(1, 20)), rows[0]]
    assert decode(model, longer, **options)[::2] == [together[3], together[0]]


def test_samples_depend_on_the_seed_and_copies_differ(steppers):
    model, _ = steppers["cached"]
    rows = [[1, 2, 3]] * 20
    one = decode(model, rows, max_new_tokens=10, sampling=HOT, seed=1)
    assert len({a.tokens for a in one}) > 15
    assert one == decode(model, rows, max_new_tokens=10, sampling=HOT, seed=1)
    assert one != decode(model, rows, max_new_tokens=10, sampling=HOT, seed=2)
    keys = row_keys(rows, 1)
    assert one[4:6] == decode(model, rows[:2], max_new_tokens=10, sampling=HOT, keys=keys[4:6])


def test_the_state_of_torch_is_neither_read_nor_changed(steppers):
    model, _ = steppers["cached"]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = decode(model, [[1, 2]], max_new_tokens=9, sampling=HOT)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert one == decode(model, [[1, 2]], max_new_tokens=9, sampling=HOT)


def test_the_first_token_follows_the_softmax(steppers):
    model, logits_after = steppers["cached"]
    n = 4000
    found = decode(model, [[5, 6]] * n, max_new_tokens=1, sampling=Sampling(1.0))
    counts = torch.bincount(torch.tensor([a.tokens[0] for a in found]), minlength=VOCAB)
    expected = logits_after([5, 6]).detach().double().softmax(0) * n
    often = expected >= 5
    value = ((counts - expected)[often] ** 2 / expected[often]).sum()
    degrees = int(often.sum())
    assert value < degrees + 5 * math.sqrt(2 * degrees)


# ------------------------------------------------------------------------ stops, limits, streams


def test_the_stop_id_is_told_apart_from_the_greatest_length(steppers):
    model, logits_after = steppers["cached"]
    first = int(logits_after([4, 5]).argmax())
    assert decode(model, [[4, 5]], max_new_tokens=3, stop=[first]) == [Answer((), first)]
    whole = decode(model, [[4, 5]], max_new_tokens=3)
    assert whole[0].stopped is None
    assert len(whole[0].tokens) == 3


def test_no_stop_before_the_least_length(steppers):
    model, logits_after = steppers["cached"]
    first = int(logits_after([4, 5]).argmax())
    found = decode(model, [[4, 5]], max_new_tokens=9, stop=[first],
                   limits=Limits(min_new_tokens=4))  # fmt: skip
    assert len(found[0].tokens) >= 4
    assert first not in found[0].tokens


@pytest.mark.parametrize("kind", KINDS)
def test_no_ngram_is_said_twice(steppers, kind):
    model, _ = steppers[kind]
    rows = prompts(5, seed=8)
    plain = decode(model, rows, max_new_tokens=30)
    found = decode(model, rows, max_new_tokens=30, limits=Limits(no_repeat_ngram=2))

    def twice(answers):
        return [
            len(grams) - len(set(grams))
            for row, a in zip(rows, answers, strict=True)
            for grams in [
                list(zip([*row, *a.tokens], [*row, *a.tokens][1:], strict=False))[len(row) - 1 :]
            ]
        ]

    assert sum(twice(plain)) > 0
    assert sum(twice(found)) == 0


def test_limits_alone_equal_limits_in_a_batch(steppers):
    model, _ = steppers["cached"]
    rows = prompts(6, seed=9)
    options = {
        "max_new_tokens": 20,
        "stop": [2],
        "limits": Limits(1.7, 3, 2, (5, 6)),
        "sampling": HOT,
    }
    together = decode(model, rows, **options)
    assert together == [decode(model, [row], **options)[0] for row in rows]
    assert not {5, 6} & {t for a in together for t in a.tokens}


def test_tokens_come_one_step_at_a_time():
    net = TinyDecoder()
    stream = decoding(DecoderOnly(net), [[1, 2], [3]], max_new_tokens=4)
    assert net.calls == []
    first = next(stream)
    assert sorted(first) == [0, 1]
    assert len(net.calls) == 1  # nothing is read ahead of who asks
    assert not torch.is_inference_mode_enabled()
    assert len(list(stream)) == 3
    assert decode(DecoderOnly(net), [], max_new_tokens=4) == []


def test_a_row_leaves_the_stream_when_it_ends(steppers):
    model, _ = steppers["cached"]
    rows = prompts(8)
    whole = decode(model, rows, max_new_tokens=12, stop=[2, 7])
    steps = list(decoding(model, rows, max_new_tokens=12, stop=[2, 7]))
    for row, answer in enumerate(whole):
        said = [tokens[row] for tokens in steps if row in tokens]
        assert tuple(said) == answer.tokens + (() if answer.stopped is None else (answer.stopped,))


# ------------------------------------------------------------------------ steppers


def test_the_right_stepper_is_found():
    net = TinyDecoder()
    assert isinstance(stepper(net), DecoderOnly)
    assert isinstance(stepper(torch.nn.Linear(1, 1)), Uncached)
    assert isinstance(stepper(TinyTranslator(), start_ids=(0,)), EncoderDecoder)
    assert isinstance(stepper(TinyRecurrent()), Recurrent)
    answer = stepper(TinyRecurrentAnswer(), start_ids=(1,), pad=4)
    assert isinstance(answer, RecurrentAnswer)
    assert answer.pad == 4
    own = DecoderOnly(net)
    assert stepper(own) is own
    wrapped = torch.nn.Module()
    wrapped.body = net
    assert stepper(wrapped) == own
    with pytest.raises(ModelError, match="no id with which an answer begins"):
        stepper(net, start_ids=())
    wrapped.body = TinyEncoder()
    wrapped.body.config = SimpleNamespace(stack=SimpleNamespace(causal=False))
    with pytest.raises(ModelError, match="reads a text in both directions"):
        stepper(wrapped)
    translator = TinyTranslator()
    translator.config = SimpleNamespace(decoder=None)
    with pytest.raises(ModelError, match="without the ids that begin its answer"):
        stepper(translator)
    net.config = SimpleNamespace(head="classify")
    with pytest.raises(ModelError, match="with the head 'classify'"):
        stepper(net)


def test_texts_without_sources_are_refused_where_a_source_is_needed():
    with pytest.raises(ModelError, match="2 texts without sources"):
        EncoderDecoder(TinyTranslator(), (0,)).read([[1], [2]])
    with pytest.raises(ModelError, match="without sources"):
        RecurrentAnswer(TinyRecurrentAnswer(), (1,), 0).read([[1]])


def test_only_the_last_logits_of_prompts_are_made_where_the_model_can():
    class Choosy(TinyDecoder):
        def forward(self, input_ids, attention_mask=None, *, cache=None, at=None):
            out = super().forward(input_ids, attention_mask, cache=cache)
            self.asked = at
            if at is not None:
                out.logits = out.logits.flatten(0, 1)[at]
            return out

    net, rows = Choosy(), prompts(5)
    expected = decode(DecoderOnly(TinyDecoder()), rows, max_new_tokens=1)
    assert decode(DecoderOnly(net), rows, max_new_tokens=1) == expected
    assert net.asked is not None


def test_rows_are_padded_on_the_side_that_is_asked_for():
    ids, mask = padded([[1, 2, 3], [], [4]], left=False, fill=9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 9], [4, 9, 9]]
    assert mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert padded([], left=True)[0].shape == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_several_tokens_equal_steps_of_one(steppers, kind):
    model, _ = steppers[kind]
    rows = prompts(4, seed=11)
    more = torch.randint(0, VOCAB, (4, 5))
    with torch.no_grad():
        _, state = model.start(rows, 5)
        at_once, _ = model.step(more, state)
        _, state = model.start(rows, 5)
        one_by_one = []
        for i in range(5):
            logits, state = model.step(more[:, i : i + 1], state)
            one_by_one.append(logits)
    assert torch.allclose(at_once, torch.cat(one_by_one, 1), atol=1e-4)


# ------------------------------------------------------------------------ errors


def test_requests_without_a_step_are_refused(steppers):
    model, _ = steppers["cached"]
    with pytest.raises(ConfigError, match="max_new_tokens=0"):
        decoding(model, [[1]], max_new_tokens=0)  # at once, not at the first token
    with pytest.raises(ConfigError, match="2 keys for 1 prompts"):
        decoding(model, [[1]], max_new_tokens=1, keys=[1, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_prompt_is_named(steppers, kind):
    with pytest.raises(DataError, match="prompt 1 has no token"):
        decode(steppers[kind][0], [[1], []], max_new_tokens=3)


def test_an_empty_source_is_named():
    with pytest.raises(DataError, match="prompt 0 has no token"):
        decode(EncoderDecoder(TinyTranslator(), (0,)), [[]], max_new_tokens=3)


def test_spoilt_logits_and_empty_choices_are_told_apart():
    net = TinyDecoder()
    everything = Limits(forbidden=tuple(range(VOCAB)))
    with pytest.raises(ConfigError, match="after 0 new tokens prompt 0 has no token left"):
        decode(DecoderOnly(net), [[1]], max_new_tokens=3, limits=everything)
    with torch.no_grad():
        net.tokens[5] = math.nan
    with pytest.raises(NonFiniteError, match="prompt 1 after 0 new tokens are not finite"):
        decode(DecoderOnly(net), [[1], [5], [2]], max_new_tokens=3)
