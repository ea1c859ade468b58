"""What files call the tensors of an encoder: one list for BERT, RoBERTa and DistilBERT.

The three are one module here; their files differ in names alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gipi.models.family import Entry, joined, linear

if TYPE_CHECKING:
    from gipi.models.encoder import EncoderConfig


@dataclass(frozen=True)
class Names:
    """The names of one family.

    base     of the body's tensors in a file with a head
    block    below `base`, before the number of a block
    qkv .. feed_norm   below the number: queries, keys and values, the layer after attention, its
             norm, the two dense layers, their norm
    pool     of the pooling layer, whole
    words    of the dense layer, the norm and the bias of the head for words, whole
    classes  of the last layer of `classify` and `tag`, whole
    """

    base: str
    block: str
    qkv: tuple[str, str, str]
    out: str
    attend_norm: str
    up: str
    down: str
    feed_norm: str
    pool: str
    words: tuple[str, str, str]
    classes: str = "classifier"


def encoder_entries(config: EncoderConfig, names: Names) -> list[Entry]:
    """Return the tensors of an encoder and its head."""
    tables, rows = f"{names.base}embeddings.", (config.embed.width,) * 3
    found = [
        Entry("embed.tokens.weight", (f"{tables}word_embeddings.weight",)),
        Entry("embed.positions.weight", (f"{tables}position_embeddings.weight",)),
    ]
    if config.embed.segments:
        found.append(Entry("embed.segments.weight", (f"{tables}token_type_embeddings.weight",)))
    found += linear("embed.norm", f"{tables}LayerNorm")
    for i in range(config.stack.layers):
        own, their = f"encoder.blocks.{i}.", f"{names.base}{names.block}.{i}."
        found += joined(f"{own}attend.qkv", [their + part for part in names.qkv], rows=rows)
        found += linear(f"{own}attend.out", their + names.out)
        found += linear(f"{own}attend_norm", their + names.attend_norm)
        found += linear(f"{own}feed.up", their + names.up)
        found += linear(f"{own}feed.down", their + names.down)
        found += linear(f"{own}feed_norm", their + names.feed_norm)
    return found + _head_entries(config, names)


def _head_entries(config: EncoderConfig, names: Names) -> list[Entry]:
    found = linear("pool", names.pool, fresh=True) if config.pool else []
    if config.head in {"words", "pretrain"}:
        dense, norm, bias = names.words
        found += linear("predict.dense", dense, fresh=True)
        found += linear("predict.norm", norm, fresh=True)
        found.append(Entry("predict.bias", (bias,), fresh=True))
    if config.head == "pretrain":  # BERT alone
        found += linear("relation", "cls.seq_relationship", fresh=True)
    if config.head in {"classify", "tag"}:
        found += linear("head", names.classes, fresh=True)
    if config.head == "answer":
        found += linear("head", "qa_outputs", fresh=True)
    return found
