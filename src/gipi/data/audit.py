"""The audit: what is in the data, and what is wrong with it, before anything is trained.

Counts are over all rows. What is costly (decoding pictures, how well one column alone predicts the
target) is done on at most 10,000 rows drawn by a fixed seed, and the audit says so. Columns are
judged as predictors on training rows only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from gipi.core.errors import DataError
from gipi.core.schema import PRETEXT, Field, Schema
from gipi.data import findings as find
from gipi.data.audit_drawn import drawn_findings
from gipi.data.audit_text import audit_lines, counted, cut, listed, short
from gipi.data.decode import open_picture
from gipi.data.decoded import fault_of
from gipi.data.findings import Finding
from gipi.data.forms import form_of
from gipi.data.infer_column import infer_column
from gipi.data.options import DataOptions
from gipi.data.source import TEST, TRAIN, VAL, Annotations, Column, ImageFiles, is_missing
from gipi.data.sources import read_source

if TYPE_CHECKING:
    from gipi.data.source import Source

SAMPLE = 10_000
BROKEN_SHOWN = 20
LEVELS = ("error", "warning", "note")
SPLITS = (("train", TRAIN), ("val", VAL), ("test", TEST))


@dataclass(frozen=True)
class FieldFacts:
    """One column: what it was taken for and why, missing and distinct values, and its range."""

    name: str
    kind: str
    role: str
    reason: str
    missing: int
    distinct: int | None
    values: str


@dataclass(frozen=True)
class Audit:
    """The facts and findings about one data set; `to_dict` for machines, `lines` for people.

    classes       rows by class; empty for a regression, whose target is in `target_facts`
    splits        rows by part where the data came with a split
    pictures      number checked, smallest, median and largest width and height, forms, broken
    sampled       what was not looked at in every row, in words
    """

    name: str
    rows: int
    task: str | None
    task_reason: str
    target: str | None
    fields: tuple[FieldFacts, ...]
    classes: dict[str, int]
    target_facts: dict[str, float]
    splits: dict[str, int]
    pictures: dict[str, Any]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    sampled: str = ""
    fingerprint: str = ""
    citation: str = ""
    licence: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the audit as plain lines of text."""
        return audit_lines(self.to_dict())


def audit(data: Any, options: DataOptions | None = None) -> Audit:
    """Look at `data` (anything that `open_data` takes) and return what was found.

    A target that cannot be learned from is a finding here, not an error. Raises `DataError` where
    the data cannot be read at all.
    """
    chosen = options or DataOptions()
    source = read_source(data, target=chosen.target, task=chosen.task)
    if chosen.target is not None:
        chosen = replace(chosen, target=source.target)
    schema, found = _schema(source, chosen)
    train, some = _sample(source, TRAIN), _sample(source, None)
    classes = find.class_counts(source, schema)
    drawn, seen = drawn_findings(source, schema, chosen)
    classes = classes or seen
    pictures, broken = _pictures(source, some)
    named = {row for finding in drawn if finding.code == "broken" for row in finding.rows}
    found += [
        *drawn,
        *(b for b in broken if b.code != "broken" or not set(b.rows) <= named),
        *find.missing(source, schema),
        *find.ignored(schema),
        *find.infinite(source),
        *find.unknowns(source, schema, train),
        *find.same_columns(source, schema),
        *find.imbalance(schema, classes),
        *find.duplicates(source, schema),
        *find.leaks(source, schema, train),
    ]
    split = source.given_split
    counts = {} if split is None else {name: int((split == p).sum()) for name, p in SPLITS}
    what, looked_at = _costly(source, train, some)
    sampled = f"{what} checked on {looked_at:,} of {source.rows:,} rows"
    return Audit(
        name=source.name,
        rows=source.rows,
        task=schema.task if schema.target or schema.task in ("generate", *PRETEXT) else None,
        task_reason=schema.task_reason,
        target=schema.predicted,
        fields=tuple(_field_facts(f, source.columns[f.name]) for f in schema.fields),
        classes=classes,
        target_facts=_target_facts(source, schema),
        splits={name: n for name, n in counts.items() if n},
        pictures=pictures,
        findings=tuple(sorted(found, key=lambda f: LEVELS.index(f.level))),
        notes=source.notes,
        sampled=sampled if what and looked_at < source.rows else "",
        fingerprint=source.fingerprint,
        citation=source.citation,
        licence=source.licence,
    )


def _schema(source: Source, options: DataOptions) -> tuple[Schema, list[Finding]]:
    """Return the inferred schema, or one without a target and the reason as a finding."""
    try:
        return form_of(options.task or source.task).infer(source, options), []
    except DataError as error:
        fields = [infer_column(source, name, c, options) for name, c in source.columns.items()]
        finding = Finding("unusable", "error", error.found, error.do)
        return Schema(tuple(fields), "classify", ""), [finding]


