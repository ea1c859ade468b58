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

    x = torch.randn(32, 4, dtype=torch.float64).numpy()
    stream = data.open_data((x, x.sum(1)), data.DataOptions(task="regress")).stream(
        "train", batch_size=8
    )
    model = nn.Linear(4, 1)
    train.fit(model, tasks.custom(loss), stream, Recipe(steps=3, compile="off"))
    assert len(stacks) >= 3
    assert max(stacks, key=len) == stacks[0] or len(max(stacks, key=len)) <= MOST
    assert all(len(names) <= MOST for names in stacks), max(stacks, key=len)
