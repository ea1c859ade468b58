"""SIGINT and SIGTERM as a request: finish the step, save, leave with the resumable exit code."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType


class StopRequest:
    """A context in which the first signal sets `asked` and the second raises `KeyboardInterrupt`.

    The command line then ends with 130; what was saved before stays good.

    Handlers can only be set in the main thread; elsewhere `asked` stays empty.
    """

    def __init__(self) -> None:
        self.asked: str = ""
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.asked:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
