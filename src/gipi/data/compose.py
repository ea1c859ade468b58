"""Rows of tokens out of encoded texts: what stands around them, and what is cut of long ones.

text        [before] a [after]                 before, after: what the tokenizer puts around
two texts   [before] a [between] b [after]     a text, such as [CLS] and [SEP]; segments are
0 up to `between`, 1 from b on
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gipi.data.tokens import Tokens

if TYPE_CHECKING:
    from gipi.text import Tokenizer


@dataclass(frozen=True)
class Frame:
    """The ids that stand around texts; the last `own` of `between` belong to the second one."""

    before: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    own: int = 0

    def size(self, texts: int) -> int:
        """Return the number of added tokens of a row of one or two texts."""
        return len(self.before) + len(self.after) + (len(self.between) if texts > 1 else 0)


@dataclass(frozen=True)
class Rows:
    """Composed rows: tokens, segments of pairs, and the rows and tokens that were cut."""

    tokens: Tokens
    segments: Tokens | None
    full: np.ndarray

    def cut(self, ids: np.ndarray) -> tuple[float, float]:
        """Return the share of these rows that were cut, and of their tokens that are lost."""
        full, kept = self.full[ids], self.tokens.lengths[ids]
        return float((full > kept).mean()), float(1 - kept.sum() / max(int(full.sum()), 1))


def frame_of(tokenizer: Tokenizer, *, texts: int, apart: bool = False) -> Frame:
    """Return what `tokenizer` puts around one text, or around and between two.

    A tokenizer that adds nothing gets its separator, or its end of text, between two texts.
    With `apart` each of the two is framed as one text alone is.
    """
    if apart and texts > 1:
        one = frame_of(tokenizer, texts=1)
        return Frame(one.before, (*one.after, *one.before), one.after, len(one.before))
    found = tokenizer.encode("a", "b") if texts > 1 else tokenizer.encode("a")
    ids, added = found.ids.tolist(), found.special_mask
    real = np.flatnonzero(~added)
    if not len(real):
        return Frame()
    before, after = tuple(ids[: real[0]]), tuple(ids[real[-1] + 1 :])
    if texts == 1:
        return Frame(before, (), after)
    gap = tuple(i for i, extra in zip(ids, added, strict=True) if extra)
    between = gap[len(before) : len(gap) - len(after)]
    if not between:
        mark = tokenizer.sep if tokenizer.sep is not None else tokenizer.eos
        between = () if mark is None else (mark,)
    return Frame(before, between, after)


def compose(
    parts: list[tuple[np.ndarray, np.ndarray]], frame: Frame, length: int, tokenizer: Tokenizer
) -> Rows:
    """Return rows of at most `length` tokens out of encoded texts (values, offsets).

    Of two texts the longer one is cut first, until both have half of the room. A row without any
    token gets the unknown token, so that no model meets an empty row.
    """
    pad, vocab = pad_of(tokenizer)
    counts = [np.diff(offsets) for _, offsets in parts]
    room = length - frame.size(len(parts))
    if len(parts) == 1:
        kept = [np.minimum(counts[0], room)]
    else:
        a, b = counts
        kept_a = np.minimum(a, np.maximum(room - b, room - room // 2))
        kept = [kept_a, np.minimum(b, room - kept_a)]
    full = frame.size(len(parts)) + np.sum(counts, axis=0)
    alone = _stand_in(tokenizer) if frame.size(len(parts)) == 0 else None
    sizes = frame.size(len(parts)) + np.sum(kept, axis=0)
    empty = sizes == 0 if alone is not None else np.zeros(len(sizes), dtype=bool)
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes + empty, out=offsets[1:])
    values = np.empty(offsets[-1], dtype=np.int32)
    segments = np.zeros(offsets[-1], dtype=np.uint8) if len(parts) > 1 else None
    if alone is not None:
        values[offsets[:-1][empty]] = alone
    at = offsets[:-1].copy()
    _put(values, at, frame.before)
    at += len(frame.before)
    for place, ((ids, starts), n) in enumerate(zip(parts, kept, strict=True)):
        goal, goal_at = _places(at, n), at.copy()
        values[goal] = ids[_places(starts[:-1], n)]
        at += n
        ends = frame.between if place + 1 < len(parts) else frame.after
        _put(values, at, ends)
        if segments is not None and place:
            segments[goal] = 1
            for k in range(-frame.own, 0):
                segments[goal_at + k] = 1
            for k in range(len(ends)):
                segments[at + k] = 1
        at += len(ends)
    marks = None if segments is None else Tokens(segments, offsets)
    return Rows(Tokens(values, offsets, pad, vocab), marks, full)


def pad_of(tokenizer: Tokenizer) -> tuple[int, int]:
    """Return the id of padding and the number of ids; one more where the tokenizer has none."""
    if tokenizer.pad is None:
        return tokenizer.vocab_size, tokenizer.vocab_size + 1
    return tokenizer.pad, tokenizer.vocab_size


def _stand_in(tokenizer: Tokenizer) -> int:
    for found in (tokenizer.unk, tokenizer.eos, tokenizer.bos):
        if found is not None:
            return found
    return int(next(iter(tokenizer.encode(" ", special=False).ids.tolist()), 0))


def _places(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return starts[0] .. starts[0] + counts[0] - 1, starts[1] .., without a loop over rows."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.asarray(np.arange(total) + np.repeat(starts - (ends - counts), counts))


def _put(values: np.ndarray, at: np.ndarray, ids: tuple[int, ...]) -> None:
    for k, i in enumerate(ids):
        values[at + k] = i
