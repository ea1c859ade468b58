"""The pages of the doctor's problems, and the tables of docs/doctor.md: text only.

A page is made from the rule and from what `scripts/doctor_patients.py` found on its patient; the
table of rates from the rows of benchmarks/doctor that were measured last. Nothing is trained here.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.doctor import rates as by_code
from benchmarks.doctor import table as measured
from benchmarks.doctor.run import read
from scripts import doctor_charts as charts

from gipi.doctor import RULES
from gipi.doctor.causes import parents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gipi.doctor.rule import Rule

DOCS = Path(__file__).resolve().parent.parent / "docs"
FOLDER = DOCS / "doctor"
FOUND = FOLDER / "patients.json"
"""What the doctor found on the patients, by code."""
PICTURES = DOCS / "pictures" / "doctor"
HEAD = "<!-- Written by scripts/docs from the rule and its patient; run it after a change. -->\n"
MODES = {
    "auto": "`auto`: the doctor makes it by itself",
    "ask": "`ask`: made after a yes",
    "advise": "`advise`: told, never made",
}
PROOFS = {
    "better": "validation rows are told better, by more than their noise",
    "not worse": "validation rows are not told worse by more than their noise",
    "exact": "the rule, asked again, finds the fault no more",
}
FEW = 6
"""Numbers of a list, and lines of evidence within a table, that a page shows."""


def generated() -> dict[Path, str]:
    """Return the page of every rule."""
    told = json.loads(FOUND.read_text(encoding="utf-8"))
    return {FOLDER / f"{r.code}.md": f"{HEAD}\n{page(r, told[r.code]).rstrip()}\n" for r in RULES}


def page(rule: Rule, told: Mapping[str, Any]) -> str:
    """Return the page of one problem."""
    finding = told["finding"]
    picture = f"../pictures/{PICTURES.name}/{rule.code}.svg"
    left, right = told["panels"]
    kind = f"`{rule.code}` · {_severity(finding)} · looked for {rule.when}"
    says = f"{finding['severity']}: {rule.code}: {finding['message']}\ndo: {finding['advice']}"
    parts = [
        f"# {sentence(rule.title, end='')}\n",
        f"{kind} · [all problems](../doctor.md#problems)\n",
        f"**What it looks like.** {sentence(rule.looks)}\n",
        f"![Left: {left}. Right: {right}.]({picture})\n",
        f"*{about(told)}*\n",
        f"**Why it is a problem.** {sentence(rule.why)}\n",
        f"**What to do.** {sentence(rule.do)}\n",
        "## How the doctor sees it\n",
        looks(rule),
        f"Of this patient it says, {ORDINALS[min(told['place'], 3)]}:\n",
        f"```text\n{says}\n```\n",
        evidence(finding),
        f"Beside it: {linked(told['others'])}.\n" if told["others"] else "",
        "## Repair\n",
        repairs(finding["repairs"]),
        outcome(rule, told),
        "## Causes\n",
        causes(rule),
        f"Source: {rule.source}.\n",
    ]
    return "\n".join(p for p in parts if p)


ORDINALS = {1: "before anything else", 2: "in the second place", 3: "further down"}


def sentence(text: str, *, end: str = ".") -> str:
    """Return text with a capital and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + end


def cell(value: object) -> str:
    """Return the content of one cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines) + "\n"


def about(told: Mapping[str, Any]) -> str:
    """Return what the patient of a picture is."""
    fault, _, setting = told["case"].partition("@")
    name, strength = setting.split("*")
    strong = "" if strength == "1" else f" (strength {strength})"
    steps = f"{told['steps']:,} steps"
    return (
        f"The patient: `{name}` of [benchmarks/doctor](../../benchmarks/doctor/settings.py), "
        f"{steps}, seed 0, with the fault `{fault}`{strong}: {told['fault'].split(chr(10))[0]}"
    )


def looks(rule: Rule) -> str:
    """Return how a problem is suspected and shown, from the docstrings of the rule's functions."""
    lines = []
    if rule.before is not None:
        lines.append(f"- Before the first step: {summary(rule.before)}")
    if rule.during is not None:
        lines.append(f"- During the run: {summary(rule.during)}")
    if rule.confirm is not None:
        weak = "; a suspicion too weak to be said alone is dropped" if rule.weak is not None else ""
        lines.append(
            f"- Counter-experiment (about {rule.passes} passes): {summary(rule.confirm)} "
            f"Where none can be afforded, a problem is called a hint{weak}."
        )
    else:
        lines.append("- No counter-experiment: the look itself decides.")
    return "\n".join(lines) + "\n"


def summary(look: Callable[..., Any]) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join((inspect.getdoc(look) or "").split("\n\n")[0].split())


