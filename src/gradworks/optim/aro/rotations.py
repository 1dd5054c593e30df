"""The rotation of ARO: an orthogonal matrix from the cross-Gram matrix of momentum and its map."""

from __future__ import annotations

import torch
from torch import Tensor

from gradworks.optim.aro.maps import BaseMap, floor_of
from gradworks.optim.precision import work_dtype

__all__ = [
    "ROTATIONS",
    "clear_noise",
    "cross_gram",
    "descent_rate",
    "orthogonal_factor",
    "rotation_update",
    "shifted_cholesky_qr",
    "signed_qr",
]

ROTATIONS = ("qr", "scqr", "scqr2", "polar")


def clear_noise(X: Tensor) -> Tensor:
    """Zero rows that are rounding noise of a momentum of lower rank; maps would blow them up."""
    norms = torch.linalg.vector_norm(X, dim=-1, keepdim=True)
    least = 4 * X.shape[-2] ** 0.5 * torch.finfo(X.dtype).eps * norms.amax(-2, keepdim=True)
    kept: Tensor = X * (norms >= least)
    return kept


def signed_qr(A: Tensor) -> Tensor:
    """The orthogonal factor of Householder's QR, with a diagonal of R that is not negative.

    Args:
        A: Matrices (..., m, m).

    Returns:
        Q of each.
    """
    Q, upper = torch.linalg.qr(A)
    diagonal = upper.diagonal(dim1=-2, dim2=-1)
    signs = torch.where(diagonal < 0, -1.0, 1.0).to(Q.dtype)
    signed: Tensor = Q * signs.unsqueeze(-2)
    return signed


def shifted_cholesky_qr(A: Tensor, eps: float = 1e-6, passes: int = 1) -> Tensor:
    r"""An orthogonal factor by the Cholesky factor of the shifted Gram matrix.

    .. math:: P = A^T A + \epsilon I = C C^T, \qquad Q = A C^{-T}

    after A was scaled to unit columns on average. Products and triangular solves instead of
    Householder's chain: fast on accelerators. One pass is orthogonal only for a well-conditioned
    A (0.28 from it at a condition of 736 and eps = 1e-7); a second, of the first's result, restores
    it to rounding unless A is singular.

    Args:
        A: Matrices (..., m, m), m not below the number of columns.
        eps: Shift, above 0, of the first pass.
        passes: 1 or 2; the second is not shifted.

    Returns:
        Q of each; not finite where the Gram matrix has no Cholesky factor. The optimizer takes
        Householder's QR there.

    Raises:
        ValueError: If ``eps`` is not above 0 or ``passes`` not 1 or 2.

    Example:
        >>> import torch
        >>> from gradworks.optim.aro import shifted_cholesky_qr
        >>> Q = shifted_cholesky_qr(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), passes=2)
        >>> torch.allclose(Q.mT @ Q, torch.eye(2), atol=1e-5)
        True
    """
    if not eps > 0:
        raise ValueError(f"eps must be above 0, got {eps!r}")
    if passes not in {1, 2} or isinstance(passes, bool):
        raise ValueError(f"passes must be 1 or 2, got {passes!r}")
    dtype = A.dtype
    A = A.to(work_dtype(dtype))
    norm = torch.linalg.matrix_norm(A, keepdim=True).clamp_min(floor_of(A.dtype))
    Q = _cholesky_pass(A * (A.shape[-1] ** 0.5 / norm), eps)
    if passes == 2:
        Q = _cholesky_pass(Q, 0.0)
    return Q.to(dtype)


def _cholesky_pass(A: Tensor, shift: float) -> Tensor:
    """A C^-T; NaN where there is no C."""
    P = A.mT @ A
    if shift:
        P.diagonal(dim1=-2, dim2=-1).add_(shift)
    C, info = torch.linalg.cholesky_ex(P)
    Q = torch.linalg.solve_triangular(C.mT, A, upper=True, left=False)
    return torch.where((info == 0)[..., None, None], Q, torch.nan)


def _polar(A: Tensor) -> Tensor:
    """The closest orthogonal matrix: of all rotations the one that the frozen problem asks for."""
    U, _, V = torch.linalg.svd(A, full_matrices=False)
    found: Tensor = U @ V
    return found


