"""Published rule sets on the same runs: what they would say, from the same trace.

    python -m benchmarks.doctor.baselines [--half tuned|drawn|both] [--seeds 0 1 2] [--only WORD ...]

AutoTrainer   Zhang, Zhai, Ma and Shen 2021, "AUTOTRAINER: an automatic DNN training problem
              detection and repair system", ICSE; thresholds of its defaults
SageMaker     the built-in rules of Amazon SageMaker Debugger with their documented defaults
              (Rauschmayr et al. 2021, MLSys), those that concern training of nets
UMLAUT        Schoop, Huang and Hartmann 2021, "UMLAUT: debugging deep learning programs using
              program structure and model behavior", CHI

They are written from their descriptions, on `gipi.doctor.trace`. A verdict counts as right where
any of the catalogue's codes that it may stand for is the fault: the mapping is generous, as all
three name symptoms. Where the trace has no such number the nearest one stands in: root mean squares
for norms and mean absolute values, shares of dead units for shares of zero gradients, the variance
explained for accuracy where targets are numbers. Rules that need what nobody here has (bounding
boxes, trees, attention maps, a person's file) are left out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.doctor.cases import SETTINGS
from benchmarks.doctor.run import RESULTS, append, chosen, frame, limited
from benchmarks.doctor.setup import build
from benchmarks.speed.stats import commit
from torch import Tensor, nn

from gipi.doctor import Experiment
from gipi.doctor.copies import duplicate
from gipi.doctor.facts import Facts
from gipi.doctor.play import play
from gipi.doctor.tape import ACTIVATIONS
from gipi.doctor.trace import Look, Trace


@dataclass(frozen=True)
class Verdict:
    """What a rule says: its name there, the codes it may stand for, the step at which it fires."""

    name: str
    codes: tuple[str, ...]
    step: int = 0


Rules = Callable[[Trace, Facts], Iterator[Verdict]]
EXPLODE = ("exploding_gradient", "nan_inf", "lr_too_high", "bad_init_scale")
VANISH = ("vanishing_gradient", "saturated_activation", "bad_init_scale")
SLOW = (
    "lr_too_low",
    "lr_decay_too_fast",
    "grad_clip_too_small",
    "plateau",
    "underfit",
    "missing_nonlinearity",
)
UNSTABLE = ("oscillating_loss", "lr_too_high")
STILL = ("frozen_layer", "params_not_in_optimizer", "graph_detached", "unused_parameters")

# ---------------------------------------------------------------------- AutoTrainer


def autotrainer(
    trace: Trace,
    _: Facts,
    *,
    accuracy: float = 0.7,
    ratio_low: float = 1e-3,
    first_low: float = 1e-4,
    ratio_high: float = 70.0,
    dead: float = 0.7,
    swing: float = 0.03,
    swings: float = 0.2,
    slow: float = 0.01,
    judged_from: float = 0.3,
    every: int = 3,
) -> Iterator[Verdict]:
    """Yield the first problem that is seen, at checks every third epoch."""
    if trace.broken is not None:
        yield Verdict("explode", EXPLODE, trace.broken)
        return
    total = len(trace.epochs)
    for n in range(every, total + 1, every):
        rows = trace.epochs[:n]
        step = rows[-1]["step"]
        if n < judged_from * total:
            continue
        train = [r.get("train_score", 0.0) for r in rows]
        val = [r.get("val_score", t) for r, t in zip(rows, train, strict=True)]
        rises = max(
            (b - a for s in (train, val) for a, b in zip(s, s[1:], strict=False)), default=0.0
        )
        low = max(train) < accuracy or max(val) < accuracy
        look = last_look(trace, step)
        if look is not None and (low or rises < slow):
            grads = [v.grad for k, v in look.params.items() if "weight" in k and "norm" not in k]
            ratio = grads[0] / grads[-1] if len(grads) > 1 and grads[-1] > 0 else 1.0
            relus = [u.dead for u in look.units.values() if u.kind == "relu"]
            if relus and sum(relus) / len(relus) >= dead:
                yield Verdict("dying relu", ("dead_relu",), step)
            elif ratio > ratio_high:
                yield Verdict("explode", EXPLODE, step)
            elif ratio < ratio_low and grads[0] < first_low:
                yield Verdict("vanish", VANISH, step)
            elif rises < slow:
                yield Verdict("slow convergence", SLOW, step)
            else:
                continue
            return
        if not low and rises >= slow and _swings(train, swing) >= swings * n:
            yield Verdict("oscillating loss", UNSTABLE, step)
            return


def _swings(values: list[float], least: float) -> int:
    """Return how many peaks stand above their trough by at least `least`."""
    peaks = [
        b for a, b, c in zip(values, values[1:], values[2:], strict=False) if b >= a and b >= c
    ]
    troughs = [
        b for a, b, c in zip(values, values[1:], values[2:], strict=False) if b <= a and b <= c
    ]
    return sum(p - t >= least for p, t in zip(peaks, troughs, strict=False))


def last_look(trace: Trace, step: int) -> Look | None:
    """Return the last look at the layers up to a step."""
    seen = [look for look in trace.looks if look.step <= step]
    return seen[-1] if seen else None


# ---------------------------------------------------------------------- SageMaker


def sagemaker(trace: Trace, facts: Facts) -> Iterator[Verdict]:
    """Yield every built-in rule that fires, each once, at the step at which it does."""
    found: dict[str, Verdict] = {}
    for v in _sagemaker(trace, facts):
        if v.name not in found or v.step < found[v.name].step:
            found[v.name] = v
    yield from sorted(found.values(), key=lambda v: v.step)


def _sagemaker(trace: Trace, facts: Facts) -> Iterator[Verdict]:
    if facts.classes > 1 and facts.y is not None and not facts.y.is_floating_point():
        count = torch.bincount(facts.y.flatten().clamp(min=0))
        if len(count) and float(count.max()) > 10 * max(1.0, float(count.min())):
            yield Verdict("ClassImbalance", ("class_imbalance",))
    if facts.inputs == "image" and facts.X is not None and abs(float(facts.X.mean())) > 0.2:
        yield Verdict("CheckInputImages", ("unnormalised_input",))
    if trace.broken is not None:
        yield Verdict("ExplodingTensor", EXPLODE, trace.broken)
    still: dict[str, int] = {}
    for nth, look in enumerate(trace.looks):
        weights = {k: v for k, v in look.params.items() if "weight" in k and "norm" not in k}
        if nth == 0 and weights:
            spread = [v.weight**2 for v in weights.values()]
            if min(spread) == 0 or max(spread) / min(spread) > 10:
                yield Verdict("PoorWeightInitialization", ("bad_init_scale", "bad_init_symmetric"))
        for name, v in look.params.items():
            if 0 < v.grad < 1e-7:
                yield Verdict("VanishingGradient", VANISH, look.step)
            if v.weight == 0 and "bias" not in name:
                yield Verdict("AllZero", ("bad_init_symmetric", "dead_relu"), look.step)
            if v.update > 0 and v.ratio > 10:
                yield Verdict("WeightUpdateRatio", ("lr_too_high", "bad_init_scale"), look.step)
            if 0 < v.ratio < 1e-8:
                yield Verdict("WeightUpdateRatio", ("lr_too_low", "vanishing_gradient"), look.step)
            still[name] = still.get(name, 0) + 1 if v.update == 0 else 0
            if still[name] >= 3:
                yield Verdict("UnchangedTensor", STILL, look.step)
        for u in look.units.values():
            if u.kind == "relu" and u.dead > 0.5:
                yield Verdict("DeadRelu", ("dead_relu",), look.step)
            if u.kind in ("tanh", "sigmoid") and u.saturated > 0.5:
                yield Verdict("SaturatedActivation", ("saturated_activation",), look.step)
    for step in range(10, trace.step, 10):
        before, now = trace.losses[step - 10], trace.losses[step]
        if math.isfinite(now) and now > before * (1 - 0.001):
            yield Verdict("LossNotDecreasing", (*SLOW, *UNSTABLE), step)
            break
    best_train, best_val, waits = math.inf, math.inf, [0, 0]
    for row in trace.epochs:
        train, val = row.get("train_eval", row["train"]), row.get("val")
        waits[0] = 0 if train < best_train - 0.01 else waits[0] + 1
        best_train = min(best_train, train)
        if val is not None:
            waits[1] = 0 if val < best_val - 0.01 else waits[1] + 1
            best_val = min(best_val, val)
            if train > 0 and (val - train) / train > 0.1:
                yield Verdict("Overfit", ("overfit",), row["step"])
        if waits[0] >= 5 or waits[1] >= 10:
            yield Verdict("Overtraining", ("overfit", "plateau"), row["step"])


# ---------------------------------------------------------------------- UMLAUT


def umlaut(trace: Trace, facts: Facts) -> Iterator[Verdict]:
    """Yield the heuristics that fire, each once."""
    if facts.X is not None and facts.X.is_floating_point():
        if not bool(torch.isfinite(facts.X).all()):
            yield Verdict("NaN in input", ("nan_in_data",))
        elif float(facts.X.min()) < -1 or float(facts.X.max()) > 1:
            yield Verdict("input not normalised", ("unnormalised_input", "sentinel_values"))
    said = facts.outputs
    if facts.loss.of_classes and isinstance(said, Tensor) and said.is_floating_point():
        ones = bool(
            ((said.exp() if facts.loss.name == "nll" else said).sum(-1) - 1).abs().max() < 1e-4
        )
        if ones != (facts.loss.name == "nll"):
            yield Verdict("softmax not exactly once", ("double_softmax", "wrong_loss"))
    kinds = [
        op.kind
        for op in facts.tape.ops
        if op.kind in ACTIVATIONS | {"linear", "conv", "softmax", "matmul"}
    ]
    if any(
        a in ("linear", "conv") and b in ("linear", "conv")
        for a, b in zip(kinds, kinds[1:], strict=False)
    ):
        yield Verdict("missing activation", ("missing_nonlinearity", "underfit"))
    if any(isinstance(m, nn.Dropout) and m.p > 0.5 for m in facts.exp.model.modules()):
        yield Verdict("high dropout", ("dropout_too_high",))
    lr = facts.exp.optimizer.param_groups[0]["lr"]
    if lr > 0.01:
        yield Verdict("high learning rate", ("lr_too_high", "oscillating_loss"))
    if lr < 1e-7:
        yield Verdict("low learning rate", ("lr_too_low",))
    if trace.broken is not None:
        yield Verdict("NaN in loss", ("nan_inf", "exploding_gradient", "lr_too_high"), trace.broken)
    for a, b in zip(trace.epochs, trace.epochs[1:], strict=False):
        if "val" in b and b["val"] > a["val"] and b["train"] <= a["train"]:
            yield Verdict("overfitting", ("overfit",), b["step"])
            break
    for row in trace.epochs:
        if facts.classes > 1 and ("val_score" in row) and (
            row["val_score"] > 0.95 or row["val_score"] > row["train_score"]
        ):  # fmt: skip
            yield Verdict(
                "validation accuracy too good", ("target_leak", "train_val_overlap"), row["step"]
            )
            break


SETS: dict[str, Rules] = {"AutoTrainer": autotrainer, "SageMaker": sagemaker, "UMLAUT": umlaut}


def judged_by_accuracy(exp: Experiment, kind: str) -> Experiment:
    """Return a copy whose score is accuracy, or the variance explained."""
    twin = duplicate(exp)

    def accuracy(said: Any, y: Tensor) -> float:
        said = said[0] if isinstance(said, (tuple, list)) else said
        if kind in ("classes", "language"):
            return float((said.argmax(-1) == y).float().mean())
        if kind in ("binary", "multilabel"):
            return float(((said > 0) == (y > 0.5)).float().mean())
        if said.ndim == y.ndim == 2:
            said = said[:, : y.shape[1]]
        return (
            float(1 - (said.flatten() - y.flatten()).square().mean() / y.var())
            if said.numel() == y.numel()
            else 0.0
        )

    twin.metric = accuracy
    return twin


def verdicts(exp: Experiment, kind: str) -> dict[str, list[Verdict]]:
    """Return what every rule set says of an experiment, in the order in which it comes."""
    facts, twin = Facts(exp), judged_by_accuracy(exp, kind)
    trace = play(twin)
    found: dict[str, list[Verdict]] = {}
    for name, rules in SETS.items():
        try:
            found[name] = sorted(rules(trace, facts), key=lambda v: v.step)
        except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
            found[name] = []
            print(f"{name}: {type(error).__name__}: {error}")
    return found


def main() -> None:
    """Run what is missing; one row a (commit, case, seed) in `results/*-baselines.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("tuned", "drawn", "both"), default="tuned")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--draw", default="")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    head = commit()
    path = RESULTS / f"{datetime.date.today().isoformat()}-baselines.jsonl"  # noqa: DTZ011
    known = {
        (r["commit"], r["half"], r["case"], r["seed"])
        for p in RESULTS.glob("*-baselines.jsonl")
        for r in map(json.loads, p.read_text().splitlines())
    }
    for seed in asked.seeds:
        for case in chosen(asked.half, asked.draw or head, asked.only, asked.shard):
            if (head, case.half, case.name, seed) in known:
                continue
            row = frame(case, seed, head)
            try:
                with limited(120):
                    built = build(case, SETTINGS, seed)
                    row["planned"] = built.sick.total_steps
                    row["said"] = {
                        name: [{"name": v.name, "codes": v.codes, "step": v.step} for v in found]
                        for name, found in verdicts(built.sick, built.kind).items()
                    }
            except Exception as error:  # noqa: BLE001  a sick run may break in any way
                row["error"] = f"{type(error).__name__}: {error}"[:300]
            append(path, row)
            print(
                case.name,
                seed,
                {k: [v["name"] for v in vs] for k, vs in row.get("said", {}).items()},
                flush=True,
            )


if __name__ == "__main__":
    main()
