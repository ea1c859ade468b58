"""Token ids mean different words in the two splits, or the net knows fewer ids than there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.bags import says_other
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import cpu, is_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.facts import Facts

APART, LIKELY, LEAST_APART = 0.3, 0.2, 0.08
"""Jensen-Shannon divergence of token frequencies, in bits, from which on a problem, a hint,
and a problem where the frequencies have nothing to do with each other."""
LEAST = 400
FEWEST = 6
"""Tokens from which other shares of a few letters are hardly taken for other numbers."""
WORDS = 24
"""The most frequent tokens, whose pairs of neighbours are counted."""
RELATED, MANY = 0.5, 20
"""Rank correlation of the frequencies of tokens in two random parts of the training rows from which
on that of validation says something, and tokens of which it is asked."""
AS_FREQUENT = 1.5
"""Divergence of frequencies by rank, in that of two parts of the training rows, up to which they
are the same."""
COMPARED, MATCHING = 32, 8
"""Rows by which it is told which columns an embedding reads, and those of them that must match."""
RENUMBERED = 0.25
"""Share of the divergence of pairs that may be left where other numbers of tokens explain it."""


@dataclass(frozen=True)
class Reader:
    """A table of vectors: its rows, and the columns of ids that it reads, each with its equals."""

    rows: int
    columns: list[list[int]]


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where token frequencies part, or ids and embedding do not fit."""
    if facts.train is None or not is_tokens(facts.train[0]):
        return
    X = cpu(facts.train[0])
    V = cpu(facts.val[0]) if facts.val is not None and is_tokens(facts.val[0]) else None
    reads = readers(facts)
    narrow = _too_narrow(facts, X, V, reads)
    if narrow is not None:
        what, asked, rows = narrow
        yield Finding(
            "tokenizer_mismatch",
            f"{what} and the embedding has {rows} rows: tokens beyond are an error or another word",
            "use the tokenizer that the model was made for, or make the embedding as large",
            evidence={"ids": asked, "embedding": rows},
            confirmed=True,
            strength=10.0,
            repairs=(Repair("the right tokenizer", None, mode="ask",
                            edit=f"nn.Embedding({asked}, ...)"),),
        )  # fmt: skip
        return
    if V is None or _of_a_table(reads):
        return
    pads = set(dict(facts.exp.declared.get("tokens") or {}).values())
    if not pads:
        pads = {0}  # what pads is 0 nearly everywhere; without it lengths would seem to be words
    a, b = _counts(X, pads), _counts(V, pads)
    size = max(len(a), len(b))
    a, b = _wide(a, size), _wide(b, size)
    if min(float(a.sum()), float(b.sum())) < LEAST:
        return
    apart = divergence(a, b)
    chance = _chance(X, pads, len(V), size) if apart >= LEAST_APART else math.inf
    sure = apart >= 4 * chance and (apart >= APART or _unrelated(X, V, pads))
    if not sure:
        other = _renumbered(X, V, pads) or _saying_other(facts, pads)
        if other is not None:
            yield other
            return
    if not sure and (apart < LIKELY or apart < 3 * chance):
        return
    order = (b / b.sum() - a / a.sum()).argsort(descending=True)[:5].tolist()
    yield Finding(
        "tokenizer_mismatch",
        f"the token frequencies of training and validation are {apart:.2f} bits apart, those of "
        f"two random parts of the training rows {chance:.2f}; most in excess in validation: "
        f"{', '.join(map(str, order))}",
        "encode both splits by the same tokenizer with the same vocabulary",
        severity="problem" if sure else "hint",
        where=tuple(f"token {i}" for i in order),
        evidence={"divergence": apart, "chance": chance},
        confirmed=sure,
        strength=apart / APART,
        repairs=(ONE_TOKENIZER,),
    )


ONE_TOKENIZER = Repair(
    "one tokenizer", None, mode="ask",
    edit="X_val = tokenizer(texts_val), the tokenizer of X_train",
)  # fmt: skip


