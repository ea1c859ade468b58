"""What fits into a time budget: network, width, resolution and batch size from measured speed.

A net that looks at too few pictures learns less than a smaller one that looks at more, and a small
one stops learning long before a long budget ends. So the first seconds measure training steps of
nets of growing width, and the widest that still looks at enough pictures is taken (`enough`); with
more time both grow, the net and what it looks at. The constants come from a handful of short runs
on rows split off the training rows of Fashion-MNIST; benchmarks/quality/time_budget.py measures
what comes of them.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from gipi import models, tasks
from gipi.core import device as machine_facts
from gipi.core.batch import Batch
from gipi.core.errors import ConfigError, ModelError
from gipi.train.lanes import build_optimizer
from gipi.train.precision import Setup
from gipi.train.trial import Candidate, Work

if TYPE_CHECKING:
    from torch import nn

    from gipi.core.config import Recipe
    from gipi.core.schema import Signature

WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128)
"""Channels of the first block that are tried; the later blocks have 2 and 4 times as many."""
ENOUGH_LOOKS = 200_000
"""Looks at a picture, of all pictures together, that a net needs in one minute of training."""
GROWTH = 0.5
"""With more time they grow with this power of it; the rest of the time goes into the net."""
HOPELESS = 3
"""Wider nets are not tried once one is this many times too slow."""
LEAST_SIDE = 12
"""Smaller pictures have no room for two blocks: they keep the usual net."""
LARGE = 64
"""Pictures above this side may be made smaller, down to `LARGE`."""
SMALLER = 1.5
"""Factor between the resolutions that are tried."""
UPDATES = 1500
"""Optimizer steps that a budget is cut into: more rows a step where there is time for more rows."""
MEASURED_ROWS = 32
MEASURED_PIXELS = MEASURED_ROWS * 128 * 128
"""Pixels of a step that is measured: fewer rows of larger pictures."""
MEASURE_S, MEASURE_SHARE = 1.5, 0.01
"""Measuring may take these seconds, or this share of a long budget: other work on the machine must
not make a ten-minute run end with a net that was merely the last to be measured."""
RESERVE_S = 4.0
"""Seconds for what comes after the last step: scores, report, model folder."""


@dataclass(frozen=True)
class Plan:
    """What was chosen for a budget.

    options    of the model `fastnet`: widths and, for large pictures, side
    epochs     that the measured speed makes of the seconds
    """

    options: dict[str, Any]
    batch_size: int
    epochs: float
    reason: str


def plan(
    signature: Signature, rows: int, seconds: float, recipe: Recipe, *, device: torch.device
) -> Plan | None:
    """Return the net for `rows` training pictures within `seconds`; None where none can be built.

    signature  of the data: one image input and the classes
    seconds    for training, what comes before and after taken off

    Nothing but the speed of steps on random pictures is measured: at most about `MEASURE_S`,
    or `MEASURE_SHARE` of a long budget.
    """
    assert signature.image is not None
    began = time.perf_counter()
    best: tuple[dict[str, Any], float] | None = None
    for side in _sides(signature.image):
        here = []
        for first in WIDTHS:
            options = _options(signature.image, first, side)
            speed = _rows_per_s(signature, options, recipe, device)
            if speed is None:
                return None
            here.append((options, speed))
            late = time.perf_counter() - began > max(MEASURE_S, MEASURE_SHARE * seconds)
            if speed * seconds < enough(rows, seconds) / HOPELESS or late:
                break
        best = _widest(here, enough(rows, seconds) / seconds)
        wide = best[0]["widths"][0] >= WIDTHS[2]
        if wide or late:
            break  # a smaller picture is only worth it where the net would be narrow
    assert best is not None
    options, speed = best
    batch = 2 ** round(math.log2(max(speed * seconds / UPDATES, 1)))
    size = max(32, min(512, batch, 2 ** int(math.log2(max(rows / 8, 32)))))
    # An optimizer step costs the same for any number of rows: larger batches are faster by that.
    speed = max(speed, _rows_per_s(signature, options, recipe, device, rows=size) or 0.0)
    epochs = speed * seconds / rows
    shown = "-".join(map(str, options["widths"]))
    return Plan(
        options, size, epochs,
        f"{speed:.0f} pictures/s were measured with {shown} channels: about {epochs:.1f} passes "
        f"over {rows} rows in {seconds:.0f} s",
    )  # fmt: skip


def to_text(plan: Plan | None) -> str:
    """Return a plan as JSON."""
    return json.dumps(None if plan is None else asdict(plan))


def from_text(text: str) -> Plan | None:
    """Return the plan that `to_text` wrote."""
    found = json.loads(text)
    if found is None:
        return None
    options = {k: tuple(v) if k == "widths" else v for k, v in found["options"].items()}
    return Plan(**{**found, "options": options})


def enough(rows: int, seconds: float) -> float:
    """Return the looks at pictures that training for `seconds` should take at least.

    200,000 · (seconds / 60)^0.5, and every one of `rows` pictures once: few pictures are looked at
    often, many a few times.

    >>> round(enough(50_000, 60)), round(enough(50_000, 600)), enough(10**6, 60)
    (200000, 632456, 1000000)
    """
    return max(ENOUGH_LOOKS * math.pow(seconds / 60, GROWTH), rows)


def _widest(
    measured: list[tuple[dict[str, Any], float]], least: float
) -> tuple[dict[str, Any], float]:
    """Return the widest net of at least this many rows per second, else the narrowest.

    A net is as fast as any wider one at least: what a disturbance took from a narrow one comes
    back from the others.
    """
    speed, steady = 0.0, []
    for options, seen in reversed(measured):
        speed = max(speed, seen)
        steady.append((options, speed))
    return next((one for one in steady if one[1] >= least), steady[-1])


def _sides(image: tuple[int, int, int]) -> list[int]:
    """Return the resolutions to try, the data's own first."""
    side = max(image[1:])
    sides = [side]
    while sides[-1] / SMALLER >= LARGE:
        sides.append(round(sides[-1] / SMALLER))
    return sides


