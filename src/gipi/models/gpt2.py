"""GPT-2: a decoder with learned positions, norms before each branch, and GELU by tanh.

Radford et al. 2019, "Language models are unsupervised multitask learners".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gipi.models.causal import CausalConfig, CausalModel
from gipi.models.family import Entry, Family, Fields, act_name, linear
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import StackConfig

if TYPE_CHECKING:
    from gipi.models.family import State

HEADS = {
    "GPT2LMHeadModel": "words",
    "GPT2Model": "none",
    "GPT2ForSequenceClassification": "classify",
}


def read(fields: Fields, head: str, state: State) -> CausalConfig:  # noqa: ARG001  one signature
    """Return our config of a config.json."""
    fields.only("add_cross_attention", (False,))
    fields.only("quantization_config")
    fields.only("pruned_heads", ({},))
    width, eps = fields.size("n_embd"), fields.number("layer_norm_epsilon", 1e-5)
    heads, drop = fields.size("n_head"), fields.number("resid_pdrop", 0.1)
    # In which precision the kernel computes, and a head that is not this one.
    fields.note("reorder_and_upcast_attn", "n_ctx", "summary_activation", "summary_first_dropout",
                "summary_proj_to_labels", "summary_type", "summary_use_proj")  # fmt: skip
    scaled = fields.flag("scale_attn_weights", default=True)
    return CausalConfig(
        EmbedConfig(
            fields.size("vocab_size"), width, positions=fields.size("n_positions"), count="mask",
            pad=fields.integer("pad_token_id", None), segments=-1,
            dropout=fields.number("embd_pdrop", 0.1),
        ),
        StackConfig(
            width, fields.size("n_layer"), heads, fields.size("n_inner", None) or 4 * width,
            causal=True, eps=eps, order="pre", final_norm=True,
            activation=fields.act("activation_function", "gelu_new"),
            scale=None if scaled else 1.0,
            by_depth=fields.flag("scale_attn_by_inverse_layer_idx", default=False),
            dropout=drop, attention_dropout=fields.number("attn_pdrop", 0.1),
        ),
        head=head, outputs=fields.classes() if head == "classify" else 0,  # type: ignore[arg-type]
        tied=fields.flag("tie_word_embeddings", default=True),
    )  # fmt: skip


def write(config: CausalConfig) -> dict[str, Any]:
    """Return the config.json of a model of ours."""
    e, s = config.embed, config.stack
    return {
        "model_type": "gpt2", "vocab_size": e.vocab, "n_embd": s.width, "n_positions": e.positions,
        "n_layer": s.layers, "n_head": s.heads, "n_inner": s.inner,
        "activation_function": act_name(s.activation),
        "layer_norm_epsilon": s.eps, "embd_pdrop": e.dropout, "resid_pdrop": s.dropout,
        "attn_pdrop": s.attention_dropout, "scale_attn_weights": s.scale is None,
        "scale_attn_by_inverse_layer_idx": s.by_depth, "tie_word_embeddings": config.tied,
        "pad_token_id": e.pad, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def entries(config: CausalConfig) -> list[Entry]:
    """Return the tensors; GPT-2 stores matrices as (in, out) and q, k, v as one, as here."""
    base = "transformer."
    found = [
        Entry("embed.tokens.weight", (f"{base}wte.weight",)),
        Entry("embed.positions.weight", (f"{base}wpe.weight",)),
    ]
    for i in range(config.stack.layers):
        own, their = f"decoder.blocks.{i}.", f"{base}h.{i}."
        found += linear(f"{own}attend_norm", f"{their}ln_1")
        found += linear(f"{own}attend.qkv", f"{their}attn.c_attn", transposed=True)
        found += linear(f"{own}attend.out", f"{their}attn.c_proj", transposed=True)
        found += linear(f"{own}feed_norm", f"{their}ln_2")
        found += linear(f"{own}feed.up", f"{their}mlp.c_fc", transposed=True)
        found += linear(f"{own}feed.down", f"{their}mlp.c_proj", transposed=True)
    found += linear("decoder.norm", f"{base}ln_f")
    if config.head == "words" and not config.tied:
        found += linear("head", "lm_head", bias=False, fresh=True)
    if config.head == "classify":
        found += linear("head", "score", bias=False, fresh=True)
    return found


FAMILY = Family(
    "gpt2", HEADS, "transformer.", read, write, CausalModel, entries,
    # Triangles and their filling, which files of old carry.
    buffers=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),
    copies={"lm_head.weight": "transformer.wte.weight"},
    other=(r"score\.weight", r"lm_head\.weight", r"multiple_choice_head\..*"),
)  # fmt: skip
