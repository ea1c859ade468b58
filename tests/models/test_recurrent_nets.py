"""Recurrent nets by name: their topologies, padding, time, rebuilding, and what they refuse."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import nn

from gipi import models
from gipi.core.errors import ConfigError, ModelError
from gipi.core.schema import Signature
from gipi.nn import detached, mixes_rows

V, C, F, T, PAD = 11, 3, 2, 6, 4
TEXT = Signature(vocab=V, length=T, pad=PAD, outputs=C)
SERIES = Signature(numbers=F, length=T, outputs=C)
WORDS = Signature(vocab=V, length=T, pad=PAD, outputs=V)
CAPTION = Signature(numbers=F, vocab=V, length=T, pad=PAD, outputs=V)
SMALL = {"width": 5, "embedding": 4}
LENGTHS = (6, 2, 0, 1)
POOLS = ("last", "mean", "max", "attention")
CASES = {
    **{f"vector-{pool}": (TEXT, {"pool": pool}) for pool in POOLS},
    "vector-one-direction": (TEXT, {"bidirectional": False}),
    "vector-series": (SERIES, {}),
    "vector-series-mean": (SERIES, {"pool": "mean"}),
    "aligned": (TEXT, {"topology": "sequence-to-sequence"}),
    "aligned-series": (SERIES, {"topology": "sequence-to-sequence"}),
    "caption": (CAPTION, {"topology": "vector-to-sequence"}),
    "curve": (SERIES, {"topology": "vector-to-sequence"}),
    "language": (WORDS, {"topology": "language-model"}),
    "language-tied": (WORDS, {"topology": "language-model", "tied": True}),
}
DEEP = {"layers": 2, "norm": "layer"}


def tokens(seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = torch.randint(0, V - 1, (len(LENGTHS), T), generator=generator)
    found += found >= PAD
    for row, length in zip(found, LENGTHS, strict=True):
        row[length:] = PAD
    return found


def inputs(case):
    signature, options = CASES[case]
    generator = torch.Generator().manual_seed(0)
    if options.get("topology") == "vector-to-sequence":
        vector = torch.randn(len(LENGTHS), F, generator=generator)
        return (vector, tokens()) if signature.vocab else (vector,)
    if signature.vocab:
        return (tokens(),)
    return (torch.randn(len(LENGTHS), T, F, generator=generator),)


def build(case, name="lstm", seed=0, **more):
    signature, options = CASES[case]
    return models.build(name, signature, seed=seed, options={**SMALL, **options, **more}).eval()


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("more", [{}, DEEP], ids=["plain", "deep"])
@pytest.mark.parametrize("case", CASES)
def test_shapes_gradients_and_rebuilding(case, more, name):
    signature, options = CASES[case]
    model = build(case, name, **more)
    out = model(*inputs(case))
    topology = options.get("topology", "sequence-to-vector")
    shape = (C,) if topology == "sequence-to-vector" else (T, signature.outputs)
    assert out.shape == (len(LENGTHS), *shape)
    assert torch.isfinite(out).all()
    out.square().sum().backward()
    for key, p in model.named_parameters():
        assert p.grad is not None, key
        assert torch.isfinite(p.grad).all(), key
    assert topology in model.choices[0]
    assert name in model.choices[0]
    assert mixes_rows(model) == []
    again = models.build(name, signature, options=asdict(model.config)).eval()
    assert again.config == model.config
    assert torch.equal(again(*inputs(case)), out)
    assert not torch.equal(build(case, name, seed=1, **more)(*inputs(case)), out)


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c][0].vocab])
def test_rows_do_not_meet_and_more_padding_changes_nothing(case):
    model, given = build(case, layers=2), inputs(case)
    out = model(*given)
    alone = torch.cat([model(*(t[i : i + 1] for t in given)) for i in range(len(LENGTHS))])
    torch.testing.assert_close(out, alone)
    longer = [*given[:-1], nn.functional.pad(given[-1], (0, 3), value=PAD)]
    out_longer = model(*longer)
    torch.testing.assert_close(out_longer if out.ndim == 2 else out_longer[:, :T], out)
    if case.startswith("vector"):  # one row shorter than the others, and nothing behind it
        torch.testing.assert_close(model(given[0][1:2, :2]), out[1:2])


@pytest.mark.parametrize("case", ["aligned", "aligned-series", "language", "caption"])
def test_one_direction_sees_no_future(case):
    more = {} if case in ("language", "caption") else {"bidirectional": False}
    model, given = build(case, **more), inputs(case)
    row = given[-1][:1].clone()
    later = row.clone()
    later[:, 3:] = later[:, 3:].flip(1) if row.is_floating_point() else (later[:, 3:] + 1) % PAD
    before = [t[:1] for t in given[:-1]]
    a, b = model(*before, row), model(*before, later)
    assert torch.equal(a[:, :3], b[:, :3])
    assert not torch.equal(a[:, 3:], b[:, 3:])


def test_both_directions_are_taken_where_the_whole_text_is_known():
    directions = {case: build(case).config.bidirectional for case in CASES}
    assert directions == {
        case: case.startswith(("vector-", "aligned")) and CASES[case][0].vocab > 0
        and case != "vector-one-direction" for case in CASES
    }  # fmt: skip
    aligned = build("aligned")
    later = tokens()[:1].clone()
    later[:, 5] = (later[:, 5] + 1) % PAD
    assert not torch.isclose(aligned(tokens()[:1])[:, :5], aligned(later)[:, :5]).all()


def test_a_text_is_pooled_by_its_maximum_and_a_series_by_its_last_state():
    assert build("vector-one-direction").config.pool == "max"
    assert build("vector-series").config.pool == "last"
    assert build("aligned").config.pool == "auto"
    assert build("vector-series").choices[0].endswith("pool last")


def test_the_rules_for_recurrent_nets_are_said_with_their_reasons():
    said = "\n".join(build("vector-last", "rnn").choices)
    assert "activation tanh: a state that is fed back must stay bounded" in said
    assert "the rule layer-norm-in-sequences would be layer: it works on one position" in said
    said = "\n".join(build("vector-last", "rnn", activation="relu", norm="layer").choices)
    assert "activation relu, as asked (the rule tanh-in-recurrent-nets would be tanh" in said
    assert "norm layer: it works on one position" in said
    said = "\n".join(build("vector-last", "lstm").choices)
    assert "activation" not in said  # its functions are its own
    assert "norm none" in said


def test_segments_of_a_pair_are_taken_and_not_used():
    model, x = build("vector-last"), tokens()
    assert torch.equal(model(x, torch.ones_like(x)), model(x))


@pytest.mark.parametrize("case", ["vector-last", "language"])
def test_the_vector_of_the_padding_is_zero_and_stays_zero(case):
    model = build(case)
    table = model.table if case == "language" else model.enter.table
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(tokens()).square().sum().backward()
    optimizer.step()
    assert not table.weight[PAD].any()
    assert table.weight[0].any()


def test_the_number_of_weights_by_hand():
    def count(model):
        return sum(p.numel() for p in model.parameters())

    e, h = SMALL["embedding"], SMALL["width"]
    for name, gates in (("rnn", 1), ("lstm", 4), ("gru", 3)):
        one = gates * h * (e + h + 2)
        both = V * e + 2 * one + 2 * h * C + C
        assert count(build("vector-last", name)) == both
        assert count(build("language", name)) == V * e + one + h * V + V
    narrow = build("language-tied")
    assert count(narrow) == V * e + 4 * h * (e + h + 2) + h * e + V
    assert narrow.head.weight is narrow.table.weight


def test_dropout_acts_in_training_only():
    model = build("vector-last", dropout=0.5)
    assert torch.equal(model(tokens()), model(tokens()))
    model.train()
    assert not torch.equal(model(tokens()), model(tokens()))


# ------------------------------------------------------------------------ token by token


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_in_pieces_equals_one_long_pass(name, tied):
    model = build("language-tied" if tied else "language", name, layers=2)
    text = tokens()[:2]
    whole = model(text)
    state, scores = model.begin(2), []
    for piece in (text[:, :2], text[:, 2:5], text[:, 5:]):
        out, state = model.advance(piece, detached(state))
        scores.append(out)
    torch.testing.assert_close(torch.cat(scores, 1), whole)
    state = model.begin(2)
    for t in range(T):
        out, state = model.step(text[:, t], state)
        torch.testing.assert_close(out, whole[:, t])


def test_a_language_model_starts_behind_prompts_of_unequal_length():
    model = build("language", layers=2)
    state = model.start(tokens())
    for i, length in enumerate(LENGTHS):
        alone = model.start(tokens()[i : i + 1, :length])
        torch.testing.assert_close(state.h[i : i + 1], alone.h)
        torch.testing.assert_close(state.c[i : i + 1], alone.c)
    assert not state.h[2].any()


@pytest.mark.parametrize("case", ["language", "caption"])
def test_a_state_is_reordered_row_by_row(case):
    model, index = build(case, layers=2), torch.tensor([3, 0, 0])
    given, first, second = inputs(case)[0], torch.tensor([0, 5, 7, 2]), torch.tensor([1, 2, 3])
    state = model.step(first, model.start(given))[1]
    scores, _ = model.step(second, model.reorder(state, index))
    direct = model.step(first[index], model.start(given[index]))[1]
    torch.testing.assert_close(scores, model.step(second, direct)[0])


def test_a_caption_written_token_by_token_equals_one_call():
    model = build("caption", layers=2)
    vector, text = inputs("caption")
    state = model.start(vector)
    whole = model(vector, text)
    for t in range(T):
        out, state = model.step(text[:, t], state)
        torch.testing.assert_close(out, whole[:, t])
    assert not torch.isclose(model(vector + 1, text), whole).all(1).any()


# ------------------------------------------------------------------------ what is refused

LM = {"topology": "language-model"}


@pytest.mark.parametrize(
    ("name", "signature", "options", "error", "words"),
    [
        ("lstm", Signature(outputs=2), {}, ModelError, "neither tokens nor numbers for 'lstm'"),
        ("lstm", TEXT, {"cell": "gru"}, ConfigError, "choose the model 'gru'"),
        ("lstm", TEXT, {"activation": "relu"}, ConfigError, "activation=relu for the cell lstm"),
        ("rnn", TEXT, {"activation": "relu", "cell": "gru"}, ConfigError, "for the cell gru"),
        ("rnn", TEXT, {"cell": "lstn"}, ConfigError, "cell='lstn'"),
        ("lstm", TEXT, {"topology": "many-to-one"}, ConfigError, "topology='many-to-one'"),
        ("lstm", TEXT, {"pool": "max", "topology": "sequence-to-sequence"}, ConfigError,
         "pool=max in the topology sequence-to-sequence"),
        ("lstm", TEXT, {"attention": "dot"}, ConfigError, "the topology encoder-decoder"),
        ("lstm", TEXT, {"tied": True}, ConfigError, "tied=True in the topology"),
        ("lstm", WORDS, {**LM, "bidirectional": True}, ConfigError, "what comes next is not known"),
        ("lstm", SERIES, LM, ModelError, "a language model for a series"),
        ("lstm", TEXT, {**LM, "tied": True}, ModelError, "3 outputs tied to a vocabulary of 11"),
        ("lstm", WORDS, {"topology": "vector-to-sequence"}, ModelError, "a vector of 0 numbers"),
        ("lstm", CAPTION, {"topology": "vector-to-sequence", "tied": True, "width": 5,
                           "embedding": 4}, ModelError, "tied to an embedding of 11 x 4"),
        ("lstm", TEXT, {"width": 0}, ConfigError, "width=0"),
        ("lstm", Signature(vocab=5, pad=5), {}, ModelError, "padding id 5 in a vocabulary of 5"),
        ("gru", Signature(vocab=9, pad=8, outputs=4), {"topology": "encoder-decoder"}, ModelError,
         "padding id 8 in a vocabulary of 4"),
    ],
)  # fmt: skip
def test_wrong_requests_are_named(name, signature, options, error, words):
    with pytest.raises(error, match=words):
        models.build(name, signature, options=options)


def test_a_vector_without_the_tokens_so_far_is_named():
    with pytest.raises(ModelError, match="start and step"):
        build("caption")(inputs("caption")[0])


@pytest.mark.parametrize("case", CASES)
def test_half_precision_by_autocast(case):
    model = build(case, layers=2).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(*inputs(case))
    out.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_relu_cell_is_built_by_name():
    model = models.build("rnn", TEXT, options={**SMALL, "activation": "relu"})
    assert model.config.cell == "rnn"
    assert all(m.nonlinearity == "relu" for m in model.modules() if isinstance(m, nn.RNN))
