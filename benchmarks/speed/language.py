"""Tokens/s of a small GPT on characters: the hand-written loop, the same through `fit`, defaults.

    GIPI_DATA=folder python language.py [hand hand-bf16 same same-auto defaults hf ...] [--rounds 5]
                                        [--steps 2000] [--threads 0] [--peers PYTHON] [--again]
    python language.py --table

Each round runs every contender once, in an order that turns by one each round, in a process of its
own; ratios of tokens/s are taken within a round, against "hand".

    hand        language_loop.py in float32;  hand-bf16: under autocast
    same        gipi's gpt2 with the same shape, optimizer, schedule, arithmetic and threads
    same-auto   the same, arithmetic and threads left to the trial of the real step
    defaults    `gipi train tinyshakespeare`, about as many tokens, nothing else given
    hf, hf-bf16, keras-torch, keras-jax   the same shape in the peers (language_peers.py), run by
                --peers, the Python that has them; without it, or where one cannot be imported, it
                is reported as missing

Tokens/s are of the steps alone (for `fit` with its rows, checks, metrics and checkpoints, without
evaluation); "start" counts the whole process. "val" is the loss in windows of 64, "own" that in
windows of the model's own context, both in nats a character.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stats import RESULTS, Results, bootstrap, versions

HERE = Path(__file__).parent
OWN = ("hand", "hand-bf16", "same", "same-auto", "defaults")
PEERS = ("hf", "hf-bf16", "keras-torch", "keras-jax")
LIMIT_S = 3600
SAME = {
    "model": "gpt2", "batch_size": 12, "lr": 1e-3,
    "settings": {
        "max_length": 64, "model.bias": False, "optimizer": "adamw", "weight_decay": 0.1,
        "optimizer.betas": [0.9, 0.99], "clip_norm": 1.0, "schedule": "cosine",
        "schedule.end": 0.1, "eval_every": 1e6,
    },
}  # fmt: skip
FIXED = {"precision": "fp32", "gemm": "native", "compile": "off"}


def child(contender: str, steps: int, seed: int, threads: int) -> dict[str, Any]:
    """Train once in this process and return what was measured."""
    import language_loop

    if contender.startswith("hand"):
        precision = "bf16" if contender.endswith("bf16") else "fp32"
        found = language_loop.train(steps, seed=seed, precision=precision, threads=threads)
        return {**found, "own": found["val"]}
    if contender in PEERS:
        try:
            import language_peers

            return language_peers.train(contender, steps, seed=seed, threads=threads)
        except ImportError as missing:
            return {"missing": str(missing)}
    import torch

    import gipi

    asked: dict[str, Any] = {"settings": {}}
    if contender.startswith("same"):
        warmup = min(language_loop.WARMUP, steps // 2) / steps
        asked = {**SAME, "settings": {**SAME["settings"], "warmup": warmup}}
        if contender == "same":
            asked["settings"] |= {**FIXED, "threads": threads or torch.get_num_threads()}
    else:
        tokens = steps * language_loop.BATCH * language_loop.CONTEXT
        steps = max(1, round(tokens / 2048))
        if threads:
            asked["settings"]["threads"] = threads
    with tempfile.TemporaryDirectory() as folder:
        run = gipi.train("tinyshakespeare", steps=steps, seed=seed, quiet=True,
                         out=Path(folder) / "run", **asked)  # fmt: skip
        rows = [r for r in run.rows if "train/loss" in r]
        _, val_ids, _ = language_loop.read(Path(os.environ["GIPI_DATA"]))
        text = language_loop.text_of(Path(os.environ["GIPI_DATA"]))
        ids = run.language.tokenizer.encode_batch([text[-len(val_ids) :]], special=False).values
        length = run.predictor.schema.of("input", "text")[0].stats["length"]
        val = language_loop.judge(run.model, torch.from_numpy(ids).long())
        speed = run.result["samples_per_s"] * length
        return {
            "tokens_per_s": speed, "val": val, "own": run.metrics["val/loss"], "steps": steps,
            "seconds": rows[-1]["seconds"], "context": length,
            "precision": run.result["precision"], "threads": run.result["threads"],
        }  # fmt: skip


def run_once(contender: str, *, python: str, steps: int, seed: int, threads: int) -> dict[str, Any]:
    """Return what one process printed; raise `SystemExit` with what it said where it failed."""
    words = [python, __file__, "--child", contender, "--steps", str(steps)]
    words += ["--seed", str(seed), "--threads", str(threads)]
    began = time.time()
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=HERE, check=False, timeout=LIMIT_S
    )
    if done.returncode:
        raise SystemExit(f"{contender} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**found, "start_s": time.time() - began}


def main() -> None:
    """Measure what was asked for, in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contenders", nargs="*", default=[*OWN, *PEERS])
    parser.add_argument("--child")
    parser.add_argument("--peers", help="Python of the environment with the peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own number")
    parser.add_argument("--again", action="store_true", help="measure known rounds once more")
    parser.add_argument("--table", action="store_true", help="print the newest rows")
    asked = parser.parse_args()
    if asked.table:
        print(table())
        return
    if asked.child:
        print(json.dumps(child(asked.child, asked.steps, asked.seed, asked.threads)))
        return
    results, work = Results("language"), f"gpt-{asked.steps}-t{asked.threads}"
    seen: dict[str, list[dict[str, Any]]] = {c: [] for c in asked.contenders}
    missing: dict[str, str] = {}
    if not asked.peers:
        missing = dict.fromkeys(PEERS, "no Python with the peers was given (--peers)")
    for turn in range(asked.rounds):
        shift = turn % len(asked.contenders)
        for contender in asked.contenders[shift:] + asked.contenders[:shift]:
            if contender in missing:
                continue
            variant = f"{contender} round {turn}"
            known = [r for r in results.rows if (r["work"], r["variant"]) == (work, variant)]
            if known and results.has(work, variant) and not asked.again:
                seen[contender].append(known[-1])
                continue
            python = asked.peers if contender in PEERS else sys.executable
            found = run_once(
                contender, python=python, steps=asked.steps, seed=turn, threads=asked.threads
            )
            if "missing" in found:
                missing[contender] = found["missing"]
                continue
            results.add(work, variant, **{"versions": versions("torch", "numpy"), **found})
            seen[contender].append(found)
            print(f"round {turn} {contender}: {found['tokens_per_s']:,.0f} tokens/s, "
                  f"val {found['val']:.4f} (own windows {found['own']:.4f})", flush=True)  # fmt: skip
    print(report({c: rows for c, rows in seen.items() if rows}))
    for contender in asked.contenders:
        if contender in missing:
            print(f"{contender}: missing, {missing[contender]}")


