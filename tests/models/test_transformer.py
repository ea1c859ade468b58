"""What must hold in every family, whatever its weights: time, padding, cache, and its inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.models.small import PAD, SMALL, V, given, write_small

from gipi import models
from gipi.core.errors import ModelError
from gipi.core.schema import Signature
from gipi.models.causal import CausalConfig, CausalModel
from gipi.models.encoder import EncoderConfig, EncoderModel
from gipi.models.pretrained import load_folder
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import Stack, StackConfig, draw_weights

DECODERS, ENCODERS, PAIRS = ("gpt2", "llama"), ("bert", "roberta", "distilbert"), ("t5", "marian")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a function that loads a case once."""
    kept = {}

    def load(name):
        if name not in kept:
            folder = tmp_path_factory.mktemp(name)
            write_small(folder, name)
            kept[name] = load_folder(folder).model
        return kept[name]

    return load


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def near(a, b):
    return (a - b).abs().max() < 2e-5 * b.std()


def ids(*rows):
    return torch.tensor(rows)


@pytest.mark.parametrize("name", DECODERS + PAIRS)
def test_nothing_of_the_future_leaks(model, name):
    a = ids([3, 7, 4, 9, 5, 8], [2, 2, 6, 3, 10, 2])
    b = a.clone()
    b[:, 4:] = 6
    source = {"input_ids": ids([3, 4, 5], [6, 7, 8])} if name in PAIRS else {}
    key = "decoder_input_ids" if name in PAIRS else "input_ids"
    for mask in (None, torch.ones_like(a)):
        more = {f"{key.removesuffix('input_ids')}attention_mask": mask, **source}
        one, two = (model(name)(**{key: x}, **more).logits for x in (a, b))
        assert torch.equal(one[:, :4], two[:, :4])
        assert not near(one[:, 4:], two[:, 4:])


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("left", [True, False])
def test_padding_changes_nothing_in_a_decoder(model, name, left):
    bare = model(name)(ids([3, 7, 4])).logits
    row = [PAD, PAD, 3, 7, 4] if left else [3, 7, 4, PAD, PAD]
    mask = [0, 0, 1, 1, 1] if left else [1, 1, 1, 0, 0]
    padded = model(name)(ids(row, [5, 6, 7, 8, 9]), ids(mask, [1] * 5)).logits[:1]
    assert near(padded[ids(mask).bool()], bare[0])


@pytest.mark.parametrize("name", ENCODERS)
def test_padding_on_the_right_changes_nothing_in_an_encoder(model, name):
    bare = model(name)(ids([3, 7, 4]))
    padded = model(name)(ids([3, 7, 4, PAD, PAD], [5, 6, 7, 8, 9]), ids([1, 1, 1, 0, 0], [1] * 5))
    assert near(padded.hidden[0, :3], bare.hidden[0])
    if bare.logits.ndim == 2:
        assert near(padded.logits[0], bare.logits[0])


@pytest.mark.parametrize("name", PAIRS)
def test_padding_of_source_and_target_changes_nothing(model, name):
    bare = model(name)(ids([3, 7, 4]), decoder_input_ids=ids([PAD, 5, 6])).logits
    padded = model(name)(
        ids([3, 7, 4, PAD, PAD], [5, 6, 7, 8, 9]), ids([1, 1, 1, 0, 0], [1] * 5),
        decoder_input_ids=ids([PAD, 5, 6, PAD], [PAD, 4, 4, 4]),
        decoder_attention_mask=ids([1, 1, 1, 0], [1] * 4),
    ).logits  # fmt: skip
    assert near(padded[0, :3], bare[0])


@pytest.mark.parametrize("name", SMALL)
def test_a_row_of_padding_gives_numbers_and_disturbs_nobody(model, name):
    inputs = given(name)
    alone = model(name)(**inputs).logits
    row = torch.full_like(inputs["input_ids"][:1], PAD)
    more = {k: torch.cat([v, v[:1]]) for k, v in inputs.items()}
    more["input_ids"] = torch.cat([inputs["input_ids"], row])
    more["attention_mask"] = torch.cat([inputs["attention_mask"], torch.zeros_like(row)])
    out = model(name)(**more)
    assert out.logits.isfinite().all()
    assert out.hidden.isfinite().all()
    assert near(out.logits[:3], alone)


