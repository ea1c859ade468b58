"""What the rules of `nn.advise` say once task, data and batch size are known beside the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core import dist
from gipi.nn import INITS, Situation, advise, lsuv, remarks

if TYPE_CHECKING:
    from torch import nn

    from gipi.core.config import Config
    from gipi.core.schema import Schema, Signature
    from gipi.data import Dataset
    from gipi.nn.advise import Family, Goal

ROWS = 256  # of the training data that LSUV looks at
SOFT = (None, "cross_entropy", "binary_cross_entropy")  # losses that apply the output's function


def advised(
    model: nn.Module, schema: Schema, signature: Signature, config: Config
) -> tuple[str, ...]:
    """Return sentences: what the output means, and what the rules say against the net as built."""
    goal, loss = goal_of(schema), config.task_options.get("loss")
    if goal == "binary" and loss != "binary_cross_entropy":
        goal = "multi-class"  # cross-entropy gives two classes two outputs that compete
    family: Family = "convolution" if signature.image is not None else "dense"
    situation = Situation(family, goal=goal, batch_per_device=rows_at_once(config))
    said = list(remarks(model, situation))
    rule = advise("output", situation)
    if rule is not None and goal != "regression" and loss in SOFT:
        said.insert(0, f"output {rule.facts['advice']}, within the loss: {rule.facts['reason']}")
    return tuple(said)


def goal_of(schema: Schema) -> Goal:
    """Return what the output is for; "" for tasks whose output is no class and no number."""
    if schema.task == "regress":
        return "regression"
    if schema.task != "classify" or schema.target is None:
        return ""
    if schema.target.multi:
        return "multi-label"
    return "binary" if len(schema.classes) == 2 else "multi-class"


def rows_at_once(config: Config) -> int:
    """Return how many rows one device normalises over; 0 where the batch is the whole data."""
    if not isinstance(config.batch_size, int):
        return 0
    share = -(-config.batch_size // max(dist.world(), 1))
    return min(share, config.micro_batch or share)


def scale_by_data(model: nn.Module, dataset: Dataset, *, seed: int) -> tuple[str, ...]:
    """Scale the weights by a batch where the model's `init` asks for data; say so.

    Every rank looks at the same rows, in the same order, so that all get the same weights. Only
    training rows are looked at, without augmentation.
    """
    init = getattr(getattr(model, "config", None), "init", "")
    if init not in INITS or "needs-data" not in INITS.get(init).tags:
        return ()
    rows = min(ROWS, len(dataset.splits["train"]))
    stream = dataset.stream("train", batch_size=rows, seed=seed)
    try:
        found = lsuv(model, next(iter(stream.epoch(0))))
    finally:
        stream.close()
    return (f"initial weights scaled to unit variance in {len(found)} layers by {rows} rows",)
