"""The recurrent tagger, and encoders that answer at every token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gipi import models
from gipi.core.errors import ConfigError, ModelError
from gipi.core.schema import Signature
from gipi.models.encoder import EncoderConfig, EncoderModel
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import StackConfig
from gipi.nn import Chain

WORDS = Signature(vocab=30, length=9, outputs=5, per="token", parts=(20, 8, 10))
PIECES = Signature(vocab=30, length=12, outputs=5, per="token")
SPANS = Signature(vocab=30, length=12, outputs=2, per="span")
SMALL: dict[str, Any] = {"embedding": 8, "letter": 5, "filters": 6, "shape": 3, "width": 7}
TINY: dict[str, Any] = {"width": 8, "layers": 1, "heads": 2}


def rows(lengths: tuple[int, ...] = (6, 3), width: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Return words, shapes and letters of rows of these lengths, 0 behind their ends."""
    draw = torch.Generator().manual_seed(0)
    real = torch.arange(6) < torch.tensor(lengths)[:, None]
    words = torch.randint(1, 30, (len(lengths), 6), generator=draw) * real
    shapes = torch.randint(1, 8, (len(lengths), 6, 2), generator=draw) * real[..., None]
    letters = torch.randint(1, 20, (len(lengths), 6, 4), generator=draw) * real[..., None]
    letters[..., 3] = 0
    wide = width - 6
    return (
        nn.functional.pad(words, (0, wide)), nn.functional.pad(shapes, (0, 0, 0, wide)),
        nn.functional.pad(letters, (0, 0, 0, wide)),
    )  # fmt: skip


def net(**options: Any) -> nn.Module:
    return models.build("bilstm-tagger", WORDS, options={**SMALL, **options})


def test_a_chain_of_scores_or_logits() -> None:
    found = net()(*rows())
    assert isinstance(found, Chain)
    assert found.unary.shape == (2, 6, 5)
    assert net(crf=False)(*rows()).shape == (2, 6, 5)


def test_parameters_are_counted() -> None:
    tables = 30 * 8 + 20 * 5 + 8 * 3 + 10 * 3
    filters = 6 * 5 * 3 + 6
    entering = 8 + 6 + 3 + 3
    lstm = 2 * 4 * 7 * (entering + 7 + 2)
    head, chain = 14 * 5 + 5, 5 * 5 + 5 + 5
    found = sum(p.numel() for p in net().parameters())
    assert found == tables + filters + lstm + head + chain


@pytest.mark.parametrize("crf", [True, False])
def test_padding_changes_nothing(crf: bool) -> None:
    model = net(crf=crf).eval()

    def said(*inputs: Tensor) -> Tensor:
        found = model(*inputs)
        out: Tensor = found.unary if isinstance(found, Chain) else found
        return out

    together = said(*rows())
    torch.testing.assert_close(said(*rows(width=11))[:, :6], together)
    alone = said(*(t[1:, :3] for t in rows()))
    torch.testing.assert_close(together[1:, :3], alone)


def test_more_room_for_letters_changes_nothing() -> None:
    model = net().eval()
    words, shapes, letters = rows()
    letters = letters[..., :3]  # words that fill their room
    torch.nn.init.ones_(model.get_submodule("letters.filters").bias)  # type: ignore[arg-type]
    wide = nn.functional.pad(letters, (0, 5))
    torch.testing.assert_close(
        model(words, shapes, wide).unary, model(words, shapes, letters).unary
    )


def test_every_weight_learns() -> None:
    model = net(word_dropout=0.0, dropout=0.0)
    found = model(*rows())
    sum(t.square().sum() for t in found).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_letters_are_read() -> None:
    model = net().eval()
    words, shapes, letters = rows()
    other = letters.clone()
    other[0, 0, 0] = letters[0, 0, 0] % 19 + 1
    said, changed = model(words, shapes, letters).unary, model(words, shapes, other).unary
    assert (said - changed)[0].detach().abs().max().item() > 1e-6
    assert torch.equal(said[1], changed[1])


def test_hidden_words_are_the_unknown_word() -> None:
    model = net(word_dropout=0.999999, dropout=0.0).train()
    words, shapes, letters = rows()
    unknown = model.eval()(words.clamp(max=1), shapes, letters).unary
    torch.testing.assert_close(model.train()(words, shapes, letters).unary, unknown)
    assert not torch.equal(model.eval()(words, shapes, letters).unary, unknown)


def test_the_same_seed_gives_the_same_weights() -> None:
    one, two = net().state_dict(), net().state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)
    other = models.build("bilstm-tagger", WORDS, seed=1, options=SMALL).state_dict()
    assert not torch.equal(one["words.weight"], other["words.weight"])


def test_data_without_words_and_wrong_options() -> None:
    with pytest.raises(ModelError, match="not words with tags"):
        models.build("bilstm-tagger", PIECES)
    with pytest.raises(ConfigError, match="crff"):
        net(crff=True)


# ---------------------------------------------------------------------------- encoders


def test_an_encoder_tags_every_token_and_sees_no_padding() -> None:
    model = models.build("bert", PIECES, options=TINY).eval()
    assert isinstance(model, models.TokenTagger)
    tokens = torch.tensor([[4, 5, 6, 7], [8, 9, 0, 0]])
    found = model(tokens, torch.ones_like(tokens))
    assert found.shape == (2, 4, 5)
    torch.testing.assert_close(found[1:, :2], model(tokens[1:, :2]))


def test_an_encoder_answers_within_the_context_alone() -> None:
    model = models.build("bert", SPANS, options=TINY).eval()
    assert isinstance(model, models.SpanReader)
    tokens = torch.tensor([[2, 5, 3, 7, 8, 3, 0]])
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 0]])
    context = torch.tensor([[0, 0, 0, 1, 1, 0, 0]])
    found = model(tokens, segments, context)
    assert found.shape == (1, 7, 2)
    assert torch.isfinite(found[0, [0, 3, 4]]).all()
    assert torch.isinf(found[0, [1, 2, 5, 6]]).all()
    short = model(tokens[:, :6], segments[:, :6], context[:, :6])
    torch.testing.assert_close(found[:, :6], short)


def test_a_body_with_another_head_is_refused() -> None:
    body = EncoderModel(EncoderConfig(EmbedConfig(9, 8, positions=5), StackConfig(8, 1, 2, 16)))
    for head in (models.TokenTagger, models.SpanReader):
        with pytest.raises(ModelError, match="load it with head="):
            head(body)
