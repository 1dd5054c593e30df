"""Linear measurements of a matrix, y_i = <A_i, Z>, and what gradient descent needs of them.

The class here keeps its measurement matrices in memory; :mod:`.kinds` holds those that need none.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gradworks.solvers.matrix_sensing.arguments import positive_int
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
            measurements (``matrices[rank::world_size]``). ``op(Z)`` returns the local ones;
            :meth:`adjoint`, :meth:`normal`, :meth:`gradient` and :meth:`residual` are summed over
            the processes, which exchange one ``(n1, n2)`` matrix and never a measurement. Without
            an initialised group it changes nothing.

    Attributes:
        shape: ``(m, n1, n2)``; ``m`` counts the measurements of this process.
        distributed: As given.

    Raises:
        ValueError: If ``matrices`` is not a real three-dimensional tensor with at least one entry.

    Note:
        One gradient reads the stored matrices twice, ``16 m n1 n2`` bytes in float64, and allocates
        nothing of that size. With more measurements than entries :meth:`compressed` reads less.

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
            generator: Draws the entries, on its own device; torch's default one otherwise.
            dtype: Of the entries.
            device: Where they lie; that of ``generator`` by default.

        Raises:
            ValueError: If a size is below 1, or ``symmetric`` measurements are not square.
        """
        n2 = n1 if n2 is None else n2
        for name, size in (("m", m), ("n1", n1), ("n2", n2)):
            positive_int(name, size)
        if symmetric and n1 != n2:
            raise ValueError(f"symmetric measurements must be square, got n1={n1} and n2={n2}")
        drawn_on = device if generator is None else generator.device
        matrices = torch.randn(m, n1, n2, generator=generator, dtype=dtype, device=drawn_on)
        matrices = (matrices / math.sqrt(m)).to(device or drawn_on)
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
            ValueError: If a size is below 1.
        """  # noqa: DOC502
        from gradworks.solvers.matrix_sensing.kinds import Identity

        n2 = n1 if n2 is None else n2
        like = torch.empty(0, dtype=dtype, device=device)
        return Identity(positive_int("n1", n1), positive_int("n2", n2), like)

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
        """  # noqa: DOC502
        from gradworks.solvers.matrix_sensing.kinds import Entries

        return Entries(
            rows,
            cols,
            positive_int("n1", n1),
            positive_int("n2", n2),
            total=len(rows) if total is None else positive_int("total", total),
            dtype=dtype,
            distributed=distributed,
        )

    @classmethod
    def rank_one(cls, a: Tensor, b: Tensor, *, distributed: bool = False) -> MeasurementOperator:
        """Return ``A_i = a_i b_i^T``, of which no matrix is ever formed.

        Args:
            a: Left vectors, shape ``(m, n1)``; scale them so that ``A* A`` is near the identity.
            b: Right vectors, shape ``(m, n2)``.
            distributed: As for the class.

        Raises:
            ValueError: If they are not two real matrices of equally many rows and one dtype.
        """  # noqa: DOC502
        from gradworks.solvers.matrix_sensing.kinds import RankOne

        return RankOne(a, b, distributed=distributed)

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
            self._symmetric = self.shape[1] == self.shape[2] and self._is_symmetric()
        return self._symmetric

    def _is_symmetric(self) -> bool:
        return all(torch.equal(part, part.mT) for part in torch.split(self.matrices, CHUNK))

    def __repr__(self) -> str:
        m, n1, n2 = self.shape
        return (
            f"{type(self).__name__}(m={m}, n1={n1}, n2={n2}, dtype={self.dtype}, "
            f"device={str(self.device)!r})"
        )

    def __call__(self, Z: Tensor) -> Tensor:
        """Return the measurements of ``Z``, shape ``(m,)``: those of this process.

        Args:
            Z: A matrix, shape ``(n1, n2)``.

        Raises:
            ValueError: If ``Z`` has another shape.
        """  # noqa: DOC502
        self._check_matrix(Z)
        return self._forward(Z)

    def adjoint(self, u: Tensor) -> Tensor:
        """Return ``sum_i u_i A_i``, shape ``(n1, n2)``; over all processes if distributed.

        Args:
            u: One number a measurement, shape ``(m,)``.

        Raises:
            ValueError: If ``u`` has another shape.
        """  # noqa: DOC502
        self._check_vector(u, "u")
        return self._reduce(self._backward(u))

    def normal(self, Z: Tensor) -> Tensor:
        """Return ``A*(A(Z))`` without a copy of the measurements.

        Args:
            Z: A matrix, shape ``(n1, n2)``.

        Raises:
            ValueError: If ``Z`` has another shape.
        """  # noqa: DOC502
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
        """  # noqa: DOC502
        self._check_factors(F, G)
        self._check_vector(y, "y")
        return self._reduce(self._backward(self._off(F, G, y)[0]))

    def residual(self, F: Tensor, G: Tensor, y: Tensor) -> Tensor:
        """Return ``||A(F G^T) - y||^2`` as a scalar; over all processes if distributed.

        Args:
            F: Left factor, shape ``(n1, k)``.
            G: Right factor, shape ``(n2, k)``.
            y: Measurements, shape ``(m,)``.

        Raises:
            ValueError: If the product of the factors, or ``y``, has another shape.
        """  # noqa: DOC502
        self._check_factors(F, G)
        self._check_vector(y, "y")
        off, _ = self._off(F, G, y)
        return self._reduce(off.dot(off))

    def compressed(self, y: Tensor) -> tuple[MeasurementOperator, Tensor]:
        """Return at most ``n1 n2`` measurements with the same gradients, and their values.

        With ``A = Q R`` the loss is ``||R z - Q^T y||^2`` and a constant, the part of ``y`` that
        no matrix explains; symmetric measurements end as ``n (n + 1) / 2``. Worth its QR
        factorisation where there are more measurements than that and many iterations follow.
        Residuals then leave the constant out.

        Args:
            y: Measurements, shape ``(m,)``.

        Raises:
            ValueError: If ``y`` has another shape, or the measurements are distributed.
        """
        from gradworks.solvers.matrix_sensing.kinds import Upper

        self._check_vector(y, "y")
        if self.distributed:
            raise ValueError("distributed measurements cannot be compressed: each is on one rank")
        m, n1, n2 = self.shape
        free = n1 * (n1 + 1) // 2 if self.symmetric else n1 * n2
        if m <= free:
            return self, y
        if self.symmetric:
            Q, R = torch.linalg.qr(Upper.folded(self.matrices))
            return Upper(R, n1), Q.mT @ y
        Q, R = torch.linalg.qr(self.matrices.reshape(m, n1 * n2))
        return MeasurementOperator(R.view(n1 * n2, n1, n2)), Q.mT @ y

    def rip_estimate(
        self, rank: int, trials: int = 50, generator: torch.Generator | None = None
    ) -> float:
        """Return the largest ``| ||A(Z)||^2 / ||Z||^2 - 1 |`` over random matrices of a rank.

        A lower bound on the constant of the restricted isometry property, which is a maximum over
        all matrices. Symmetric measurements are asked about symmetric matrices only.

        Args:
            rank: Of the matrices.
            trials: How many are drawn.
            generator: Draws them; torch's default one otherwise.

        Raises:
            ValueError: If ``trials`` is below 1 or ``rank`` is above the sides.
        """  # noqa: DOC502
        positive_int("trials", trials)
        _, n1, n2 = self.shape
        worst = torch.zeros((), dtype=self.dtype, device=self.device)
        for _ in range(trials):
            Z = random_low_rank(
                n1, n2, rank=rank, symmetric=self.symmetric, generator=generator, dtype=self.dtype
            ).to(self.device)
            Z = self.agree(Z)
            seen = self._forward(Z)
            ratio = self._reduce(seen.dot(seen)) / Z.square().sum()
            worst = torch.maximum(worst, (ratio - 1).abs())
        return float(worst)

    # What a kind of measurements changes

    def _forward(self, Z: Tensor) -> Tensor:
        return torch.mv(self._rows, Z.reshape(-1))

    def _backward(self, u: Tensor) -> Tensor:
        return torch.mv(self._rows.T, u).view(self.shape[1:])

    def _off(self, F: Tensor, G: Tensor, y: Tensor) -> tuple[Tensor, Any]:
        """``A(F G^T) - y`` in memory of its own, and what :meth:`_descend` needs of the way."""
        return self._forward(F @ G.mT).sub_(y), None

    def _descend(
        self, F: Tensor, G: Tensor, off: Tensor, kept: Any, lr: float, symmetric: bool
    ) -> tuple[Tensor, Tensor]:
        """One step of both factors from the same point; of one where ``F`` is ``G``."""
        E = self._reduce(self._backward(off))
        if symmetric:  # the gradient of a model X X^T sees the symmetric part alone
            X = torch.addmm(F, E + E.mT, F, alpha=-lr / 2)
            return X, X
        return torch.addmm(F, E, G, alpha=-lr), torch.addmm(G, E.mT, F, alpha=-lr)

    def _reduce(self, local: Tensor) -> Tensor:
        """Sum over the processes that hold measurements."""
        if self.shared:
            dist.all_reduce(local)
        return local

    def agree(self, local: Tensor) -> Tensor:
        """Return the first process's tensor, in place: a start that all of them share.

        Args:
            local: The tensor of this process.
        """
        if self.shared:
            dist.broadcast(local, 0)
        return local

    @property
    def shared(self) -> bool:
        """Whether other processes hold measurements now."""
        return self.distributed and dist.is_available() and dist.is_initialized()

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
