"""A Ray cluster: the one that ``RAY_ADDRESS`` names, else a local one for this run.

The store stays with the run: actors get tasks and are asked for their messages, so the machines
of a cluster need no shared file system, only gradworks and the workload's code.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks.bench.engines import Deliver
from gradworks.bench.task import Ending, Facts, Lost, Message, Task
from gradworks.bench.worker import execute, facts, threads_environment

__all__ = ["RayEngine", "start"]

DRAIN_SECONDS = 30.0  # an actor that does not answer this long is lost


def start(jobs: int, threads: int, deliver: Deliver) -> RayEngine:
    """Return the engine, connected."""
    return RayEngine(jobs, threads, deliver)


def _installed() -> Any:
    """Import ray; absent, the error is the pip line."""
    try:
        import ray
    except ImportError as error:
        raise ImportError('the ray engine needs: pip install "gradworks[ray]"') from error
    return ray


class _Trials:
    """The actor: runs one task at a time; answers while it does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: list[Message] = []
        self._stopping = False

    def facts(self) -> Facts:
        return facts()

    def run(self, task: Task) -> Ending:
        return execute(task, self._tell, lambda: self._stopping)

    def _tell(self, message: Message) -> None:
        with self._lock:
            self._messages.append(message)

    def drain(self) -> list[Message]:
        with self._lock:
            messages, self._messages = self._messages, []
        return messages

    def stop(self) -> None:
        self._stopping = True


@dataclass
class _Worker:
    """An actor and what it is asked."""

    actor: Any
    starting: Any  # the answer with its facts, None once it came
    task: Task | None = None
    ending: Any = None


class RayEngine:
    """Runs tasks in Ray actors.

    Args:
        jobs: Most actors.
        threads: Threads of torch in each; an actor asks Ray for that many CPUs.
        deliver: Takes every message.
    """

    def __init__(self, jobs: int, threads: int, deliver: Deliver) -> None:
        self._ray = _installed()
        self.facts: Facts | None = None
        self._jobs = jobs
        self._deliver = deliver
        self._workers: list[_Worker] = []
        self._stopping = False
        self._ours = not self._ray.is_initialized()
        variables = threads_environment(threads)
        if self._ours:
            options: dict[str, Any] = {}
            if not os.environ.get("RAY_ADDRESS"):
                options = {"num_cpus": jobs * threads, "include_dashboard": False}
                # On this machine the actors find what we find; a cluster has its own code.
                paths = dict.fromkeys(entry or str(Path.cwd()) for entry in sys.path)
                variables["PYTHONPATH"] = os.pathsep.join(paths)
            self._ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        self._actor = self._ray.remote(
            num_cpus=threads, max_concurrency=4, runtime_env={"env_vars": variables}
        )(_Trials)

    def idle(self) -> int:
        """Return how many tasks could be submitted now."""
        if self._stopping:
            return 0
        return sum(w.starting is None and w.task is None for w in self._workers)

    def grow(self, workers: int) -> None:
        """Have at least that many actors, up to the limit; Ray starts them when it has room."""
        while not self._stopping and len(self._workers) < min(workers, self._jobs):
            actor = self._actor.remote()
            self._workers.append(_Worker(actor, actor.facts.remote()))

    def submit(self, task: Task) -> None:
        """Send a task to an idle actor."""
        worker = next(w for w in self._workers if w.starting is None and w.task is None)
        worker.task = task
        worker.ending = worker.actor.run.remote(task)

    def poll(self, seconds: float) -> None:
        """Wait for news at most that long and deliver it.

        An actor that dies before it is up is a RuntimeError: the next one would, too.
        """
        waiting = [w.starting or w.ending for w in self._workers if w.starting or w.ending]
        if not waiting:
            time.sleep(seconds)
            return
        ready = set(self._ray.wait(waiting, num_returns=1, timeout=seconds)[0])
        for worker in list(self._workers):
            try:
                if worker.starting in ready:
                    self.facts, worker.starting = self._ray.get(worker.starting), None
                elif worker.task is not None:
                    self._collect(worker, over=worker.ending in ready)
            except (
                self._ray.exceptions.RayActorError,
                self._ray.exceptions.GetTimeoutError,
            ) as error:
                self._bury(worker, error)

    def _collect(self, worker: _Worker, *, over: bool) -> None:
        """Deliver what a running trial said; its ending comes last."""
        for message in self._ray.get(worker.actor.drain.remote(), timeout=DRAIN_SECONDS):
            self._deliver(message)
        if over:
            ending = self._ray.get(worker.ending)
            worker.task = worker.ending = None
            self._deliver(ending)

    def _bury(self, worker: _Worker, error: Exception) -> None:
        self._workers.remove(worker)
        with contextlib.suppress(Exception):
            self._ray.kill(worker.actor)
        words = f"its actor died ({' '.join(str(error).split())})"
        if worker.task is not None:
            self._deliver(Lost(worker.task.trial_id, words))
        elif not self._stopping:
            raise RuntimeError(f"a worker could not start: {words}")

    def stop(self) -> None:
        """Ask running trials to checkpoint and end."""
        if not self._stopping:
            self._stopping = True
            for worker in self._workers:
                worker.actor.stop.remote()

    def close(self) -> None:
        """End all actors; a cluster of ours ends, too."""
        while self._workers:
            with contextlib.suppress(Exception):
                self._ray.kill(self._workers.pop().actor)
        if self._ours:
            self._ray.shutdown()
