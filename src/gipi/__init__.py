"""gipi: data in; a trained, diagnosed, explained and deployable model out."""

from __future__ import annotations

__version__ = "0.1.0"
