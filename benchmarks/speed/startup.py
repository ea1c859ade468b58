"""Cold start and memory: the command line's answers, the import, and the peak of a short training.

    python startup.py [--trials 11] [--again]

Each trial is a process of its own; the trials of all variants take turns. `import` is measured as
the difference that matters: `import torch` and `import torch, gipi` in turns, in pairs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from stats import Results, bootstrap, versions

PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
ADAM = "torch.optim.Adam([torch.zeros(1, requires_grad=True)])"
API = "gipi.train, gipi.fit, gipi.load, gipi.Recipe"
VARIANTS: dict[str, list[str]] = {
    "gipi --help": ["-m", "gipi", "--help"],
    "gipi train --help": ["-m", "gipi", "train", "--help"],
    "gipi train --epochz 3": ["-m", "gipi", "train", "--epochz", "3"],
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", f"import torch; {PEAK}"],
    "import torch, gipi": ["-c", f"import torch, gipi; {PEAK}"],
    "torch's first optimizer": ["-c", f"import torch; {ADAM}"],
    "the same without the compiler": [
        "-c",
        f"import torch; from gipi.optim import spare_compiler; spare_compiler(); {ADAM}",
    ],
    "import torch, gipi and its names": ["-c", f"import torch, gipi; {API}; {PEAK}"],
}


def seconds(words: list[str]) -> tuple[float, float | None]:
    """Return the wall-clock seconds of one process and the peak in MiB that it printed."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    spent = time.perf_counter() - start
    last = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        return spent, float(last)
    except ValueError:
        return spent, None


def main() -> None:
    """Measure every variant in turns and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=11)
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    asked = parser.parse_args()
    results = Results("startup")
    if results.has("startup", "import torch") and not asked.again:
        print(f"there already: {Path(results.path).name}")
        return
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    peaks: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for words in VARIANTS.values():
        seconds(words)  # byte code and disk cache
    for _ in range(asked.trials):
        for name, words in VARIANTS.items():
            spent, peak = seconds(words)
            times[name].append(spent)
            if peak is not None:
                peaks[name].append(peak)
    torch_s = times["import torch"]
    for name, values in times.items():
        row = {"seconds": bootstrap(values), "trials": asked.trials}
        if peaks[name]:
            row["peak_mib"] = statistics.median(peaks[name])
        if name.startswith("import torch, gipi"):
            extra = [a - b for a, b in zip(values, torch_s, strict=True)]
            row["over_torch_s"] = bootstrap(extra)
            row["over_torch_ratio"] = bootstrap(
                [a / b for a, b in zip(values, torch_s, strict=True)]
            )
        results.add("startup", name, **row, versions=versions("torch", "gipi"))
        more = f", {1e3 * row['over_torch_s']['median']:.0f} ms over torch" if (
            "over_torch_s" in row) else ""  # fmt: skip
        print(f"{name:36} {row['seconds']['median']:.3f} s (min {min(values):.3f}){more}")


if __name__ == "__main__":
    main()
