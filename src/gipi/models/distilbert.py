"""DistilBERT: half of BERT's layers, no segments, no pooling layer, taught by BERT.

Sanh, Debut, Chaumond and Wolf 2019, "DistilBERT, a distilled version of BERT", arXiv:1910.01108.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gipi.models.encoder import EncoderConfig, EncoderModel
from gipi.models.family import Entry, Family, Fields, joined, linear
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import StackConfig

if TYPE_CHECKING:
    from gipi.models.family import State

HEADS = {
    "DistilBertForMaskedLM": "words",
    "DistilBertForSequenceClassification": "classify",
    "DistilBertForTokenClassification": "tag",
    "DistilBertForQuestionAnswering": "answer",
    "DistilBertModel": "none",
}
EPS = 1e-12  # of every norm; config.json has no key for it


def read(fields: Fields, head: str, state: State) -> EncoderConfig:  # noqa: ARG001
    """Return our config of a config.json."""
    fields.only("quantization_config")
    fields.only("pruned_heads", ({},))
    fields.only("tie_word_embeddings", (True,))
    fields.note("sinusoidal_pos_embds")  # only how the table began: the file has it either way
    fields.note("tie_weights_")
    width, drop = fields.size("dim"), fields.number("dropout", 0.1)
    act = fields.act("activation", "gelu")
    last = {
        "classify": fields.number("seq_classif_dropout", 0.2),
        "answer": fields.number("qa_dropout", 0.1),
    }
    return EncoderConfig(
        EmbedConfig(
            fields.size("vocab_size"), width, positions=fields.size("max_position_embeddings"),
            pad=fields.integer("pad_token_id", 0), norm=True, eps=EPS, dropout=drop,
        ),
        StackConfig(
            width, fields.size("n_layers"), fields.size("n_heads"), fields.size("hidden_dim"),
            eps=EPS, activation=act, dropout=drop,
            attention_dropout=fields.number("attention_dropout", 0.1),
        ),
        head=head, outputs=fields.classes() if head in {"classify", "tag"} else 0,  # type: ignore[arg-type]
        pool=head == "classify", pool_activation="relu", words_activation=act,
        head_dropout=last.get(head, drop),
    )  # fmt: skip


def write(config: EncoderConfig) -> dict[str, Any]:
    """Return the config.json of a model of ours."""
    e, s = config.embed, config.stack
    return {
        "model_type": "distilbert", "vocab_size": e.vocab, "dim": s.width,
        "max_position_embeddings": e.positions, "n_layers": s.layers, "n_heads": s.heads,
        "hidden_dim": s.inner,
        "activation": {"gelu-tanh": "gelu_new"}.get(s.activation, s.activation),
        "dropout": s.dropout, "attention_dropout": s.attention_dropout,
        "seq_classif_dropout": config.head_dropout, "qa_dropout": config.head_dropout,
        "pad_token_id": e.pad, "sinusoidal_pos_embds": False, "tie_word_embeddings": True,
    }  # fmt: skip


def entries(config: EncoderConfig) -> list[Entry]:
    """Return the tensors."""
    base, D = "distilbert.", config.embed.width
    found = [
        Entry("embed.tokens.weight", (f"{base}embeddings.word_embeddings.weight",)),
        Entry("embed.positions.weight", (f"{base}embeddings.position_embeddings.weight",)),
        *linear("embed.norm", f"{base}embeddings.LayerNorm"),
    ]
    for i in range(config.stack.layers):
        own, their = f"encoder.blocks.{i}.", f"{base}transformer.layer.{i}."
        parts = [f"{their}attention.{name}_lin" for name in ("q", "k", "v")]
        found += joined(f"{own}attend.qkv", parts, rows=(D, D, D))
        found += linear(f"{own}attend.out", f"{their}attention.out_lin")
        found += linear(f"{own}attend_norm", f"{their}sa_layer_norm")
        found += linear(f"{own}feed.up", f"{their}ffn.lin1")
        found += linear(f"{own}feed.down", f"{their}ffn.lin2")
        found += linear(f"{own}feed_norm", f"{their}output_layer_norm")
    if config.pool:
        found += linear("pool", "pre_classifier", fresh=True)
    if config.head == "words":
        found += linear("predict.dense", "vocab_transform", fresh=True)
        found += linear("predict.norm", "vocab_layer_norm", fresh=True)
        found.append(Entry("predict.bias", ("vocab_projector.bias",), fresh=True))
    if config.head in {"classify", "tag"}:
        found += linear("head", "classifier", fresh=True)
    if config.head == "answer":
        found += linear("head", "qa_outputs", fresh=True)
    return found


FAMILY = Family(
    "distilbert", HEADS, "distilbert.", read, write, EncoderModel, entries,
    buffers=(r"distilbert\.embeddings\.position_ids",),
    copies={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
    other=(r"vocab_(transform|layer_norm|projector)\..*", r"pre_classifier\..*",
           r"classifier\..*", r"qa_outputs\..*"),
)  # fmt: skip
