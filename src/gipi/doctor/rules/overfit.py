"""The net learns its training rows by heart and gets worse on others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gipi.doctor.finding import Change, Finding, Repair
from gipi.doctor.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

RISE = 0.10
CHECKS = 3
LAST = 0.5
"""A rise seen earlier than this share of the run may still be a bump of the schedule."""


def during(_: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect where validation loss has risen for three epochs while training loss fell."""
    rows = [r for r in trace.epochs if "val" in r and math.isfinite(r["val"])]
    if len(rows) <= CHECKS or trace.done < LAST:
        return
    best = min(rows, key=lambda r: r["val"])
    after = [r for r in rows if r["step"] > best["step"]]
    if len(after) < CHECKS:
        return
    rise = after[-1]["val"] - best["val"]
    if rise < RISE * abs(best["val"]) or after[-1]["train_eval"] >= best["train_eval"]:
        return
    if min(r["val"] for r in after[-CHECKS:]) <= best["val"] * (1 + RISE / 2):
        return
    yield Finding(
        "overfit",
        f"validation loss was lowest ({best['val']:.4g}) after epoch {best['epoch']} and is "
        f"{after[-1]['val']:.4g} now, while that of training rows fell from "
        f"{best['train_eval']:.4g} to {after[-1]['train_eval']:.4g}",
        f"stop after epoch {best['epoch']}, or keep its weights; then more data, augmentation, "
        "weight decay or a smaller net",
        evidence={"best_epoch": best["epoch"], "best": best["val"], "last": after[-1]["val"]},
        confirmed=True,
        phase="epoch",
        strength=rise / (RISE * abs(best["val"]) + 1e-12),
        repairs=(
            Repair(f"stop after epoch {best['epoch']}", _stop_after(best["epoch"]),
                   edit=f"epochs={best['epoch']}"),
            Repair("weight decay 0.01 and stop early", _decay(best["epoch"] + CHECKS)),
        ),
    )  # fmt: skip


def _stop_after(epochs: int) -> Change:
    def change(exp: Experiment) -> str:
        old, exp.epochs = exp.epochs, epochs
        return f"epochs {old:g} -> {epochs}: the weights of the best epoch"

    return change


def _decay(epochs: int) -> Change:
    def change(exp: Experiment) -> str:
        for group in exp.optimizer.param_groups:
            group["weight_decay"] = max(group.get("weight_decay", 0.0), 0.01)
        exp.epochs = min(exp.epochs, epochs)
        return f"weight decay 0.01, at most {epochs} epochs"

    return change


RULE = Rule(
    code="overfit",
    title="training rows are learned by heart",
    looks="training loss goes on falling; validation loss turns and rises",
    why="what is learned after the turn holds for the training rows alone",
    do="keep the weights of the best epoch; more data, augmentation, decay, dropout, fewer weights",
    source="Prechelt 1998, Early stopping, but when?; Goodfellow et al. 2016, section 7.8",
    during=during,
)