def evidence(finding: Mapping[str, Any]) -> str:
    """Return where a finding lies, and its numbers."""
    rows: list[list[object]] = [
        [key, shown(finding[name])]
        for key, name in (("where", "where"), ("rows", "rows"), ("caused by", "parents"))
        if finding[name]
    ]
    rows += [[f"`{key}`", shown(value)] for key, value in finding["evidence"].items()]
    return table(["evidence", "value"], rows) if rows else ""


def shown(value: Any) -> str:
    """Return evidence in one line, the first few of many."""
    if isinstance(value, dict):
        said = [f"{k}: {shown(v)}" for k, v in list(value.items())[:FEW]]
        return ", ".join(said) + (", ..." if len(value) > FEW else "")
    if isinstance(value, list):
        said = [f"({shown(v)})" if isinstance(v, list | dict) else shown(v) for v in value[:FEW]]
        return ", ".join(said) + (", ..." if len(value) > FEW else "")
    return str(value)


def repairs(found: Sequence[Mapping[str, Any]]) -> str:
    """Return what the doctor offers, how it proves it, and the edit by hand."""
    if not found:
        return "There is nothing that the doctor could change: what to do is for a person.\n"
    rows: list[list[object]] = [
        [r["name"], MODES[_mode(r)], proof(r), f"`{r['edit']}`" if r["edit"] else ""] for r in found
    ]
    return table(["repair", "who makes it", "proof", "by hand"], rows)


def proof(repair: Mapping[str, Any]) -> str:
    """Return what must hold for a repair to be kept, nothing for one that is only told."""
    if not repair["made"]:
        return ""
    by = f", by {repair['by']}" if repair["by"] else ""
    return f"kept where {PROOFS[repair['proof']]}{by}"


def _mode(repair: Mapping[str, Any]) -> str:
    return str(repair["mode"] if repair["made"] else "advise")


def outcome(rule: Rule, told: Mapping[str, Any]) -> str:
    """Return what a repair did to the patient, and how it is undone."""
    made = any(r["made"] for r in told["finding"]["repairs"])
    lines = []
    if told["changes"]:
        lines.append(f"On the patient: {'; '.join(told['changes'])}.")
    elif made and told["why_not"]:
        lines.append(f"On the patient nothing was changed: {told['why_not']}.")
    if told["scores"]:
        said = [f"{score(v, told['kind'])} {name}" for name, v in told["scores"].items()]
        what = charts.SCORES.get(told["kind"], charts.EXPLAINED)
        lines.append(f"Rows that nobody saw, at the end ({what}): {', '.join(said)}.")
    if made:
        asked = f'diagnosis.repair(apply=["{rule.code}"])'
        first = next(r for r in told["finding"]["repairs"] if r["made"])
        call = "diagnosis.repair()" if first["mode"] == "auto" else asked
        lines.append(
            f"`{call}` changes a copy; `treatment.undo()` gives back the experiment as it was."
        )
    else:
        lines.append("Nothing is changed, so nothing needs to be undone.")
    return "\n\n".join(lines) + "\n"


def score(value: Any, kind: str) -> str:
    """Return a held-out score as people read it."""
    if kind in charts.PERCENT and isinstance(value, int | float):
        return f"{100 * value:.1f} %"
    return f"{value:.3g}" if isinstance(value, int | float) else str(value)


def causes(rule: Rule) -> str:
    """Return what a problem brings about, and what may have brought it about, with links."""
    lines = [f"- brings about: {linked(rule.causes) or 'nothing else that the doctor knows'}"]
    above = parents(RULES)[rule.code]
    lines.append(f"- may be brought about by: {linked(above) or 'nothing else: it is a root'}")
    return "\n".join(lines) + "\n"


def linked(codes: Sequence[str]) -> str:
    """Return the codes as links between pages."""
    return ", ".join(f"[{c}]({c}.md)" for c in codes)


# ------------------------------------------------------------------------ the index


def _severity(finding: Mapping[str, Any]) -> str:
    """Return what a finding is by itself: beside its cause a problem is called a hint."""
    return "problem" if finding["parents"] else str(finding["severity"])


def problems() -> str:
    """Return the table of all problems for docs/doctor.md."""
    told = json.loads(FOUND.read_text(encoding="utf-8"))
    rows: list[list[object]] = []
    for r in RULES:
        finding = told[r.code]["finding"]
        first = next(iter(finding["repairs"]), None)
        repair = "-" if first is None else f"{first['name']} (`{_mode(first)}`)"
        rows.append(
            [f"[{r.code}](doctor/{r.code}.md)", r.title, r.seen, _severity(finding), repair]
        )
    return table(["code", "what it is", "seen", "severity", "first repair"], rows)


def rates() -> str:
    """Return the rates that were measured last, with what they were measured on."""
    rows = measured.newest(read())
    if not rows:
        return "Nothing was measured yet.\n"
    lines = by_code.rates(rows, [r.code for r in RULES])
    for line in lines[1:]:
        line[0] = f"[{line[0]}](doctor/{line[0]}.md)"
    return f"{measured.about(rows)}\n\n{measured.markdown(lines)}\n"
