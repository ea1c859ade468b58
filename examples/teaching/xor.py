"""A perceptron learns AND, not XOR: no line separates it. One hidden layer learns both."""

from __future__ import annotations

import sys

import torch

import gipi
from gipi import losses

QUICK = "--quick" in sys.argv
X = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
TARGETS = {"AND": torch.tensor([0, 0, 0, 1]), "XOR": torch.tensor([0, 1, 1, 0])}


def rosenblatt(target: torch.Tensor, epochs: int) -> list[int]:
    """Learn by the rule of 1958, one row at a time; return the mistakes of each epoch."""
    unit = gipi.model("perceptron", numbers=2, classes=1)
    rule = torch.optim.SGD(unit.parameters(), lr=1.0)
    mistakes = []
    for _ in range(epochs):
        wrong = 0
        for x, t in zip(X, target, strict=True):
            wrong += int(unit.decide(x[None]) != t)
            rule.zero_grad()
            losses.perceptron(unit(x[None]), t[None])[0].backward()
            rule.step()
        mistakes.append(wrong)
    return mistakes


def gradient(target: torch.Tensor, epochs: int) -> list[int]:
    """Learn with one hidden layer by the gradient; return the mistakes of each epoch."""
    options = {"widths": [4], "activation": "tanh", "numbers": "plain"}
    net = gipi.model("mlp", numbers=2, classes=2, seed=1, options=options)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    mistakes = []
    for _ in range(epochs):
        total, count = losses.cross_entropy(net(X), target)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        mistakes.append(int((net(X).argmax(1) != target).sum()))
    return mistakes


def main() -> None:
    """Print the mistakes of both on both."""
    epochs = 60 if QUICK else 200
    for name, target in TARGETS.items():
        print(f"{name}: perceptron {rosenblatt(target, epochs)[-1]} mistakes of 4")
        print(f"{name}: hidden layer {gradient(target, epochs)[-1]} mistakes of 4")


if __name__ == "__main__":
    main()
