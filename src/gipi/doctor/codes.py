"""Codes of labels: whole numbers beside a table's numbers, names that have no order.

A learner that reads them as quantities finds nothing where one label tells a good deal. Here each
row is told by the other rows of its label, and of its pair of labels.

Shapes: n rows, p columns, k columns of targets, G versions of the targets.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.shallow import BEYOND_DOUBT, FEW, ORDERS, Answer, explained, in_any_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.doctor.facts import Facts

SHRINK = (1.0, 4.0, 16.0, 64.0)
"""Rows at the mean of all that stand beside those of a label: a label of few rows says little."""
MOST_PAIRS = 28


def table_of(facts: Facts) -> tuple[Tensor, tuple[int, ...]] | None:
    """Return numbers and codes of a table side by side, (n, p) on the CPU, and the coded columns.

    Pictures and series beside them are so many numbers more. None for inputs of one part, and where
    the codes may be places of a sequence.
    """
    parts = facts.train[0] if facts.train is not None else None
    if not isinstance(parts, (tuple, list)) or not all(_flat(p) or _wide(p) for p in parts):
        return None
    if not is_table(facts, parts):
        return None
    flat = [p.detach().cpu().flatten(1) for p in parts]
    coded = [_coded(p) for p in flat for _ in range(p.shape[1])]
    whole = torch.cat([p.double() for p in flat], 1)  # not every device has float64
    return whole, tuple(j for j, code in enumerate(coded) if code)


def is_table(facts: Facts, parts: Sequence[Any]) -> bool:
    """Whether parts of an input are columns and no places of a sequence.

    They are where the experiment says how its columns are called. Else whole numbers that one
    table of vectors looks up all at once have one vocabulary: they are words at places.
    """
    names = facts.exp.declared.get("columns") or ()
    if names and len(names) == sum(p.shape[1] for p in parts if _flat(p)):
        return True
    wide = {p.shape[1] for p in parts if _flat(p) and _coded(p) and p.shape[1] > 1}
    looked_up = (op for op in facts.tape.ops if op.kind == "embedding" and op.inputs)
    return not any(
        x.ndim == 2 and _coded(x) and x.shape[1] in wide for op in looked_up for x in op.inputs[:1]
    )


def codes_in(X: Any) -> Tensor | None:
    """Return the codes among the parts of an input, (n, q); None where there are none."""
    parts = X.values() if isinstance(X, dict) else X if isinstance(X, (tuple, list)) else ()
    found = [p.reshape(len(p), -1) for p in parts if isinstance(p, Tensor) and p.ndim and _coded(p)]
    return torch.cat([p.detach().cpu().long() for p in found], 1) if found else None


def ask_labels(codes_nq: Tensor, Y_nk: Tensor) -> Answer:
    """Return what labels, and pairs of labels, tell of the targets: Σ over them of the best R².

    m₋ᵢ = (Σ y - yᵢ + a ȳ) / (c - 1 + a) over the c rows of a label, with the best a of `SHRINK`:
    targets in random order may choose as well.
    """
    labels = [_numbered(codes_nq[:, j]) for j in range(codes_nq.shape[1])]
    pairs = list(combinations(range(len(labels)), 2))[:MOST_PAIRS]
    labels += [_numbered(labels[a] * (int(labels[b].max()) + 1) + labels[b]) for a, b in pairs]
    Y = Y_nk.double()

    def asked(orders: int) -> Answer:
        wide = torch.cat([Y, *in_any_order(Y, orders)], 1)
        total, best, told = torch.zeros(1 + orders, dtype=torch.float64), -torch.inf, Y
        for label in labels:
            outs = [_left_out(label, wide, a) for a in SHRINK]
            scores = torch.stack([explained(out, wide, 1 + orders) for out in outs])
            total += scores.max(0).values
            if float(scores[:, 0].max()) > best:
                best = float(scores[:, 0].max())
                told = outs[int(scores[:, 0].argmax())][:, : Y.shape[1]]
        return Answer(float(total[0]), total[1:], told)

    first = asked(FEW)
    return first if first.z > BEYOND_DOUBT else asked(ORDERS)


def _left_out(label_n: Tensor, Y_nk: Tensor, a: float) -> Tensor:
    """Return the shrunken mean of the other rows of each row's label: (n, k)."""
    sums = Y_nk.new_zeros(int(label_n.max()) + 1, Y_nk.shape[1]).index_add(0, label_n, Y_nk)
    count = torch.bincount(label_n)[label_n][:, None]
    others = (Y_nk.sum(0) - Y_nk) / max(1, len(Y_nk) - 1)
    told: Tensor = (sums[label_n] - Y_nk + a * others) / (count - 1 + a)
    return told


def _numbered(code_n: Tensor) -> Tensor:
    number: Tensor = torch.unique(code_n, return_inverse=True)[1]
    return number


def _flat(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim == 2


def _wide(part: Any) -> bool:
    """Whether a part is of pictures or series of numbers."""
    return isinstance(part, Tensor) and part.ndim > 2 and part.is_floating_point()


def _coded(part: Tensor) -> bool:
    return not part.is_floating_point() and not part.is_complex()
