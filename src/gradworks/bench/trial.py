"""One training run, as its trial function sees it.

A workload names its trial function, ``"module:function"``; the function gets a :class:`Trial`
and does, in this order: build its model from ``trial.generator(...)``, call ``trial.resume()``,
train with one ``trial.tick(...)`` a step and a few ``trial.log(...)``, give ``trial.result(...)``.
Where a trial's figures go (a store, a pipe to the run's own process, memory) is a
:class:`Record`'s business.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from gradworks.bench.experiment import Arm, Workload
from gradworks.bench.streams import Streams

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["RESULT_STEP", "Diverged", "Record", "Row", "Trial", "TrialInterrupted"]

# One value of a curve: step, gradient evaluations, seconds, split, name, value (None: not finite).
Row = tuple[int, float | None, float | None, str, str, float | None]

RESULT_STEP = -1  # the step under which final figures are stored
MAX_CHECKPOINT_SECONDS = 60.0  # PROTOCOL 10: every min(60 s, 10 % of the budget)
CHECKPOINTS_A_BUDGET = 10
WORD_SECONDS = 0.2  # progress is told at most this often
FLUSH_SECONDS = 1.0  # at most this much of a curve is lost by a kill


class Diverged(ArithmeticError):
    """Training left the finite numbers or exploded: the trial ends, its metric is the worst."""


class TrialInterrupted(Exception):
    """The run is being stopped; the checkpoint is written. Trial functions let it pass."""


class Record(Protocol):
    """Where a trial's figures go."""

    def progress(self, step: int) -> None:
        """Tell that ``step`` is done."""

    def rows(self, rows: list[Row]) -> None:
        """Keep points of curves."""

    def checkpoint(self, step: int, data: bytes, rows: list[Row]) -> None:
        """Keep a state and the points before it, both or neither."""

    def stopping(self) -> bool:
        """Return whether the run is being stopped."""


class _Memory:
    """The record of an offline trial: the trial itself remembers enough."""

    def progress(self, step: int) -> None:
        """Nobody watches."""

    def rows(self, rows: list[Row]) -> None:
        """``Trial.curves`` holds them."""

    def checkpoint(self, step: int, data: bytes, rows: list[Row]) -> None:
        """An offline trial is not resumed."""

    def stopping(self) -> bool:
        """Nobody stops it."""
        return False


