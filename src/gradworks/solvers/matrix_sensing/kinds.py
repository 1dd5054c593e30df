"""Measurements that need no matrix each: all entries, single ones, products of vectors, triangles.

Made by the constructors of :class:`~gradworks.solvers.matrix_sensing.MeasurementOperator`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gradworks.solvers.matrix_sensing.operator import MeasurementOperator

__all__ = ["Entries", "Identity", "RankOne", "Upper"]


class Identity(MeasurementOperator):
    """Every entry, once.

    Args:
        n1: Rows.
        n2: Columns.
        like: An empty tensor of dtype and device.
    """

    def __init__(self, n1: int, n2: int, like: Tensor) -> None:
        self.shape = (n1 * n2, n1, n2)
        self.distributed = False
        self._rows = like
        self._symmetric = n1 == n2 == 1

    @property
    def matrices(self) -> Tensor:
        """One matrix an entry; formed when asked for."""
        m = self.shape[0]
        return torch.eye(m, dtype=self.dtype, device=self.device).view(self.shape)

    def adjoint(self, u: Tensor) -> Tensor:
        """Return ``u`` as a matrix, in memory of its own.

        Args:
            u: One number an entry.
        """
        return super().adjoint(u).clone()

    def _forward(self, Z: Tensor) -> Tensor:
        return Z.reshape(-1).clone()

    def _backward(self, u: Tensor) -> Tensor:
        return u.view(self.shape[1:])

    def _off(self, F: Tensor, G: Tensor, y: Tensor) -> tuple[Tensor, Any]:
        return torch.addmm(y.view(self.shape[1:]), F, G.mT, beta=-1).view(-1), None


class Entries(MeasurementOperator):
    """Some entries, by their place in the flattened matrix.

    Args:
        rows: Row of each.
        cols: Column of each.
        n1: Rows of the matrix.
        n2: Its columns.
        total: Entries of all processes.
        dtype: Of the measurements.
        distributed: As for the parent.

    Raises:
        ValueError: If the indices are not two integer vectors of one length inside the matrix.
    """

    def __init__(
        self,
        rows: Tensor,
        cols: Tensor,
        n1: int,
        n2: int,
        *,
        total: int,
        dtype: torch.dtype,
        distributed: bool,
    ) -> None:
        if rows.ndim != 1 or rows.shape != cols.shape or rows.numel() == 0:
            raise ValueError(
                "rows and cols must be vectors of one length, not empty, got shapes "
                f"{tuple(rows.shape)} and {tuple(cols.shape)}"
            )
        for name, index, size in (("rows", rows, n1), ("cols", cols, n2)):
            if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
                raise ValueError(f"{name} must hold integers, got {index.dtype}")
            low, high = int(index.min()), int(index.max())
            if low < 0 or high >= size:
                raise ValueError(f"{name} must lie in [0, {size}), got {low} to {high}")
        self.shape = (len(rows), n1, n2)
        self.distributed = distributed
        self._rows = torch.empty(0, dtype=dtype, device=rows.device)
        self._index = rows.long() * n2 + cols.long()
        self._scale = math.sqrt(n1 * n2 / total)
        # a diagonal alone is symmetric, and so blind to all else
        self._symmetric = n1 == n2 and torch.equal(rows, cols)

    @property
    def matrices(self) -> Tensor:
        """One matrix an entry; formed when asked for."""
        m, n1, n2 = self.shape
        made = torch.zeros(m, n1 * n2, dtype=self.dtype, device=self.device)
        return made.scatter_(1, self._index[:, None], self._scale).view(self.shape)

    def _forward(self, Z: Tensor) -> Tensor:
        return Z.reshape(-1)[self._index] * self._scale

    def _backward(self, u: Tensor) -> Tensor:
        _, n1, n2 = self.shape
        made = torch.zeros(n1 * n2, dtype=u.dtype, device=u.device)
        return made.index_add_(0, self._index, u, alpha=self._scale).view(n1, n2)


class RankOne(MeasurementOperator):
    """Vectors in place of matrices.

    Args:
        a: Left vectors, ``(m, n1)``.
        b: Right vectors, ``(m, n2)``.
        distributed: As for the parent.

    Raises:
        ValueError: If they are not two real matrices of equally many rows and one dtype.
    """

    def __init__(self, a: Tensor, b: Tensor, *, distributed: bool) -> None:
        if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or a.numel() == 0 or b.numel() == 0:
            raise ValueError(
                "a and b must have shapes (m, n1) and (m, n2), got "
                f"{tuple(a.shape)} and {tuple(b.shape)}"
            )
        if a.dtype != b.dtype or not a.is_floating_point():
            raise ValueError(f"a and b must share a real dtype, got {a.dtype} and {b.dtype}")
        self.shape = (len(a), a.shape[1], b.shape[1])
        self.distributed = distributed
        self._rows = a.detach()
        self._columns = b.detach()
        self._symmetric = None

    @property
    def matrices(self) -> Tensor:
        """The outer products; formed when asked for."""
        return self._rows[:, :, None] * self._columns[:, None, :]

    def _forward(self, Z: Tensor) -> Tensor:
        return (self._rows @ Z).mul_(self._columns).sum(1)

    def _backward(self, u: Tensor) -> Tensor:
        return self._rows.mT @ (u[:, None] * self._columns)

    def _off(self, F: Tensor, G: Tensor, y: Tensor) -> tuple[Tensor, Any]:
        left, right = self._rows @ F, self._columns @ G
        return (left * right).sum(1).sub_(y), (left, right)

    def _descend(
        self, F: Tensor, G: Tensor, off: Tensor, kept: Any, lr: float, symmetric: bool
    ) -> tuple[Tensor, Tensor]:
        left, right = kept  # (m, k) each: nothing of n1 n2 entries is formed or exchanged
        in_F = self._reduce(self._rows.mT @ right.mul_(off[:, None]))
        in_G = self._reduce(self._columns.mT @ left.mul_(off[:, None]))
        if symmetric:
            X = F.add(in_F.add_(in_G), alpha=-lr / 2)
            return X, X
        return F.add(in_F, alpha=-lr), G.add(in_G, alpha=-lr)


class Upper(MeasurementOperator):
    """Symmetric matrices by their upper triangles: half the memory, half the reading.

    Args:
        rows: Entry ``(i, j)`` of each, ``i <= j`` in rows; those off the diagonal times sqrt(2).
        n: Side of the matrices.
    """

    def __init__(self, rows: Tensor, n: int) -> None:
        self.shape = (len(rows), n, n)
        self.distributed = False
        self._rows = rows
        self._symmetric = True
        self._upper, self._weight = self._triangle(n, rows.dtype, rows.device)
        self._lower = self._upper % n * n + self._upper // n

    @staticmethod
    def _triangle(n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Places of the upper triangle, and the weight of each: halves of what stands twice."""
        i, j = torch.triu_indices(n, n, device=device).unbind()
        weight = torch.full(i.shape, math.sqrt(0.5), dtype=dtype, device=device)
        weight[i == j] = 0.5
        return i * n + j, weight

    @classmethod
    def folded(cls, matrices: Tensor) -> Tensor:
        """Return the rows of symmetric matrices ``(m, n, n)``.

        Args:
            matrices: The matrices.
        """
        n = matrices.shape[-1]
        upper, weight = cls._triangle(n, matrices.dtype, matrices.device)
        return matrices.flatten(1)[:, upper] * (2 * weight)

    @property
    def matrices(self) -> Tensor:
        """The whole matrices; formed when asked for."""
        units = torch.eye(len(self._rows), dtype=self.dtype, device=self.device)
        return torch.stack([self._backward(unit) for unit in units])

    def _forward(self, Z: Tensor) -> Tensor:
        flat = Z.reshape(-1)
        return torch.mv(self._rows, (flat[self._upper] + flat[self._lower]).mul_(self._weight))

    def _backward(self, u: Tensor) -> Tensor:
        n = self.shape[1]
        half = torch.mv(self._rows.T, u).mul_(self._weight)
        made = torch.zeros(n * n, dtype=u.dtype, device=u.device)
        made[self._upper] = half
        # the diagonal stands in both
        return made.index_add_(0, self._lower, half).view(n, n)
