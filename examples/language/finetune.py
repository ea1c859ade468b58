"""An encoder learns from text alone, and then starts classifiers: frozen, full, gradual.

A real one would be a folder in Hugging Face form; here a run of pre-training makes its own.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

import gipi

QUICK = "--quick" in sys.argv
GOOD, BAD = ("lovely", "great", "warm", "funny"), ("dull", "awful", "cold", "flat")
THINGS = ("film", "story", "plot", "cast", "song", "scene")


def sentence(chance: random.Random) -> tuple[str, str]:
    """Return a sentence of a review and its mood."""
    mood, words = chance.choice((("good", GOOD), ("bad", BAD)))
    one, two = chance.sample(THINGS, 2)
    a, b = chance.sample(words, 2)
    return f"the {one} was {a} and the {two} we saw was {b} too", mood


def write_files(folder: Path) -> tuple[Path, Path]:
    """Write text to learn from, and a small table with labels."""
    chance = random.Random(0)
    text, table = folder / "reviews.txt", folder / "labelled.csv"
    text.write_text("\n\n".join(sentence(chance)[0] + " ." for _ in range(1500)), encoding="utf-8")
    with table.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("text", "mood"), *(sentence(chance) for _ in range(120))])
    return text, table


def main() -> None:
    """Pre-train, then start a classifier three ways; ask the last one, and its vectors."""
    folder = Path("finetune-example")
    folder.mkdir(exist_ok=True)
    text, table = write_files(folder)
    small = {"model.width": 32, "model.heads": 2, "max_length": 32, "tokenizer.vocab": 200}
    encoder = gipi.train(str(text), task="masked", steps=10 if QUICK else 600, batch_size=32,
                         quiet=True, settings=small)  # fmt: skip
    print(f"hidden tokens named: {encoder.metrics['val/hidden_accuracy']:.0%}")
    for way in ("frozen", "full", "gradual"):
        run = gipi.train(str(table), steps=10 if QUICK else 120, quiet=True, settings={
            "pretrained": str(encoder.path), "transfer": way, "body_lr": 5e-4})  # fmt: skip
        print(f"{way}: accuracy {run.metrics['test/accuracy']:.3f}")
    print(run.predict(["the cast was lovely"])[0]["label"])
    print(gipi.embed(encoder.path / "pretrained", ["the plot was dull"]).shape)


if __name__ == "__main__":
    main()
