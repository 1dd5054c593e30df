"""Symmetric linear operators: the interface, sums and multiples.

Every spectral tool of this package takes a :class:`SymmetricOperator`; a subclass supplies one
product with one vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

__all__ = ["CombinedOperator", "SymmetricOperator"]


class SymmetricOperator(ABC):
    r"""A symmetric matrix known by its products: ``op @ v``.

    For matrices too large to write down, such as the Hessian of a network. Subclasses give
    :meth:`apply` (one vector, no checks); everything else follows from it.

    Args:
        size: Number of rows and of columns, P >= 1. Of a sharded operator: of the local shard.
        dtype: Element type of the products, real floating point.
        device: Where the vectors live.

    Raises:
        ValueError: ``size`` below 1 or a ``dtype`` that is not real floating point.

    Note:
        Operators add, subtract, scale (``2 * op``) and shift (``op.shift(c)`` is
        :math:`A + cI`) without forming anything.

    Example:
        >>> import torch
        >>> from gradworks.curvature.operators import DenseOperator
        >>> op = DenseOperator(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
        >>> (2 * op).shift(1.0) @ torch.tensor([1.0, 0.0])
        tensor([5., 2.])
    """

    def __init__(self, size: int, *, dtype: torch.dtype, device: torch.device | str) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be an integer of at least 1, got {size!r}")
        if not dtype.is_floating_point:
            raise ValueError(f"dtype must be a real floating-point type, got {dtype}")
        self._size = size
        self._dtype = dtype
        self._device = torch.empty(0, device=device).device  # "cuda" has no number, tensors have

    @property
    def shape(self) -> tuple[int, int]:
        """``(P, P)``."""
        return (self._size, self._size)

    @property
    def dtype(self) -> torch.dtype:
        """Element type of the products."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Where the vectors live."""
        return self._device

    @property
    def dimension(self) -> int:
        """Order of the whole matrix; larger than ``shape`` only where vectors are sharded."""
        return self._size

    @property
    def accumulate_dtype(self) -> torch.dtype:
        """Type of Lanczos vectors and sums: float32 for half types, otherwise ``dtype``."""
        return torch.float32 if self._dtype in {torch.float16, torch.bfloat16} else self._dtype

    @abstractmethod
    def apply(self, v: Tensor) -> Tensor:
        """Multiply one vector of the right type, shape and device, without checking anything.

        Args:
            v: ``(P,)``, of ``dtype``.

        Returns:
            ``A v``, ``(P,)``; possibly not finite.
        """

    def apply_block(self, V: Tensor) -> Tensor:
        """Multiply k vectors at once where that is possible; here one after the other.

        Args:
            V: ``(P, k)``, of ``dtype``.

        Returns:
            ``A V``, ``(P, k)``.
        """
        return torch.stack([self.apply(column) for column in V.unbind(1)], dim=1)

    def diagnose(self, v: Tensor) -> None:
        """Raise for a product with ``v`` that is not finite; subclasses name the cause.

        Args:
            v: The vector whose product was found not finite, ``(P,)``.

        Raises:
            FloatingPointError: Always.
        """
        bad = "" if bool(torch.isfinite(v).all()) else " (the vector itself is not finite)"
        raise FloatingPointError(
            f"product of {type(self).__name__} with a vector is not finite{bad}; "
            "check the loss and the parameters for NaN and overflow"
        )

    def reduce(self, partial: Tensor) -> Tensor:
        """Sum inner products over the shards of a vector; the identity where nothing is sharded.

        Args:
            partial: Inner products of local shards, any shape.

        Returns:
            The inner products of the whole vectors.
        """
        return partial

    def synchronize(self, v: Tensor) -> Tensor:
        """Make a random vector equal on all processes; the identity on one process.

        Args:
            v: ``(P,)``.

        Returns:
            The vector of process 0 (of a sharded operator: ``v``).
        """
        return v

    def stream(self, generator: torch.Generator) -> torch.Generator:
        """Where this process draws random vectors from; one's own where vectors are sharded.

        Args:
            generator: The caller's.

        Returns:
            The same (of a sharded operator: one of the process, seeded from it).
        """
        return generator

    def _check(self, v: object, *, name: str = "vector", block: bool = False) -> Tensor:
        """Refuse anything but a real (P,) tensor, or (P, k) with ``block``."""
        if not isinstance(v, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(v).__name__}")
        want = f"({self._size}, k)" if block else f"({self._size},)"
        if v.dim() != 1 + block or v.shape[0] != self._size:
            raise ValueError(f"{name} must have shape {want}, got {tuple(v.shape)}")
        if v.is_complex() or not v.is_floating_point():
            raise ValueError(f"{name} must be real floating point, got {v.dtype}")
        if v.device != self._device:
            raise ValueError(f"{name} must be on {self._device}, got {v.device}")
        return v.detach().to(self._dtype)

    def matvec(self, v: Tensor) -> Tensor:
        """Multiply one vector.

        Args:
            v: ``(P,)``, real floating point, on ``device``.

        Returns:
            ``A v``, ``(P,)``, of ``dtype``.

        Raises:
            FloatingPointError: The product is not finite.
            TypeError: ``v`` is not a tensor.
            ValueError: Wrong shape, type or device.
        """  # noqa: DOC502
        v = self._check(v)
        product = self.apply(v)
        if not bool(torch.isfinite(product).all()):
            self.diagnose(v)
        return product

    def matmat(self, V: Tensor) -> Tensor:
        """Multiply the columns of a matrix.

        Args:
            V: ``(P, k)``, real floating point, on ``device``.

        Returns:
            ``A V``, ``(P, k)``, of ``dtype``.

        Raises:
            FloatingPointError: The product is not finite.
            TypeError: ``V`` is not a tensor.
            ValueError: Wrong shape, type or device.
        """  # noqa: DOC502
        V = self._check(V, name="matrix", block=True)
        if V.shape[1] == 0:
            return V.clone()
        return self._checked_block(V, self.apply_block(V))

    def _checked_block(self, V: Tensor, product: Tensor) -> Tensor:
        """The product, or the error of its first column that is not finite."""
        fine = torch.isfinite(product).all(dim=0)
        if not bool(fine.all()):
            self.diagnose(V[:, int((~fine).nonzero()[0])])
        return product

    @overload
    def __matmul__(self, v: Tensor) -> Tensor: ...

    @overload
    def __matmul__(self, v: dict[str, Tensor]) -> dict[str, Tensor]: ...

    def __matmul__(self, v: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
        if isinstance(v, dict):
            return self._multiply_dict(v)
        if isinstance(v, Tensor) and v.dim() == 2:
            return self.matmat(v)
        return self.matvec(v)

    def _multiply_dict(self, v: dict[str, Tensor]) -> dict[str, Tensor]:
        """Operators of a model override this; others have no names."""
        raise TypeError(
            f"{type(self).__name__} has no parameter names: "
            f"multiply a tensor of shape ({self._size},) instead of a dict"
        )

    def to_dense(
        self, *, chunk_size: int = 64, progress: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """Write the matrix down, ``chunk_size`` columns at a time.

        Args:
            chunk_size: Columns in one product, at least 1.
            progress: Called with (columns done, P) after each chunk.

        Returns:
            ``(P, P)``, as computed: not symmetrised.

        Raises:
            ValueError: ``chunk_size`` below 1.
        """
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        P = self._size
        dense = torch.empty(P, P, dtype=self._dtype, device=self._device)
        for low in range(0, P, chunk_size):
            high = min(P, low + chunk_size)
            unit = torch.zeros(P, high - low, dtype=self._dtype, device=self._device)
            unit[torch.arange(low, high), torch.arange(high - low)] = 1.0
            dense[:, low:high] = self._checked_block(unit, self._columns(unit))
            if progress is not None:
                progress(high, P)
        return dense

    def _columns(self, unit: Tensor) -> Tensor:
        """Products with a block of unit vectors; subclasses may batch them."""
        return self.apply_block(unit)

    def to_scipy(self) -> LinearOperator:
        """Hand the operator to SciPy, e.g. to ``scipy.sparse.linalg.eigsh``.

        Returns:
            A ``LinearOperator`` on NumPy arrays of the same (at least single) precision.
        """
        from scipy.sparse.linalg import LinearOperator

        dtype = torch.empty(0, dtype=self.accumulate_dtype).numpy().dtype

        def product(x: object) -> object:
            v = torch.as_tensor(x, dtype=self._dtype, device=self._device)
            return self.matvec(v.reshape(-1)).to(self.accumulate_dtype).cpu().numpy()

        def products(x: object) -> object:
            V = torch.as_tensor(x, dtype=self._dtype, device=self._device)
            return self.matmat(V).to(self.accumulate_dtype).cpu().numpy()

        return LinearOperator(
            self.shape, matvec=product, rmatvec=product, matmat=products, dtype=dtype
        )

    def __add__(self, other: SymmetricOperator) -> SymmetricOperator:
        if not isinstance(other, SymmetricOperator):
            return NotImplemented
        return CombinedOperator([(1.0, self), (1.0, other)])

    def __sub__(self, other: SymmetricOperator) -> SymmetricOperator:
        if not isinstance(other, SymmetricOperator):
            return NotImplemented
        return CombinedOperator([(1.0, self), (-1.0, other)])

    def __mul__(self, scalar: float) -> SymmetricOperator:
        if isinstance(scalar, bool) or not isinstance(scalar, (int, float)):
            return NotImplemented
        return CombinedOperator([(float(scalar), self)])

    __rmul__ = __mul__

    def __neg__(self) -> SymmetricOperator:
        return CombinedOperator([(-1.0, self)])

    def shift(self, c: float) -> SymmetricOperator:
        """Add a multiple of the identity.

        Args:
            c: The multiple; minus the weight decay takes an L2 term out of a Hessian.

        Returns:
            The operator :math:`A + c I`.
        """
        return CombinedOperator([(1.0, self)], shift=float(c))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(size={self._size}, dtype={self._dtype}, device={self._device})"
        )


class CombinedOperator(SymmetricOperator):
    """A weighted sum of operators plus a multiple of the identity; made by ``+``, ``-``, ``*``."""

    def __init__(self, terms: list[tuple[float, SymmetricOperator]], *, shift: float = 0.0) -> None:
        first = terms[0][1]
        for _, op in terms[1:]:
            if (op.shape, op.dtype, op.device) != (first.shape, first.dtype, first.device):
                raise ValueError(
                    "operators must agree in shape, dtype and device to be combined, got "
                    f"{first.shape}, {first.dtype}, {first.device} and "
                    f"{op.shape}, {op.dtype}, {op.device}"
                )
        super().__init__(first.shape[0], dtype=first.dtype, device=first.device)
        self._terms = terms
        self._shift = shift

    @property
    def dimension(self) -> int:
        """Order of the whole matrix."""
        return self._terms[0][1].dimension

    def apply(self, v: Tensor) -> Tensor:
        """Sum of the products."""
        total = self._shift * v
        for scale, op in self._terms:
            total = total.add(op.apply(v), alpha=scale)
        return total

    def apply_block(self, V: Tensor) -> Tensor:
        """Sum of the block products."""
        total = self._shift * V
        for scale, op in self._terms:
            total = total.add(op.apply_block(V), alpha=scale)
        return total

    def _columns(self, unit: Tensor) -> Tensor:
        """Sum of the terms' own batched columns."""
        total = self._shift * unit
        for scale, op in self._terms:
            total = total.add(op._columns(unit), alpha=scale)
        return total

    def _multiply_dict(self, v: dict[str, Tensor]) -> dict[str, Tensor]:
        """Product in the layout of the terms, which must be operators of a model."""
        parts = [(scale, op @ v) for scale, op in self._terms]
        return {
            name: self._shift * x + sum(scale * part[name] for scale, part in parts)
            for name, x in v.items()
        }

    def diagnose(self, v: Tensor) -> None:
        """Let the term that fails speak."""
        for _, op in self._terms:
            if not bool(torch.isfinite(op.apply(v)).all()):
                op.diagnose(v)
        super().diagnose(v)

    def reduce(self, partial: Tensor) -> Tensor:
        """As the terms do."""
        return self._terms[0][1].reduce(partial)

    def synchronize(self, v: Tensor) -> Tensor:
        """As the terms do."""
        return self._terms[0][1].synchronize(v)

    def stream(self, generator: torch.Generator) -> torch.Generator:
        """As the terms do."""
        return self._terms[0][1].stream(generator)
