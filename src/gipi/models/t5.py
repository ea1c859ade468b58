"""T5: an encoder-decoder with relative positions, RMS norms, no biases and unscaled scores.

1.0 has ReLU and one table for tokens and words, 1.1 gated GELU and a head of its own.

Raffel et al. 2020, "Exploring the limits of transfer learning with a unified text-to-text
transformer", arXiv:1910.10683.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gipi.core.errors import ModelError
from gipi.models.family import Entry, Family, Fields, joined, linear
from gipi.models.seq2seq import Seq2SeqConfig, Seq2SeqModel
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import StackConfig

if TYPE_CHECKING:
    from gipi.models.family import State

HEADS = {
    "T5ForConditionalGeneration": "words",
    "T5WithLMHeadModel": "words",  # its name before 2020
    "T5Model": "none",
}
FEWEST = 4  # buckets: two directions, each with one exact and one growing half


def read(fields: Fields, head: str, state: State) -> Seq2SeqConfig:
    """Return our config of a config.json.

    `tie_word_embeddings` false once said two things, a head of its own and no scaling of its
    inputs; newer files say the second in `scale_decoder_outputs` and show the first by having a
    tensor lm_head.weight that differs from the tokens' table.
    """
    fields.only("quantization_config")
    fields.only("is_decoder", (False,))
    fields.note("is_gated_act", "dense_act_fn", "classifier_dropout", "n_positions")
    width, heads = fields.size("d_model"), fields.size("num_heads")
    drop, eps = fields.number("dropout_rate", 0.1), fields.number("layer_norm_epsilon", 1e-6)
    kind = fields.text("feed_forward_proj", "relu")
    gated = kind.startswith("gated-")
    # The one exception of transformers: this name means the form by tanh.
    act = "gelu-tanh" if kind == "gated-gelu" else _act(fields, kind.removeprefix("gated-"))
    buckets = fields.size("relative_attention_num_buckets", 32)
    if buckets < FEWEST or buckets % 2:
        raise ModelError(f"relative_attention_num_buckets={buckets} in {fields.path}",
                         f"an even number of {FEWEST} or more",
                         "use the config.json that belongs to the weights")  # fmt: skip
    flag = fields.flag("tie_word_embeddings", default=True)
    own = "lm_head.weight" in state and not torch.equal(
        state["lm_head.weight"], state.get("shared.weight", state["lm_head.weight"])
    )
    scaled = fields.flag("scale_decoder_outputs", default=flag)

    def stack(layers: int, *, decoder: bool) -> StackConfig:
        return StackConfig(
            width, layers, heads, fields.size("d_ff"), head_width=fields.size("d_kv"),
            causal=decoder, cross=decoder, norm="rms", eps=eps, order="pre", final_norm=True,
            activation=act, gated=gated, attention_bias=False, feed_bias=False, scale=1.0,
            dropout=drop, attention_dropout=drop, feed_dropout=drop, buckets=buckets,
            distance=fields.size("relative_attention_max_distance", 128),
        )  # fmt: skip

    layers = fields.size("num_layers")
    return Seq2SeqConfig(
        EmbedConfig(fields.size("vocab_size"), width, dropout=drop,
                    pad=fields.integer("pad_token_id", 0)),
        stack(layers, decoder=False),
        stack(fields.size("num_decoder_layers", layers), decoder=True),
        head=head, tied=flag and not own, logit_scale=width**-0.5 if scaled else 1.0,  # type: ignore[arg-type]
        out_dropout=drop,
    )  # fmt: skip


def _act(fields: Fields, name: str) -> str:
    inner = Fields({"feed_forward_proj": name}, fields.path)
    return inner.act("feed_forward_proj", "relu")


def write(config: Seq2SeqConfig) -> dict[str, Any]:
    """Return the config.json of a model of ours."""
    e, s, d = config.embed, config.encoder, config.decoder
    act = {"gelu-tanh": "gelu" if s.gated else "gelu_new"}.get(s.activation, s.activation)
    return {
        "model_type": "t5", "vocab_size": e.vocab, "d_model": e.width, "d_ff": s.inner,
        "d_kv": s.units, "num_heads": s.heads, "num_layers": s.layers,
        "num_decoder_layers": d.layers, "feed_forward_proj": f"gated-{act}" if s.gated else act,
        "relative_attention_num_buckets": s.buckets, "relative_attention_max_distance": s.distance,
        "layer_norm_epsilon": s.eps, "dropout_rate": s.dropout, "is_encoder_decoder": True,
        # False says both of the head, and that is what readers of all versions go by.
        "tie_word_embeddings": config.tied, "scale_decoder_outputs": config.logit_scale != 1.0,
        "pad_token_id": e.pad, "decoder_start_token_id": e.pad, "eos_token_id": 1,
    }  # fmt: skip


def entries(config: Seq2SeqConfig) -> list[Entry]:
    """Return the tensors."""
    s, base = config.encoder, ""
    rows = (s.heads * s.units,) * 3
    found = [Entry("embed.tokens.weight", (f"{base}shared.weight",))]
    for side, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found.append(Entry(f"{side}.bias.table.weight", (first,)))
        for i in range(stack.layers):
            own, their = f"{side}.blocks.{i}.", f"{side}.block.{i}.layer."
            parts = [f"{their}0.SelfAttention.{name}" for name in ("q", "k", "v")]
            found += joined(f"{own}attend.qkv", parts, rows=rows, bias=False)
            found += linear(f"{own}attend.out", f"{their}0.SelfAttention.o", bias=False)
            found += linear(f"{own}attend_norm", f"{their}0.layer_norm", bias=False)
            if stack.cross:
                at = f"{their}1.EncDecAttention."
                found += linear(f"{own}cross.q", f"{at}q", bias=False)
                found += joined(f"{own}cross.kv", (f"{at}k", f"{at}v"), rows=rows[:2], bias=False)
                found += linear(f"{own}cross.out", f"{at}o", bias=False)
                found += linear(f"{own}cross_norm", f"{their}1.layer_norm", bias=False)
            last = f"{their}{2 if stack.cross else 1}."
            if stack.gated:
                found += linear(f"{own}feed.gate", f"{last}DenseReluDense.wi_0", bias=False)
                found += linear(f"{own}feed.up", f"{last}DenseReluDense.wi_1", bias=False)
            else:
                found += linear(f"{own}feed.up", f"{last}DenseReluDense.wi", bias=False)
            found += linear(f"{own}feed.down", f"{last}DenseReluDense.wo", bias=False)
            found += linear(f"{own}feed_norm", f"{last}layer_norm", bias=False)
        found += linear(f"{side}.norm", f"{side}.final_layer_norm", bias=False)
    if config.head == "words" and not config.tied:
        found += linear("head", "lm_head", bias=False, fresh=True)
    return found


FAMILY = Family(
    "t5", HEADS, "", read, write, Seq2SeqModel, entries,
    # Published by mistake with T5 1.0: the cross attention never had relative positions.
    buffers=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    copies={
        "lm_head.weight": "shared.weight",
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    },
    other=(r"lm_head\.weight",),
)  # fmt: skip
