"""Language modelling: the next token of a text, at every place of it.

Shapes: B rows, T positions, V ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gipi import losses
from gipi.core.errors import ConfigError
from gipi.core.schema import IGNORED_TOKEN
from gipi.metrics.tokens import bits_per_byte, perplexity
from gipi.tasks.task import Loss, Phase, Task, call_model
from gipi.text import Tokenizer
from gipi.text.sizes import token_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema
    from gipi.metrics import Metric


def generate(*, label_smoothing: float = 0.0) -> Task:
    """Return the task of going on with a text: p(x_t | x_1 .. x_(t-1)) at every place t at once.

        l = -Σ_t log p(x_t | before), divided by the number of predicted tokens (nats per token)

    The model takes tokens (B, T) and answers logits (B, T, V); targets (B, T) are the tokens one
    further, -100 where nothing is predicted. Of a model that says it `fuses` the hidden states
    are asked for instead, so that a large vocabulary's logits are never all held.

    label_smoothing  ε: the target distribution is (1 - ε) one-hot + ε / V

    Measured are perplexity, exp of the loss without smoothing, and bits per byte, which compares
    models of different tokens (`gipi.metrics`). Shannon 1951, "Prediction and entropy of printed
    English"; Bengio, Ducharme, Vincent and Jauvin 2003, "A neural probabilistic language model".
    Raises `ConfigError` for a smoothing that is out of range.
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(
            f"task.label_smoothing={label_smoothing}", "a number in [0, 1)", "0 is usual"
        )

    def loss(model: nn.Module, batch: Batch) -> Loss:
        target = batch.target
        assert target is not None
        inner: Any = getattr(model, "module", model)  # of a wrapper for several ranks
        if getattr(inner, "fuses", False) and not label_smoothing:
            hidden = model(*batch.inputs.values(), hidden=True)
            return Loss(*losses.linear_token_losses(
                hidden, inner.head_weight, target, batch.weight
            ))  # fmt: skip
        outputs = model(*batch.inputs.values())
        each = losses.token_losses(outputs, target)
        if label_smoothing:
            total, count = losses.token_cross_entropy(
                outputs, target, batch.weight, label_smoothing=label_smoothing
            )
            return Loss(total, count, each.detach())
        counted = target != IGNORED_TOKEN
        if batch.weight is None:
            return Loss(each.sum(), counted.sum(), each)
        w = batch.weight[:, None]
        return Loss((each * w).sum(), (counted * w).sum(), each)

    return Task(
        name="generate",
        spec=("generate", {"label_smoothing": label_smoothing}),
        outputs=_outputs,
        phases=(Phase("generate", loss),),
        forward=call_model,
        units=_as_they_are,
        metrics=_measured,
        decode=_decode,
        primary="bits_per_byte",
    )


def _outputs(schema: Schema) -> int:
    text = schema.of("input", "text")
    if len(text) != 1:
        raise ConfigError(
            f"{len(text)} columns of text for the task 'generate'",
            "running text: one column of it",
            "name a text file, a folder of them, or the column with --target",
        )
    return int(text[0].stats["vocab"])


def _measured(schema: Schema | None) -> list[Metric]:
    if schema is None:
        return [perplexity(), bits_per_byte()]
    stats = schema.of("input", "text")[0].stats
    tokenizer = Tokenizer.from_json(stats["tokenizer"], roles=stats["roles"])
    sizes = token_bytes(tokenizer)
    more = int(stats["vocab"]) - len(sizes)  # an id for padding that the tokenizer lacks
    return [perplexity(), bits_per_byte(token_bytes=(*sizes, *[0] * more))]


def _as_they_are(
    outputs: Tensor, target: Tensor, schema: Schema | None  # noqa: ARG001
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return outputs, target


def _decode(outputs: Tensor, schema: Schema) -> dict[str, np.ndarray]:  # noqa: ARG001
    """Return the bits of each token where losses are given, else the likeliest next tokens."""
    if outputs.ndim == 2:
        return {"bits": (outputs.double() / np.log(2)).cpu().numpy()}
    return {"index": outputs.argmax(-1).cpu().numpy()}
