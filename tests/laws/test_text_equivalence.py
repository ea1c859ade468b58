"""Law 2 on texts: the micro-batch changes no weight, and padding is seen by nobody."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gipi import tasks
from gipi.core.config import Recipe
from gipi.core.schema import Field, Schema
from gipi.data.cache import ragged
from gipi.data.stream import Columns, RowStream
from gipi.data.tokens import Tokens
from gipi.train import Setup, fit

ROWS, STEPS, IDS = 90, 50, 40
SCHEMA = Schema((Field("y", "category", "target", classes=("a", "b", "c")),))


class Bag(nn.Module):
    """The mean of the tokens' vectors; `blind` takes padding for tokens."""

    def __init__(self, *, blind: bool) -> None:
        super().__init__()
        self.vectors, self.head, self.blind = nn.Embedding(IDS, 12), nn.Linear(12, 3), blind

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        mask_BT = torch.ones_like(tokens_BT) if self.blind else tokens_BT != 0
        x_BTE = self.vectors(tokens_BT) * mask_BT[..., None]
        found: torch.Tensor = self.head(x_BTE.sum(1) / mask_BT.sum(1, keepdim=True).clamp(min=1))
        return found


def stream(multiple: int, monkeypatch: pytest.MonkeyPatch) -> RowStream:
    monkeypatch.setattr("gipi.data.tokens.width_of", lambda n: max(1, -(-n // multiple)) * multiple)
    draw = np.random.default_rng(0)
    values, offsets = ragged([draw.integers(1, IDS, n).astype(np.int32)
                              for n in draw.integers(1, 30, ROWS)])  # fmt: skip
    columns = Columns({"tokens": Tokens(values, offsets)}, torch.arange(ROWS) % 3)
    return RowStream(columns, np.arange(ROWS), batch_size=16, seed=1)


def weights(found: RowStream, *, micro: int | None = None, blind: bool = False) -> torch.Tensor:
    torch.manual_seed(0)
    model = Bag(blind=blind).double()
    recipe = Recipe(steps=STEPS, optimizer="sgd", lr=0.5, micro_batch=micro)
    fit(model, tasks.classify(), found, recipe, schema=SCHEMA, setup=Setup(), device="cpu")
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("micro", [1, 5, 16])
def test_micro_batches_change_no_weight(micro: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights(stream(8, monkeypatch))
    parts = weights(stream(8, monkeypatch), micro=micro)
    assert float((whole - parts).abs().max()) < 1e-10


def test_wider_padding_changes_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, wide = (weights(stream(multiple, monkeypatch)) for multiple in (8, 64))
    assert float((narrow - wide).abs().max()) < 1e-10
    blind = [weights(stream(multiple, monkeypatch), blind=True) for multiple in (8, 64)]
    assert float((blind[0] - blind[1]).abs().max()) > 1e-3  # the bug would be seen