def _sample(source: Source, part: int | None) -> np.ndarray:
    """Return at most `SAMPLE` row ids, sorted; of one part only, where a split was given."""
    rows = np.arange(source.rows)
    if part is not None and source.given_split is not None and (source.given_split == part).any():
        rows = rows[source.given_split == part]
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))
    return rows


def _costly(source: Source, train: np.ndarray, some: np.ndarray) -> tuple[str, int]:
    """Return what was looked at in a sample of the rows, and in how many."""
    columns = source.columns.values()
    files = any(isinstance(c, ImageFiles) for c in columns)
    plain = sum(isinstance(c, np.ndarray) and c.ndim < 3 for c in columns)
    if files:
        return "pictures were", len(some)
    return ("single columns as predictors were", len(train)) if plain > 1 else ("", 0)


def _field_facts(f: Field, column: Column) -> FieldFacts:
    lost = is_missing(column)
    distinct: int | None = None
    if isinstance(column, ImageFiles):
        values = column.name(0)
    elif isinstance(column, Annotations):
        values = ", ".join(cut(name) for name in column.classes[:3])
    elif column.ndim > 1:
        shape = "×".join(map(str, column.shape[1:]))
        values = f"{short(np.nanmin(column))} to {short(np.nanmax(column))}, {shape} a row"
    elif f.kind == "text" and f.role in ("input", "target"):
        distinct = len(set(column[~lost].tolist()))
        lengths = np.array([len(str(v)) for v in column[~lost].tolist()] or [0])
        values = f"{lengths.min():,} to {lengths.max():,} letters, median {np.median(lengths):,.0f}"
    elif column.dtype.kind == "O":
        counts = Counter(column[~lost].tolist())
        distinct = len(counts)
        values = ", ".join(cut(str(v)) for v, _ in counts.most_common(3))
    else:
        present = column[~lost]
        distinct = len(np.unique(present))
        values = f"{short(present.min())} to {short(present.max())}" if len(present) else ""
        if len(present) and column.dtype.kind in "iuf":
            values += f", median {short(np.median(present))}"
    return FieldFacts(f.name, f.kind, f.role, f.reason, int(lost.sum()), distinct, values)


def _target_facts(source: Source, schema: Schema) -> dict[str, float]:
    if schema.target is None or schema.task != "regress":
        return {}
    column = np.asarray(source.columns[schema.target.name])
    values = column.reshape(len(column), -1).astype(np.float64)
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }


def _pictures(source: Source, sample: np.ndarray) -> tuple[dict[str, Any], list[Finding]]:
    for column in source.columns.values():
        if isinstance(column, ImageFiles):
            return _picture_files(column, sample)
        if isinstance(column, np.ndarray) and column.ndim > 2:
            rows, height, width, channels = column.shape
            forms = {f"{channels} channel{'s' * (channels > 1)}, {column.dtype}": rows}
            facts = {"checked": rows, "width": [width] * 3, "height": [height] * 3, "forms": forms}
            return facts, []
    return {}, []


def _picture_files(files: ImageFiles, sample: np.ndarray) -> tuple[dict[str, Any], list[Finding]]:
    """Decode the pictures of `sample`: which are broken, and what sizes and forms there are."""
    sizes: list[tuple[int, int]] = []
    forms: Counter[str] = Counter()
    broken: dict[str, str] = {}
    for row in sample.tolist():
        path, name = files.paths[row], files.name(row)
        try:
            open_picture(path, name, near=(32, 32))
            with Image.open(path) as image:
                sizes.append(image.size)
                forms[f"{image.format} {image.mode}"] += 1
        except DataError as error:
            broken[name] = (
                fault_of(error).removeprefix("the picture cannot be decoded").strip(" ()")
            )
        except (OSError, ValueError) as error:
            broken[name] = str(error)
    found = []
    if broken:
        named = tuple(f"{name} ({why})" for name, why in list(broken.items())[:BROKEN_SHOWN])
        shown = listed(named, len(broken))
        found.append(
            Finding(
                "broken",
                "error",
                f"{counted(len(broken), 'picture file')} cannot be decoded: {shown}",
                "remove or replace these files; bad_rows=skip leaves them out",
                rows=tuple(broken),
                value=float(len(broken)),
            )
        )
    facts: dict[str, Any] = {"checked": len(sample), "broken": list(broken)}
    if not sizes:
        return facts, found
    for name, side in zip(("width", "height"), np.array(sizes).T, strict=True):
        facts[name] = [int(side.min()), int(np.median(side)), int(side.max())]
    facts["forms"] = dict(forms.most_common())
    if len(set(sizes)) > 1:
        small, middle, large = zip(facts["width"], facts["height"], strict=True)
        found.append(
            Finding(
                "sizes",
                "note",
                f"pictures are {small[0]}×{small[1]} to {large[0]}×{large[1]} pixels "
                f"(median {middle[0]}×{middle[1]})",
                "they are scaled to one size; image_size sets it",
            )
        )
    return facts, found
