"""Decoding over the nets of transformers says, token for token, what transformers generates."""

from __future__ import annotations

import pytest
import torch

from gipi.nn.beam import beam_search
from gipi.nn.decode import decode
from gipi.nn.sampling import Limits
from gipi.nn.steppers import stepper

pytest.importorskip("transformers", reason="transformers is the reference here")
foreign = pytest.importorskip("tests.nn.foreign_lm")

MOST = 14
FAMILIES = (*foreign.DECODERS, *foreign.TRANSLATORS)


@pytest.fixture(scope="module")
def models():
    return {name: foreign.build(name) for name in FAMILIES}


def ours(name, model):
    start = (foreign.PAD,) if name in foreign.TRANSLATORS else None
    return stepper(foreign.Foreign(name, model), start_ids=start)


# The package takes padding of the prompts for n-grams that were said; ours does not. Where the
# padding id cannot be said, that makes no difference.
LIMITS = [
    ({}, {}),
    ({"repetition_penalty": 1.6}, {"repetition_penalty": 1.6}),
    ({"last": 30}, {"forced_eos_token_id": 30}),
    ({"no_repeat_ngram": 2, "forbidden": (foreign.PAD,)},
     {"no_repeat_ngram_size": 2, "suppress_tokens": [foreign.PAD]}),
    ({"min_new_tokens": 6, "forbidden": (7, 8, 9)},
     {"min_new_tokens": 6, "suppress_tokens": [7, 8, 9]}),
]  # fmt: skip


@pytest.mark.parametrize(("limits", "theirs"), LIMITS)
@pytest.mark.parametrize("name", FAMILIES)
def test_greedy(models, name, limits, theirs):
    rows = foreign.prompts(count=10)
    stop = [foreign.EOS, *range(20, 26)]  # seven ids, so that some rows end early
    found = decode(ours(name, models[name]), rows, max_new_tokens=MOST, stop=stop,
                   limits=Limits(**limits))  # fmt: skip
    wanted = foreign.generated(name, models[name], rows, max_new_tokens=MOST, do_sample=False,
                               eos_token_id=stop, **theirs)  # fmt: skip
    assert [foreign.said(a) for a in found] == [foreign.cut(row[0], stop) for row in wanted]
    # Hot enough that prompts matter and that some rows end early; tied tables of encoder-decoders
    # say one token again and again unless that is forbidden.
    assert len({a.tokens for a in found}) >= 4
    if name in foreign.DECODERS and not limits:
        assert len({a.stopped is None for a in found}) == 2
    if "no_repeat_ngram" in limits:
        assert max(len(set(a.tokens)) for a in found) > 5


BEAMS = [
    ({"beams": 4, "best": 3}, {}),
    ({"beams": 3, "length_penalty": 0.0}, {"length_penalty": 0.0}),
    ({"beams": 3, "length_penalty": 2.0}, {"length_penalty": 2.0}),
    ({"beams": 5, "length_penalty": -1.0}, {"length_penalty": -1.0}),
    ({"beams": 4, "early_stopping": True, "best": 4}, {"early_stopping": True}),
    ({"beams": 4, "early_stopping": "never"}, {"early_stopping": "never"}),
    ({"beams": 2, "early_stopping": "never", "length_penalty": 2.0},
     {"early_stopping": "never", "length_penalty": 2.0}),
    ({"beams": 4, "limits": Limits(last=1)}, {"forced_eos_token_id": 1}),
    ({"beams": 3, "limits": Limits(1.4, 2, 5, (foreign.PAD, 8))},
     {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 5,
      "suppress_tokens": [foreign.PAD, 8]}),
]  # fmt: skip


@pytest.mark.parametrize("stop", [[], [1], [1, 20, 21, 22]], ids=["no-stop", "one", "four"])
@pytest.mark.parametrize(("options", "theirs"), BEAMS)
@pytest.mark.parametrize("name", ["gpt2", "marian"])
def test_beams(models, name, options, theirs, stop):
    rows = foreign.prompts(seed=1, count=7)
    best = options.get("best", 1)
    found = beam_search(ours(name, models[name]), rows, max_new_tokens=MOST, stop=stop, **options)
    wanted = foreign.generated(
        name, models[name], rows, answers=best, max_new_tokens=MOST, do_sample=False,
        num_beams=options["beams"], eos_token_id=stop or None, **theirs,
    )  # fmt: skip
    assert [[foreign.said(a) for a in row] for row in found] == [
        [foreign.cut(a, stop) for a in row] for row in wanted
    ]


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_scores_of_beams(models, name):
    rows = foreign.prompts(seed=2, count=5)
    found = beam_search(ours(name, models[name]), rows, beams=4, max_new_tokens=MOST, stop=[1],
                        best=2)  # fmt: skip
    left = name in foreign.DECODERS
    for row, answers in zip(rows, found, strict=True):
        out = models[name].generate(
            torch.tensor([row]), attention_mask=torch.ones(1, len(row)), num_beams=4,
            max_new_tokens=MOST, num_return_sequences=2, return_dict_in_generate=True,
            output_scores=True, do_sample=False,
        )  # fmt: skip
        assert [a.score for a in answers] == pytest.approx(out.sequences_scores.tolist(), abs=1e-4)
        said = out.sequences[:, len(row) if left else 1 :].tolist()
        assert [foreign.said(a) for a in answers] == [foreign.cut(a, [1]) for a in said]
