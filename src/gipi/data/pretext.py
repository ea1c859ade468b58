"""What an encoder or an encoder-decoder learns from running text alone: a task made of the text.

    masked   [CLS] w_1 .. [MASK] .. w_n [SEP]          name the hidden tokens
    pairs    [CLS] a_1 .. [SEP] b_1 .. [SEP]           the same, and does b follow a?
    spans    w_1 .. <0> .. w_n                         write what stood at <0>, <1>, ...

What is hidden is a function of (seed, epoch, row): another batch size, rank or worker hides the
same. Held-back text is hidden alike in every epoch, so that two scores can be compared.

Shapes: B rows, L tokens of text in a row, T tokens of a row, M hidden ones of a row, U units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gipi.core.batch import Batch
from gipi.core.errors import ConfigError, DataError
from gipi.core.seed import derive
from gipi.data.objectives import (
    MaskRule,
    SpanRule,
    corrupt_spans,
    join_pairs,
    mask_tokens,
    next_sentence,
    pair_starts,
    span_lengths,
)
from gipi.text.packing import rows_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from gipi.text import Tokenizer

LEAST = 5  # tokens of a row of two pieces: one of each, and three marks
LONG_WORD = 8  # hidden tokens beyond the share that a row may name, where words are hidden whole
Made = tuple[dict[str, "Tensor"], "Tensor"]


@dataclass(frozen=True)
class Marks:
    """Ids that mean something in these rows.

    begin, separator, mask, pad   of an encoder's rows
    end      behind each document, where there is one
    special  all ids that are never hidden
    vocab    number of ids
    """

    begin: int
    separator: int
    mask: int
    pad: int
    end: int | None
    special: tuple[int, ...]
    vocab: int


def marks_of(tokenizer: Tokenizer) -> Marks:
    """Return the marks of a tokenizer.

    Raises `DataError` for one that has no token for padding, hiding, beginning or parting.
    """
    roles = ("cls", "sep", "mask", "pad")
    lost = [role for role in roles if getattr(tokenizer, role) is None]
    if lost:
        raise DataError(
            f"the tokenizer has no {' and no '.join(lost)} token",
            "tokens with the roles cls, sep, mask and pad",
            "train one here (leave tokenizer out), or name the roles in special_tokens_map.json",
        )
    ids = [tokenizer.id_of(token) for token in tokenizer.special_tokens]
    assert tokenizer.cls is not None
    assert tokenizer.sep is not None
    assert tokenizer.mask is not None
    assert tokenizer.pad is not None
    return Marks(tokenizer.cls, tokenizer.sep, tokenizer.mask, tokenizer.pad, tokenizer.eos,
                 tuple(sorted(ids)), tokenizer.vocab_size)  # fmt: skip


class PretextStream:
    """Batches of one part of running text, made into a task (the `core.batch.Stream` of it).

    make  (ids (B,), epoch) -> inputs and target of these rows
    """

    weighted = False
    mode, mode_reason = "mapped", "rows are cut out of one row of tokens"

    def __init__(
        self, rows: int, make: Callable[[Tensor, int], Made], *, batch_size: int | str,
        seed: int = 0, shuffle: bool = True, device: torch.device | str = "cpu",
        rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        if not rows:
            raise DataError("no window of text to read", "at least one", "give more text")
        self.rows, self.make = rows, make
        self.batch_size = rows if batch_size == "full" else min(int(batch_size), rows)
        self.steps = -(-rows // self.batch_size)
        self.seed, self.shuffle = seed, shuffle
        self.device, self.rank, self.world = torch.device(device), rank, world
        self.seconds_waiting = 0.0

    def close(self) -> None:
        """Do nothing: no worker reads for this stream."""

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield this rank's share of the batches of one epoch from batch number `skip` on."""
        order = torch.arange(self.rows)
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive(self.seed, "shuffle", epoch))
            order = torch.randperm(self.rows, generator=generator)
        size, r, w = self.batch_size, self.rank, self.world
        for step in range(skip, self.steps):
            ids = order[step * size : (step + 1) * size]
            n = len(ids)
            own = ids[n * r // w : n * (r + 1) // w]
            weight = None
            if not len(own):  # every rank takes part in every step
                own, weight = ids[:1], torch.zeros(1, device=self.device)
            inputs, target = self.make(own, epoch if self.shuffle else 0)
            placed = {k: v.to(self.device, non_blocking=True) for k, v in inputs.items()}
            yield Batch(placed, target.to(self.device), weight, own.to(self.device), n)


# ------------------------------------------------------------------------ masked


def masked_rows(
    tokens: np.ndarray, marks: Marks, *, length: int, seed: int, share: float = 0.15,
    words: np.ndarray | None = None,
) -> tuple[int, Callable[[Tensor, int], Made]]:  # fmt: skip
    """Return the number of rows and what makes them: windows with a share of the tokens hidden.

    tokens  (N,) ids of one part of the text
    length  T, [CLS] and [SEP] included
    words   (N,) number of the word of each token: words are hidden whole; None: token by token

    Inputs are `tokens` (B, T) and `positions` (B, M), targets (B, M), -100 in unused places.
    """
    body = length - 2
    if body < 1:
        raise ConfigError(f"max_length={length}", "at least 3 tokens", "set a larger max_length")
    rule = MaskRule(marks.mask, marks.vocab, marks.special, share=share)
    most = rule.most(length) + (LONG_WORD if words is not None else 0)

    def make(ids: Tensor, epoch: int) -> Made:
        starts = ids.numpy() * body
        rows = _framed(_windows(tokens, starts, body, marks.pad), marks)
        numbers = None
        if words is not None:
            numbers = _framed(_windows(words, starts, body, -1), marks, edge=-2)
        found = mask_tokens(rows, ids, rule=rule, seed=seed, epoch=epoch, words=numbers)
        return _fixed({"tokens": found.tokens}, found.positions, found.targets, most)

    return len(tokens) // body or int(len(tokens) > 0), make


def paired_rows(
    tokens: np.ndarray, marks: Marks, *, length: int, seed: int, share: float = 0.15
) -> tuple[int, Callable[[Tensor, int], Made]]:
    """Return rows of two pieces of text, hidden as in `masked_rows`, that follow each other or not.

    A document is what stands between two of the tokens that end one. It is cut into pieces of half
    a row. Inputs are `tokens` (B, T), `segments` (B, T) and `positions` (B, M), targets (B, M + 1):
    the last column says whether the second piece is from elsewhere.

    Raises `DataError` where there is no token that ends a document, or only one document, and
    `ConfigError` for rows without room for two pieces.
    """
    if length < LEAST:
        raise ConfigError(
            f"max_length={length} for pairs of texts", f"at least {LEAST} tokens",
            "set a larger max_length",
        )  # fmt: skip
    offsets, documents = _units(tokens, marks, (length - 3) // 2)
    firsts = pair_starts(documents)
    rule = MaskRule(marks.mask, marks.vocab, marks.special, share=share)
    most = rule.most(length)

    def make(ids: Tensor, epoch: int) -> Made:
        first = firsts[ids]
        second, label = next_sentence(documents, first, seed=seed, epoch=epoch)
        rows, segments, _ = join_pairs(
            tokens, offsets, first=first, second=second, width=length, begin=marks.begin,
            separator=marks.separator, pad=marks.pad,
        )  # fmt: skip
        found = mask_tokens(rows, ids, rule=rule, seed=seed, epoch=epoch)
        inputs = {"tokens": found.tokens, "segments": segments}
        inputs, target = _fixed(inputs, found.positions, found.targets, most)
        return inputs, torch.cat([target, label[:, None]], 1)

    return len(firsts), make


# ------------------------------------------------------------------------ spans


def span_rows(
    tokens: np.ndarray, rule: SpanRule, *, length: int, seed: int
) -> tuple[int, Callable[[Tensor, int], Made]]:
    """Return rows with spans cut out, and those spans as what the model writes.

    length  L, tokens of text in a row

    Inputs are `tokens` (B, T) and `target_in` (B, T'), the target one place later behind padding;
    targets are (B, T'). Every whole window has the same T and T': no place is padding.
    """
    span_lengths(length, rule)

    def make(ids: Tensor, epoch: int) -> Made:
        rows = torch.from_numpy(rows_at(tokens, ids.numpy() * length, length))
        found = corrupt_spans(rows, ids, rule=rule, seed=seed, epoch=epoch)
        before = torch.full_like(found.targets, rule.pad)
        before[:, 1:] = found.targets[:, :-1]
        return {"tokens": found.inputs, "target_in": before}, found.labels

    rows = len(tokens) // length
    if not rows:
        raise DataError(
            f"{len(tokens):,} tokens of text", f"at least {length:,}, one window",
            "give more text, or set a smaller max_length",
        )  # fmt: skip
    return rows, make


# ------------------------------------------------------------------------ pieces


def _windows(values: np.ndarray, starts: np.ndarray, length: int, fill: int) -> Tensor:
    """Return (B, L) int64 values from each start on; behind the end of the text stands `fill`."""
    at = starts[:, None] + np.arange(length)
    inside = at < len(values)
    found = values[np.minimum(at, len(values) - 1)].astype(np.int64)
    return torch.from_numpy(np.where(inside, found, fill))


def _framed(rows_BL: Tensor, marks: Marks, *, edge: int | None = None) -> Tensor:
    """Return [CLS] row [SEP]; with `edge`, numbers of words, which no mark has."""
    column = torch.empty(len(rows_BL), 1, dtype=torch.int64)
    begin, end = (marks.begin, marks.separator) if edge is None else (edge, edge - 1)
    return torch.cat([column.fill_(begin).clone(), rows_BL, column.fill_(end).clone()], 1)


def _fixed(inputs: dict[str, Tensor], positions: Tensor, targets: Tensor, most: int) -> Made:
    """Return hidden places in M = `most` columns; what goes beyond is hidden and not asked for."""
    lack = most - positions.shape[1]
    if lack > 0:
        positions = torch.nn.functional.pad(positions, (0, lack))
        targets = torch.nn.functional.pad(targets, (0, lack), value=-100)
    return {**inputs, "positions": positions[:, :most]}, targets[:, :most]


def _units(tokens: np.ndarray, marks: Marks, size: int) -> tuple[Tensor, Tensor]:
    """Return where each piece of a document begins (U + 1,), and its document (U,).

    Pieces lie end to end: the token that ends a document belongs to its last piece.
    """
    ends = np.flatnonzero(tokens == marks.end) if marks.end is not None else np.zeros(0, np.int64)
    if not len(ends):
        raise DataError(
            "running text without a token between its documents",
            "documents, for the second text of half the pairs is from another one",
            "give documents (titles, blank lines, files), or leave task.next_sentence out",
        )
    bounds = np.unique(np.concatenate([[0], ends + 1, [len(tokens)]]))
    starts: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    for number, (a, b) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        found = np.arange(a, b, size)
        if len(found) > 1 and b - found[-1] < max(2, size // 4):
            found = found[:-1]  # a last crumb stays with the piece before it
        starts.append(found)
        numbers.append(np.full(len(found), number))
    offsets = np.concatenate([*starts, [len(tokens)]]).astype(np.int64)
    return torch.from_numpy(offsets), torch.from_numpy(np.concatenate(numbers).astype(np.int64))
