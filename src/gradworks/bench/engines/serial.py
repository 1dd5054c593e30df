"""One trial at a time, in this process: for debugging, and where processes cannot be had."""

from __future__ import annotations

from gradworks.bench.engines import Deliver
from gradworks.bench.task import Facts, Message, Task
from gradworks.bench.trial import TrialInterrupted
from gradworks.bench.worker import execute, facts

__all__ = ["Serial", "start"]


def start(jobs: int, threads: int, deliver: Deliver) -> Serial:
    """Return the engine; ``jobs`` and ``threads`` mean nothing to it."""
    del jobs, threads
    return Serial(deliver)


class Serial:
    """Runs a task inside :meth:`poll`.

    Args:
        deliver: Takes every message.
    """

    def __init__(self, deliver: Deliver) -> None:
        self.facts: Facts | None = facts()
        self._deliver = deliver
        self._task: Task | None = None
        self._stopping = False
        self._trouble: Exception | None = None

    def idle(self) -> int:
        """Return how many tasks could be submitted now."""
        return int(self._task is None and not self._stopping)

    def grow(self, workers: int) -> None:
        """There is one worker: this process."""

    def submit(self, task: Task) -> None:
        """Take the task that the next :meth:`poll` runs."""
        self._task = task

    def poll(self, seconds: float) -> None:
        """Run the task to its end; messages are delivered while it runs."""
        task, self._task = self._task, None
        if task is None:
            return
        ending = execute(task, self._send, lambda: self._stopping)
        if self._trouble is not None:
            raise self._trouble
        self._deliver(ending)

    def _send(self, message: Message) -> None:
        """Deliver, and keep what goes wrong there apart from errors of the trial."""
        try:
            self._deliver(message)
        except Exception as error:
            self._trouble = error
            raise TrialInterrupted from error

    def stop(self) -> None:
        """Ask the running trial to checkpoint and end."""
        self._stopping = True

    def close(self) -> None:
        """Nothing is left running."""
        self._task = None
