"""Notices that other processes take the processors, says so, and adapts.

With busy neighbours every parallel region waits for the thread that lost its core; one thread is
then several times faster than two. The scheduler's own account of this thread's waiting time tells
(Linux). Adapting changes the order of sums, so the run is no longer bit-identical on resume: the
row says it. When the neighbours are gone the threads come back.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch

from gipi.core.device import run_delay_s
from gipi.core.events import Action, Step

CROWDED = 0.2
"""Share of the wall time that this thread stood in the queue, above which a machine is crowded."""
WINDOW_S = 1.0
PATIENCE = 2
"""Crowded windows in a row before anything is said or changed: a passing process is no crowd."""
KEEP_GAIN = 1.1
RETRY_S = 10.0
"""Seconds on one thread before the original number is tried again; doubled after each failure."""


@dataclass
class Crowd:
    """Watch the waiting time at each row; with `adapt`, use one thread while that is faster.

    A change of threads is an experiment: the pace of the window after it (the first row after the
    change is left out) is compared with the pace before, and what is not faster is taken back.
    """

    adapt: bool
    said: bool = False
    retry_s: float = RETRY_S
    _full: int = 1
    _bad: int = 0
    _wall: float = field(default_factory=time.perf_counter)
    _delay: float = field(default_factory=run_delay_s)
    _step: int = 0
    _before: float | None = None
    _settling: bool = False
    _since: float = -math.inf

    def __call__(self, step: Step) -> Action | None:
        """Answer a note when the machine is crowded, and changes of threads if allowed."""
        if step.when != "row":
            return None
        wall = time.perf_counter()
        if self._settling:
            self._begin(wall, step.step)
            self._settling = False
            return None
        span, steps = wall - self._wall, step.step - self._step
        if span < WINDOW_S or steps == 0:
            return None
        waited = (run_delay_s() - self._delay) / span
        self._begin(wall, step.step)
        if self._before is not None:
            return self._judge(steps / span, wall)
        self._bad = self._bad + 1 if waited > CROWDED else 0
        threads = torch.get_num_threads()
        if self.adapt and threads < self._full:
            return self._try(self._full, steps / span, wall, "the crowd may be gone")
        if self._bad < PATIENCE:
            return None
        share = f"crowded machine: {waited:.0%} of the time waiting for a processor"
        if self.adapt and threads > 1 and wall - self._since > self.retry_s:
            self.said, self._full = True, threads
            return self._try(1, steps / span, wall, share)
        if self.said:
            return None
        self.said = True
        return Action("note", f"{share}; other processes slow this run down")

    def _begin(self, wall: float, step: int) -> None:
        """Start a new window."""
        self._wall, self._delay, self._step = wall, run_delay_s(), step

    def _try(self, threads: int, pace: float, wall: float, why: str) -> Action | None:
        """Begin the experiment of another number of threads, not before its time."""
        if wall - self._since < self.retry_s and threads > 1:
            return None
        self._before, self._settling, self._since = pace, True, wall
        plural = "s" if threads > 1 else ""
        reason = f"{why}: trying {threads} thread{plural}; resuming is no longer bit-identical"
        return Action("change", reason, threads, "threads")

    def _judge(self, pace: float, wall: float) -> Action | None:
        """Compare the pace under the new number of threads with the one before."""
        before, self._before = self._before or 0.0, None
        threads = torch.get_num_threads()
        self._since = wall
        if pace > KEEP_GAIN * before:
            self.retry_s, self._bad = RETRY_S, 0
            return Action("note", f"{threads} threads: {pace / before:.1f} times faster here, kept")
        self.retry_s *= 2
        self._settling = True
        other = self._full if threads == 1 else 1
        return Action("change", f"{threads} threads are not faster: back", other, "threads")
