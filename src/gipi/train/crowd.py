"""Notices that other processes take the processors, says so, and adapts.

With busy neighbours every parallel region waits for the thread that lost its core; one thread is
then several times faster than two. The scheduler's own account of this thread's waiting time tells
(Linux). Adapting changes the order of sums, so the run is no longer bit-identical on resume: the
row says it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from gipi.core.device import run_delay_s
from gipi.core.events import Action, Step

CROWDED = 0.15
"""Share of the wall time that this thread stood in the queue, above which a machine is crowded."""
MIN_WALL_S = 1.0
KEEP_GAIN = 1.05


@dataclass
class Crowd:
    """Watch the waiting time at each row; with `adapt`, try one thread and keep what is faster."""

    adapt: bool
    said: bool = False
    tried: bool = False
    _wall: float = field(default_factory=time.perf_counter)
    _delay: float = field(default_factory=run_delay_s)
    _step: int = 0
    _before: tuple[int, float] | None = None

    def __call__(self, step: Step) -> Action | None:
        """Answer a note when the machine is crowded, then a change of threads if allowed."""
        if step.when != "row":
            return None
        wall = time.perf_counter()
        span, steps = wall - self._wall, step.step - self._step
        if span < MIN_WALL_S or steps == 0:
            return None
        delay = run_delay_s()
        waited = delay - self._delay
        self._wall, self._delay, self._step = wall, delay, step.step
        pace = steps / span
        if self._before is not None:
            return self._judge(pace)
        if waited / span < CROWDED:
            return None
        threads = torch.get_num_threads()
        share = f"{waited / span:.0%} of the time waiting for a processor"
        if self.adapt and threads > 1 and not self.tried:
            self.tried = self.said = True
            self._before = (threads, pace)
            return Action(
                "change",
                f"crowded machine ({share}): trying one thread; resume is no longer bit-identical",
                1,
                "threads",
            )
        if self.said:
            return None
        self.said = True
        return Action("note", f"crowded machine: {share}; other processes slow this run down")

    def _judge(self, pace: float) -> Action | None:
        """Compare the pace under one thread with the one before; go back if it is not better."""
        threads, before = self._before or (1, 0.0)
        self._before = None
        if pace > KEEP_GAIN * before:
            return Action("note", f"one thread is {pace / before:.1f} times faster here: kept")
        return Action("change", "one thread is not faster: back", threads, "threads")
