"""The process that runs trials: one torch import, many trials, one pipe to the run.

:func:`execute` runs one trial wherever it is called; :func:`main` is the loop of a worker of
``engines.processes``, which begins it as ``python -c "from gradworks.bench.worker import main"``:
no code of the user's script is run again, unlike with :mod:`multiprocessing`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from gradworks.bench.identity import die_with_parent
from gradworks.bench.task import Ending, Facts, Message, Progress, Rows, Saved, Task
from gradworks.bench.trial import Diverged, Trial, TrialInterrupted

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from gradworks.bench.trial import Row

__all__ = ["STOP", "execute", "facts", "main", "threads_environment"]

STOP = "stop"  # what a run sends to a worker that shall checkpoint and wait
POLL_SECONDS = 0.05  # a running trial looks for it this often
ERROR_CHARACTERS = 4000


class Outlet:
    """A trial's :class:`~gradworks.bench.trial.Record` that sends messages.

    Args:
        trial_id: Row of the trial.
        send: Takes a message to the run.
        stopping: Says whether the run is being stopped.
    """

    def __init__(
        self, trial_id: int, send: Callable[[Message], None], stopping: Callable[[], bool]
    ) -> None:
        self._trial_id = trial_id
        self._send = send
        self._stopping = stopping

    def progress(self, step: int) -> None:
        """Tell that ``step`` is done."""
        self._send(Progress(self._trial_id, step))

    def rows(self, rows: list[Row]) -> None:
        """Keep points of curves."""
        self._send(Rows(self._trial_id, rows))

    def checkpoint(self, step: int, data: bytes, rows: list[Row]) -> None:
        """Keep a state and the points before it."""
        self._send(Saved(self._trial_id, step, data, rows))

    def stopping(self) -> bool:
        """Return whether the run is being stopped."""
        return self._stopping()


def resolve(target: str) -> Callable[[Trial], None]:
    """Return the trial function that ``target`` names.

    Args:
        target: ``"module:function"`` or ``"path.py:function"``.

    Raises:
        ValueError: If it is neither.
        ImportError: If the module has no such function.
    """
    module_name, colon, name = target.rpartition(":")
    if not colon or not module_name or not name.isidentifier():
        raise ValueError(f"trial must be 'module:function', got {target!r}")
    if module_name.endswith(".py"):
        from gradworks.bench import workloads

        found = workloads.resolve(target)
    else:
        found = getattr(importlib.import_module(module_name), name, None)
        if found is None:
            raise ImportError(f"module {module_name!r} has no trial function {name!r}")
    function: Callable[[Trial], None] = found
    return function


@contextlib.contextmanager
def _torch_settings(task: Task) -> Iterator[None]:
    """Set threads and determinism for one trial; leave torch as it was."""
    import torch

    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(task.threads)
    torch.use_deterministic_algorithms(True, warn_only=not task.strict)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


def execute(task: Task, send: Callable[[Message], None], stopping: Callable[[], bool]) -> Ending:
    """Run one trial and return how it ended; whatever the trial raises ends up there.

    Args:
        task: What to run.
        send: Takes messages while it runs.
        stopping: Says whether the run is being stopped.
    """
    trial = Trial(
        task.workload,
        task.arm,
        kind=task.kind,
        number=task.number,
        seed=task.seed,
        params=task.params,
        record=Outlet(task.trial_id, send, stopping),
        saved=task.saved,
    )
    status: str = "done"
    error: str | None = None
    try:
        with _torch_settings(task):
            resolve(task.workload.trial)(trial)
        _check_result(trial)
    except Diverged as reason:
        status, error = "diverged", str(reason) or None
    except TrialInterrupted:
        status = "killed"
    except Exception as reason:
        status, error = "error", _describe(reason)
    return Ending(
        trial_id=task.trial_id,
        status=status,  # type: ignore[arg-type]
        rows=trial.closing_rows() if status in ("done", "diverged") else (),
        steps_done=trial.steps_done,
        seconds=trial.elapsed,
        peak_rss=_peak_rss(),
        state_bytes=trial.state_bytes,
        error=error,
    )


def _check_result(trial: Trial) -> None:
    """Refuse a trial without figures.

    Raises:
        RuntimeError: If it gave no result, or not the one that tuning selects on.
    """
    who = f"trial function {trial.workload.trial}"
    if not trial.results:
        raise RuntimeError(f"{who} returned without calling trial.result(...)")
    wanted = trial.workload.select_on
    given = sorted(trial.results.get("valid", {}))
    if trial.kind == "tune" and wanted not in given:
        raise RuntimeError(
            f"{who} must give {wanted!r} with trial.result('valid', ...), because workload "
            f"{trial.workload.name!r} selects on it; it gave {given}"
        )


def _describe(error: Exception) -> str:
    """Return the error as one line, then its traceback."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    trace = "".join(traceback.format_exception(error))
    return f"{line}\n\n{trace[-ERROR_CHARACTERS:]}"


def _peak_rss() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def facts() -> Facts:
    """Return what only a process with torch knows about the machine."""
    import torch

    gpu = driver = None
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name(0)
        driver = f"CUDA {torch.version.cuda}"
    # Which vector instructions torch picked: sums come out differently in the last bits.
    capability = torch.backends.cpu.get_cpu_capability()
    return Facts(
        {
            "torch": str(torch.__version__),
            "gpu": gpu,
            "driver": driver,
            "cpu_capability": capability,
        }
    )


def threads_environment(threads: int) -> dict[str, str]:
    """Return the variables that must be set before torch loads, so that workers don't fight.

    Args:
        threads: Threads of one worker.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: str(threads) for name in names} | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


class _Stopper:
    """Whether to stop: the run said so, or this process was sent SIGTERM."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._next = 0.0
        self.stopped = False

    def on_signal(self, signum: int, frame: Any) -> None:
        self.stopped = True

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self.stopped and now >= self._next:
            self._next = now + POLL_SECONDS
            # While a trial runs, the run sends nothing but the word to stop.
            self.stopped = self._connection.poll(0)
        return self.stopped


def _watch_parent(parent: int) -> None:
    """End this process when its parent is gone, where the kernel does not do it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(128 + signal.SIGTERM)


def main() -> None:
    """Run trials that come through the pipe named on the command line, until it closes."""
    from multiprocessing.connection import Connection

    parent = int(sys.argv[2])
    # A run that is killed must not leave workers that go on in its name.
    die_with_parent(parent, signal.SIGKILL)
    if sys.platform != "linux":
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the run, which tells us
    with Connection(int(sys.argv[1])) as connection, contextlib.suppress(EOFError, OSError):
        stopper = _Stopper(connection)
        signal.signal(signal.SIGTERM, stopper.on_signal)
        connection.send(facts())
        while not stopper.stopped:
            if not connection.poll(1.0):
                continue
            task = connection.recv()
            if task == STOP:
                return
            connection.send(execute(task, connection.send, stopper))