# ------------------------------------------------------------------------ cache


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("whole_mask", [True, False])
def test_step_by_step_is_the_whole_in_a_decoder(model, name, whole_mask):
    x = ids([3, 7, 4, 9, 5, 8], [PAD, PAD, 6, 3, 10, 2])
    mask = (x != PAD).long()
    want = model(name)(x, mask).logits
    cache = model(name).new_cache(2, 6)
    got = []
    for start, stop in ((0, 3), (3, 4), (4, 6)):
        part = mask[:, :stop] if whole_mask else mask[:, start:stop]
        got.append(model(name)(x[:, start:stop], part, cache=cache).logits)
    assert cache.filled == 6
    assert near(torch.cat(got, 1)[mask.bool()], want[mask.bool()])


@pytest.mark.parametrize("name", PAIRS)
def test_step_by_step_is_the_whole_in_a_pair(model, name):
    inputs = given(name)
    want = model(name)(**inputs).logits
    target = inputs.pop("decoder_input_ids")
    cache = model(name).new_cache(3, 4)
    got = [model(name)(**inputs, decoder_input_ids=target[:, :2], cache=cache).logits]
    # The source is known from here on.
    got += [model(name)(decoder_input_ids=target[:, i : i + 1], cache=cache).logits for i in (2, 3)]
    assert near(torch.cat(got, 1), want)
    hidden = model(name).encode(inputs["input_ids"], inputs["attention_mask"])
    again = model(name)(attention_mask=inputs["attention_mask"], encoder_hidden=hidden,
                        decoder_input_ids=target).logits  # fmt: skip
    assert near(again, want)


@pytest.mark.parametrize("name", DECODERS + PAIRS)
def test_a_shared_prompt_serves_several_rows(model, name):
    """Fill once, repeat and reorder rows, go on; and go back by cropping."""
    net = model(name)
    source = {"input_ids": ids([3, 4, 5])} if name in PAIRS else {}
    key = "decoder_input_ids" if name in PAIRS else "input_ids"
    cache = net.new_cache(1, 6)
    net(**{key: ids([3, 7, 4])}, **source, cache=cache)
    cache.expand(2)
    net(**{key: ids([5], [6])}, cache=cache)
    cache.reorder(torch.tensor([1, 0, 1]))
    got = net(**{key: ids([8], [9], [10])}, cache=cache).logits[:, 0]
    rows = ids([3, 7, 4, 6, 8], [3, 7, 4, 5, 9], [3, 7, 4, 6, 10])
    many = {k: v.expand(3, -1) for k, v in source.items()}
    assert near(got, net(**{key: rows}, **many).logits[:, -1])
    cache.crop(3)
    got = net(**{key: ids([2, 9], [2, 8], [2, 7])}, cache=cache).logits[:, -1]
    rows = ids([3, 7, 4, 2, 9], [3, 7, 4, 2, 8], [3, 7, 4, 2, 7])
    assert near(got, net(**{key: rows}, **many).logits[:, -1])


@pytest.mark.parametrize("name", [n for n in SMALL if n != "distilbert"])
def test_logits_of_chosen_places_only(model, name):
    inputs = given(name)
    want = model(name)(**inputs).logits
    at = torch.tensor([1, 7, 10])
    got = model(name)(**inputs, at=at).logits
    assert got.shape == (3, V)
    assert near(got, want.flatten(0, 1)[at])


# ------------------------------------------------------------------------ inputs


