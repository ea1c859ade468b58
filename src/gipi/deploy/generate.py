"""Texts from a language model: whole, several of a prompt, or piece by piece as they are written.

A model that goes on from a text (GPT-2, Llama, a recurrent one) and one that answers a source (T5,
Marian) are asked in the same way; of the second kind the ids are known with which answers begin.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor, nn

from gipi.core.errors import ConfigError, DataError
from gipi.deploy.generation import Generation, check
from gipi.deploy.pieces import (
    Tokens,
    check_fit,
    check_ids,
    continued,
    ids_of,
    named,
    opening,
    refuse_no_text,
    vocabulary_of,
)
from gipi.nn.beam import beam_search
from gipi.nn.decode import decode, decoding
from gipi.nn.sampling import Limits, Sampling, row_keys
from gipi.nn.sliding import Sliding
from gipi.nn.stepper import refuse_empty
from gipi.nn.steppers import stepper
from gipi.train.mode import eval_mode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gipi.nn.stepper import Stepper

ROWS = 32  # prompts read at once
TAIL = 16  # tokens before new ones that tell how these are written
UNFINISHED = "\ufffd"  # what a decoder writes for bytes that are no whole character yet


@dataclass(frozen=True)
class Generated:
    """One answer.

    row      number of its prompt
    prompt   the text that was given; "" where ids were
    text     what was written after it, or as an answer to it
    tokens   the new ids, without the one that ended it
    stopped  "stop": by an id that ends an answer; "length": by `max_new_tokens`
    score    of beam search, else None
    """

    row: int
    prompt: str
    text: str
    tokens: tuple[int, ...]
    stopped: Literal["stop", "length"]
    score: float | None = None


@dataclass(frozen=True)
class Piece:
    """What one step added to the text of one prompt; `last` where nothing more will come."""

    row: int
    text: str
    last: bool


def generate(
    model: nn.Module | Stepper,
    tokenizer: Tokens,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    *,
    how: Generation | None = None,
    batch_size: int = ROWS,
) -> list[Generated]:
    """Return the answers to all prompts in their order, `how.samples` of each beside each other.

    prompts     texts, or ids as they shall be read
    batch_size  rows at once; the answers do not depend on it

    Raises `DataError` for an empty prompt or one that is longer than the model's context,
    `ModelError` for ids that the model does not know, `ConfigError` for options that do not fit.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}", "at least 1", "leave batch_size out")
    asked = _Asked.of(model, tokenizer, prompts, how or Generation())
    how, copies = asked.how, 1 if asked.how.beams > 1 else asked.how.samples
    rows = [row for row in range(len(asked.ids)) for _ in range(copies)]
    keys = row_keys([asked.ids[row] for row in rows], how.seed)
    found: dict[int, list[Generated]] = {}
    with asked.evaluating():
        for batch, slides in _batches([len(asked.ids[row]) for row in rows], asked, batch_size):
            ids, told = [asked.ids[rows[i]] for i in batch], asked.stepper(slides=slides)
            if how.beams > 1:
                answers: Any = beam_search(
                    told, ids, beams=how.beams, max_new_tokens=how.max_new_tokens, stop=asked.stop,
                    length_penalty=how.length_penalty, early_stopping=how.early_stopping,
                    limits=asked.limits, best=how.samples, numbers=[rows[i] for i in batch],
                )  # fmt: skip
            else:
                answers = [[answer] for answer in decode(
                    told, ids, max_new_tokens=how.max_new_tokens, stop=asked.stop,
                    sampling=asked.sampling, limits=asked.limits, keys=[keys[i] for i in batch],
                    numbers=[rows[i] for i in batch],
                )]  # fmt: skip
            for i, several in zip(batch, answers, strict=True):
                found[i] = [asked.written(rows[i], answer) for answer in several]
    return [one for i in range(len(rows)) for one in found[i]]


