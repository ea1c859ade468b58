"""Default recipes for tasks that write texts: which net, of what size, and how it learns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gipi.core.errors import ModelError
from gipi.core.schema import WRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gipi.core.registry import Record
    from gipi.core.schema import Schema

TAGS = {"translate", "encoder-decoder"}  # of models that can read one text and write another
BATCH = 128
STEPS = 4000
MUON_LR = 0.02
RECURRENT = ("rnn", "lstm", "gru")


def is_written(schema: Schema) -> bool:
    """Return whether the task writes a text."""
    return schema.task in WRITTEN


def guess() -> tuple[str, str]:
    """Return (model, reason)."""
    return "transformer", "a text is written for a text: each word looks at all of the source"


def recipe(model: str, rows: int) -> dict[str, Any]:
    """Return a recipe under one cycle, for a net as large as so many rows bear.

    A Transformer takes Muon (Jordan et al. 2024), which needs far fewer passes here than AdamW, the
    table of tokens AdamW at the same rate. A recurrent net takes AdamW.
    """
    batch = max(8, min(BATCH, 1 << int(math.log2(max(rows / 20, 8)))))
    epochs = math.ceil(STEPS * batch / max(rows, 1))
    values: dict[str, Any] = {
        "optimizer": "muon", "lr": round(MUON_LR * math.sqrt(batch / BATCH), 4),
        "weight_decay": 0.01, "schedule": "one-cycle", "batch_size": batch,
        "epochs": min(60, max(4, epochs)), "clip_norm": 1.0,
    }  # fmt: skip
    if model in RECURRENT:
        width = 128 if rows < 10_000 else 256
        values |= {"optimizer": "adamw", "lr": 2e-3}
        values["model_options"] = {
            "topology": "encoder-decoder", "attention": "dot", "width": width,
            "embedding": width, "dropout": 0.2, "tied": True,
        }  # fmt: skip
        return values
    values["model_options"] = shape(rows)
    return values


def shape(rows: int) -> dict[str, Any]:
    """Return the options of a Transformer: few pairs are learned by heart by a large one."""
    if rows < 10_000:
        return {"width": 128, "layers": 2, "heads": 4, "dropout": 0.1}
    if rows < 200_000:
        return {"width": 128, "layers": 4, "heads": 4, "inner": 256, "dropout": 0.2}
    return {"width": 256, "layers": 4, "heads": 4, "dropout": 0.1}


def check_writes(record: Record, schema: Schema, known: Iterable[Record]) -> None:
    """Raise `ModelError` where a model that writes no text was named to write one.

    known  the models that there are
    """
    if TAGS & set(record.tags):
        return
    writers = ", ".join(r.name for r in known if TAGS & set(r.tags))
    raise ModelError(
        f"the model '{record.name}' writes no text, and the task is to {schema.task}",
        f"a model that writes: {writers}",
        "leave --model out, or choose one of them",
    )
