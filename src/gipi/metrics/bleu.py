"""BLEU: n-grams that a translation shares with its references, over the whole corpus.

The state holds twelve sums: for n = 1 .. 4 n-grams that match and n-grams said, then words said and
words of the references, and the rows.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.metrics.strings import TextMetric, summed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

ORDERS = 4
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# Every ASCII sign but ' , - . is a word; a full stop or a comma is one unless it stands between
# digits; a hyphen is one after a digit. Each rule sees the spaces of those before it.
_SIGNS = re.compile(r"([!-&(-+/:-@\[-`{-~])")
_BEFORE = re.compile(r"([^0-9])([.,])")
_AFTER = re.compile(r"([.,])([^0-9])")
_HYPHEN = re.compile(r"([0-9])(-)")


def bleu(classes: int = 0, *, words: str = "13a", lowercase: bool = False) -> TextMetric:  # noqa: ARG001
    """Return corpus BLEU from 0 to 100, equal to sacreBLEU's.

        BLEU = 100 · exp(min(0, 1 - r/c)) · exp(1/4 Σₙ log pₙ),   pₙ = matching / said n-grams

    with c words said and r words of the reference nearest in length (the shorter of equals). A
    reference's n-gram matches as often as it stands in the reference where it stands most often.
    Where no n-gram of an order matches, pₙ = 1 / (2ᵏ · said) for the k-th such order.

    words      how a text is cut: "13a" as the campaigns of WMT (mteval-v13a), "char" into
               characters (for Korean and Chinese, where no morphological analyser is at hand),
               "none" at spaces
    lowercase  compare without case

    Papineni et al. 2002, "BLEU"; smoothing: Chen and Cherry 2014, method 3; Post 2018, "A call for
    clarity in reporting BLEU scores", arXiv:1804.08771. A row weight multiplies all of a row's
    counts. Raises `ConfigError` for another way to cut, `DataError` for a row without references.

    >>> round(bleu().score(["the cat sat on the mat ."], [["the cat sat on a mat ."]]), 2)
    48.89
    """
    if words not in CUTS:
        raise ConfigError(
            f"words={words!r} of BLEU", "one of " + ", ".join(CUTS), did_you_mean(words, CUTS)
        )
    cut = CUTS[words]

    def statistics(answer: str, references: Sequence[str]) -> tuple[float, ...]:
        if not references:
            raise DataError(
                f"no reference for the translation {answer[:40]!r}", "at least one",
                "leave rows without a reference out",
            )  # fmt: skip
        said, *right = (
            cut((t.lower() if lowercase else t).rstrip()).split() for t in (answer, *references)
        )
        nearest = min((abs(len(r) - len(said)), len(r)) for r in right)[1]
        row: list[float] = []
        for n in range(1, ORDERS + 1):
            most: Counter[tuple[str, ...]] = Counter()
            for r in right:
                most |= _ngrams(r, n)
            own = _ngrams(said, n)
            row += [sum((own & most).values()), max(len(said) - n + 1, 0)]
        return (*row, float(len(said)), float(nearest), 1.0)

    return TextMetric("bleu", statistics, summed("bleu", 2 * ORDERS + 3, _score))


def _ngrams(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _score(sums: Tensor) -> float:
    *counts, said, right, rows = sums.tolist()
    if not rows:
        return math.nan
    matching, total = counts[0::2], counts[1::2]
    if not any(matching):
        return 0.0
    logs, smooth = 0.0, 1.0
    for m, n in zip(matching, total, strict=True):
        if not n:
            return 0.0  # no row has so many words
        if not m:
            smooth *= 2
        logs += math.log(m / n) if m else -math.log(smooth * n)
    return 100 * math.exp(min(0.0, 1 - right / said) + logs / ORDERS)


# ---------------------------------------------------------------------------- words


def words_13a(text: str) -> str:
    """Return a text with spaces between its words, as mteval-v13a cuts them.

    >>> words_13a("It's 3.5%, they say-so.")
    "It's 3.5 % , they say-so ."
    """
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = _SIGNS.sub(r" \1 ", f" {text} ")
    text = _BEFORE.sub(r"\1 \2 ", text)
    text = _AFTER.sub(r" \1 \2", text)
    return " ".join(_HYPHEN.sub(r"\1 \2 ", text).split())


def _characters(text: str) -> str:
    return " ".join(text)


def _as_it_is(text: str) -> str:
    return text


CUTS: dict[str, Callable[[str], str]] = {
    "13a": words_13a, "char": _characters, "none": _as_it_is
}  # fmt: skip
