"""Classification with any number of labels a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gipi import tasks
from gipi.core.batch import Batch
from gipi.core.config import Recipe
from gipi.core.errors import ConfigError
from gipi.core.schema import Field, Schema
from gipi.data.stream import Columns, RowStream
from gipi.train import Setup, evaluate, fit

NAMES = ("red", "round", "large")
MULTI = Schema((Field("labels", "category", "target", classes=NAMES, stats={"multi": True}),))
SINGLE = Schema((Field("label", "category", "target", classes=NAMES),))
LOGITS = torch.tensor([[2.0, -1.0, 3.0], [-1.0, -2.0, -3.0]])


def test_the_loss_is_one_decision_a_label():
    task = tasks.classify(multi=True)
    target = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    model = nn.Identity()
    found = task.phases[0].loss(model, Batch({"x": LOGITS}, target, rows=2))
    wanted = F.binary_cross_entropy_with_logits(LOGITS, target)
    assert float(found.total) / float(found.count) == pytest.approx(float(wanted))
    assert task.outputs(MULTI) == 3
    assert task.primary == "label_map"
    assert tasks.build(*task.spec).spec == task.spec


def test_answers_are_lists_of_labels():
    answer = tasks.classify(multi=True).decode(LOGITS, MULTI)
    assert answer["labels"].tolist() == [["large", "red"], []]
    np.testing.assert_allclose(answer["probabilities"], LOGITS.double().sigmoid().numpy())


def test_one_label_stays_as_it_was():
    task = tasks.classify()
    assert task.outputs(SINGLE) == 3
    assert task.primary == "accuracy"
    assert task.decode(LOGITS, SINGLE)["label"].tolist() == ["large", "red"]


def test_it_learns():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(128, 5, generator=generator)
    y = (x[:, :3] > 0).float()
    stream = RowStream(Columns({"numbers": x}, y, None), np.arange(128), batch_size=32, seed=1)
    torch.manual_seed(0)
    model, task = nn.Linear(5, 3), tasks.classify(multi=True)
    recipe = Recipe(epochs=25, lr=0.1, optimizer="adam")
    fit(model, task, stream, recipe, schema=MULTI, setup=Setup(), device="cpu")
    found = evaluate(model, task, stream, schema=MULTI).metrics
    assert found["label_f1_micro"] > 0.95
    assert found["label_map"] > 0.98
    assert found["exact_match"] > 0.85


@pytest.mark.parametrize(
    ("multi", "schema", "words"),
    [(False, MULTI, "multi=true"), (True, SINGLE, "multi=false")],
)
def test_a_task_for_other_labels_is_named(multi, schema, words):
    with pytest.raises(ConfigError, match=words):
        tasks.classify(multi=multi).outputs(schema)


@pytest.mark.parametrize("options", [{"loss": "cross_entropy"}, {"class_weights": [1.0, 2.0, 1.0]}])
def test_what_does_not_go_with_several_labels_is_refused(options):
    with pytest.raises(ConfigError, match="several labels a row"):
        tasks.classify(multi=True, **options)
