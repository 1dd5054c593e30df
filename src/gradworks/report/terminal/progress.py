"""Progress of a run: bars with time left on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from gradworks.report.wording import duration, number

if TYPE_CHECKING:
    from gradworks.bench.events import Event, Listener

__all__ = ["ProgressView"]

# Away from a terminal: a line a stage at its start and end, at each fifth but not more often than
# LEAST_SECONDS, and at least every MOST_SECONDS.
LEAST_SECONDS, MOST_SECONDS = 2.0, 30.0
_FIFTHS = 5


class ProgressView:
    """A context manager that yields the listener of a run's events.

    On a terminal every stage is a bar with the time left. Elsewhere (a pipe, a log, a dumb
    terminal) stages print plain lines, a handful each, so that a log stays readable.

    Args:
        title: What runs.
        console: Where; default standard error.
        quiet: Print nothing at all.
        clock: Source of seconds, for tests.

    Example:
        >>> from types import SimpleNamespace as Event
        >>> with ProgressView("AdamP", quiet=True) as listen:
        ...     listen(Event(stage="tune", done=1, total=8, text=""))
    """

    def __init__(
        self,
        title: str,
        *,
        console: Console | None = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False) if console is None else console
        self._clock = clock
        self._view: _Bars | _Lines | None = None

    def __enter__(self) -> Listener:
        """Start, and return the listener."""
        if self.quiet:
            return _ignore
        fancy = self.console.is_terminal and not self.console.is_dumb_terminal
        self._view = (_Bars if fancy else _Lines)(self.title, self.console, self._clock)
        return self._view.event

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal as a reader wants to find it."""
        if self._view is not None:
            self._view.close(finished=kind is None)
            self._view = None


def _ignore(event: Event) -> None:
    """The listener of a quiet run."""


def _share(event: Event) -> float:
    """The part that is done, in [0, 1]; 0 where the total is unknown."""
    return min(1.0, max(0.0, event.done / event.total)) if event.total > 0 else 0.0


class _TimeLeft(ProgressColumn):
    """Time left while a stage runs, time taken afterwards."""

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(f"took {duration(task.finished_time or 0.0)}", style="dim")
        if task.time_remaining is None:
            return Text(f"{duration(task.elapsed or 0.0)} so far", style="dim")
        return Text(f"{duration(task.time_remaining)} left")


class _Done(ProgressColumn):
    """``12 of 48``, or the count alone where the total is unknown."""

    def render(self, task: Task) -> Text:
        done = number(int(task.completed))
        return Text(done if task.total is None else f"{done} of {number(int(task.total))}")


class _Bars:
    """One bar a stage."""

    def __init__(self, title: str, console: Console, clock: Callable[[], float]) -> None:
        console.print(Text(title, style="bold"))
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            _Done(),
            _TimeLeft(),
            console=console,
            get_time=clock,
            # Trials report rarely: estimate from the last half hour, not from 30 seconds.
            speed_estimate_period=1800.0,
        )
        self._progress.start()

    def event(self, event: Event) -> None:
        total = event.total if event.total > 0 else None
        if event.stage not in self._tasks:
            self._finish()
            self._tasks[event.stage] = self._progress.add_task(event.stage, total=total)
        self._progress.update(self._tasks[event.stage], completed=event.done, total=total)
        if event.text:
            self._progress.console.print(Text(f"  {event.text}", style="dim"), soft_wrap=True)

    def close(self, *, finished: bool) -> None:
        if finished:
            self._finish()
        self._progress.stop()

    def _finish(self) -> None:
        """Fill the bars of earlier stages: a listener may have missed their last events."""
        for task in self._progress.tasks:
            total = task.completed if task.total is None else task.total
            self._progress.update(task.id, total=total, completed=total)


class _Lines:
    """A handful of lines a stage."""

    def __init__(self, title: str, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._seen: dict[str, tuple[float, float, int]] = {}  # began, last line, fifths printed
        self._last: dict[str, Event] = {}
        self._say(title)

    def event(self, event: Event) -> None:
        if event.text:
            self._say(f"  {event.stage}: {event.text}")
        now = self._clock()
        share = _share(event)
        fifth = int(share * _FIFTHS + 1e-9)
        if event.stage not in self._seen:
            self._finish(now)
            self._seen[event.stage] = (now, now, fifth)
            self._last[event.stage] = event
            self._say(f"  {event.stage}: {self._count(event)}")
            return
        self._last[event.stage] = event
        began, last, printed = self._seen[event.stage]
        if printed >= _FIFTHS:
            return
        due = now - last >= (LEAST_SECONDS if fifth > printed else MOST_SECONDS)
        if share < 1 and not due:
            return
        self._seen[event.stage] = (began, now, max(fifth, printed))
        spent = now - began
        if share >= 1:
            self._say(f"  {event.stage}: {self._count(event)} done in {duration(spent)}")
        else:
            left = f", {duration(spent / share - spent)} left" if share > 0 else ""
            self._say(f"  {event.stage}: {self._count(event)}{left}")

    def close(self, *, finished: bool) -> None:
        if finished:
            self._finish(self._clock())

    def _finish(self, now: float) -> None:
        """Say the end of earlier stages: a listener may have missed their last events."""
        for stage, (began, last, printed) in self._seen.items():
            total = self._last[stage].total
            if printed < _FIFTHS and total > 0:
                self._seen[stage] = (began, last, _FIFTHS)
                count = number(int(total))
                self._say(f"  {stage}: {count} of {count} done in {duration(now - began)}")

    def _count(self, event: Event) -> str:
        done = number(int(event.done))
        return f"{done} of {number(int(event.total))}" if event.total > 0 else done

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)