def stream(
    model: nn.Module | Stepper,
    tokenizer: Tokens,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    *,
    how: Generation | None = None,
) -> Iterator[Piece]:
    """Yield the answers piece by piece as they are written, all prompts side by side.

    The pieces of a row, joined, are what `generate` returns as its text. A character whose bytes
    have not all come is held back. Raises what `generate` does, before the first piece, and
    `ConfigError` for beam search and for several samples, of which nothing is known early.
    """
    asked = _Asked.of(model, tokenizer, prompts, how or Generation())
    if asked.how.beams > 1 or asked.how.samples > 1:
        raise ConfigError("a stream of beams or of several samples",
                          "one answer a prompt, chosen token by token",
                          "leave beams and samples out, or do not stream")  # fmt: skip
    lengths = {len(ids) for ids in asked.ids}
    slides = any(asked.must_slide(length) for length in lengths)
    if slides and len(lengths) > 1:
        raise ConfigError(
            "a stream of prompts of several lengths beyond the model's context",
            "one prompt, or answers that fit the context",
            f"stream them one by one, or give max_new_tokens below {asked.room(max(lengths)) + 1}",
        )
    return _pieces(asked, slides=slides)


def _pieces(asked: _Asked, *, slides: bool) -> Iterator[Piece]:
    said: list[list[int]] = [[] for _ in asked.ids]
    settled = [0] * len(asked.ids)  # tokens whose text was given out whole
    shown = [""] * len(asked.ids)  # of the text behind them
    how, ends = asked.how, set(asked.stop)
    steps = decoding(
        asked.stepper(slides=slides), asked.ids, max_new_tokens=how.max_new_tokens,
        stop=asked.stop, sampling=asked.sampling, limits=asked.limits, seed=how.seed,
    )  # fmt: skip
    step = 0
    while True:
        with asked.evaluating():  # not around the yield: whoever reads may train in between
            tokens = next(steps, None)
        if tokens is None:
            return
        step += 1
        for row, token in tokens.items():
            last = token in ends or step == how.max_new_tokens
            if token not in ends:
                said[row].append(token)
            text = asked.text(row, said[row], since=settled[row])
            whole = text if last else text.rstrip(UNFINISHED)
            if not whole.startswith(shown[row]):
                whole = shown[row]  # a decoder took back what it wrote; wait until it is settled
            new, shown[row] = whole[len(shown[row]) :], whole
            if whole == text:
                settled[row], shown[row] = len(said[row]), ""
            if new or last:
                yield Piece(row, new, last)


# ------------------------------------------------------------------------ one request


