"""The experiments by name, and the run of one or of all into a folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from gipi.core.errors import UnknownName, did_you_mean
from gipi.study.lab_activations import activations
from gipi.study.lab_init import init
from gipi.study.lab_lr import lr
from gipi.study.lab_norm import norms
from gipi.study.lab_optimizers import optimizers
from gipi.study.lab_page import Experiment, write_lab

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXPERIMENTS: dict[str, Callable[[int], Experiment]] = {
    "activations": activations,
    "init": init,
    "norm": norms,
    "optimizers": optimizers,
    "lr": lr,
}
"""Name -> function of a seed."""

ALL = "all"


def run_lab(
    name: str, folder: Path, *, seed: int = 0, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Run one experiment, or all of them, write page and pictures, and return what came out.

    name    a name of `EXPERIMENTS`, or "all"
    folder  for the page (index.html for all, else NAME.html) and the pictures
    say     is told what happens, a line at a time

    The result holds lab, page, pictures, seed, seconds and the numbers behind the pictures. Pages
    of the same seed, code and machine are equal byte for byte. Raises `UnknownName` and
    `StorageError`.
    """
    if name != ALL and name not in EXPERIMENTS:
        raise UnknownName(
            f"no experiment is called '{name}'",
            "one of " + ", ".join([*EXPERIMENTS, ALL]),
            did_you_mean(name, [*EXPERIMENTS, ALL]),
        )
    began = time.perf_counter()
    done = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nets this small lose by sharing, and one thread gives one result
    try:
        for one in EXPERIMENTS if name == ALL else (name,):
            start = time.perf_counter()
            done.append(EXPERIMENTS[one](seed))
            if say is not None:
                say(f"{one}: {time.perf_counter() - start:.1f} s")
    finally:
        torch.set_num_threads(threads)
    page, pictures = write_lab(folder, "index" if name == ALL else name, done)
    return {
        "lab": [e.name for e in done],
        "page": str(page),
        "pictures": [str(p) for p in pictures],
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 1),
        "numbers": {e.name: e.numbers for e in done},
    }
