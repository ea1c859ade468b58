"""The net learns its training rows by heart and gets worse on others."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from gipi.doctor.experiment import whole
from gipi.doctor.finding import CannotRepair, Change, Finding, Repair
from gipi.doctor.judge import JUDGED
from gipi.doctor.rule import Rule
from gipi.doctor.spared import may_spare, price, spared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

RISE, LEARNED = 0.2, 0.08
"""Rise of the validation loss over its lowest value; where training rows are known by heart."""
BY_HEART = 0.1
"""Loss of training rows over that of validation rows that says so."""
OF_SCALE = 0.05
"""The rise over the loss before the first step: what is tiny may double."""
OF_FALL = 0.16
"""The rise over the fall before it, half where rows are known by heart: a loss that may be negative
has no scale of its own."""
OF_GAIN = 0.25
"""Share of the fall before it that a rise must take back where rows that were right are lost with
it: a loss that ends near the chance of its targets, as that of a language, hardly doubles."""
CHECKS = 3
SURE = 2.0
"""Standard errors of the rise, by parts of the validation rows."""
GREAT = 0.5
"""A rise that is worth a word even where as many rows are right as before: so much of the lowest
loss, or of what had been gained until then."""
RIGHT = 0.02
"""Share of right rows that must be lost where rows have classes."""
LEAST = SURE**2
"""Rows that must be lost: of n rows whose answer changed, all for the worse, n / sqrt(n) is the
distance from chance in standard errors (McNemar 1947)."""
HEARD = 1.0
"""Standard errors of a rise that is asked about once more where validation rows are too few to be
sure: its epoch was chosen by it, so that as much is common by chance."""
LAST = 0.5
"""A rise seen earlier than this share of the run may still be a bump of the schedule."""


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect where validation loss has risen for three epochs while training loss fell."""
    rows = [r for r in trace.epochs if math.isfinite(r.get("val", math.nan))]
    if len(rows) <= CHECKS or trace.done < LAST:
        return
    best = min(rows, key=lambda r: r["val"])
    if rows[-1]["train_eval"] >= best["train_eval"]:
        return
    # Where training rows got worse as well a run stumbled: nothing was learned by heart there.
    after = [r for r in rows if r["step"] > best["step"] and r["train_eval"] < best["train_eval"]]
    if len(after) < CHECKS:
        return
    last = sum(r["val"] for r in after[-CHECKS:]) / CHECKS
    rise, low = last - best["val"], abs(best["val"])
    scale = abs(trace.start.get("val", trace.scale))
    by_heart = after[-1]["train_eval"] < BY_HEART * last
    edge = LEARNED if by_heart else RISE
    fell = abs(trace.start.get("val", trace.scale) - best["val"])
    of_fall = OF_FALL / 2 if by_heart else OF_FALL
    lost = (
        best.get("val_right", math.nan)
        - sum(r.get("val_right", math.nan) for r in after[-CHECKS:]) / CHECKS
    )
    fewer = lost > RIGHT and round(lost * _judged_rows(facts)) >= LEAST
    least = edge * low
    if fewer and not facts.exp.keep_best:
        least = min(least, OF_GAIN * fell)
    if rise < max(least, OF_SCALE * scale, of_fall * fell):
        return
    if min(r["val"] for r in after[-CHECKS:]) <= best["val"] + least / 2:
        return
    sure, z = _sure(best, after[-CHECKS:]), 0.0
    if not sure:
        # Few rows of validation: a run that knows its rows by heart is asked by others of its own.
        z = _rise(best, after[-CHECKS:])[1] if by_heart and trace.done >= 1 else 0.0
        if z < HEARD or trace.open or not may_spare(facts):
            return
    blind = _blind(facts, scale)
    gained = max(blind - best["val"], 0.0)
    # Whoever keeps the best weights does what would be advised already.
    lowest = low if facts.exp.keep_best else min(low, gained)
    great = rise > GREAT * lowest and rise > 2 * OF_SCALE * scale
    # Where rows have a class, surer answers that are as often right are worth a word, no more:
    # unless they are so sure that it would be better to say nothing.
    sick = fewer if _are_classes(facts) and math.isfinite(lost) else True
    above = gained > 0 and not facts.exp.keep_best
    sick = sick or (above and _surely_above(blind, after[-CHECKS:]))
    if not sick and (not great or not sure):
        return
    epoch = max(1, round(best["epoch"]))
    yield Finding(
        "overfit",
        f"validation loss was lowest ({best['val']:.4g}) after epoch {best['epoch']:.3g} and is "
        f"{last:.4g} now, while that of training rows fell from "
        f"{best['train_eval']:.4g} to {after[-1]['train_eval']:.4g}",
        f"stop after epoch {epoch}, or keep its weights; then more data, augmentation, weight "
        "decay, dropout or a smaller net",
        severity="problem" if sick else "hint",
        evidence={"best_epoch": best["epoch"], "best": best["val"], "last": last,
                  "train_then": best["train_eval"], "train_now": after[-1]["train_eval"],
                  **({} if sure else {"standard_errors": z})},
        confirmed=sure,
        phase="epoch",
        strength=rise / (least + 1e-12),
        repairs=(
            Repair(f"keep the weights of epoch {epoch}", _keep(best["epoch"]),
                   edit=f"epochs={epoch}, or keep a copy of the best weights", setting="epochs"),
            Repair("weight decay, and keep the best weights", _decay(best["epoch"])),
            Repair("dropout 0.3, and keep the best weights", _dropout(best["epoch"])),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a copy without a third of the rows: whether their loss rises as well.

    The rise is measured from the epoch that was best in validation, so that nothing is chosen by
    the rows that are asked: they must be sure by themselves, mean / (s / √n) ≥ 2. What validation
    shows is not added to it, being the lowest of many epochs before it rose.
    """
    found = spared(facts)
    if found is None:
        return None
    rows = [r for r in found[0].epochs if math.isfinite(r.get("val", math.nan))]
    if len(rows) <= CHECKS or found[0].broken is not None:
        return None
    then = min(rows, key=lambda r: abs(r["epoch"] - finding.evidence["best_epoch"]))
    rise, z = _rise(then, rows[-CHECKS:])
    if z < SURE or rise < LEARNED * abs(then["val"]):
        return None
    return replace(
        finding,
        confirmed=True,
        message=f"{finding.message}; of a copy trained without a third of its rows the loss of "
        f"those rose by {rise:.4g} since then",
        evidence={**finding.evidence, "rise_left_out": rise, "standard_errors_left_out": z},
    )


def _rise(old: Mapping[str, Any], after: list[dict[str, Any]]) -> tuple[float, float]:
    """Return by how much the loss of parts of rows rose, and that in standard errors."""
    first = old.get("val_parts") or []
    new = [r.get("val_parts") or [] for r in after]
    if len(first) < CHECKS or any(len(n) != len(first) for n in new):
        return 0.0, 0.0
    gains = [fmean(of) - was for was, of in zip(first, zip(*new, strict=True), strict=True)]
    error = stdev(gains) / math.sqrt(len(gains))
    return fmean(gains), fmean(gains) / error if error > 0 else 0.0


def _blind(facts: Facts, scale: float) -> float:
    """Return the validation loss of who knows nothing: at the start, or of outputs that are 0."""
    first = facts.start or facts
    guess = first.blind_loss if first.exp.judge is None else math.nan
    return min(scale, guess) if math.isfinite(guess) and guess > 0 else scale


def _surely_above(level: float, rows: list[dict[str, Any]]) -> bool:
    """Whether a mean of losses is above a level by more than the noise of its parts."""
    parts = [r.get("val_parts") or [] for r in rows]
    if not parts[0] or any(len(p) != len(parts[0]) for p in parts):
        return False
    means = [fmean(of) for of in zip(*parts, strict=True)]
    return fmean(means) - level > SURE * stdev(means) / math.sqrt(len(means))


def _are_classes(facts: Facts) -> bool:
    return (facts.start or facts).kind in ("classes", "binary", "multilabel")


def _judged_rows(facts: Facts) -> int:
    """Return how many answers the validation rows hold that are judged after every epoch."""
    rows = whole(facts.exp.val, JUDGED, facts.exp.device)
    if rows is None or not isinstance(rows[1], Tensor):
        return 0
    y = rows[1]  # the numbers of a one-hot row, or of its labels, are one answer
    return len(y) if y.is_floating_point() else int(y.numel())


def _sure(best: Mapping[str, Any], after: list[dict[str, Any]]) -> bool:
    """Whether the rise is more than its noise: the same parts of the rows are compared."""
    old = best.get("val_parts") or []
    new = [r.get("val_parts") or [] for r in after]
    if not old or any(len(n) != len(old) for n in new):
        return bool(min(r["val"] for r in after) > best["val"] * (1 + GREAT))
    gains = [sum(n[i] for n in new) / len(new) - old[i] for i in range(len(old))]
    mean = sum(gains) / len(gains)
    spread = math.sqrt(sum((g - mean) ** 2 for g in gains) / (len(gains) - 1))
    return bool(mean > SURE * spread / math.sqrt(len(gains)))


def _keep(epoch: float) -> Change:
    def change(exp: Experiment) -> str:
        old, exp.keep_best = exp.epochs, True
        exp.epochs = min(old, epoch + 2)
        return f"epochs {old:g} -> {exp.epochs:g}, and the weights of the best one are kept"

    return change


def _decay(epoch: float) -> Change:
    def change(exp: Experiment) -> str:
        for group in exp.optimizer.param_groups:
            least = 0.1 if type(exp.optimizer).__name__ == "AdamW" else 3e-3
            group["weight_decay"] = max(group.get("weight_decay", 0.0), least)
        exp.keep_best, exp.epochs = True, min(exp.epochs, 2 * epoch + 2)
        wd = exp.optimizer.param_groups[0]["weight_decay"]
        return f"weight decay {wd:g}, at most {exp.epochs:g} epochs, best weights kept"

    return change


def _dropout(epoch: float) -> Change:
    def change(exp: Experiment) -> str:
        found = 0
        for m in exp.model.modules():
            if isinstance(m, nn.Dropout) and m.p < 0.3:
                m.p, found = 0.3, found + 1
        for parent in list(exp.model.modules()):
            if not isinstance(parent, nn.Sequential) or any(
                isinstance(c, nn.Dropout) for c in parent
            ):
                continue
            for leaf, child in list(parent.named_children()):
                if isinstance(child, (nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.ELU)):
                    setattr(parent, leaf, nn.Sequential(child, nn.Dropout(0.3)))
                    found += 1
        if not found:
            message = "there is no place for dropout that can be seen from outside"
            raise CannotRepair(message)
        exp.keep_best, exp.epochs = True, min(exp.epochs, 2 * epoch + 2)
        return f"dropout 0.3 at {found} places, best weights kept"

    return change


RULE = Rule(
    code="overfit",
    title="training rows are learned by heart",
    looks="training loss goes on falling; validation loss turns and rises",
    why="what is learned after the turn holds for the training rows alone",
    do="keep the weights of the best epoch; more data, augmentation, decay, dropout, fewer weights",
    source="Prechelt 1998, Early stopping, but when?; Goodfellow et al. 2016, section 7.8",
    during=during,
    confirm=confirm,
    passes=400,
    cost=lambda facts, _: price(facts),
    weak=lambda _: True,  # what validation is sure of needs no confirmation
)
