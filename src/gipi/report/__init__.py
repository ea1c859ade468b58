"""Reading a run: the report as one HTML page, a few lines for a terminal, TensorBoard."""

from __future__ import annotations

from gipi.report.page import summary_lines, write_report

__all__ = ["summary_lines", "write_report"]