def _saying_other(facts: Facts, pads: set[int]) -> Finding | None:
    said = says_other(facts, pads)
    return None if said is None else Finding(
        "tokenizer_mismatch",
        f"by what single tokens say in training they explain {said.train:.0%} of its targets and "
        f"{max(said.val, 0.0):.0%} of those of validation, whose own rows explain {said.own:.0%}: "
        "they mean something else there",
        "encode both splits by the same tokenizer with the same vocabulary",
        evidence={"explained": said.train, "explained_val": said.val, "by_itself": said.own},
        confirmed=True,
        strength=1.0,
        repairs=(ONE_TOKENIZER,),
    )  # fmt: skip


def _renumbered(X: Tensor, V: Tensor, pads: set[int]) -> Finding | None:
    """Return the finding where validation has the pairs of training under other numbers.

    Where few tokens are about equally frequent, other numbers for them hardly change how often each
    comes. Which follows which they do change, and giving them numbers back mends it.
    """
    pads = {p for p in pads if not (_within(X, p) or _within(V, p))}
    ids, others = _frequent(X, pads), _frequent(V, pads)
    k = min(len(ids), len(others))
    if k < FEWEST or X.shape[1] < 2 or len(X) < 2:
        return None
    ours, theirs = _pairs(X, ids[:k]), _pairs(V, ids[:k])
    if min(float(ours.sum()), float(theirs.sum())) < LEAST:
        return None
    apart = divergence(ours.flatten(), theirs.flatten())
    if apart < APART:
        return None
    one, two = _parts(X, len(V))
    chance = divergence(*(_pairs(part, ids[:k]).flatten() for part in (one, two)))
    if apart < 4 * chance:
        return None
    number, left = matched(ours, _pairs(V, others[:k]))
    if left > RENUMBERED * apart:
        return None
    swaps = [(int(ids[i]), int(others[j])) for i, j in enumerate(number.tolist())]
    told = [f"token {b} for {a}" for a, b in swaps if a != b][:5]
    return Finding(
        "tokenizer_mismatch",
        f"which token follows which differs by {apart:.2f} bits between training and validation "
        f"({chance:.2f} between two random parts of the training rows), and by {left:.2f} where "
        f"tokens of validation are given other numbers: {', '.join(told)}",
        "encode both splits by the same tokenizer with the same vocabulary",
        where=tuple(told),
        evidence={"divergence_of_pairs": apart, "chance": chance, "renumbered": left},
        confirmed=True,
        strength=apart / APART,
        repairs=(ONE_TOKENIZER,),
    )


def matched(ours_kk: Tensor, theirs_kk: Tensor) -> tuple[Tensor, float]:
    """Return which of their tokens stands for each of ours, and how far pairs are apart then.

    Tokens belong together whose counts before and after others are alike, whatever the others are;
    then two are exchanged as long as that brings the pairs nearer.
    """
    far = torch.cdist(_profile(ours_kk), _profile(theirs_kk), p=1)
    number = torch.zeros(len(far), dtype=torch.int64)
    for _ in range(len(far)):
        i, j = divmod(int(far.argmin()), len(far))
        number[i] = j
        far[i, :], far[:, j] = torch.inf, torch.inf
    ours, before = ours_kk.flatten(), math.inf
    best = divergence(ours, theirs_kk[number][:, number].flatten())
    while best < before:
        before = best
        for i, j in combinations(range(len(number)), 2):
            tried = number.clone()
            tried[[i, j]] = number[[j, i]]
            left = divergence(ours, theirs_kk[tried][:, tried].flatten())
            if left < best:
                number, best = tried, left
    return number, best


def _profile(pairs_kk: Tensor) -> Tensor:
    """Return what is known of every token without a number: its shares of pairs, in order."""
    both: Tensor = torch.cat([pairs_kk, pairs_kk.T], 1).unflatten(1, (2, -1)).sort(-1).values
    return both.flatten(1) / pairs_kk.sum()


def _frequent(X: Tensor, pads: set[int]) -> Tensor:
    counts = _counts(X, pads)
    order = counts.argsort(descending=True)[:WORDS]
    return order[counts[order] > 0]


def _within(X: Tensor, token: int) -> bool:
    """Whether a token stands between others, where padding does not."""
    other = X.ne(token)
    return bool((other[:, :-2] & ~other[:, 1:-1] & other[:, 2:]).any())


