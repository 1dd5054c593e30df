"""The three-term recurrence of Lanczos' method with its stored block of vectors."""

from __future__ import annotations

import math
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gradworks.curvature.operators.algebra import SymmetricOperator
from gradworks.curvature.probes import random_vector, vector_norm

__all__ = ["Recurrence", "Reorthogonalize", "free_bytes", "start_vector"]

Reorthogonalize = Literal["full", "none"] | int

# Steps between two looks at the coefficients of an accelerator, each of which waits for it.
_CHECK_EVERY = 8
_MEMORY_SHARE = 0.25


# Linux: what programs can get, caches of files included.
_MEMINFO = Path("/proc/meminfo")
# A block that grows does so by this many bytes, and at least by this many vectors.
_GROW_BYTES, _GROW_ROWS = 2**26, 16


def free_bytes(device: torch.device) -> int | None:
    """Free memory, where the system says.

    Args:
        device: Whose.

    Returns:
        Bytes, or ``None``.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    with suppress(OSError, ValueError, IndexError):
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def start_vector(
    op: SymmetricOperator, start: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    """A checked start, or a random one that is the same on all processes."""
    if start is None:
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        v = random_vector(op, "rademacher", generator)
        return op.synchronize(v)
    if not isinstance(start, Tensor) or start.shape != (op.shape[0],):
        found = tuple(start.shape) if isinstance(start, Tensor) else type(start).__name__
        raise ValueError(f"start must have shape ({op.shape[0]},), got {found}")
    v = start.detach().to(op.device, op.accumulate_dtype, copy=True)
    if not bool(torch.isfinite(v).all()):
        raise ValueError("start has NaN or infinite entries")
    if float(vector_norm(op, v)) == 0.0:
        raise ValueError("start is the zero vector; any other direction will do")
    return op.synchronize(v)


class Recurrence:
    """Runs the recurrence step by step; coefficients stay on the device until asked for.

    Args:
        op: The operator.
        capacity: Largest number of steps.
        reorthogonalize: ``"full"``, ``"none"`` or a window.
        breakdown_tol: Relative; ``None`` for 10 eps sqrt(P).
        basis_device: Where vectors are kept; ``None`` for the operator's.
        grow: Allocate the vectors' memory piece by piece, where fewer steps may do.
    """

    def __init__(
        self,
        op: SymmetricOperator,
        capacity: int,
        *,
        reorthogonalize: Reorthogonalize = "full",
        breakdown_tol: float | None = None,
        basis_device: torch.device | str | None = None,
        grow: bool = False,
    ) -> None:
        self.op = op
        self._dtype = op.accumulate_dtype
        self._home = op.device if basis_device is None else torch.device(basis_device)
        self._reorthogonalize = reorthogonalize
        if breakdown_tol is None:
            breakdown_tol = 10 * torch.finfo(self._dtype).eps * math.sqrt(op.dimension)
        self._tol = breakdown_tol
        self._alpha = torch.zeros(capacity, dtype=self._dtype, device=op.device)
        self._beta = torch.zeros(capacity, dtype=self._dtype, device=op.device)
        row = op.shape[0] * torch.empty(0, dtype=self._dtype).element_size()
        rows = max(_GROW_ROWS, _GROW_BYTES // row) if grow else capacity
        self._capacity, self._rows, self._row_bytes = capacity, min(rows, capacity), row
        self._free = free_bytes(self._home)
        self._warned = False
        self._blocks: list[Tensor] = []
        self.keeps_basis = reorthogonalize != "none"
        if self.keeps_basis:
            self._allocate()
        self.steps = 0
        self.products = 0
        self.broken_down = False
        self._checked = 0
        self._every = 1 if op.device.type == "cpu" else _CHECK_EVERY

    def _allocate(self) -> None:
        """One more (rows, P) block, with a warning when all are a large share of what was free."""
        held = len(self._blocks) * self._rows
        rows = min(self._rows, self._capacity - held)
        need, free = (held + rows) * self._row_bytes, self._free
        if free is not None and need > _MEMORY_SHARE * free and not self._warned:
            self._warned = True
            warnings.warn(  # not a ResourceWarning: Python hides those
                f"the Lanczos basis takes {need / 2**20:.0f} MiB of {free / 2**20:.0f} MiB free on "
                f"{self._home}; use fewer steps"
                + ("" if self._home.type == "cpu" else " or basis_device='cpu'"),
                RuntimeWarning,
                stacklevel=5,
            )
        self._blocks.append(
            torch.empty(rows, self.op.shape[0], dtype=self._dtype, device=self._home)
        )

    def _keep(self, j: int, vectors: Tensor) -> None:
        """Store rows from j on."""
        while len(vectors):
            while j // self._rows >= len(self._blocks):
                self._allocate()
            block, at = self._blocks[j // self._rows], j % self._rows
            count = min(len(vectors), len(block) - at)
            block[at : at + count] = vectors[:count]
            j, vectors = j + count, vectors[count:]

    def _rows_between(self, low: int, high: int) -> list[Tensor]:
        """Views of the stored vectors low:high, one for each block they lie in."""
        found = []
        for i, block in enumerate(self._blocks):
            first = i * self._rows
            a, b = max(low - first, 0), min(high - first, len(block))
            if a < b:
                found.append(block[a:b])
        return found

    def begin(self, start: Tensor) -> None:
        """Take the first vector."""
        v = start.to(self._dtype)
        self.current = v / vector_norm(self.op, v)
        self.previous = torch.zeros_like(self.current)

    def restore(
        self, alpha: Tensor, beta: Tensor, basis: Tensor | None, current: Tensor, previous: Tensor
    ) -> None:
        """Go on where a run of ``len(alpha)`` steps ended."""
        m = len(alpha)
        self._alpha[:m] = alpha.to(self._alpha)
        self._beta[:m] = beta.to(self._beta)
        if self.keeps_basis and basis is not None:
            self._keep(0, basis.T.to(self._home, self._dtype))
        self.current = current.to(self.op.device, self._dtype).clone()
        self.previous = previous.to(self.op.device, self._dtype).clone()
        self.steps = self._checked = m

    def restart(self, fresh: Tensor) -> None:
        """Leave a closed Krylov space by a direction orthogonal to it; T gets a zero."""
        if not self.keeps_basis:
            raise RuntimeError("a recurrence without a basis cannot leave its Krylov space")
        w = fresh.to(self._dtype)
        for _ in range(4):  # most of a vector may lie inside: scale up and clean what is left
            w = self._orthogonalized(w, self.steps)
            w = w / self.op.reduce(w @ w).sqrt().clamp_min(torch.finfo(self._dtype).tiny)
        self.current = w
        self.previous = torch.zeros_like(w)
        self._beta[self.steps - 1] = 0.0
        self.broken_down = False

    def _orthogonalized(self, w: Tensor, count: int) -> Tensor:
        """Minus the components along the newest ``count`` vectors: two matrix-vector products."""
        blocks = self._rows_between(self.steps - count, self.steps)
        if not blocks:
            return w
        x = w.to(self._home)
        inner = [torch.mv(Q, x) for Q in blocks]
        c = inner[0] if len(inner) == 1 else torch.cat(inner)
        c = self.op.reduce(c.to(self.op.device)).to(self._home)
        for Q, part in zip(blocks, torch.split(c, [len(Q) for Q in blocks])):
            x = torch.addmv(x, Q.T, part, alpha=-1)
        return x.to(self.op.device)

    def step(self) -> None:
        """One product, one coefficient pair, one more vector."""
        j = self.steps
        q = self.current
        w = self.op.apply(q.to(self.op.dtype)).to(self._dtype)
        self.products += 1
        alpha = self.op.reduce(torch.dot(w, q))
        w = w - alpha * q  # out of place: the product may be a tensor the operator holds
        if j > 0:
            w.sub_(self._beta[j - 1] * self.previous)
        if self.keeps_basis:
            self._keep(j, q[None])
        self.steps = j + 1
        if self.keeps_basis:
            window = self.steps if self._reorthogonalize == "full" else self._reorthogonalize
            count = min(int(window), self.steps)
            for _ in range(2 if self._reorthogonalize == "full" else 1):
                w = self._orthogonalized(w, count)
        beta = vector_norm(self.op, w)
        self._alpha[j] = alpha
        self._beta[j] = beta
        self.previous = q
        # The guard keeps what follows an unnoticed breakdown finite until the next look.
        self.current = w / beta.clamp_min(torch.finfo(self._dtype).tiny)
        if self.steps % self._every == 0:
            self.settle()

    def settle(self) -> None:
        """Look at the coefficients since the last look: not finite, or a breakdown."""
        low, high = self._checked, self.steps
        if low == high:
            return
        pair = torch.stack([self._alpha[:high], self._beta[:high]]).cpu().double()
        alpha, beta = pair[0], pair[1]
        fine = torch.isfinite(pair).all(0)
        if not bool(fine.all()):
            bad = int((~fine).nonzero()[0])
            kept = self._rows_between(bad, bad + 1)
            q = kept[0][0].to(self.op.device) if kept else self.current
            self.op.diagnose(q.to(self.op.dtype))
        largest = torch.maximum(alpha.abs(), beta.abs()).cummax(0).values
        small = (beta <= self._tol * largest)[low:high]
        self._checked = high
        if bool(small.any()):
            self.steps = low + int(small.nonzero()[0]) + 1
            self._checked = self.steps
            self.broken_down = True

    def alpha(self) -> Tensor:
        """Diagonal, float64 on CPU."""
        return self._alpha[: self.steps].cpu().double()

    def beta(self) -> Tensor:
        """Off-diagonal with the residual norm at its end, float64 on CPU."""
        return self._beta[: self.steps].cpu().double()

    def matrix(self) -> Tensor:
        """T, float64 on CPU."""
        off = self.beta()[:-1]
        return torch.diag(self.alpha()) + torch.diag(off, 1) + torch.diag(off, -1)

    def basis(self) -> Tensor | None:
        """Vectors as columns, ``(P, steps)``."""
        if not self.keeps_basis:
            return None
        blocks = self._rows_between(0, self.steps)
        return (blocks[0] if len(blocks) == 1 else torch.cat(blocks)).T

    def combine(self, weights: Tensor) -> Tensor:
        """The basis times ``(steps, k)``, on the operator's device."""
        blocks = self._rows_between(0, self.steps)
        parts = torch.split(weights.to(self._home, self._dtype), [len(Q) for Q in blocks])
        total = blocks[0].T @ parts[0]
        for Q, part in zip(blocks[1:], parts[1:]):
            total.addmm_(Q.T, part)
        return total.to(self.op.device)
