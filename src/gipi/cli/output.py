"""What the verbs print for people beside the tables of `catalogue`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from gipi.core.resolve import Layer
    from gipi.deploy.predictions import Predictions

_SHOWN = 20  # answers printed on a terminal; all of them go to --out and --json


def predictions(answers: Predictions, out: Path | None, *, brief: bool) -> dict[str, Any]:
    """Print answers (the first of them when `brief`), write them to `out`, and return them."""
    from gipi.deploy.answers import brief as in_brief

    records = answers.records()
    for record in records[: _SHOWN if brief else 0]:
        said = {k: v for k, v in record.items() if k not in (answers.title, "probabilities")}
        if "text" in said and not answers.places:  # the text alone, so that it can be piped on
            print(said["text"])
            continue
        words = "  ".join(f"{k} {_number(v)}" for k, v in said.items())
        print(f"{record[answers.title]}: {in_brief(record) if answers.places else words}")
    if brief and len(records) > _SHOWN:
        where = "; --out FILE writes them all" if out is None else ""
        print(f"... and {len(records) - _SHOWN} more{where}")
    if brief and out is None and answers.places and records:
        what = "each mask as a PNG: --out FOLDER" if "mask" in answers.values else (
            "everything with its place: --out FILE, or --json"
        )  # fmt: skip
        print(what)
    for note in answers.notes:
        print(f"warning: {note}")
    result: dict[str, Any] = {"rows": len(records), "predictions": records}
    if out is not None:
        answers.save(out)
        print(f"written: {out}")
        if "mask" in answers.values and out.suffix:
            print(f"the masks themselves are written into a folder: --out {out.with_suffix('')}")
        result = {"rows": len(records), "out": str(out)}
    return {**result, "warnings": list(answers.notes)} if answers.notes else result


def scores(found: dict[str, Any]) -> dict[str, Any]:
    """Print the scores of an evaluation and return it."""
    for name, value in found["metrics"].items():
        print(f"{name} {_number(value)}")
    print(f"{found['rows']} rows of {found['data']}")
    for name, rules in found.get("baselines", {}).items():
        for rule, value in rules.items():
            print(f"{name} {_number(value)} where {rule}")
    if "ap_from" in found:
        print(f"AP by {found['ap_from']}")
    return found


def cache(folder: Path | None, *, clear: bool) -> dict[str, Any]:
    """Print the entries of the cache, or clear it; return what was found."""
    from gipi.data import cache as cache_

    where = folder or cache_.default_folder()
    if clear:
        freed = cache_.clear(where)
        print(f"{where}: {_megabytes(freed)} freed")
        return {"folder": str(where), "freed_bytes": freed}
    entries = cache_.cache_info(where)
    for entry in entries:
        print(f"{_megabytes(entry.bytes):>10}  {entry.name}  {entry.key}")
    total = sum(entry.bytes for entry in entries)
    print(f"{where}: {len(entries)} entries, {_megabytes(total)}")
    found = [{"key": e.key, "name": e.name, "bytes": e.bytes} for e in entries]
    return {"folder": str(where), "bytes": total, "entries": found}


def audit(path: str, layer: Layer) -> dict[str, Any]:
    """Print the audit of data and return it."""
    from gipi import data
    from gipi.core.resolve import resolve
    from gipi.train.prepare import data_options

    found = data.audit(path, data_options(resolve(layer).config))
    print("\n".join(found.lines()))
    return found.to_dict()


def _number(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_number(v) for v in value) or "none"
    if isinstance(value, float) and 1e5 <= abs(value) < 1e15:
        return f"{value:.0f}"  # a price is no power of ten
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB"
