"""Which keys an attention hides, held against padding wherever in a row it stands.

A row may hold several fields side by side (keys, values and a question; two sentences), each padded
by itself: such padding is at no end of the row, and the keys of an attention are one field of it.

N rows, T tokens of a row, K keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.sequences import known_pads

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts
    from gipi.doctor.tape import Op

NOTHING = 1e-12
"""Weight of a key that is hidden: exp of the usual large negative numbers is 0, or next to it."""
LOW = -1e4
"""Number that is added to the scores of a hidden key, or a lower one."""
ROWS, PATTERNS = 4, 2
"""Rows with padding and with tokens, and different patterns of theirs, before a mask is judged."""


@dataclass(frozen=True)
class OnlyPads:
    """An attention that hides every token of its keys and shows their padding."""

    op: Op
    pad: int


def shows_only_pads(facts: Facts) -> OnlyPads | None:
    """Return the first attention whose hidden keys are just those that are no padding.

    Only tokens that the user or an embedding calls padding count: a net may well look at one kind
    of token alone, but not at the one that stands for nothing.
    """
    fields, pads = _fields(facts.batch[0]), known_pads(facts)
    if not fields or not pads:
        return None
    for op in facts.tape.of({"attention", "softmax"}):
        hidden = _hidden(op, len(fields[0]))
        if hidden is None or not bool(hidden.any()):
            continue
        for tokens in fields:
            for pad in pads:
                if _turned(hidden, tokens == pad):
                    return OnlyPads(op, pad)
    return None


def _turned(hidden: Tensor, padding: Tensor) -> bool:
    """Whether all that is hidden of some run of columns is what is no padding there.

    hidden   (N, K)
    padding  (N, T) of a whole row
    """
    keys = hidden.shape[1]
    for first in range(padding.shape[1] - keys + 1):
        part = padding[:, first : first + keys]
        rows = part.any(1) & ~part.all(1)
        if int(rows.sum()) < ROWS or not torch.equal(hidden[rows], ~part[rows]):
            continue
        if len(torch.unique(part[rows], dim=0)) >= PATTERNS:
            return True
    return False


def _fields(xb: Any) -> list[Tensor]:
    """Return the tensors of tokens (N, T) among the inputs, those of as many rows as the first."""
    given = [xb] if isinstance(xb, Tensor) else list(xb) if isinstance(xb, (tuple, list)) else []
    given = list(xb.values()) if isinstance(xb, dict) else given
    found = [
        v for v in given
        if isinstance(v, Tensor) and v.ndim == 2 and v.dtype in (torch.int64, torch.int32)
    ]  # fmt: skip
    return [v for v in found if len(v) == len(found[0])]


def _hidden(op: Op, rows: int) -> Tensor | None:
    """Return (N, K), True where no query of a row sees a key; None where nothing tells by row."""
    with torch.no_grad():
        if op.kind == "softmax":
            weight = torch.nan_to_num(op.output.detach())
            return _by_row(weight > NOTHING, rows) if weight.ndim > 2 else None
        padding = op.given("key_padding_mask")
        if isinstance(padding, Tensor):
            return _by_row(~padding if padding.dtype == torch.bool else padding > LOW, rows)
        mask = op.given("attn_mask", at=3)
        if "embed_dim_to_check" in op.named or len(op.args) > 5 or not isinstance(mask, Tensor):
            return None  # a mask of times, the same for all rows
        return _by_row(mask if mask.dtype == torch.bool else mask > LOW, rows)


def _by_row(shown: Tensor, rows: int) -> Tensor | None:
    """Return which keys nobody of a row sees, from (N, ..., K), or (N heads, ..., K)."""
    if shown.ndim < 2 or not len(shown) or len(shown) % rows:
        return None
    return ~shown.reshape(rows, -1, shown.shape[-1]).any(1)
