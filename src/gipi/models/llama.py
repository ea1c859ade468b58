"""Llama: a modern decoder with turned queries and keys, RMS norms, gated SiLU, grouped keys.

Touvron et al. 2023, "LLaMA: open and efficient foundation language models", arXiv:2302.13971;
Grattafiori et al. 2024, "The Llama 3 herd of models", arXiv:2407.21783.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gipi.core.errors import ModelError
from gipi.models.causal import CausalConfig, CausalModel
from gipi.models.family import Entry, Family, Fields, act_name, joined, linear
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import StackConfig
from gipi.nn.position import Rotary

if TYPE_CHECKING:
    from gipi.models.family import State

HEADS = {
    "LlamaForCausalLM": "words",
    "LlamaModel": "none",
    "LlamaForSequenceClassification": "classify",
}
KINDS = ("default", "linear", "llama3")


def read_rotary(fields: Fields) -> Rotary:
    """Return how positions turn: `rope_parameters` of today, or `rope_theta` and `rope_scaling`."""
    given = fields.mapping("rope_parameters") or fields.mapping("rope_scaling")
    base = given.get("rope_theta", fields.number("rope_theta", 10000.0))
    kind = given.get("rope_type", given.get("type", "default"))
    key = "rope_parameters" if fields.mapping("rope_parameters") else "rope_scaling"
    if kind not in KINDS:
        raise ModelError(f"{key} of type '{kind}' in {fields.path}, which is not implemented here",
                         f"one of: {', '.join(KINDS)}",
                         "this model cannot be loaded yet")  # fmt: skip
    parts = {
        "default": (),
        "linear": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor",
                   "original_max_position_embeddings"),
    }[kind]  # fmt: skip
    known = {"rope_theta", "rope_type", "type", *parts}
    if given.get("partial_rotary_factor", 1.0) == 1.0:
        known.add("partial_rotary_factor")
    odd = sorted(set(given) - known)
    lost = [name for name in parts if not isinstance(given.get(name), int | float)]
    if odd or lost:
        raise ModelError(
            f"{key} of type '{kind}' in {fields.path} with "
            + (f"{odd[0]}={given[odd[0]]!r}" if odd else f"no number for {lost[0]}"),
            f"these and no others: {', '.join(sorted(known))}",
            "use the config.json that belongs to the weights",
        )
    if kind == "llama3":
        low, high = given["low_freq_factor"], given["high_freq_factor"]
        trained = int(given["original_max_position_embeddings"])
        return Rotary(base, "llama3", float(given["factor"]), low, high, trained)
    return Rotary(base, kind, float(given.get("factor", 1.0)))


def read(fields: Fields, head: str, state: State) -> CausalConfig:  # noqa: ARG001
    """Return our config of a config.json."""
    fields.only("quantization_config")
    fields.only("pruned_heads", ({},))
    fields.only("sliding_window")
    fields.only("rope_interleaved", (False,))
    fields.note("pretraining_tp")  # how a matrix was cut when it was trained; the sum is the same
    width, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    return CausalConfig(
        EmbedConfig(
            fields.size("vocab_size"), width, count="mask",
            context=fields.size("max_position_embeddings", 2048),
            pad=fields.integer("pad_token_id", None),
        ),
        StackConfig(
            width, fields.size("num_hidden_layers"), heads, fields.size("intermediate_size"),
            kv_heads=fields.size("num_key_value_heads", heads),
            head_width=fields.size("head_dim", width // heads), causal=True, norm="rms",
            eps=fields.number("rms_norm_eps", 1e-6), order="pre", final_norm=True,
            activation=fields.act("hidden_act", "silu"), gated=True,
            attention_bias=fields.flag("attention_bias", default=False),
            feed_bias=fields.flag("mlp_bias", default=False),
            attention_dropout=fields.number("attention_dropout", 0.0), rotary=read_rotary(fields),
        ),
        head=head, outputs=fields.classes() if head == "classify" else 0,  # type: ignore[arg-type]
        tied=fields.flag("tie_word_embeddings", default=False),
    )  # fmt: skip


def write(config: CausalConfig) -> dict[str, Any]:
    """Return the config.json of a model of ours."""
    e, s, turn = config.embed, config.stack, config.stack.rotary
    assert turn is not None
    rope: dict[str, Any] = {"rope_theta": turn.base, "rope_type": turn.kind}
    if turn.kind != "default":
        rope["factor"] = turn.factor
    if turn.kind == "llama3":
        rope |= {"low_freq_factor": turn.low, "high_freq_factor": turn.high,
                 "original_max_position_embeddings": turn.trained}  # fmt: skip
    return {
        "model_type": "llama", "vocab_size": e.vocab, "hidden_size": s.width,
        "max_position_embeddings": e.context or 2048, "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads or s.heads,
        "head_dim": s.units, "intermediate_size": s.inner,
        "hidden_act": act_name(s.activation),
        "rms_norm_eps": s.eps, "attention_bias": s.attention_bias, "mlp_bias": s.feed_bias,
        "attention_dropout": s.attention_dropout, "rope_parameters": rope,
        "tie_word_embeddings": config.tied, "pad_token_id": e.pad, "bos_token_id": None,
        "eos_token_id": None,
    }  # fmt: skip


def entries(config: CausalConfig) -> list[Entry]:
    """Return the tensors."""
    s, base = config.stack, "model."
    E, G = s.units, s.kv_heads or s.heads
    found = [Entry("embed.tokens.weight", (f"{base}embed_tokens.weight",))]
    for i in range(s.layers):
        own, their = f"decoder.blocks.{i}.", f"{base}layers.{i}."
        parts = [f"{their}self_attn.{name}_proj" for name in ("q", "k", "v")]
        rows, bias = (s.heads * E, G * E, G * E), s.attention_bias
        found += joined(f"{own}attend.qkv", parts, rows=rows, bias=bias)
        found += linear(f"{own}attend.out", f"{their}self_attn.o_proj", bias=bias)
        found += linear(f"{own}attend_norm", f"{their}input_layernorm", bias=False)
        found += linear(f"{own}feed.gate", f"{their}mlp.gate_proj", bias=s.feed_bias)
        found += linear(f"{own}feed.up", f"{their}mlp.up_proj", bias=s.feed_bias)
        found += linear(f"{own}feed.down", f"{their}mlp.down_proj", bias=s.feed_bias)
        found += linear(f"{own}feed_norm", f"{their}post_attention_layernorm", bias=False)
    found += linear("decoder.norm", f"{base}norm", bias=False)
    if config.head == "words" and not config.tied:
        found += linear("head", "lm_head", bias=False, fresh=True)
    if config.head == "classify":
        found += linear("head", "score", bias=False, fresh=True)
    return found


FAMILY = Family(
    "llama", HEADS, "model.", read, write, CausalModel, entries,
    buffers=(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),
    copies={"lm_head.weight": "model.embed_tokens.weight"},
    other=(r"score\.weight", r"lm_head\.weight"),
)  # fmt: skip
