"""`gipi generate` and `gipi score`: what a language model writes, and what it thinks of a text."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gipi.cli import checks
from gipi.core.errors import ConfigError

if TYPE_CHECKING:
    from gipi.api import LanguageModel
    from gipi.deploy.score import Scores, TextScore

COUNTS = {"max_new_tokens": 1, "top_k": 1, "beam": 1, "samples": 1, "seed": 0}
SHOWN_TOKENS = 2000  # of a text whose tokens are painted
LISTED_TOKENS = 100_000  # of all texts, whose surprise is written into the JSON
LEVELS = ((12.0, "bold red"), (8.0, "red"), (4.0, "yellow"), (1.0, ""), (0.0, "dim"))


def generate(
    run: str, prompts: list[str], given: dict[str, str | None], *, as_json: bool
) -> dict[str, Any]:
    """Print how the model goes on with each prompt, one alone as it is written, and return it."""
    options = {key: _value(key, text) for key, text in given.items() if text is not None}
    if "beam" in options:
        options["beams"] = options.pop("beam")
    lm = _opened(run)
    how = lm.asked(options)
    if len(prompts) == 1 and how.beams == how.samples == 1 and not as_json:
        return _streamed(run, lm, prompts[0], how)
    found = lm.generate(prompts, how=how)
    for one in found:
        print(f"{one.prompt}{one.text}")
        if len(found) > 1:
            print("-" * 20)
    answers = [
        {"row": one.row, "prompt": one.prompt, "text": one.text, "tokens": len(one.tokens),
         "stopped": one.stopped, **({} if one.score is None else {"score": one.score})}
        for one in found
    ]  # fmt: skip
    return {"model": run, "answers": answers}


def _streamed(run: str, lm: LanguageModel, prompt: str, how: Any) -> dict[str, Any]:
    pieces, said = lm.stream(prompt, how=how), []
    sys.stdout.write(prompt)
    for piece in pieces:
        sys.stdout.write(piece.text)
        sys.stdout.flush()
        said.append(piece.text)
    print()
    return {"model": run, "answers": [{"row": 0, "prompt": prompt, "text": "".join(said)}]}


def score(
    run: str, texts: list[str], *, context: str | None, stride: str | None
) -> dict[str, Any]:  # fmt: skip
    """Print perplexity and bits per byte of texts, and paint the tokens of short ones."""
    sizes = {
        key: _count(key, text, 1)
        for key, text in {"context": context, "stride": stride}.items()
        if text is not None
    }
    read = [_text(item) for item in texts]
    found = _opened(run).score([text for _, text in read], **sizes)
    for (name, _), one in zip(read, found.texts, strict=True):
        _paint(name, one)
    if len(read) > 1:
        print(f"all: {_said(found)}")
    answer = {"model": run, **found.as_dict()}
    for (name, _), row in zip(read, answer["texts"], strict=True):
        row["name"] = name
    if sum(len(one.surprise) for one in found.texts) > LISTED_TOKENS:
        for row in answer["texts"]:
            del row["tokens"], row["text"]
    return answer


def _opened(run: str) -> LanguageModel:
    place = Path(run)
    if not (place / "config.json").is_file():
        checks.model_or_run_exists(run)
    checks.prepare_environment()
    from gipi import api

    return api.language_model(run)


def _text(item: str) -> tuple[str, str]:
    """Return what a text is called, and the text: of a file where there is one."""
    checks.data_exists(item, or_text=True)
    try:
        place = Path(item)
        is_file = place.is_file()
    except (OSError, ValueError):  # too long, or with a null byte, for a name
        is_file = False
    if not is_file:
        return (item if len(item) <= 40 else f"{item[:37]}..."), item
    from gipi.data.sources.plain import read_text

    return item, read_text(place)


def _paint(name: str, one: TextScore) -> None:
    from rich.console import Console
    from rich.text import Text

    from gipi.deploy.score import Scores, odd_words

    console = Console(highlight=False)
    if len(one.surprise) <= SHOWN_TOKENS:
        line, at = Text(), 0
        for (a, b), bits in zip(one.spans, one.surprise, strict=True):
            line.append(one.text[at:a])
            line.append(one.text[max(a, at) : b], next(s for least, s in LEVELS if bits >= least))
            at = max(at, b)
        console.print(line)
    odd = odd_words(Scores((one,)))[0]
    print(f"{name}: {_said(one)}, {len(one.surprise)} tokens")
    if odd:
        print("most surprising: " + ", ".join(f"{w.word} ({w.bits:.1f} bits)" for w in odd))


def _said(one: TextScore | Scores) -> str:
    perplexity = one.perplexity
    shown = f"{perplexity:.4g}" if math.isfinite(perplexity) else "not known: too short"
    return f"perplexity {shown}, {one.bits_per_byte:.4f} bits per byte"


def _value(key: str, text: str) -> int | float:
    return _count(key, text, COUNTS[key]) if key in COUNTS else _number(key, text)


def _count(key: str, text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) < 2**31:
        raise ConfigError(
            f"--{key.replace('_', '-')} {text}", f"a whole number of {least} or more",
            f"for instance --{key.replace('_', '-')} {max(least, 20)}",
        )  # fmt: skip
    return int(text)


def _number(key: str, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or found < 0:
        raise ConfigError(
            f"--{key.replace('_', '-')} {text}", "a number that is not negative",
            f"for instance --{key.replace('_', '-')} 0.9",
        )  # fmt: skip
    return found
