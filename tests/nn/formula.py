"""Formulas as they are printed, read as numbers: the texts of the records are what is tested."""

from __future__ import annotations

import math
import re

NAMES = {
    "e": math.e, "π": math.pi, "tanh": math.tanh, "log": math.log, "max": max, "min": min,
    "abs": abs, "sqrt": math.sqrt, "floor": math.floor, "ceil": math.ceil,
    "σ": lambda x: 1 / (1 + math.exp(-x)),
    "Φ": lambda x: 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "φ": lambda x: math.exp(-x * x / 2) / math.sqrt(2 * math.pi),
}  # fmt: skip
# What is written, and how Python writes it.
SPELLING = (
    (r"\|([^|]+)\|", r"abs(\1)"),
    (r"·", "*"),
    (r"\^", "**"),
    (r"√", "sqrt"),
    (r"⌊", "floor("),
    (r"⌋", ")"),
    (r"⌈", "ceil("),
    (r"⌉", ")"),
    (r"∞", "inf"),
    (r" where ", " if "),
    (r", else ", " else "),
    (r"\bin\b", "fan_in"),
)


def value(text: str, where: str = "", **numbers: float) -> float:
    """Return what a formula gives; `where` defines further names, as "a = 1; b = 2·a"."""
    known = {**NAMES, "inf": math.inf, **{k.replace("in_", "fan_in"): v
                                         for k, v in numbers.items()}}  # fmt: skip
    for definition in filter(None, where.split("; ")):
        name, right = definition.split(" = ")
        known[name] = value(right, **{k: v for k, v in known.items() if k not in NAMES})
    for written, python in SPELLING:
        text = re.sub(written, python, text)
    return eval(text, {"__builtins__": {}}, known)


def bounds(text: str) -> tuple[float, float, bool, bool]:
    """Return (low, high, low belongs, high belongs) of an interval such as "[0, ∞)"."""
    low, high = text[1:-1].split(", ")
    number = lambda t: value(t.replace("-∞", "-inf"))
    return number(low), number(high), text[0] == "[", text[-1] == "]"
