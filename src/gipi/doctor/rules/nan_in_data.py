"""Numbers are missing from the data: NaN or infinity in an input or a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.edits import kept, put_in_front, splits_of
from gipi.doctor.experiment import outputs
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.gaps import Fill, add_marks
from gipi.doctor.named import called
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import columns, take

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment

TRIED = 64
"""Rows with gaps that the model is asked about: where it answers with numbers it fills them."""
LEAST_KEPT = 0.5


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where a gap reaches the outputs or the loss."""
    inputs, targets, evidence = [], 0, dict[str, Any]()
    rows: tuple[int, ...] = ()
    for split in ("train", "val"):
        data = getattr(facts, split)
        if data is None:
            continue
        X, y = data
        for name, part in _parts(X):
            bad = _bad(part)
            if bad is None or not bool(bad.any()) or not _reaches(facts, X, bad):
                continue
            inputs.append(f"{split} inputs{name}")
            evidence[f"{split}{name}"] = {"rows": int(bad.sum()), "of": len(bad),
                                          **_by_column(facts, part)}  # fmt: skip
            rows = rows or tuple(bad.nonzero().flatten()[:20].tolist())
        bad = _bad(y) if isinstance(y, Tensor) else None
        if bad is not None and bool(bad.any()) and _in_loss(facts, X, y, bad):
            targets += int(bad.sum())
            evidence[f"{split} targets"] = {"rows": int(bad.sum()), "of": len(bad)}
            rows = rows or tuple(bad.nonzero().flatten()[:20].tolist())
    if not inputs and not targets:
        return
    said = "; ".join(f"{k}: {v['rows']} of {v['of']} rows" for k, v in evidence.items())
    repairs = []
    if inputs:
        repairs.append(
            Repair("fill gaps within the model", fill_and_drop if targets else fill,
                   proof="exact", edit="X = torch.where(X.isfinite(), X, median of the training "
                   "rows), in every split, with a column that says where")
        )  # fmt: skip
    else:
        repairs.append(
            Repair("drop rows without a target", drop, proof="exact",
                   edit="keep = y.isfinite(); X, y = X[keep], y[keep]")
        )  # fmt: skip
    yield Finding(
        "nan_in_data",
        f"NaN or infinity in {said}: the loss of a batch with such a row is no number",
        "fill what is missing, by the training rows, and tell the net where it was",
        where=tuple(inputs) + (("targets",) if targets else ()),
        rows=rows,
        evidence=evidence,
        confirmed=True,
        strength=10.0,
        repairs=tuple(repairs),
    )


def fill(exp: Experiment) -> str:
    """Fill gaps of the input by medians of the training rows, in front of the model."""
    facts = Facts(exp)
    X = facts.X
    if X is None or not X.is_floating_point():
        message = "the input is not one tensor of numbers"
        raise CannotRepair(message)
    flat = columns(facts, X)
    median = torch.nanmedian(torch.where(flat.isfinite(), flat, torch.nan), 0).values
    median = torch.nan_to_num(median).to(X.dtype)
    gaps = (~flat.isfinite()).double().mean(0)
    first = X.ndim == 4 or (X.ndim == 3 and flat.shape[1] == X.shape[1] != X.shape[2])
    filled = Fill(median, torch.full_like(median, torch.nan), channels_first=first)
    marked = ""
    if X.ndim == 2 and add_marks(exp, filled, (gaps > 0).nonzero().flatten(), X):
        marked = ", and a column each says where"
    put_in_front(exp, filled)
    return f"gaps are filled by the medians of the training rows within the model{marked}"


def drop(exp: Experiment) -> str:
    """Take rows without a target out of both splits."""
    taken = 0
    for name, data, _, y in splits_of(exp):
        keep = ~_flat_bad(y)
        if float(keep.double().mean()) < LEAST_KEPT:
            message = f"over half of the rows of {name} have no target"
            raise CannotRepair(message)
        if not bool(keep.all()):
            setattr(exp, name, kept(data, keep))
            taken += int((~keep).sum())
    return f"took out {taken} rows without a target"


def fill_and_drop(exp: Experiment) -> str:
    """Take rows without a target out, and fill the gaps of the others."""
    first = drop(exp)
    return f"{first}; {fill(exp)}"


def _parts(X: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(X, Tensor):
        yield "", X
    elif isinstance(X, dict):
        yield from ((f"['{k}']", v) for k, v in X.items() if isinstance(v, Tensor))
    elif isinstance(X, (tuple, list)):
        yield from ((f"[{i}]", v) for i, v in enumerate(X) if isinstance(v, Tensor))


def _flat_bad(part: Tensor) -> Tensor:
    return ~part.reshape(len(part), -1).isfinite().all(1)


def _bad(part: Tensor) -> Tensor | None:
    return _flat_bad(part) if part.is_floating_point() and part.ndim and len(part) else None


def _reaches(facts: Facts, X: Any, bad: Tensor) -> bool:
    """Whether the model's answer to rows with gaps is no number."""
    some = take(X, bad.nonzero().flatten()[:TRIED])
    if some is None:
        return False
    facts.passes += 1
    with torch.random.fork_rng(devices=[]):
        said = outputs(facts.exp, some)
    return isinstance(said, Tensor) and not bool(said.isfinite().all())


def _in_loss(facts: Facts, X: Any, y: Tensor, bad: Tensor) -> bool:
    """Whether the loss of rows with and without a target is no number; it may leave some out."""
    rows = torch.cat([bad.nonzero().flatten()[: TRIED // 2], (~bad).nonzero().flatten()[:TRIED]])
    some = take(X, rows)
    if some is None:
        return False
    facts.passes += 1
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        said = outputs(facts.exp, _clean(some))
        if not isinstance(said, Tensor):
            return False
        loss = facts.exp.loss(said, y[rows])
    return not bool(torch.as_tensor(loss).isfinite().all())


def _clean(X: Any) -> Any:
    if isinstance(X, Tensor):
        return torch.nan_to_num(X, posinf=0.0, neginf=0.0) if X.is_floating_point() else X
    if isinstance(X, dict):
        return {k: _clean(v) for k, v in X.items()}
    return type(X)(_clean(v) for v in X) if isinstance(X, (tuple, list)) else X


def _by_column(facts: Facts, part: Tensor) -> dict[str, Any]:
    if part.ndim != 2:
        return {}
    counts = (~part.isfinite()).sum(0)
    worst = counts.argsort(descending=True)[:8]
    names = called(facts.exp, len(counts))
    return {"columns": {names[i]: int(counts[i]) for i in worst.tolist() if counts[i] > 0}}


RULE = Rule(
    code="nan_in_data",
    title="numbers are missing from the data",
    looks="the loss is NaN after a few steps, or from the first one on",
    why="a sum with NaN is NaN: one such row makes the gradient of its whole batch NaN, and the "
    "optimizer writes that into every weight",
    do="fill gaps by a median of the training rows, in every split alike, with a column that says "
    "where they were; drop rows whose target is missing",
    source="Little and Rubin 2019, Statistical analysis with missing data, 3rd edition",
    before=before,
    causes=("nan_inf", "sentinel_values", "unnormalised_input", "target_unscaled", "plateau",
            "underfit", "exploding_gradient"),
)  # fmt: skip
