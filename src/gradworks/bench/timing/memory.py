"""How near the memory's own speed: an update against a copy of the same bytes."""

from __future__ import annotations

from typing import Any

from gradworks.bench.timing.comparing import Run, compare
from gradworks.bench.timing.figures import Timing

__all__ = ["copy_pair", "roofline"]


def copy_pair(nbytes: int, *, device: str = "cpu") -> Run:
    """Return a function that moves ``nbytes`` through memory with one ``copy_``.

    Args:
        nbytes: Bytes read plus bytes written, at least 8.
        device: Where.

    Returns:
        The function.

    Raises:
        ValueError: If ``nbytes`` is below 8.
    """
    if nbytes < 8:
        raise ValueError(f"nbytes must be at least 8, got {nbytes}")
    import torch

    source = torch.zeros(nbytes // 8, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def roofline(
    run: Run,
    nbytes: int,
    *,
    name: str,
    device: str = "cpu",
    **options: Any,
) -> Timing:
    """Time ``run`` against one ``copy_`` that moves the same bytes: near 1 is all memory allows.

    Only for tensors well beyond the caches. A copy may have to load the lines it overwrites, which
    an update in place does not: then the update comes out below 1.

    Args:
        run: What is measured.
        nbytes: Bytes it must read and write at least. Count each tensor once for each time that
            the algorithm needs it, not what an implementation happens to move.
        name: What is measured.
        device: Where.
        **options: Options of :func:`compare`.

    Returns:
        The ratio: 1.3 means that memory alone would need 1 / 1.3 of the time.

    Raises:
        ValueError: If ``nbytes`` is below 8.
    """  # noqa: DOC502
    peer = f"copy_ of {nbytes / 1e6:.4g} MB"
    return compare(run, copy_pair(nbytes, device=device), name=name, peer_name=peer, **options)
