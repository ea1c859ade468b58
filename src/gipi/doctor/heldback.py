"""Batches that a loop was heard to take: each row once, and some held back to judge by."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

from gipi.doctor.experiment import tensors

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment

HELD = 16
"""Rows that are held back to judge by, at least."""


def held_back(exp: Experiment) -> Experiment:
    """Return the experiment without every other of its batches, whose new rows are validation.

    As it is where batches are no pairs of tensors, or hold no row that the others do not.
    """
    pairs = [tensors(pair) for pair in exp.train] if isinstance(exp.train, list) else []
    known = [p for p in pairs if p is not None]
    if len(known) < 2 or len(known) < len(pairs) or len({X.shape[1:] for X, _ in known}) > 1:
        return exp
    given = once(known[::2] + known[1::2])
    train, rest = given[: len(known[::2])], given[len(known[::2]) :]
    if sum(len(X) for X, _ in rest) < HELD:
        return exp
    val = torch.cat([X for X, _ in rest]), torch.cat([y for _, y in rest])
    made = replace(exp, train=train, val=val)
    made.judge = exp.judge
    return made


def once(pairs: list[Any]) -> list[Any]:
    """Return batches without the rows that were in an earlier one.

    A batch of which less than half is left is left out. As they are where they are no tensors, or
    of a kind whose rows cannot be told apart, as sparse ones.
    """
    try:
        return _once(pairs)
    except Exception:  # noqa: BLE001  rows that come twice do less harm than no word at all
        return pairs


def _once(pairs: list[Any]) -> list[Any]:
    seen: set[bytes] = set()
    found: list[Any] = []
    for pair in pairs:
        known = tensors(pair)
        if known is None or len(known[0]) != len(known[1]):
            return pairs
        X, y = known
        rows = (X if X.ndim > 1 else X[:, None]).detach().cpu().contiguous()  # sync
        keys = [blake2b(row.view(torch.uint8).numpy(), digest_size=16).digest() for row in rows]
        fresh = [i for i, key in enumerate(keys) if key not in seen]
        seen.update(keys)
        if 2 * len(fresh) > len(X):
            found.append((X[fresh], y[fresh]) if len(fresh) < len(X) else pair)
    return found or pairs
