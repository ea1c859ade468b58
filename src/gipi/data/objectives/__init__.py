"""Pre-training objectives: what is hidden from a text, and what must be said about it.

Pure functions of (seed, epoch, row id): a row is changed the same way in any batch, on any rank and
at any padding, and differently in each epoch.
"""

from __future__ import annotations

from gipi.data.objectives.causal import causal
from gipi.data.objectives.masked import Masked, MaskRule, mask_tokens
from gipi.data.objectives.next_sentence import join_pairs, next_sentence, pair_starts
from gipi.data.objectives.spans import Corrupted, SpanRule, corrupt_spans, span_lengths, window_for

__all__ = [
    "Corrupted",
    "MaskRule",
    "Masked",
    "SpanRule",
    "causal",
    "corrupt_spans",
    "join_pairs",
    "mask_tokens",
    "next_sentence",
    "pair_starts",
    "span_lengths",
    "window_for",
]
