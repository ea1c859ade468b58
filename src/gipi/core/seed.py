"""Randomness as a pure function: the same (seed, epoch, sample id) gives the same numbers anywhere.

A counter-based generator keeps no state, so nothing depends on how many workers, ranks or
micro-batches share the work (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
The mixing function is SplitMix64 (Steele, Lea and Flood 2014), written in int64 tensor arithmetic
that wraps the same way on every device.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX1, _MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def derive(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed for a named purpose: SHA-256 over `seed` and `parts`.

    >>> derive(0, "shuffle", 1) == derive(0, "shuffle", 1) != derive(0, "shuffle", 2)
    True
    """
    text = "/".join(str(p) for p in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """SplitMix64 finaliser on an int64 tensor, elementwise."""
    x = x + _signed(_GOLDEN)
    x = (x ^ _shift(x, 30)) * _signed(_MIX1)
    x = (x ^ _shift(x, 27)) * _signed(_MIX2)
    return x ^ _shift(x, 31)


def uniform(key: int, ids: Tensor, stream: int = 0) -> Tensor:
    """Return float64 numbers in [0, 1), one per id: a pure function of (key, id, stream).

    key     from `derive(seed, "augment", epoch)`
    ids     (B,) int64 sample ids
    stream  number of the draw within the sample, so that one sample has many
    """
    bits = mix(mix(ids ^ key) + _signed(stream * _GOLDEN))
    return _shift(bits, 11).double() * 2.0**-53