def _options(image: tuple[int, int, int], first: int, side: int) -> dict[str, Any]:
    """Return the options of `fastnet`: as many blocks as the resolution takes."""
    scale = side / max(image[1:])
    least = round(min(image[1:]) * scale)
    blocks = max(1, min(5, int(math.log2(max(least / 3, 2)))))
    widths = [first * min(2**i, 4) for i in range(blocks)]
    return {"widths": tuple(widths), **({"side": side} if scale < 1 else {})}


def _rows_per_s(
    signature: Signature,
    options: dict[str, Any],
    recipe: Recipe,
    device: torch.device,
    *,
    rows: int = 0,
) -> float | None:
    """Return rows per second of training steps in the arithmetic that such a net gets.

    rows  of a step; 0: few, so that many nets can be compared in a short time
    """
    assert signature.image is not None
    try:
        net: nn.Module = models.build("fastnet", signature, options=options).to(device)
    except (ConfigError, ModelError):
        return None
    half = recipe.precision in ("auto", "bf16") and machine_facts.supports(device, "bf16")
    setup = Setup(
        precision="bf16" if half else "fp32", layout="channels_last",
        threads=torch.get_num_threads(),
    )  # fmt: skip
    work = Work(net, tasks.classify(), device, lambda copy: build_optimizer(copy, recipe))
    candidate = Candidate(work, setup)
    fits = MEASURED_PIXELS // (signature.image[1] * signature.image[2])
    size = rows or max(2, min(MEASURED_ROWS, fits)) * (1 if device.type == "cpu" else 8)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(size, *signature.image, generator=generator).to(device)
    target = torch.randint(signature.outputs, (size,), generator=generator).to(device)
    candidate.feed(Batch({"image": pictures}, target, rows=size))
    for _ in range(1 if rows else 2):
        candidate.turn()
    return size / min(candidate.times)  # what the machine can do: others only slow it down
