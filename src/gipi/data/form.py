"""One form of data as a record: the functions in which it differs from all others.

    Form      what a whole data set is: a series, running text, or rows
    RowForm   what each row is, where rows stand for themselves: a table's or a picture's, a text,
              a sentence with tags, a question, a pair of texts, a text and what is written from it

Each module that knows a form ends with its record, `FORM`; `forms` and `row_forms` hold the tuples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gipi.data import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import torch

    from gipi.core.schema import Schema, Signature
    from gipi.data.dense import View
    from gipi.data.masks import Masks
    from gipi.data.options import DataOptions
    from gipi.data.pretext import PretextStream
    from gipi.data.source import Source
    from gipi.data.split import SplitRows
    from gipi.data.stream import Columns
    from gipi.data.text_windows import Running, WindowStream
    from gipi.data.tokens import Tokens

    Progress = Callable[[int, int], None] | None
    Splits = dict[str, np.ndarray]


# ------------------------------------------------------------------ whole data sets


@dataclass(frozen=True)
class Parts:
    """What a `Dataset` is made of: see there."""

    source: Source
    schema: Schema
    columns: Columns
    splits: Splits
    reason: str
    notes: tuple[str, ...]
    sizes: np.ndarray | None = None
    running: Running | None = None


class Read(Protocol):
    """Encode other data by a fitted schema, as the split "all"."""

    def __call__(
        self, schema: Schema, source: Source, options: DataOptions, /, *, target: bool
    ) -> Parts:
        """Return the parts; `target` False: do not look at the target."""
        ...


class MakeStream(Protocol):
    """Stream the batches of a part of running text."""

    def __call__(
        self, schema: Schema, running: Running, part: str, /, *, batch_size: int | str, seed: int,
        shuffle: bool, augment: Sequence[str | dict[str, Any]], device: torch.device | str,
        rank: int, world: int,
    ) -> WindowStream | PretextStream:  # fmt: skip
        """Return the stream."""
        ...


class Sign(Protocol):
    """Say what a model builder must know."""

    def __call__(self, schema: Schema, inputs: dict[str, Any], /, *, outputs: int) -> Signature:
        """Return the signature of a model with a head of this width."""
        ...


@dataclass(frozen=True)
class Form:
    """What a whole data set is.

    tasks      for which data is read in this form; none: for all that no other form names
    infer      what the columns are, without opening the data
    open, read, signature
    stream     None: the rows are those of the columns
    """

    name: str
    tasks: tuple[str, ...]
    infer: Callable[[Source, DataOptions], Schema]
    open: Callable[[Source, DataOptions, Progress], Parts]
    read: Read
    stream: MakeStream | None = None
    signature: Sign = prepare.signature


# ------------------------------------------------------------------ rows


@dataclass(frozen=True)
class Looked:
    """What was seen of rows before they are split.

    lost   a sentence on rows that take no part, "" where all do
    view   annotated pictures
    """

    rows: SplitRows
    notes: Sequence[str] = ()
    lost: str = ""
    view: View | None = None


@dataclass(frozen=True)
class Divided:
    """Rows that are split, with a schema that was fitted on the training rows."""

    schema: Schema
    source: Source
    splits: Splits
    options: DataOptions
    view: View | None = None
    progress: Progress = None


@dataclass(frozen=True)
class Opened:
    """Rows with what this form makes of them; numbers and categories come later, for all forms.

    inputs      pictures or tokens, empty where there are none
    splits      without rows that cannot be used; of rows that are read: "all"
    target      None where it is a plain column
    references  each row's text as it stands in the data, for tasks that write one
    source      the rows, where they are not those that were given: a long text is several of them
    sizes       (N, 2) of the original pictures, where they are known
    """

    schema: Schema
    inputs: dict[str, Any]
    splits: Splits
    notes: list[str]
    target: Tokens | torch.Tensor | Masks | None = None
    references: tuple[str, ...] = ()
    source: Source | None = None
    sizes: np.ndarray | None = None


class ReadRows(Protocol):
    """Encode other rows by a fitted schema."""

    def __call__(
        self, schema: Schema, source: Source, options: DataOptions, /, *, target: bool
    ) -> Opened:
        """Return the rows as "all"; `target`: whether every row has one, and it is wanted."""
        ...


@dataclass(frozen=True)
class RowForm:
    """What each row is.

    tasks   of rows in this form; none: all that no other form names
    look    what the split must know
    open    fit on the training rows what makes inputs (and the target), and make them
    infer   where the form is known before there is a target: the schema, None for other rows
    """

    name: str
    tasks: tuple[str, ...]
    look: Callable[[Source, Schema, DataOptions], Looked]
    open: Callable[[Divided], Opened]
    read: ReadRows
    infer: Callable[[Source, DataOptions], Schema | None] | None = None
