"""Words as numbers: a vocabulary of training words, casing, last letters, and all letters.

    words    (B, T)     0 padding, 1 unknown or too rare, then the words of training by frequency
    shapes   (B, T, 2)  casing (see `CASINGS`) and last letters, 0 padding, 1 unknown
    letters  (B, T, C)  of each word, as written; 0 behind its end, 1 unknown

Words are compared in lower case and with every digit as 0, so that years and amounts are alike.
The vocabulary travels in the schema.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.data.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

CASINGS = ("padding", "lower", "title", "upper", "mixed", "number", "with digits", "signs")
SUFFIX = 3  # last letters that are told
OFTEN = 5  # training words with last letters, from which these are known
LEAST = 2  # occurrences from which a word is known: what occurs once teaches the unknown word
LETTERS = 20  # of a word, at most: of longer ones the middle is left out
MOST_WORDS = 50_000
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class Vocabulary:
    """What is known of words: each list begins with id 2 (casing needs none)."""

    words: tuple[str, ...]
    letters: tuple[str, ...]
    suffixes: tuple[str, ...]
    width: int

    @property
    def parts(self) -> tuple[int, int, int]:
        """Numbers of ids of letters, casings and suffixes."""
        return len(self.letters) + 2, len(CASINGS), len(self.suffixes) + 2

    def to_stats(self) -> dict[str, Any]:
        """Return JSON-able values for the schema."""
        return {
            "words": list(self.words), "letters": list(self.letters),
            "suffixes": list(self.suffixes), "width": self.width, "parts": list(self.parts),
            "vocab": len(self.words) + 2, "pad": 0,
        }  # fmt: skip

    @staticmethod
    def from_stats(stats: dict[str, Any]) -> Vocabulary:
        """Rebuild from `to_stats`."""
        return Vocabulary(tuple(stats["words"]), tuple(stats["letters"]),
                          tuple(stats["suffixes"]), int(stats["width"]))  # fmt: skip


def folded(word: str) -> str:
    """Return a word as the vocabulary has it.

    >>> folded("EU"), folded("1996-08-22")
    ('eu', '0000-00-00')
    """
    return _DIGIT.sub("0", word.lower())


def casing(word: str) -> int:
    """Return the place of a word's casing in `CASINGS`.

    >>> [CASINGS[casing(w)] for w in ("eu", "Eu", "EU", "eBay", "12", "B-52", "--")]
    ['lower', 'title', 'upper', 'mixed', 'number', 'with digits', 'signs']
    """
    letters = [c for c in word if c.isalpha()]
    if any(c.isdigit() for c in word):
        return 6 if letters else 5
    if not letters:
        return 7
    small = [c.lower() == c for c in letters]
    if all(small):
        return 1
    if not small[0] and all(small[1:]):
        return 2
    return 4 if any(small) else 3


def learn(rows: Sequence[Sequence[str]]) -> Vocabulary:
    """Return the vocabulary of training sentences.

    A word is known from `LEAST` occurrences on; where no word has as many, all are.
    """
    counts = Counter(folded(w) for row in rows for w in row)
    known = [w for w, n in _ranked(counts) if n >= LEAST] or [w for w, _ in _ranked(counts)]
    letters = Counter(c for row in rows for w in row for c in w)
    ends = Counter(w[-SUFFIX:] for w in counts)
    often = [s for s, n in _ranked(ends) if n >= OFTEN]
    longest = max((len(w) for row in rows for w in row), default=1)
    return Vocabulary(
        tuple(known[:MOST_WORDS]), tuple(sorted(letters)), tuple(often),
        max(1, min(longest, LETTERS)),
    )  # fmt: skip


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def encode(vocabulary: Vocabulary, rows: Sequence[Sequence[str]]) -> dict[str, Tokens]:
    """Return words, shapes and letters of sentences; each different word is looked up once."""
    seen: dict[str, int] = {}
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    places = np.fromiter(
        (seen.setdefault(w, len(seen)) for row in rows for w in row), np.int64, int(offsets[-1])
    )
    words = {w: i for i, w in enumerate(vocabulary.words, 2)}
    letters = {c: i for i, c in enumerate(vocabulary.letters, 2)}
    suffixes = {s: i for i, s in enumerate(vocabulary.suffixes, 2)}
    ids = np.zeros(len(seen), dtype=np.int32)
    shapes = np.zeros((len(seen), 2), dtype=np.int32)
    spelt = np.zeros((len(seen), vocabulary.width), dtype=np.int32)
    for i, word in enumerate(seen):
        plain = folded(word)
        ids[i] = words.get(plain, 1)
        shapes[i] = casing(word), suffixes.get(plain[-SUFFIX:], 1)
        written = _short(word, vocabulary.width)
        spelt[i, : len(written)] = [letters.get(c, 1) for c in written]
    return {
        "words": Tokens(ids[places], offsets, 0, len(words) + 2),
        "shapes": Tokens(shapes[places], offsets),
        "letters": Tokens(spelt[places], offsets),
    }


def unknown(vocabulary: Vocabulary, rows: Sequence[Sequence[str]]) -> float:
    """Return the share of words in these sentences that the vocabulary does not have."""
    known = set(vocabulary.words)
    found = [folded(w) in known for row in rows for w in row]
    return 1 - sum(found) / max(len(found), 1)


def _short(word: str, width: int) -> str:
    if len(word) <= width:
        return word
    front = (width + 1) // 2
    return word[:front] + word[len(word) - (width - front) :]
