"""Diagnose, treat and draw one small patient of every rule of the doctor.

    python scripts/doctor_patients.py [CODE ...]

writes docs/pictures/doctor/CODE.svg and what was found to docs/doctor/patients.json, from which
`scripts/reference.py` writes the pages. Patients are cases of benchmarks/doctor with seed 0, so the
files change only when the code does. All of them take some minutes of one core.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for benchmarks and scripts

from benchmarks.doctor.cases import FAULTS, SETTINGS, middle, tuned
from benchmarks.doctor.run import starts
from benchmarks.doctor.score import row_scores
from benchmarks.doctor.setup import Built, Case, build
from scripts import doctor_charts as charts
from scripts.doctor_charts import AS_IS, REPAIRED, TRAIN, TRUE, TWIN, VAL, Course
from scripts.doctor_pages import FOUND, PICTURES

from gipi.doctor import RULES, Experiment, Finding, diagnose
from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import outputs, tensors
from gipi.doctor.finding import CannotRepair
from gipi.doctor.play import play
from gipi.study import Picture
from gipi.study.lab_page import standalone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gipi.doctor.diagnose import Diagnosis

SEED = 0
CHOSEN = {
    "batch_mixing": ("sideways", "waves_gru"),
    "bn_batch_too_small": ("tiny_batches", "clouds_mlp"),
    "catastrophic_forgetting": ("forgets", "digits_cnn"),
    "plateau": ("noise_floor", "forecast_rnn"),
    "wrong_output_activation": ("sigmoid_numbers", "friedman_mlp"),
}
"""(fault, setting) of patients that show more than the first case of the benchmark's fixed half."""
KINDS: dict[str, tuple[str, ...]] = {
    "values": ("sentinel_values", "preprocessing_mismatch", "train_val_shift", "target_unscaled",
               "tokenizer_mismatch", "wrong_output_activation", "loss_broadcast"),
    "shares": ("target_leak",),
}  # fmt: skip
"""Panels that say more than what the evidence would get by itself; see `charts.evidence_panel`."""
USUAL = ("named", "listed", "trial", "shares")
ANSWERS = ("target_unscaled", "wrong_output_activation", "loss_broadcast")
"""Rules that are seen in what the net says: its answers are drawn beside the truth."""
JUDGING = ("train_val_overlap", "target_leak", "causal_leak", "tokenizer_mismatch",
           "preprocessing_mismatch", "train_val_shift", "tokenizer_oov")  # fmt: skip
"""Rules by whose fault validation rows tell something else than rows in use."""
DIGITS, MOST = 4, 24


def patient(code: str) -> Case:
    """Return the case that stands for a rule."""
    if code in CHOSEN:
        name, setting = CHOSEN[code]
        fault = next(f for f in FAULTS if f.name == name)
        return Case(setting, fault, middle(fault))
    return next(c for c in tuned() if c.fault.code == code)


