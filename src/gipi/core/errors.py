"""The errors of gipi: one tree, three parts each.

GipiError
├── RequestError        the request was wrong                    exit code 2
│   ├── ConfigError     a key, a value or a combination of them
│   ├── UnknownName     a name that no registry knows
│   ├── DataError       the data cannot be read or learned from
│   ├── ModelError      the model does not fit the data or the weights
│   └── MissingExtra    an optional package is not installed
├── RunError            the run failed                           exit code 1
│   ├── NonFiniteError  a loss or gradient stayed non-finite
│   ├── CheckpointError a checkpoint is damaged or does not match
│   └── StorageError    the disk is full, read-only or locked
└── Interrupted         stopped by a signal, can be resumed      exit code 75
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class GipiError(Exception):
    """An error for people: what was found, what is needed, what to do.

    Every error of gipi says the three in this order; ``exit_code`` is what the command line
    returns for it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, found: str, needed: str, do: str) -> None:
        self.found, self.needed, self.do = found, needed, do
        super().__init__(f"{found}\n  needed: {needed}\n  do:     {do}")

    def __reduce__(self) -> tuple[type[GipiError], tuple[str, str, str]]:
        return type(self), (self.found, self.needed, self.do)

    def as_dict(self) -> dict[str, str]:
        """Return the three parts as ``{"found", "needed", "do"}``, the form of ``--json``."""
        return {"found": self.found, "needed": self.needed, "do": self.do}


class RequestError(GipiError):
    """The request was wrong; nothing was trained and nothing was lost."""

    exit_code = 2


class ConfigError(RequestError):
    """A configuration key, a value, or a combination of values that cannot be used."""


class UnknownName(RequestError):  # noqa: N818  reads as a sentence where it is raised
    """A name that no registry knows."""


class DataError(RequestError):
    """Data that cannot be read, or that nothing can be learned from."""


class ModelError(RequestError):
    """A model that does not fit the data, the task or the weights it was given."""


class MissingExtra(RequestError):  # noqa: N818
    """An optional package that this request needs is not installed."""


class RunError(GipiError):
    """The run failed after it had begun."""


class NonFiniteError(RunError):
    """The loss or the gradient stayed NaN or infinite."""


class CheckpointError(RunError):
    """A checkpoint that is damaged or belongs to something else."""


class StorageError(RunError):
    """The disk is full or read-only, or another process holds the run folder."""


class Interrupted(GipiError):  # noqa: N818
    """Stopped by a signal after saving; ``gipi resume`` goes on from there."""

    exit_code = 75


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest in spelling to `name`, or None when nothing is close."""
    names = list(known)
    folded = {n.lower().replace("_", "-"): n for n in names}
    hit = difflib.get_close_matches(name.lower().replace("_", "-"), folded, n=1, cutoff=0.55)
    return folded[hit[0]] if hit else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "write X" for the nearest known name, else "choose one of: ..." with all of them."""
    names = list(known)
    close = nearest(name, names)
    if close is not None:
        return f"did you mean '{close}'?"
    return "choose one of: " + ", ".join(names) if names else "nothing is registered here"


def missing_extra(package: str, extra: str, purpose: str) -> MissingExtra:
    """Return the error for an optional `package` of the extra `extra` that `purpose` needs."""
    return MissingExtra(
        f"the package '{package}' is not installed",
        f"{purpose} needs it",
        f"pip install 'gipi[{extra}]'",
    )
