"""Entities: a tagger for names of people and places, trained from random weights.

The sentences are made up, a token and its tag a line, as a .conll file holds them.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import gipi

QUICK = "--quick" in sys.argv
FIRST = "Anna Ben Cara Dan Eva Finn Gina Hal Ida Jon Kim Lea".split()  # noqa: SIM905
LAST = "Adler Brown Cole Dunn Evans Ford Grant Holt".split()  # noqa: SIM905
PLACES = "Berlin Seoul Paris Oslo Cairo Lima Rome Bern Quito Accra".split()  # noqa: SIM905
FORMS = ("P went to L .", "P of L met P .", "in L it rained on P", "P and P left L in 1990 .")


def sentence(draw: random.Random) -> str:
    """Return a sentence as lines of token and tag."""
    lines = []
    for word in draw.choice(FORMS).split():
        if word == "P":
            lines.append(f"{draw.choice(FIRST)} B-PER")
            lines += [f"{draw.choice(LAST)} I-PER"] * (draw.random() < 0.6)
        elif word == "L":
            lines.append(f"{draw.choice(PLACES)} B-LOC")
        else:
            lines.append(f"{word} O")
    return "\n".join(lines)


def main() -> None:
    """Write the data, train, and find the entities of a new text."""
    draw = random.Random(0)
    sentences = [sentence(draw) for _ in range(150 if QUICK else 600)]
    Path("people.conll").write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    small = {"model.embedding": 32, "model.width": 32, "model.filters": 16} if QUICK else {}
    run = gipi.train("people.conll", epochs=8, lr=0.01, settings=small, quiet=True)
    print(f"F1 of entities in new sentences: {run.metrics['test/entity_f1']:.3f}")
    for entity in run.predict("Eva Brown met Mr Zhu in Rome.")[0]["entities"]:
        print(f"{entity['type']:4} {entity['text']} at {entity['start']}-{entity['end']}")
    print(f"report: {run.path / 'report.html'}")


if __name__ == "__main__":
    main()