def diagnosed(case: Case) -> tuple[Built, Diagnosis, int]:
    """Return the experiments of a case, its diagnosis, and the place of the rule's finding there.

    Ends the script where the doctor does not find the fault.
    """
    built = build(case, SETTINGS, SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a sick run may warn of what is wrong with it
        diagnosis = diagnose(built.sick)
    codes = [f.code for f in diagnosis.findings]
    if case.fault.code not in codes:
        said = ", ".join(codes) or "nothing"
        sys.exit(f"{case.fault.code}: in {case.name} the doctor finds {said}")
    return built, diagnosis, codes.index(case.fault.code)


def record(code: str) -> tuple[dict[str, Any], str]:
    """Return what is told of a rule's patient, and its picture."""
    case = patient(code)
    built, diagnosis, place = diagnosed(case)
    finding = diagnosis.findings[place]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        repaired, changes = treated(diagnosis, finding)
        courses = {AS_IS: course(built.sick, built.sick_test, built.kind)}
        if repaired is not None:
            courses[REPAIRED] = course(repaired, built.sick_test, built.kind)
        courses[TWIN] = course(built.healthy, built.healthy_test, built.kind)
    panels = (
        seen(built, finding, courses),
        charts.score_panel(courses, built.kind, judging=code in JUDGING),
    )
    told: dict[str, Any] = {
        "case": case.name, "fault": inspect.getdoc(case.fault.apply), "kind": built.kind,
        "steps": built.sick.total_steps, "place": place + 1,
        "others": [f.code for f in diagnosis.findings if f is not finding],
        "finding": plain(of(finding)), "changes": changes, "why_not": diagnosis.why_not,
        "scores": {charts.KEYS[c]: plain(v.held[-1][1]) for c, v in courses.items() if v.held},
        "panels": [p.words for p in panels],
    }  # fmt: skip
    used = frozenset().union(*(p.colours for p in panels))
    title = next(r.title for r in RULES if r.code == code)
    return told, standalone(Picture(
        code, title, "", "", "", tuple(p.svg for p in panels), charts.SIZE,
        tuple((name, c) for c, name in charts.KEYS.items() if c in used), 2,
    ))  # fmt: skip


def of(finding: Finding) -> dict[str, Any]:
    """Return a finding as `findings.json` has it, with what proves each repair and who makes it."""
    told = finding.as_dict()
    told["rows"] = told["rows"][:8]
    for said, repair in zip(told["repairs"], finding.repairs, strict=True):
        said |= {"proof": repair.proof, "made": repair.change is not None,
                 "by": "" if repair.measure is None else repair.measure.name}  # fmt: skip
    return told


def treated(diagnosis: Diagnosis, finding: Finding) -> tuple[Experiment | None, list[str]]:
    """Return the experiment as the doctor repairs it after a yes, before it is trained.

    What was brought about by another problem is cured with that one. A hint is never repaired by
    the doctor; its first repair that fits is made here, to be drawn.
    """
    with starts() as fresh:
        treatment = diagnosis.repair(apply=(finding.code,))
    mended = set() if treatment is None else {*treatment.cured, *treatment.partly}
    if treatment is not None and {finding.code, *finding.parents} & mended:
        return fresh[id(treatment.experiment)], treatment.changes
    for repair in finding.repairs if finding.severity == "hint" and not finding.parents else ():
        twin = duplicate(diagnosis.experiment)
        try:
            if repair.change is not None:
                return twin, [repair.change(twin)]
        except CannotRepair:
            continue
    return None, []


def course(exp: Experiment, held: Any, kind: str) -> Course:
    """Train a copy and return how it went; a run that ends with an error leaves what it has."""
    twin = duplicate(exp)
    rows = tensors(twin.val)
    scores: list[tuple[float, float]] = []

    def metric(_said: Any, _y: Any) -> float:
        found = [float(row_scores(twin, part, kind).mean()) for part in (held, rows or held)]
        scores.append((found[0], found[1]))
        return found[0]

    twin.metric = metric
    losses, epochs = list[float](), [0.0]
    try:
        trace = play(twin, quiet=True)
        losses, epochs = trace.losses, [0.0, *(float(row["epoch"]) for row in trace.epochs)]
    except (RuntimeError, ValueError) as error:
        print(f"  the run ended: {error}")
    each = scores[:: 2 if twin.val is not None else 1]  # training rows are judged, then validation
    pairs = list(zip(epochs, each, strict=False))
    return Course(losses, [(e, s[0]) for e, s in pairs], [(e, s[1]) for e, s in pairs])


# ------------------------------------------------------------------------ what was seen


def seen(built: Built, finding: Finding, courses: Mapping[int, Course]) -> charts.Panel:
    """Return the panel of a finding's evidence; the losses where there is nothing else to draw."""
    kinds = [k for k, codes in KINDS.items() if finding.code in codes]
    for kind in (*kinds, *USUAL):
        panel = charts.evidence_panel(kind, finding.evidence, lambda: values(built, finding))
        if panel is not None:
            return panel
    return charts.loss_panel(courses)


def values(built: Built, finding: Finding) -> tuple[str, dict[int, Tensor]]:
    """Return the numbers that a finding speaks of: answers, a column, words, or the whole input."""
    exp = built.sick
    if finding.code in ANSWERS:
        twin, rows = duplicate(exp), tensors(exp.train)
        assert rows is not None
        when = "before the first step" if finding.code == "target_unscaled" else "at the end"
        if when == "at the end":
            play(twin, quiet=True)
        return f"answer {when}", {TRUE: rows[1], AS_IS: outputs(twin, rows[0])}
    splits = {TRAIN: tensors(exp.train), VAL: tensors(exp.val)}
    column = re.fullmatch(r"column (\d+)", finding.where[0] if finding.where else "")
    found = {}
    for colour, pair in splits.items():
        if pair is not None:
            X = pair[0]
            found[colour] = X[..., int(column[1])] if column and X.ndim < 4 else X
    words = not next(iter(found.values())).is_floating_point()
    return (column[0] if column else "word, by its number" if words else "input"), found


def plain(value: Any) -> Any:
    """Return what JSON can hold, short: four digits, the first of many."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short == int(short) and abs(short) < 10**DIGITS else short
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in list(value.items())[:MOST]}
    return [plain(v) for v in list(value)[:MOST]]


def main(codes: list[str]) -> int:
    """Record and draw the patients of these rules, or of all."""
    torch.set_num_threads(1)
    known = {r.code for r in RULES}
    if unknown := [c for c in codes if c not in known]:
        sys.exit(f"no rule is called {', '.join(unknown)}")
    told = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
    for folder in (FOUND.parent, PICTURES):
        folder.mkdir(parents=True, exist_ok=True)
    for code in codes or [r.code for r in RULES]:
        told[code], picture = record(code)
        (PICTURES / f"{code}.svg").write_text(picture, encoding="utf-8")
        rows = ",\n".join(
            f"{json.dumps(c)}: {json.dumps(told[c], ensure_ascii=False)}" for c in sorted(told)
        )
        FOUND.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
        print(f"{code}: place {told[code]['place']} in {told[code]['case']}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
