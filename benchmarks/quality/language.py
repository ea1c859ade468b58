"""Validation loss of a small GPT on Tiny Shakespeare: a known recipe, and the defaults in its time.

    GIPI_DATA=folder python language.py [recipe shape same-time] [--seeds 0 1 2] [--steps 2000]
                                        [--again]
    python language.py --table

    recipe     nanoGPT's settings for a processor through `gipi`: 4 layers, 4 heads, 128 wide,
               context 64, batch 12, 2,000 steps, and its AdamW, rate and schedule
    shape      the same net, context, batch and steps; optimizer, rate and schedule are gipi's own
    same-time  `gipi train tinyshakespeare --time S`, nothing else given, where S is what the
               hand-written loop of ../speed/language_loop.py took just before, from typing the
               command to its exit; must reach TARGETS["same-time"]

The targets of "recipe" and "same-time" were written down before the first full run. Every run is a process of its own; rows of
the same commit, work, seed and steps are not run twice. There is no test split: the last tenth of
the text chooses the best weights and is what is reported, in nats a character, in windows of 64.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SPEED = HERE.parent / "speed"
sys.path.insert(0, str(SPEED))

from stats import commit, machine, versions  # noqa: E402

RESULTS = HERE / "results" / "language.json"
TARGETS = {"recipe": 1.90, "shape": 1.90, "same-time": 1.80}
JUDGE = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import language_loop, torch, gipi
run = gipi.load(sys.argv[1])
folder = Path(os.environ["GIPI_DATA"])
_, ids, _ = language_loop.read(folder)
text = language_loop.text_of(folder)[-len(ids):]
own = run.language.tokenizer.encode_batch([text], special=False).values
print(json.dumps({"val": language_loop.judge(run.model, torch.from_numpy(own).long()),
                  "own": run.metrics["val/loss"], "steps": run.result["steps"],
                  "bits_per_byte": run.metrics["val/bits_per_byte"]}))
"""


def load() -> list[dict[str, Any]]:
    """Return the rows so far."""
    return json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []


def said(words: list[str]) -> dict[str, Any]:
    """Run a process and return the last line that it prints."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words[:6])} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def nanogpt(steps: int) -> list[str]:
    """Return nanoGPT's optimizer, rate and schedule as words of the command line."""
    settings = (
        "model.bias=false", "optimizer=adamw", "weight_decay=0.1", "optimizer.betas=[0.9, 0.99]",
        "clip_norm=1.0", "schedule=cosine", "schedule.end=0.1",
        f"warmup={min(100, steps // 2) / steps}",
    )  # fmt: skip
    return ["--lr", "1e-3", *(word for text in settings for word in ("--set", text))]


def run(work: str, seed: int, steps: int) -> dict[str, Any]:
    """Train once and return the row."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        words = [sys.executable, "-m", "gipi", "train", "tinyshakespeare", "--out", out, "--json"]
        words += ["--seed", str(seed)]
        hand: dict[str, Any] = {}
        if work in ("recipe", "shape"):
            words += ["--steps", str(steps), "--model", "gpt2", "--batch-size", "12"]
            words += ["--set", "max_length=64", *(nanogpt(steps) if work == "recipe" else [])]
        else:
            began = time.time()
            loop = [sys.executable, str(SPEED / "language_loop.py"), "--steps", str(steps)]
            hand = said([*loop, "--seed", str(seed)])
            budget = time.time() - began
            hand = {"hand_val": hand["val"], "hand_s": round(budget, 1)}
            words += ["--time", str(round(budget, 1))]
        began = time.time()
        said(words)
        seconds = time.time() - began
        found = said([sys.executable, "-c", JUDGE, out, str(SPEED)])
    return {
        "work": work, "seed": seed, "asked_steps": steps, "commit": commit(), **found, **hand,
        "seconds": round(seconds, 1), "target": TARGETS[work],
        "reached": found["val"] <= TARGETS[work],
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions("torch", "numpy"),
    }  # fmt: skip


def table() -> str:
    """Return, per work, the losses of the newest row of each seed, their median and the target."""
    lines = ["| work | loss by seed, nats a character | median | wanted | hand-written loop | commits |",
             "|---|---|--:|--:|---|---|"]  # fmt: skip
    found = [r for r in load() if r["asked_steps"] == 2000]
    by_hand = {r["seed"]: f"{r['hand_val']:.4f}" for r in found if "hand_val" in r}
    for work, target in TARGETS.items():
        newest = {r["seed"]: r for r in found if r["work"] == work}
        if not newest:
            continue
        rows = [newest[seed] for seed in sorted(newest)]
        losses = ", ".join(f"{r['val']:.4f}" for r in rows)
        hand = ", ".join(by_hand.get(seed, "-") for seed in sorted(newest))
        commits = ", ".join(dict.fromkeys(r["commit"] for r in rows))
        lines.append(f"| {work} | {losses} | {statistics.median(r['val'] for r in rows):.4f} "
                     f"| <= {target} | {hand} | {commits} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print one line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", default=list(TARGETS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true", help="print what is there")
    asked = parser.parse_args()
    if asked.table:
        print(table())
        return
    for seed in asked.seeds:
        for work in asked.works:
            key = (commit(), work, seed, asked.steps)
            known = [
                r for r in load() if (r["commit"], r["work"], r["seed"], r["asked_steps"]) == key
            ]
            if known and not asked.again:
                continue
            row = run(work, seed, asked.steps)
            rows = [r for r in load() if r not in known] + [row]
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
            print(f"{work} seed {seed}: val {row['val']:.4f} (target {row['target']}) in "
                  f"{row['seconds']} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
