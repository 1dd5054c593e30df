"""What a result was made with: code, versions, machine. No paths, no host and no user names."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gradworks
from gradworks.bench.planning import cores
from gradworks.bench.task import Facts

__all__ = ["code_state", "collect"]

# Distributions whose version can change a figure.
LIBRARIES = ("scipy", "scikit-learn", "pandas", "imbalanced-learn", "ray")
PACKAGE = Path(__file__).resolve().parents[1]


def _git(*arguments: str) -> bytes | None:
    """Return what git prints in the package's folder, or None where it fails or is absent."""
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def code_state() -> dict[str, Any]:
    """Return ``git_sha``, ``dirty`` and ``diff_sha256`` of the package's own code.

    All three are None where the package does not come from a git checkout that tracks it, as
    from a wheel: the version then says it all.
    """
    none = {"git_sha": None, "dirty": None, "diff_sha256": None}
    # A virtual environment may lie inside somebody's repository, which then says nothing of us.
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return none
    sha, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ".")
    if sha is None or changed is None:
        return none
    digest = None
    if changed:
        diff = hashlib.sha256(_git("diff", "HEAD", "--", ".") or b"")
        untracked = _git("ls-files", "--others", "--exclude-standard", "-z", "--", ".") or b""
        for name in filter(None, untracked.split(b"\0")):
            diff.update(name + b"\0" + (PACKAGE / os.fsdecode(name)).read_bytes())
        digest = diff.hexdigest()
    return {"git_sha": sha.decode().strip(), "dirty": int(bool(changed)), "diff_sha256": digest}


def _cpu() -> str:
    """Return the processor's name as the kernel gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _lock() -> str | None:
    """Return the SHA-256 of the checkout's constraints.txt, or None outside a checkout."""
    try:
        return hashlib.sha256((PACKAGE.parents[1] / "constraints.txt").read_bytes()).hexdigest()
    except OSError:
        return None


def collect(threads: int, facts: Facts | None) -> dict[str, Any]:
    """Return the row of the store's ``provenance`` table for a run that starts now.

    Args:
        threads: Threads of torch in a worker.
        facts: What the first worker knows of its machine.
    """
    known = facts.values if facts is not None else {}
    libc = "-".join(part for part in platform.libc_ver() if part)
    environment: dict[str, Any] = {name: _version(name) for name in LIBRARIES}
    environment["cpu_capability"] = known.get("cpu_capability")
    return {
        **code_state(),
        "python": platform.python_version(),
        "torch": known.get("torch") or _version("torch"),
        "numpy": _version("numpy"),
        "gradworks": gradworks.__version__,
        "lock_sha256": _lock(),
        "platform": "-".join(p for p in (platform.system(), platform.machine(), libc) if p),
        "cpu": _cpu(),
        "cores": cores(),
        "threads": threads,
        "gpu": known.get("gpu"),
        "driver": known.get("driver"),
        "deterministic": 1,
        "env": environment,
    }
