"""Default recipes for language models: which net, in which size, how fast and how long.

What is chosen here ranks below a file and a flag, and is printed with its reason. The numbers were
found on validation text: benchmarks/quality/language.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gipi.core.registry import Record
    from gipi.core.schema import Schema

TASK = "generate"
TOKENS = 2048  # of a step
READ = 10_000_000  # tokens that a run reads, within so many passes over the text
LEAST, MOST = 2, 10
RECURRENT = ("rnn", "lstm", "gru")
TOPOLOGY = "language-model"


def is_language(schema: Schema) -> bool:
    """Return whether the data is running text."""
    return schema.task == TASK


def guess(schema: Schema) -> tuple[str, str] | None:
    """Return (model, reason) for running text; None for all other data."""
    if not is_language(schema):
        return None
    return "gpt2", "each token looks at all before it in its window"


def recipe(model: str, schema: Schema, rows: int) -> dict[str, Any]:
    """Return the recipe for `rows` windows of training.

    Transformers learn by Muon, recurrent nets, whose matrices turn the same state again and again,
    by AdamW with a bound on the gradient.
    """
    length = int(schema.of("input", "text")[0].stats["length"])
    batch = max(1, min(max(4, TOKENS // length), rows))
    epochs = min(MOST, max(LEAST, READ // max(rows * length, 1)))
    values: dict[str, Any] = {
        "batch_size": batch, "epochs": epochs, "schedule": "one-cycle", "clip_norm": 1.0,
    }  # fmt: skip
    if model in RECURRENT:
        values |= {"optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.0,
                   "model_options": {"topology": TOPOLOGY}}  # fmt: skip
    else:
        values |= {"optimizer": "muon", "lr": 0.02, "weight_decay": 0.01}
    return values


def check_goes_on(record: Record, known: Iterable[Record]) -> None:
    """Raise `ModelError` where the model that was named for running text writes none.

    known  the models that there are
    """
    if record.name in RECURRENT or "language" in record.tags:
        return
    able = [r.name for r in known if r.name in RECURRENT or "language" in r.tags]
    raise ModelError(
        f"the model '{record.name}' does not go on with a text",
        f"a language model: {', '.join(able)}",
        "leave --model out, or choose one of them",
    )
