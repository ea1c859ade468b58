"""Sequences are cut, and what is cut off tells of the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.finding import Finding, Repair
from gipi.doctor.rule import Rule
from gipi.doctor.shallow import ask_ridge, ridge
from gipi.doctor.sheet import cpu, linear_answer, origin, sheet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.facts import Facts

SHARE = 0.05
LEAST = 80
MORE = 0.03
WORSE = 0.15
MOST = 0.5


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where declared lengths exceed the rows: a problem where the end matters."""
    X, lengths = facts.X, facts.exp.declared.get("lengths")
    if X is None or lengths is None or facts.inputs not in ("tokens", "sequence"):
        return
    long = torch.as_tensor(lengths).flatten()
    if len(long) != facts.rows:
        return
    kept = X.shape[1]
    if len(long) > len(X):
        long = long[torch.arange(len(X)) * len(long) // len(X)]
    cut = (long > kept).cpu()
    share = float(cut.double().mean())
    if share <= SHARE:
        return
    wanted = int(torch.quantile(long.double(), 0.95))
    lost = float((long - kept).clamp_min(0).sum()) / max(float(long.sum()), 1.0)
    matters, numbers = _matters(facts, cut, share)
    yield Finding(
        "sequence_too_short",
        f"{share:.0%} of the training rows are longer than the {kept} places that are kept; "
        f"{lost:.0%} of all places are cut off"
        + (", and the places near the cut tell of the target" if matters else ""),
        f"keep {wanted} places (95 % of the rows whole), or the first and the last ones",
        severity="problem" if matters else "hint",
        evidence={"share": share, "kept": kept, "p95": wanted, "lost": lost, **numbers},
        confirmed=matters,
        strength=share / SHARE,
        repairs=(Repair("longer rows", None, mode="ask", edit=f"max_length={wanted}"),),
    )  # fmt: skip


def _matters(facts: Facts, cut: Tensor, share: float) -> tuple[bool, dict[str, float]]:
    """Return whether what is cut off seems to tell of the target, and the numbers that say so.

    Rows that were cut are told worse than whole ones; or the last quarter of what is left still
    adds to what a shallow learner finds; or nothing is found in rows most of which were cut.
    """
    train = sheet(facts)
    X = origin(facts).X
    if train is None or X is None or len(train.F) < LEAST:
        return False, {}
    found = linear_answer(facts)
    gone = cut[train.rows]
    numbers = {"explained": found.score}
    if found.nothing:
        return share > MOST, numbers
    if LEAST // 2 <= int(gone.sum()) <= len(gone) - LEAST // 2:
        told, Y = found.told_nk, train.Y.double()
        parts = [1 - float((Y - told)[m].square().sum() / (Y - Y.mean(0))[m].square().sum()
                           .clamp_min(1e-12)) for m in (gone, ~gone)]  # fmt: skip
        numbers |= {"explained_cut": parts[0], "explained_whole": parts[1]}
        if parts[1] - parts[0] > max(WORSE, 0.25 * parts[1]):
            return True, numbers
    rows = cpu(X)[train.rows][gone]
    if len(rows) < LEAST:
        return False, numbers
    Y = train.Y[gone]
    scores = []
    for end in (3 * X.shape[1] // 4, X.shape[1]):
        shorter = rows.clone()
        shorter[:, end:] = 0
        scores.append(ask_ridge(ridge(train.lens(shorter)), Y)[0])
    numbers |= {"explained_three_quarters": scores[0].score, "explained_all": scores[1].score}
    more = scores[1].score - scores[0].score
    return scores[1].found and more > max(MORE, 0.1 * scores[1].score), numbers


RULE = Rule(
    code="sequence_too_short",
    title="sequences are cut too short",
    looks="the net is better on short rows than on long ones, however long it trains",
    why="what is cut off cannot be learned",
    do="keep more places, or the first and the last ones; look at the histogram of lengths",
    source="Sun et al. 2019, How to fine-tune BERT for text classification, arXiv:1905.05583",
    before=before,
    causes=("underfit", "plateau", "labels_misaligned", "duplicate_rows"),
)
