"""At most two frames stand between `fit` and the user's loss."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi import data, tasks, train
from gipi.core.config import Recipe

if TYPE_CHECKING:
    from torch import Tensor

MOST = 2


def test_two_frames_from_fit_to_the_loss() -> None:
    stacks: list[list[str]] = []

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        frame, names = sys._getframe(1), []
        while frame is not None and frame.f_code.co_name != "fit":
            names.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}")
            frame = frame.f_back
        assert frame is not None, "the loss was not called by fit"
        assert frame.f_globals["__name__"] == "gipi.train.loop"
        stacks.append(names)
        return nn.functional.mse_loss(outputs.squeeze(-1), target)

    x = torch.randn(64, 4).numpy()
    rows = data.open_data((x, x.sum(1)), data.DataOptions(task="regress"))
    # Everything that the trial would choose is given, so that only the loop calls the loss.
    recipe = Recipe(
        steps=3, batch_size=8, precision="fp32", layout="contiguous", threads=1, gemm="native",
        compile="off",
    )  # fmt: skip
    stream = rows.stream("train", batch_size=8)
    train.fit(nn.Linear(4, 1), tasks.custom(loss), stream, recipe)
    assert len(stacks) >= 3
    assert all(1 <= len(names) <= MOST for names in stacks), max(stacks, key=len)
