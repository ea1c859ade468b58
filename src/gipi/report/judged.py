"""The part of the report about the answers: score, verdict, errors, calibration, worst rows."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any

from gipi.core.page import both, card
from gipi.core.svg import number, text
from gipi.report import drawn, forecasts, tagged, written
from gipi.report.charts import (
    MOST_CLASSES,
    confusion_chart,
    histogram_chart,
    reliability_chart,
    scatter_chart,
    share_bar,
    short,
)  # fmt: skip
from gipi.report.curves import SHARES, lost_rows, metric_name
from gipi.report.read import RunData, column, dig, finite, listed, num

if TYPE_CHECKING:
    import numpy as np


def score(name: str, value: float | None) -> str:
    """Return a score as people say it: an accuracy in percent, anything else as a number."""
    if value is None:
        return "not recorded"
    if name in SHARES and math.isfinite(value):
        return f"{value * 100:.1f} %" if value < 0.9995 or value == 1 else f"{value * 100:.2f} %"
    return number(value, 4)


def headline(run: RunData) -> str:
    """Return the box at the top: what was trained on what, the score, and the verdict."""
    data = run.about.get("data") or run.config.get("data") or "unknown data"
    model = run.result.get("model") or run.config.get("model") or "a model"
    target = run.evaluation.get("target")
    how = "was to be trained on" if run.refusal else "trained on"
    about = f"<b>{text(model)}</b> {how} <b>{text(data)}</b>"
    if target:
        about += f" to predict <b>{text(target)}</b>"
    parts = [f'<p class="about">{about}</p>', _big(run)]
    parts.append(f'<p class="verdict">{text(verdict(run))}</p>')
    parts += [f'<p class="hint">{text(h)}</p>' for h in hints(run)]
    return f'<section class="hero">{"".join(parts)}{_facts(run)}</section>'


def _big(run: RunData) -> str:
    primary = run.evaluation.get("primary")
    if run.refusal:
        return '<p class="score missing">refused, not trained</p>'
    if not isinstance(primary, dict):
        return '<p class="score missing">score not recorded</p>'
    name = str(primary.get("name", "score"))
    value, low, high = (finite(primary.get(k)) for k in ("value", "low", "high"))
    split = {"test": "test rows", "val": "validation rows", "train": "training rows"}.get(
        str(run.evaluation.get("split")), "rows"
    )
    rows = finite(run.evaluation.get("rows"))
    label = f"{metric_name(name)} on {number(rows) if rows else ''} {split}".replace("  ", " ")
    body = (
        f'<p class="score"><span class="value">{score(name, value)}</span>'
        f'<span class="what">{text(label)}</span></p>'
    )
    method = text(primary.get("method", ""))
    if value is None or low is None or high is None:
        return body + (f'<p class="interval quiet">{method}</p>' if method else "")
    return (
        body + f'<p class="interval">95 % interval {score(name, low)} to {score(name, high)}'
        f' <span class="quiet">({method})</span></p>' + _scale(run, name, value, low, high)
    )


def _scale(run: RunData, name: str, value: float, low: float, high: float) -> str:
    """Draw the interval on a scale that also shows the simplest rule."""
    base = finite(dig(run.evaluation, "baseline", "value"))
    if dig(run.evaluation, "baseline", "metric") != name:
        base = None
    top = 1.0 if name in SHARES and name != "nme" else max(high, base or 0.0) * 1.08
    if not top > 0 or low < 0:
        return ""

    def at(v: float) -> float:
        return 2 + 96 * min(max(v / top, 0.0), 1.0)

    tick = ""
    note = ""
    if base is not None:
        tick = f'<rect class="base" x="{at(base) - 0.3:.2f}" y="0" width="0.6" height="12"/>'
        rule = text(dig(run.evaluation, "baseline", "rule") or "the simplest rule")
        note = f'<p class="quiet">thin mark: {score(name, base)} by {rule}</p>'
    return (
        f'<svg class="gauge" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" x="2" y="4.5" width="96" height="3"/>{tick}'
        f'<rect class="span" x="{at(low):.2f}" y="3" width="{max(at(high) - at(low), 0.4):.2f}" '
        f'height="6"/><rect class="point" x="{at(value) - 0.35:.2f}" y="1" width="0.7" '
        f'height="10"/></svg>{note}'
    )


def _facts(run: RunData) -> str:
    """Return the row of small facts: time, speed, parameters, other metrics."""
    facts: list[tuple[str, str]] = []
    name = dig(run.evaluation, "primary", "name")
    metrics = run.evaluation.get("metrics")
    if isinstance(metrics, dict):
        facts += [
            (metric_name(str(k)), score(str(k), num(v))) for k, v in metrics.items() if k != name
        ]
    parameters = finite(run.about.get("parameters"))
    if parameters is not None:
        facts.append(("parameters", number(parameters)))
    seconds = finite(run.result.get("seconds"))
    if seconds is None:
        _, spent = column(run, "seconds")
        seconds = spent[-1] if spent and math.isfinite(spent[-1]) else None
    if seconds is not None:
        facts.append(("time", duration(seconds)))
    speed = sorted(v for v in column(run, "samples_per_s")[1] if math.isfinite(v))
    if speed:
        facts.append(("samples/s", number(speed[len(speed) // 2])))
    precision = run.setup.get("precision")
    if isinstance(precision, str):
        facts.append(("precision", precision))
    items = "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in facts)
    return f'<dl class="facts">{items}</dl>' if items else ""


def duration(seconds: float) -> str:
    """Return a time span as people say it.

    >>> duration(3.21), duration(75), duration(7384)
    ('3.2 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def verdict(run: RunData) -> str:
    """Return one plain sentence: what the score means beside the simplest rule."""
    primary = run.evaluation.get("primary")
    name, value = dig(primary, "name"), finite(dig(primary, "value"))
    if run.refusal:
        why, do = run.refusal.get("found"), run.refusal.get("do")
        return f"This run was refused before its first step: {why}. What to do: {do}."
    if value is None or not isinstance(name, str):
        return "This run has no recorded evaluation, so nothing can be said about unseen rows."
    if run.evaluation.get("split") == "train":
        return (
            f"On the rows that it was trained on the {metric_name(name)} is {score(name, value)}: "
            "none were held back, so nothing can be said about unseen rows."
        )
    said = _beside_the_rule(run, name, value)
    if run.evaluation.get("split") == "val":
        said += " These validation rows also chose the best weights: expect a little less."
    return said


def _beside_the_rule(run: RunData, name: str, value: float) -> str:
    primary = run.evaluation.get("primary")
    base = finite(dig(run.evaluation, "baseline", "value"))
    rule = str(dig(run.evaluation, "baseline", "rule") or "the simplest rule")
    same = dig(run.evaluation, "baseline", "metric") == name
    greater = dig(primary, "greater_is_better") is True
    edge = finite(dig(primary, "low" if greater else "high"))
    if base is None or not same or edge is None:
        return f"On rows it never saw the {metric_name(name)} is {score(name, value)}."
    better = edge > base if greater else edge < base
    best = finite(dig(primary, "high" if greater else "low"))
    if best is not None and (best < base if greater else best > base):
        return (
            f"It is worse than {rule}: {score(name, value)} against {score(name, base)}. It was "
            "trained too short, or something is wrong."
        )
    if not better:
        return (
            f"It is not shown to be better than {rule}: the interval reaches {score(name, base)}, "
            "so it may have learned nothing."
        )
    if name == "nme":
        return (
            f"Its points on unseen rows are off by {score(name, value)} of the subject's size on "
            f"average, {(1 - value / base) * 100:.0f} % less than {rule}."
        )
    if name == "accuracy":
        wrong, before = 1 - value, 1 - base
        times = f", {before / wrong:.3g} times fewer errors than" if wrong > 0 else ", unlike"
        hits = "every row" if wrong == 0 else f"{score(name, value)} of unseen rows"
        return f"It names the right class of {hits}{times} {rule}."
    if name == "rmse":
        return (
            f"Its typical error on unseen rows is {score(name, value)}, "
            f"{(1 - value / base) * 100:.0f} % less than {rule}."
        )
    return f"On unseen rows it scores {score(name, value)} against {score(name, base)} for {rule}."


def hints(run: RunData) -> list[str]:
    """Return what the curves suggest: over-fitting, an unfinished run, non-finite losses."""
    out = []
    some = finite(run.evaluation.get("looked_at"))
    if some is not None:
        out.append(
            f"The score is of all rows. Its interval, the figures by class and the worst rows are "
            f"of {number(some)} rows evenly spread over them: the answers to all would fill the "
            "memory."
        )
    lost = lost_rows(run)
    if lost:
        out.append(f"{lost} recorded losses were not finite; see the events below.")
    steps, val = column(run, "val/loss")
    fine = [(s, v) for s, v in zip(steps, val, strict=True) if math.isfinite(v)]
    train = [v for v in column(run, "train/loss")[1] if math.isfinite(v)]
    if len(fine) >= 4 and train:
        least = min(v for _, v in fine)
        if fine[-1][1] > least * 1.15 and train[-1] < fine[-1][1]:
            out.append(
                "The validation loss rose again after its best while the training loss fell: "
                "it began to learn the training rows by heart. More data, augmentation, dropout "
                "or weight decay may help; the best weights were kept."
            )
        elif fine[-1][1] <= least and fine[-1][1] < 0.97 * fine[-2][1]:
            out.append(
                "The validation loss was still falling at the end: a longer run may do better."
            )
    waits = sorted(v for v in column(run, "data_wait")[1] if math.isfinite(v))
    if waits and waits[len(waits) // 2] > 0.2:
        share = waits[len(waits) // 2]
        out.append(f"It waited for data {share:.0%} of the time; the model is not the bottleneck.")
    return out


# ---------------------------------------------------------------------------- cards


def answer_cards(run: RunData) -> list[str]:
    """Return the cards of the evaluation: confusion or residuals, calibration, classes."""
    if written.is_language(run):
        return written.cards(run)
    if forecasts.is_forecast(run):
        return forecasts.cards(run)
    table = drawn.class_card if drawn.kind_of(run) else _classes
    if tagged.is_tagged(run):
        table = tagged.type_card
    builders = (_confusion, _scatter, _residuals, _calibration, table)
    return [c for build in builders if (c := build(run))]


def _confusion(run: RunData) -> str:
    counts = run.arrays.get("confusion")
    names = [str(n) for n in listed(run.evaluation.get("classes"))]
    if counts is None or counts.ndim != 2 or counts.shape != (len(names), len(names)):
        return ""
    table = counts.astype(float).tolist()
    note = _confused(counts, names)
    if len(names) > MOST_CLASSES:
        return card(f"confusions ({len(names)} classes)", note or "<p>none</p>")
    return card("confusion matrix", both(lambda width: confusion_chart(table, names, width)), note)


def _confused(counts: np.ndarray, names: list[str]) -> str:
    pairs = [
        (float(counts[i, j]), i, j)
        for i in range(len(names))
        for j in range(len(names))
        if i != j and counts[i, j] > 0
    ]
    worst = sorted(pairs, reverse=True)[:5]
    said = [
        f"{text(short(names[i], 24))} → {text(short(names[j], 24))}: {number(n)}"
        for n, i, j in worst
    ]
    return "Most frequent (true → predicted): " + " · ".join(said) if said else ""


def _scatter(run: RunData) -> str:
    truth, value = run.arrays.get("truth"), run.arrays.get("value")
    if truth is None or value is None or truth.shape != value.shape or not truth.size:
        return ""
    pairs = truth.reshape(-1).tolist(), value.reshape(-1).tolist()
    unit = str(run.evaluation.get("target") or "value")
    return card(
        "predicted against true",
        both(lambda w: scatter_chart(*pairs, width=w, height=300 if w > 400 else 260, unit=unit)),
        "On the dashed line the answer is exact.",
    )


def _residuals(run: RunData) -> str:
    counts, edges = run.arrays.get("residual_counts"), run.arrays.get("residual_edges")
    if counts is None or edges is None or len(edges) != len(counts) + 1 or not len(counts):
        return ""
    figures = run.evaluation.get("residuals")
    note = ""
    mean, std = finite(dig(figures, "mean")), finite(dig(figures, "std"))
    if mean is not None and std is not None:
        note = f"Mean {number(mean)}, standard deviation {number(std)}. The outermost bars hold "
        note += "everything beyond."
    return card(
        "errors, true − predicted",
        both(
            lambda w: histogram_chart(
                counts.tolist(), edges.tolist(), x_label="error", width=w, height=230
            )
        ),
        note,
    )


def _calibration(run: RunData) -> str:
    found = run.evaluation.get("calibration")
    bins = [b for b in listed(dig(found, "bins")) if isinstance(b, dict)]
    coverage = dig(found, "kind") == "coverage"
    keys = ("promised", "observed") if coverage else ("confidence", "accuracy")
    points = [
        (finite(b.get(keys[0])), finite(b.get(keys[1])), finite(b.get("rows")) or 0.0) for b in bins
    ]
    fine = [(p, o, n) for p, o, n in points if p is not None and o is not None]
    if not fine:
        return ""
    ece = finite(dig(found, "ece"))
    note = (
        "Share of rows inside the interval that the model promised; on the dashed line it knows "
        "its own spread."
        if coverage
        else "How often it is right when it says how sure it is; below the line it is too sure. "
    )
    if ece is not None:
        note += f"Expected calibration error {ece * 100:.1f} %."
    label = "promised" if coverage else "probability that the model gave"
    return card(
        "calibration",
        both(lambda w: reliability_chart(fine, x_label=label, width=w, height=270)),
        note,
    )


def _classes(run: RunData) -> str:
    rows = [r for r in listed(run.evaluation.get("per_class")) if isinstance(r, dict)]
    if not rows:
        return ""
    rows = sorted(rows, key=_f1)
    shown = rows[:30]

    def cell(value: Any) -> str:
        v = finite(value)
        return "–" if v is None else f"{v * 100:.1f} %{share_bar(v)}"

    body = "".join(
        f"<tr><th scope=row>{text(short(str(r.get('class', '?')), 36))}</th>"
        f"<td>{number(finite(r.get('rows')) or 0)}</td>"
        f"<td>{cell(r.get('recall'))}</td><td>{cell(r.get('precision'))}</td></tr>"
        for r in shown
    )
    note = f"The {len(shown)} weakest of {len(rows)} classes." if len(rows) > len(shown) else ""
    return card(
        "classes, weakest first",
        '<div class="scroll"><table><thead><tr><th>class</th><th>rows</th><th>found</th>'
        f"<th>right when said</th></tr></thead><tbody>{body}</tbody></table></div>",
        note,
    )


def _f1(row: dict[str, Any]) -> float:
    found = finite(row.get("f1"))
    return -1.0 if found is None else found


# ---------------------------------------------------------------------------- worst rows


def worst_rows(run: RunData) -> str:
    """Return the worst-predicted rows as pictures, as curves or as values."""
    if drawn.kind_of(run):
        return drawn.worst_pictures(run)
    if tagged.is_tagged(run):
        return tagged.worst_sentences(run)
    if written.is_language(run):
        return written.passages(run)
    if forecasts.is_forecast(run):
        return forecasts.windows(run)
    rows = [r for r in listed(run.evaluation.get("worst")) if isinstance(r, dict)]
    if not rows:
        return ""
    shown = f'<div class="worst">{"".join(_sample(run, r) for r in rows)}</div>'
    some = [r for r in listed(run.evaluation.get("random")) if isinstance(r, dict)]
    if some:
        drawn_rows = "".join(_sample(run, r) for r in some)
        shown += f'<h3>Rows at random</h3><div class="worst">{drawn_rows}</div>'
    return shown


def _sample(run: RunData, row: dict[str, Any]) -> str:
    image = ""
    content = run.pictures.get(str(row.get("picture")))
    if content is not None and content.startswith(b"\x89PNG"):
        coded = base64.b64encode(content).decode()
        image = f'<img alt="{text(row.get("name", ""))}" src="data:image/png;base64,{coded}">'
    said, truth = _answer(row.get("prediction")), _answer(row.get("target"))
    sure = finite(row.get("probability"))
    body = f'<p><span class="said">{said}</span> <span class="quiet">predicted'
    body += f", {sure:.0%} sure" if sure is not None else ""
    body += f'</span></p><p><span class="true">{truth}</span> <span class="quiet">true'
    chance = finite(row.get("target_probability"))
    body += f", given {chance:.1%}" if chance is not None else ""
    body += "</span></p>"
    body += "".join(
        f'<p class="read" dir="auto">{text(line) or "(empty)"}</p>'
        for line in listed(row.get("texts"))
    )
    values = row.get("values")
    if isinstance(values, dict) and values:
        items = "".join(f"<dt>{text(k)}</dt><dd>{_answer(v)}</dd>" for k, v in values.items())
        body += f"<details><summary>values</summary><dl>{items}</dl></details>"
    name = text(row.get("name", row.get("id", "")))
    alone, judge = finite(row.get("score")), run.evaluation.get("row_score")
    if alone is not None and isinstance(judge, str):
        name += f" · {text(metric_name(judge))} {number(alone, 3)}"
    return f'<article class="sample">{image}<div>{body}<p class="name">{name}</p></div></article>'


def _answer(value: Any) -> str:
    if isinstance(value, float):
        return number(value, 4)
    if isinstance(value, list):
        return ", ".join(_answer(v) for v in value)
    return "missing" if value is None else text(value)
