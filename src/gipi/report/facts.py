"""The part of the report that says what was used: choices, data, configuration, sources."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from gipi.core.config import Config
from gipi.core.svg import number, text
from gipi.report.charts import share_bar
from gipi.report.curves import events
from gipi.report.read import RunData, dig, finite, listed

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
    out = bullets(listed(run.about.get("choices")) or [dig(run.model, "schema", "task_reason")])
    chosen = {k: v for k, v in run.setup.items() if not isinstance(v, (list, dict))}
    step_s = finite(chosen.pop("step_s", None))
    if chosen:
        if step_s is not None:
            chosen["time of a step"] = f"{number(step_s * 1e3)} ms"
        out += "<h3>measured on this machine</h3>" + pairs(chosen.items())
    return out + _trial(listed(run.setup.get("trial")))


def _trial(candidates: list[Any]) -> str:
    """Return what the trial of the real step measured, as bars of time."""
    timed = [
        (str(c[0]), seconds)
        for c in candidates
        if isinstance(c, list) and len(c) == 2 and (seconds := finite(c[1])) is not None
    ]
    if not timed:
        return ""
    most = max(seconds for _, seconds in timed)
    rows = "".join(
        f"<tr><th scope=row>{text(name)}</th><td>{number(seconds * 1e3)} ms"
        f"{share_bar(seconds / most if most else 0.0)}</td></tr>"
        for name, seconds in timed
    )
    return (
        '<div class="scroll"><table class="trial"><thead><tr><th>candidate</th>'
        f"<th>time of a step</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def happenings(run: RunData) -> str:
    """Return findings and events: what was noticed, and what was done."""
    out: list[str] = []
    for finding in run.findings:
        if isinstance(finding, dict):
            title = next(
                (
                    finding[k]
                    for k in ("code", "finding", "title", "rule", "name")
                    if finding.get(k)
                ),
                "finding",
            )
            rest = finding.get("reason") or finding.get("message") or finding.get("found") or ""
            kind, advice = finding.get("severity"), finding.get("advice")
            head = f"{text(kind)} " if kind else ""
            todo = f"<br>what to do: {text(value_text(advice))}" if advice else ""
            out.append(f"<li>{head}<b>{text(title)}</b> {text(value_text(rest))}{todo}</li>")
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
    out = []
    counts = run.about.get("rows")
    if isinstance(counts, dict) and counts:
        out.append(_split_bar(counts))
    names = (("split", "split"), ("licence", "licence"), ("fingerprint", "SHA-256"))
    out.append(pairs((title, run.about.get(key)) for key, title in names))
    out.append(bullets(listed(run.about.get("notes"))))
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
    origins = {str(k): str(v) for k, v in run.origins.items()}
    usual = {k: f.get_default(call_default_factory=True) for k, f in Config.model_fields.items()}
    chosen = {
        str(k): v
        for k, v in run.config.items()
        if _where(str(k), v, origins) or k not in usual or v not in (usual[k], _listed(usual[k]))
    }
    rest = {k: v for k, v in usual.items() if k not in chosen}
    out = _options(chosen, origins)
    return out + f"<details><summary>{len(rest)} defaults</summary>{_options(rest, {})}</details>"


def _listed(value: Any) -> Any:
    """Return a tuple as the list that YAML makes of it."""
    return list(value) if isinstance(value, tuple) else value


def _where(key: str, value: Any, origins: dict[str, str]) -> str:
    """Return the origin of an option, or those of its parts ("task.loss": ...)."""
    if key in origins:
        return origins[key]
    head = key.removesuffix("_options").removesuffix("_overrides") + "."
    parts = [f"{k.removeprefix(head)}: {v}" for k, v in origins.items() if k.startswith(head)]
    return ", ".join(parts) if parts and isinstance(value, dict) else ""


def _options(options: dict[str, Any], origins: dict[str, str]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{text(k)}</th><td>{text(value_text(v))}</td>"
        f"<td>{text(_where(k, v, origins) or ('default' if not origins else 'inferred'))}</td></tr>"
        for k, v in options.items()
    )
    return (
        '<div class="scroll"><table><thead><tr><th>option</th><th>value</th><th>from</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def environment(run: RunData) -> str:
    """Return versions, machine and the hash of the weights."""
    items: list[tuple[str, Any]] = []
    for part in (run.model.get("versions"), run.about.get("versions"), run.about.get("machine")):
        if isinstance(part, dict):
            items += [(str(k), v) for k, v in part.items()]
    items.append(("weights, SHA-256", run.model.get("weights_sha256")))
    return pairs(dict(items).items())


def citations(run: RunData) -> str:
    """Return the sources of what was used, addresses as links."""
    found = [*listed(run.about.get("citations")), run.about.get("citation")]
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
