"""The perceptron learns what a line separates, and only that."""

from __future__ import annotations

import pytest
import torch

from gipi import losses, models
from gipi.core.schema import Signature
from gipi.models import MODELS

CORNERS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def learn(target: torch.Tensor, outputs: int, epochs: int = 30) -> tuple[int, int]:
    """Return (right answers, mistakes made in the last epoch) of the rule, one row at a time."""
    model = models.build("perceptron", Signature(numbers=2, outputs=outputs))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    mistakes = 0
    for _ in range(epochs):
        mistakes = 0
        for i in range(4):
            optimizer.zero_grad()
            scores = model(CORNERS[i : i + 1])
            losses.perceptron(scores, target[i : i + 1])[0].backward()
            mistakes += int(any(p.grad.any() for p in model.parameters()))
            optimizer.step()
    return int((model.decide(CORNERS) == target).sum()), mistakes


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("target", [[0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]])
def test_it_converges_where_a_line_separates(target, outputs):
    assert learn(torch.tensor(target), outputs) == (4, 0)


@pytest.mark.parametrize("outputs", [1, 2])
def test_it_never_learns_xor(outputs):
    for epochs in range(1, 30):
        right, mistakes = learn(torch.tensor([0, 1, 1, 0]), outputs, epochs)
        assert right < 4
        assert mistakes > 0


def test_its_record_names_the_loss_that_is_its_rule():
    assert MODELS.get("perceptron").facts["loss"] in losses.LOSSES


def test_the_threshold_decides_at_zero():
    model = models.build("perceptron", Signature(numbers=2, outputs=1))
    assert model.decide(torch.zeros(3, 2)).tolist() == [1, 1, 1]
