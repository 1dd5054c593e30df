r"""The metric B of the method: primal norm :math:`\sqrt{h^\top B h}`, dual :math:`\sqrt{g^\top B^{-1} g}`."""  # noqa: E501

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Metric"]


class Metric:
    """A symmetric positive definite matrix: the identity, a diagonal, or dense with its factor.

    Args:
        matrix: None, ``(n,)`` or ``(n, n)``.
        like: A vector ``(n,)`` whose dtype and device are taken.

    Raises:
        TypeError: If it is neither None nor a tensor.
        ValueError: If its shape does not fit, or it is not symmetric positive definite.
    """

    def __init__(self, matrix: Tensor | None, like: Tensor) -> None:
        n = like.numel()
        self.matrix: Tensor | None = None
        self._factor: Tensor | None = None  # lower Cholesky factor of a dense metric
        if matrix is None:
            return
        if not isinstance(matrix, Tensor):
            raise TypeError(f"metric must be None or a tensor, got {type(matrix).__name__}")
        if tuple(matrix.shape) not in {(n,), (n, n)}:
            raise ValueError(
                f"metric must have shape ({n},) or ({n}, {n}), got {tuple(matrix.shape)}"
            )
        both_double = matrix.dtype == like.dtype == torch.float64
        matrix = matrix.detach().to(like)
        if matrix.ndim == 1:
            if not bool((matrix > 0).all() & torch.isfinite(matrix).all()):
                raise ValueError("metric must be positive definite: every entry above 0 and finite")
        else:
            allowed = (1e-10 if both_double else 1e-5) * matrix.abs().max()
            if not bool((matrix - matrix.T).abs().max() <= allowed):
                raise ValueError("metric must be symmetric and finite")
            self._factor, info = torch.linalg.cholesky_ex(matrix)
            if int(info) != 0:
                raise ValueError("metric must be positive definite: it has no Cholesky factor")
        self.matrix = matrix

    def apply(self, h: Tensor) -> Tensor:
        """``B h``."""
        if self.matrix is None:
            return h
        return self.matrix * h if self.matrix.ndim == 1 else self.matrix @ h

    def solve(self, g: Tensor) -> Tensor:
        """``B^-1 g`` of a vector or of columns ``(n, r)``."""
        if self.matrix is None:
            return g
        if self._factor is None:
            return g / (self.matrix if g.ndim == 1 else self.matrix.unsqueeze(1))
        columns = g.unsqueeze(1) if g.ndim == 1 else g
        return torch.cholesky_solve(columns, self._factor).view_as(g)

    def whiten(self, columns: Tensor) -> Tensor:
        """``C^-1 U`` with ``B = C C^T``, columns ``(n, r)``."""
        if self.matrix is None:
            return columns
        if self._factor is None:
            return columns / self.matrix.sqrt().unsqueeze(1)
        whitened: Tensor = torch.linalg.solve_triangular(self._factor, columns, upper=False)
        return whitened

    def unwhiten(self, columns: Tensor) -> Tensor:
        """``C^-T U``: from whitened columns back to steps."""
        if self.matrix is None:
            return columns
        if self._factor is None:
            return columns / self.matrix.sqrt().unsqueeze(1)
        steps: Tensor = torch.linalg.solve_triangular(self._factor.T, columns, upper=True)
        return steps

    def dual_norm(self, g: Tensor) -> Tensor:
        """``||g||_*``, a 0-d tensor."""
        if self.matrix is None:
            white = g
        else:
            white = self.whiten(g.unsqueeze(1))
        norm: Tensor = torch.linalg.vector_norm(white)
        return norm

    def add_to(self, H: Tensor, scale: float) -> Tensor:
        """``H + scale B``, a new matrix."""
        total = H.clone()
        if self.matrix is not None and self.matrix.ndim == 2:
            return total.add_(self.matrix, alpha=scale)
        diagonal = total.diagonal()
        if self.matrix is None:
            diagonal.add_(scale)
        else:
            diagonal.add_(self.matrix, alpha=scale)
        return total
