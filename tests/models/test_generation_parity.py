"""Our Transformers, read from folders, generate token for token what transformers does."""

from __future__ import annotations

import pytest
import torch
from tests.models.hot import PAD, V, hot_model

from gipi.models.pretrained import load_folder
from gipi.nn.beam import beam_search
from gipi.nn.decode import decode
from gipi.nn.likelihood import ending_log_likelihoods, log_likelihoods
from gipi.nn.sampling import Limits, Sampling
from gipi.nn.steppers import DecoderOnly, EncoderDecoder, Uncached, stepper

DECODERS = ("gpt2-words", "llama-tied", "llama-untied", "llama3")
TRANSLATORS = ("t5-relu-tied", "t5-gated-untied", "marian")
MOST, EOS = 12, 2
STOP = [EOS, *range(20, 25)]  # six ids, so that some rows end early


def pad_of(name):
    return V - 1 if name == "marian" else PAD


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a function that gives a case's model of theirs, and ours read from its folder."""
    made = {}

    def make(name):
        if name not in made:
            theirs = hot_model(name)
            theirs.save_pretrained(folder := tmp_path_factory.mktemp(name))
            made[name] = theirs, load_folder(folder).model.eval()
        return made[name]

    return make


def ours(name, model):
    return stepper(model, start_ids=(pad_of(name),) if name in TRANSLATORS else None)


def prompts(seed=0, count=8, longest=9):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=draw).tolist()
    return [torch.randint(3, V - 1, (n,), generator=draw).tolist() for n in lengths]


def generated(name, model, rows, *, answers=1, **options):
    """Return what the package generates for prompts that it is given padded."""
    width, pad, left = max(map(len, rows)), pad_of(name), name in DECODERS

    def side(row, fill):
        gap = [fill] * (width - len(row))
        return gap + row if left else row + gap

    # The package makes its cache by the layers of the encoder: ours has more in the decoder.
    options = {"forced_eos_token_id": None, "use_cache": not name.startswith("t5"), **options}
    found = model.generate(
        torch.tensor([side(row, pad) for row in rows]),
        attention_mask=torch.tensor([side([1] * len(row), 0) for row in rows]),
        max_new_tokens=MOST, do_sample=False, num_return_sequences=answers, pad_token_id=pad,
        eos_token_id=STOP, **options,
    )[:, width if left else 1 :].tolist()  # fmt: skip
    cut = [row[: next((i + 1 for i, t in enumerate(row) if t in STOP), None)] for row in found]
    return [cut[i : i + answers] for i in range(0, len(cut), answers)]


def said(answer):
    return [*answer.tokens, *([] if answer.stopped is None else [answer.stopped])]


LIMITS = [
    ({}, {}),
    ({"repetition_penalty": 1.6}, {"repetition_penalty": 1.6}),
    ({"last": EOS}, {"forced_eos_token_id": EOS}),
]


@pytest.mark.parametrize(("limits", "theirs"), LIMITS)
@pytest.mark.parametrize("name", [*DECODERS, *TRANSLATORS])
def test_greedy(models, name, limits, theirs):
    reference, model = models(name)
    rows = prompts()
    found = decode(ours(name, model), rows, max_new_tokens=MOST, stop=STOP,
                   limits=Limits(**limits))  # fmt: skip
    assert [[said(a)] for a in found] == generated(name, reference, rows, **theirs)
    if name in DECODERS or "repetition_penalty" in limits:
        # Tied tables of encoder-decoders say one token again and again where that costs nothing.
        assert len({a.tokens for a in found}) >= 3


@pytest.mark.parametrize("early", [True, False, "never"])
@pytest.mark.parametrize("name", ["gpt2-words", "llama-tied", "marian", "t5-gated-untied"])
def test_beams(models, name, early):
    reference, model = models(name)
    rows = prompts(1)
    found = beam_search(ours(name, model), rows, beams=4, max_new_tokens=MOST, stop=STOP, best=2,
                        early_stopping=early, length_penalty=1.3)  # fmt: skip
    wanted = generated(name, reference, rows, answers=2, num_beams=4, early_stopping=early,
                       length_penalty=1.3)  # fmt: skip
    assert [[said(a) for a in row] for row in found] == wanted


