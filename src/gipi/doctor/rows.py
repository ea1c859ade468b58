"""The rows of a run as a trace: what `rows.jsonl` says of steps and evaluations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gipi.doctor.trace import LayerLook, Look, Trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def trace_of(rows: Sequence[Mapping[str, Any]], *, planned: int, steps: int, primary: str) -> Trace:
    """Return the trace that the rows of a run folder make; `steps` is those of one pass."""
    trace = Trace(planned, max(1, steps))
    for row in rows:
        if "train/loss" in row:
            add_row(trace, row)
        elif "val/loss" in row:
            add_evaluation(trace, row, primary)
    bad = [i for i, v in enumerate(trace.losses) if not math.isfinite(v)]
    trace.broken = bad[0] if bad else None
    return trace


def add_row(trace: Trace, row: Mapping[str, Any]) -> None:
    """Add a row of `rows.jsonl` to a trace: its loss is the mean of the steps since the last."""
    missing = row["step"] - trace.step
    trace.losses += [row["train/loss"]] * missing
    trace.norms += [row.get("grad_norm", math.nan)] * missing
    last = trace.rates[-1] if trace.rates else math.nan
    trace.rates += [row.get("lr", last)] * missing
    if "layers" in row:
        looked = {
            name: LayerLook(v["grad_norm"], 1.0, v["update_ratio"])
            for name, v in row["layers"].items()
        }
        trace.looks.append(Look(row["step"], looked, {}))


def add_evaluation(trace: Trace, row: Mapping[str, Any], primary: str) -> None:
    """Add the row of an evaluation; the training loss beside it is that of the last steps."""
    if "val/loss" not in row or row.get("event"):
        return
    last = trace.losses[-1] if trace.losses else math.nan
    trace.epochs.append(
        {"epoch": round(row["step"] / trace.per_epoch, 2), "step": row["step"], "train": last,
         "train_eval": last, "val": row["val/loss"],
         "val_score": row.get(f"val/{primary}", -row["val/loss"])}
    )  # fmt: skip
