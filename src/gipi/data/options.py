"""How data is read: every choice that a user may make about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from gipi.core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from gipi.core.schema import TaskKind
    from gipi.data.source import Source
    from gipi.text import Tokenizer


@dataclass(frozen=True)
class DataOptions:
    """Choices about data; None means that gipi decides and says why.

    target              column to predict
    task                one of `core.schema.TASK_KINDS`
    group               column of rows that must stay on one side of the split
    time_column         column to split by: the latest rows are held back
    weight              column of row weights
    split_column        column that says train, val or test
    val, test           shares held back (0 for none)
    overrides           column -> kind ("number", "category", ...) or "ignored"
    seed                seed of the split
    image_size          side, or (height, width), of pictures in pixels; for masks, boxes and
                        keypoints one number is the longer side
    normalise           None (mean and spread of the training pictures), "imagenet" or "none"
    cache               folder for decoded pictures; None: the platform's cache folder
    cache_budget_bytes  disk that the cache may take; None: a tenth of the disk's free space
    mode                where rows live: "auto", "resident", "mapped" or "streaming"
    workers             processes that decode in streaming mode
    tokenizer           kind (bpe, unigram, wordpiece, word, char) or file of a tokenizer; None:
                        chosen, and trained on the training texts
    tokenizer_options   "kind", "vocab"
    tokenizer_kept      the tokenizer of a run that goes on: nothing is trained
    units               what a model of tagged sentences reads: "words", or "pieces" of them
    max_length          tokens of a row at most; None: from the training rows
    pretext             options of a task that is made of running text
    longest             tokens that the model can read at most; None: not known before
    carry               running text: rows go on where those of the batch before ended
    bad_rows            what becomes of rows whose picture or annotation cannot be used: "refuse"
                        (an error that names them) or "skip" (left out, and said); of a series:
                        windows that touch a gap are left out, or "fill": the last value goes on
    horizon             forecast: steps ahead
    lookback            forecast: steps that the model sees
    season              forecast: steps after which the series repeats itself
    """

    target: str | None = None
    task: TaskKind | None = None
    group: str | None = None
    time_column: str | None = None
    weight: str | None = None
    split_column: str | None = None
    val: float | None = None
    test: float | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    image_size: int | tuple[int, int] | None = None
    normalise: str | None = None
    cache: Path | None = None
    cache_budget_bytes: int | None = None
    mode: str = "auto"
    workers: int = 0
    tokenizer: str | None = None
    tokenizer_options: dict[str, Any] = field(default_factory=dict)
    tokenizer_kept: Tokenizer | None = None
    units: Literal["words", "pieces"] = "words"
    max_length: int | None = None
    longest: int | None = None
    carry: bool = False
    pretext: dict[str, Any] = field(default_factory=dict)
    bad_rows: Literal["refuse", "skip", "fill"] = "refuse"
    horizon: int | None = None
    lookback: int | None = None
    season: int | None = None


def for_rows(source: Source, options: DataOptions) -> DataOptions:
    """Return the options with the target's name for its number, or for several columns joined.

    Raises `ConfigError` where something is asked for that only a series has.
    """
    for name in ("horizon", "lookback", "season"):
        value = getattr(options, name)
        if value is not None:
            raise ConfigError(
                f"{name}={value}, but the rows are not read as a series",
                "task=forecast beside it",
                f"add --task forecast, or leave {name} out",
            )
    return options if options.target is None else replace(options, target=source.target)
