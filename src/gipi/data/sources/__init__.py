"""Readers: a name, a path, a frame or arrays in; a `Source` of raw, typed columns out."""

from __future__ import annotations
