"""RoBERTa: BERT without the next-sentence task; positions count from the padding id on.

Liu et al. 2019, "RoBERTa: a robustly optimized BERT pretraining approach", arXiv:1907.11692; in a
hundred languages: Conneau et al. 2020, "Unsupervised cross-lingual representation learning at
scale" (XLM-R), arXiv:1911.02116.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gipi.models import bert
from gipi.models.encoder import EncoderConfig, EncoderModel
from gipi.models.encoder_names import encoder_entries
from gipi.models.family import Family, Fields

if TYPE_CHECKING:
    from gipi.models.family import Entry, State

HEADS = {
    "RobertaForMaskedLM": "words",
    "RobertaForSequenceClassification": "classify",
    "RobertaForTokenClassification": "tag",
    "RobertaForQuestionAnswering": "answer",
    "RobertaModel": "none",
}
NAMES = replace(
    bert.NAMES, base="roberta.", pool="roberta.pooler.dense",
    words=("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
)  # fmt: skip


def read(fields: Fields, head: str, state: State) -> EncoderConfig:
    """Return our config of a config.json.

    A token's position is the number of tokens up to it that are not padding, plus the padding id;
    padding itself stands at the padding id. So the table has pad + 1 rows more than tokens fit.
    """
    bert.refuse_other_kinds(fields)
    embed, stack = bert.body(fields)
    pad = fields.integer("pad_token_id", 1)
    assert pad is not None
    embed = replace(embed, count="ids", pad=pad, offset=pad + 1)
    drop = fields.number("classifier_dropout", stack.dropout)
    pool = head == "classify" or (head == "none" and "roberta.pooler.dense.weight" in state)
    return EncoderConfig(
        embed, stack, head=head, outputs=fields.classes() if head in {"classify", "tag"} else 0,  # type: ignore[arg-type]
        # The head for words has GELU whatever the blocks have.
        pool=pool, pool_dropout=drop if head == "classify" else 0.0, words_activation="gelu",
        head_dropout=drop,
    )  # fmt: skip


def write(config: EncoderConfig) -> dict[str, Any]:
    """Return the config.json of a model of ours."""
    return {**bert.write(config), "model_type": "roberta"}


def entries(config: EncoderConfig) -> list[Entry]:
    """Return the tensors; the pooling layer of a classifier belongs to its head."""
    names = NAMES
    if config.head == "classify":
        names = replace(names, pool="classifier.dense", classes="classifier.out_proj")
    return encoder_entries(config, names)


FAMILY = Family(
    "roberta", HEADS, "roberta.", read, write, EncoderModel, entries,
    buffers=(r"roberta\.embeddings\.(position_ids|token_type_ids)",),
    copies={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    other=(r"roberta\.pooler\..*", r"lm_head\..*", r"classifier\..*", r"qa_outputs\..*"),
)  # fmt: skip

# The same net with another vocabulary, under names of its own.
XLM_FAMILY = replace(
    FAMILY, name="xlm-roberta",
    heads={f"XLM{name}": head for name, head in HEADS.items()},
    write=lambda config: {**bert.write(config), "model_type": "xlm-roberta"},
)  # fmt: skip
