"""The perceptron: threshold units and their learning rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from gipi.models.flat import flat_layer, flat_scores
from gipi.nn import Step

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature


@dataclass(frozen=True)
class PerceptronConfig:
    """The perceptron has no options."""


class Perceptron(nn.Module):
    """s = W x + b, answered through a threshold: class 1 where s >= 0; of K classes the largest s.

    The threshold has no gradient, so it is not trained through: `forward` returns the scores before
    it, and the loss `perceptron` on them has the learning rule as its gradient, w ← w + η y x for
    each mistake and nothing else. Use plain `sgd`; with batch_size=1 it is the rule as published.

    Rosenblatt's theorem: if a line separates the classes, the rule makes finitely many mistakes and
    stops. XOR has no such line. Suppose w₁x₁ + w₂x₂ + b is negative on (0,0) and (1,1) and not
    negative on (0,1) and (1,0): adding the first two gives w₁ + w₂ + 2b < 0, adding the last two
    gives w₁ + w₂ + 2b >= 0, a contradiction. One hidden layer solves it (`mlp`).

    image (B, C, H, W), flattened, or numbers (B, F) and categories (B, K) -> (B, outputs)

    Rosenblatt 1958, "The perceptron"; Novikoff 1962, "On convergence proofs on perceptrons";
    Minsky and Papert 1969, "Perceptrons".

    >>> import torch
    >>> from gipi.core.schema import Signature
    >>> from gipi.losses import perceptron as criterion
    >>> x = torch.tensor([[0., 0.], [0., 1.], [1., 0.], [1., 1.]])
    >>> def learn(target):
    ...     unit = Perceptron(PerceptronConfig(), Signature(numbers=2, outputs=1))
    ...     rule = torch.optim.SGD(unit.parameters(), lr=1.0)
    ...     for _ in range(20):
    ...         for i in range(4):
    ...             rule.zero_grad()
    ...             criterion(unit(x[i:i + 1]), target[i:i + 1])[0].backward()
    ...             rule.step()
    ...     return int((unit.decide(x) == target).sum())
    >>> learn(torch.tensor([0, 0, 0, 1])), learn(torch.tensor([0, 1, 1, 1]))  # AND, OR
    (4, 4)
    >>> learn(torch.tensor([0, 1, 1, 0])) < 4  # XOR
    True
    """

    def __init__(self, config: PerceptronConfig, signature: Signature) -> None:
        super().__init__()
        self.config = config
        self.scores, self.codes = flat_layer(signature)
        self.threshold = Step()
        self.choices = (
            "threshold units from zero weights, learning by their own rule (loss 'perceptron')",
        )

    def forward(self, x: Tensor, categories: Tensor | None = None) -> Tensor:
        """Return the scores before the threshold, (B, outputs)."""
        return flat_scores(self.scores, self.codes, x, categories)

    def decide(self, x: Tensor, categories: Tensor | None = None) -> Tensor:
        """Return the class of each row, (B,) int64: the threshold, or the largest of K scores."""
        s: Tensor = self(x, categories)
        if s.shape[1] == 1:
            s = self.threshold(s)
            return s.squeeze(1).long()
        return s.argmax(1)


def perceptron(
    config: PerceptronConfig, signature: Signature, generator: Generator  # noqa: ARG001
) -> Perceptron:  # fmt: skip
    """Return the perceptron for data of this signature."""
    return Perceptron(config, signature)
