"""The unigram language model of tokens, to be read, and equal to the fast one.

    P(x) = Π p(xᵢ)      a text is pieces that are drawn one by one, each with its own probability
    segment             the pieces of the largest probability, found by dynamic programming
                        (Viterbi 1967)
    learn               begin with many pieces; fit their probabilities by expectation and
                        maximisation over all ways to cut a word; drop the quarter of them whose
                        loss would lower the likelihood least; repeat until few enough are left

Kudo 2018, "Subword regularization: improving neural network translation models with multiple
subword candidates", arXiv:1804.10959. The first pieces are all characters and every substring of up
to 16 characters that occurs twice and goes on in two different ways.

Differs from the paper: the counts go through exp(digamma), which keeps rare pieces small (Liang,
Petrov, Jordan and Klein 2007, "The infinite PCFG using hierarchical Dirichlet processes"), as in
the packages `sentencepiece` and `tokenizers`. What equals the fast one: `segment` exactly, ties
included; `learn` in its pieces, and in their scores up to 0.0001, as the fast one adds up in
another order. Two pieces whose loss is the same in exact arithmetic could be dropped in another
order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from gipi.text.training import settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LONGEST = 16
"""Characters of a piece."""
UNKNOWN = 10.0
"""How much less likely than the rarest piece a character is that no piece has."""
KEPT, ROUNDS, RARE, SPARE = 0.75, 2, 0.5, 1.1

Scores = dict[str, float]


class Node(NamedTuple):
    """A piece at a place of a word: it covers [start, end), `known` unless made up."""

    start: int
    end: int
    score: float
    known: bool = True


# ------------------------------------------------------------------------ segment


def nodes(word: str, scores: Mapping[str, float], floor: float) -> Iterator[Node]:
    """Yield every piece that fits somewhere in a word, by place and then by length.

    floor  score of the rarest piece; what no piece has is `UNKNOWN` below it
    """
    unknown = floor - UNKNOWN
    longest = max(map(len, scores), default=0)
    for start in range(len(word)):
        for end in range(start + 1, min(len(word), start + longest) + 1):
            if word[start:end] in scores:
                yield Node(start, end, scores[word[start:end]])
        if word[start] not in scores:
            yield Node(start, start + 1, unknown, known=False)


def best_path(word: str, scores: Mapping[str, float], *, floor: float | None = None) -> list[Node]:
    """Return the most likely pieces of a word; of equals the one that was found first."""
    floor = min(scores.values()) if floor is None else floor
    best: dict[int, tuple[float, Node | None]] = {0: (0.0, None)}
    for node in nodes(word, scores, floor):
        total = node.score + best[node.start][0]
        if node.end not in best or total > best[node.end][0]:
            best[node.end] = (total, node)
    path: list[Node] = []
    last = best[len(word)][1]
    while last is not None:
        path.append(last)
        last = best[last.start][1]
    return path[::-1]


def segment(word: str, scores: Mapping[str, float]) -> list[str]:
    """Return the pieces of a word; neighbours that nothing covers come as one.

    >>> segment("abcxy", {"a": -2.0, "b": -2.0, "ab": -3.0, "c": -1.0})
    ['ab', 'c', 'xy']
    """
    pieces: list[str] = []
    gap = False
    for start, end, _, known in best_path(word, scores):
        if gap and not known:
            pieces[-1] += word[start:end]
        else:
            pieces.append(word[start:end])
        gap = not known
    return pieces


# ------------------------------------------------------------------------ learn


def learn(words: Mapping[str, int], *, vocab: int, special: int) -> list[tuple[str, float]]:
    """Return the pieces and their log-probabilities, by falling score.

    words    word -> how often it occurs
    vocab    ids there may be in the end
    special  how many of them are special tokens; the unknown token is one
    """
    pieces = seeds(words)
    most = vocab * 11 // 10
    while True:
        for _ in range(ROUNDS):
            pieces = maximise(expect(words, pieces), pieces)
        if len(pieces) + 1 <= most:  # one for the unknown token
            break
        pieces = prune(words, pieces, most=most)
    return settle(list(finish(words, pieces, room=vocab - special).items()))


def seeds(words: Mapping[str, int]) -> Scores:
    """Return the pieces to begin with: characters, then substrings by number x length."""
    single: Counter[str] = Counter()
    found: Counter[str] = Counter()
    follows: defaultdict[str, set[str]] = defaultdict(set)
    for word, number in words.items():
        for start in range(len(word)):
            single[word[start]] += number
            for end in range(start + 2, min(len(word), start + LONGEST) + 1):
                found[word[start:end]] += 1
                follows[word[start:end]].add(word[end : end + 1])
    several = {s: n * len(s) for s, n in found.items() if n > 1 and len(follows[s]) > 1}
    by_size = {
        **dict(sorted(single.items(), key=lambda item: item[::-1], reverse=True)),
        **dict(sorted(several.items(), key=lambda item: item[::-1], reverse=True)),
    }
    total = math.log(sum(by_size.values()))
    return {piece: math.log(size) - total for piece, size in by_size.items()}


def expect(words: Mapping[str, int], scores: Scores) -> Scores:
    """Return how often each piece is expected, over all ways to cut each word (the E step)."""
    expected = dict.fromkeys(scores, 0.0)
    floor = min(scores.values())
    for word, number in words.items():
        found = list(nodes(word, scores, floor))
        before = [0.0] + [-math.inf] * len(word)  # log P of everything up to a place
        for node in found:
            before[node.end] = _add(before[node.end], before[node.start] + node.score)
        after = [-math.inf] * len(word) + [0.0]  # log P of everything from a place on
        for node in sorted(found, key=lambda n: -n.start):
            after[node.start] = _add(after[node.start], after[node.end] + node.score)
        for node in found:
            if node.known:
                log_p = before[node.start] + node.score + after[node.end] - before[len(word)]
                expected[word[node.start : node.end]] += number * math.exp(log_p)
    return expected


def _add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b))."""
    low, high = min(a, b), max(a, b)
    return high if low == -math.inf else high + math.log(math.exp(low - high) + 1.0)


