"""The benchmark's cases: a fixed half that rules may be tuned on, and a half drawn by a hash.

`TUNED` never changes; `drawn(commit)` draws another half from the hash of the commit that is
judged, so that nobody can have tuned on it: kinds of data, nets, faults, strengths, and small
changes of the setting itself (width, activation, batch size, rows, decay).
"""

from __future__ import annotations

import math
import random

from benchmarks.doctor import (
    faults_data,
    faults_net,
    faults_steps,
    faults_wiring,
    faults_words,
    oddities,
    oddities_forms,
    oddities_losses,
    oddities_steps,
)
from benchmarks.doctor.settings import SETTINGS
from benchmarks.doctor.setup import Case, Fault

from gipi.core.seed import derive

FAULTS: tuple[Fault, ...] = (
    *faults_wiring.FAULTS, *faults_words.FAULTS, *faults_data.FAULTS, *faults_net.FAULTS,
    *faults_steps.FAULTS,
)  # fmt: skip
ODDITIES: tuple[Fault, ...] = (
    *oddities.ODDITIES, *oddities_losses.ODDITIES, *oddities_steps.ODDITIES,
    *oddities_forms.ODDITIES,
)  # fmt: skip
CODES = tuple(sorted({f.code for f in FAULTS}))
NO_VARIATION = frozenset(
    ("declared_freeze", "masked_words", "tied", "bounces", "prelu", "selu", "elu", "gelu")
)
"""Faults that say more exactly what the net is than a variation would leave it."""
RECTIFIED = frozenset(("dead", "sparse_relu"))
"""Faults that need the ReLUs of their settings."""
ORDERED = frozenset(
    (
        "sorted_rows",
        "sorted_loader",
        "in_any_order",
        "chronological",
        "chronological_shuffled",
        "bounces",
        "lbfgs",
    )
)
"""Faults to which the order or the size of batches belongs: no other loader."""
LEAST_HEALTHY = 80
PLAIN = 1 / 4
"""Share of the drawn healthy cases that are settings without any oddity."""


def middle(fault: Fault) -> float:
    """Return the geometric middle of a fault's strengths."""
    return math.sqrt(fault.low * fault.high) if fault.low > 0 else (fault.low + fault.high) / 2


def tuned() -> list[Case]:
    """Return the fixed half: every fault in its first settings, every oddity in its first.

    A code gets at least two cases, in different settings: one of every way to make it where there
    are several, else the first two settings of the one there is.
    """
    cases = []
    for code in CODES:
        ways = [f for f in FAULTS if f.code == code]
        seen: list[str] = []
        for f in ways:
            fresh = [name for name in f.on if name not in seen] or list(f.on)
            for name in fresh[: 1 if len(ways) > 1 else 2]:
                cases.append(Case(name, f, middle(f)))
                seen.append(name)
    for f in ODDITIES:
        names = f.on if f.name == "plain" else f.on[:1]
        cases += [Case(name, f, middle(f)) for name in names]
    return cases


def drawn(commit: str) -> list[Case]:
    """Return the other half, drawn by the first seven digits of the hash of a commit.

    Every code gets two cases, by faults and in settings that the tuned half does not join where
    there are others; then `LEAST_HEALTHY` healthy ones.
    """
    rng = random.Random(derive(0, "doctor", commit.rstrip("+")[:7]))
    known = {(c.fault.name, c.setting) for c in tuned()}
    cases: list[Case] = []
    for code in CODES:
        pairs = [(f, name) for f in FAULTS if f.code == code for name in f.on]
        fresh = [p for p in pairs if (p[0].name, p[1]) not in known]
        pool = fresh if len(fresh) >= 2 else pairs
        for f, name in rng.sample(pool, min(2, len(pool))):
            cases.append(Case(name, f, _strength(rng, f), "drawn", _variation(rng, f, name)))
    plain = next(f for f in ODDITIES if f.name == "plain")
    others = [f for f in ODDITIES if f is not plain]
    picks: list[Fault] = [plain] * round(PLAIN * LEAST_HEALTHY)
    while len(picks) < LEAST_HEALTHY:
        picks += rng.sample(others, min(len(others), LEAST_HEALTHY - len(picks)))
    taken: set[str] = set()
    for f in picks:
        name = rng.choice([n for n in f.on if (f.name, n) not in known] or list(f.on))
        strength, changes = _strength(rng, f), _variation(rng, f, name)
        while f is plain and not changes:
            changes = _variation(rng, f, name)
        case = Case(name, f, strength, "drawn", changes)
        if case.name not in taken:
            taken.add(case.name)
            cases.append(case)
    return cases


def cases(half: str, commit: str) -> list[Case]:
    """Return "tuned", "drawn", or "both" halves."""
    found = tuned() if half in ("tuned", "both") else []
    return found + (drawn(commit) if half in ("drawn", "both") else [])


def _strength(rng: random.Random, fault: Fault) -> float:
    if fault.low == fault.high:
        return fault.low
    return math.exp(rng.uniform(math.log(fault.low), math.log(fault.high)))


def _variation(rng: random.Random, fault: Fault, setting: str) -> dict[str, object]:
    """Return small changes of a setting, each of them harmless by itself."""
    if fault.name in NO_VARIATION:
        return {}
    changes: dict[str, object] = {}
    if rng.random() < 0.5:
        changes["width"] = rng.choice((0.75, 1.25, 1.5))
    bends = setting.split("_")[1] in ("mlp", "cnn", "conv", "auto")
    if bends and fault.name not in RECTIFIED and rng.random() < 0.4:
        changes["act"] = rng.choice(("relu", "gelu", "tanh", "elu"))
    if rng.random() < 0.4:
        changes["batch"] = rng.choice((16, 24, 48))
    if rng.random() < 0.3:
        changes["rows"] = rng.choice((0.8, 0.9))
    if rng.random() < 0.3:
        changes["decay"] = True
    if rng.random() < 0.15 and fault.name not in ORDERED:
        changes["form"] = "loader"
    if rng.random() < 0.2:
        changes["written"] = "call"
    return changes


__all__ = ["CODES", "FAULTS", "ODDITIES", "SETTINGS", "cases", "drawn", "tuned"]
