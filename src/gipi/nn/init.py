"""Initial weights: records, and the rule that chooses one for an activation.

Every function fills a weight in place from an explicit generator, so that the weights of a model
are a pure function of its seed. Fans of a kernel (O, I, h, w): in I·h·w, out O·h·w.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.core.errors import ModelError
from gipi.core.registry import Record, Registry
from gipi.nn.activations import ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor

    Fill = Callable[[Tensor, Generator, float], None]


def fans(weight: Tensor) -> tuple[int, int]:
    """Return (fan in, fan out) of a weight (out, in) or a kernel (out, in, ...)."""
    if weight.ndim < 2:
        raise ModelError(f"a weight of shape {tuple(weight.shape)} has no fans",
                         "a matrix or a kernel", "initialise vectors with zeros")  # fmt: skip
    field = weight[0, 0].numel()
    return weight.shape[1] * field, weight.shape[0] * field


@torch.no_grad()
def zeros(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:  # noqa: ARG001
    """Fill with zeros; a hidden layer of zeros cannot learn, a single layer can."""
    weight.zero_()


@torch.no_grad()
def normal(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill from N(0, (0.01 gain)²), the fixed spread used before the rules of the fans."""
    weight.normal_(0.0, 0.01 * gain, generator=generator)


@torch.no_grad()
def xavier(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill from U(-a, a), a = gain √(6 / (in + out)): variance kept forward and backward."""
    fan_in, fan_out = fans(weight)
    a = gain * math.sqrt(6 / (fan_in + fan_out))
    weight.uniform_(-a, a, generator=generator)


@torch.no_grad()
def he(weight: Tensor, generator: Generator, gain: float = math.sqrt(2)) -> None:
    """Fill from N(0, gain²/in), gain √2: a rectifier halves the second moment."""
    weight.normal_(0.0, gain / math.sqrt(fans(weight)[0]), generator=generator)


@torch.no_grad()
def lecun(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill from N(0, gain²/in): unit variance in, unit variance out."""
    weight.normal_(0.0, gain / math.sqrt(fans(weight)[0]), generator=generator)


@torch.no_grad()
def lecun_uniform(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill from U(-a, a), a = 2.4 gain / in: the rule of the 1998 paper on LeNet-5."""
    a = 2.4 * gain / fans(weight)[0]
    weight.uniform_(-a, a, generator=generator)


@torch.no_grad()
def orthogonal(weight: Tensor, generator: Generator, gain: float = 1.0) -> None:
    """Fill with gain times a random matrix of orthonormal rows or columns."""
    nn.init.orthogonal_(weight, gain=gain, generator=generator)


INITS = Registry(
    "inits",
    (
        Record("zeros", zeros, "all zeros", "Rosenblatt 1958, The perceptron"),
        Record("normal", normal, "N(0, 0.01²)",
               "Krizhevsky, Sutskever and Hinton 2012, ImageNet classification"),
        Record("xavier", xavier, "U(±√(6/(in + out)))",
               "Glorot and Bengio 2010, Understanding the difficulty of training deep networks"),
        Record("he", he, "N(0, 2/in)",
               "He, Zhang, Ren and Sun 2015, Delving deep into rectifiers, arXiv:1502.01852",
               facts={"gain": math.sqrt(2)}),
        Record("lecun", lecun, "N(0, 1/in)",
               "LeCun, Bottou, Orr and Müller 1998, Efficient backprop"),
        Record("lecun-uniform", lecun_uniform, "U(±2.4/in)",
               "LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning"),
        Record("orthogonal", orthogonal, "orthonormal rows or columns",
               "Saxe, McClelland and Ganguli 2014, Exact solutions, arXiv:1312.6120"),
    ),
)  # fmt: skip


def init_for(activation: str) -> str:
    """Return the name of the initialisation that suits an activation.

    He for the rectifiers, Xavier for the sigmoids, LeCun for SELU and the identity, zeros for the
    step.

    >>> [init_for(name) for name in ("relu", "tanh", "selu")]
    ['he', 'xavier', 'lecun']
    """
    init: str = ACTIVATIONS.get(activation).facts["init"]
    return init


def gain_for(activation: str, init: str) -> float:
    """Return the gain that `init` takes before `activation`."""
    facts = ACTIVATIONS.get(activation).facts
    if init == facts["init"] and "gain" in facts:
        return float(facts["gain"])
    return float(INITS.get(init).facts.get("gain", 1.0))


def initialise(
    module: nn.Module, generator: Generator, *, activation: str = "identity", init: str = "auto"
) -> str:
    """Fill every linear and convolution weight below `module`, biases with zero; return the rule.

    activation  what follows the layers
    init        a name of `INITS`, or "auto" for `init_for(activation)`
    """
    name = init_for(activation) if init == "auto" else init
    fill: Fill = INITS.get(name).build
    gain = gain_for(activation, name)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            fill(layer.weight, generator, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return name


def why(activation: str, init: str) -> str:
    """Return the sentence that explains a choice, for the printout."""
    name = init_for(activation) if init == "auto" else init
    reason = {
        "he": "a rectifier lets half of the signal through, N(0, 2/in) makes up for it",
        "xavier": "it keeps a sigmoid away from its flat ends in both directions",
        "lecun": "unit variance in, unit variance out",
        "zeros": "its rule needs no asymmetry to start",
    }
    if init != "auto" and name != init_for(activation):
        return (f"activation {activation}, initial weights {name} as asked "
                f"(the rule would be {init_for(activation)})")  # fmt: skip
    return f"activation {activation}, initial weights {name}: {reason[name]}"
