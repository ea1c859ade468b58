"""Memory of the host: what one step frees, the next step uses.

glibc gives a large block back to the system when it is freed, and the next step pays for fresh
pages again: 15,000 to 33,000 page faults in each step of a ResNet-18, and for small networks none
or many by the chance of the heap's shape. `benchmarks/speed/page_faults.py` counts them.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
LARGEST = 1 << 30
"""Blocks up to this many bytes stay with the process when they are freed."""


def keep_freed_pages() -> bool:
    """Ask the C library to keep freed memory for the process; return whether it agreed.

    Holds for the whole process from now on. Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, LARGEST))