def _pairs(X: Tensor, ids_k: Tensor) -> Tensor:
    """Return how often each of some tokens follows each: (k, k)."""
    k = len(ids_k)
    place = torch.full((int(max(X.max(), ids_k.max())) + 1,), k)
    place[ids_k] = torch.arange(k)
    at = place[X.long().clamp_min(0)]
    both = torch.bincount((at[:, :-1] * (k + 1) + at[:, 1:]).flatten(), minlength=(k + 1) ** 2)
    return both.reshape(k + 1, k + 1)[:k, :k].double()


def _unrelated(X: Tensor, V: Tensor, pads: set[int]) -> bool:
    """Whether tokens have the frequencies of training, each that of any other.

    Texts of another kind still share their common words; under other numbers nothing is shared but
    how frequent the most frequent one is, the second, and so on.
    """
    one, two = _parts(X, len(V))
    within, _ = _alike(one, two, pads)
    across, tokens = _alike(X, V, pads)
    if within < RELATED or tokens < MANY or abs(across) > 2 / math.sqrt(tokens):
        return False
    return _by_rank(X, V, pads) <= AS_FREQUENT * _by_rank(one, two, pads)


def _by_rank(X: Tensor, V: Tensor, pads: set[int]) -> float:
    """Return the divergence of the frequencies of the most frequent tokens, the second, ..."""
    a, b = (_counts(ids, pads).sort(descending=True).values for ids in (X, V))
    size = max(len(a), len(b))
    return divergence(_wide(a, size), _wide(b, size))


def _alike(X: Tensor, V: Tensor, pads: set[int]) -> tuple[float, int]:
    """Return the rank correlation of how often tokens come in two texts, and of how many."""
    a, b = _counts(X, pads), _counts(V, pads)
    size = max(len(a), len(b))
    a, b = _wide(a, size), _wide(b, size)
    seen = a + b > 0
    ranks = torch.stack([_ranks(a[seen]), _ranks(b[seen])])
    if ranks.shape[1] < FEWEST:
        return 0.0, ranks.shape[1]
    return float(torch.nan_to_num(torch.corrcoef(ranks))[0, 1]), ranks.shape[1]


def _ranks(counts: Tensor) -> Tensor:
    """Return the rank of every count, the middle one of equal counts."""
    _, place, many = torch.unique(counts, return_inverse=True, return_counts=True)
    ranks: Tensor = (many.cumsum(0) - (many - 1) / 2).double()[place]
    return ranks


def divergence(a: Tensor, b: Tensor) -> float:
    """Return the Jensen-Shannon divergence of two histograms in bits, 0 to 1."""
    p, q = a / a.sum(), b / b.sum()
    m = (p + q) / 2
    h = [-(d[d > 0] * d[d > 0].log2()).sum() for d in (m, p, q)]
    return float(h[0] - (h[1] + h[2]) / 2)


def _counts(X: Tensor, pads: set[int]) -> Tensor:
    counts = torch.bincount(X.flatten().long().clamp_min(0)).double()
    for p in pads:
        if isinstance(p, int) and 0 <= p < len(counts):
            counts[p] = 0
    return counts


def _wide(counts: Tensor, size: int) -> Tensor:
    return torch.cat([counts, counts.new_zeros(size - len(counts))])


def _chance(X: Tensor, pads: set[int], rows: int, size: int) -> float:
    """Return the divergence of two random parts of the training rows, the second of `rows`."""
    a, b = (_counts(part, pads) for part in _parts(X, rows))
    if not float(a.sum()) or not float(b.sum()):
        return math.inf
    return divergence(_wide(a, size), _wide(b, size))


