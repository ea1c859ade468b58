"""WordPiece, to be read, and equal to the fast one.

    learn    as byte pair encoding, on characters; a piece that does not begin a word carries ##
    segment  from the left, always the longest piece that is known; a word of which some rest is
             not known is unknown as a whole

Schuster and Nakajima 2012, "Japanese and Korean voice search"; ## and longest-first from Devlin et
al. 2019, "BERT", arXiv:1810.04805.

Differs from the paper: it merges the pair that raises the likelihood of the corpus most,
count(ab) / (count(a) count(b)); the `tokenizers` package, and therefore this, merges the most
frequent one.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from gipi.text.training import CONTINUES, LONGEST

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from gipi.text.teaching_bpe import Pair


def spell(word: str) -> list[str]:
    """Return a word as single characters, all but the first marked.

    >>> spell("low")
    ['l', '##o', '##w']
    """
    return [word[0], *(CONTINUES + c for c in word[1:])]


def alphabet(words: Mapping[str, int]) -> list[str]:
    """Return the pieces that are there from the beginning, in the order of their ids."""
    every = sorted({c for word in words for c in word})
    later = sorted({c for word in words for c in word[1:]})
    return [*every, *(CONTINUES + c for c in later)]


def learn(words: Mapping[str, int], special: Sequence[str], *, vocab: int, least: int = 2) -> list[str]:  # fmt: skip  # noqa: E501
    """Return the vocabulary in the order of its ids.

    words    word -> how often it occurs
    special  the tokens that get the first ids
    vocab    ids there may be in the end
    least    a pair that occurs fewer times is not merged
    """
    ids = {piece: number for number, piece in enumerate([*special, *alphabet(words)])}
    spelled = {word: spell(word) for word in words}
    while len(ids) < vocab:
        counts: Counter[Pair] = Counter()
        for word, pieces in spelled.items():
            for pair in itertools.pairwise(pieces):
                counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]))
        if counts[best] < least:
            break
        ids.setdefault(join(best), len(ids))
        spelled = {
            word: [join(p) for p in _merged(pieces, best)] for word, pieces in spelled.items()
        }
    return list(ids)


def join(pieces: Sequence[str]) -> str:
    """Return pieces as one; what the first carries stays.

    >>> join(("##o", "##w"))
    '##ow'
    """
    return pieces[0] + "".join(piece.removeprefix(CONTINUES) for piece in pieces[1:])


def _merged(pieces: Sequence[str], pair: Pair) -> list[Sequence[str]]:
    """Return the pieces in groups: `pair` together, everything else alone."""
    out: list[Sequence[str]] = []
    at = 0
    while at < len(pieces):
        size = 2 if tuple(pieces[at : at + 2]) == pair else 1
        out.append(pieces[at : at + size])
        at += size
    return out


def segment(word: str, known: Collection[str], *, unknown: str) -> list[str]:
    """Return the pieces of a word, `[unknown]` where it cannot be spelled.

    >>> segment("lower", {"low", "##e", "##er", "##r"}, unknown="[UNK]")
    ['low', '##er']
    """
    if len(word) > LONGEST:
        return [unknown]
    pieces: list[str] = []
    start = 0
    while start < len(word):
        mark = CONTINUES if start else ""
        ends = range(len(word), start, -1)
        end = next((e for e in ends if mark + word[start:e] in known), None)
        if end is None:
            return [unknown]
        pieces.append(mark + word[start:end])
        start = end
    return pieces
