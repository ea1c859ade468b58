"""ROUGE-L: the longest common subsequence of a summary and its reference."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gipi.metrics.strings import TextMetric, mean

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORDS = re.compile(r"\w+")


def rouge_l(classes: int = 0) -> TextMetric:  # noqa: ARG001  one signature for all builders
    """Return the mean F1 of the longest common subsequence of words, the best reference counting.

        F1 = 2 P R / (P + R),   P = LCS / words said,   R = LCS / words of the reference

    Words are runs of letters and digits of any script, in lower case, without stemming; a text
    without words scores 0. Lin 2004, "ROUGE: a package for automatic evaluation of summaries"; P
    and R weigh the same, as is usual (the paper leaves their weight open).

    >>> round(rouge_l().score(["police killed the gunman"], [["police kill the gunman"]]), 2)
    0.75
    """

    def score(answer: str, references: Sequence[str]) -> float:
        said = _words(answer)
        return max((_f1(said, _words(r)) for r in references), default=0.0)

    return mean("rouge_l", score)


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def _f1(said: list[str], right: list[str]) -> float:
    both = len(said) + len(right)
    return 2 * longest_common(said, right) / both if both else 0.0


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    The row of the usual table is one integer with a bit for each word of `a`, so that a word of `b`
    costs a few operations on it (Hyyrö 2004, "Bit-parallel LCS-length computation revisited").

    >>> longest_common("abcbdab", "bdcaba")
    4
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        hits = row & places.get(word, 0)
        row = ((row + hits) | (row - hits)) & full
    return len(a) - row.bit_count()
