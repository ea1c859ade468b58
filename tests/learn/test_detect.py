"""A tiny run must learn to find coloured squares, and to tell the colours apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gipi import models, tasks
from gipi.core.config import Recipe
from gipi.core.schema import Field, Schema, Signature
from gipi.data.stream import Columns, RowStream
from gipi.train import Setup, evaluate, fit

SIDE, TRAIN, HELD, MOST = 48, 160, 48, 3
NAMES = ("red", "green", "blue")
SCHEMA = Schema(
    (
        Field("image", "image", "input", shape=(3, SIDE, SIDE)),
        Field("boxes", "boxes", "target", classes=NAMES, shape=(MOST, 6)),
    ),
    task="detect",
)
BODY = {"widths": [16, 32, 32, 32], "first_stride": 2, "norm": "group"}


def squares(rows):
    """Noisy pictures of one to three squares, each in a cell of its own, and their boxes."""
    generator = torch.Generator().manual_seed(0)
    image = 0.3 * torch.randn(rows, 3, SIDE, SIDE, generator=generator)
    boxes = torch.full((rows, MOST, 6), -1.0)
    for row in range(rows):
        cells = torch.randperm(4, generator=generator)[: int(torch.randint(1, 4, (1,),
                                                            generator=generator))]  # fmt: skip
        for i, cell in enumerate(cells.tolist()):
            side = int(torch.randint(9, 20, (1,), generator=generator))
            at = torch.randint(0, SIDE // 2 - side, (2,), generator=generator)
            x, y = (at + torch.tensor([cell % 2, cell // 2]) * (SIDE // 2)).tolist()
            kind = int(torch.randint(0, 3, (1,), generator=generator))
            image[row, kind, y : y + side, x : x + side] += 2
            boxes[row, i] = torch.tensor([x, y, x + side, y + side, kind, 0.0])
    return image, boxes


@pytest.mark.parametrize(("method", "steps"), [("fcos", 120), ("retinanet", 90)])
def test_squares_are_found(method, steps):
    image, boxes = squares(TRAIN + HELD)
    columns = Columns({"image": image}, boxes)
    train = RowStream(columns, np.arange(TRAIN), batch_size=16, seed=0)
    held = RowStream(columns, np.arange(TRAIN, TRAIN + HELD), batch_size=16, shuffle=False)
    task = tasks.build("detect", {"method": method})
    model = models.build(
        method, Signature(image=(3, SIDE, SIDE), outputs=3), seed=0,
        options={"backbone": "lightnet", "backbone_options": BODY, "width": 32, "depth": 1},
    )  # fmt: skip
    before = evaluate(model, task, held, schema=SCHEMA).metrics["ap50"]
    recipe = Recipe(steps=steps, optimizer="adamw", lr=5e-3, schedule="one-cycle", clip_norm=2.0)
    fit(model, task, train, recipe, schema=SCHEMA, setup=Setup(), device="cpu")
    found = evaluate(model, task, held, schema=SCHEMA).metrics
    assert before < 0.1
    assert found["ap50"] > 0.7
    assert 0.2 < found["ap"] < found["ap50"]
