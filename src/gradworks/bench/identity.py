"""Who holds a lease: names a process so that others can tell whether it still lives.

A process id alone is not enough: ids are used again, a machine reboots, containers on one kernel
share a boot id. A worker is therefore named by its id, the tick at which it started, and a random
word; the boot id carries the process namespace where Linux has one.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["HEARTBEAT_SECONDS", "LEASE_SECONDS", "Identity", "die_with_parent", "is_gone"]

HEARTBEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0  # a heartbeat older than this is given up, whoever holds it

_PR_SET_PDEATHSIG = 1


@functools.cache
def _boot_id() -> str:
    """Return what tells this boot (and process namespace) from others, or ''."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return the tick at which ``pid`` started, or None if it is dead (Linux only)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _here(pid: int) -> str:
    """Return a name for process ``pid`` that no other process will ever have."""
    return f"{pid}-{_started(pid) or ''}-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True)
class Identity:
    """One run or worker, as its leases name it."""

    pid: int = field(default_factory=os.getpid)
    worker: str = ""
    host: str = field(default_factory=socket.gethostname)
    boot_id: str = field(default_factory=_boot_id)

    def __post_init__(self) -> None:
        if not self.worker:
            object.__setattr__(self, "worker", _here(self.pid))


def is_gone(worker: str, pid: int, host: str, boot_id: str, age: float) -> bool:
    """Return whether a lease may be taken over.

    Args:
        worker: The holder's name.
        pid: Its process id.
        host: Its host.
        boot_id: Its boot.
        age: Seconds since its last heartbeat.
    """
    if age > LEASE_SECONDS:
        return True
    if host != socket.gethostname() or not boot_id or boot_id != _boot_id():
        return False
    started = _started(pid)
    if started is None:
        return True
    then = worker.split("-")[1] if worker.count("-") >= 2 else ""
    return bool(then and started and then != started)


def die_with_parent(parent: int, signum: int) -> None:
    """Ask Linux to send ``signum`` when the parent ends; elsewhere do nothing.

    Args:
        parent: Process id of the parent, to notice one that ended before this call.
        signum: Signal to receive.

    Raises:
        SystemExit: If the parent is gone already.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(128 + signum)
