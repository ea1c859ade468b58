"""How likely a language model finds texts: perplexity, bits per byte, the surprise of each token.

T scored tokens of a text. surprise_t = −log₂ p(x_t | before), in bits.

    perplexity = 2^(Σ surprise / T)          bits per byte = Σ surprise / bytes of what was scored

A text is scored from its first token on where an id stands before it, else from its second: before
the first is nothing that could predict it.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from gipi.core.errors import ConfigError, DataError, ModelError
from gipi.deploy.pieces import (
    Tokens,
    check_fit,
    check_ids,
    ids_of,
    named,
    opening,
    placed,
    refuse_no_text,
)
from gipi.nn.hidden_tokens import hidden_log_likelihoods
from gipi.nn.likelihood import ending_log_likelihoods, log_likelihoods
from gipi.nn.steppers import positions_of, stepper
from gipi.train.mode import eval_mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.nn.stepper import Stepper

WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class TextScore:
    """One text, token by token.

    text      the text
    spans     characters [a, b) of each scored token
    surprise  bits of each scored token
    bytes     of the text from the first scored token on, in UTF-8
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    surprise: tuple[float, ...]
    bytes: int

    @property
    def bits(self) -> float:
        """Σ surprise."""
        return math.fsum(self.surprise)

    @property
    def perplexity(self) -> float:
        """2^(mean surprise); NaN where no token was scored."""
        return _power(self.bits, len(self.surprise))

    @property
    def bits_per_byte(self) -> float:
        """Bits by bytes: compares models of different lossless tokenizers; NaN without a token."""
        return self.bits / self.bytes if self.bytes else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; what is not known, or infinite, is None."""
        tokens = [
            {"text": self.text[a:b], "bits": _known(round(bits, 4))}
            for (a, b), bits in zip(self.spans, self.surprise, strict=True)
        ]
        return {"text": self.text, "bits": _known(self.bits), "perplexity": _known(self.perplexity),
                "bits_per_byte": _known(self.bits_per_byte), "tokens": tokens}  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """All texts together: means over their tokens and bytes, not over texts."""

    texts: tuple[TextScore, ...]

    @property
    def perplexity(self) -> float:
        """2^(Σ bits / Σ tokens) over all texts."""
        bits = math.fsum(text.bits for text in self.texts)
        return _power(bits, sum(len(text.surprise) for text in self.texts))

    @property
    def bits_per_byte(self) -> float:
        """Σ bits / Σ bytes over all texts."""
        count = sum(text.bytes for text in self.texts)
        return math.fsum(text.bits for text in self.texts) / count if count else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"perplexity": _known(self.perplexity), "bits_per_byte": _known(self.bits_per_byte),
                "texts": [text.as_dict() for text in self.texts]}  # fmt: skip


def score(
    model: nn.Module | Stepper,
    tokenizer: Tokens,
    texts: Sequence[str],
    *,
    context: int | None = None,
    stride: int | None = None,
    begin: tuple[int, ...] | None = None,
    batch_size: int | None = None,
) -> Scores:
    """Return how likely the model finds each text.

    model       one that goes on from a text
    context     the most tokens read at once; None: what the model knows, or all
    stride      new tokens of each further window of a long text; None: half a context
    begin       ids before each text, such as eos for a model that has read document after document;
                None: bos, where the tokenizer puts it there itself; (): none
    batch_size  windows at once; None: by their size

    Raises `DataError` for an empty text, `ModelError` for a tokenizer that does not fit,
    `ConfigError` for a context longer than the model's.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    refuse_no_text(texts)
    check_fit(model, tokenizer)
    told = stepper(model)
    if context is not None and told.context is not None and context > told.context:
        raise ConfigError(f"context={context}", f"at most {told.context}, which the model knows",
                          f"give context={told.context} or leave it out")  # fmt: skip
    before = opening(tokenizer, begin)
    found = [placed(tokenizer, text) for text in texts]
    check_ids(model, [ids for ids, _ in found])
    for row, (ids, _) in enumerate(found):
        if not ids:
            raise DataError(f"{named(row, texts[row])} has no token", "at least one",
                            "use a tokenizer that knows its characters")  # fmt: skip
    with evaluating(model):
        log_p = log_likelihoods(told, [[*before, *ids] for ids, _ in found], context=context,
                                stride=stride, batch_size=batch_size)  # fmt: skip
    out = []
    for text, (ids, spans), values in zip(texts, found, log_p, strict=True):
        judged = values[max(len(before) - 1, 0) :]  # not what was put before the text
        scored = spans[len(ids) - len(judged) :]
        place = scored[0][0] if before else spans[0][1]
        out.append(TextScore(
            text, tuple(scored), tuple(-v / math.log(2) for v in judged.double().tolist()),
            len(text[place:].encode("utf-8", "replace")) if scored else 0,
        ))  # fmt: skip
    return Scores(tuple(out))


