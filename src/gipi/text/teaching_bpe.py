"""Byte pair encoding, to be read: the fast one in twenty lines, and equal to it.

    learn    write every word as single characters; as long as there is room: find the pair of
             neighbours that occurs most often, and make it one piece everywhere
    segment  apply the learned merges to a new word, the earliest learned first

Ties go to the pair whose pieces have the smaller ids; ids are given to the alphabet first and then
to each new piece. Sennrich, Haddow and Birch 2016, "Neural machine translation of rare words with
subword units", arXiv:1508.07909 (after Gage 1994, "A new algorithm for data compression").

Differs from the paper: words are sequences of bytes written as characters (`gipi.text.bytelevel`),
so that nothing is unknown and no end-of-word mark is needed; a space belongs to the word after it
(Radford et al. 2019). It counts all pairs again after every merge, which is what makes it slow.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from gipi.text.bytelevel import to_characters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Pair = tuple[str, str]


def learn(words: Mapping[str, int], alphabet: Sequence[str], *, vocab: int, least: int = 2) -> list[Pair]:  # fmt: skip  # noqa: E501
    """Return the merges, in the order in which they are learned.

    words     word -> how often it occurs
    alphabet  the pieces that are there from the beginning, in the order of their ids
    vocab     ids there may be in the end
    least     a pair that occurs fewer times is not merged

    >>> learn({"low": 5, "lower": 2, "newest": 6, "widest": 3}, list("delnorstiw"), vocab=13)
    [('e', 's'), ('es', 't'), ('l', 'o')]
    """
    ids = {piece: number for number, piece in enumerate(alphabet)}
    spelled = {word: list(word) for word in words}
    merges: list[Pair] = []
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
        merges.append(best)
        ids.setdefault(best[0] + best[1], len(ids))
        spelled = {word: merge(pieces, best) for word, pieces in spelled.items()}
    return merges


def merge(pieces: Sequence[str], pair: Pair) -> list[str]:
    """Return the pieces with every occurrence of `pair` made one, from left to right.

    >>> merge(["a", "b", "a", "b", "b"], ("a", "b"))
    ['ab', 'ab', 'b']
    """
    out: list[str] = []
    at = 0
    while at < len(pieces):
        here = tuple(pieces[at : at + 2])
        out.append("".join(here) if here == pair else pieces[at])
        at += 2 if here == pair else 1
    return out


def segment(word: str, merges: Sequence[Pair]) -> list[str]:
    """Return the pieces of a word.

    >>> segment("lowest", [("e", "s"), ("es", "t"), ("l", "o")])
    ['lo', 'w', 'est']
    """
    rank = {pair: number for number, pair in enumerate(merges)}
    pieces = list(word)
    while True:
        pairs = [pair for pair in itertools.pairwise(pieces) if pair in rank]
        if not pairs:
            return pieces
        pieces = merge(pieces, min(pairs, key=rank.__getitem__))


def encode(text: str, merges: Sequence[Pair]) -> list[str]:
    """Return the pieces of a text."""
    return [piece for word in cut(text) for piece in segment(to_characters(word.encode()), merges)]


def count(texts: Iterable[str]) -> dict[str, int]:
    """Return how often each word occurs, words as characters that stand for bytes."""
    return dict(Counter(to_characters(word.encode()) for text in texts for word in cut(text)))


def cut(text: str) -> list[str]:
    """Return the words of a text: letters, digits or signs together, each with one space before.

    Of several spaces the last goes to the next word. An English ending such as 's is a word.

    >>> cut("I'll take  3 cats!")
    ['I', "'ll", ' take', ' ', ' 3', ' cats', '!']
    """
    words: list[str] = []
    at = 0
    while at < len(text):
        ending = next((e for e in _ENDINGS if text.startswith(e, at)), None)
        if ending is not None:
            words.append(ending)
            at += len(ending)
            continue
        start = at + (text[at] == " " and at + 1 < len(text) and _sort(text[at + 1]) != "space")
        end = start
        while end < len(text) and _sort(text[end]) == _sort(text[start]):
            end += 1
        # White space before a word: all but its last character, which the word takes if it can.
        if _sort(text[start]) == "space" and end < len(text) and end - start > 1:
            end -= 1
        words.append(text[at:end])
        at = end
    return words


_ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def _sort(character: str) -> str:
    """Return what a character is: space, letter, digit or sign."""
    if character.isspace() and character not in "\x1c\x1d\x1e\x1f":
        return "space"
    return {"L": "letter", "N": "digit"}.get(unicodedata.category(character)[0], "sign")