def maximise(expected: Scores, pieces: Scores) -> Scores:
    """Return new scores from expected counts, without what is expected too rarely (the M step)."""
    counts = {piece: expected[piece] for piece in pieces if expected[piece] >= RARE}
    total = digamma(sum(counts.values()))
    return {piece: digamma(count) - total for piece, count in counts.items()}


def prune(words: Mapping[str, int], scores: Scores, *, most: int, exact: bool = False) -> Scores:
    """Return the pieces without those that are least missed, but not fewer than `most`.

    exact  tokens after the change as they are counted; the `tokenizers` package adds the number of
           all pieces where the number of pieces that are written instead is meant, which keeps
           frequent pieces longer
    """
    used: Counter[str] = Counter()
    for word, number in words.items():
        for piece in _names(word, best_path(word, scores)):
            used[piece] += number
    total, everything = sum(used.values()), sum(words.values())
    kept: Scores = {}
    loss: Scores = {}
    for piece in scores:
        best, instead = _two_best(piece, scores)
        if used[piece] == 0 and (instead or best != [piece]):
            continue
        if best != [piece] or not instead:
            kept[piece] = scores[piece]
            continue
        # What the likelihood falls by where `instead` is written for the piece.
        grown = len(instead) if exact else len(scores) + 1
        sum_then = math.log(total + used[piece] * (grown - 1))
        then = sum(math.log(used[p] + used[piece]) - sum_then for p in instead)
        now = math.log(used[piece]) - math.log(total)
        loss[piece] = used[piece] / everything * (now - then)
    room = max(most, int((len(scores) + 1) * KEPT)) - 1  # one for the unknown token
    for piece in sorted(loss, key=loss.__getitem__, reverse=True):
        if len(kept) == room:
            break
        kept[piece] = scores[piece]
    return kept


def _names(word: str, path: list[Node]) -> list[str]:
    """Return the pieces of a path, "" for what no piece covers."""
    return [word[n.start : n.end] if n.known else "" for n in path]


def _two_best(piece: str, scores: Scores) -> tuple[list[str], list[str]]:
    """Return the best way to write a piece, and the best without the piece itself."""
    best = _names(piece, best_path(piece, scores))
    if len(piece) == 1:
        return best, []
    others = {p: scores[p] for p in _within(piece) if p in scores and p != piece}
    floor = min(scores.values())
    return best, _names(piece, best_path(piece, others, floor=floor))


def _within(text: str) -> set[str]:
    return {text[a:b] for a in range(len(text)) for b in range(a + 1, len(text) + 1)}


def finish(words: Mapping[str, int], scores: Scores, *, room: int) -> Scores:
    """Return as many pieces as there is room for: every character, then the first of the rest."""
    lowest = min(scores.values())
    kept = {c: scores.get(c, lowest) for c in sorted({c for word in words for c in word})}
    for piece, score in scores.items():
        if len(kept) >= room:
            break
        kept.setdefault(piece, score)
    return kept


def digamma(x: float) -> float:
    """Return the derivative of log Γ at x > 0: by recurrence to x >= 7, then a series at x - 1/2.

    >>> round(digamma(1.0), 6)  # minus the Euler-Mascheroni constant
    -0.577216
    """
    below = 0.0
    while x < 7.0:
        below -= 1.0 / x
        x += 1.0
    x -= 0.5
    y = 1.0 / x * (1.0 / x)
    y2 = y * y
    return below + (
        math.log(x) + (1 / 24) * y - 7 / 960 * y2 + (31 / 8064) * y2 * y - (127 / 30720) * y2 * y2
    )
