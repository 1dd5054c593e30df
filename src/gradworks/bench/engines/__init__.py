"""Where trials run: in this process, in local processes, or on a Ray cluster.

An engine knows nothing of stores: it gets tasks and delivers messages. The run claims a trial for
every idle worker and writes down what comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from gradworks.bench.task import Facts, Message, Task

__all__ = ["ENGINES", "Deliver", "Engine", "create"]

ENGINES = ("processes", "serial", "ray")

Deliver = Callable[[Message], None]


class Engine(Protocol):
    """Runs tasks on a number of workers."""

    facts: Facts | None  # None until the first worker is up

    def idle(self) -> int:
        """Return how many tasks could be submitted now."""

    def grow(self, workers: int) -> None:
        """Have at least that many workers, up to the limit given at the start."""

    def submit(self, task: Task) -> None:
        """Give a task to an idle worker."""

    def poll(self, seconds: float) -> None:
        """Wait for news at most that long and deliver it, in order for each trial."""

    def stop(self) -> None:
        """Ask running trials to checkpoint and end."""

    def close(self) -> None:
        """End all workers at once."""


def create(name: str, jobs: int, threads: int, deliver: Deliver) -> Engine:
    """Return an engine.

    Args:
        name: ``"processes"``, ``"serial"`` or ``"ray"``.
        jobs: Most trials at a time.
        threads: Threads of torch in a worker.
        deliver: Takes every message; what it raises ends :meth:`Engine.poll`.

    Raises:
        ValueError: If there is no such engine.
    """
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}, got {name!r}")
    engine: Engine = import_module(f"{__name__}.{name}").start(jobs, threads, deliver)
    return engine
