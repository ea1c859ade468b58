"""Published nets as oracles: weights that are a function of their name, key lists, torchvision.

`hot` fills a net with weights, biases and batch statistics that are far from their initial values,
the same on every machine and under every version, so that answers of torchvision's nets can be
compared live where it is installed and from a file (keys/logits.json) where it is not.
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

KEYS = Path(__file__).parent / "keys"
LOGITS = KEYS / "logits.json"
PERIOD = 1_000_003
ROI_ALIGN = (
    "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, "
    "int pooled_width, int sampling_ratio, bool aligned) -> Tensor"
)
OPERATORS = (  # what torchvision registers fakes for, and has no kernels of beside a CPU torch
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ROI_ALIGN,
)


def uniform(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return float64 numbers in [0, 1) that depend on the name and the place alone.

    A splitmix64 of the first million places; larger tensors repeat it with a prime period.
    """
    count = math.prod(shape)
    start = np.uint64(zlib.crc32(name.encode()))
    with np.errstate(over="ignore"):
        z = np.arange(min(count, PERIOD), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += start * np.uint64(0xD1342543DE82EF95)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return torch.from_numpy(u if count <= PERIOD else np.resize(u, count)).reshape(shape)


@torch.no_grad()
def hot(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module in float64, filled by the names of its tensors.

    Kernels and matrices have variance 2 / fan in; scales of norms lie in (0.5, 1.5), variances in
    (0.5, 2), means and biases in (-0.5, 0.5).
    """
    module.double()
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        u = uniform(name, tuple(tensor.shape))
        if tensor.ndim > 1:
            tensor.copy_((2 * u - 1) * math.sqrt(6 / tensor[0].numel()))
        elif name.endswith("running_var"):
            tensor.copy_(0.5 + 1.5 * u)
        elif name.endswith("weight"):
            tensor.copy_(0.5 + u)
        else:
            tensor.copy_(u - 0.5)
    return module


def pictures(rows: int, side: int) -> torch.Tensor:
    """Return float64 pictures (rows, 3, side, side) with values in (-2, 2)."""
    return 4 * uniform("pictures", (rows, 3, side, side)) - 2


def keys(name: str) -> tuple[int, dict[str, tuple[int, ...]]]:
    """Return the parameter count and the named shapes of a committed list."""
    lines = (KEYS / f"{name}.txt").read_text().splitlines()
    count = int(lines[1].split()[1])
    shapes = {}
    for line in lines[2:]:
        key, _, shape = line.partition(" ")
        shapes[key] = tuple(int(n) for n in shape.split(",")) if shape else ()
    return count, shapes


def logits(case: str) -> torch.Tensor:
    """Return the answers of torchvision's net to `pictures` that were written down."""
    return torch.tensor(json.loads(LOGITS.read_text())["logits"][case], dtype=torch.float64)


def torchvision_models():
    """Return `torchvision.models`; skip where it is not installed."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in OPERATORS:
        if not hasattr(torch.ops.torchvision, operator.partition("(")[0]):
            library.define(operator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torchvision import models
        except (ImportError, RuntimeError, OSError) as error:
            pytest.skip(f"torchvision cannot be imported: {error}")
    models._defined = library  # operators live as long as their library does
    return models
