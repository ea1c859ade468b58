"""Default recipes for texts: which net reads them, how fast it learns, and how long.

What is chosen here ranks below a file and a flag, and is printed with its reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gipi.core.errors import ModelError
from gipi.core.schema import PAIRED, PRETEXT
from gipi.train import writing_recipes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gipi.core.registry import Record
    from gipi.core.schema import Schema

BATCH = 64  # rows of a step
HEADS = {"tag": "tag", "answer": "answer"}
"""Tasks that need a head of their own, and the tag of models that have it."""
MANY_QUESTIONS = 50_000
"""Below it nobody has made a reader from random weights; SQuAD has 87,599."""
WRITERS = {"language", "translate"}  # tags of models whose outputs are tokens, one after the other
PUPILS = {"masked": "bert", "spans": "t5"}
"""Which model learns from running text in which task."""
FEW = 1000  # texts below which a net from random weights knows few of the words it will meet


@dataclass(frozen=True)
class Pace:
    """How a net for texts learns.

    lr            at the top of the cycle
    steps         that a run takes, within `least` and `most` passes over the rows
    weight_decay  of weights, not of norms and biases
    clip          largest norm of the gradient, where long products can make it explode
    batch         rows of a step, where there are enough
    """

    lr: float
    steps: int
    least: int
    most: int
    weight_decay: float = 0.01
    clip: float | None = None
    batch: int = BATCH


CONVOLUTION = Pace(1e-3, steps=4000, least=4, most=30)
RECURRENT = Pace(2e-3, steps=4000, least=4, most=30, clip=1.0)
BAG = Pace(5e-3, steps=6000, least=5, most=60, weight_decay=0.0)
PRETRAINING = Pace(1e-3, steps=4000, least=1, most=40, clip=1.0)
TRANSFORMER = Pace(5e-4, steps=6000, least=4, most=40, clip=1.0)
TAGGER = Pace(7e-3, steps=5200, least=8, most=40, clip=5.0, batch=32)
PACES = {
    "bilstm-tagger": TAGGER,
    "textcnn": CONVOLUTION, "fasttext": BAG,
    "rnn": RECURRENT, "lstm": RECURRENT, "gru": RECURRENT, "bilstm-reader": RECURRENT,
}  # fmt: skip


def is_text(schema: Schema) -> bool:
    """Return whether the model reads texts."""
    return any(f.kind == "text" for f in schema.inputs)


def guess(schema: Schema) -> tuple[str, str] | None:
    """Return (model, reason) for texts; None for all other data."""
    texts = [f for f in schema.inputs if f.kind == "text"]
    if not texts:
        return None
    if writing_recipes.is_written(schema):
        return writing_recipes.guess()
    if schema.task == "tag":
        if "tokenizer" in texts[0].stats:
            return "bert", "each piece of a word sees all others"
        return "bilstm-tagger", "words, their letters and their order tell the tags"
    if schema.task == "answer":
        return "bert", "each word of the context has to see the question"
    if schema.task in PAIRED:
        return "embedder", "each text gets a vector of its own"
    if schema.task in PRETEXT:
        return PUPILS[schema.task], "what the task was made for"
    what = "text" if len(texts) == 1 else "pairs of texts"
    why = "filters over a few words at a time learn fast and need no long memory"
    return "textcnn", f"the input is {what}: {why}"


def recipe(task: str, model: str, schema: Schema, rows: int) -> dict[str, Any]:
    """Return AdamW under one cycle, sized by the rows."""
    if writing_recipes.is_written(schema):
        return writing_recipes.recipe(model, rows)
    if task in PRETEXT:
        return sized(PRETRAINING, rows)
    return sized(PACES.get(model, TRANSFORMER), rows)


def sized(pace: Pace, rows: int, *, most_batch: int | None = None) -> dict[str, Any]:
    """Return the keys of a pace for so many training rows.

    most_batch  rows of a step for which the rate of the pace was meant, in place of its own
    """
    most, meant = most_batch or pace.batch, most_batch or BATCH
    batch = max(8, min(most, 1 << int(math.log2(max(rows / 10, 8)))))
    epochs = math.ceil(pace.steps * batch / max(rows, 1))
    values: dict[str, Any] = {
        "optimizer": "adamw", "lr": round(pace.lr * math.sqrt(batch / meant), 6),
        "weight_decay": pace.weight_decay, "schedule": "one-cycle",
        "batch_size": batch, "epochs": min(pace.most, max(pace.least, epochs)),
    }  # fmt: skip
    if pace.clip is not None:
        values["clip_norm"] = pace.clip
    return values


def pretext_options(
    model: str, spec: tuple[str, dict[str, Any]], *, given: Mapping[str, Any],
    shape: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the options of a model that learns from running text, the head that its task needs.

    shape  of a teacher: half of its blocks, all else as it is
    """
    if model != "bert":
        return dict(given)
    head = "pretrain" if spec[1].get("next_sentence") else "words"
    return {**(shape or {}), **given, "head": head}


