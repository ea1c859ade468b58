"""Classification without training: the label that a language model finds the likeliest to follow.

    label(x) = argmax_y  log p(y | examples, x)

With no, one or a few solved examples before the text: zero-, one- and few-shot (Brown et al. 2020,
"Language models are few-shot learners", arXiv:2005.14165). The examples are read once for all
texts, a text once for all labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.deploy.pieces import Tokens, check_fit, check_ids, ids_of, named, opening, refuse_no_text
from gipi.deploy.score import evaluating
from gipi.nn.likelihood import ending_log_likelihoods
from gipi.nn.steppers import stepper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from gipi.nn.stepper import Stepper

PATTERN = "Text: {text}\nLabel: {label}"
BETWEEN = "\n\n"
NEUTRAL = "N/A"
Normalise = Literal["sum", "mean", "prior"]


@dataclass(frozen=True)
class Guess:
    """The label of one text.

    scores  {label: its share}, softmax over the labels' scores
    """

    text: str
    label: str
    scores: dict[str, float]


def classify_by_likelihood(
    model: nn.Module | Stepper,
    tokenizer: Tokens,
    texts: Sequence[str],
    labels: Sequence[str] | Mapping[str, str],
    *,
    examples: Sequence[tuple[str, str]] = (),
    pattern: str = PATTERN,
    instruction: str = "",
    normalise: Normalise = "mean",
    begin: tuple[int, ...] | None = None,
    start_ids: tuple[int, ...] | None = None,
) -> list[Guess]:
    """Return the likeliest label of each text.

    labels       names, or {name: how it is written behind a text}
    examples     (text, label) pairs that are shown before every text; none: zero-shot
    pattern      how a text and its label are written, with {text} once and {label} at its end
    instruction  what stands before everything, such as a sentence that says what is asked
    normalise    sum: log p of a label; mean: per token of it; prior: log p less that behind the
                 text "N/A", which takes out how common a label is (Holtzman et al. 2021, "Surface
                 form competition", arXiv:2104.08315; Zhao et al. 2021, arXiv:2102.09690)
    begin        ids before everything; None: bos, where the tokenizer puts it there itself
    start_ids    with what answers begin, for a model that reads a source

    A space before {label} goes to the label, as tokenizers cut it. Raises `ConfigError` for labels
    or a pattern that cannot be used, `DataError` for an empty text, one that does not fit the
    context, and an example of a label that is not among the labels.
    """
    written = dict(labels) if isinstance(labels, Mapping) else {name: name for name in labels}
    texts = [texts] if isinstance(texts, str) else list(texts)
    if normalise not in get_args(Normalise):
        raise ConfigError(f"normalise={normalise!r}", "one of " + ", ".join(get_args(Normalise)),
                          did_you_mean(normalise, get_args(Normalise)))  # fmt: skip
    _check(labels, written, pattern, examples)
    refuse_no_text(texts)
    check_fit(model, tokenizer)
    form = _Form(tokenizer, pattern, written)
    told = stepper(model, start_ids=start_ids, pad=tokenizer.pad or 0)
    asked = [*texts, NEUTRAL] if normalise == "prior" else texts
    shown = instruction + "".join(form.filled(*pair) + BETWEEN for pair in examples)
    if start_ids is None:
        shared = [
            *opening(tokenizer, begin),
            *form.instruction(instruction),
            *form.examples(examples),
        ]
        stems = [form.stem(text) for text in asked]
    else:  # a source is read as a whole, by one encoder that sees all of it
        shared = []
        stems = [ids_of(tokenizer, shown + form.before(text), special=True) for text in asked]
    endings = [form.label(name) for name in written]
    check_ids(model, [shared, *stems, *endings])
    _refuse_long(told, texts, shared, stems, 0 if start_ids else max(map(len, endings)))
    with evaluating(model):
        found = ending_log_likelihoods(told, stems, [endings] * len(stems), shared=shared)
    scored = [[float(v.mean() if normalise == "mean" else v.sum()) for v in row] for row in found]
    if normalise == "prior":
        prior = scored.pop()
        scored = [[s - p for s, p in zip(row, prior, strict=True)] for row in scored]
    return [_guess(text, list(written), row) for text, row in zip(texts, scored, strict=True)]


@dataclass(frozen=True)
class _Form:
    """How a text and a label become tokens: each part by itself, in examples as in questions."""

    tokenizer: Tokens
    pattern: str
    written: dict[str, str]

    def filled(self, text: str, name: str) -> str:
        return self.before(text) + self.gap + self.written[name]

    @property
    def gap(self) -> str:
        before = self.pattern.removesuffix("{label}")
        return " " if before.endswith(" ") else ""

    def before(self, text: str) -> str:
        return self.pattern.removesuffix("{label}").removesuffix(self.gap).replace("{text}", text)

    def stem(self, text: str) -> list[int]:
        return ids_of(self.tokenizer, self.before(text))

    def label(self, name: str) -> list[int]:
        return ids_of(self.tokenizer, self.gap + self.written[name])

    def instruction(self, text: str) -> list[int]:
        return ids_of(self.tokenizer, text) if text else []

    def examples(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        between = ids_of(self.tokenizer, BETWEEN)
        return [i for text, name in pairs for i in (*self.stem(text), *self.label(name), *between)]


def _guess(text: str, names: list[str], row: list[float]) -> Guess:
    top = max(row)
    if top == -math.inf:  # the model holds all of them to be impossible, alike
        shares = [1.0 / len(row)] * len(row)
    else:
        weights = [math.exp(s - top) for s in row]
        shares = [w / math.fsum(weights) for w in weights]
    return Guess(text, names[row.index(top)], dict(zip(names, shares, strict=True)))


# ------------------------------------------------------------------------ errors


def _check(
    labels: Any, written: dict[str, str], pattern: str, examples: Sequence[tuple[str, str]]
) -> None:
    if len(written) < len(labels):
        raise ConfigError("two labels of one name", "labels that differ", "drop one of them")
    if len(written) < 2:
        raise ConfigError(f"{len(written)} label", "at least two to choose from",
                          "name all labels")  # fmt: skip
    if not all(written.values()) or len(set(written.values())) < len(written):
        raise ConfigError("labels that are written alike, or as nothing", "a word for each",
                          "write every label in a way of its own")  # fmt: skip
    if (
        pattern.count("{text}") != 1
        or not pattern.endswith("{label}")
        or (pattern.count("{label}") != 1)
    ):
        raise ConfigError(f"pattern {pattern!r}", "{text} once, and {label} at the end",
                          f"write it like {PATTERN!r}")  # fmt: skip
    for number, (_, name) in enumerate(examples):
        if name not in written:
            raise DataError(f"example {number} has the label {name!r}",
                            f"one of: {', '.join(written)}", "correct the example")  # fmt: skip


def _refuse_long(
    told: Stepper, texts: list[str], shared: list[int], stems: list[list[int]], room: int
) -> None:
    if told.context is None:
        return
    for row, stem in enumerate(stems):
        total = len(shared) + len(stem) + room
        if total > told.context:
            text = texts[row] if row < len(texts) else NEUTRAL
            raise DataError(
                f"{named(row, text)} with its label and what stands before it has {total} tokens",
                f"at most {told.context}, the context of the model",
                "give fewer examples, or shorten the text; nothing is cut unasked",
            )