@pytest.mark.parametrize("name", [*DECODERS, *TRANSLATORS])
def test_a_sample_alone_equals_the_sample_in_a_batch(models, name):
    _, model = models(name)
    rows = prompts(2)
    options = {"max_new_tokens": MOST, "stop": STOP, "sampling": Sampling(1.2, top_k=20)}
    together = decode(ours(name, model), rows, **options)
    assert together == [decode(ours(name, model), [row], **options)[0] for row in rows]
    assert len({a.tokens for a in together}) > 5


@pytest.mark.parametrize("name", DECODERS)
def test_cached_equals_uncached(models, name):
    _, model = models(name)
    rows = prompts(3)
    options = {"max_new_tokens": MOST, "stop": STOP}
    assert decode(DecoderOnly(model), rows, **options) == decode(Uncached(model), rows, **options)


@pytest.mark.parametrize("name", ["gpt2-words", "llama-untied"])
def test_scores(models, name):
    reference, model = models(name)
    rows = [row for row in prompts(4, longest=20) if len(row) > 1]
    with torch.no_grad():
        wanted = [-reference(torch.tensor([row]), labels=torch.tensor([row])).loss.item()
                  for row in rows]  # fmt: skip
    found = log_likelihoods(ours(name, model), rows)
    assert [log_p.mean().item() for log_p in found] == pytest.approx(wanted, abs=1e-4)
    # the same tokens as endings of their first half, with the first token shared by all
    rows = [[rows[0][0], *row[1:]] for row in rows if len(row) > 3]
    whole = log_likelihoods(ours(name, model), rows)
    ends = ending_log_likelihoods(ours(name, model), [row[1:3] for row in rows],
                                  [[row[3:]] for row in rows], shared=rows[0][:1])  # fmt: skip
    for log_p, [end] in zip(whole, ends, strict=True):
        assert torch.allclose(log_p[2:], end, atol=1e-4)


@pytest.mark.parametrize("name", ["marian", "t5-relu-tied"])
def test_scores_of_answers(models, name):
    reference, model = models(name)
    sources, targets = prompts(5), prompts(6)
    found = ending_log_likelihoods(ours(name, model), sources, [[t, t[:1]] for t in targets])
    for source, target, (whole, first) in zip(sources, targets, found, strict=True):
        with torch.no_grad():
            loss = reference(torch.tensor([source]), labels=torch.tensor([target])).loss.item()
        assert whole.mean().item() == pytest.approx(-loss, abs=1e-4)
        assert first[0].item() == pytest.approx(whole[0].item(), abs=1e-4)


def test_planted_faults_are_seen(models):
    """What a mask, a position or a row of the cache is for shows in what is said."""
    reference, model = models("gpt2-words")
    rows = prompts()
    wanted = generated("gpt2-words", reference, rows)

    class NoMask(DecoderOnly):
        def start(self, prompts, room):
            width = max(map(len, prompts))
            return super().start([[PAD] * (width - len(p)) + list(p) for p in prompts], room)

    class NoReorder(DecoderOnly):
        def reorder(self, state, index):
            same = torch.arange(len(index))
            return super().reorder(state, same if len(index) <= state.cache.rows else index)

    for fault in (NoMask(model), NoReorder(model)):
        found = decode(fault, rows, max_new_tokens=MOST, stop=STOP)
        assert [[said(a)] for a in found] != wanted
    beams = {"beams": 4, "max_new_tokens": MOST, "stop": STOP}
    right = beam_search(DecoderOnly(model), rows, **beams)
    wrong = beam_search(NoReorder(model), rows[:1], **beams)
    assert wrong[0] != right[0]
    translator = models("t5-gated-untied")[1]
    right = decode(EncoderDecoder(translator, (PAD,)), rows, max_new_tokens=MOST)
    wrong = decode(EncoderDecoder(translator, (PAD + 5,)), rows, max_new_tokens=MOST)
    assert right != wrong
