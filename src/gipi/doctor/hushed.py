"""The doctor's own passes, of which nobody is warned: what they show is said as a finding."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def hushed() -> Iterator[None]:
    """Let warnings within reach nobody; a run of the user's own warns afterwards as it would have.

    What torch says only once a process must not be used up within, so it may say it each time.
    """
    before = torch.is_warn_always_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_warn_always(True)
        try:
            yield
        finally:
            torch.set_warn_always(before)
