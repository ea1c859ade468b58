"""Importing the library changes nothing outside it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.house.source import files, is_public

if TYPE_CHECKING:
    from pathlib import Path

PROBE = """
import json, logging, os, random, signal, sys, threading, warnings
import matplotlib, numpy, pyarrow, pydantic, rich, safetensors, sklearn, torch, typer, yaml
import PIL.Image

def look():
    return {
        "environment": dict(os.environ),
        "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "threads": threading.active_count(),
        "warnings": [str(f) for f in warnings.filters],
        "logging": [str(h) for h in logging.getLogger().handlers],
        "torch threads": torch.get_num_threads(),
        "torch dtype": str(torch.get_default_dtype()),
        "torch flags": [
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic,
            torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled(),
        ],
        "torch random": torch.get_rng_state().tolist(),
        "numpy random": str(numpy.random.get_state()),
        "random": str(random.getstate()),
        "backend": matplotlib.rcParams._get("backend").__class__.__name__,
        "hooks": [str(sys.excepthook), str(sys.displayhook)],
        "files": sorted(os.listdir()),
        "umask": os.umask(0o22),
    }

os.umask(0o22)
before = look()
for name in MODULES:
    __import__(name)
after = look()
print(json.dumps({k: [before[k], after[k]] for k in before if before[k] != after[k]}))
"""


def changes(modules: list[str], folder: Path) -> dict[str, object]:
    """Return what importing `modules` in a fresh process changes there."""
    code = f"MODULES = {modules!r}\n{PROBE}"
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, check=True, cwd=folder,
    )  # fmt: skip
    found: dict[str, object] = json.loads(out.stdout.splitlines()[-1])
    return found


def test_importing_everything_changes_nothing(tmp_path: Path) -> None:
    assert changes([name for name in files() if is_public(name)], tmp_path) == {}


PLANTED = {
    "environment": "import os; os.environ['A_NEW_NAME'] = '1'",
    "torch random": "import torch; torch.manual_seed(1); torch.rand(1)",
    "torch threads": "import torch; torch.set_num_threads(7)",
    "signals": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "warnings": "import warnings; warnings.simplefilter('error')",
    "files": "open('left.txt', 'w').close()",
}


def test_planted_side_effects_are_found(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("\n".join(PLANTED.values()))
    assert set(PLANTED) <= set(changes(["planted"], tmp_path))
