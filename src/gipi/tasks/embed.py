"""Vectors of texts: what belongs together lies close, and is found by it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch.nn import functional as F

from gipi import losses, metrics
from gipi.core.errors import ConfigError
from gipi.tasks.task import Loss, Phase, Task, call_model

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema

SCORES = ("recall_at_1", "recall_at_10", "mrr", "ndcg")
MEASURED = 512  # training rows before a log row among which partners are looked for


def embed(*, temperature: float = 0.05, metric: str = "mrr") -> Task:
    """Return the task of giving texts vectors by which both texts of a pair find each other.

    The other rows of a batch are the wrong partners (`info_nce`, both ways), so a batch cannot be
    cut into micro-batches; larger ones teach more. Rows that share a text are no wrong partners.

    temperature  of the softmax over cosines
    metric       which score decides: one of `SCORES`, each first text of the judged rows looking
                 for its partner among all of them

    Reimers and Gurevych 2019, "Sentence-BERT", arXiv:1908.10084, with the loss of Gao, Yao and Chen
    2021, "SimCSE", arXiv:2104.08821. Raises `ConfigError` for values out of range.
    """
    return _task("embed", losses.info_nce, temperature, metric)


def rank(*, temperature: float = 0.05, metric: str = "mrr") -> Task:
    """Return the task of ranking second texts for a first one, such as passages for a question.

    As `embed`, but only the first text looks for the second (`ranking`): what is asked and what is
    found need not be alike.

    Henderson et al. 2017, arXiv:1705.00652. Raises `ConfigError` for values out of range.
    """
    return _task("rank", losses.ranking, temperature, metric)


def _task(name: str, loss: Callable[..., tuple[Tensor, float | Tensor]], temperature: float,
          metric: str) -> Task:  # fmt: skip
    if not temperature > 0:
        raise ConfigError(f"task.temperature={temperature}", "a number above 0", "0.05 is usual")
    if metric not in SCORES:
        raise ConfigError(f"task.metric={metric}", "one of " + ", ".join(SCORES), "leave it out")
    criterion = partial(loss, temperature=temperature)

    def compare(model: nn.Module, batch: Batch) -> Loss:
        out = call_model(model, batch)  # (B, 2, D)
        total, count = criterion(out[:, 0], out[:, 1], batch.weight, groups=batch.target)
        return Loss(total, count, out)

    return Task(
        name=name,
        spec=(name, {"temperature": temperature, "metric": metric}),
        outputs=lambda schema: 1,  # noqa: ARG005  the width of a vector is the model's own
        phases=(Phase(name, compare),),
        forward=call_model,
        units=_as_they_are,
        metrics=_measured,
        decode=_decode,
        primary=metric,
        row_separable=False,
        measured_rows=MEASURED,
    )


def _measured(schema: Schema | None) -> list[metrics.Metric]:  # noqa: ARG001
    ranks = [metrics.build(name) for name in ("mrr", "ndcg")]
    return [
        *(metrics.among_partners(metrics.build("recall_at_k", options={"k": k}),
                                 name=f"recall_at_{k}") for k in (1, 10)),
        *(metrics.among_partners(m) for m in ranks),
    ]  # fmt: skip


def _as_they_are(
    outputs: Tensor, target: Tensor, schema: Schema | None  # noqa: ARG001
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return outputs, target


def _decode(outputs: Tensor, schema: Schema) -> dict[str, np.ndarray]:  # noqa: ARG001
    """Return ``similarity`` (B,): the cosine of both texts of each pair."""
    cosine = F.cosine_similarity(outputs[:, 0].double(), outputs[:, 1].double(), dim=1)
    return {"similarity": cosine.cpu().numpy()}
