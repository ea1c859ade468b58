"""Marian: the Transformer of 2017, sines and cosines, norms after each branch, one table.

Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762; Junczys-Dowmunt et al. 2018,
"Marian: fast neural machine translation in C++", arXiv:1804.00344.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gipi.core.errors import ModelError
from gipi.models.family import Entry, Family, Fields, act_name, joined, linear
from gipi.models.seq2seq import Seq2SeqConfig, Seq2SeqModel
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import StackConfig
from gipi.nn.position import sinusoids

if TYPE_CHECKING:
    from gipi.models.family import State

HEADS = {"MarianMTModel": "words", "MarianModel": "none"}
TABLES = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")


def read(fields: Fields, head: str, state: State) -> Seq2SeqConfig:
    """Return our config of a config.json.

    A table of positions in the file must be the sines and cosines that are computed here.
    """
    fields.only("quantization_config")
    fields.only("is_decoder", (False,))
    fields.only("share_encoder_decoder_embeddings", (True,))
    fields.only("encoder_layerdrop", (0.0,))
    fields.only("decoder_layerdrop", (0.0,))
    fields.only("normalize_before", (False,))
    fields.only("normalize_embedding", (False,))
    fields.only("add_final_layer_norm", (False,))
    fields.only("static_position_embeddings", (True,))
    fields.note("num_hidden_layers", "add_bias_logits", "extra_pos_embeddings", "classif_dropout",
                "classifier_dropout", "force_bos_token_to_be_generated")  # fmt: skip
    vocab, width = fields.size("vocab_size"), fields.size("d_model")
    fields.only("decoder_vocab_size", (vocab,))
    places, drop = fields.size("max_position_embeddings", 1024), fields.number("dropout", 0.1)
    for name in TABLES:
        if name in state and (
            state[name].shape != (places, width)
            or (state[name].float() - sinusoids(places, width)).abs().max() > 1e-2
        ):
            raise ModelError(f"{name} is no table of sines and cosines",
                             "positions as of 2017, which are not trained",
                             "this model cannot be loaded yet")  # fmt: skip

    def stack(side: str) -> StackConfig:
        decoder = side == "decoder"
        return StackConfig(
            width, fields.size(f"{side}_layers"), fields.size(f"{side}_attention_heads"),
            fields.size(f"{side}_ffn_dim"), causal=decoder, cross=decoder, eps=1e-5,
            activation=fields.act("activation_function", "gelu"), dropout=drop,
            attention_dropout=fields.number("attention_dropout", 0.0),
            feed_dropout=fields.number("activation_dropout", 0.0),
        )  # fmt: skip

    scaled = fields.flag("scale_embedding", default=False)
    return Seq2SeqConfig(
        EmbedConfig(
            vocab, width, positions=places, kind="sinusoidal", dropout=drop,
            scale=math.sqrt(width) if scaled else 1.0, pad=fields.integer("pad_token_id", None),
        ),
        stack("encoder"), stack("decoder"), head=head,  # type: ignore[arg-type]
        tied=fields.flag("tie_word_embeddings", default=True), final_bias=True,
    )  # fmt: skip


def write(config: Seq2SeqConfig) -> dict[str, Any]:
    """Return the config.json of a model of ours."""
    e = config.embed
    raw: dict[str, Any] = {
        "model_type": "marian", "vocab_size": e.vocab, "decoder_vocab_size": e.vocab,
        "d_model": e.width, "max_position_embeddings": e.positions,
        "scale_embedding": e.scale != 1.0, "dropout": e.dropout, "is_encoder_decoder": True,
        "share_encoder_decoder_embeddings": True, "tie_word_embeddings": config.tied,
        "pad_token_id": e.pad, "decoder_start_token_id": e.pad, "eos_token_id": None,
        "bos_token_id": None, "forced_eos_token_id": None,
    }  # fmt: skip
    for side, s in (("encoder", config.encoder), ("decoder", config.decoder)):
        raw |= {f"{side}_layers": s.layers, f"{side}_attention_heads": s.heads,
                f"{side}_ffn_dim": s.inner, f"{side}_layerdrop": 0.0}  # fmt: skip
    s = config.encoder
    return raw | {
        "activation_function": act_name(s.activation),
        "attention_dropout": s.attention_dropout, "activation_dropout": s.feed_dropout,
    }  # fmt: skip


def entries(config: Seq2SeqConfig) -> list[Entry]:
    """Return the tensors."""
    base, D = "model.", config.embed.width
    found = [Entry("embed.tokens.weight", (f"{base}shared.weight",))]
    for side, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        for i in range(stack.layers):
            own, their = f"{side}.blocks.{i}.", f"{base}{side}.layers.{i}."
            parts = [f"{their}self_attn.{name}_proj" for name in ("q", "k", "v")]
            found += joined(f"{own}attend.qkv", parts, rows=(D, D, D))
            found += linear(f"{own}attend.out", f"{their}self_attn.out_proj")
            found += linear(f"{own}attend_norm", f"{their}self_attn_layer_norm")
            if stack.cross:
                at = f"{their}encoder_attn."
                found += linear(f"{own}cross.q", f"{at}q_proj")
                found += joined(f"{own}cross.kv", (f"{at}k_proj", f"{at}v_proj"), rows=(D, D))
                found += linear(f"{own}cross.out", f"{at}out_proj")
                found += linear(f"{own}cross_norm", f"{their}encoder_attn_layer_norm")
            found += linear(f"{own}feed.up", f"{their}fc1")
            found += linear(f"{own}feed.down", f"{their}fc2")
            found += linear(f"{own}feed_norm", f"{their}final_layer_norm")
    if config.head == "words":
        found.append(Entry("bias", ("final_logits_bias",), row=True, fresh=True))
        if not config.tied:
            found += linear("head", "lm_head", bias=False, fresh=True)
    return found


FAMILY = Family(
    "marian", HEADS, "model.", read, write, Seq2SeqModel, entries,
    buffers=tuple(name.replace(".", r"\.") for name in TABLES),
    copies={
        "lm_head.weight": "model.shared.weight",
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
    },
    other=(r"final_logits_bias", r"lm_head\.weight"),
)  # fmt: skip
