"""The progress line: an observer that turns rows into one line that updates.

On a terminal (and in a notebook) one line is rewritten at most ten times a second; elsewhere plain
lines come at each validation and now and then in between. A row that is not shown costs one look
at the clock.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gipi.core.events import Action, Step

_BAR = 12  # characters of the bar
_LIVE_S = 0.1  # shortest time between two rewritings
_EVAL_S, _PLAIN_S = 2.0, 10.0  # between two printed lines: after a validation, otherwise
_HIDDEN = {"train/loss", "val/loss"}


@dataclass
class Progress:
    """Show where a run stands: epoch, step, loss, metric, samples/s, data wait, memory, ETA.

    stream  where to write; None means the standard output of the moment
    live    rewrite one line (None: where the stream is a terminal or a notebook)
    now     the clock, in seconds
    """

    stream: TextIO | None = None
    live: bool | None = None
    now: Callable[[], float] = time.monotonic
    _began: tuple[float, float] | None = None
    _last: float = -math.inf
    _seen: dict[str, Any] = field(default_factory=dict)
    _open: bool = False

    def __post_init__(self) -> None:
        """Find out where the line goes."""
        self.stream = self.stream or sys.stdout
        if self.live is None:
            self.live = self.stream.isatty() or "ipykernel" in sys.modules

    def __call__(self, step: Step) -> Action | None:
        """Show one event of the run; never asks the loop for anything."""
        moment = self.now()
        if self._began is None:
            self._began = (moment, step.progress)
        if step.when == "row" and "event" in step.row:
            self._note(step)
            return None
        restored = step.when == "end" and "best_step" in step.row
        if not restored:  # those are the scores of other weights than the last step's
            self._seen.update(step.row)
        wait = _LIVE_S if self.live else _EVAL_S if step.when == "evaluate" else _PLAIN_S
        if step.when in ("start", "save") or (moment - self._last < wait and step.when != "end"):
            return None
        self._last = moment
        self._write(line(step, self._seen, self._eta(step, moment)))
        if step.when == "end":
            self.close()
        if restored and self.stream is not None:
            print(best_line(step.row), file=self.stream, flush=True)
        return None

    def close(self) -> None:
        """End the line that is being rewritten."""
        if self._open and self.stream is not None:
            self.stream.write("\n")
            self.stream.flush()
            self._open = False

    def _note(self, step: Step) -> None:
        self.close()
        reason = step.row.get("reason", "")
        print(f"step {step.step}: {step.row['event']}: {reason}", file=self.stream, flush=True)

    def _eta(self, step: Step, moment: float) -> float | None:
        if self._began is None or step.progress <= self._began[1]:
            return None
        share = step.progress - self._began[1]
        return (moment - self._began[0]) * (1 - step.progress) / share

    def _write(self, text: str) -> None:
        if self.stream is None:
            return
        if self.live:
            width = shutil.get_terminal_size((100, 24)).columns - 1
            self.stream.write(f"\r{text[:width]}\x1b[K")
            self._open = True
        else:
            self.stream.write(text + "\n")
        self.stream.flush()


def line(step: Step, seen: Mapping[str, Any], eta_s: float | None) -> str:
    """Return the line for a step: what is not known yet is left out."""
    done = min(max(step.progress, 0.0), 1.0)
    filled = int(done * _BAR)
    parts = [f"[{'=' * filled}{'.' * (_BAR - filled)}] {done:4.0%}"]
    total = step.total_steps
    if step.steps_per_epoch:
        of = f"/{total / step.steps_per_epoch:.3g}" if total else ""
        parts.append(f"epoch {step.step / step.steps_per_epoch:.1f}{of}")
    parts.append(f"step {step.step}" + (f"/{total}" if total else ""))
    losses = {"train/loss": "loss", "val/loss": "val loss"}
    parts += [f"{n} {seen[k]:.4g}" for k, n in losses.items() if isinstance(seen.get(k), float)]
    for key, value in seen.items():
        name = key.partition("/")[2]
        if name and key not in _HIDDEN and isinstance(value, float):
            parts.append(f"{name if key.startswith('train/') else key} {value:.4g}")
    if seen.get("samples_per_s"):
        parts.append(f"{count(seen['samples_per_s'])}/s")
    if seen.get("data_wait") is not None:
        parts.append(f"wait {seen['data_wait']:.0%}")
    if seen.get("memory_bytes"):
        parts.append(f"{seen['memory_bytes'] / 2**20:.0f} MB")
    if eta_s is not None:
        parts.append(f"ETA {clock(eta_s)}")
    return "  ".join(parts)


def best_line(row: Mapping[str, Any]) -> str:
    """Return what the restored weights score.

    >>> best_line({"step": 900, "best_step": 600, "val/loss": 0.25, "val/accuracy": 0.91})
    'best weights of step 600, restored: val/loss 0.25  val/accuracy 0.91'
    """
    scores = "  ".join(f"{key} {value:.4g}" for key, value in row.items() if key.startswith("val/"))
    return f"best weights of step {row['best_step']}, restored" + (f": {scores}" if scores else "")


def count(value: float) -> str:
    """Return a number with a letter for its thousands.

    >>> count(950.0), count(12_345.0), count(2_500_000.0)
    ('950', '12.3k', '2.5M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def clock(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss.

    >>> clock(75), clock(3700)
    ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
