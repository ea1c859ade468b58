"""How texts are generated: one value with all options, and what a published model says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gipi.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.nn.beam import Early


@dataclass(frozen=True)
class Generation:
    """How texts are generated.

    max_new_tokens  the most tokens of an answer
    temperature     0 takes the likeliest token; None: 1 with top_k or top_p, else 0
    top_k, top_p    draw only among the likeliest tokens, see `gipi.nn.sampling.Sampling`
    beams           1: one token after another; more: beam search, which draws nothing
    length_penalty, early_stopping   of beam search, see `gipi.nn.beam.beam_search`
    repetition_penalty, no_repeat_ngram, min_new_tokens, forbidden, last
                    what may not be said, see `gipi.nn.sampling.Limits`
    stop            ids that end an answer; None: the tokenizer's eos
    stop_texts      texts that end one too, such as a line's end; each must be one token
    samples         answers to each prompt: draws, or the best beams
    seed            of the draws
    begin           ids before each prompt, which may then be empty; None: bos, where the tokenizer
                    puts it there itself
    start_ids       with what an answer begins, for a model that reads a source; None: one that goes
                    on from its prompt
    slide           go on beyond the model's context by forgetting the oldest tokens
    """

    max_new_tokens: int = 50
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: Early = False
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    min_new_tokens: int = 0
    forbidden: tuple[int, ...] = ()
    last: int | None = None
    stop: tuple[int, ...] | None = None
    stop_texts: tuple[str, ...] = ()
    samples: int = 1
    seed: int = 0
    begin: tuple[int, ...] | None = None
    start_ids: tuple[int, ...] | None = None
    slide: bool = True


def check(how: Generation) -> None:
    """Raise the `ConfigError` of options that do not fit each other."""
    if how.max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens={how.max_new_tokens}", "at least 1",
                          "give max_new_tokens=50")  # fmt: skip
    if how.samples < 1:
        raise ConfigError(f"samples={how.samples}", "at least 1", "leave samples out")
    if how.beams < 1:
        raise ConfigError(f"beams={how.beams}", "at least 1", "leave beams out")
    drawn = any(v is not None for v in (how.temperature, how.top_k, how.top_p))
    if how.beams > 1 and drawn:
        raise ConfigError("beams with temperature, top_k or top_p",
                          "one of both: beam search draws nothing",
                          "leave beams out to draw, or the others out to search")  # fmt: skip
    if 1 < how.beams < how.samples:
        raise ConfigError(f"samples={how.samples} of {how.beams} beams", "at most one a beam",
                          f"give beams={how.samples}")  # fmt: skip
    if how.min_new_tokens > how.max_new_tokens:
        raise ConfigError(
            f"min_new_tokens={how.min_new_tokens} and max_new_tokens={how.max_new_tokens}",
            "no more at least than at most", "raise max_new_tokens",
        )  # fmt: skip


# ------------------------------------------------------------------------ foreign defaults


def generation_of(
    config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None, *, reads_source: bool
) -> Generation:
    """Return how a model in Hugging Face form is meant to be used.

    config        config.json as a dictionary
    defaults      generation_config.json, whose words go before those of the config
    reads_source  whether the model is an encoder-decoder

    Read are the ids with which answers begin and end, what is forbidden or comes last, beams,
    length penalty, early stopping, temperature, top-k and top-p where it draws, penalties and
    lengths. A maximal length that counts the prompt is left out.
    """
    words = {**config, **(defaults or {})}
    get = words.get
    eos = get("eos_token_id")
    draws = bool(get("do_sample"))
    singles = tuple(w[0] for w in get("bad_words_ids") or () if len(w) == 1)
    start = get("decoder_start_token_id") if reads_source else None
    how = Generation(
        stop=None if eos is None else tuple(eos) if isinstance(eos, list | tuple) else (eos,),
        start_ids=None if start is None else (start,),
        last=get("forced_eos_token_id"),
        forbidden=singles + tuple(get("suppress_tokens") or ()),
        beams=get("num_beams") or 1,
        length_penalty=_or(get("length_penalty"), otherwise=1.0),
        early_stopping=_or(get("early_stopping"), otherwise=False),
        repetition_penalty=_or(get("repetition_penalty"), otherwise=1.0),
        no_repeat_ngram=get("no_repeat_ngram_size") or 0,
        min_new_tokens=get("min_new_tokens") or 0,
    )
    most = get("max_new_tokens")
    if most:
        how = replace(how, max_new_tokens=most)
    if draws and how.beams == 1:
        top_p = get("top_p")
        how = replace(
            how, temperature=_or(get("temperature"), otherwise=1.0), top_k=get("top_k") or None,
            top_p=None if top_p is None or top_p >= 1 else top_p,
        )  # fmt: skip
    return how


def _or(value: Any, *, otherwise: Any) -> Any:
    return otherwise if value is None else value