def orthogonal_factor(A: Tensor, R: Tensor, rotation: str, eps: float) -> Tensor:
    """The new rotation, and the old one where A is zero or not finite.

    Nothing is read on the host, except on the CPU whether the fast factorization failed.

    Args:
        A: Cross-Gram matrices (..., m, m).
        R: Old rotations.
        rotation: How: "qr", "scqr", "scqr2" or "polar".
        eps: Shift of the fast factorization.

    Returns:
        Of the shape and dtype of ``R``.
    """
    usable = A.isfinite().all(-1).all(-1) & (A != 0).any(-1).any(-1)
    usable = usable[..., None, None]
    A = torch.where(usable, A, R)
    if rotation in {"scqr", "scqr2"}:
        Q = shifted_cholesky_qr(A, eps, 2 if rotation == "scqr2" else 1)
        found = Q.isfinite().all(-1).all(-1)[..., None, None]
        read = A.device.type == "cpu" and not torch.compiler.is_compiling()
        if not (read and bool(found.all())):
            Q = torch.where(found, Q, signed_qr(A))
    else:
        Q = _polar(A) if rotation == "polar" else signed_qr(A)
    return torch.where(usable, Q, R)


def cross_gram(M: Tensor, R: Tensor, f: BaseMap) -> Tensor:
    """M f(R^T M)^T, with noise cleared before f."""
    return M @ f(clear_noise(R.mT @ M)).mT


def rotation_update(
    M: Tensor, R: Tensor, f: BaseMap, rotation: str = "qr", eps: float = 1e-6
) -> Tensor:
    r"""Turn the frame once towards what a base map asks for.

    .. math:: R \leftarrow \text{Q-factor} \left( M f(R^T M)^T \right)

    With f the identity this is orthogonal iteration for the eigenvectors of :math:`M M^T`.

    Args:
        M: Momentum (..., m, n).
        R: Old rotation (..., m, m).
        f: Base map.
        rotation: "qr", "scqr", "scqr2" or "polar".
        eps: Shift of "scqr" and "scqr2".

    Returns:
        The new rotation; the old one where M is zero or not finite.

    Raises:
        ValueError: If ``rotation`` is unknown or shapes do not fit.

    Example:
        >>> import torch
        >>> from gradworks.optim.aro import rotation_update
        >>> M = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
        >>> rotation_update(M, torch.eye(2), torch.sign).abs().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if rotation not in ROTATIONS:
        raise ValueError(f"rotation must be one of {', '.join(ROTATIONS)}, got {rotation!r}")
    _check_shapes(M, R)
    return orthogonal_factor(cross_gram(M, R, f), R, rotation, eps)


def descent_rate(M: Tensor, R: Tensor, f: BaseMap) -> Tensor:
    r"""How much a step along R f(R^T M) decreases the loss, for its size.

    .. math:: \frac{\langle M, R f(R^T M) \rangle}{\lVert f(R^T M) \rVert_F}

    Args:
        M: Momentum (..., m, n).
        R: Rotation (..., m, m).
        f: Base map.

    Returns:
        One number a matrix; 0 where f is zero.

    Raises:
        ValueError: If shapes do not fit.

    Example:
        >>> import torch
        >>> from gradworks.optim.aro import descent_rate
        >>> descent_rate(torch.tensor([[3.0, 4.0]]), torch.eye(1), torch.sign).item()
        4.949747562408447
    """  # noqa: DOC502
    _check_shapes(M, R)
    mapped = f(R.mT @ M)
    norm = torch.linalg.matrix_norm(mapped).clamp_min(floor_of(M.dtype))
    rate: Tensor = (M * (R @ mapped)).sum((-2, -1)) / norm
    return rate


def _check_shapes(M: Tensor, R: Tensor) -> None:
    """Require rotations of the rows of M."""
    if M.dim() < 2 or R.dim() < 2 or R.shape[-2:] != (M.shape[-2], M.shape[-2]):
        raise ValueError(
            f"R must rotate the rows of M: (..., m, m) for (..., m, n), got {tuple(R.shape)} "
            f"for {tuple(M.shape)}"
        )