def score_hidden(
    model: nn.Module, tokenizer: Tokens, texts: Sequence[str], *, batch_size: int | None = None
) -> Scores:
    """Return how well a model that reads both ways, such as BERT, guesses each token when hidden.

    The numbers are those of `score` in form: surprise points at what stands oddly between its
    neighbours, but perplexities of the two kinds cannot be compared. See `nn.hidden_tokens`.

    batch_size  copies of texts at once, each with one token hidden; None: by their lengths

    Raises `DataError` for an empty text or one beyond the model's context, `ModelError` for a
    tokenizer that does not fit or has no id that hides a token.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    refuse_no_text(texts)
    check_fit(model, tokenizer)
    mask = getattr(tokenizer, "mask", None)
    if mask is None:
        raise ModelError("a tokenizer without an id that hides a token", "one with [MASK]",
                         "use the tokenizer that the model was trained with")  # fmt: skip
    whole = [ids_of(tokenizer, text, special=True) for text in texts]
    found = [placed(tokenizer, text) for text in texts]
    check_ids(model, whole)
    places = []
    for row, (ids, (own, _)) in enumerate(zip(whole, found, strict=True)):
        begin = next((i for i in range(len(ids)) if ids[i : i + len(own)] == own), None)
        if not own or begin is None:
            raise DataError(f"{named(row, texts[row])} has no token of its own", "at least one",
                            "use a tokenizer that knows its characters")  # fmt: skip
        places.append(list(range(begin, begin + len(own))))
        limit = positions_of(model)
        if limit is not None and len(ids) > limit:
            raise DataError(f"{named(row, texts[row])} has {len(ids)} tokens",
                            f"at most {limit}, the context of the model",
                            "cut it into sentences")  # fmt: skip
    with evaluating(model):
        log_p = hidden_log_likelihoods(model, whole, places, mask=mask, batch_size=batch_size)
    return Scores(tuple(
        TextScore(text, tuple(spans), tuple(-v / math.log(2) for v in values.double().tolist()),
                  len(text.encode("utf-8", "replace")))
        for text, (_, spans), values in zip(texts, found, log_p, strict=True)
    ))  # fmt: skip


# ------------------------------------------------------------------------ the odd word


@dataclass(frozen=True)
class OddWord:
    """A word that surprises: characters [begin, end) of its text, and its bits."""

    word: str
    begin: int
    end: int
    bits: float


def words(scored: TextScore) -> list[OddWord]:
    """Return all words of a text in their order, each with the bits of its tokens.

    A word is what stands between spaces. A token belongs to the word in which its first character
    other than a space lies; a word none of whose tokens was scored is left out.
    """
    bits: dict[int, float] = defaultdict(float)
    found = list(WORD.finditer(scored.text))
    at = 0
    for (a, b), surprise in zip(scored.spans, scored.surprise, strict=True):
        while at < len(found) and found[at].end() <= a:
            at += 1
        if at < len(found) and found[at].start() < b:
            bits[at] += surprise
    return [OddWord(found[i].group(), found[i].start(), found[i].end(), total)
            for i, total in sorted(bits.items())]  # fmt: skip


def odd_words(scores: Scores, *, most: int = 3, above_bits: float = 0.0) -> list[list[OddWord]]:
    """Return the words of each text that surprise the most, the oddest first.

    most        how many of a text at most
    above_bits  only words of more bits than this

    What a wrong word does to the words behind it counts against those: the first odd one of a text
    deserves the first look. Raises `ConfigError` for most < 1.
    """
    if most < 1:
        raise ConfigError(f"most={most}", "at least one word", "give most=3")
    return [
        sorted((w for w in words(text) if w.bits > above_bits), key=lambda w: -w.bits)[:most]
        for text in scores.texts
    ]


# ------------------------------------------------------------------------ rescoring


@dataclass(frozen=True)
class Rescored:
    """One candidate: its number among those of its row, and what speaks for it.

    log_p  Σ log p in nats, by the model
    total  what candidates are ordered by
    """

    number: int
    text: str
    log_p: float
    total: float


def rescore(
    model: nn.Module | Stepper,
    tokenizer: Tokens,
    candidates: Sequence[Sequence[str]],
    *,
    sources: Sequence[str] | None = None,
    start_ids: tuple[int, ...] | None = None,
    begin: tuple[int, ...] | None = None,
    scores: Sequence[Sequence[float]] | None = None,
    weight: float = 1.0,
    mean: bool = True,
) -> list[list[Rescored]]:
    """Return the candidates of each row, translations or transcripts of one thing, the best first.

        total = score + weight · log p / T            log p as it is with mean=False

    sources    what the candidates answer, for a model that reads a source; with `start_ids`
    begin      as of `score`
    scores     log-probabilities that another system gave the candidates; None: all equal
    weight     of the language model beside them
    mean       per token, so that a long candidate has no handicap

    Raises `DataError` for a row without candidates or an empty one, `ConfigError` for unequal
    numbers of rows.
    """
    flat = [text for row in candidates for text in row]
    for row, several in enumerate(candidates):
        if not several:
            raise DataError(f"row {row} has no candidate", "at least one",
                            "leave the row out")  # fmt: skip
    refuse_no_text(flat)
    _refuse_unequal(candidates, sources, scores)
    if sources is None:
        texts = score(model, tokenizer, flat, begin=begin).texts
        log_p = [(-text.bits * math.log(2), len(text.surprise)) for text in texts]
    else:
        log_p = _answering(model, tokenizer, candidates, sources, start_ids, begin)
    found, at = [], 0
    for row, several in enumerate(candidates):
        ranked = []
        for number, text in enumerate(several):
            total, count = log_p[at]
            given = 0.0 if scores is None else scores[row][number]
            fluent = total / max(count, 1) if mean else total
            ranked.append(Rescored(number, text, total, given + weight * fluent))
            at += 1
        found.append(sorted(ranked, key=lambda r: -r.total))
    return found


def _answering(
    model: nn.Module | Stepper, tokenizer: Tokens, candidates: Sequence[Sequence[str]],
    sources: Sequence[str], start_ids: tuple[int, ...] | None, begin: tuple[int, ...] | None,
) -> list[tuple[float, int]]:  # fmt: skip
    refuse_no_text(sources)
    check_fit(model, tokenizer)
    end = [] if tokenizer.eos is None else [tokenizer.eos]
    endings = [[[*ids_of(tokenizer, text), *end] for text in row] for row in candidates]
    source_ids = [ids_of(tokenizer, text, special=True) for text in sources]
    if start_ids is None:  # a model that goes on: the source stands before the candidate
        source_ids = [[*opening(tokenizer, begin), *ids_of(tokenizer, text)] for text in sources]
    check_ids(model, source_ids)
    told = stepper(model, start_ids=start_ids, pad=tokenizer.pad or 0)
    with evaluating(model):
        found = ending_log_likelihoods(told, source_ids, endings)
    return [(float(values.sum()), len(values)) for row in found for values in row]


def _refuse_unequal(
    candidates: Sequence[Sequence[str]], sources: Sequence[str] | None,
    scores: Sequence[Sequence[float]] | None,
) -> None:  # fmt: skip
    if sources is not None and len(sources) != len(candidates):
        raise ConfigError(f"{len(sources)} sources for {len(candidates)} rows of candidates",
                          "one source a row", "give as many of each")  # fmt: skip
    if scores is not None and [len(s) for s in scores] != [len(c) for c in candidates]:
        raise ConfigError("scores that are not as many as the candidates", "one score a candidate",
                          "give a list of scores for each row")  # fmt: skip


# ------------------------------------------------------------------------ small things


def evaluating(model: nn.Module | Stepper) -> Any:
    """Return the block in which a model, or that of a stepper, is in evaluation mode."""
    parts = (model, getattr(model, "model", None))
    return eval_mode(next((m for m in parts if isinstance(m, nn.Module)), nn.Module()))


def _power(bits: float, tokens: int) -> float:
    if not tokens:
        return math.nan
    mean = bits / tokens
    return 2.0**mean if mean < 1024 else math.inf


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
