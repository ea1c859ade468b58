"""The kinds of models that can be asked for next tokens, and which of them a model is.

B rows, N new tokens, T tokens so far, S tokens of a source, V of the vocabulary, D units.

A Transformer remembers its keys and values, an encoder-decoder its source too, a recurrent net one
vector a layer. What each class must do is written at `stepper.Stepper`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gipi.core.errors import ModelError
from gipi.nn.stepper import device_of, padded, refuse_empty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from gipi.nn.stepper import Stepper

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

    @property
    def context(self) -> int | None:
        """The number of positions that the model knows."""
        return positions_of(self.model)

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Past]:
        """Read the prompts at once."""
        refuse_empty(prompts)
        ids_BT, real_BT = padded(prompts, left=True, device=device_of(self.model))
        mask_BT = None if _equally_long(prompts) else real_BT
        rows, length = ids_BT.shape
        cache = self.model.new_cache(rows, length + room)  # type: ignore[operator]
        if _takes_places(self.model):  # logits of the whole prompt would be B·T·V numbers
            last_B = torch.arange(1, rows + 1, device=ids_BT.device) * length - 1
            outputs = self.model(input_ids=ids_BT, attention_mask=mask_BT, cache=cache, at=last_B)
            return outputs.logits, Past(cache, mask_BT)
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

    def read(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Read whole texts, without a cache."""
        return _read(self.model, texts)


