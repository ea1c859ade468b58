"""Activations: records over torch, with the paper of each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.core.registry import Record, Registry

if TYPE_CHECKING:
    from torch import Tensor


class Step(nn.Module):
    """The threshold unit, f(x) = 1 where x >= 0, else 0.

    Its derivative is 0 wherever it exists, so nothing before it can learn by gradient descent; the
    perceptron learns by its own rule on the sum that comes before the threshold. McCulloch and
    Pitts 1943; Rosenblatt 1958.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return 0 or 1 for each element, in the dtype of `x`."""
        return (x >= 0).to(x.dtype)


class ScaledTanh(nn.Module):
    """f(x) = 1.7159 tanh(2x/3): f(±1) = ±1, and the curvature is largest there.

    LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
    recognition", appendix A.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return f elementwise."""
        return 1.7159 * torch.tanh(x * (2 / 3))


ACTIVATIONS = Registry(
    "activations",
    (
        Record("identity", nn.Identity, "x",
               "Widrow and Hoff 1960, Adaptive switching circuits", facts={"init": "lecun"}),
        Record("step", Step, "1 where x >= 0, else 0: no gradient",
               "McCulloch and Pitts 1943, A logical calculus of the ideas immanent in nervous "
               "activity", facts={"init": "zeros"}),
        Record("sigmoid", nn.Sigmoid, "1 / (1 + e^-x)",
               "Rumelhart, Hinton and Williams 1986, Learning representations by back-propagating "
               "errors", facts={"init": "xavier"}),
        Record("tanh", nn.Tanh, "(e^x - e^-x) / (e^x + e^-x)",
               "LeCun, Bottou, Orr and Müller 1998, Efficient backprop",
               facts={"init": "xavier"}),
        Record("scaled-tanh", ScaledTanh, "1.7159 tanh(2x/3)",
               "LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning",
               facts={"init": "xavier"}),
        Record("softsign", nn.Softsign, "x / (1 + |x|)",
               "Bergstra et al. 2009, Quadratic polynomials learn better image features",
               facts={"init": "xavier"}),
        Record("relu", nn.ReLU, "max(x, 0)",
               "Nair and Hinton 2010, Rectified linear units improve restricted Boltzmann machines",
               facts={"init": "he"}),
        Record("leaky-relu", nn.LeakyReLU, "x where x > 0, else 0.01 x",
               "Maas, Hannun and Ng 2013, Rectifier nonlinearities improve acoustic models",
               facts={"init": "he", "gain": math.sqrt(2 / (1 + 0.01**2))}),
        Record("elu", nn.ELU, "x where x > 0, else e^x - 1",
               "Clevert, Unterthiner and Hochreiter 2016, ELU, arXiv:1511.07289",
               facts={"init": "he"}),
        Record("selu", nn.SELU, "λx where x > 0, else λα(e^x - 1): keeps mean 0 and variance 1",
               "Klambauer et al. 2017, Self-normalizing neural networks, arXiv:1706.02515",
               facts={"init": "lecun"}),
        Record("softplus", nn.Softplus, "log(1 + e^x)",
               "Dugas et al. 2001, Incorporating second-order functional knowledge",
               facts={"init": "he"}),
        Record("silu", nn.SiLU, "x σ(x)",
               "Elfwing, Uchibe and Doya 2018, arXiv:1702.03118", facts={"init": "he"}),
        Record("gelu", nn.GELU, "x Φ(x), Φ the normal distribution function",
               "Hendrycks and Gimpel 2016, Gaussian error linear units, arXiv:1606.08415",
               facts={"init": "he"}),
        Record("mish", nn.Mish, "x tanh(log(1 + e^x))", "Misra 2020, Mish, arXiv:1908.08681",
               facts={"init": "he"}),
        Record("hard-swish", nn.Hardswish, "x min(max(x + 3, 0), 6) / 6",
               "Howard et al. 2019, Searching for MobileNetV3, arXiv:1905.02244",
               facts={"init": "he"}),
    ),
)  # fmt: skip


def activation(name: str) -> nn.Module:
    """Return a new module of the activation called `name`; `UnknownName` otherwise."""
    module: nn.Module = ACTIVATIONS.get(name).build()
    return module
