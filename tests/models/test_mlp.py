"""The MLP: its shape, its options, and that it learns what a line cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gipi import losses, models
from gipi.core.schema import Signature
from gipi.nn import ACTIVATIONS, mixes_rows

PLAIN = {"numbers": "plain"}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameter_count_by_hand():
    model = models.build(
        "mlp", Signature(numbers=4, outputs=3), options={**PLAIN, "widths": [8, 5]}
    )
    assert parameters(model) == (4 * 8 + 8) + (8 * 5 + 5) + (5 * 3 + 3)
    model = models.build("mlp", Signature(image=(1, 28, 28), outputs=10))
    assert parameters(model) == 784 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10


def test_without_hidden_layers_it_is_linear():
    model = models.build("mlp", Signature(numbers=4, outputs=3), options={**PLAIN, "widths": []})
    assert parameters(model) == 15
    x = torch.randn(2, 4)
    torch.testing.assert_close(model(2 * x) - model(torch.zeros(1, 4)),
                               2 * (model(x) - model(torch.zeros(1, 4))))  # fmt: skip


def test_options_reach_the_layers():
    model = models.build(
        "mlp", Signature(numbers=4, outputs=3),
        options={"widths": "8, 8", "activation": "tanh", "norm": "batch", "dropout": 0.2,
                 "residual": True},
    )  # fmt: skip
    kinds = [type(m).__name__ for m in model.layers.modules()]
    assert kinds.count("BatchNorm1d") == 2
    assert kinds.count("Dropout") == 2
    assert kinds.count("Tanh") == 2
    assert kinds.count("Residual") == 1
    assert mixes_rows(model) == ["layers.0.norm", "layers.1.body.norm"]
    assert "xavier" in " ".join(model.choices)


def test_dropout_acts_in_training_only():
    model = models.build("mlp", Signature(numbers=4, outputs=3), options={"dropout": 0.5})
    x = torch.randn(8, 4)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_numbers_are_periodic_for_narrow_tables_only():
    narrow = models.build("mlp", Signature(numbers=64, outputs=1))
    wide = models.build("mlp", Signature(numbers=65, outputs=1))
    assert (narrow.config.numbers, wide.config.numbers) == ("periodic", "plain")


@pytest.mark.parametrize(
    "activation", [n for n in ACTIVATIONS.names() if n not in ("step", "identity")]
)
def test_it_learns_xor_with_every_activation(activation):
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]) * 2 - 1
    y = torch.tensor([0, 1, 1, 0])
    options = {**PLAIN, "widths": [16], "activation": activation}
    model = models.build("mlp", Signature(numbers=2, outputs=2), options=options)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        total, count = losses.cross_entropy(model(x), y)
        (total / count).backward()
        optimizer.step()
    assert torch.equal(model(x).argmax(1), y)


def test_categories_alone_can_decide():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 6, (256, 2), generator=generator)
    y = ((codes[:, 0] + codes[:, 1]) % 2).long()
    model = models.build(
        "mlp", Signature(cardinalities=(6, 6), outputs=2), options={"widths": [32]}
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        losses.cross_entropy(model(torch.zeros(256, 0), codes), y)[0].backward()
        optimizer.step()
    accuracy = (model(torch.zeros(256, 0), codes).argmax(1) == y).float().mean().item()
    assert accuracy > 0.98


def test_what_is_left_open_is_settled_and_said():
    model = models.build("mlp", Signature(numbers=4, outputs=3), options=PLAIN)
    config = model.config
    assert (config.activation, config.init, config.norm) == ("relu", "he", "none")
    assert "auto" not in (config.activation, config.init, config.norm, config.order)
    said = " | ".join(model.choices)
    assert "activation relu: " in said
    assert "init he: " in said
    assert "norm none: " in said
    given = models.build("mlp", Signature(numbers=4, outputs=3),
                         options={**PLAIN, "activation": "tanh", "init": "orthogonal"})  # fmt: skip
    said = " | ".join(given.choices)
    assert "activation tanh, as asked (the rule relu-first would be relu" in said
    assert "init orthogonal, as asked (the rule xavier-with-sigmoids would be xavier" in said


@pytest.mark.parametrize("order", ["conv-norm-act", "norm-act-conv", "conv-act-norm"])
def test_the_norm_stands_where_it_is_asked_for(order):
    model = models.build("mlp", Signature(numbers=4, outputs=3),
                         options={**PLAIN, "norm": "rms", "order": order})  # fmt: skip
    names = [name for name, _ in model.layers[1].named_children()]
    words = {"conv": "linear", "norm": "norm", "act": "activation"}
    assert names == [words[w] for w in order.split("-")]
    assert f"order {order}" in " | ".join(model.choices)
