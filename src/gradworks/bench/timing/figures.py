"""A measured ratio: what may be said of it, as a line and as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["ENOUGH", "ENOUGH_LONG", "FOLDER", "LONG_BLOCK", "Timing", "duration", "write"]

FOLDER = "GRADWORKS_BENCH_OUT"  # names the folder for JSON
LONG_BLOCK = 2.0  # seconds
ENOUGH, ENOUGH_LONG = 30, 10  # blocks behind a quoted ratio, and where each lasts that long


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A measured ratio of times, with its control.

    Attributes:
        name: What was measured.
        peer_name: What it was measured against.
        peer_version: Version of the peer's package, where that matters.
        ratio: Time of ours over time of the peer, median over blocks: below 1 is faster.
        lo: Lower end of the 95 % bootstrap interval over blocks.
        hi: Upper end.
        control_ratio: The same for the peer against itself; None without a control.
        control_lo: Lower end of the control's interval.
        control_hi: Upper end.
        ours_min: Seconds a call of ours, fastest measurement.
        ours_median: Seconds a call of ours, median.
        ours_iqr: Distance of the quartiles of ours, in seconds a call.
        peer_min: Seconds a call of the peer, fastest measurement.
        peer_median: Seconds a call of the peer, median.
        peer_iqr: Distance of the quartiles of the peer, in seconds a call.
        blocks: Blocks that count.
        warm_up: Blocks that were dropped before.
        inner: Calls a measurement.
        threads: ``torch.get_num_threads()`` while measuring.
        ratios: Ratio of each block, in order.
        control_ratios: Ratio of each control block.
    """

    name: str
    peer_name: str
    peer_version: str | None
    ratio: float
    lo: float
    hi: float
    control_ratio: float | None
    control_lo: float | None
    control_hi: float | None
    ours_min: float
    ours_median: float
    ours_iqr: float
    peer_min: float
    peer_median: float
    peer_iqr: float
    blocks: int
    warm_up: int
    inner: int
    threads: int
    ratios: tuple[float, ...]
    control_ratios: tuple[float, ...]

    @property
    def control_holds(self) -> bool:
        """Whether the peer against itself covers 1."""
        lo, hi = self.control_lo, self.control_hi
        return lo is not None and hi is not None and lo <= 1.0 <= hi

    @property
    def doubt(self) -> str:
        """Why the ratio may not be quoted; empty where it may."""
        seconds = 2 * (self.ours_median + self.peer_median) * self.inner
        enough = ENOUGH_LONG if seconds > LONG_BLOCK else ENOUGH
        if self.control_ratio is None:
            return "no control"
        if not self.control_holds:
            return "the control excludes 1"
        if self.lo <= 1.0 <= self.hi:
            return "the interval covers 1"
        return f"fewer than {enough} blocks" if self.blocks < enough else ""

    @property
    def quotable(self) -> bool:
        """Whether the ratio excludes 1, its control covers 1, and there are enough blocks."""
        return not self.doubt

    def line(self) -> str:
        """Return the measurement in one readable line."""
        peer = self.peer_name + (f" {self.peer_version}" if self.peer_version else "")
        said = f"{self.name} / {peer}: {self.ratio:.3f} [{self.lo:.3f}, {self.hi:.3f}]"
        if self.control_ratio is None:
            control = "no control"
        else:
            control = (
                f"control {self.control_ratio:.3f} [{self.control_lo:.3f}, {self.control_hi:.3f}]"
            )
        sides = (
            f"min {duration(self.ours_min)} (IQR {duration(self.ours_iqr)}) against "
            f"{duration(self.peer_min)} (IQR {duration(self.peer_iqr)})"
        )
        threads = f"{self.threads} thread" + ("" if self.threads == 1 else "s")
        verdict = f"not quotable: {self.doubt}" if self.doubt else "quotable"
        return f"{said}; {control}; {sides}; {self.blocks} blocks, {threads}; {verdict}"

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as JSON-ready data, with the machine it holds for."""
        return {
            **asdict(self),
            "quotable": self.quotable,
            "doubt": self.doubt,
            "machine": _machine(),
        }


def duration(value: float) -> str:
    """Return seconds in the unit that reads best.

    Args:
        value: Seconds.
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def _machine() -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    cpu = platform.processor() or platform.machine()
    try:
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                cpu = text.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
    }


def write(found: Timing, folder: Path) -> None:
    """Write one file a measurement, so that a series of runs is a history.

    Args:
        found: The measurement.
        folder: Created where missing.
    """
    at = datetime.now(UTC)
    slug = re.sub(r"[^a-z0-9]+", "-", f"{found.name} vs {found.peer_name}".lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slug[:120]}-t{found.threads}-{at:%Y%m%dT%H%M%S%f}.json"
    document = {**found.to_dict(), "measured": at.isoformat(timespec="seconds")}
    text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    part = path.with_suffix(".tmp")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
