"""The part of the report that says what was used: choices, data, configuration, sources."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from gipi.report.curves import events
from gipi.report.read import RunData, dig, finite, listed
from gipi.report.svg import number, text

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_EVENTS = 60
_LINK = re.compile(r"(https?://[^\s<>\"']+|arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,9}/\S+)")


def value_text(value: Any) -> str:
    """Return a configuration value as short text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, 6)
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)[:300]
    return str(value)[:300]


def pairs(items: Iterable[tuple[str, Any]]) -> str:
    """Return a definition list; entries without a value are left out."""
    rows = "".join(
        f"<dt>{text(k)}</dt><dd>{text(value_text(v))}</dd>"
        for k, v in items
        if v not in (None, "", [], {})
    )
    return f'<dl class="pairs">{rows}</dl>' if rows else ""


def bullets(items: Iterable[Any]) -> str:
    """Return a list of sentences."""
    rows = "".join(f"<li>{text(i)}</li>" for i in items if i)
    return f"<ul>{rows}</ul>" if rows else ""


def choices(run: RunData) -> str:
    """Return why this task, model and recipe, and what the trial of the real step measured."""
    out: list[str] = []
    reasons = [dig(run.model, "schema", "task_reason"), dig(run.about, "data", "split_reason")]
    reasons += listed(dig(run.about, "model", "choices"))
    recipe = dig(run.about, "recipe", "reason")
    out.append(bullets([*reasons, recipe]))
    chosen, why = dig(run.setup, "chosen"), dig(run.setup, "reasons")
    if isinstance(chosen, dict):
        rows = "".join(
            f"<tr><th scope=row>{text(k)}</th><td>{text(value_text(v))}</td>"
            f"<td>{text(value_text(dig(why, k) or ''))}</td></tr>"
            for k, v in chosen.items()
        )
        out.append(
            '<h3>measured on this machine</h3><div class="scroll"><table><thead><tr><th>what</th>'
            f"<th>chosen</th><th>why</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    elif run.setup:
        out.append("<h3>measured on this machine</h3>" + pairs(run.setup.items()))
    out.append(_trials(listed(run.setup.get("trials"))))
    return "".join(out)


def _trials(trials: list[Any]) -> str:
    """Return the trials as a table whose columns are whatever was recorded."""
    rows = [t for t in trials if isinstance(t, dict)]
    if not rows:
        return ""
    keys = list(dict.fromkeys(k for row in rows for k in row))[:6]
    head = "".join(f"<th>{text(k.replace('_', ' '))}</th>" for k in keys)
    body = "".join(
        "<tr>" + "".join(f"<td>{text(value_text(row.get(k)))}</td>" for k in keys) + "</tr>"
        for row in rows[:40]
    )
    return (
        f"<details><summary>{len(rows)} trials</summary><div class=scroll><table><thead><tr>{head}"
        f"</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def happenings(run: RunData) -> str:
    """Return findings and events: what was noticed, and what was done."""
    out: list[str] = []
    for finding in run.findings:
        if isinstance(finding, dict):
            title = finding.get("title") or finding.get("rule") or finding.get("name") or "finding"
            rest = finding.get("reason") or finding.get("message") or finding.get("found") or ""
            out.append(f"<li><b>{text(title)}</b> {text(value_text(rest))}</li>")
        else:
            out.append(f"<li>{text(value_text(finding))}</li>")
    found = events(run)
    for row in found[:MOST_EVENTS]:
        step = finite(row.get("step"))
        at = f"step {number(step)}" if step is not None else ""
        reason = row.get("reason") or ", ".join(
            f"{k} {value_text(v)}" for k, v in row.items() if k not in {"step", "event", "epoch"}
        )
        out.append(
            f"<li><span class=quiet>{text(at)}</span> <b>{text(row['event'])}</b> "
            f"{text(value_text(reason))}</li>"
        )
    more = len(found) - MOST_EVENTS
    if more > 0:
        out.append(f"<li class=quiet>and {more} more in rows.jsonl</li>")
    return f'<ul class="events">{"".join(out)}</ul>' if out else ""


def data_section(run: RunData) -> str:
    """Return the data: rows of each split, fields with the reason of their kind, notes."""
    data = run.about.get("data")
    out = []
    counts = dig(data, "rows")
    if isinstance(counts, dict) and counts:
        out.append(_split_bar(counts))
    out.append(
        pairs((key, dig(data, key)) for key in ("name", "split_reason", "fingerprint", "licence"))
    )
    out.append(bullets(listed(dig(data, "notes"))))
    fields = [f for f in listed(dig(run.model, "schema", "fields")) if isinstance(f, dict)]
    if fields:
        rows = "".join(_field(f) for f in fields[:200])
        title = f"{len(fields)} field{'s' * (len(fields) != 1)}"
        out.append(
            f"<details{' open' if len(fields) <= 6 else ''}><summary>{title}</summary>"
            '<div class="scroll"><table><thead><tr><th>field</th><th>kind</th><th>role</th>'
            f"<th>why</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
        )
    return "".join(out)


def _field(field: dict[str, Any]) -> str:
    classes = listed(field.get("classes"))
    kind = value_text(field.get("kind"))
    if classes:
        kind += f", {len(classes)} classes"
    shape = listed(field.get("shape"))
    if shape:
        kind += " " + "×".join(value_text(s) for s in shape)
    cells = (field.get("name"), kind, field.get("role"), field.get("reason"))
    first, *rest = (text(value_text(c)) for c in cells)
    return f"<tr><th scope=row>{first}</th>{''.join(f'<td>{c}</td>' for c in rest)}</tr>"


def _split_bar(counts: dict[str, Any]) -> str:
    sizes = {str(k): n for k, v in counts.items() if (n := finite(v)) is not None and n > 0}
    total = sum(sizes.values())
    if not total:
        return ""
    parts = "".join(
        f'<span class="part c{i}" style="flex:{n / total:.4f} 1 0"></span>'
        for i, n in enumerate(sizes.values(), 1)
    )
    keys = "".join(
        f'<span class="key c{i}">{text(k)} {number(n)}</span>'
        for i, (k, n) in enumerate(sizes.items(), 1)
    )
    return f'<div class="splits">{parts}</div><p class="legend">{keys}</p>'


def configuration(run: RunData) -> str:
    """Return every option with its value and origin: chosen ones first, defaults folded away."""
    if not run.config:
        return ""
    chosen = {k: v for k, v in run.config.items() if _origin(run, k) != "default"}
    rest = {k: v for k, v in run.config.items() if k not in chosen}
    out = _options(run, chosen) if chosen else "<p>Everything is at its default.</p>"
    if rest:
        out += f"<details><summary>{len(rest)} defaults</summary>{_options(run, rest)}</details>"
    return out


def _origin(run: RunData, key: str) -> str:
    return str(run.origins.get(key) or "default")


def _options(run: RunData, options: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{text(k)}</th><td>{text(value_text(v))}</td>"
        f"<td>{text(_origin(run, k))}</td></tr>"
        for k, v in options.items()
    )
    return (
        '<div class="scroll"><table><thead><tr><th>option</th><th>value</th><th>from</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def environment(run: RunData) -> str:
    """Return versions, machine and command."""
    versions = run.about.get("versions") or run.model.get("versions")
    machine = run.about.get("machine")
    items: list[tuple[str, Any]] = [(k, run.about.get(k)) for k in ("command", "started", "device")]
    for part in (versions, machine):
        if isinstance(part, dict):
            items += [(str(k), v) for k, v in part.items()]
    items.append(("weights, SHA-256", run.model.get("weights_sha256")))
    return pairs(dict(items).items())


def citations(run: RunData) -> str:
    """Return the sources of what was used, addresses as links."""
    found = [
        *listed(run.about.get("citations")),
        dig(run.about, "model", "citation"),
        dig(run.about, "data", "citation"),
    ]
    unique = dict.fromkeys(str(c) for c in found if c)
    rows = "".join(f"<li>{_linked(c)}</li>" for c in unique)
    return f"<ol>{rows}</ol>" if rows else ""


def _linked(citation: str) -> str:
    """Return escaped text in which web addresses, arXiv and DOI numbers are links."""
    out, at = [], 0
    for hit in _LINK.finditer(citation):
        out.append(text(citation[at : hit.start()]))
        shown = hit.group().rstrip(".,;)")
        address = shown
        if shown.startswith("arXiv:"):
            address = "https://arxiv.org/abs/" + shown.removeprefix("arXiv:")
        elif shown.startswith("doi:"):
            address = "https://doi.org/" + shown.removeprefix("doi:")
        out.append(f'<a href="{text(address)}" rel="noreferrer">{text(shown)}</a>')
        at = hit.start() + len(shown)
    return "".join(out) + text(citation[at:])