def _parts(X: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return two random parts of some rows, the second of `rows`, at most half."""
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    part = min(rows, len(X) // 2)
    return X[order[part:]], X[order[:part]]


def readers(facts: Facts) -> list[Reader]:
    """Return what every table of vectors reads of the ids, in the order of their calls."""
    xb, found = facts.batch[0], dict[int, Reader]()
    if not is_tokens(xb):
        return []
    for op in facts.tape.of({"embedding"}):
        ids = next((t for t in op.inputs if not t.is_floating_point()), None)
        weight = next((t for t in op.inputs if t.is_floating_point() and t.ndim == 2), None)
        if ids is None or weight is None or not ids.ndim:
            continue
        if ids.shape == xb.shape[::-1] and len(ids) != len(xb):  # places before rows
            ids = ids.T
        columns = _columns_read(ids, xb, len(weight)) if len(ids) == len(xb) else []
        before = found.get(id(weight))
        columns = [*before.columns, *columns] if before is not None else columns
        if columns:
            found[id(weight)] = Reader(len(weight), columns)
    return list(found.values())


def _columns_read(ids: Tensor, xb: Tensor, rows: int) -> list[list[int]]:
    """Return, for every column that is read, those of the ids that it may be.

    What is the same in every row says nothing: places, kinds, padding. Ids beyond the table may
    have been made others, where there are enough to know the column by.
    """
    read, given = ids.reshape(len(ids), -1)[:COMPARED], xb[:COMPARED]
    read = read[:, (read != read[:1]).any(0)]
    if not read.numel():
        return []
    same, beyond = read[:, :, None] == given[:, None], given >= rows
    least = min(MATCHING, len(given))
    exact, known = same.all(0), (same | beyond[:, None]).all(0)
    varied = torch.tensor([len(torch.unique(read[:, k])) > 2 for k in range(read.shape[1])])
    enough = (same & ~beyond[:, None]).sum(0) >= least
    found = exact | (known & varied.to(known.device)[:, None] & enough)
    return [row.nonzero().flatten().tolist() for row in found if bool(row.any())]


def _too_narrow(
    facts: Facts, X: Tensor, V: Tensor | None, reads: list[Reader]
) -> tuple[str, int, int] | None:
    """Return what ids there are, how many, and the rows of the table that has fewer; or None."""
    tops = X.amax(0) if V is None else _wider(X.amax(0), V.amax(0))
    table = _of_a_table(reads)
    for read in reads:
        # Columns that are equal in the rows compared, any of which may be meant.
        top = max(min(int(tops[j]) for j in columns) for columns in read.columns)
        if top >= read.rows and not _made_others(facts, X, V, read):
            where = f" of column {read.columns[0][0]}" if table else ""
            return f"the ids{where} reach {top}", top + 1, read.rows
    known = facts.exp.declared.get("vocabulary")
    words = max(reads, key=lambda read: len(read.columns), default=None)
    if isinstance(known, int) and words is not None and not table and known > words.rows:
        return f"the tokenizer knows {known} tokens", known, words.rows
    return None


def _made_others(facts: Facts, X: Tensor, V: Tensor | None, read: Reader) -> bool:
    """Whether the model reads rows with ids beyond a table, which it makes others on purpose."""
    columns = sorted({j for equal in read.columns for j in equal})
    xb = facts.batch[0]
    if bool((cpu(xb)[:, columns] >= read.rows).any()):
        return True  # it was read without an error
    if xb.is_cuda:
        return False  # an index out of range there would be the end of the process
    for ids in (X, V):
        if ids is None or not bool((beyond := (ids[:, columns] >= read.rows).any(1)).any()):
            continue
        if ids.shape[1:] != xb.shape[1:]:
            return False
        rows = xb.clone()
        rows[0] = ids[beyond][0].to(xb)
        try:
            facts.shown(rows)
        except Exception:  # noqa: BLE001  a model may check its ids itself, and raise what it likes
            return False
    return True


def _wider(one: Tensor, other: Tensor) -> Tensor:
    return (
        torch.maximum(one, other) if one.shape == other.shape else one.clamp_min(int(other.max()))
    )


def _of_a_table(reads: list[Reader]) -> bool:
    """Whether every column has vectors of its own: its numbers are those of no tokenizer."""
    return len(reads) > 1 and all(len(read.columns) == 1 for read in reads)


RULE = Rule(
    code="tokenizer_mismatch",
    title="token ids do not mean the same everywhere",
    looks="validation is at the level of guessing, or an index is out of range",
    why="an embedding knows ids, not words: under another vocabulary every id is another word",
    do="encode every split by the one tokenizer that belongs to the model",
    source="Lin 1991, Divergence measures based on the Shannon entropy",
    before=before,
    causes=("train_val_shift", "overfit", "labels_misaligned"),
)
