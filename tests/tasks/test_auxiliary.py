"""Classification by a net with auxiliary heads: their losses count, the main head answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gipi import models, tasks
from gipi.core.batch import Batch
from gipi.core.config import Recipe
from gipi.core.errors import ConfigError
from gipi.core.schema import Field, Schema, Signature
from gipi.data.stream import Columns, RowStream
from gipi.train import Setup, fit


class ThreeHeads(nn.Module):
    """What GoogLeNet answers, without GoogLeNet: (B, 3, K) in training, (B, K) otherwise."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, outputs) for _ in range(3))

    def forward(self, x):
        if not self.training:
            return self.heads[0](x)
        return torch.stack([head(x) for head in self.heads], 1)


def batch(rows=6, outputs=3, *, weighted=False) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 4, generator=generator)
    target = torch.randint(outputs, (rows,), generator=generator)
    weight = torch.rand(rows, generator=generator) if weighted else None
    return Batch({"x": x}, target, weight, rows=rows)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("share", [None, 0.0, 0.5])
def test_the_loss_is_that_of_the_main_head_and_a_share_of_the_others(share, weighted):
    model, b = ThreeHeads(3), batch(weighted=weighted)
    options = {} if share is None else {"auxiliary": share}
    (phase,) = tasks.classify(**options).phases
    loss = phase.loss(model, b)
    rows = [F.cross_entropy(h(b.inputs["x"]), b.target, reduction="none") for h in model.heads]
    w = torch.ones(6) if b.weight is None else b.weight
    main, first, second = ((r * w).sum() for r in rows)
    share = 0.3 if share is None else share
    torch.testing.assert_close(loss.total, main + share * (first + second))
    assert float(loss.count) == pytest.approx(float(w.sum()))
    torch.testing.assert_close(loss.outputs, model.heads[0](b.inputs["x"]))


def test_evaluation_sees_the_main_head_alone():
    model, b = ThreeHeads(3).eval(), batch()
    (phase,) = tasks.classify().phases
    loss = phase.loss(model, b)
    expected = F.cross_entropy(model.heads[0](b.inputs["x"]), b.target, reduction="sum")
    torch.testing.assert_close(loss.total, expected)


def test_micro_batches_add_up():
    model, b = ThreeHeads(3), batch()
    (phase,) = tasks.classify(label_smoothing=0.1, class_weights=[1.0, 2.0, 3.0]).phases
    whole = phase.loss(model, b)
    parts = [phase.loss(model, part) for part in b.split(2)]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    assert sum(float(p.count) for p in parts) == pytest.approx(float(whole.count))


def test_one_logit_of_two_classes_works_the_same():
    model, b = ThreeHeads(1), batch(outputs=2)
    (phase,) = tasks.classify(loss="binary_cross_entropy").phases
    loss = phase.loss(model, b)
    rows = [
        F.binary_cross_entropy_with_logits(h(b.inputs["x"]).squeeze(1), b.target.float(),
                                           reduction="sum")
        for h in model.heads
    ]  # fmt: skip
    torch.testing.assert_close(loss.total, rows[0] + 0.3 * (rows[1] + rows[2]))
    assert loss.outputs.shape == (6, 1)


def test_every_head_of_googlenet_gets_a_gradient_from_the_loss():
    signature = Signature(image=(1, 8, 8), outputs=3)
    model = models.build("googlenet", signature, options={"auxiliary": True})
    b = Batch({"image": torch.randn(4, 1, 8, 8)}, torch.tensor([0, 1, 2, 0]), rows=4)
    (phase,) = tasks.classify().phases
    loss = phase.loss(model, b)
    assert loss.outputs.shape == (4, 3)
    (loss.total / loss.count).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.eval()(b.inputs["image"]).shape == (4, 3)


def test_a_negative_share_is_refused():
    with pytest.raises(ConfigError, match="auxiliary=-1"):
        tasks.classify(auxiliary=-1)


def test_a_run_with_auxiliary_heads_learns_and_measures_the_main_head(tmp_path):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(96, 4, generator=generator)
    data = Columns({"x": x}, x[:, :3].argmax(1))
    schema = Schema((Field("y", "category", "target", classes=tuple("abc")),))
    model = ThreeHeads(3)
    state = fit(
        model, tasks.classify(), RowStream(data, np.arange(64), batch_size=16, seed=2),
        Recipe(steps=60, optimizer="adam", lr=0.05, micro_batch=8),
        val=RowStream(data, np.arange(64, 96), batch_size=16, shuffle=False), out=tmp_path,
        schema=schema, setup=Setup(), device="cpu",
    )  # fmt: skip
    assert state.metrics["val/accuracy"] > 0.8
    with torch.no_grad():
        others = [(head(x).argmax(1) == data.target).float().mean() for head in model.heads[1:]]
    assert min(others) > 0.8  # they were trained, too
