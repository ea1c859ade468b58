"""What the advisor says at the start of training, and LSUV on a run's own data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gipi import data, models
from gipi.core.config import Config
from gipi.core.schema import Field, Schema, Signature
from gipi.train.advised import advised, goal_of, rows_at_once, scale_by_data


def schema(task="classify", classes=("a", "b", "c"), *, multi=False):
    kind = "category" if task == "classify" else "number"
    stats = {"multi": True} if multi else {}
    return Schema((Field("y", kind, "target", classes=classes, stats=stats),), task)


@pytest.mark.parametrize(
    ("found", "goal", "output"),
    [
        (schema(), "multi-class", "softmax"),
        (schema(classes=("a", "b")), "binary", "softmax"),
        (schema(multi=True), "multi-label", "sigmoid"),
        (schema("regress", ()), "regression", ""),
        (schema("segment"), "", ""),
    ],
)
def test_what_the_output_means(found, goal, output):
    assert goal_of(found) == goal
    said = advised(nn.Linear(2, 3), found, Signature(numbers=2), Config(batch_size=32))
    assert [s.split(",")[0] for s in said] == ([f"output {output}"] if output else [])


def test_two_classes_have_a_sigmoid_only_where_the_loss_has_one():
    config = Config(task_options={"loss": "binary_cross_entropy"})
    said = advised(nn.Linear(2, 2), schema(classes=("a", "b")), Signature(numbers=2), config)
    assert said[0].startswith("output sigmoid")


def test_another_loss_has_another_output():
    config = Config(task_options={"loss": "perceptron"})
    assert advised(nn.Linear(2, 3), schema(), Signature(numbers=2), config) == ()


@pytest.mark.parametrize(("batch", "micro", "speaks"), [(4, None, True), (7, None, True),
                                                        (8, None, False), (64, 4, True),
                                                        ("full", None, False)])  # fmt: skip
def test_a_batch_norm_over_few_rows_is_remarked_upon(batch, micro, speaks):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    config = Config(batch_size=batch, micro_batch=micro)
    said = advised(net, schema(), Signature(image=(1, 8, 8)), config)
    assert any("norm group would suit it" in s for s in said) is speaks
    assert rows_at_once(config) == (0 if batch == "full" else micro or batch)


def test_tables_are_remarked_upon_as_well():
    net = models.build("mlp", Signature(numbers=4, outputs=3), options={"norm": "batch"})
    said = advised(net, schema(), Signature(numbers=4), Config(batch_size=4))
    assert any("norm group would suit it" in s for s in said)


def test_lsuv_looks_at_training_rows_and_is_the_same_each_time():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator) * torch.tensor([1.0, 10, 100, 1e3, 1e4])
    rows = data.open_data((x.numpy(), (x[:, 0] > 0).long().numpy()), data.DataOptions())

    def built():
        options = {"init": "lsuv", "numbers": "plain", "widths": [16, 16]}
        model = models.build("mlp", rows.signature(1), options=options)
        return model, scale_by_data(model, rows, seed=0)

    (model, said), (again, _) = built(), built()
    assert said[0].startswith("initial weights scaled to unit variance in 3 layers by ")
    assert all(
        torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True)
    )
    stream = rows.stream("train", batch_size="full")
    batch = next(iter(stream.epoch(0)))
    h = next(iter(batch.inputs.values()))
    for layer in (*model.layers, model.head):
        linear = layer.get_submodule("linear") if isinstance(layer, nn.Sequential) else layer
        assert linear(h).var().item() == pytest.approx(1, abs=0.05)
        h = layer(h)
    plain = models.build("mlp", rows.signature(1), options={"numbers": "plain"})
    assert scale_by_data(plain, rows, seed=0) == ()
