"""Where NumPy's generator stands: kept and put back at every look, which hardly ever moves it.

NumPy hands out its 624 numbers one by one, and takes as long for it as a small net for a pass. They
lie in one piece of memory, whose address it tells (`BitGenerator.ctypes`): while that holds the
same nothing was drawn, and what is known of it is true.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random.mtrand import get_bit_generator

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES = 2500
"""Of 624 numbers and the place of the next one."""

_known: list[tuple[Any, bytes, Any] | None] = [None]
"""The generator that was asked last, its memory and its state, within `numpy_unmoved` alone: who
puts back a state outside may put back one whose second normal number still waits."""
_within: list[None] = []
"""One entry for every `numpy_unmoved` that is open."""


@contextmanager
def numpy_unmoved() -> Iterator[None]:
    """Draw within from where the generator stands, and put it back there afterwards."""
    _within.append(None)
    state = numpy_stands()
    try:
        yield
    finally:
        put_numpy(state)
        _within.pop()
        if not _within:
            _known[0] = None


def numpy_stands() -> Any:
    """Return ``np.random.get_state(legacy=False)``."""
    known = _known[0]
    if known is not None and known[:2] == (get_bit_generator(), _memory()):
        return known[2]
    state = np.random.get_state(legacy=False)  # noqa: NPY002
    _note(state)
    return state


def put_numpy(state: Any) -> None:
    """Let it stand there again: ``np.random.set_state(state)``, if it was moved at all."""
    known = _known[0]
    now = (get_bit_generator(), _memory())
    if known is not None and known[2] is state and known[:2] == now:
        return
    np.random.set_state(state)  # noqa: NPY002
    _note(state)


def _note(state: Any) -> None:
    """Know a state that the generator has just now, where its memory is all of it."""
    _known[0] = None
    memory = _memory() if _within else None
    if memory is None or state["has_gauss"]:
        return
    key, place = state["state"]["key"], int(state["state"]["pos"])
    if memory == key.tobytes() + place.to_bytes(4, sys.byteorder):
        _known[0] = (get_bit_generator(), memory, state)


def _memory() -> bytes | None:
    """Return the memory of the global generator; None where it is of another kind."""
    generator = get_bit_generator()
    if type(generator) is not np.random.MT19937:
        return None
    with generator.lock:
        return ctypes.string_at(generator.ctypes.state_address, BYTES)
