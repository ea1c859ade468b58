"""Commands as tests give them; `asked` in conftest.py reads their answers."""

from __future__ import annotations

FIXED = ["--precision", "fp32", "--set", "threads=1", "--set", "gemm=native", "--quiet"]
"""What makes two runs on one machine the same, and nothing measured."""
