"""Operators made of what is there already: a matrix, or a function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradworks.curvature.operators.algebra import SymmetricOperator

__all__ = ["DenseOperator", "FunctionOperator"]


class DenseOperator(SymmetricOperator):
    """A symmetric matrix that is already there.

    Args:
        matrix: ``(P, P)``, real floating point, symmetric (only the product is used; it is not
            checked for symmetry).

    Raises:
        TypeError: ``matrix`` is not a tensor.
        ValueError: ``matrix`` is not square or not real floating point.

    Example:
        >>> import torch
        >>> from gradworks.curvature.operators import DenseOperator
        >>> DenseOperator(torch.diag(torch.tensor([1.0, 2.0]))) @ torch.ones(2)
        tensor([1., 2.])
    """

    def __init__(self, matrix: Tensor) -> None:
        if not isinstance(matrix, Tensor):
            raise TypeError(f"matrix must be a torch.Tensor, got {type(matrix).__name__}")
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix must be square, got shape {tuple(matrix.shape)}")
        super().__init__(matrix.shape[0], dtype=matrix.dtype, device=matrix.device)
        self.matrix = matrix.detach()

    def apply(self, v: Tensor) -> Tensor:
        """``matrix @ v``."""
        return self.matrix @ v

    def apply_block(self, V: Tensor) -> Tensor:
        """``matrix @ V``."""
        return self.matrix @ V


class FunctionOperator(SymmetricOperator):
    """A symmetric matrix given by a function.

    Args:
        matvec: ``(P,) -> (P,)``, linear and symmetric.
        size: P.
        dtype: Type of the vectors the function takes.
        device: Where they live.

    Raises:
        TypeError: ``matvec`` cannot be called.
        ValueError: ``size`` or ``dtype`` as for :class:`SymmetricOperator`.

    Example:
        >>> import torch
        >>> from gradworks.curvature.operators import FunctionOperator
        >>> op = FunctionOperator(lambda v: 3 * v, 2, dtype=torch.float64)
        >>> op.to_dense()
        tensor([[3., 0.],
                [0., 3.]], dtype=torch.float64)
    """

    def __init__(
        self,
        matvec: Callable[[Tensor], Tensor],
        size: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if not callable(matvec):
            raise TypeError(f"matvec must be callable, got {type(matvec).__name__}")
        super().__init__(size, dtype=dtype, device=device)
        self._function = matvec

    def apply(self, v: Tensor) -> Tensor:
        """Call the function and check the shape of what it gives."""
        product = self._function(v)
        if not isinstance(product, Tensor) or product.shape != v.shape:
            found = tuple(product.shape) if isinstance(product, Tensor) else type(product).__name__
            raise ValueError(f"matvec must return shape {tuple(v.shape)}, got {found}")
        return product.detach()
