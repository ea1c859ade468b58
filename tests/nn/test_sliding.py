"""Answers beyond the context: equal to a loop that forgets by the same rule, rows on their own."""

from __future__ import annotations

import pytest
import torch
from tests.nn.tiny_lm import TinyDecoder, after, naive_greedy

from gipi.core.errors import ModelError
from gipi.nn.beam import beam_search
from gipi.nn.decode import decode
from gipi.nn.sampling import Limits, Sampling
from gipi.nn.sliding import Sliding
from gipi.nn.steppers import DecoderOnly

CONTEXT = 8


def forgetful(net):
    """Return what follows a text when only the tokens since the last beginning are seen."""

    def logits(ids, prompt_length):
        read = ids[:prompt_length][-CONTEXT:]
        for token in ids[prompt_length:]:
            read = [*read, token]
            if len(read) > CONTEXT:
                read = read[-CONTEXT // 2 :]
        return after(net)(read)

    return logits


@pytest.mark.parametrize("prompt", [[1], [1, 2, 3], list(range(1, 9)), list(range(1, 20))])
def test_long_answers_equal_a_loop_that_forgets(prompt):
    net = TinyDecoder(context=CONTEXT)
    found = decode(Sliding(DecoderOnly(net), CONTEXT), [prompt], max_new_tokens=30)
    rule = forgetful(net)
    assert found[0].tokens == naive_greedy(
        lambda ids: rule(ids, len(prompt)), prompt, most=30
    )  # fmt: skip
    assert max(length for _, length in net.calls) <= CONTEXT


def test_a_short_answer_is_what_it_was():
    net = TinyDecoder()
    rows = [[1, 2], [3, 4]]
    plain = decode(DecoderOnly(net), rows, max_new_tokens=6)
    assert decode(Sliding(DecoderOnly(net), CONTEXT), rows, max_new_tokens=6) == plain


def test_rows_are_on_their_own_and_beams_slide_too():
    model = Sliding(DecoderOnly(TinyDecoder(context=CONTEXT)), CONTEXT)
    rows = [[1, 2], [3, 4], [5, 6], [7, 8]]
    options = {"max_new_tokens": 25, "stop": [2], "sampling": Sampling(1.5)}
    options["limits"] = Limits(repetition_penalty=1.2)
    together = decode(model, rows, **options)
    assert together == [decode(model, [row], **options)[0] for row in rows]
    beams = beam_search(model, rows, beams=3, max_new_tokens=20)
    alone = [beam_search(model, [row], beams=3, max_new_tokens=20)[0] for row in rows]
    assert [b[0].tokens for b in beams] == [b[0].tokens for b in alone]


def test_prompts_of_several_lengths_are_refused():
    model = Sliding(DecoderOnly(TinyDecoder()), CONTEXT)
    with pytest.raises(ModelError, match="prompts of several lengths"):
        decode(model, [[1], [2, 3]], max_new_tokens=3)
    assert model.context is None
    assert torch.equal(model.read([[1, 2]]), DecoderOnly(model.inner.model).read([[1, 2]]))
