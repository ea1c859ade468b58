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
    "image",
    "text",
    "number",
    "category",
    "date",
    "series",
    "mask",
    "boxes",
    "keypoints",
    "tags",
    "answers",
]
Role = Literal["input", "target", "weight", "group", "time", "split", "ignored"]
TaskKind = Literal[
    "classify", "regress", "segment", "detect", "pose", "forecast", "tag", "answer", "translate",
    "summarise", "generate", "embed", "rank", "masked", "spans",
]  # fmt: skip
DENSE = ("mask", "boxes", "keypoints")
"""Kinds of targets that are drawn on a picture and move with it."""
WRITTEN = ("translate", "summarise")
"""Tasks whose target is a text that is written anew, token by token."""
PAIRED = ("embed", "rank")
"""Tasks over pairs of texts that belong together; the target of a row is its group (B,) int64."""
PRETEXT = ("masked", "spans")
"""Tasks that are made of running text; see `gipi.data.pretext` for their batches."""
KINDS: tuple[str, ...] = get_args(Kind)
ROLES: tuple[str, ...] = get_args(Role)
TASK_KINDS: tuple[str, ...] = get_args(TaskKind)
SHOWN = 4  # names of targets that are written out
IGNORED = 255
"""The label of a mask's pixels that count neither in the loss nor in the score."""
IGNORED_TOKEN = -100
"""The label of a text's positions that count neither in the loss nor in the score."""


@dataclass(frozen=True)
class Signature:
    """What goes into a model and how wide its output is: all a builder must know of the data.

    image          (C, H, W) where the input is one image, else None
    numbers        width F of the float input (B, F) of a table, (B, T, F) of a series
    cardinalities  of each category column the number of codes, the unknown code 0 included; the
                   model's second positional input is then (B, len(cardinalities)) int64
    vocab          number of token ids where the input is text, else 0; the model's first positional
                   input is then (B, T) int64, right-padded with `pad`, and for pairs of texts the
                   second is (B, T) int64 segments 0 and 1
    length         T of the widest batch of tokens: that of the longest prepared row, padded; steps
                   of a series that a model sees
    pad            id of the padding token: what equals it is no token
    horizon        steps of a series to forecast; the output is then (B, horizon, outputs), of the
                   first `outputs` columns of the input
    outputs        width of the head, decided by the task (classes, target values, parameters)
    per            what is answered: "row", "token" (the head stands on every token), or "span"
                   (first and last token of the answer)
    parts          where the tokens are whole words: numbers of ids of their letters, casings and
                   suffixes; the model's inputs are then words (B, T), shapes (B, T, 2) of casing
                   and suffix, and letters (B, T, C), int64, 0 where there is none
    """

    image: tuple[int, int, int] | None = None
    numbers: int = 0
    cardinalities: tuple[int, ...] = ()
    outputs: int = 1
    vocab: int = 0
    length: int = 0
    pad: int = 0
    per: str = "row"
    parts: tuple[int, ...] = ()
    horizon: int = 0


@dataclass(frozen=True)
class Field:
    """One column: `kind`, `role`, why, and what preparation needs.

    shape    per-row shape of the prepared tensor: (C, H, W) for an image, () for a scalar column
             (H, W) for a mask, (M, 6) for boxes, (K, 3) for keypoints, (K,) for several labels
    classes  the vocabulary of a category in index order; an input category maps everything else
             (missing or unseen) to index 0, so its codes are 1..len(classes); a target's begin at 0
             Masks and boxes have the names of their classes, keypoints those of their points.
    stats    numbers fitted on training rows only (mean, std, missing, ...), JSON-able

    Targets in a batch, coordinates in pixels of the prepared picture (x right, y down, pixel (i, j)
    covers [j, j + 1) x [i, i + 1)):
        mask        uint8 (B, H, W) class index, `IGNORED` where nothing is known
        boxes       float32 (B, M, 6) x0, y0, x1, y1, class, crowd; unused rows have class -1
        keypoints   float32 (B, K, 3) x, y, visible (0 missing, 1 hidden, 2 visible); stats may hold
                    "flip" (pairs of points that a mirror swaps) and "sigmas" (spread per point)
        tags        int64 (B, T), one for each token, -100 where none counts
        answers     int64 (B, 2) first and last token of the answer in this window, 0 and 0: none
        category    int64 (B,), or float32 (B, K) of 0 and 1 where `multi` is true
        text        int64 (B, T) tokens and the one that ends a text, -100 behind it; the input
                    "target_in" (B, T) holds the same tokens one place later, behind a first one
        series      float32 (B, horizon, K) of all K target series, standardised; the stats of the
                    first of them hold the geometry of the windows (`gipi.data.windows`)
    """

    name: str
    kind: str
    role: str
    reason: str = ""
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    stats: dict[str, Any] = field(default_factory=dict)

    @property
    def multi(self) -> bool:
        """Whether a row may have several classes of this category at once."""
        return bool(self.stats.get("multi", False))

    @property
    def dense(self) -> bool:
        """Whether the values are drawn on a picture: masks, boxes, keypoints."""
        return self.kind in DENSE


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
    def predicted(self) -> str | None:
        """The names of what is predicted, for people: a series may have many; None without any.

        >>> Schema(tuple(Field(name, "series", "target") for name in "abcde")).predicted
        'a, b, c and 2 more'
        """
        names = [f.name for f in self.of("target")]
        if len(names) > SHOWN:
            return f"{', '.join(names[: SHOWN - 1])} and {len(names) - SHOWN + 1} more"
        return ", ".join(names) or None

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
