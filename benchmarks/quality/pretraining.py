"""Pre-training and distillation on WikiText-2, small enough for a CPU, against targets set before.

    GIPI_DATA=... python benchmarks/quality/pretraining.py [--short] [--only masked,pairs,...]

Four runs, in this order, for the last needs the first:
    masked    a teacher: 8 blocks, 128 wide, hidden tokens (15 %, 80/10/10)
    pairs     BERT's own: hidden tokens, and whether the second text follows the first
    spans     T5: spans cut out, 2 + 2 blocks
    student   3 of the teacher's 8 blocks, taught by it (soft targets, hidden tokens, cosine)
Then teacher and student are fine-tuned, alike, on one small task of real text
(`transfer.write_task`), and the student's validation accuracy is set beside its teacher's.

How TARGETS were chosen: `--short` runs the first tenth of the steps with the whole schedule squeezed
into them; its validation perplexity times 0.85, rounded up to whole numbers, is the target of the full
run. A run ten times as long that is not even that much better has a fault. They were written here,
and committed, before any full run. The test file of WikiText-2 is not scored.

Resumable: one line of JSON a finished run in results/pretraining.jsonl; `--table` prints the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import gipi
from gipi.core.device import machine
from gipi.core.rundir import read_config

sys.path.insert(0, str(Path(__file__).parent))
from transfer import commit, write_task

RESULTS = Path(__file__).parent / "results" / "pretraining.jsonl"
RUNS = Path("runs/pretraining")
COMMON = {"max_length": 64, "test": 0.0, "samples": False, "tokenizer.vocab": 4096,
          "batch_size": 32, "lr": 1e-3}  # fmt: skip
SETTINGS: dict[str, tuple[str, dict[str, object]]] = {
    "masked": ("masked", {"model.width": 128, "model.layers": 8, "model.heads": 4}),
    "pairs": ("masked", {"model.width": 128, "model.layers": 4, "model.heads": 4,
                         "task.next_sentence": True}),
    "spans": ("spans", {"model.width": 128, "model.layers": 2, "model.heads": 4}),
    "student": ("masked", {"model.layers": 3}),  # half of them would be 63 % of the parameters
}  # fmt: skip
STEPS = {"masked": 3000, "pairs": 2000, "spans": 2000, "student": 2000}
TARGETS = {"masked": 438, "pairs": 490, "spans": 207, "student": 392}
"""Validation perplexity of hidden (cut-out) tokens that a full run must reach."""
KEEPS, SHARE, FASTER = 0.95, 0.60, 1.5
"""Of the student: share of its teacher's accuracy, of its parameters at most, and speed at least."""
TASK_ROWS, TASK_SEEDS = 1200, 3


def pretrain(name: str, *, short: bool) -> dict[str, object]:
    """Pre-train once and return what came out on the validation file."""
    task, settings = SETTINGS[name]
    steps = STEPS[name] // (10 if short else 1)
    out = RUNS / (f"{name}-short" if short else name)
    settings = {**COMMON, **settings}
    if name == "student":
        settings = {k: v for k, v in settings.items() if not k.startswith("tokenizer.")}
        settings["teacher"] = str(RUNS / ("masked-short" if short else "masked"))
    began = time.time()
    run = gipi.train("wikitext2", task=task, steps=steps, seed=0, out=str(out), settings=settings,
                     quiet=True)  # fmt: skip
    said = [line for line in read_config(out)[2]["choices"] if line.startswith("student:")]
    return {
        "run": name, "short": short, "steps": steps, "target": TARGETS.get(name),
        **{k: round(v, 4) for k, v in run.metrics.items() if k.startswith("val/")},
        "parameters": sum(p.numel() for p in run.model.parameters()), "said": said,
        "seconds": round(time.time() - began, 1), "commit": commit(), "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def fine_tuned(name: str, seed: int, *, short: bool) -> dict[str, object]:
    """Fine-tune a pre-trained encoder on the small task and return its validation accuracy."""
    where = RUNS / (f"{name}-short" if short else name)
    RUNS.mkdir(parents=True, exist_ok=True)
    table = write_task(RUNS, 200 if short else TASK_ROWS, seed)
    began = time.time()
    run = gipi.train(str(table), "kind", seed=seed, quiet=True, epochs=2 if short else 10,
                     out=str(RUNS / f"fine-{name}-{seed}-{time.time_ns()}"),
                     settings={"pretrained": str(where), "transfer": "full", "body_lr": 3e-4,
                               "split_column": "part", "test": 0.0, "samples": False}
                     )  # fmt: skip
    return {"run": f"fine-{name}", "short": short, "seed": seed,
            "val/accuracy": round(run.metrics["val/accuracy"], 4),
            "seconds": round(time.time() - began, 1), "commit": commit(), "machine": machine(),
            "date": time.strftime("%Y-%m-%d")}  # fmt: skip


def done() -> list[dict[str, object]]:
    """Return the rows that are there."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def keep(row: dict[str, object]) -> None:
    """Append a row."""
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")
    print(json.dumps(row), file=sys.stderr)


def table(found: list[dict[str, object]]) -> str:
    """Return the table of full runs beside their targets, and the student beside its teacher."""
    lines = ["| run | steps | parameters | validation perplexity | target | next text told | seconds |",
             "|---|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    notes = []
    for row in found:
        if str(row["run"]).startswith("fine-"):
            continue
        follows = row.get("val/follows_accuracy", "-")
        lines.append(f"| {row['run']} | {row['steps']} | {row['parameters']:,} | "
                     f"{row['val/hidden_perplexity']:.1f} | {row['target'] or '-'} | {follows} | "
                     f"{row['seconds']:.0f} |")  # fmt: skip
        notes += [f"\n{text}" for text in row["said"]]  # type: ignore[attr-defined]
    means = {
        name: statistics.mean(float(str(r["val/accuracy"])) for r in found
                              if r["run"] == f"fine-{name}")
        for name in ("masked", "student") if any(r["run"] == f"fine-{name}" for r in found)
    }  # fmt: skip
    if len(means) == 2:
        share = means["student"] / means["masked"]
        notes.append(f"\nfine-tuned: teacher {means['masked']:.3f}, student {means['student']:.3f}, "
                     f"{share:.1%} of it (wanted: {KEEPS:.0%})")  # fmt: skip
    return "\n".join(lines + notes)


def main() -> None:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--short", action="store_true", help="a tenth of the steps")
    parser.add_argument("--only", default=",".join([*SETTINGS, "fine"]))
    parser.add_argument("--table", action="store_true", help="only print what is there")
    given = parser.parse_args()
    wanted = [] if given.table else given.only.split(",")
    for name in SETTINGS:
        ready = [(r["run"], r["short"]) for r in done()]
        if name in wanted and (name, given.short) not in ready:
            keep(pretrain(name, short=given.short))
    for seed in range(TASK_SEEDS if "fine" in wanted else 0):
        for name in ("masked", "student"):
            ready_fine = [(r["run"], r["short"], r.get("seed")) for r in done()]
            if (f"fine-{name}", given.short, seed) not in ready_fine:
                keep(fine_tuned(name, seed, short=given.short))
    print(table([r for r in done() if r["short"] == given.short]))


if __name__ == "__main__":
    main()
