"""At most two frames stand between `fit` and the user's loss."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi import data, tasks, train
from gipi.core.config import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

MOST = 2
# Everything that the trial would choose is given, so that only the loop calls the loss.
RECIPE = Recipe(
    steps=3, batch_size=8, precision="fp32", layout="contiguous", threads=1, gemm="native",
    compile="off",
)  # fmt: skip


def frames() -> list[str]:
    """Return the functions between `fit` and the caller of this one, innermost first."""
    frame, names = sys._getframe(2), []
    while frame is not None and frame.f_code.co_name != "fit":
        names.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}")
        frame = frame.f_back
    assert frame is not None, "the loss was not called by fit"
    assert frame.f_globals["__name__"] == "gipi.train.loop"
    return names


def stacks(deeper: Callable[[Callable[[], list[str]]], list[str]]) -> list[list[str]]:
    """Train for three steps with a loss that notes its stack; return what it noted."""
    seen: list[list[str]] = []

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        seen.append(deeper(frames))
        return nn.functional.mse_loss(outputs.squeeze(-1), target)

    x = torch.randn(64, 4).numpy()
    rows = data.open_data((x, x.sum(1)), data.DataOptions(task="regress"))
    stream = rows.stream("train", batch_size=8)
    train.fit(nn.Linear(4, 1), tasks.custom(loss), stream, RECIPE)
    # one row goes through the loss before the first step, to see whether all fits together
    return [names for names in seen if "gipi.train.begin.begin" not in names]


def test_two_frames_from_fit_to_the_loss() -> None:
    seen = stacks(lambda look: look()[1:])  # without the frame of the loss itself
    assert len(seen) == RECIPE.steps
    assert all(1 <= len(names) <= MOST for names in seen), seen


def test_more_frames_would_be_found() -> None:
    def deep(look: Callable[[], list[str]], left: int = MOST) -> list[str]:
        return deep(look, left - 1) if left else look()[1:]

    assert all(len(names) > MOST for names in stacks(deep))
