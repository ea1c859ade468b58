"""Readers: a name, a path, a frame or arrays in; a `Source` of raw, typed columns out.

Each file of this folder reads one kind of data; `read_source` chooses among them.
"""

from __future__ import annotations

from gipi.data.sources.named import SOURCES
from gipi.data.sources.read import read_source

__all__ = ["SOURCES", "read_source"]
