"""Freed memory stays with the process: the next block of that size costs no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gipi.core.memory import keep_freed_pages

FAULTS = """
import resource, sys
import torch
from gipi.core.memory import keep_freed_pages

if sys.argv[1] == "keep":
    keep_freed_pages()

def once():
    torch.ones(64 << 20, dtype=torch.uint8)

for _ in range(10):  # aligned blocks need some room before one fits into what was freed
    once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Page faults of allocating, filling and freeing 64 MiB once more."""
    said = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
    )
    return int(said.stdout)


def test_freed_blocks_are_used_again() -> None:
    """64 MiB are 16,384 pages: all of them fault where memory is given back, none where kept."""
    if not keep_freed_pages():
        pytest.skip("the C library is not glibc")
    assert faults("keep") < 100
    assert faults("shipped") > 1000  # otherwise this test says nothing
