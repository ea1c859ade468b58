"""BERT: an encoder with learned positions and segments, norms after each branch.

Devlin, Chang, Lee and Toutanova 2019, "BERT: pre-training of deep bidirectional transformers for
language understanding", arXiv:1810.04805.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gipi.models.encoder import EncoderConfig, EncoderModel
from gipi.models.encoder_names import Names, encoder_entries
from gipi.models.family import Family, Fields, act_name
from gipi.models.token_vectors import EmbedConfig
from gipi.models.transformer import StackConfig

if TYPE_CHECKING:
    from gipi.models.family import Entry, State

HEADS = {
    "BertForMaskedLM": "words",
    "BertForPreTraining": "pretrain",
    "BertForSequenceClassification": "classify",
    "BertForTokenClassification": "tag",
    "BertForQuestionAnswering": "answer",
    "BertModel": "none",
}
NAMES = Names(
    "bert.", "encoder.layer",
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
    out="attention.output.dense", attend_norm="attention.output.LayerNorm",
    up="intermediate.dense", down="output.dense", feed_norm="output.LayerNorm",
    pool="bert.pooler.dense",
    words=("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
           "cls.predictions.bias"),
)  # fmt: skip


def refuse_other_kinds(fields: Fields) -> None:
    """Refuse what an encoder of BERT's kind may say in its config and is not implemented."""
    fields.only("position_embedding_type", ("absolute",))
    fields.only("is_decoder", (False,))
    fields.only("add_cross_attention", (False,))
    fields.only("quantization_config")
    fields.only("pruned_heads", ({},))
    fields.only("tie_word_embeddings", (True,))


def body(fields: Fields) -> tuple[EmbedConfig, StackConfig]:
    """Return embedding and stack of a config.json with BERT's keys."""
    width, eps = fields.size("hidden_size"), fields.number("layer_norm_eps", 1e-12)
    drop = fields.number("hidden_dropout_prob", 0.1)
    embed = EmbedConfig(
        fields.size("vocab_size"), width, positions=fields.size("max_position_embeddings"),
        pad=fields.integer("pad_token_id", 0), segments=fields.size("type_vocab_size", 2),
        norm=True, eps=eps, dropout=drop,
    )  # fmt: skip
    stack = StackConfig(
        width, fields.size("num_hidden_layers"), fields.size("num_attention_heads"),
        fields.size("intermediate_size"), eps=eps, activation=fields.act("hidden_act", "gelu"),
        dropout=drop, attention_dropout=fields.number("attention_probs_dropout_prob", 0.1),
    )  # fmt: skip
    return embed, stack


def read(fields: Fields, head: str, state: State) -> EncoderConfig:
    """Return our config of a config.json."""
    refuse_other_kinds(fields)
    embed, stack = body(fields)
    # A bare body may have been saved without its pooling layer.
    pool = head in {"classify", "pretrain"} or (
        head == "none" and "bert.pooler.dense.weight" in state
    )
    return EncoderConfig(
        embed, stack, head=head, outputs=fields.classes() if head in {"classify", "tag"} else 0,  # type: ignore[arg-type]
        pool=pool, words_activation=stack.activation,
        head_dropout=fields.number("classifier_dropout", stack.dropout),
    )  # fmt: skip


def write(config: EncoderConfig) -> dict[str, Any]:
    """Return the config.json of a model of ours."""
    e, s = config.embed, config.stack
    return {
        "model_type": "bert", "vocab_size": e.vocab, "hidden_size": s.width,
        "max_position_embeddings": e.positions, "type_vocab_size": e.segments,
        "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "intermediate_size": s.inner,
        "hidden_act": act_name(s.activation),
        "layer_norm_eps": s.eps, "hidden_dropout_prob": s.dropout,
        "attention_probs_dropout_prob": s.attention_dropout,
        "classifier_dropout": config.head_dropout, "pad_token_id": e.pad,
        "tie_word_embeddings": True,
    }  # fmt: skip


def entries(config: EncoderConfig) -> list[Entry]:
    """Return the tensors."""
    return encoder_entries(config, NAMES)


FAMILY = Family(
    "bert", HEADS, "bert.", read, write, EncoderModel, entries,
    buffers=(r"bert\.embeddings\.(position_ids|token_type_ids)",),
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    other=(r"bert\.pooler\..*", r"cls\..*", r"classifier\..*", r"qa_outputs\..*"),
)  # fmt: skip
