"""Batches put together again."""

from __future__ import annotations

import torch

from gipi.core.batch import UNLABELLED, joined


def test_rows_of_different_width_become_one_tensor() -> None:
    found = joined([torch.ones(2, 3, 2), torch.ones(1, 5, 2)], fill=7)
    assert found.shape == (3, 5, 2)
    assert (found[:2, 3:] == 7).all()
    assert (found[2] == 1).all()


def test_rows_of_one_width_and_single_values_stay() -> None:
    one, two = torch.arange(3), torch.arange(2)
    assert joined([one, two], fill=UNLABELLED).tolist() == [0, 1, 2, 0, 1]
    same = [torch.rand(2, 4), torch.rand(3, 4)]
    assert torch.equal(joined(same), torch.cat(same))
