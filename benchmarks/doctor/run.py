"""Judge the doctor: diagnose, repair and score every case on rows that no repair saw.

    python -m benchmarks.doctor.run [--half tuned|drawn|both] [--seeds 0 1 2] [--only WORD ...]
                                    [--limit SECONDS] [--shard 0/1] [--draw HASH] [--again]

from the repository's root, with the library installed. One JSON row a (commit, case, seed) is
appended to `results/*.jsonl`, and rows that are there are not measured again, so that a run may be
stopped at any moment and goes on where it stopped. `--only` takes codes, parts of cases' names, or "healthy", "sick".
`--shard 1/2` takes every second case from the second on: start one process a shard to use more
cores (timings then say less). The drawn half is drawn by the hash of the commit that is judged.

A row holds the findings as they were ranked; when the first true one came, as a share of the
planned steps (0: before the first); seconds of the processor and passes of the run itself, of the
diagnosis and of the repair; held-out scores of the sick, repaired and healthy run with their standard errors, and
differences row by row where the rows are the same; what is found on the repaired experiment before
it was trained; rules that failed.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import math
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from benchmarks.doctor.cases import SETTINGS, cases
from benchmarks.doctor.score import mean_and_error, row_scores
from benchmarks.doctor.setup import Built, Case, build
from benchmarks.speed.stats import commit, machine, versions

from gipi.doctor import Experiment, Finding, course, diagnose
from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import batches, outputs, take_step
from gipi.doctor.seeded import seeded

RESULTS = Path(__file__).parent / "results"
LIMIT = 240
"""Seconds of the clock that a case may take, by default."""


class OutOfTime(BaseException):
    """A case took too long; no `except Exception` may catch it."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` within where it takes longer."""

    def late(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def plain_run(exp: Experiment) -> tuple[int, str]:
    """Train as anyone would, judging validation rows every epoch; return steps and what broke."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.*")  # of copies of schedulers
        return _plain_run(exp)


def _plain_run(exp: Experiment) -> tuple[int, str]:
    planned, steps, epoch = exp.total_steps, 0, 0
    per_epoch = exp.steps_per_epoch
    exp.model.train()
    try:
        while steps < planned:
            for xb, yb in batches(exp, epoch):
                take_step(exp, xb, yb)
                steps += 1
                if exp.scheduler is not None and exp.scheduler_every == "step":
                    exp.scheduler.step()
                if steps >= planned:
                    break
            epoch += 1
            value = _val_loss(exp)
            if (
                exp.scheduler is not None
                and exp.scheduler_every == "epoch"
                and steps % per_epoch == 0
            ):
                by_value = isinstance(exp.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                exp.scheduler.step(*([value] if by_value else []))
    except Exception as error:  # noqa: BLE001  a sick run may break in any way
        return steps, f"{type(error).__name__}: {error}"
    return steps, ""


def _val_loss(exp: Experiment) -> float:
    if exp.val is None:
        return 0.0
    with torch.no_grad():
        if isinstance(exp.val, (tuple, list)):
            return float(exp.loss(outputs(exp, exp.val[0]), exp.val[1]))
        found = [float(exp.loss(outputs(exp, xb), yb)) for xb, yb in exp.val]
    return sum(found) / max(1, len(found))


@contextmanager
def starts() -> Iterator[dict[int, Experiment]]:
    """Keep a copy of every experiment that a treatment is about to train: id -> copy."""
    kept: dict[int, Experiment] = {}
    hold: list[Experiment] = []
    real, begun = course.play, course.beginning

    def keep(trained: Experiment, start: Experiment) -> None:
        kept[id(trained)] = duplicate(start)
        hold.append(trained)  # so that no id is used twice

    def play(exp: Experiment, **more: Any) -> Any:
        if more.get("steps") is None and more.get("since") is None:
            keep(exp, exp)
        return real(exp, **more)

    def beginning(first: Experiment, twin: Experiment, change: Any) -> Any:
        since = begun(first, twin, change)
        if since is not None:
            keep(since.exp, twin)
        return since

    course.play, course.beginning = play, beginning  # type: ignore[attr-defined]
    try:
        yield kept
    finally:
        course.play, course.beginning = real, begun  # type: ignore[attr-defined]


def told(findings: list[Finding]) -> list[dict[str, Any]]:
    """Return what a row keeps of findings, in their order."""
    return [
        {"code": f.code, "severity": f.severity, "confirmed": f.confirmed, "phase": f.phase,
         "step": f.step, "parents": list(f.parents), "repairs": len(f.repairs)}
        for f in findings
    ]  # fmt: skip


def first_share(findings: list[Finding], truth: tuple[str, ...], planned: int) -> float | None:
    """Return when a true finding first came, as a share of the steps; None where none did."""
    shares = [0.0 if f.phase == "before" else f.step / planned for f in findings if f.code in truth]
    return min(shares) if shares else None


def judge(case: Case, seed: int) -> dict[str, Any]:
    """Return the row of one case, without what the run's frame adds."""
    built = build(case, SETTINGS, seed)
    row: dict[str, Any] = {"planned": built.sick.total_steps}
    seconds: dict[str, float] = {}
    sick, row["sick_broke"] = trained(built.sick, seconds, "run")
    healthy = sick
    if case.truth:
        healthy, row["healthy_broke"] = trained(built.healthy, seconds, "healthy")

    before = {k: v.clone() for k, v in built.sick.model.state_dict().items()}
    began = time.process_time()
    diagnose(built.sick, train=False)
    seconds["preflight"] = time.process_time() - began
    began = time.process_time()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        diagnosis = diagnose(built.sick)
    seconds["diagnose"] = time.process_time() - began
    row["findings"] = told(diagnosis.findings)
    row["found_share"] = first_share(diagnosis.findings, case.truth, row["planned"])
    row["left_alone"] = all(
        torch.equal(torch.nan_to_num(before[k]), torch.nan_to_num(v))
        for k, v in built.sick.model.state_dict().items()
    )
    row["trained"] = diagnosis.trace is not None
    row["broken"] = dict(diagnosis.broken)
    row["warnings"] = sorted({str(w.message)[:100] for w in warned})[:3]
    row["passes"] = {
        "diagnose": diagnosis.passes + (diagnosis.trace.step if diagnosis.trace else 0)
    }

    began = time.process_time()
    with starts() as kept:
        treatment = diagnosis.repair()
    seconds["repair"] = time.process_time() - began
    row["why_not"] = diagnosis.why_not[:300]
    row["scores"] = scores(built, sick, healthy, treatment)
    if treatment is not None:
        row["changes"], row["cured"] = treatment.changes, treatment.cured
        row["passes"]["repair"] = treatment.passes
        fresh = kept.get(id(treatment.experiment))
        if fresh is not None:
            row["after"] = told(diagnose(fresh).findings)
    row["seconds"] = {k: round(v, 4) for k, v in seconds.items()}
    return row


def trained(exp: Experiment, seconds: dict[str, float], name: str) -> tuple[Experiment, str]:
    """Train a copy from the experiment's own seed; return it and what broke.

    Random numbers of the sick, the healthy and the repaired run are the same ones: where a loader
    shuffles, a difference between them is no matter of its order.
    """
    twin = duplicate(exp)
    began = time.process_time()
    with seeded(twin):
        _, broke = plain_run(twin)
    seconds[name] = time.process_time() - began
    return twin, broke


def scores(built: Built, sick: Experiment, healthy: Experiment, treatment: Any) -> dict[str, Any]:
    """Return means and standard errors on held-out rows; "gap" healthy - sick, "gain" repaired - sick.

    "rest" is healthy - repaired.

    Rows of the sick and the repaired run are the same, so their difference is taken row by row; so
    is the twin's where it is judged on as many rows.
    """
    one = row_scores(sick, built.sick_test, built.kind)
    two = row_scores(healthy, built.healthy_test, built.kind)
    found: dict[str, Any] = {"sick": mean_and_error(one), "healthy": mean_and_error(two)}
    if len(one) == len(two):
        found["gap"] = mean_and_error(two - one)
    else:
        found["gap"] = (found["healthy"][0] - found["sick"][0],
                        math.hypot(found["healthy"][1], found["sick"][1]))  # fmt: skip
    if treatment is not None:
        three = row_scores(treatment.experiment, built.sick_test, built.kind)
        found["repaired"] = mean_and_error(three)
        found["gain"] = mean_and_error(three - one)
        if len(three) == len(two):
            found["rest"] = mean_and_error(two - three)
    return {k: [round(v, 6) for v in pair] for k, pair in found.items()}


def frame(case: Case, seed: int, head: str) -> dict[str, Any]:
    """Return what identifies a row and says what the case is."""
    kind = SETTINGS[case.setting](0)
    return {
        "commit": head, "half": case.half, "case": case.name, "seed": seed,
        "code": case.fault.code, "also": list(case.fault.also), "auto": case.fault.auto,
        "fault": case.fault.name, "strength": case.strength, "setting": case.setting,
        "data": kind.data, "net": kind.net, "kind": kind.kind,
    }  # fmt: skip


def warm() -> None:
    """Make what is slow only once happen before anything is timed."""
    exp = build(next(c for c in cases("tuned", "") if not c.truth), SETTINGS, 0).sick
    exp.epochs = 1
    plain_run(duplicate(exp))
    diagnose(exp, train=False)


def run(case: Case, seed: int, head: str, limit: float) -> dict[str, Any]:
    """Return the row of a case, also where it breaks or takes too long."""
    row, began = frame(case, seed, head), time.perf_counter()
    try:
        with limited(limit):
            row |= judge(case, seed)
    except OutOfTime:
        row["error"] = f"took longer than {limit:g} s"
    except Exception as error:  # noqa: BLE001  the next case must run
        where = traceback.extract_tb(sys.exc_info()[2])[-1]
        row["error"] = (
            f"{type(error).__name__}: {str(error)[:300]} ({Path(where.filename).name}:{where.lineno})"
        )
    row["all_seconds"] = round(time.perf_counter() - began, 3)
    row["load"] = round(os.getloadavg()[0], 2)
    row["time"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return row


def read(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Return all rows, the last one of every (commit, case, seed)."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in sorted(folder.glob("*-doctor.jsonl")):
        for line in path.read_text().splitlines():
            if line.endswith("}"):  # a row that was cut off by a stop is measured again
                row = json.loads(line)
                rows[row["commit"], row["half"], row["case"], row["seed"]] = row
    return list(rows.values())


def append(path: Path, row: dict[str, Any]) -> None:
    """Append one row; several processes may."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(_finite(row)) + "\n")


def _finite(value: Any) -> Any:
    """Return JSON's own words for numbers that it has none for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def chosen(half: str, head: str, only: list[str], shard: str) -> list[Case]:
    """Return the cases that were asked for."""
    found = cases(half, head)
    if only:
        found = [c for c in found if any(_fits(c, word) for word in only)]
    part, parts = (int(v) for v in shard.split("/"))
    return found[part::parts]


def _fits(case: Case, word: str) -> bool:
    if word in ("healthy", "sick"):
        return bool(case.truth) == (word == "sick")
    return word in (case.fault.code, case.fault.name) or word in case.name


def main() -> None:
    """Run what is missing and print one line a row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("tuned", "drawn", "both"), default="tuned")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--draw", default="", help="draw by this hash instead of the commit's")
    parser.add_argument("--again", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    head = commit()
    warm()
    path = RESULTS / f"{datetime.date.today().isoformat()}-doctor.jsonl"  # noqa: DTZ011
    known = {(r["commit"], r["half"], r["case"], r["seed"]) for r in read()}
    about = {"machine": machine(), "versions": versions("torch", "numpy", "scikit-learn")}
    for seed in asked.seeds:
        for case in chosen(asked.half, asked.draw or head, asked.only, asked.shard):
            if (head, case.half, case.name, seed) in known and not asked.again:
                continue
            row = {**run(case, seed, head, asked.limit), **about}
            append(path, row)
            said = [
                f["code"] + ("" if f["severity"] == "problem" else "?")
                for f in row.get("findings", [])
            ]
            print(f"{case.fault.code or 'healthy':26s} {case.name:52s} seed {seed} "
                  f"{row['all_seconds']:6.1f} s  {row.get('error', ' '.join(said) or '-')}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
