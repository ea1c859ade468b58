"""DistilBERT: half of BERT's layers, no segments, no pooling layer, taught by BERT.

Sanh, Debut, Chaumond and Wolf 2019, "DistilBERT, a distilled version of BERT", arXiv:1910.01108.
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
    "DistilBertForMaskedLM": "words",
    "DistilBertForSequenceClassification": "classify",
    "DistilBertForTokenClassification": "tag",
    "DistilBertForQuestionAnswering": "answer",
    "DistilBertModel": "none",
}
NAMES = Names(
    "distilbert.", "transformer.layer",
    qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"), out="attention.out_lin",
    attend_norm="sa_layer_norm", up="ffn.lin1", down="ffn.lin2", feed_norm="output_layer_norm",
    pool="pre_classifier", words=("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
)  # fmt: skip
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
        "activation": act_name(s.activation),
        "dropout": s.dropout, "attention_dropout": s.attention_dropout,
        "seq_classif_dropout": config.head_dropout, "qa_dropout": config.head_dropout,
        "pad_token_id": e.pad, "sinusoidal_pos_embds": False, "tie_word_embeddings": True,
    }  # fmt: skip


def entries(config: EncoderConfig) -> list[Entry]:
    """Return the tensors."""
    return encoder_entries(config, NAMES)


FAMILY = Family(
    "distilbert", HEADS, "distilbert.", read, write, EncoderModel, entries,
    buffers=(r"distilbert\.embeddings\.position_ids",),
    copies={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
    other=(r"vocab_(transform|layer_norm|projector)\..*", r"pre_classifier\..*",
           r"classifier\..*", r"qa_outputs\..*"),
)  # fmt: skip
