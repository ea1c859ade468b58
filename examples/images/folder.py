"""A folder of pictures, one sub-folder per class: made here, trained on, asked about a file."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import gipi

QUICK = "--quick" in sys.argv


def draw(kind: str, generator: np.random.Generator) -> Image.Image:
    """Return a small picture of a disc, a square or a cross on a noisy ground."""
    ground = generator.integers(0, 90, (28, 28), dtype=np.uint8)
    picture = Image.fromarray(ground)
    pen = ImageDraw.Draw(picture)
    x, y = (int(v) for v in generator.integers(3, 11, 2))
    box, size = (x, y, x + 13, y + 13), 14
    if kind == "disc":
        pen.ellipse(box, fill=220)
    elif kind == "square":
        pen.rectangle(box, fill=220)
    else:
        pen.line((x, y + size // 2, x + size, y + size // 2), fill=220, width=4)
        pen.line((x + size // 2, y, x + size // 2, y + size), fill=220, width=4)
    return picture


def main() -> None:
    """Write the folder, train on it, and predict."""
    generator = np.random.default_rng(0)
    folder = Path(tempfile.mkdtemp()) / "shapes"
    for kind in ("disc", "square", "cross"):
        (folder / kind).mkdir(parents=True)
        for i in range(60 if QUICK else 300):
            draw(kind, generator).save(folder / kind / f"{i:03}.png")

    run = gipi.train(folder, epochs=4 if QUICK else 15, seed=0)
    print({name: round(value, 3) for name, value in run.metrics.items()})

    new = folder.parent / "new.png"
    draw("cross", generator).save(new)
    answer = run.predict(new)[0]
    print(f"new.png is a {answer['label']} with probability {answer['probability']:.2f}")


if __name__ == "__main__":
    main()
