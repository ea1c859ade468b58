"""What a recurrent net remembers between batches."""

from __future__ import annotations

import copy

import pytest
import torch

from gipi.nn import Carried, Memory, Recurrent

PLACES, LAYERS, WIDTH = 5, 2, 3


def memory(cell: str = "lstm") -> Memory:
    generator = torch.Generator().manual_seed(0)
    return Memory(Recurrent(4, WIDTH, generator=generator, cell=cell, layers=LAYERS))  # type: ignore[arg-type]


def states(rows: int, *, cell: str = "lstm") -> Carried:
    generator = torch.Generator().manual_seed(rows)
    h = torch.randn(rows, LAYERS, WIDTH, generator=generator)
    return Carried(h, h + 1 if cell == "lstm" else h[..., :0])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_each_place_gives_back_what_was_put_there(cell: str) -> None:
    kept = memory(cell)
    kept.hold(PLACES)
    places, new = torch.tensor([3, 0, 4]), states(3, cell=cell)
    kept.write(places, new)
    for row, place in enumerate(places.tolist()):
        found = kept.read(torch.tensor([place]), torch.tensor([False]))
        assert torch.equal(found.h[0], new.h[row])
        assert torch.equal(found.c[0], new.c[row])
    for place in (1, 2):
        found = kept.read(torch.tensor([place]), torch.tensor([False]))
        assert not found.h.any()
        assert not found.c.any()


def test_a_row_that_is_new_begins_with_zeros() -> None:
    kept = memory()
    kept.hold(2)
    kept.write(torch.arange(2), states(2))
    found = kept.read(torch.arange(2), torch.tensor([True, False]))
    assert not found.h[0].any()
    assert torch.equal(found.h[1], states(2).h[1])


def test_no_gradient_goes_on_and_what_was_read_stays() -> None:
    kept = memory()
    kept.hold(2)
    kept.write(torch.arange(2), states(2))
    before = kept.read(torch.arange(2), torch.zeros(2, dtype=torch.bool))
    copied = before.h.clone()
    weight = torch.ones((), requires_grad=True)
    kept.write(torch.arange(2), Carried(before.h * weight * 7, before.c * weight))
    assert torch.equal(before.h, copied)
    assert not kept.h.requires_grad


def test_a_state_that_is_not_finite_is_forgotten_alone() -> None:
    kept = memory()
    kept.hold(3)
    new = states(3)
    new.h[0, 1, 2] = torch.nan
    new.c[2, 0, 0] = torch.inf
    kept.write(torch.arange(3), new)
    assert not kept.h[[0, 2]].any()
    assert not kept.c[[0, 2]].any()
    assert torch.equal(kept.h[1], new.h[1])


def test_it_is_no_weight_and_moves_with_the_model() -> None:
    kept = memory()
    kept.hold(2)
    kept.write(torch.arange(2), states(2))
    assert not kept.state_dict()
    other = copy.deepcopy(kept).double()
    assert other.h.dtype == torch.float64
    other.hold(2)
    assert kept.h.any()


def test_its_content_is_put_back_in_place_or_refused() -> None:
    one, two = memory(), memory()
    one.hold(2)
    two.hold(2)
    one.write(torch.arange(2), states(2))
    held = two.h
    two.restore(one.content())
    assert torch.equal(two.c, one.c)
    assert two.h is held
    two.hold(3)
    with pytest.raises(RuntimeError, match="a memory of"):
        two.restore(one.content())
