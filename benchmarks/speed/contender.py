"""One contender trains one work in a process of its own and prints one JSON line.

    python contender.py CONTENDER WORK EPOCHS BEGAN [SEED]

BEGAN is the time (`time.time()`) at which the caller started this process, so that what a user
waits for is counted: interpreter, imports, building, compiling, trials. Making the synthetic rows
is the same for all and is taken out. Prints {"import_s", "total_s", "epoch_s": [...], "accuracy",
"settings", "peak_mib", "versions"}: total_s from BEGAN to the end of the last epoch; epoch_s per
epoch, the first of which holds building and compiling; accuracy on the validation rows at the end,
outside the clock.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from works import Data, Work

MODULES = {
    "textbook": "own_contenders:textbook_loop",
    "handwritten": "own_contenders:handwritten_loop",
    "gipi": "own_contenders:gipi_fit",
    "keras-torch": "peer_keras:train",
    "keras-jax": "peer_keras:train",
    "lightning": "peer_lightning:train",
    "fastai": "peer_fastai:train",
    "skorch": "peer_skorch:train",
}
PACKAGES = ("torch", "gipi", "keras", "jax", "lightning", "fastai", "skorch", "numpy")


@dataclass
class Clock:
    """Marks of the epochs.

    paused   seconds of passes over validation rows on the way: only gipi makes them, so they are
             left out
    """

    marks: list[float] = field(default_factory=list)
    settings: str = ""
    paused: float = 0.0

    def mark(self) -> None:
        """Note the end of an epoch, or the beginning of the first."""
        self.marks.append(time.time() - self.paused)


Train = Callable[["Work", "Data", int, Clock, int], float]


def main() -> None:
    """Train as asked and print the JSON line."""
    name, work_name, epochs, began = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    seed = int(sys.argv[5]) if len(sys.argv) > 5 else 0
    module, function = MODULES[name].split(":")
    if name.startswith("keras"):
        import os

        os.environ["KERAS_BACKEND"] = name.split("-")[1]
    train: Train = getattr(importlib.import_module(module), function)
    imported = time.time()
    from stats import versions
    from works import BY_NAME, make_data

    start = time.time()
    work = BY_NAME[work_name]
    data = make_data(work, seed=seed)
    made = time.time() - start
    clock = Clock()
    clock.mark()
    accuracy = train(work, data, epochs, clock, seed)
    marks = clock.marks
    print(
        json.dumps(
            {
                "contender": name, "work": work_name, "epochs": epochs, "seed": seed,
                "import_s": imported - began, "total_s": marks[-1] - began - made,
                "epoch_s": [b - a for a, b in zip(marks, marks[1:], strict=False)],
                "rows": work.rows, "accuracy": accuracy, "settings": clock.settings,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "versions": versions(*PACKAGES),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
