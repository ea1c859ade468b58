"""Blood cells in a given time: AP of `gipi` on BCCD, one row per commit, work and seed.

    GIPI_DATA=folder python detect.py [WORK ...] [--seeds 0 1 2] [--time 15m] [--test] [--again]

A work is a name of `WORKS`: settings that are tried against each other. Without `--test` a run
learns from the 205 training pictures and is scored on the 87 validation pictures: choices are made
on these. With `--test` a whole `gipi train bccd --time T` of the defaults runs, whose end looks at
the 72 test pictures once; it is written to test_evaluations.md. Rows that are there are not run
twice, so that the table can be filled over several sittings.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "speed"))

from stats import commit, machine, versions  # noqa: E402

RESULTS = HERE / "results" / "detect.json"
LIGHT = {"model": "fcos", "model.backbone": "lightnet"}
WORKS: dict[str, dict[str, Any]] = {
    "default": {},
    "light": LIGHT,
    "light-240": {**LIGHT, "image_size": [240, 320]},
    "light-320": {**LIGHT, "image_size": [320, 416]},
    "light-480": {**LIGHT, "image_size": [480, 640]},
    "light-reach-4": {**LIGHT, "image_size": [240, 320], "task.reach": 4},
    "resnet18-240": {"model": "fcos", "image_size": [240, 320]},
    "retinanet-240": {"model": "retinanet", "model.backbone": "lightnet", "image_size": [240, 320],
                      "task.method": "retinanet"},
}  # fmt: skip
SECONDS = {"s": 1, "m": 60, "h": 3600}


def load() -> list[dict[str, Any]]:
    """Return the rows so far."""
    return json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []


def tried(work: str, seed: int, budget: str) -> dict[str, Any]:
    """Train on the training pictures, score the validation pictures; nothing else is looked at."""
    from gipi.core import resolve
    from gipi.train import evaluate, fit
    from gipi.train.prepare import Own, prepare

    began = time.time()
    settings = {**WORKS[work], "seed": seed}
    layer = resolve.layer_from_values({"data": "bccd", "time": budget}, settings=settings)
    prepared = prepare([layer], Own())
    config, data = prepared.config, prepared.dataset
    train = data.stream(
        "train", batch_size=config.batch_size, seed=config.seed, augment=config.augment
    )
    val = data.stream("val", batch_size=16)
    reserve = 0.03 * float(budget[:-1]) * SECONDS[budget[-1]]
    quiet = config.model_copy(update={"eval_every": 1e6})
    state = fit(prepared.model, prepared.task, train, quiet, schema=data.schema, reserve_s=reserve)
    found = evaluate(prepared.model, prepared.task, val, schema=data.schema)
    return {
        **{f"val/{k}": round(v, 4) for k, v in found.metrics.items()},
        "steps": state.step, "epochs": round(state.step / train.steps, 1),
        "seconds": round(time.time() - began, 1),
        "evaluation_s": round(found.seconds, 2),
        "parameters": sum(p.numel() for p in prepared.model.parameters()),
        "image": list(prepared.signature.image or ()),
    }  # fmt: skip


def tested(seed: int, budget: str) -> dict[str, Any]:
    """Run the command that people type; its last act is one look at the test pictures."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "gipi", "train", "bccd", "--time", budget, "--seed"]
        words += [str(seed), "--out", str(Path(folder) / "run"), "--json"]
        began = time.time()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        seconds = time.time() - began
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
        said = json.loads(done.stdout.strip().splitlines()[-1])
    scores = {k: v for k, v in said["metrics"].items() if k.startswith(("val/", "test/"))}
    return {**scores, "steps": said["steps"], "epochs": said["epochs"],
            "seconds": round(seconds, 1)}  # fmt: skip


def main() -> None:
    """Run what is missing and print one line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", default=["default"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--time", default="15m")
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--again", action="store_true")
    asked = parser.parse_args()
    works = ["test"] if asked.test else asked.works
    for seed in asked.seeds:
        for work in works:
            name = f"{work}:{asked.time}"
            key = (commit(), name, seed)
            known = [r for r in load() if (r["commit"], r["work"], r["seed"]) == key]
            if known and not asked.again:
                continue
            found = tested(seed, asked.time) if asked.test else tried(work, seed, asked.time)
            row = {
                "work": name, "seed": seed, "commit": commit(), **found,
                "settings": WORKS.get(work, {}), "versions": versions("torch", "numpy"),
                "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            }  # fmt: skip
            rows = [r for r in load() if r not in known] + [row]
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
            if asked.test:
                command = f"`gipi train bccd --time {asked.time} --seed {seed}`"
                with (HERE / "test_evaluations.md").open("a") as log:
                    log.write(
                        f"| {row['time'][:10]} | {row['commit']} | bccd | {command} | "
                        f"AP50 {row['test/ap50']:.4f}, AP {row['test/ap']:.4f} |\n"
                    )
            part = "test" if asked.test else "val"
            print(
                f"{name} seed {seed}: {part} AP50 {row[f'{part}/ap50']:.4f}, "
                f"AP {row[f'{part}/ap']:.4f}, {row['epochs']} epochs in {row['seconds']} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
