"""Local processes: each imports torch once, runs many trials and dies with the run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import IO

from gradworks.bench.engines import Deliver
from gradworks.bench.task import Ending, Facts, Lost, Message, Task
from gradworks.bench.worker import STOP, threads_environment

__all__ = ["Processes", "start"]

# -P: the folder a user stands in must not shadow modules; sys.path comes from PYTHONPATH below.
COMMAND = ("-P", "-c", "from gradworks.bench.worker import main; main()")
LAST_WORDS = 2000  # characters of a dead worker's output that its error quotes


def start(jobs: int, threads: int, deliver: Deliver) -> Processes:
    """Return the engine."""
    return Processes(jobs, threads, deliver)


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, threads: int) -> None:
        self.connection, theirs = Pipe()
        self.output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.ready = False
        self.task: Task | None = None
        path = os.pathsep.join(dict.fromkeys(entry or str(Path.cwd()) for entry in sys.path))
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, *COMMAND, str(theirs.fileno()), str(os.getpid())],
                env={**os.environ, **threads_environment(threads), "PYTHONPATH": path},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=self.output,
                process_group=0,  # Ctrl-C goes to the run alone, which tells its workers
            )

    def last_words(self) -> str:
        """Return how the process ended and what it printed last."""
        code = self.process.wait()
        how = f"exit code {code}"
        if code < 0:
            how = signal.Signals(-code).name
            if how == "SIGKILL":
                how += ", perhaps for want of memory"
        self.output.seek(0, os.SEEK_END)
        self.output.seek(max(0, self.output.tell() - LAST_WORDS))
        printed = self.output.read().decode(errors="replace").strip()
        return f"its process died ({how})" + (f"\n\n{printed}" if printed else "")

    def end(self) -> None:
        """Kill the process, if it lives."""
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.output.close()


class Processes:
    """Runs tasks in local processes.

    Args:
        jobs: Most processes.
        threads: Threads of torch in each.
        deliver: Takes every message.
    """

    def __init__(self, jobs: int, threads: int, deliver: Deliver) -> None:
        self.facts: Facts | None = None
        self._jobs = jobs
        self._threads = threads
        self._deliver = deliver
        self._workers: list[_Worker] = []
        self._stopping = False

    def idle(self) -> int:
        """Return how many tasks could be submitted now."""
        return 0 if self._stopping else sum(w.ready and w.task is None for w in self._workers)

    def grow(self, workers: int) -> None:
        """Have at least that many processes, up to the limit."""
        while not self._stopping and len(self._workers) < min(workers, self._jobs):
            self._workers.append(_Worker(self._threads))

    def submit(self, task: Task) -> None:
        """Send a task to an idle process."""
        worker = next(w for w in self._workers if w.ready and w.task is None)
        worker.task = task
        with contextlib.suppress(OSError):  # a process that died is noticed by poll()
            worker.connection.send(task)

    def poll(self, seconds: float) -> None:
        """Wait for messages at most that long and deliver them.

        A process that dies before it is up is a RuntimeError: the next one would, too.
        """
        if not self._workers:
            time.sleep(seconds)
            return
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), seconds):
            if isinstance(connection, Connection):
                self._receive(by_connection[connection])

    def _receive(self, worker: _Worker) -> None:
        """Deliver what a process sent; bury it if it died."""
        try:
            while worker.connection.poll(0):
                message: Message | Facts = worker.connection.recv()
                if isinstance(message, Facts):
                    worker.ready, self.facts = True, message
                    continue
                if isinstance(message, Ending):
                    worker.task = None
                self._deliver(message)
        except (EOFError, ConnectionError):
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        words = worker.last_words()
        worker.end()
        if worker.task is not None:
            self._deliver(Lost(worker.task.trial_id, words))
        elif not worker.ready and not self._stopping:
            raise RuntimeError(f"a worker could not start: {words}")

    def stop(self) -> None:
        """Ask running trials to checkpoint and end."""
        if not self._stopping:
            self._stopping = True
            for worker in self._workers:
                with contextlib.suppress(OSError):
                    worker.connection.send(STOP)

    def close(self) -> None:
        """Kill all processes."""
        while self._workers:
            self._workers.pop().end()
