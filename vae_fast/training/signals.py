"""Ctrl-C and SIGTERM as a wish that training notices between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, remembers the first SIGINT or SIGTERM in ``received``.

    An exception raised by the signal itself could fall in the middle of an optimiser step, where
    half of the weights are new: no state to go on from. A second SIGINT raises KeyboardInterrupt
    all the same, for whoever will not wait.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        self.install()
        return self

    def install(self) -> None:
        """Take the signals, also from a handler that was put there since."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows handlers in the main thread only
        for number in SIGNALS:
            previous = signal.signal(number, self._handle)
            self._before.setdefault(number, previous)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
