"""Linear measurements of a matrix: y_i = <A_i, Z>, and what gradient descent needs of them.

Four kinds stand behind one class: measurement matrices that are stored, all entries seen once,
single entries (matrix completion), and rank-one matrices a_i b_i^T that are never formed.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from gradworks.solvers.matrix_sensing.problems import random_low_rank

__all__ = ["MeasurementOperator"]

CHUNK = 256  # measurement matrices that are compared with their transpose at a time


class MeasurementOperator:
    r"""A linear map from matrices to measurements, with its adjoint.

    .. math::
        A(Z)_i = \langle A_i, Z \rangle, \qquad A^*(u) = \sum_i u_i A_i

    Scale the matrices so that :math:`A^* A` is near the identity (the constructors below do it):
    step sizes are then in units of the matrix that is looked for.

    Args:
        matrices: The measurement matrices, shape ``(m, n1, n2)``. They are not copied where their
            memory is contiguous.
        distributed: Each process of the default ``torch.distributed`` group holds its own
            measurements. ``op(Z)`` returns the local ones; :meth:`adjoint`, :meth:`normal` and
            :meth:`gradient` are summed over the processes, which exchange one ``(n1, n2)`` matrix
            and never a measurement. Without an initialised group it changes nothing.

    Attributes:
        shape: ``(m, n1, n2)``; ``m`` counts the measurements of this process.
        distributed: As given.

    Raises:
        ValueError: If ``matrices`` is not a real three-dimensional tensor with at least one entry.

    Note:
        One pass of :meth:`gradient` reads the stored matrices twice, ``16 m n1 n2`` bytes in
        float64, and allocates nothing of that size.

    Example:
        >>> import torch
        >>> op = MeasurementOperator(torch.eye(2, dtype=torch.float64)[None])
        >>> op(torch.tensor([[1.0, 5.0], [7.0, 2.0]], dtype=torch.float64))
        tensor([3.], dtype=torch.float64)
    """

    shape: tuple[int, int, int]
    distributed: bool

    def __init__(self, matrices: Tensor, *, distributed: bool = False) -> None:
        if matrices.ndim != 3 or matrices.numel() == 0 or not matrices.is_floating_point():
            raise ValueError(
                "matrices must be a real tensor of shape (m, n1, n2) with no empty axis, got shape "
                f"{tuple(matrices.shape)} and dtype {matrices.dtype}"
            )
        m, n1, n2 = matrices.shape
        self._rows: Tensor = matrices.detach().reshape(m, n1 * n2).contiguous()
        self.shape = (m, n1, n2)
        self.distributed = distributed
        self._symmetric: bool | None = None

    @classmethod
    def gaussian(
        cls,
        m: int,
        n1: int,
        n2: int | None = None,
        *,
        symmetric: bool = False,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> MeasurementOperator:
        """Return measurements with independent N(0, 1/m) entries.

        Args:
            m: How many.
            n1: Rows of the matrix that is measured.
            n2: Its columns; as many as rows by default.
            symmetric: Replace each ``A_i`` by ``(A_i + A_i^T) / 2``. Only for
                :func:`~gradworks.solvers.matrix_sensing.symmetric_gd`: the asymmetric model's
                antisymmetric part would be invisible, and its error would stall.
            generator: Draws the entries; torch's default one otherwise. It has to live on
                ``device``.
            dtype: Of the entries.
            device: Where they lie.

        Raises:
            ValueError: If a size is not positive, or ``symmetric`` measurements are not square.
        """
        n2 = n1 if n2 is None else n2
        _positive(m=m, n1=n1, n2=n2)
        if symmetric and n1 != n2:
            raise ValueError(f"symmetric measurements must be square, got n1={n1} and n2={n2}")
        matrices = torch.randn(m, n1, n2, generator=generator, dtype=dtype, device=device)
        matrices /= math.sqrt(m)
        if symmetric:
            matrices = (matrices + matrices.mT) / 2
        made = MeasurementOperator(matrices)
        made._symmetric = symmetric or None
        return made

    @classmethod
    def identity(
        cls,
        n1: int,
        n2: int | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> MeasurementOperator:
        """Return full observation: ``op(Z)`` is ``Z.flatten()``, and ``A* A`` the identity.

        Args:
            n1: Rows.
            n2: Columns; as many as rows by default.
            dtype: Of the measurements.
            device: Where they lie.

        Raises:
            ValueError: If a size is not positive.
        """
        n2 = n1 if n2 is None else n2
        _positive(n1=n1, n2=n2)
        return _Identity(n1, n2, torch.empty(0, dtype=dtype, device=device))

    @classmethod
    def entries(
        cls,
        rows: Tensor,
        cols: Tensor,
        n1: int,
        n2: int,
        *,
        dtype: torch.dtype = torch.float64,
        distributed: bool = False,
        total: int | None = None,
    ) -> MeasurementOperator:
        """Return single entries (matrix completion), scaled by ``sqrt(n1 n2 / m)``.

        Args:
            rows: Row of each entry, shape ``(m,)``.
            cols: Column of each, shape ``(m,)``.
            n1: Rows of the matrix.
            n2: Its columns.
            dtype: Of the measurements.
            distributed: As for the class.
            total: The ``m`` of the scale: entries of all processes together. Those given by
                default.

        Raises:
            ValueError: If the indices are not two integer vectors of one length inside the matrix.
        """
        _positive(n1=n1, n2=n2)
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
        scale = math.sqrt(n1 * n2 / (rows.numel() if total is None else total))
        return _Entries(rows.long() * n2 + cols.long(), n1, n2, scale, dtype, distributed)

    @classmethod
    def rank_one(cls, a: Tensor, b: Tensor, *, distributed: bool = False) -> MeasurementOperator:
        """Return ``A_i = a_i b_i^T``, of which no matrix is ever formed.

        Args:
            a: Left vectors, shape ``(m, n1)``; scale them so that ``A* A`` is near the identity.
            b: Right vectors, shape ``(m, n2)``.
            distributed: As for the class.

        Raises:
            ValueError: If they are not two real matrices of equally many rows and one dtype.
        """
        if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or a.numel() == 0 or b.numel() == 0:
            raise ValueError(
                "a and b must have shapes (m, n1) and (m, n2), got "
                f"{tuple(a.shape)} and {tuple(b.shape)}"
            )
        if a.dtype != b.dtype or not a.is_floating_point():
            raise ValueError(f"a and b must share a real dtype, got {a.dtype} and {b.dtype}")
        return _RankOne(a.detach(), b.detach(), distributed)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the measurements."""
        return self._rows.dtype

    @property
    def device(self) -> torch.device:
        """Where the measurements lie."""
        return self._rows.device

    @property
    def matrices(self) -> Tensor:
        """The measurement matrices, ``(m, n1, n2)``: a view where they are stored so."""
        return self._rows.view(self.shape)

    @property
    def symmetric(self) -> bool:
        """Whether every ``A_i`` equals its transpose; looked up once."""
        if self._symmetric is None:
            self._symmetric = self._is_symmetric()
        return self._symmetric

    def _is_symmetric(self) -> bool:
        if self.shape[1] != self.shape[2]:
            return False
        return all(torch.equal(part, part.mT) for part in self.matrices.split(CHUNK))

    def __repr__(self) -> str:
        m, n1, n2 = self.shape
        kind = type(self).__name__.strip("_")
        return f"{kind}(m={m}, n1={n1}, n2={n2}, dtype={self.dtype}, device={str(self.device)!r})"

    def __call__(self, Z: Tensor) -> Tensor:
        """Return the measurements of ``Z``, shape ``(m,)``.

        Args:
            Z: A matrix, shape ``(n1, n2)``.

        Raises:
            ValueError: If ``Z`` has another shape.
        """
        self._check_matrix(Z)
        return self._forward(Z)

    def adjoint(self, u: Tensor) -> Tensor:
        """Return ``sum_i u_i A_i``, shape ``(n1, n2)``; over all processes if distributed.

        Args:
            u: One number a measurement, shape ``(m,)``.

        Raises:
            ValueError: If ``u`` has another shape.
        """
        self._check_vector(u, "u")
        return self._reduce(self._backward(u))

    def normal(self, Z: Tensor) -> Tensor:
        """Return ``A*(A(Z))`` without a copy of the measurements.

        Args:
            Z: A matrix, shape ``(n1, n2)``.

        Raises:
            ValueError: If ``Z`` has another shape.
        """
        self._check_matrix(Z)
        return self._reduce(self._backward(self._forward(Z)))

    def gradient(self, F: Tensor, G: Tensor, y: Tensor) -> Tensor:
        """Return ``A*(A(F G^T) - y)``, shape ``(n1, n2)``.

        Args:
            F: Left factor, shape ``(n1, k)``.
            G: Right factor, shape ``(n2, k)``.
            y: Measurements, shape ``(m,)``.

        Raises:
            ValueError: If the product of the factors, or ``y``, has another shape.
        """
        self._check_factors(F, G)
        self._check_vector(y, "y")
        return self._gradient(F, G, y)

    def residual(self, F: Tensor, G: Tensor, y: Tensor) -> Tensor:
        """Return ``||A(F G^T) - y||^2`` as a scalar; over all processes if distributed.

        Args:
            F: Left factor, shape ``(n1, k)``.
            G: Right factor, shape ``(n2, k)``.
            y: Measurements, shape ``(m,)``.

        Raises:
            ValueError: If the product of the factors, or ``y``, has another shape.
        """
        self._check_factors(F, G)
        self._check_vector(y, "y")
        off = self._of_factors(F, G).sub_(y)
        return self._reduce(off.dot(off))

    def directions(self, F: Tensor, G: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``E G`` and ``E^T F``: the gradients in both factors, ``E`` as in `gradient`.

        Args:
            F: Left factor, shape ``(n1, k)``.
            G: Right factor, shape ``(n2, k)``.
            y: Measurements, shape ``(m,)``.

        Raises:
            ValueError: If the product of the factors, or ``y``, has another shape.
        """
        E = self.gradient(F, G, y)
        return E @ G, E.mT @ F

    def compressed(self, y: Tensor) -> tuple[MeasurementOperator, Tensor]:
        """Return at most ``n1 n2`` measurements with the same gradients, and their values.

        With ``A = Q R`` the loss is ``||R z - Q^T y||^2`` and a constant, the part of ``y`` that
        no matrix explains. Worth its QR factorisation where ``m`` is above ``n1 n2`` and many
        iterations follow. Residuals then leave that constant out.

        Args:
            y: Measurements, shape ``(m,)``.

        Raises:
            ValueError: If ``y`` has another shape, or the measurements are distributed.
        """
        self._check_vector(y, "y")
        if self.distributed:
            raise ValueError("distributed measurements cannot be compressed: each is on one rank")
        m, n1, n2 = self.shape
        if m <= n1 * n2:
            return self, y
        Q, R = torch.linalg.qr(self.matrices.reshape(m, n1 * n2))
        made = MeasurementOperator(R.view(n1 * n2, n1, n2))
        return made, Q.mT @ y

    def rip_estimate(
        self, rank: int, trials: int = 50, generator: torch.Generator | None = None
    ) -> float:
        """Return the largest ``| ||A(Z)||^2 / ||Z||^2 - 1 |`` over random matrices of a rank.

        A lower bound on the constant of the restricted isometry property, which is a maximum over
        all matrices.

        Args:
            rank: Of the matrices.
            trials: How many are drawn.
            generator: Draws them; torch's default one otherwise.

        Raises:
            ValueError: If ``trials`` is not positive or ``rank`` is above the sides.
        """
        _positive(trials=trials)
        _, n1, n2 = self.shape
        worst = torch.zeros((), dtype=self.dtype, device=self.device)
        for _ in range(trials):
            Z = random_low_rank(n1, n2, rank=rank, generator=generator, dtype=self.dtype)
            Z = Z.to(self.device)
            seen = self._forward(Z)
            ratio = self._reduce(seen.dot(seen)) / Z.square().sum()
            worst = torch.maximum(worst, (ratio - 1).abs())
        return float(worst)

    # What a kind of measurements changes

    def _forward(self, Z: Tensor) -> Tensor:
        return torch.mv(self._rows, Z.reshape(-1))

    def _backward(self, u: Tensor) -> Tensor:
        return torch.mv(self._rows.T, u).view(self.shape[1:])

    def _of_factors(self, F: Tensor, G: Tensor) -> Tensor:
        """``A(F G^T)``, in memory of its own."""
        return self._forward(F @ G.mT)

    def _gradient(self, F: Tensor, G: Tensor, y: Tensor) -> Tensor:
        return self._reduce(self._backward(self._of_factors(F, G).sub_(y)))

    def _reduce(self, local: Tensor) -> Tensor:
        """Sum over the processes that hold measurements."""
        if self.distributed and dist.is_available() and dist.is_initialized():
            dist.all_reduce(local)
        return local

    def _check_matrix(self, Z: Tensor) -> None:
        if tuple(Z.shape) != self.shape[1:]:
            raise ValueError(f"Z must have shape {self.shape[1:]}, got {tuple(Z.shape)}")

    def _check_vector(self, u: Tensor, name: str) -> None:
        if tuple(u.shape) != self.shape[:1]:
            raise ValueError(
                f"{name} must have shape {self.shape[:1]}, one number a measurement, got "
                f"{tuple(u.shape)}"
            )

    def _check_factors(self, F: Tensor, G: Tensor) -> None:
        _, n1, n2 = self.shape
        if F.ndim != 2 or G.ndim != 2 or len(F) != n1 or len(G) != n2 or F.shape[1] != G.shape[1]:
            raise ValueError(
                f"F and G must have shapes ({n1}, k) and ({n2}, k), got {tuple(F.shape)} and "
                f"{tuple(G.shape)}"
            )


class _Identity(MeasurementOperator):
    """Every entry, once."""

    def __init__(self, n1: int, n2: int, like: Tensor) -> None:
        self.shape = (n1 * n2, n1, n2)
        self.distributed = False
        self._rows = like
        self._symmetric = None

    @property
    def matrices(self) -> Tensor:
        m = self.shape[0]
        return torch.eye(m, dtype=self.dtype, device=self.device).view(self.shape)

    def _is_symmetric(self) -> bool:
        return False  # E_ij is not, though a symmetric Z gives a symmetric gradient: see symmetric

    def compressed(self, y: Tensor) -> tuple[MeasurementOperator, Tensor]:
        self._check_vector(y, "y")
        return self, y

    def _forward(self, Z: Tensor) -> Tensor:
        return Z.reshape(-1).clone()

    def _backward(self, u: Tensor) -> Tensor:
        return u.reshape(self.shape[1:]).clone()

    def _gradient(self, F: Tensor, G: Tensor, y: Tensor) -> Tensor:
        return torch.addmm(y.view(self.shape[1:]), F, G.mT, beta=-1)


class _Entries(MeasurementOperator):
    """Some entries, by their place in the flattened matrix."""

    def __init__(
        self, index: Tensor, n1: int, n2: int, scale: float, dtype: torch.dtype, distributed: bool
    ) -> None:
        self.shape = (len(index), n1, n2)
        self.distributed = distributed
        self._rows = torch.empty(0, dtype=dtype, device=index.device)
        self._symmetric = None
        self._index, self._scale = index, scale

    @property
    def matrices(self) -> Tensor:
        m, n1, n2 = self.shape
        made = torch.zeros(m, n1 * n2, dtype=self.dtype, device=self.device)
        return made.scatter_(1, self._index[:, None], self._scale).view(self.shape)

    def _is_symmetric(self) -> bool:
        return False

    def _forward(self, Z: Tensor) -> Tensor:
        return Z.reshape(-1)[self._index] * self._scale

    def _backward(self, u: Tensor) -> Tensor:
        _, n1, n2 = self.shape
        made = torch.zeros(n1 * n2, dtype=u.dtype, device=u.device)
        return made.index_add_(0, self._index, u, alpha=self._scale).view(n1, n2)


class _RankOne(MeasurementOperator):
    """Vectors in place of matrices."""

    def __init__(self, a: Tensor, b: Tensor, distributed: bool) -> None:
        self.shape = (len(a), a.shape[1], b.shape[1])
        self.distributed = distributed
        self._rows = a
        self._columns = b
        self._symmetric = None

    @property
    def matrices(self) -> Tensor:
        return self._rows[:, :, None] * self._columns[:, None, :]

    def _is_symmetric(self) -> bool:
        return torch.equal(self._rows, self._columns)

    def _forward(self, Z: Tensor) -> Tensor:
        return (self._rows @ Z).mul_(self._columns).sum(1)

    def _backward(self, u: Tensor) -> Tensor:
        return self._rows.mT @ (u[:, None] * self._columns)

    def _of_factors(self, F: Tensor, G: Tensor) -> Tensor:
        return (self._rows @ F).mul_(self._columns @ G).sum(1)

    def directions(self, F: Tensor, G: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self._check_factors(F, G)
        self._check_vector(y, "y")
        left, right = self._rows @ F, self._columns @ G
        off = (left * right).sum(1).sub_(y)[:, None]
        in_F = self._rows.mT @ right.mul_(off)
        in_G = self._columns.mT @ left.mul_(off)
        return self._reduce(in_F), self._reduce(in_G)


def _positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
