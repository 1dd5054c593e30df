"""Ctrl-C and SIGTERM: the first asks to stop at the next step, the second does not wait."""

from __future__ import annotations

import signal
import threading
from typing import Any, Self

__all__ = ["Interruption"]


class Interruption:
    """Whether the user, or whoever ends this process, asked to stop.

    Handlers are set inside the ``with`` block only, and only in the main thread, where Python
    delivers signals.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def _handle(self, signum: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
