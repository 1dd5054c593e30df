"""How far apart the head Hessians of domains are, without forming them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gradworks.curvature.alignment.domains import Domains, check_lists, gather
from gradworks.curvature.alignment.head import LinearHead, dense_hessian
from gradworks.curvature.lanczos import eigsh
from gradworks.curvature.operators import FunctionOperator

__all__ = ["block_products", "difference", "hessian_distance", "one_by_one"]

# Below this size a dense difference is cheap, and free of the cancellation of inner products.
_DENSE = 512
# Rows treated at once by the inner products.
_CHUNK = 2048


def one_by_one(
    features: Sequence[Tensor], logits: Sequence[Tensor], targets: Sequence[Tensor]
) -> list[Domains]:
    """Checked domains, each for itself, detached and in float64.

    Args:
        features: ``(n_e, d)`` for each domain.
        logits: ``(n_e, C)`` for each domain.
        targets: ``(n_e,)`` for each domain.

    Returns:
        One a domain.
    """
    checked = check_lists(features, logits, targets, validate=True)
    return [gather([z.detach().double()], [a.detach().double()], [y]) for z, a, y in zip(*checked)]


def difference(first: Domains, second: Domains, *, bias: bool) -> FunctionOperator:
    """Hessian of the first domain minus that of the second, as an operator.

    Args:
        first: A domain.
        second: Another.
        bias: Whether the head has a bias.

    Returns:
        ``(m, m)``, matrix-free.
    """
    heads = LinearHead(first, bias=bias), LinearHead(second, bias=bias)

    def product(v: Tensor) -> Tensor:
        return (heads[0].products(v[None, None]) - heads[1].products(v[None, None]))[0, 0]

    z = first.features
    return FunctionOperator(product, heads[0].size, dtype=z.dtype, device=z.device)


def block_products(first: Domains, second: Domains) -> Tensor:
    r"""Inner products of the blocks of two mean Hessians, from pairs of rows.

    A row's Hessian is :math:`A \otimes \tilde z \tilde z^\top`, so for blocks of bias and bias,
    weight and bias, weight and weight the inner product of rows i and j is :math:`\langle A_i, A_j
    \rangle (z_i^\top z_j)^{0, 1, 2}`.

    Args:
        first: A domain.
        second: Another, or the same.

    Returns:
        ``(3,)``; the whole Hessians' inner product is the first, twice the second and the third.
    """
    total = first.features.new_zeros(3)
    for i in range(0, len(first.features), _CHUNK):
        z, p = first.features[i : i + _CHUNK], first.probabilities[i : i + _CHUNK]
        for j in range(0, len(second.features), _CHUNK):
            w, q = second.features[j : j + _CHUNK], second.probabilities[j : j + _CHUNK]
            if first.binary:
                A = (p * (1 - p)) @ (q * (1 - q)).mT
            else:
                same = p @ q.mT
                A = same - p @ q.square().mT - p.square() @ q.mT + same.square()
            Z = z @ w.mT
            total = total + torch.stack([A.sum(), (A * Z).sum(), (A * Z.square()).sum()])
    return total / (len(first.features) * len(second.features))


def hessian_distance(
    features: Sequence[Tensor],
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    norm: Literal["spectral", "frobenius"] = "spectral",
    bias: bool = True,
    tol: float = 1e-9,
    max_steps: int = 300,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Distances between the head Hessians of all pairs of domains.

    .. math:: D_{ij} = \lVert H_i - H_j \rVert

    The spectral norm is what bounds the transfer measure
    (:func:`~gradworks.curvature.alignment.transfer_measure`); it is found by Lanczos' method on
    :math:`H_i - H_j`, of which only products are formed. The Frobenius norm comes from the matrix
    itself where that is small, else from inner products of rows.

    Args:
        features: ``(n_e, d)`` for each domain.
        logits: ``(n_e, C)`` for each domain; one column or none for one logit.
        targets: ``(n_e,)`` for each domain; Hessians do not depend on them.
        norm: ``"spectral"`` (default) or ``"frobenius"``.
        bias: Whether the head has a bias. Default True.
        tol: As for :func:`~gradworks.curvature.lanczos.eigsh`. Default 1e-9.
        max_steps: As for :func:`~gradworks.curvature.lanczos.eigsh`. Default 300.
        generator: Source of start vectors; ``None`` for a fresh one with seed 0.

    Returns:
        ``(domains, domains)``, float64, symmetric with zeros on the diagonal; without a graph.

    Raises:
        TypeError: As :class:`~gradworks.curvature.alignment.HGPAlignment`.
        ValueError: As :class:`~gradworks.curvature.alignment.HGPAlignment`, or an unknown ``norm``.

    Warns:
        RuntimeWarning: Lanczos' method has not converged.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import hessian_distance
        >>> z = [torch.tensor([[1.0]]), torch.tensor([[3.0]])]
        >>> hessian_distance(z, [torch.zeros(1)] * 2, [torch.tensor([1])] * 2, bias=False)
        tensor([[0., 2.],
                [2., 0.]], dtype=torch.float64)
    """  # noqa: DOC502
    if norm not in {"spectral", "frobenius"}:
        raise ValueError(f"norm must be 'spectral' or 'frobenius', got {norm!r}")
    with torch.no_grad():
        domains = one_by_one(features, logits, targets)
        first = domains[0].features
        found = first.new_zeros(len(domains), len(domains))
        for i in range(len(domains)):
            for j in range(i + 1, len(domains)):
                if norm == "spectral":
                    op = difference(domains[i], domains[j], bias=bias)
                    pairs = eigsh(op, which="LM", tol=tol, max_steps=max_steps, generator=generator)
                    value = pairs.values[0].abs()
                else:
                    value = _frobenius(domains[i], domains[j], bias)
                found[i, j] = found[j, i] = value
        return found


def _frobenius(first: Domains, second: Domains, bias: bool) -> Tensor:
    """Of the difference of two mean Hessians."""
    size = first.probabilities.shape[1] * (first.features.shape[1] + bias)
    if size <= _DENSE:
        gap = dense_hessian(first, bias=bias) - dense_hessian(second, bias=bias)
        return (gap * gap).sum().sqrt()
    blocks = block_gaps(first, second)
    whole = blocks[0] + 2 * blocks[1] + blocks[2] if bias else blocks[2]
    return whole.clamp_min(0).sqrt()


def block_gaps(first: Domains, second: Domains) -> Tensor:
    """Squared Frobenius norms of the differences of blocks, ``(3,)``."""
    return (
        block_products(first, first)
        - 2 * block_products(first, second)
        + block_products(second, second)
    ).clamp_min(0)