@pytest.mark.parametrize(
    ("name", "call", "words"),
    [
        ("bert", {}, "no input_ids for an encoder"),
        ("bert", {"cache": 1}, "cache for an encoder"),
        ("bert", {"input_ids": ids([1, 2]), "decoder_input_ids": ids([1])}, "decoder_input_ids"),
        ("bert", {"input_ids": ids([2] * 10)}, "10 tokens in a row"),
        ("bert", {"input_ids": ids([2, 2]), "attention_mask": ids([1])}, "1 columns for 2 tokens"),
        ("roberta", {"input_ids": ids([2] * 8)}, "8 tokens in a row"),
        ("distilbert", {"input_ids": ids([2]), "token_type_ids": ids([0])}, "has none"),
        ("distilbert", {"input_ids": ids([2]), "at": ids(0)}, "at for an encoder"),
        ("llama", {"input_ids": ids([2]), "token_type_ids": ids([0])}, "has none"),
        ("gpt2", {"input_ids": ids([2]), "encoder_hidden": ids([0])}, "encoder_hidden"),
        ("gpt2", {"input_ids": ids([2] * 10)}, "at most 9"),
        ("t5", {"input_ids": ids([2])}, "no decoder_input_ids for an encoder-decoder"),
        ("t5", {"decoder_input_ids": ids([2])}, "without a source"),
        ("marian", {"input_ids": ids([2]), "token_type_ids": ids([2]),
                    "decoder_input_ids": ids([2])}, "token_type_ids"),
    ],
)  # fmt: skip
def test_inputs_that_a_family_cannot_use_are_refused(model, name, call, words):
    with pytest.raises(ModelError, match=words):
        model(name)(**call)


def test_a_cache_that_is_too_short_is_said(model):
    cache = model("llama").new_cache(1, 3)
    with pytest.raises(ModelError, match=r"length >= 4"):
        model("llama")(ids([2, 3, 4, 5]), cache=cache)


def test_segments_of_gpt2_are_looked_up_among_the_tokens(model):
    net = model("gpt2")
    x, segments = ids([3, 7, 4]), ids([5, 5, 6])
    bare = net(x).logits
    assert not near(net(x, token_type_ids=segments).logits, bare)
    assert near(net(x, token_type_ids=None).logits, bare)


# ------------------------------------------------------------------------ from scratch


def test_a_classifier_of_texts_ignores_padding():
    signature = Signature(vocab=30, length=12, pad=0, outputs=3)
    net = models.build("bert", signature, options={"width": 16, "heads": 2}).eval()
    bare = net(ids([3, 7, 4]))
    padded = net(ids([3, 7, 4, 0, 0], [5, 6, 7, 8, 9]))
    assert bare.shape == (1, 3)
    assert near(padded[:1], bare)
    assert net(ids([0, 0, 0])).isfinite().all()
    segments = net(ids([3, 7, 4]), ids([0, 1, 1]))
    assert not near(segments, bare)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_same_seed_gives_the_same_weights_and_config_rebuilds(name):
    signature = Signature(vocab=30, length=12, pad=0, outputs=3)
    options = {"width": 16, "heads": 2}
    one, two = (models.build(name, signature, seed=s, options=options) for s in (1, 1))
    other = models.build(name, signature, seed=2, options=options)
    states = [net.state_dict() for net in (one, two, other)]
    assert all(torch.equal(t, states[1][k]) for k, t in states[0].items())
    assert not all(torch.equal(t, states[2][k]) for k, t in states[0].items())
    again = models.build(name, signature, seed=1, options=vars(one.config))
    assert again.config == one.config
    assert all(torch.equal(t, states[0][k]) for k, t in again.state_dict().items())
    assert all(isinstance(sentence, str) for sentence in one.choices)


def test_every_weight_learns():
    signature = Signature(vocab=30, length=12, pad=0, outputs=3)
    x = torch.arange(24).view(2, 12)
    with torch.enable_grad():
        for name in ("bert", "gpt2"):
            net = models.build(name, signature, options={"width": 16, "heads": 2})
            net(x).square().sum().backward()
            assert all(p.grad is not None for p in net.parameters())


def test_the_next_token_needs_no_mask():
    signature = Signature(vocab=30, length=12)
    net = models.build("gpt2", signature, options={"width": 16, "heads": 2, "bias": False}).eval()
    x = ids([3, 7, 4, 9])
    assert net(x).shape == (1, 4, 30)
    assert torch.equal(net(ids([3, 7, 4, 0]))[:, :3], net(x)[:, :3])
    assert not any(name.endswith("qkv.bias") for name in net.state_dict())


