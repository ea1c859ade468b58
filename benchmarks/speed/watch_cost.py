"""What `gipi.watch` costs a step: the same loop with and without it, turn about in one process.

    python watch_cost.py [tiny mlp cnn attention] [--rounds 15] [--steps 300] [--again]

Only the loop is timed: what is found out afterwards is not. A turn is a new model and `--steps`
steps, so that the looks at the first steps and the rarer later ones are in it as in a real run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext

import torch
from stats import Results, bootstrap, versions
from torch import nn

import gipi


def tiny():
    """Return a net for a table of eight columns: as small as steps get."""
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), (32, 8), 3


def mlp():
    layers = [
        nn.Linear(256, 1024),
        nn.ReLU(),
        nn.Linear(1024, 1024),
        nn.ReLU(),
        nn.Linear(1024, 10),
    ]
    return nn.Sequential(*layers), (256, 256), 10


def cnn():
    blocks: list[nn.Module] = []
    for a, b in ((3, 32), (32, 64), (64, 128)):
        blocks += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(128 * 16, 10)), (64, 3, 32, 32), 10


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 256, batch_first=True, dropout=0.0)
        self.body, self.head = nn.TransformerEncoder(layer, 3), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean(1))


def attention():
    return Attention(), (32, 32, 128), 10


WORKS = {"tiny": tiny, "mlp": mlp, "cnn": cnn, "attention": attention}


def turn(name: str, *, steps: int, watched: bool) -> float:
    """Return the seconds of a step of one new run."""
    torch.manual_seed(0)
    model, shape, classes = WORKS[name]()
    x, y = torch.randn(shape), torch.randint(classes, (shape[0],))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss_fn = nn.CrossEntropyLoss()
    doctor = gipi.watch(model, optimizer, loss_fn) if watched else nullcontext()
    with doctor:
        began = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            loss_fn(model(x), y).backward()
            optimizer.step()
        return (time.perf_counter() - began) / steps


def main() -> None:
    """Measure what is missing and print one line a work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", default=list(WORKS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--again", action="store_true")
    asked = parser.parse_args()
    results = Results("watch_cost")
    for name in asked.works:
        variant = f"watch, {asked.steps} steps"
        if results.has(name, variant) and not asked.again:
            continue
        turn(name, steps=20, watched=True)  # the first run is slow for other reasons
        pairs = []
        for number in range(asked.rounds):
            order = (True, False) if number % 2 else (False, True)
            seen = {w: turn(name, steps=asked.steps, watched=w) for w in order}
            pairs.append((seen[False], seen[True]))
        ratio = bootstrap([b / a for a, b in pairs])
        plain = statistics.median(a for a, _ in pairs)
        extra = bootstrap([(b - a) * 1e6 for a, b in pairs])
        results.add(
            name, variant, step_ms=plain * 1e3, ratio=ratio, extra_us=extra,
            versions=versions("torch"),
        )  # fmt: skip
        print(
            f"{name}: {plain * 1e3:.3f} ms a step, x{ratio['median']:.3f} "
            f"[{ratio['low']:.3f}, {ratio['high']:.3f}], {extra['median']:+.1f} us",
            flush=True,
        )


if __name__ == "__main__":
    main()
