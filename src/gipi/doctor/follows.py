"""What a table of tokens and the answers beside them tells: a bar for nets that read sequences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.experiment import whole
from gipi.doctor.judge import JUDGED
from gipi.doctor.sequences import at_every_place, sequence_of

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

ROWS = 1000
"""Of training; of validation as many as the run is judged by, and the same."""
ENTRIES = 2**22
"""Numbers of a table, and of what it says, at most."""
PRIOR = 2.0
"""Answers that the frequency of the classes stands for in every row of the table."""


def loss_of_table(facts: Facts) -> float:
    """Return the loss on validation rows of a table that sees one token; NaN where there is none.

    log p(c | t) with p = (n_tc + PRIOR p_c) / (n_t + PRIOR): counts n of answer c beside token t in
    training rows (MacKay and Peto 1995). It is asked by the very loss of the run, as logits.
    """
    exp, said = facts.exp, facts.outputs
    if facts.kind != "tokens" or not at_every_place(facts) or said.ndim != 3:
        return math.nan
    seen, unseen = whole(exp.train, ROWS, exp.device), whole(exp.val, JUDGED, exp.device)
    if seen is None or unseen is None:
        return math.nan
    (x, y), (new, asked) = ((sequence_of(X), t) for X, t in (seen, unseen))
    if x is None or new is None or x.is_floating_point() or asked.shape != new.shape:
        return math.nan
    if said.shape[:2] != facts.batch[1].shape or y.shape != x.shape:
        return math.nan
    kinds, tokens = said.shape[2], 1 + int(max(x.max(), new.max()))
    if max(tokens, new.numel()) * kinds > ENTRIES or int(y.max()) >= kinds or int(x.min()) < 0:
        return math.nan
    real = y >= 0
    pairs = (x[real].long() * kinds + y[real].long()).cpu()
    count_tc = torch.bincount(pairs, minlength=tokens * kinds).view(tokens, kinds).double()
    p_c = (count_tc.sum(0) + 1) / (count_tc.sum() + kinds)
    p_tc = (count_tc + PRIOR * p_c) / (count_tc.sum(1, keepdim=True) + PRIOR)
    told: Tensor = p_tc.log()[new.long().cpu()].to(said)
    try:
        with torch.no_grad():
            return float((exp.judge or exp.loss)(told, asked))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return math.nan
