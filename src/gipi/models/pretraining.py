"""Models that learn from running text alone: BERT with its heads for it, T5; and half of a BERT.

Shapes: B rows, T tokens, M places asked for, S source tokens, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.bert import FAMILY as BERT
from gipi.models.encoder import EncoderModel
from gipi.models.from_tokens import (
    BertOptions,
    Count,
    Share,
    Translator,
    encoder_body,
    places_for,
    shape_in_words,
    text_classifier,
    units_of,
)
from gipi.models.pretrained import describe, load_folder, save_folder
from gipi.models.seq2seq import Seq2SeqConfig, Seq2SeqModel
from gipi.models.t5 import FAMILY as T5
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import Outputs, StackConfig, draw_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Generator, Tensor

    from gipi.core.schema import Signature


@dataclass(frozen=True)
class T5Options:
    """Shape of an encoder-decoder with relative positions.

    width      units of a token
    layers     blocks of each stack
    heads      of attention
    inner      units between the two dense layers of a block; None: 4·width
    gated      gated GELU and a head of its own (1.1) instead of ReLU and one table (1.0)
    buckets    of relative positions
    dropout    of branches, attention weights and the tokens' vectors
    """

    width: Count = 128
    layers: Count = 2
    heads: Count = 4
    inner: Count | None = None
    gated: bool = False
    buckets: Count = 32
    dropout: Share = 0.1


class HiddenTokens(nn.Module):
    """An encoder that is asked for some places only: its head for words runs there alone.

    tokens (B, T), positions (B, M) -> logits (B, M, V) and hidden (B, M, D); with segments (B, T)
    between the two also relation (B, 2), whether the second text follows
    """

    def __init__(
        self, body: EncoderModel, config: BertOptions | None = None, *, pad: int = 0
    ) -> None:
        super().__init__()
        self.body, self.pad, self.config = body, pad, config
        self.choices = shape_in_words(body.config.stack, body.config.embed)

    def forward(self, tokens_BT: Tensor, *others: Tensor) -> Outputs:
        """Return what the model says at the places asked for."""
        positions_BM, segments = others[-1], others[0] if len(others) > 1 else None
        B, T = tokens_BT.shape
        start = torch.arange(B, device=tokens_BT.device)[:, None] * T
        at = (positions_BM + start).flatten()
        found = self.body(tokens_BT, tokens_BT.ne(self.pad), segments, at=at)
        hidden = found.hidden.flatten(0, 1)[at].unflatten(0, positions_BM.shape)
        return Outputs(found.logits.unflatten(0, positions_BM.shape), hidden,
                       pooled=found.pooled, relation=found.relation)  # fmt: skip


def text_encoder(options: BertOptions, signature: Signature, generator: Generator) -> nn.Module:
    """Return an encoder with the head that `options` name, its weights drawn from `generator`.

    Raises `ModelError` for data that is not text.
    """
    o = options
    if o.head == "classify":
        return text_classifier(o, signature, generator)
    body, settled = encoder_body(o, signature, generator, name="bert", head=o.head,
                                 pool=o.head == "pretrain")  # fmt: skip
    return HiddenTokens(body, settled, pad=signature.pad)


def span_writer(options: T5Options, signature: Signature, generator: Generator) -> Translator:
    """Return T5 for texts of one vocabulary, its weights drawn from `generator`.

    Matrices and tables have the spreads that Raffel et al. gave theirs: queries (D·d)^-½ as scores
    are not divided by √d, keys, values and inner layers D^-½, outputs by their own width.
    Raises `ModelError` for data that is not text, heads that do not divide the width, and buckets
    that cannot be told apart.
    """
    places_for(signature, None, "t5")
    o = options
    inner = o.inner or 4 * o.width
    side = StackConfig(
        o.width, o.layers, o.heads, inner, head_width=units_of(o.width, o.heads), norm="rms",
        eps=1e-6, order="pre", final_norm=True,
        activation="gelu-tanh" if o.gated else "relu", gated=o.gated, attention_bias=False,
        feed_bias=False, scale=1.0, dropout=o.dropout, attention_dropout=o.dropout,
        feed_dropout=o.dropout, buckets=o.buckets,
    )  # fmt: skip
    body = Seq2SeqModel(Seq2SeqConfig(
        EmbedConfig(signature.vocab, o.width, pad=signature.pad, dropout=o.dropout),
        side, replace(side, causal=True, cross=True), tied=not o.gated,
        logit_scale=1.0 if o.gated else o.width**-0.5, out_dropout=o.dropout,
    ))  # fmt: skip
    _draw_t5(body, generator)
    model = Translator(body, None, pad=signature.pad)
    model.config = replace(o, inner=inner)  # type: ignore[assignment]
    return model


@torch.no_grad()
def _draw_t5(body: Seq2SeqModel, generator: Generator) -> None:
    """Draw as the authors do; see `span_writer`."""
    draw_weights(body, generator)
    D = body.config.embed.width
    body.embed.tokens.weight.normal_(0.0, 1.0, generator=generator)
    if body.head is not None:
        body.head.weight.normal_(0.0, D**-0.5, generator=generator)
    for name, p in body.named_parameters():
        if p.ndim < 2 or name.startswith(("embed.", "head.")):
            continue
        std = D**-0.5 if "bias.table" in name else p.shape[1] ** -0.5
        p.normal_(0.0, std, generator=generator)
        units = body.config.encoder.units
        if name.endswith("attend.qkv.weight"):
            p[:D].mul_(units**-0.5)
        elif name.endswith("cross.q.weight"):
            p.mul_(units**-0.5)


def save_encoder(path: Path, model: nn.Module) -> bool:
    """Write a model of pre-training as a folder in Hugging Face form; return whether it is one.

    So it can be opened by others, and other runs can start from it.
    """
    if isinstance(model, HiddenTokens):
        save_folder(path, describe(model.body, BERT))
        return True
    options: object = getattr(model, "config", None)
    if isinstance(model, Translator) and isinstance(options, T5Options):
        save_folder(path, describe(model.body, T5))
        return True
    return False


def open_teacher(folder: Path, *, pad: int) -> HiddenTokens:
    """Return the encoder of a folder with its head for words, to teach another.

    Raises `ModelError` for a folder without such a head.
    """
    loaded = load_folder(folder, head="words")
    body = loaded.model
    if not isinstance(body, EncoderModel) or (loaded.report and loaded.report.missing):
        raise ModelError(
            f"{folder} holds no encoder with a head for words",
            "a teacher that was trained to name hidden tokens",
            "name a run of --task masked",
        )
    return HiddenTokens(body.float(), None, pad=pad)


@torch.no_grad()
def every_second(student: EncoderModel, teacher: EncoderModel) -> int:
    """Copy the teacher's tables and head, and every so manieth block; return how many blocks.

    Block i of the student is block ⌊i·L/l⌋ of the teacher's L, for l = L/2 the blocks 0, 2, 4, ...
    (Sanh et al. 2019, arXiv:1910.01108).

    Raises `ModelError` where the two differ in more than the number of blocks and in dropout.
    """
    mine, theirs = student.config.stack, teacher.config.stack
    if _shape(student) != _shape(teacher) or mine.layers > theirs.layers:
        raise ModelError(
            f"a student of {mine.layers} blocks, {mine.width} wide, {student.config.embed.vocab} "
            f"ids, for a teacher of {theirs.layers}, {theirs.width}, "
            f"{teacher.config.embed.vocab}",
            "the teacher's own shape with fewer blocks",
            f"set model.width={theirs.width}, model.heads={theirs.heads}, and fewer model.layers",
        )
    source = teacher.state_dict()
    found: dict[str, Tensor] = {}
    for name in student.state_dict():
        parts = name.split(".")
        if name.startswith("encoder.blocks."):
            parts[2] = str(int(parts[2]) * theirs.layers // mine.layers)
        found[name] = source[".".join(parts)]
    student.load_state_dict(found)
    return mine.layers


def _shape(model: EncoderModel) -> tuple[object, ...]:
    """Return what a student and its teacher have in common."""
    c = model.config
    return (c.head, c.pool, replace(c.embed, dropout=0.0),
            replace(c.stack, layers=1, dropout=0.0, attention_dropout=0.0))  # fmt: skip
