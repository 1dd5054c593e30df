"""The three-term recurrence of Lanczos' method with its stored block of vectors."""

from __future__ import annotations

import math
import os
import warnings
from typing import Literal

import torch
from torch import Tensor

from gradworks.curvature.operators.algebra import SymmetricOperator
from gradworks.curvature.probes import random_vector

__all__ = ["Recurrence", "Reorthogonalize", "start_vector"]

Reorthogonalize = Literal["full", "none"] | int

# Steps between two looks at the coefficients of an accelerator, each of which waits for it.
_CHECK_EVERY = 8
_MEMORY_SHARE = 0.25


def _free_bytes(device: torch.device) -> int | None:
    """Free memory, where the system says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu" and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
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
    if float(op.reduce(v @ v)) == 0.0:
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
    """

    def __init__(
        self,
        op: SymmetricOperator,
        capacity: int,
        *,
        reorthogonalize: Reorthogonalize = "full",
        breakdown_tol: float | None = None,
        basis_device: torch.device | str | None = None,
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
        self._Q: Tensor | None = None
        if reorthogonalize != "none":
            self._Q = self._allocate(capacity)
        self.steps = 0
        self.products = 0
        self.broken_down = False
        self._checked = 0
        self._every = 1 if op.device.type == "cpu" else _CHECK_EVERY

    def _allocate(self, capacity: int) -> Tensor:
        """The (capacity, P) block, with a warning when it is a large share of what is free."""
        need = capacity * self.op.shape[0] * torch.empty(0, dtype=self._dtype).element_size()
        free = _free_bytes(self._home)
        if free is not None and need > _MEMORY_SHARE * free:
            warnings.warn(
                f"the Lanczos basis takes {need / 2**20:.0f} MiB of {free / 2**20:.0f} MiB free on "
                f"{self._home}; use fewer steps"
                + ("" if self._home.type == "cpu" else " or basis_device='cpu'"),
                ResourceWarning,
                stacklevel=5,
            )
        return torch.empty(capacity, self.op.shape[0], dtype=self._dtype, device=self._home)

    def begin(self, start: Tensor) -> None:
        """Take the first vector."""
        v = start.to(self._dtype)
        self.current = v / self.op.reduce(v @ v).sqrt()
        self.previous = torch.zeros_like(self.current)

    def restore(
        self, alpha: Tensor, beta: Tensor, basis: Tensor | None, current: Tensor, previous: Tensor
    ) -> None:
        """Go on where a run of ``len(alpha)`` steps ended."""
        m = len(alpha)
        self._alpha[:m] = alpha.to(self._alpha)
        self._beta[:m] = beta.to(self._beta)
        if self._Q is not None and basis is not None:
            self._Q[:m] = basis.T.to(self._Q)
        self.current = current.to(self.op.device, self._dtype).clone()
        self.previous = previous.to(self.op.device, self._dtype).clone()
        self.steps = self._checked = m

    def restart(self, fresh: Tensor) -> None:
        """Leave a closed Krylov space by a direction orthogonal to it; T gets a zero."""
        if self._Q is None:
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
        if self._Q is None:
            return w
        Q = self._Q[self.steps - count : self.steps]
        x = w.to(self._home)
        c = self.op.reduce(torch.mv(Q, x).to(self.op.device)).to(self._home)
        return torch.addmv(x, Q.T, c, alpha=-1).to(self.op.device)

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
        if self._Q is not None:
            self._Q[j] = q
        self.steps = j + 1
        if self._Q is not None:
            window = self.steps if self._reorthogonalize == "full" else self._reorthogonalize
            count = min(int(window), self.steps)
            for _ in range(2 if self._reorthogonalize == "full" else 1):
                w = self._orthogonalized(w, count)
        beta = self.op.reduce(torch.dot(w, w)).sqrt()
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
            q = self.current if self._Q is None else self._Q[bad].to(self.op.device)
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
        return None if self._Q is None else self._Q[: self.steps].T
