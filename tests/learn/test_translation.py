"""A Transformer learns to write lines backwards, whatever the seed, and says unseen ones right."""

from __future__ import annotations

import pytest
from tests.data.pairs import dataset

from gipi import models, tasks
from gipi.core.config import Recipe
from gipi.train import Setup, evaluate, fit


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lines_are_learned_backwards(seed: int) -> None:
    data = dataset(900, most=4)
    task = tasks.translate(beams=2)
    model = models.build("transformer", data.signature(task.outputs(data.schema)), seed=seed,
                         options={
            "width": 32, "layers": 1, "heads": 2, "dropout": 0.0})  # fmt: skip
    stream = data.stream("train", batch_size=32, seed=seed)
    recipe = Recipe(steps=250, optimizer="adamw", lr=0.006, schedule="one-cycle", clip_norm=1.0,
                    batch_size=32, seed=seed)  # fmt: skip
    fit(model, task, stream, recipe, schema=data.schema, setup=Setup(), device="cpu")
    val = data.stream("val", batch_size=32, shuffle=False)
    found = evaluate(model, task, val, schema=data.schema)
    assert found.metrics["token_accuracy"] > 0.9
    assert found.metrics["bleu"] > 80
