"""NumPy's generator is put back where it stood, whatever was drawn."""

# ruff: noqa: NPY002

from __future__ import annotations

import numpy as np
import pytest

from gipi.doctor.numpys import numpy_stands, numpy_unmoved, put_numpy


def _next() -> list[float]:
    """Return what comes next, and let the generator stand where it did."""
    state = np.random.get_state(legacy=False)
    found = [np.random.randn(), np.random.rand(), np.random.randn()]
    np.random.set_state(state)
    return found


@pytest.mark.parametrize("before", [0, 1, 2, 623])
@pytest.mark.parametrize("inside", [0, 1, 2, 700])
def test_what_comes_next_is_the_same(before: int, inside: int) -> None:
    """Normal numbers come in pairs: the second one may still wait to be given out."""
    np.random.seed(3)
    np.random.randn(before)
    then = _next()
    with numpy_unmoved():
        assert _next() == then
        with numpy_unmoved():
            np.random.randn(inside)
        assert _next() == then
        np.random.randn(inside)
        with numpy_unmoved():
            np.random.seed(4)
            with numpy_unmoved():
                np.random.rand(inside)
    assert _next() == then


def test_a_waiting_normal_number_is_put_back() -> None:
    """The memory is the same before and after it is given out."""
    with numpy_unmoved():
        np.random.seed(3)
        np.random.randn(1)
        waiting = np.random.get_state(legacy=False)
        then = _next()
        np.random.randn(1)
        with numpy_unmoved():  # none waits here
            pass
        put_numpy(waiting)
        with numpy_unmoved():
            np.random.randn(1)
        assert _next() == then


def test_a_state_kept_outside_is_read_anew() -> None:
    """What is known is forgotten with the last look: states may be put back by anyone."""
    np.random.seed(3)
    np.random.randn(1)
    waiting = np.random.get_state(legacy=False)
    then = _next()
    np.random.randn(1)
    with numpy_unmoved():
        numpy_stands()
    np.random.set_state(waiting)
    with numpy_unmoved():
        np.random.randn(3)
    assert _next() == then


def test_a_generator_of_another_kind_is_left_alone() -> None:
    """Its state is asked for as NumPy gives it."""
    own = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(5))
    try:
        then = np.random.rand()
        np.random.set_bit_generator(np.random.PCG64(5))
        with numpy_unmoved():
            np.random.rand(3)
        assert np.random.rand() == then
    finally:
        np.random.set_bit_generator(own)
