"""Names of the columns that a net reads, as the table has them: a field may be several columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gipi.core.schema import Field, Schema
    from gipi.doctor.experiment import Experiment


def column_names(schema: Schema) -> tuple[str, ...]:
    """Return the names of a table's columns as they enter: numbers, then categories.

    Nothing where pictures or texts enter too: what a row is has no columns then.
    """
    if any(f.kind not in ("number", "category", "date") for f in schema.inputs):
        return ()
    numbers = [name for f in schema.inputs if f.kind != "category" for name in _names(f)]
    return (*numbers, *(f.name for f in schema.inputs if f.kind == "category"))


def called(exp: Experiment, width: int) -> list[str]:
    """Return what the columns of a table are called: names of another number are of other columns.

    A column that bore the name of its neighbour would be taken out in its place.
    """
    names = [str(name) for name in exp.declared.get("columns") or ()]
    return names if len(names) == width else [f"column {j}" for j in range(width)]


def field_of(name: str, schema: Schema) -> Field | None:
    """Return the field whose column bears a name; None where none does."""
    return next((f for f in schema.inputs if name == f.name or name in _names(f)), None)


def _names(field: Field) -> list[str]:
    """Return the names of a field's numbers: itself, what is made of it, and where it is missing.

    >>> from gipi.core.schema import Field
    >>> _names(Field("age", "number", "input", stats={"missing": 0.1, "mean": 0.0, "std": 1.0}))
    ['age', 'age is missing']
    """
    if field.shape:
        width = 1
        for size in field.shape:
            width *= size
        return [f"{field.name}[{j}]" for j in range(width)]
    found = [field.name]
    if "scores" in field.stats:
        found.append(f"{field.name} by rank")
    for cycle in field.stats.get("cycles", ()):
        found += [f"{field.name}: {cycle} (cosine)", f"{field.name}: {cycle} (sine)"]
    if field.stats.get("missing"):
        found.append(f"{field.name} is missing")
    return found
