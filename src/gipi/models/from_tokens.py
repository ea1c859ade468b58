"""Transformers for training from scratch: tokens in, logits out, sized by the data.

The families of published models are called with masks and named inputs; the trainer calls a model
with the columns of a batch. The two modules here stand between them.

Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.causal import CausalConfig, CausalModel
from gipi.models.encoder import EncoderConfig, EncoderHead, EncoderModel
from gipi.models.seq2seq import Seq2SeqConfig, Seq2SeqModel
from gipi.models.token_heads import SpanReader, TokenTagger
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import StackConfig, draw_weights, draw_weights_2017
from gipi.nn.position import Rotary

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

HEADS: dict[str, EncoderHead] = {"row": "classify", "token": "tag", "span": "answer"}
"""What stands on an encoder, by what is answered."""
FUSED_FROM = 2048  # ids of a vocabulary whose logits are not held
Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class BertOptions:
    """Shape of an encoder that classifies texts.

    width      units of a token
    layers     blocks
    heads      of attention
    inner      units between the two dense layers of a block; None: 4·width
    positions  longest text; None: the longest prepared row
    pooling    the text's vector: mean over its tokens, or its first token as published
    head       classify: the text; words: hidden tokens; pretrain: also whether two texts follow
    dropout    of branches, attention weights and the text's vector
    """

    width: Count = 128
    layers: Count = 2
    heads: Count = 4
    inner: Count | None = None
    positions: Count | None = None
    pooling: Literal["mean", "first"] = "mean"
    head: Literal["classify", "words", "pretrain"] = "classify"
    dropout: Share = 0.1


@dataclass(frozen=True)
class GPT2Options:
    """Shape of a decoder that predicts the next token.

    width      units of a token
    layers     blocks
    heads      of attention
    inner      units between the two dense layers of a block; None: 4·width
    positions  longest context; None: the length of the prepared rows
    bias       whether linear layers have biases
    dropout    of branches, attention weights and the tokens' vectors
    """

    width: Count = 128
    layers: Count = 4
    heads: Count = 4
    inner: Count | None = None
    positions: Count | None = None
    bias: bool = True
    dropout: Share = 0.0


@dataclass(frozen=True)
class LlamaOptions:
    """Shape of a modern decoder: turned positions, RMS norms, gated SiLU, grouped keys.

    width      units of a token
    layers     blocks
    heads      of attention
    kv_heads   heads of keys and values, each shared by several heads; None: as many as heads
    inner      units between the dense layers of a block; None: 8/3·width, to a multiple of 8
    tied       whether the head's matrix is the tokens' table
    dropout    of branches and attention weights
    """

    width: Count = 128
    layers: Count = 4
    heads: Count = 4
    kv_heads: Count | None = None
    inner: Count | None = None
    tied: bool = True
    dropout: Share = 0.0


@dataclass(frozen=True)
class TranslatorOptions:
    """Shape of an encoder-decoder that turns one text into another.

    width      units of a token
    layers     blocks of each stack
    heads      of attention
    inner      units between the two dense layers of a block; None: 4·width
    positions  longest text; None: the longest prepared row
    order      where norms stand: post, after each branch as in 2017, or pre, which needs no warm-up
    activation   a name of `gipi list activations`
    dropout    of branches and the tokens' vectors
    """

    width: Count = 128
    layers: Count = 2
    heads: Count = 4
    inner: Count | None = None
    positions: Count | None = None
    order: Literal["pre", "post"] = "pre"
    activation: str = "relu"
    dropout: Share = 0.1


class TextClassifier(nn.Module):
    """An encoder called with tokens: what equals `pad` is masked, and the logits come out.

    tokens (B, T) int64, segments (B, T) int64 for pairs of texts -> (B, outputs)
    """

    def __init__(
        self, body: EncoderModel, config: BertOptions | None = None, *, pad: int = 0
    ) -> None:
        super().__init__()
        self.body, self.pad, self.config = body, pad, config
        self.choices = shape_in_words(body.config.stack, body.config.embed)

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        """Return the logits of each text."""
        if self.body.config.embed.segments < 2:
            segments_BT = None  # RoBERTa and DistilBERT part two texts by a separator alone
        real = tokens_BT.ne(self.pad)
        logits: Tensor | None = self.body(tokens_BT, real, segments_BT).logits
        assert logits is not None
        return logits


class NextToken(nn.Module):
    """A decoder called with tokens: the logits of what follows each of them.

    tokens (B, T) int64 -> (B, T, V). Padding on the right needs no mask: no token looks ahead.
    Where the vocabulary is large (`fuses`), a loss may ask for hidden states (B, T, D) and take
    `head_weight` (V, D) to them itself, a few rows at a time.
    """

    def __init__(self, body: CausalModel, config: GPT2Options | LlamaOptions | None = None) -> None:
        super().__init__()
        self.body, self.config = body, config
        self.choices = shape_in_words(body.config.stack, body.config.embed)

    @property
    def fuses(self) -> bool:
        """Whether the logits of a batch are better never held all at once."""
        return self.body.config.embed.vocab >= FUSED_FROM

    @property
    def head_weight(self) -> Tensor:
        """The matrix (V, D) that turns hidden states into logits."""
        return self.body.table

    def forward(self, tokens_BT: Tensor, *, hidden: bool = False) -> Tensor:
        """Return the logits at each place, or the hidden states before the head."""
        if hidden:
            states: Tensor | None = self.body(tokens_BT, at=tokens_BT.new_empty(0)).hidden
            assert states is not None
            return states
        logits: Tensor | None = self.body(tokens_BT).logits
        assert logits is not None
        return logits


class Translator(nn.Module):
    """An encoder-decoder called with both texts: the logits of what follows each target token.

    source (B, S) int64, target (B, T) int64, shifted right -> (B, T, V), or (N, V) at `places` (N,)
    of the flat target. What equals `pad` is masked in the source; the target needs no mask, for no
    token looks ahead.
    """

    picks_places = True

    def __init__(
        self, body: Seq2SeqModel, config: TranslatorOptions | None = None, *, pad: int = 0
    ) -> None:
        super().__init__()
        self.body, self.pad, self.config = body, pad, config
        self.choices = shape_in_words(body.config.decoder, body.config.embed)

    def forward(
        self, source_BS: Tensor, target_BT: Tensor, *, places: Tensor | None = None
    ) -> Tensor:
        """Return the logits at each place of the target, or at some."""
        real = source_BS.ne(self.pad)
        logits: Tensor | None = self.body(
            source_BS, real, decoder_input_ids=target_BT, at=places
        ).logits
        assert logits is not None
        return logits


def text_classifier(
    options: BertOptions, signature: Signature, generator: Generator
) -> TextClassifier | TokenTagger | SpanReader:
    """Return an encoder for texts of this signature, its weights drawn from `generator`.

    Its head is what the signature asks for: one answer a text, a tag for each token, or a span.

    Differs from the published BERT where `pooling` is "mean": the vector of the first token means
    nothing before long pre-training. Raises `ModelError` for data that is not text.
    """
    head = HEADS[signature.per]
    body, settled = encoder_body(
        options, signature, generator, name="bert", head=head, outputs=signature.outputs,
        pool=head == "classify", pooling=options.pooling,
    )  # fmt: skip
    if head != "classify":
        return _at_every_token(body, settled, pad=signature.pad)
    model = TextClassifier(body, settled, pad=signature.pad)
    model.choices += (text_in_words(options.pooling),)
    return model


def encoder_body(
    options: BertOptions,
    signature: Signature,
    generator: Generator,
    *,
    name: str,
    head: EncoderHead,
    outputs: int = 0,
    pool: bool = False,
    pooling: Literal["mean", "first"] = "first",
) -> tuple[EncoderModel, BertOptions]:
    """Return BERT's body with a head, drawn from `generator`, and the options, none left open.

    name   of the model, for errors
    Everything else as in `EncoderConfig`. Raises `ModelError` for data that is not text.
    """
    places, o = places_for(signature, options.positions, name), options
    body = EncoderModel(EncoderConfig(
        EmbedConfig(signature.vocab, o.width, positions=places, pad=signature.pad, segments=2,
                    norm=True, dropout=o.dropout),
        StackConfig(o.width, o.layers, o.heads, o.inner or 4 * o.width, eps=1e-12,
                    dropout=o.dropout, attention_dropout=o.dropout),
        head=head, outputs=outputs, pool=pool, pooling=pooling,
        head_dropout=0.0 if head == "none" else o.dropout,
    ))  # fmt: skip
    draw_weights(body, generator)
    return body, replace(o, inner=body.config.stack.inner, positions=places)


def _at_every_token(
    body: EncoderModel, settled: BertOptions, *, pad: int
) -> TokenTagger | SpanReader:
    head = TokenTagger if body.config.head == "tag" else SpanReader
    model = head(body, pad=pad)
    model.config = settled
    model.choices = shape_in_words(body.config.stack, body.config.embed)
    return model


def language_model(options: GPT2Options, signature: Signature, generator: Generator) -> NextToken:
    """Return a decoder for a vocabulary and a context, its weights drawn from `generator`.

    Raises `ModelError` for data that is not text.
    """
    places = places_for(signature, options.positions, "gpt2")
    o = options
    body = CausalModel(CausalConfig(
        EmbedConfig(signature.vocab, o.width, positions=places, count="mask", pad=signature.pad,
                    segments=-1, dropout=o.dropout),
        StackConfig(o.width, o.layers, o.heads, o.inner or 4 * o.width, causal=True, order="pre",
                    final_norm=True, activation="gelu-tanh", attention_bias=o.bias,
                    feed_bias=o.bias, dropout=o.dropout, attention_dropout=o.dropout),
    ))  # fmt: skip
    draw_weights(body, generator)
    return NextToken(body, replace(o, inner=body.config.stack.inner, positions=places))


def modern_language_model(
    options: LlamaOptions, signature: Signature, generator: Generator
) -> NextToken:
    """Return a decoder as Llama is, for a vocabulary and a context, drawn from `generator`.

    Raises `ModelError` for data that is not text, and for heads that do not divide the width or
    have an odd number of units, which cannot be turned in pairs.
    """
    places, o = places_for(signature, None, "llama"), options
    units = units_of(o.width, o.heads)
    Rotary().speeds(units)  # raises here, and not in the first step
    inner = o.inner or -(-8 * o.width // 24) * 8
    body = CausalModel(CausalConfig(
        EmbedConfig(signature.vocab, o.width, count="mask", context=places, pad=signature.pad),
        StackConfig(o.width, o.layers, o.heads, inner, kv_heads=o.kv_heads or o.heads,
                    head_width=units, causal=True, norm="rms", eps=1e-6, order="pre",
                    final_norm=True, activation="silu", gated=True, attention_bias=False,
                    feed_bias=False, dropout=o.dropout, attention_dropout=o.dropout,
                    rotary=Rotary()),
        tied=o.tied,
    ))  # fmt: skip
    draw_weights(body, generator)
    return NextToken(body, replace(o, inner=inner, kv_heads=body.config.stack.kv_heads))


def translator(
    options: TranslatorOptions, signature: Signature, generator: Generator
) -> Translator:
    """Return the Transformer of 2017 for texts of one vocabulary, drawn from `generator`.

    One table serves source, target and the logits, as published. Differs from the paper where
    `order` is "pre". Raises `ModelError` for data that is not text.
    """
    places = places_for(signature, options.positions, "transformer")
    o = options
    side = StackConfig(o.width, o.layers, o.heads, o.inner or 4 * o.width, order=o.order,
                       final_norm=o.order == "pre", activation=o.activation,
                       dropout=o.dropout)  # fmt: skip
    body = Seq2SeqModel(Seq2SeqConfig(
        EmbedConfig(signature.vocab, o.width, positions=places, kind="sinusoidal",
                    pad=signature.pad, scale=o.width**0.5, dropout=o.dropout),
        side, replace(side, causal=True, cross=True),
        # The bias of published models of this form; zeros here, so that it can be saved as one.
        final_bias=o.order == "post",
    ))  # fmt: skip
    draw_weights_2017(body, generator)
    settled = replace(o, inner=side.inner, positions=places)
    return Translator(body, settled, pad=signature.pad)


def shape_in_words(stack: StackConfig, embed: EmbedConfig) -> tuple[str, ...]:
    """Return sentences about the shape of a Transformer, for people."""
    place = "before" if stack.order == "pre" else "after"
    return (
        f"{stack.layers} blocks of {stack.heads} heads, {stack.width} wide, a norm {place} each",
        f"{embed.vocab} tokens in the vocabulary, "
        + (f"up to {embed.longest} in a row" if embed.longest else "rows of any length"),
    )


def text_in_words(pooling: str) -> str:
    """Return the sentence about what becomes of a text's tokens."""
    vector = "mean of its tokens" if pooling == "mean" else "vector of its first token"
    return f"a text is the {vector}"


def units_of(width: int, heads: int) -> int:
    """Return the units of a head; raise `ModelError` where the heads do not divide the width."""
    if width % heads:
        raise ModelError(f"{heads} heads over a width of {width}", "heads that divide the width",
                         f"set model.width={-(-width // heads) * heads}, or other model.heads"
                         )  # fmt: skip
    return width // heads


def places_for(signature: Signature, positions: int | None, name: str) -> int:
    """Return the rows of the table of positions; raise for data that it cannot hold."""
    if not signature.vocab:
        raise ModelError(f"data without text for the model '{name}'", "a column of texts",
                         "choose another model, or make the column a text by its kind"
                         )  # fmt: skip
    places = positions or max(signature.length, 1)
    if places < signature.length:
        raise ModelError(f"positions={places} for rows of {signature.length} tokens",
                         f"{signature.length} or more",
                         "raise model.positions, or prepare shorter rows")  # fmt: skip
    return places