def test_a_translator_masks_the_source_and_never_looks_ahead():
    signature = Signature(vocab=30, length=12, pad=0)
    for order in ("pre", "post"):
        options = {"width": 16, "heads": 2, "order": order}
        net = models.build("transformer", signature, options=options).eval()
        bare = net(ids([3, 7, 4]), ids([2, 5, 6]))
        assert bare.shape == (1, 3, 30)
        assert near(net(ids([3, 7, 4, 0, 0]), ids([2, 5, 9]))[:, :2], bare[:, :2])
        assert not near(net(ids([3, 7, 5]), ids([2, 5, 6])), bare)
        with torch.enable_grad():
            net(ids([3, 7, 4]), ids([2, 5, 6])).square().sum().backward()
        assert all(p.grad is not None for p in net.parameters())
        block = net.body.decoder.blocks[0]
        assert abs(block.attend.qkv.weight.std() / (1 / 16) ** 0.5 - 1) < 0.1
        assert abs(block.cross.kv.weight.std() / (1 / 16) ** 0.5 - 1) < 0.1
        assert abs(net.body.embed.tokens.weight.std() / 16**-0.5 - 1) < 0.15
        settled = net.config
        again = models.build("transformer", signature, options=vars(settled))
        assert again.config == settled


def test_data_that_does_not_suit_is_refused():
    with pytest.raises(ModelError, match="data without text for the model 'bert'"):
        models.build("bert", Signature(numbers=3))
    with pytest.raises(ModelError, match="positions=4 for rows of 12 tokens"):
        models.build("gpt2", Signature(vocab=9, length=12), options={"positions": 4})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("llama", {"width": 18, "heads": 4}, "4 heads over a width of 18"),
        ("llama", {"width": 2, "heads": 4}, "set model.width=4"),
        ("llama", {"width": 12, "heads": 4}, "heads of 3 units"),
        ("t5", {"width": 18, "heads": 4}, "4 heads over a width of 18"),
        ("t5", {"width": 16, "heads": 4, "buckets": 3}, "3 buckets"),
        ("gpt2", {"width": 18, "heads": 4}, "a width of 18"),
    ],
)
def test_sizes_that_cannot_be_are_refused_when_the_model_is_built(name, options, words):
    with pytest.raises(ModelError, match=words):
        models.build(name, Signature(vocab=9, length=12), options=options)


def test_first_weights_have_their_spread():
    stack = StackConfig(32, 8, 4, 64, causal=True, order="pre", final_norm=True)
    net = CausalModel(CausalConfig(EmbedConfig(50, 32, positions=20), stack))
    draw_weights(net, torch.Generator().manual_seed(0))
    block = net.decoder.blocks[3]
    assert abs(block.attend.qkv.weight.std() / 0.02 - 1) < 0.1
    assert abs(block.feed.down.weight.std() / (0.02 / 16**0.5) - 1) < 0.1
    assert abs(block.attend.out.weight.std() / (0.02 / 16**0.5) - 1) < 0.1
    assert not block.feed.up.bias.any()


def test_dropout_acts_in_training_only():
    stack = StackConfig(16, 2, 2, 32, dropout=0.5, attention_dropout=0.5, feed_dropout=0.5)
    x = torch.randn(2, 5, 16)
    net = Stack(stack)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
    plain = Stack(replace(stack, dropout=0.0, attention_dropout=0.0, feed_dropout=0.0))
    plain.load_state_dict(net.state_dict())
    assert torch.equal(plain(x), net(x))


def test_the_mean_of_a_text_leaves_padding_out():
    embed = EmbedConfig(V, 8, positions=9)
    config = EncoderConfig(embed, StackConfig(8, 1, 2, 16), head="none", pooling="mean")
    net = EncoderModel(config).eval()
    hidden = torch.arange(24.0).view(1, 3, 8)
    assert torch.equal(net.text(hidden, ids([1, 1, 0])), hidden[:, :2].mean(1))
    assert torch.equal(net.text(hidden), hidden.mean(1))
    assert net.text(hidden, ids([0, 0, 0])).isfinite().all()
