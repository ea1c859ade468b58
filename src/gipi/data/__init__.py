"""Data: sources, schema inference, split, preparation, cache, streams of batches, augmentation."""

from __future__ import annotations

from gipi.data.audit import Audit, audit
from gipi.data.augment import (
    AUGMENTATIONS,
    build_augment,
    default_augment,
    probe_flips,
    tta_views,
)
from gipi.data.cache import CacheEntry, cache_info, clear
from gipi.data.dataset import Dataset, open_data, read_rows
from gipi.data.options import DataOptions
from gipi.data.source import Source
from gipi.data.sources import SOURCES, read_source
from gipi.data.sources.foreign import ForeignStream
from gipi.data.stream import RowStream
from gipi.data.tagging import joined as joined_tokens
from gipi.data.tagging import words_of
from gipi.data.text_windows import WindowStream
from gipi.data.texts import text_fields, tokenizer_of

__all__ = [
    "AUGMENTATIONS",
    "SOURCES",
    "Audit",
    "CacheEntry",
    "DataOptions",
    "Dataset",
    "ForeignStream",
    "RowStream",
    "Source",
    "WindowStream",
    "audit",
    "build_augment",
    "cache_info",
    "clear",
    "default_augment",
    "joined_tokens",
    "open_data",
    "probe_flips",
    "read_rows",
    "read_source",
    "text_fields",
    "tokenizer_of",
    "tta_views",
    "words_of",
]
