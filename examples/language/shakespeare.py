"""A language model of letters: train it on a text, let it write, and see what surprises it.

With a folder of data sets (GIPI_DATA) it reads Tiny Shakespeare, with --quick a generated text.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import gipi
from gipi.deploy.score import odd_words

QUICK = "--quick" in sys.argv
NAMES, DEEDS = ("ROMEO", "JULIET", "NURSE"), ("wake", "weep", "go hence", "hold thy tongue")


def little_play(lines: int = 600) -> str:
    """Return a play of few words."""
    draw = random.Random(0)
    return "".join(
        f"{draw.choice(NAMES)}:\nI pray, {draw.choice(NAMES).title()}, {draw.choice(DEEDS)}!\n\n"
        for _ in range(lines)
    )


def main() -> None:
    """Train, write and judge."""
    with tempfile.TemporaryDirectory() as folder:
        data, budget = "tinyshakespeare", {"time": "5m"}
        small: dict[str, object] = {}
        if QUICK:
            path = Path(folder) / "play.txt"
            path.write_text(little_play(), encoding="utf-8")
            data, budget = str(path), {"steps": 40}
            small = {"max_length": 32, "model.width": 32, "model.layers": 1, "precision": "fp32"}
        run = gipi.train(
            data, task="generate", out=Path(folder) / "run", quiet=True, settings=small,
            time=budget.get("time"), steps=budget.get("steps"),
        )  # fmt: skip
        found = run.metrics
        print(f"bits per byte {found['val/bits_per_byte']:.3f}")
        for answer in run.generate("ROMEO:\n", max_new_tokens=120, temperature=0.8, samples=2):
            print(f"---\n{answer.prompt}{answer.text}")
        scores = run.score("ROMEO:\nI pray, Juliet, download!\n")
        print("odd:", ", ".join(f"{w.word} ({w.bits:.0f} bits)" for w in odd_words(scores)[0]))


if __name__ == "__main__":
    main()