@dataclass(frozen=True)
class EncoderDecoder:
    """A model that reads a source and writes an answer to it, such as T5 or Marian.

    Prompts are the sources, padded on the right: absolute positions count from their beginning.
    The answer begins with the ids `start_ids`, which are no part of it.
    """

    model: nn.Module
    start_ids: tuple[int, ...]

    @property
    def context(self) -> int | None:
        """The number of positions that the model knows, of a source and of an answer."""
        return positions_of(self.model)

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Past]:
        """Encode the sources, once, and read the beginning of the answers."""
        refuse_empty(prompts)
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

    def read(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Refuse: a text of its own has no source."""
        raise _needs_source(texts)


def _needs_source(texts: Sequence[Sequence[int]]) -> ModelError:
    return ModelError(f"{len(texts)} texts without sources for a model that reads a source",
                      "a model that goes on from a text, or a source for each text",
                      "score the texts as answers to their sources")  # fmt: skip


def positions_of(model: nn.Module) -> int | None:
    """Return how many tokens a row of a Transformer of ours may have, or None where none is said.

    Turned positions go on for ever, and a model that never saw so many makes nothing of them: then
    the length counts that it was made for.
    """
    embed = getattr(getattr(model, "config", None), "embed", None)
    positions = getattr(embed, "positions", 0) - getattr(embed, "offset", 0)
    return positions if positions > 0 else getattr(embed, "context", 0) or None


def _takes_places(model: nn.Module) -> bool:
    return "at" in inspect.signature(model.forward).parameters


def _read(model: nn.Module, texts: Sequence[Sequence[int]]) -> Tensor:
    refuse_empty(texts)
    ids_BT, real_BT = padded(texts, left=False, device=device_of(model))
    mask_BT = None if _equally_long(texts) else real_BT
    logits_BTV: Tensor = model(input_ids=ids_BT, attention_mask=mask_BT).logits
    return logits_BTV


def _equally_long(prompts: Sequence[Sequence[int]]) -> bool:
    return len({len(prompt) for prompt in prompts}) == 1


def _picked(state: Past, index: Tensor) -> Past:
    state.cache.reorder(index)
    rest = (part if part is None else part.index_select(0, index)
            for part in (state.mask, state.hidden, state.source))  # fmt: skip
    return Past(state.cache, *rest)


# ------------------------------------------------------------------------ recurrent nets


PIECE = 64  # tokens of a prompt read at once: only the last logits are wanted


@dataclass(frozen=True)
class Recurrent:
    """A recurrent language model: `begin(rows)`, `advance(tokens, state)`, `reorder(state, index)`.

    `advance` takes (B, T) and returns logits (B, T, V) and the state behind them, a tuple of
    tensors with the rows first. Prompts of one length are read together, without padding.
    """

    model: nn.Module

    @property
    def context(self) -> int | None:
        """No limit."""
        return None

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Any]:  # noqa: ARG002
        """Read the prompts, length by length."""
        refuse_empty(prompts)
        model: Any = self.model
        device = device_of(model)
        logits, states, order = [], [], []
        for length in sorted({len(prompt) for prompt in prompts}):
            mine = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
            ids_BT = torch.tensor([list(prompts[i]) for i in mine], device=device)
            state = model.begin(len(mine))
            for piece_BN in ids_BT.split(PIECE, 1):
                logits_BNV, state = model.advance(piece_BN, state)
            logits.append(logits_BNV[:, -1])
            states.append(state)
            order += mine
        back = torch.tensor(order, device=device).argsort()
        joined = (torch.cat(parts) for parts in zip(*states, strict=True))
        kind = type(states[0])
        whole = kind(*joined) if hasattr(kind, "_fields") else kind(joined)
        return torch.cat(logits)[back], model.reorder(whole, back)

    def step(self, tokens_BN: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read the new tokens from the carried state."""
        logits_BNV, state = self.model.advance(tokens_BN, state)  # type: ignore[operator]
        return logits_BNV, state

    def reorder(self, state: Any, index: Tensor) -> Any:
        """Pick rows of the state."""
        return self.model.reorder(state, index)  # type: ignore[operator]

    def history(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the prompts."""
        return [list(prompt) for prompt in prompts]

    def read(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Read whole texts from the first state."""
        refuse_empty(texts)
        model: Any = self.model
        ids_BT, _ = padded(texts, left=False, device=device_of(model))
        logits_BTV: Tensor = model.advance(ids_BT, model.begin(len(texts)))[0]
        return logits_BTV


@dataclass(frozen=True)
class RecurrentAnswer:
    """A recurrent encoder-decoder: `start(source)`, `step(tokens, state)`, `reorder(state, index)`.

    start  takes sources (B, S), padded on the right with `pad`, and returns the state before the
           first token; step takes (B,) and returns logits (B, V) and the next state
    """

    model: nn.Module
    start_ids: tuple[int, ...]
    pad: int

    @property
    def context(self) -> int | None:
        """No limit."""
        return None

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Any]:  # noqa: ARG002
        """Read the sources, and the beginning of the answers."""
        refuse_empty(prompts)
        device = device_of(self.model)
        source_BS, _ = padded(prompts, left=False, fill=self.pad, device=device)
        begin_BT = torch.tensor([self.start_ids] * len(prompts), device=device)
        logits_BTV, state = self.step(begin_BT, self.model.start(source_BS))  # type: ignore[operator]
        return logits_BTV[:, -1], state

    def step(self, tokens_BN: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read the new tokens one after the other."""
        logits = []
        for tokens_B in tokens_BN.unbind(1):
            logits_BV, state = self.model.step(tokens_B, state)  # type: ignore[operator]
            logits.append(logits_BV)
        return torch.stack(logits, 1), state

    def reorder(self, state: Any, index: Tensor) -> Any:
        """Pick rows of the state, the source included."""
        return self.model.reorder(state, index)  # type: ignore[operator]

    def history(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the beginnings of the answers."""
        return [list(self.start_ids) for _ in prompts]

    def read(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Refuse: a text of its own has no source."""
        raise _needs_source(texts)


# ------------------------------------------------------------------------ without a cache


@dataclass(frozen=True)
class Uncached:
    """A causal model without a cache, which reads everything again at each step: slow and plain."""

    model: nn.Module

    @property
    def context(self) -> int | None:
        """The number of positions that the model knows."""
        return positions_of(self.model)

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Any]:  # noqa: ARG002
        """Read the prompts."""
        refuse_empty(prompts)
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

    def read(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Read whole texts."""
        return _read(self.model, texts)


# ------------------------------------------------------------------------ the right kind


def stepper(
    model: nn.Module | Stepper, *, start_ids: tuple[int, ...] | None = None, pad: int = 0
) -> Stepper:
    """Return the stepper of a model by what it can do: itself, if it is one.

    start_ids  with what answers begin, for a model that reads a source; None: a model that goes on
    pad        id that fills up sources of a recurrent net

    A model that the trainer calls with tokens alone (`.body` is the Transformer) is unwrapped.
    Raises `ModelError` for start ids that are empty, for a model that reads in both directions, and
    for one without a head for words.
    """
    if _has(model, "start", "step", "reorder", "history", "read"):
        return model  # type: ignore[return-value]
    assert isinstance(model, torch.nn.Module)
    body: Any = getattr(model, "body", None)
    if isinstance(body, torch.nn.Module) and (
        _has(body, "new_cache") or hasattr(getattr(body, "config", None), "stack")
    ):
        model = body
    config = getattr(model, "config", None)
    if getattr(getattr(config, "stack", None), "causal", True) is False:
        raise ModelError("a model that reads a text in both directions",
                         "one that reads from left to right, which predicts what follows",
                         "use a model such as gpt2 or llama; to score, `score_hidden`")  # fmt: skip
    if getattr(config, "head", "words") != "words":
        raise ModelError(f"a model with the head '{config.head}'",  # type: ignore[union-attr]
                         "a head for words, which says what follows",
                         "load it with head='words'")  # fmt: skip
    if start_ids is None and hasattr(config, "decoder"):
        raise ModelError("a model that answers a source, without the ids that begin its answer",
                         "start_ids, such as decoder_start_token_id of its config.json",
                         "give start_ids; a text of its own cannot be scored")  # fmt: skip
    if start_ids is not None:
        if not start_ids:
            raise ModelError("no id with which an answer begins", "at least one",
                             "give the decoder's start id of its configuration")  # fmt: skip
        if _has(model, "new_cache"):
            return EncoderDecoder(model, start_ids)
        return RecurrentAnswer(model, start_ids, pad)
    if _has(model, "new_cache"):
        return DecoderOnly(model)
    return Recurrent(model) if _has(model, "begin", "advance", "reorder") else Uncached(model)


def _has(model: object, *names: str) -> bool:
    return all(callable(getattr(model, name, None)) for name in names)
