"""The schema: what every column of the data is, decided once and carried to prediction.

A `Field` says what a column holds (`kind`) and what it is for (`role`), with the reason in words
and everything that must be known to turn raw values into tensors again: class names, statistics of
the training rows, shapes. A `Schema` is the tuple of all fields and travels as JSON in the model
folder, so that a new file is read exactly as the training file was.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

Kind = Literal[
    "image", "text", "number", "category", "date", "series", "mask", "boxes", "keypoints"
]
Role = Literal["input", "target", "weight", "group", "time", "split", "ignored"]
TaskKind = Literal["classify", "regress"]
KINDS: tuple[str, ...] = get_args(Kind)
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True)
class Signature:
    """What goes into a model and how wide its output is: all a builder must know of the data.

    image          (C, H, W) where the input is one image, else None
    numbers        width F of the float input (B, F) of a table
    cardinalities  of each category column the number of codes, the unknown code 0 included; the
                   model's second positional input is then (B, len(cardinalities)) int64
    outputs        width of the head, decided by the task (classes, target values, parameters)
    """

    image: tuple[int, int, int] | None = None
    numbers: int = 0
    cardinalities: tuple[int, ...] = ()
    outputs: int = 1


@dataclass(frozen=True)
class Field:
    """One column: `kind`, `role`, why, and what preparation needs.

    shape    per-row shape of the prepared tensor: (C, H, W) for an image, () for a scalar column
    classes  the vocabulary of a category in index order; an input category maps everything else
             (missing or unseen) to index 0, so its codes are 1..len(classes); a target's begin at 0
    stats    numbers fitted on training rows only (mean, std, missing, ...), JSON-able
    """

    name: str
    kind: str
    role: str
    reason: str = ""
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    stats: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Schema:
    """All fields of a data set and the task they imply."""

    fields: tuple[Field, ...]
    task: str = "classify"
    task_reason: str = ""

    def of(self, role: str, kind: str | None = None) -> tuple[Field, ...]:
        """Return the fields with this role (and kind), in column order."""
        return tuple(f for f in self.fields if f.role == role and (kind is None or f.kind == kind))

    @property
    def inputs(self) -> tuple[Field, ...]:
        """The columns that the model sees."""
        return self.of("input")

    @property
    def target(self) -> Field | None:
        """The column to be predicted; None when the data has none."""
        found = self.of("target")
        return found[0] if found else None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of a categorical target in index order; empty for a number."""
        return self.target.classes if self.target else ()

    def field(self, name: str) -> Field:
        """Return the field called `name`."""
        for f in self.fields:
            if f.name == name:
                return f
        raise KeyError(name)

    def with_field(self, new: Field) -> Schema:
        """Return a copy in which `new` replaces the field of the same name."""
        return replace(self, fields=tuple(new if f.name == new.name else f for f in self.fields))

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as JSON-able values."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Schema:
        """Rebuild a schema from `to_dict`."""
        fields = tuple(
            Field(**{**f, "shape": tuple(f["shape"]), "classes": tuple(f["classes"])})
            for f in data["fields"]
        )
        return Schema(fields, data["task"], data["task_reason"])