@dataclass(frozen=True)
class _Asked:
    """A request that was checked: prompts as ids, options resolved."""

    model: nn.Module | Stepper
    tokenizer: Tokens
    texts: list[str]
    ids: list[list[int]]
    how: Generation
    stop: tuple[int, ...]
    sampling: Sampling
    limits: Limits
    plain: Stepper = field(repr=False)

    @classmethod
    def of(
        cls,
        model: nn.Module | Stepper,
        tokenizer: Tokens,
        wanted: Sequence[Any] | Tensor | np.ndarray,
        how: Generation,
    ) -> _Asked:
        check_fit(model, tokenizer)
        check(how)
        prompts: Sequence[Any]
        prompts = wanted.tolist() if isinstance(wanted, Tensor | np.ndarray) else wanted
        if isinstance(prompts, str) or (len(prompts) and isinstance(prompts[0], int)):
            prompts = [prompts]  # one prompt, not one for each of its characters or ids
        source = how.start_ids is not None
        given = [prompt for prompt in prompts if isinstance(prompt, str)]
        if given:
            refuse_no_text(prompts, empty=bool(how.begin))
        texts = given or [""] * len(prompts)
        before = [] if source or not given else opening(tokenizer, how.begin)
        ids = [
            [*before, *ids_of(tokenizer, text, special=source)] if given else list(map(int, prompt))
            for text, prompt in zip(texts, prompts, strict=True)
        ]
        refuse_empty(ids)
        check_ids(model, ids)
        plain = stepper(model, start_ids=how.start_ids, pad=tokenizer.pad or 0)
        eos = () if tokenizer.eos is None else (tokenizer.eos,)
        stop = (eos if how.stop is None else how.stop) + _one_token_each(tokenizer, how.stop_texts)
        _refuse_unsayable(model, stop)
        asked = cls(
            model, tokenizer, texts, ids, how, stop,
            Sampling(how.temperature, how.top_k, how.top_p),
            Limits(how.repetition_penalty, how.no_repeat_ngram, how.min_new_tokens,
                   how.forbidden + _undecodable(model, tokenizer), how.last),
            plain,
        )  # fmt: skip
        asked._refuse_long()
        if how.samples > 1 and how.beams == 1 and asked.sampling.heat == 0:
            raise ConfigError(f"samples={how.samples} of the likeliest tokens, all of them equal",
                              "draws, or beams",
                              "give a temperature above 0, or beams")  # fmt: skip
        return asked

    def evaluating(self) -> Any:
        """Return the block in which the model is in evaluation mode."""
        module = (
            self.model if isinstance(self.model, nn.Module) else getattr(self.plain, "model", None)
        )
        return eval_mode(module if isinstance(module, nn.Module) else nn.Module())

    def stepper(self, *, slides: bool) -> Stepper:
        """Return what is asked for tokens."""
        return Sliding(self.plain, self.plain.context or 0) if slides else self.plain

    def room(self, length: int) -> int:
        """Return how many tokens fit behind a prompt; the last one is never read."""
        assert self.plain.context is not None
        return self.plain.context - length + 1

    def must_slide(self, length: int) -> bool:
        """Return whether the answer to a prompt of this length may not fit the context."""
        going_on = self.how.start_ids is None and self.plain.context is not None
        return going_on and self.room(length) < self.how.max_new_tokens

    def text(self, row: int, said: Sequence[int], *, since: int = 0) -> str:
        """Return new tokens of a row as text, those before `since` left out."""
        before = self.ids[row][-TAIL:] if self.how.start_ids is None else []
        before = [*before, *said[max(since - TAIL, 0) : since]][-TAIL:]
        return continued(self.tokenizer, before, said[since:])

    def written(self, row: int, answer: Any) -> Generated:
        """Return an answer as people read it."""
        return Generated(
            row, self.texts[row], self.text(row, answer.tokens), answer.tokens,
            "length" if answer.stopped is None else "stop", getattr(answer, "score", None),
        )  # fmt: skip

    def _refuse_long(self) -> None:
        context, how = self.plain.context, self.how
        if context is None:
            return
        for row, ids in enumerate(self.ids):
            if len(ids) > context:
                raise DataError(f"{named(row, self.texts[row])} has {len(ids)} tokens",
                                f"at most {context}, the context of the model",
                                "shorten the prompt; nothing is cut unasked")  # fmt: skip
            if self.must_slide(len(ids)) and not how.slide:
                raise ConfigError(
                    f"{named(row, self.texts[row])} has {len(ids)} tokens and "
                    f"max_new_tokens={how.max_new_tokens}",
                    f"at most {context} together, the context of the model",
                    f"give max_new_tokens={self.room(len(ids))}, or slide=True to forget some",
                )
        begin = len(how.start_ids or ())
        if begin and self.room(begin) < how.max_new_tokens:
            raise ConfigError(f"max_new_tokens={how.max_new_tokens}",
                              f"at most {self.room(begin)}, the context of the model",
                              f"give max_new_tokens={self.room(begin)}")  # fmt: skip


def _batches(lengths: list[int], asked: _Asked, most: int) -> Iterator[tuple[list[int], bool]]:
    """Yield row numbers, and whether they slide: of like lengths, and of one length where so."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batch: list[int] = []
    for i in order:
        slides = asked.must_slide(lengths[i])
        if batch and (
            len(batch) == most
            or slides != asked.must_slide(lengths[batch[0]])
            or (slides and lengths[i] != lengths[batch[0]])
        ):
            yield batch, asked.must_slide(lengths[batch[0]])
            batch = []
        batch.append(i)
    if batch:
        yield batch, asked.must_slide(lengths[batch[0]])


def _one_token_each(tokenizer: Tokens, texts: Sequence[str]) -> tuple[int, ...]:
    found = []
    for text in texts:
        ids = ids_of(tokenizer, text)
        if len(ids) != 1:
            raise ConfigError(f"stop text {text!r} is {len(ids)} tokens", "one token",
                              "cut the answer afterwards, or give the id as `stop`")  # fmt: skip
        found += ids
    return tuple(found)


def _refuse_unsayable(model: nn.Module | Stepper, stop: tuple[int, ...]) -> None:
    """Raise for an id that ends an answer and that the model cannot say: it would never end."""
    known = vocabulary_of(model)
    wrong = [i for i in stop if i < 0 or (known is not None and i >= known)]
    if wrong:
        raise ConfigError(f"stop id {wrong[0]} for a model of {known} ids", "ids that it can say",
                          "use the tokenizer that belongs to this model")  # fmt: skip


def _undecodable(model: nn.Module | Stepper, tokenizer: Tokens) -> tuple[int, ...]:
    """Return the ids that only the model has: rows of its table that fill it up, never trained."""
    known, size = vocabulary_of(model), getattr(tokenizer, "vocab_size", None)
    return () if known is None or size is None else tuple(range(size, known))
