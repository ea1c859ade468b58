"""One way to ask any model for the next token: from prompts to a state, from a state onwards.

B rows, N new tokens, T tokens so far, S tokens of a source, V of the vocabulary, D units.

A `Stepper` is what decoding, beam search and scoring call. Models differ in what they remember:
a Transformer its keys and values, an encoder-decoder its source too, a recurrent net one vector.
`stepper` finds the right kind; a model of another kind brings a class with the same three methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from gipi.core.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


class Stepper(Protocol):
    """What can be asked for next tokens. A state belongs to its stepper and may change in place."""

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Any]:
        """Read the prompts; return the logits (B, V) of what follows each, and the state.

        room  how many tokens a row may still get; memory for them is taken at once
        """

    def step(self, tokens_BN: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read N further tokens a row, all real; return the logits (B, N, V) after each."""

    def reorder(self, state: Any, index: Tensor) -> Any:
        """Return the state whose row i is row index[i] of `state`; rows may repeat or be left out.

        index  (B',) int64
        """

    def history(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the tokens of each row that count as already said."""


def padded(rows: Sequence[Sequence[int]], *, left: bool, device: torch.device | str = "cpu",
           fill: int = 0) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return ids (B, T) int64 and their mask (B, T) bool, padded with `fill` on one side.

    >>> ids, mask = padded([[5, 6, 7], [8]], left=True)
    >>> ids.tolist(), mask.int().tolist()
    ([[5, 6, 7], [0, 0, 8]], [[1, 1, 1], [0, 0, 1]])
    """
    width = max((len(row) for row in rows), default=0)
    gaps = [[fill] * (width - len(row)) for row in rows]
    off = [[0] * len(gap) for gap in gaps]
    ids = [[*gap, *row] if left else [*row, *gap] for row, gap in zip(rows, gaps, strict=True)]
    on = [
        [*gap, *[1] * len(row)] if left else [*[1] * len(row), *gap]
        for row, gap in zip(rows, off, strict=True)
    ]
    shape = (len(rows), width)
    return (
        torch.tensor(ids, dtype=torch.int64, device=device).reshape(shape),
        torch.tensor(on, dtype=torch.bool, device=device).reshape(shape),
    )


def device_of(model: nn.Module) -> torch.device:
    """Return where the parameters of a model lie; the processor where it has none."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _refuse_empty(prompts: Sequence[Sequence[int]]) -> None:
    empty = [i for i, prompt in enumerate(prompts) if not len(prompt)]
    if empty:
        raise DataError(f"prompt {empty[0]} has no token", "at least one token to go on from",
                        "begin with the id that starts a text, or leave the row out")  # fmt: skip


# ------------------------------------------------------------------------ Transformers


@dataclass
class Past:
    """What a Transformer remembers.

    cache   keys and values, `model.new_cache(rows, length)`
    mask    (B, T) bool of all tokens so far; None where none is padding
    hidden  (B, S, D) of the source, and source (B, S) its mask; None for a decoder alone
    """

    cache: Any
    mask: Tensor | None = None
    hidden: Tensor | None = None
    source: Tensor | None = None


@dataclass(frozen=True)
class DecoderOnly:
    """A causal language model with a cache, such as GPT-2 or Llama.

    Prompts are padded on the left, so that every row's last token stands in the last column; the
    model takes positions from the mask, hence padding moves none.
    """

    model: nn.Module

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Past]:
        """Read the prompts at once."""
        _refuse_empty(prompts)
        ids_BT, real_BT = padded(prompts, left=True, device=device_of(self.model))
        mask_BT = None if _equally_long(prompts) else real_BT
        cache = self.model.new_cache(len(prompts), ids_BT.shape[1] + room)  # type: ignore[operator]
        outputs = self.model(input_ids=ids_BT, attention_mask=mask_BT, cache=cache)
        return outputs.logits[:, -1], Past(cache, mask_BT)

    def step(self, tokens_BN: Tensor, state: Past) -> tuple[Tensor, Past]:
        """Read the new tokens beside the cached ones."""
        mask_BT = state.mask
        if mask_BT is not None:
            mask_BT = torch.cat([mask_BT, torch.ones_like(tokens_BN, dtype=torch.bool)], 1)
        outputs = self.model(input_ids=tokens_BN, attention_mask=mask_BT, cache=state.cache)
        return outputs.logits, Past(state.cache, mask_BT)

    def reorder(self, state: Past, index: Tensor) -> Past:
        """Pick rows of the cache and of the mask."""
        return _picked(state, index)

    def history(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the prompts."""
        return [list(prompt) for prompt in prompts]


@dataclass(frozen=True)
class EncoderDecoder:
    """A model that reads a source and writes an answer to it, such as T5 or Marian.

    Prompts are the sources, padded on the right: absolute positions count from their beginning.
    The answer begins with the ids `start_ids`, which are no part of it.
    """

    model: nn.Module
    start_ids: tuple[int, ...]

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Past]:
        """Encode the sources, once, and read the beginning of the answers."""
        _refuse_empty(prompts)
        device = device_of(self.model)
        source_BS, real_BS = padded(prompts, left=False, device=device)
        mask_BS = None if _equally_long(prompts) else real_BS
        begin_BT = torch.tensor([self.start_ids] * len(prompts), device=device)
        cache = self.model.new_cache(len(prompts), begin_BT.shape[1] + room)  # type: ignore[operator]
        outputs = self.model(input_ids=source_BS, attention_mask=mask_BS,
                             decoder_input_ids=begin_BT, cache=cache)  # fmt: skip
        return outputs.logits[:, -1], Past(cache, None, outputs.encoder_hidden, mask_BS)

    def step(self, tokens_BN: Tensor, state: Past) -> tuple[Tensor, Past]:
        """Read the new tokens; the source is not encoded again."""
        outputs = self.model(input_ids=None, attention_mask=state.source,
                             decoder_input_ids=tokens_BN, encoder_hidden=state.hidden,
                             cache=state.cache)  # fmt: skip
        return outputs.logits, state

    def reorder(self, state: Past, index: Tensor) -> Past:
        """Pick rows of the cache and of what the encoder gave."""
        return _picked(state, index)

    def history(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the beginnings of the answers: what the source says may be said again."""
        return [list(self.start_ids) for _ in prompts]


def _equally_long(prompts: Sequence[Sequence[int]]) -> bool:
    return len({len(prompt) for prompt in prompts}) == 1


def _picked(state: Past, index: Tensor) -> Past:
    state.cache.reorder(index)
    rest = (part if part is None else part.index_select(0, index)
            for part in (state.mask, state.hidden, state.source))  # fmt: skip
    return Past(state.cache, *rest)


# ------------------------------------------------------------------------ recurrent, uncached


@dataclass(frozen=True)
class Recurrent:
    """A net that carries a state from token to token: model(ids (B, T), state) -> logits, state.

    The state is a tensor or a nest of tuples of tensors, with the rows on axis `rows`, as torch's
    LSTM gives it. Prompts of one length are read together, without padding.
    """

    model: nn.Module
    rows: int = 1

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Any]:  # noqa: ARG002
        """Read the prompts, length by length."""
        _refuse_empty(prompts)
        device = device_of(self.model)
        logits, states, order = [], [], []
        for length in sorted({len(prompt) for prompt in prompts}):
            mine = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
            ids_BT = torch.tensor([list(prompts[i]) for i in mine], device=device)
            logits_BTV, state = self.model(ids_BT, None)
            logits.append(logits_BTV[:, -1])
            states.append(state)
            order += mine
        back = torch.tensor(order, device=device).argsort()
        return torch.cat(logits)[back], self.reorder(_joined(states, self.rows), back)

    def step(self, tokens_BN: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read the new tokens from the carried state."""
        logits_BNV, state = self.model(tokens_BN, state)
        return logits_BNV, state

    def reorder(self, state: Any, index: Tensor) -> Any:
        """Pick rows of every tensor of the state."""
        if isinstance(state, tuple):
            return tuple(self.reorder(part, index) for part in state)
        return state.index_select(self.rows, index)

    def history(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the prompts."""
        return [list(prompt) for prompt in prompts]


def _joined(states: list[Any], rows: int) -> Any:
    if isinstance(states[0], tuple):
        return tuple(_joined(list(parts), rows) for parts in zip(*states, strict=True))
    return torch.cat(states, rows)


@dataclass(frozen=True)
class Uncached:
    """A causal model without a cache, which reads everything again at each step: slow and plain."""

    model: nn.Module

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Any]:  # noqa: ARG002
        """Read the prompts."""
        _refuse_empty(prompts)
        ids_BT, mask_BT = padded(prompts, left=True, device=device_of(self.model))
        outputs = self.model(input_ids=ids_BT, attention_mask=mask_BT)
        return outputs.logits[:, -1], (ids_BT, mask_BT)

    def step(self, tokens_BN: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read all tokens so far and the new ones."""
        ids_BT = torch.cat([state[0], tokens_BN], 1)
        mask_BT = torch.cat([state[1], torch.ones_like(tokens_BN, dtype=torch.bool)], 1)
        outputs = self.model(input_ids=ids_BT, attention_mask=mask_BT)
        return outputs.logits[:, -tokens_BN.shape[1] :], (ids_BT, mask_BT)

    def reorder(self, state: Any, index: Tensor) -> Any:
        """Pick rows of the tokens."""
        return state[0][index], state[1][index]

    def history(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the prompts."""
        return [list(prompt) for prompt in prompts]


def stepper(model: nn.Module | Stepper, *, start_ids: tuple[int, ...] | None = None) -> Stepper:
    """Return the stepper of a model: itself, `EncoderDecoder`, `DecoderOnly` or `Uncached`.

    start_ids  with what answers begin, for a model that reads a source; None: a model that goes on

    Raises `ModelError` for start ids that are empty.
    """
    if all(hasattr(model, name) for name in ("start", "step", "reorder", "history")):
        return model  # type: ignore[return-value]
    assert isinstance(model, torch.nn.Module)
    if start_ids is not None:
        if not start_ids:
            raise ModelError("no id with which an answer begins", "at least one",
                             "give the decoder's start id of its configuration")  # fmt: skip
        return EncoderDecoder(model, start_ids)
    return DecoderOnly(model) if hasattr(model, "new_cache") else Uncached(model)
