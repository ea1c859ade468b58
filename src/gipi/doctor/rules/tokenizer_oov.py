"""Too many tokens are unknown to the tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.doctor.finding import Finding, Repair
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import cpu, is_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from gipi.doctor.facts import Facts

SHARE, HINT = 0.1, 0.05
NAMES = ("unknown", "unk", "oov", "<unk>", "[UNK]")
SPECIAL = 4
"""Where nobody says which id means unknown it is looked for below this one."""


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where the id for "unknown" fills a large share of the places."""
    if facts.train is None or not is_tokens(facts.train[0]):
        return
    tokens = dict(facts.exp.declared.get("tokens") or {})
    unknown = next((tokens[n] for n in NAMES if n in tokens), None)
    pad = tokens["pad"] if isinstance(tokens.get("pad"), int) else None
    parts = {"train": cpu(facts.train[0])}
    if facts.val is not None and is_tokens(facts.val[0]):
        parts["val"] = cpu(facts.val[0])
    sure = unknown is not None
    if unknown is None:
        unknown = _guessed(parts, pad or 0)
    if not isinstance(unknown, int):
        return
    shares = {k: _share(X, unknown, pad) for k, X in parts.items()}
    split, worst = max(shares.items(), key=lambda kv: kv[1])
    if worst < HINT:
        return
    problem = sure and worst >= SHARE
    yield Finding(
        "tokenizer_oov",
        f"{worst:.1%} of the tokens of {split} are unknown to the tokenizer (id {unknown})",
        "make a vocabulary from these texts, or use subwords or bytes, which know every word",
        severity="problem" if problem else "hint",
        where=(split,),
        evidence={"id": unknown, **shares},
        confirmed=problem,
        strength=worst / SHARE,
        repairs=(Repair("another vocabulary", None, mode="ask",
                        edit="train a subword tokenizer (byte-level BPE) on the training texts"),),
    )  # fmt: skip


def _share(X: Tensor, unknown: int, pad: int | None) -> float:
    real = int(torch.ne(X, pad).sum()) if pad is not None else X.numel()
    return float(torch.eq(X, unknown).sum()) / max(real, 1)


def _guessed(parts: dict[str, Tensor], pad: int) -> int | None:
    """Return a low id that is frequent in validation and rare in training."""
    if "val" not in parts:
        return None
    for i in range(SPECIAL):
        if i == pad:
            continue
        there, here = _share(parts["val"], i, pad), _share(parts["train"], i, pad)
        if there > SHARE and here < there / 10:
            return i
    return None


RULE = Rule(
    code="tokenizer_oov",
    title="too many unknown tokens",
    looks="texts that differ in rare words get the same answer",
    why="every unknown word is the same one to the net: what it meant is gone before the first "
    "layer",
    do="use subwords or bytes, or a vocabulary that is made from texts of this kind",
    source="Sennrich, Haddow and Birch 2016, arXiv:1508.07909",
    before=before,
    causes=("underfit", "plateau", "labels_misaligned", "tokenizer_mismatch", "train_val_shift",
            "duplicate_rows"),
)  # fmt: skip
