"""The measurement itself: interleaved blocks, warm-up, control, median of the block ratios."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from timeit import default_timer

import numpy as np
from numpy.typing import NDArray

from gradworks.bench.timing.figures import FOLDER, LONG_BLOCK, Timing, write

__all__ = ["Clock", "Run", "compare"]

Run = Callable[[], object]
Clock = Callable[[], float]
Vector = NDArray[np.float64]

WARM_UP = 5  # blocks that are timed and dropped; one where a block is long: nothing is cold then
MEASUREMENT = 0.005  # seconds a measurement should last at least, else the clock is measured
MOST_CALLS = 100_000
RESAMPLES = 9999
LEVEL = 0.95


def compare(
    ours: Run,
    peer: Run,
    *,
    name: str,
    peer_name: str,
    peer_version: str | None = None,
    blocks: int = 30,
    inner: int | None = None,
    threads: int | None = None,
    control: bool = True,
    setup: Run | None = None,
    warm_up: int | None = None,
    clock: Clock | None = None,
) -> Timing:
    """Time ``ours`` against ``peer``, interleaved, with a control.

    The garbage collector is off while measuring. The default clock is that of
    ``torch.utils.benchmark``: it waits for the accelerator, where there is one, before it reads
    the time. When the environment names a folder in ``GRADWORKS_BENCH_OUT``, the result is
    written there as JSON.

    Args:
        ours: Called without arguments; what it returns is dropped.
        peer: The same for the other side, with buffers of its own.
        name: What is measured, for the line and the file.
        peer_name: What it is measured against.
        peer_version: Version of the peer's package.
        blocks: Blocks that count: 30 or more for a ratio that is to be quoted, 10 where a block
            lasts longer than two seconds.
        inner: Calls a measurement; None chooses so many that the faster side takes 5 ms.
        threads: Threads of torch while measuring, set back afterwards; None leaves them.
        control: Whether the peer is also measured against itself. Without it nothing is quotable.
        setup: Called before each measurement, outside the time.
        warm_up: Blocks to drop; None drops 5, or 1 where a block lasts longer than two seconds.
            Each side is called once before the first block, which is where compilation happens.
        clock: Seconds from any zero; None takes torch's.

    Returns:
        The ratio with its interval, its control and both sides' times.

    Raises:
        ValueError: If a number is below what it must be.
        RuntimeError: If a measurement takes no time that the clock can see.

    Example:
        >>> import torch
        >>> x = torch.zeros(100)
        >>> found = compare(x.sin, x.cos, name="sin", peer_name="cos", blocks=2, inner=1)
        >>> found.blocks, len(found.ratios), found.ratio > 0
        (2, 2, True)
    """
    for what, value, least in (
        ("blocks", blocks, 1),
        ("inner", 1 if inner is None else inner, 1),
        ("threads", 1 if threads is None else threads, 1),
        ("warm_up", 0 if warm_up is None else warm_up, 0),
    ):
        if value < least:
            raise ValueError(f"{what} must be at least {least}, got {value}")
    now = _torch_clock() if clock is None else clock

    def measured(run: Run, calls: int) -> float:
        if setup is not None:
            setup()
        start = now()
        for _ in range(calls):
            run()
        return (now() - start) / calls

    with _threads(threads) as used, _no_collection():
        for run in (ours, peer):  # compiles, fills caches
            measured(run, 1)
        once = [measured(ours, 1), measured(peer, 1)]
        if inner is None:
            inner = _calls(lambda calls: min(measured(ours, calls), measured(peer, calls)))
        if warm_up is None:
            block = 2 * sum(once) * inner + (4 * once[1] * inner if control else 0.0)
            warm_up = 1 if block > LONG_BLOCK else WARM_UP
        times, controls = [], []
        for _ in range(warm_up + blocks):
            a1, b1 = measured(ours, inner), measured(peer, inner)
            b2, a2 = measured(peer, inner), measured(ours, inner)
            times.append((a1, b1, b2, a2))
            if control:
                controls.append(tuple(measured(peer, inner) for _ in range(4)))
    kept = np.array(times[warm_up:])
    if kept.min() <= 0 or (control and np.min(controls) <= 0):
        raise RuntimeError(
            f"the clock did not move during {inner} calls of {name!r} or {peer_name!r}: "
            "measure more calls at once (inner=...)"
        )
    ratios = _ratios(kept)
    control_ratios = _ratios(np.array(controls[warm_up:])) if control else np.empty(0)
    ratio, lo, hi = _median_interval(ratios)
    known = _median_interval(control_ratios) if control else (None, None, None)
    found = Timing(
        name=name,
        peer_name=peer_name,
        peer_version=peer_version,
        ratio=ratio,
        lo=lo,
        hi=hi,
        control_ratio=known[0],
        control_lo=known[1],
        control_hi=known[2],
        **_side("ours", kept[:, [0, 3]]),
        **_side("peer", kept[:, [1, 2]]),
        blocks=blocks,
        warm_up=warm_up,
        inner=inner,
        threads=used,
        ratios=tuple(float(r) for r in ratios),
        control_ratios=tuple(float(r) for r in control_ratios),
    )
    folder = os.environ.get(FOLDER)
    if folder:
        write(found, Path(folder))
    return found


def _torch_clock() -> Clock:
    """The clock of torch.utils.benchmark, whose import would load the compiler's front end."""
    import torch

    def clock() -> float:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        return default_timer()

    return clock


@contextmanager
def _threads(threads: int | None) -> Iterator[int]:
    import torch

    before = torch.get_num_threads()
    if threads is not None and threads != before:
        torch.set_num_threads(threads)
    try:
        yield torch.get_num_threads()
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def _no_collection() -> Iterator[None]:
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _calls(seconds: Callable[[int], float]) -> int:
    """Return so many calls that the faster side takes ``MEASUREMENT`` seconds."""
    calls = 1
    while calls < MOST_CALLS:
        taken = calls * seconds(calls)
        if taken >= MEASUREMENT:
            break
        # A clock that has not moved yet says nothing: double.
        calls = min(MOST_CALLS, max(2 * calls, math.ceil(calls * MEASUREMENT / max(taken, 1e-9))))
        if taken > MEASUREMENT / 10:
            break
    return calls


def _ratios(times: Vector) -> Vector:
    """Return outer over inner pair of each block ``A B B A``."""
    found: Vector = (times[:, 0] + times[:, 3]) / (times[:, 1] + times[:, 2])
    return found


def _median_interval(ratios: Vector) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    draws = np.median(ratios[rng.integers(len(ratios), size=(RESAMPLES, len(ratios)))], axis=1)
    lo, hi = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(np.median(ratios)), float(lo), float(hi)


def _side(name: str, times: Vector) -> dict[str, float]:
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
    return {
        f"{name}_min": float(times.min()),
        f"{name}_median": float(middle),
        f"{name}_iqr": float(high - low),
    }