def report(seen: dict[str, list[dict[str, Any]]]) -> str:
    """Return a table: tokens/s, the ratio within rounds, validation loss."""
    lines = ["| contender | tokens/s | ratio to hand | val, 64 | val, own | seconds |",
             "|---|--:|--:|--:|--:|--:|"]  # fmt: skip
    for contender, rows in seen.items():
        speed = bootstrap([r["tokens_per_s"] for r in rows])
        ratio = "-"
        if seen.get("hand"):
            pairs = zip(rows, seen["hand"], strict=True)
            found = bootstrap([a["tokens_per_s"] / b["tokens_per_s"] for a, b in pairs])
            ratio = f"{found['median']:.3f} ({found['low']:.3f}-{found['high']:.3f})"
        mid = {k: statistics.median(r[k] for r in rows) for k in ("val", "own", "seconds")}
        lines.append(f"| {contender} | {speed['median']:,.0f} | {ratio} | {mid['val']:.3f} "
                     f"| {mid['own']:.3f} | {mid['seconds']:.1f} |")  # fmt: skip
    return "\n".join(lines)


def table() -> str:
    """Return the newest file's rows of the commit and the work that were measured last."""
    files = sorted(RESULTS.glob("*-language.json"))
    if not files:
        return ""
    rows = json.loads(files[-1].read_text())["rows"]
    last = rows[-1]
    seen: dict[str, list[dict[str, Any]]] = {c: [] for c in (*OWN, *PEERS)}
    for row in rows:
        if (row["commit"], row["work"]) == (last["commit"], last["work"]):
            seen[row["variant"].split()[0]].append(row)
    _, steps, threads = last["work"].split("-")
    own = "torch's own number of threads" if threads == "t0" else f"{threads[1:]} thread(s)"
    text = report({c: rows for c, rows in seen.items() if rows})
    return f"{text}\n\n{steps} steps of the hand-written loop, {own}, commit {last['commit']}."


if __name__ == "__main__":
    main()
