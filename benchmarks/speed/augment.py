"""Images a second of every augmentation, and its share of a training step.

    python augment.py [--rounds 9] [--again]

Each step, and a few typical chains, is called on whole batches as the stream does it: rows of
3x32x32 and 1x28x28 (batches of 128, several gathered at once, as the stream gathers them) and
3x224x224 (batches of 32). The share is the time of the augmentation of one batch over that of one
training step on it (forward, backward, SGD step): ResNet-18 for CIFAR at 32x32, LeNet-5 at 28x28,
and ResNet-18 with an ImageNet stem at 224x224; the ResNets in bf16 and channels-last.
Everything runs in one thread and is counted in its processor time, so that other work on the
machine does not count. Medians of `--rounds`, one row per (commit, shape, step); known rows are not
measured again.

    python augment.py --table

prints the newest rows as Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
from time import process_time as now
from typing import Any

import torch
from stats import RESULTS, Results, machine, versions
from torch import nn
from torch.nn import functional as F
from works import ResNet18, lenet

from gipi.core.memory import keep_freed_pages
from gipi.core.schema import Field, Schema
from gipi.core.seed import derive
from gipi.data.augment import AUGMENTATIONS, build_augment
from gipi.data.stream import HOST_CHUNK

SHAPES = {"32x32x3": ((3, 32, 32), 128), "28x28x1": ((1, 28, 28), 128),
          "224x224x3": ((3, 224, 224), 32)}  # fmt: skip
CHAINS: dict[str, tuple[Any, ...]] = {
    "chain: flip + crop": ("flip", "crop"),
    "chain: flip + crop + cutout": ("flip", "crop", "cutout"),
    "chain: resized-crop + flip + color-jitter": ("resized-crop", "flip", "color-jitter"),
    "chain: rotate + shear + zoom + translate": ("rotate", "shear", "zoom", "translate"),
    "chain: flip + crop + trivial-augment + erase": ("flip", "crop", "trivial-augment", "erase"),
    "chain: flip + crop + rand-augment + mixup + cutmix":
        ("flip", "crop", "rand-augment", "mixup", "cutmix"),
}  # fmt: skip
DETECT = ("mosaic",)


class Photo18(nn.Module):
    """ResNet-18 with a 7x7 stem and max pooling: 1.8 G multiply-adds a picture of 224x224."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        body: Any = ResNet18()
        self.blocks, self.head = body.blocks, body.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


MODELS = {"32x32x3": ResNet18, "28x28x1": lenet, "224x224x3": Photo18}


def schema_of(shape: tuple[int, int, int], *, boxes: bool) -> Schema:
    c = shape[0]
    stats = {"mean": [0.45] * c, "std": [0.25] * c, "range": 255.0}
    image = Field("image", "image", "input", shape=shape, stats=stats)
    if boxes:
        target = Field("y", "boxes", "target", shape=(8, 6), classes=("a", "b"))
    else:
        target = Field("y", "category", "target", classes=tuple("0123456789"))
    return Schema((image, target))


def step_seconds(name: str, batch: int, rounds: int) -> float:
    """Return the median time of one training step."""
    shape = SHAPES[name][0]
    half = name != "28x28x1"
    model, x, y = MODELS[name](), torch.randn(batch, *shape), torch.randint(10, (batch,))
    if half:
        model, x = (v.to(memory_format=torch.channels_last) for v in (model, x))
    sgd = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, foreach=True)
    times = []
    for _ in range(1 + rounds):
        start = now()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.cross_entropy(model(x).float(), y)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        times.append(now() - start)
    return statistics.median(times[1:])


def seconds(name: str, asked: tuple[Any, ...], batch: int, rounds: int) -> float:
    """Return the median time of augmenting one batch, as part of the chunk that the stream takes."""
    shape = SHAPES[name][0]
    per = max(1, HOST_CHUNK // (4 * shape[0] * shape[1] * shape[2] * batch))
    boxes = any(step in DETECT for step in asked)
    augment = build_augment(asked, schema_of(shape, boxes=boxes))
    assert augment is not None
    n = per * batch
    image = torch.randn(n, *shape).clamp(-1.8, 2.2)
    target = torch.randint(10, (n,))
    if boxes:
        side = float(shape[1])
        target = torch.tensor([0.1, 0.2, 0.6, 0.7, 0, 0]) * torch.tensor([side] * 4 + [1.0, 1.0])
        target = target.repeat(n, 8, 1)
    ring = torch.stack([(torch.arange(n) + 1 + k) % n for k in range(max(1, augment.partners))])
    times = []
    for k in range(rounds + 2):
        key = derive(0, "augment", k)
        start = now()
        augment({"image": image}, target, torch.arange(n) + k * n, key=key, partner=ring)
        times.append((now() - start) / per)
    return statistics.median(times[2:])


def works(name: str) -> dict[str, tuple[Any, ...]]:
    """Return what is measured at one shape: name -> steps."""
    colour = SHAPES[name][0][0] == 3
    single: dict[str, tuple[Any, ...]] = {}
    for record in AUGMENTATIONS:
        if colour or "colour" not in record.tags:
            side = SHAPES[name][0][1]
            asked = {"name": "resize", "size": side * 3 // 4} if record.name == "resize" else None
            single[record.name] = (asked or record.name,)
    return {**single, **CHAINS}


def measure(results: Results, *, rounds: int, again: bool) -> None:
    torch.set_num_threads(1)
    keep_freed_pages()
    for name, (_, batch) in SHAPES.items():
        todo = {k: v for k, v in works(name).items() if again or not results.has(name, k)}
        if not todo:
            continue
        step = step_seconds(name, batch, 50 if name == "28x28x1" else 2)
        for what, asked in todo.items():
            took = seconds(name, asked, batch, rounds)
            results.add(
                name, what, images_per_s=batch / took, share=took / step, batch=batch,
                step_s=step, threads=1, versions=versions("torch"),
            )  # fmt: skip
            print(f"{name:10} {what:52} {batch / took:12,.0f}/s {took / step:8.2%}", flush=True)


def table() -> list[str]:
    """Return Markdown lines: images/s and share of a step, newest rows."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("*-augment.json")):
        for row in json.loads(path.read_text())["rows"]:
            rows[row["work"], row["variant"]] = row
    head = ["step"] + [f"{n}, images/s (share of a step)" for n in SHAPES]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "--:|" * len(SHAPES)]
    for what in dict.fromkeys(v for _, v in rows):
        cells = [what]
        for name in SHAPES:
            row = rows.get((name, what))
            cells.append(f"{row['images_per_s']:,.0f} ({row['share']:.1%})" if row else "-")
        lines.append("| " + " | ".join(cells) + " |")
    facts = machine()
    return [*lines, "", f"One thread of {facts['processor']}."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--again", action="store_true", help="measure known rows again")
    parser.add_argument("--table", action="store_true", help="print the newest rows")
    args = parser.parse_args()
    if args.table:
        print("\n".join(table()))
        return
    measure(Results("augment"), rounds=args.rounds, again=args.again)


if __name__ == "__main__":
    main()