class _Clock:
    """Seconds of training: runs, pauses, and carries on from a checkpoint."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = time.perf_counter()

    @property
    def seconds(self) -> float:
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._before + running

    def set(self, seconds: float) -> None:
        self._before, self._since = seconds, time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        if self._since is None:  # already paused by an outer block
            yield
            return
        self._before, self._since = self.seconds, None
        try:
            yield
        finally:
            self._since = time.perf_counter()


class Trial:
    """One training run of one arm on one workload.

    Args:
        workload: Data, model and budget.
        arm: The method.
        kind: ``"tune"`` sees train and validation data only; ``"final"`` opens the test split.
        number: Position in the study, or index of the final seed.
        seed: Fixes initial weights, batches and noise, the same for every arm.
        params: Searched knobs, as chosen.
        record: Where figures and checkpoints go.
        saved: Bytes of the last good checkpoint, None at the start.

    Attributes:
        state_bytes: Bytes of optimizer state; the trial function may set it.
        checkpoint_seconds: Least seconds between two checkpoints; a trial function may set it.
        results: What :meth:`result` was given, by split.
        curves: What :meth:`log` was given in this process: ``{split: {metric: [(step, value)]}}``.
    """

    def __init__(
        self,
        workload: Workload,
        arm: Arm,
        *,
        kind: Literal["tune", "final"],
        number: int,
        seed: int,
        params: Mapping[str, float],
        record: Record,
        saved: bytes | None = None,
    ) -> None:
        self.workload = workload
        self.arm = arm
        self.kind: Literal["tune", "final"] = kind
        self.number = number
        self.seed = seed
        self.params: Mapping[str, float] = dict(params)
        self.state_bytes: int | None = None
        self.checkpoint_seconds = 1.0
        self.results: dict[str, dict[str, float]] = {}
        self.curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
        self.steps_done = 0
        self._record = record
        self._saved = saved
        self._streams = Streams(workload.name, seed)
        self._clock = _Clock()
        self._rows: list[Row] = []
        self._last_save = (0, time.monotonic())  # step and time of the last checkpoint
        self._last_word = self._last_flush = 0.0
        self._checked = False

    @classmethod
    def offline(
        cls,
        workload: Workload,
        arm: Arm,
        *,
        kind: Literal["tune", "final"] = "final",
        seed: int = 0,
        params: Mapping[str, float] | None = None,
    ) -> Trial:
        """Return a trial that keeps everything in memory: for tests and for ``verify``.

        Args:
            workload: Data, model and budget.
            arm: The method.
            kind: ``"tune"`` or ``"final"``.
            seed: Seed.
            params: Searched knobs; None takes the published defaults of the arm's space.

        Example:
            >>> from gradworks.bench import Arm, Trial, Workload
            >>> workload = Workload(name="toy", label="toy", trial="toy:run", steps=10)
            >>> trial = Trial.offline(workload, Arm(name="a", label="A", method="word"))
            >>> trial.result("test", error=0.25)
            >>> trial.results
            {'test': {'error': 0.25}}
        """
        chosen = {knob.name: knob.default for knob in arm.space} if params is None else params
        return cls(
            workload, arm, kind=kind, number=seed, seed=seed, params=chosen, record=_Memory()
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Fixed settings of the arm and the searched knobs, the latter winning."""
        return {**self.arm.fixed, **self.params}

    @property
    def spec(self) -> Mapping[str, Any]:
        """What the workload tells its trial function."""
        return self.workload.spec

    @property
    def steps(self) -> int:
        """Budget in steps."""
        return self.workload.steps

    # -- randomness ----------------------------------------------------------------------------

    def generator(self, stream: str, device: str = "cpu") -> torch.Generator:
        """Return the torch generator of a named stream; the same object every time.

        Args:
            stream: Its name: ``"init"``, ``"batches"``, ``"noise"``, …
            device: Where it draws.
        """
        return self._streams.generator(stream, str(device))

    def rng(self, stream: str) -> np.random.Generator:
        """Return the numpy generator of a named stream; the same object every time.

        Args:
            stream: Its name.
        """
        return self._streams.rng(stream)

    # -- state ---------------------------------------------------------------------------------

    def resume(self) -> dict[str, Any] | None:
        """Return the state of the last good checkpoint, or None at the start.

        Every random stream is back where it was, those asked for later too, and so is
        :attr:`elapsed`. The clock starts here: what was built before is not training.
        """
        import torch

        if self._saved is None:
            self._streams.seed_globals()
            self._clock.set(0.0)
            return None
        saved = torch.load(io.BytesIO(self._saved), weights_only=True, map_location="cpu")
        self._saved = None
        self._streams.restore(saved["streams"])
        self.steps_done = saved["step"]
        self.state_bytes = saved["state_bytes"]
        self._last_save = (saved["step"], time.monotonic())
        self._clock.set(saved["elapsed"])
        state: dict[str, Any] = saved["state"]
        return state

    def tick(self, step: int, state: Callable[[], dict[str, Any]]) -> None:
        """Tell that ``step`` steps are done; call it after every step.

        Args:
            step: Steps done so far.
            state: Gives all that is needed to go on from here (model, optimizer, position);
                called only when a checkpoint is due. Tensors, numbers, strings and containers of
                these only: it is loaded with ``weights_only=True``.

        Raises:
            TrialInterrupted: If the run is being stopped; the checkpoint is then written.
        """
        self.steps_done = step
        now = time.monotonic()
        if now - self._last_word >= WORD_SECONDS:
            self._last_word = now
            self._record.progress(step)
        if self._rows and now - self._last_flush >= FLUSH_SECONDS:
            self._flush(now)
        stopping = self._record.stopping()
        if stopping or self._due(step, now):
            with self._clock.paused():
                self._save(step, state())
        if stopping:
            raise TrialInterrupted(f"stopped after step {step}")

    def _due(self, step: int, now: float) -> bool:
        """Return whether a checkpoint is due: every min(60 s, a tenth of the budget)."""
        if isinstance(self._record, _Memory):
            return False
        last_step, last_time = self._last_save
        if now - last_time >= MAX_CHECKPOINT_SECONDS:
            return True
        if not self.steps or step >= self.steps or now - last_time < self.checkpoint_seconds:
            return False
        return (step - last_step) * CHECKPOINTS_A_BUDGET >= self.steps

    def _save(self, step: int, state: dict[str, Any]) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save(
            {
                "step": step,
                "state": state,
                "streams": self._streams.state(),
                "elapsed": self.elapsed,
                "state_bytes": self.state_bytes,
            },
            buffer,
        )
        if not self._checked:  # once a trial: better now than when it is needed
            self._checked = True
            self._check_loads(buffer)
        rows, self._rows = self._rows, []
        self._record.checkpoint(step, buffer.getvalue(), rows)
        self._last_save = (step, time.monotonic())

    def _check_loads(self, buffer: io.BytesIO) -> None:
        """Refuse a state that could be written but not read back.

        Raises:
            TypeError: If it holds objects that ``weights_only=True`` rejects.
        """
        import pickle

        import torch

        try:
            torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        except pickle.UnpicklingError as error:
            raise TypeError(
                f"the state given to tick() by {self.workload.trial} must hold only tensors, "
                f"numbers, strings and containers of these, so that it loads with "
                f"weights_only=True: {str(error).splitlines()[0]}"
            ) from error

    # -- figures -------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, carried over a resume, without :meth:`untimed` blocks."""
        return self._clock.seconds

    @contextlib.contextmanager
    def untimed(self) -> Iterator[None]:
        """Leave what happens inside (evaluation) out of :attr:`elapsed`."""
        with self._clock.paused():
            yield

    def log(
        self,
        step: int,
        *,
        split: str,
        evals: float | None = None,
        seconds: float | None = None,
        **metrics: float,
    ) -> None:
        """Add a point to curves. A tuning trial that looks at the test split gets a RuntimeError.

        Args:
            step: Steps done so far, at least 0.
            split: ``"train"``, ``"valid"`` or ``"test"``.
            evals: Gradient evaluations so far; None where a step is one evaluation.
            seconds: Seconds of training so far; None takes :attr:`elapsed`.
            **metrics: Names and values.

        Raises:
            ValueError: If ``step`` is negative.
        """
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}")
        self._guard(split)
        at = self.elapsed if seconds is None else seconds
        for name, value in metrics.items():
            self._rows.append((step, evals, at, split, name, _finite(value)))
            self.curves.setdefault(split, {}).setdefault(name, []).append((step, float(value)))

    def result(self, split: str, **metrics: float) -> None:
        """Give the final figures of a split; calls for the same split add up.

        A tuning trial that looks at the test split gets a RuntimeError.

        Args:
            split: ``"valid"`` (tuning selects on it), ``"test"`` or ``"train"``.
            **metrics: Names and values.

        Raises:
            ValueError: If no metric is given.
        """
        self._guard(split)
        if not metrics:
            raise ValueError(f"result({split!r}) needs at least one metric")
        kept = {name: float(value) for name, value in metrics.items()}
        self.results.setdefault(split, {}).update(kept)

    def _guard(self, split: str) -> None:
        if split not in ("train", "valid", "test"):
            raise ValueError(f"split must be 'train', 'valid' or 'test', got {split!r}")
        if split == "test" and self.kind == "tune":
            raise RuntimeError(
                "a tuning trial must not look at the test split: it is opened once, by final runs"
            )

    def _flush(self, now: float) -> None:
        rows, self._rows = self._rows, []
        self._last_flush = now
        self._record.rows(rows)

    def closing_rows(self) -> list[Row]:
        """Return what is not written yet, final figures included (for the engines)."""
        rows, self._rows = self._rows, []
        for split, metrics in self.results.items():
            for name, value in metrics.items():
                rows.append((RESULT_STEP, None, self.elapsed, split, name, _finite(value)))
        return rows


def _finite(value: float) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
