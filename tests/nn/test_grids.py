"""Grids: where the places and the anchors of a detector stand."""

from __future__ import annotations

import pytest
import torch

from gipi.core.errors import ModelError
from gipi.nn.grids import Level, anchors, existing_strides, levels_of, locations


def test_places_stand_in_the_middle_of_their_squares_row_after_row():
    found = locations([Level(8, 2, 3), Level(16, 1, 2)])
    assert found.tolist() == [
        [4, 4, 8], [12, 4, 8], [20, 4, 8], [4, 12, 8], [12, 12, 8], [20, 12, 8],
        [8, 8, 16], [24, 8, 16],
    ]  # fmt: skip


def test_levels_are_read_off_the_number_of_places():
    assert levels_of(8, 16, 24, strides=(8, 16)) == (Level(8, 2, 3), Level(16, 1, 2))
    assert levels_of(6, 16, 24, strides=(8, 16)) == (Level(8, 2, 3),)
    assert levels_of(9, 17, 24, strides=(8,)) == (Level(8, 3, 3),)  # rounded up
    for wrong in (0, 5, 7, 9):
        with pytest.raises(ModelError, match="same strides"):
            levels_of(wrong, 16, 24, strides=(8, 16))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((4, 4), (8,)), ((8, 8), (8,)), ((20, 64), (8, 16, 32)), ((130, 1), (8, 16, 32, 64, 128))],
)
def test_levels_of_a_single_place_do_not_exist(size, expected):
    assert existing_strides(*size) == expected


def test_anchors_have_the_areas_and_ratios_asked_for():
    found = anchors([Level(8, 1, 2)], size=4.0, scales=(1.0, 2.0), ratios=(0.5, 1.0, 2.0))
    assert found.shape == (12, 4)
    sides = found[:, 2:] - found[:, :2]
    torch.testing.assert_close(sides.prod(1), torch.tensor([32.0**2] * 3 + [64.0**2] * 3).repeat(2))
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1.0, 2.0]).repeat(4))
    middles = torch.tensor([[4.0, 4.0]] * 6 + [[12.0, 4.0]] * 6)
    torch.testing.assert_close((found[:, :2] + found[:, 2:]) / 2, middles)
