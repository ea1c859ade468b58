"""Answers to questions, scored as SQuAD and KorQuAD score them.

Texts are normalised first; of several right answers the best counts. With "squad2" a question may
have no answer: no references, or only empty ones; the answer "" says so.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import TYPE_CHECKING

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.metrics.strings import TextMetric, mean

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = ("squad", "squad2", "korquad")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_MARKS = str.maketrans(
    dict.fromkeys("'\"《》<>〈〉()‘’", " ")
)  # become spaces before the rest goes


def exact_match_text(classes: int = 0, *, kind: str = "squad") -> TextMetric:  # noqa: ARG001
    """Return the share of answers that equal a right one after normalisation.

    kind  "squad" (v1.1), "squad2" (with questions that have no answer), "korquad"

    Rajpurkar et al. 2016, "SQuAD", arXiv:1606.05250; without an answer: Rajpurkar, Jia and Liang
    2018, arXiv:1806.03822; Lim, Kim and Lee 2019, "KorQuAD1.0", arXiv:1909.07005.
    Raises `ConfigError` for another kind, `DataError` for a question without a right answer where
    the kind has none.

    >>> exact_match_text().score(["The  Cat!", "dog"], [["cat"], ["a cat", "dogs"]])
    0.5
    """
    _check(kind)

    def score(answer: str, right: Sequence[str]) -> float:
        said = normalised(answer, kind=kind)
        return float(any(said == r for r in _normal(right, kind)))

    return mean("exact_match_text", score)


def answer_f1(classes: int = 0, *, kind: str = "squad") -> TextMetric:  # noqa: ARG001
    """Return the mean over questions of the best F1 between answer and right answer.

        F1 = 2 P R / (P + R),   P = shared / said,   R = shared / right, as multisets

    of words for "squad" and "squad2", of characters for "korquad", since Korean words carry their
    particles. Where nothing is shared it is 0; in "squad2" 1 where both are empty.

    Sources and errors as in `exact_match_text`.

    >>> round(answer_f1().score(["the big cat"], [["cat"]]), 4)
    0.6667
    """
    _check(kind)
    pieces = _characters if kind == "korquad" else str.split

    def score(answer: str, right: Sequence[str]) -> float:
        said = pieces(normalised(answer, kind=kind))
        if kind == "squad2" and not said:
            return float("" in _normal(right, kind))
        return max(_overlap(said, pieces(r)) for r in _normal(right, kind))

    return mean("answer_f1", score)


def normalised(text: str, *, kind: str = "squad") -> str:
    """Return a text as the official scorers compare it.

    squad    lower case, without ASCII punctuation, without the words a, an, the, one space between
             words
    korquad  quotation marks and brackets become spaces, then lower case, without ASCII
             punctuation, one space between words; there are no articles in Korean

    >>> normalised("The U.S.'s  flag"), normalised("《지구》의 (달)", kind="korquad")
    ('uss flag', '지구 의 달')
    """
    if kind == "korquad":
        return " ".join(text.translate(_MARKS).lower().translate(_PUNCTUATION).split())
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _normal(right: Sequence[str], kind: str) -> list[str]:
    """Return the right answers, normalised; in squad2 without empty ones, or [""] for no answer."""
    found = [normalised(r, kind=kind) for r in right]
    if kind == "squad2":
        return [r for r in found if r] or [""]
    if not found:
        raise DataError(
            f"a question without a right answer, scored as {kind}",
            "at least one right answer",
            "use kind=squad2 where questions may have none",
        )
    return found


def _characters(text: str) -> list[str]:
    return [c for word in text.split() for c in word]


def _overlap(said: list[str], right: list[str]) -> float:
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right)) if shared else 0.0


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise ConfigError(
            f"kind={kind!r} of the score of answers",
            "one of " + ", ".join(KINDS),
            did_you_mean(kind, KINDS),
        )