def check_reads(record: Record, schema: Schema, known: Iterable[Record]) -> None:
    """Raise `ModelError` where the model that was named reads no texts, or writes them.

    known  the models that there are
    """
    if writing_recipes.is_written(schema):
        writing_recipes.check_writes(record, schema, known)
        return
    if not is_text(schema):
        return
    if schema.task in PAIRED:
        _check_vectors(record, schema, known)
        return
    if schema.task in PRETEXT:
        if record.name != PUPILS[schema.task]:
            raise ModelError(
                f"the model '{record.name}' for the task {schema.task}",
                f"the model {PUPILS[schema.task]}", "leave --model out",
            )  # fmt: skip
        return
    wanted = HEADS.get(schema.task)
    if wanted is not None:
        if wanted in record.tags:
            return
        raise ModelError(
            f"the model '{record.name}' has no head for the task {schema.task}",
            "one of: " + ", ".join(r.name for r in known if wanted in r.tags),
            "leave --model out, or choose one of them",
        )
    if _answers(record):
        return
    readers = ", ".join(r.name for r in known if _answers(r))
    if "text" in record.tags:
        raise ModelError(
            f"the model '{record.name}' writes tokens, and the task is to {schema.task}",
            f"a model that answers once a text: {readers}",
            "leave --model out, or choose one of them",
        )
    texts = ", ".join(f"'{f.name}'" for f in schema.inputs)
    raise ModelError(
        f"the model '{record.name}' reads no text, and {texts} is text",
        f"a model for texts: {readers}",
        "leave --model out, or choose one of them",
    )


def _check_vectors(record: Record, schema: Schema, known: Iterable[Record]) -> None:
    """Raise `ModelError` where a model gives no vector to each of two texts."""
    if "pairs" in record.tags:
        return
    able = ", ".join(r.name for r in known if "pairs" in r.tags)
    raise ModelError(
        f"the model '{record.name}' gives no vector to a text, and the task is to {schema.task}",
        f"a model that does: {able}",
        "leave --model out, or choose one of them",
    )


def _answers(record: Record) -> bool:
    """Return whether a model reads a text and answers once."""
    if record.name == "embedder":
        return False
    return "text" in record.tags and not {*WRITERS, "words", "reader"} & set(record.tags)


def honest(schema: Schema, rows: int) -> str:
    """Return what must be said of few texts; empty where they are enough.

    rows  that are learned from; of questions their windows
    """
    if schema.task == "answer" and rows < MANY_QUESTIONS:
        return (
            f"{rows} training rows of questions are far too few for a reader from random weights: "
            "it learns where answers may lie, hardly which one is asked for; a useful reader "
            "starts from a pre-trained encoder (docs/tagging.md)"
        )
    if rows >= FEW or not is_text(schema) or schema.task in ("generate", *PRETEXT):
        return ""
    return (
        f"{rows} training texts are few for a net from random weights: most words of a new text "
        "will be new to it; more texts, or a net that was trained on others, would help"
    )
