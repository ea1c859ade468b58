"""The doctor's own passes, of which nobody is warned: what they show is said as a finding."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = ("ignore", re.compile("(?s:.*)"), Warning, None, 0)
"""A filter that lets nothing through."""


@contextmanager
def hushed() -> Iterator[None]:
    """Let warnings within reach nobody; a run of the user's own warns afterwards as it would have.

    What torch says only once a process must not be used up within, so it may say it each time.
    Leaving `warnings.catch_warnings` makes Python forget what it has said once of every place, and
    say it again; a filter that comes and goes by itself does not.
    """
    before, kept = torch.is_warn_always_enabled(), list(warnings.filters)
    warnings.filters.insert(0, NOBODY)  # type: ignore[attr-defined]
    torch.set_warn_always(True)
    try:
        yield
    finally:
        torch.set_warn_always(before)
        warnings.filters[:] = kept  # type: ignore[index]  # a model may set some of its own
