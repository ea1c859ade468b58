"""Running text that a small model learns in seconds."""

from __future__ import annotations

import random

NOUNS = ("king", "queen", "fox", "raven", "smith", "river")
VERBS = ("sees", "hears", "follows", "fears")
ENDS = ("at dawn", "by night", "in the hall", "far away")


def prose(lines: int = 400, seed: int = 0) -> str:
    """Return lines of one simple grammar."""
    draw = random.Random(seed)
    rows = [
        f"the {draw.choice(NOUNS)} {draw.choice(VERBS)} the {draw.choice(NOUNS)} "
        f"{draw.choice(ENDS)}.\n"
        for _ in range(lines)
    ]
    return "".join(rows)
