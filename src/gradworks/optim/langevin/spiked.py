"""Tensor PCA: a planted direction in a symmetric tensor of noise, and what averages of it tend to.

The loss is ``-<T, theta^k>`` and its gradient ``-k T(theta, ..., theta, .)``, which holds for
symmetric tensors only: the noise is symmetrized.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradworks.optim.langevin.average import leading

__all__ = [
    "TensorPCA",
    "partial_trace",
    "power_iteration",
    "spiked_tensor",
    "tensor_gradient",
    "tensor_value",
]


def spiked_tensor(
    d: int,
    order: int,
    n_samples: float,
    *,
    direction: Tensor | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    r"""Draw a tensor with a planted direction, :math:`\theta_*^{\otimes k} + Z / \sqrt n`.

    Args:
        d: Dimension, at least 1.
        order: Number of indices :math:`k`, at least 2. Memory is ``d ** order``.
        n_samples: :math:`n`, above 0: so many noisy observations have been averaged.
        direction: :math:`\theta_*`, of any norm but 0; None: uniform, drawn before the noise.
        generator: Source of both, and where they lie; None: torch's, on the CPU.
        dtype: Of the result.

    Returns:
        The tensor, whose :math:`Z` is a standard normal one averaged over all permutations of its
        indices, and the unit direction.

    Raises:
        ValueError: If a number is out of range or ``direction`` is no vector of ``d`` entries.

    Example:
        >>> import torch
        >>> from gradworks.optim.langevin import spiked_tensor
        >>> T, theta = spiked_tensor(5, 3, 100, generator=torch.Generator().manual_seed(0))
        >>> T.shape, bool(torch.allclose(T, T.transpose(0, 2)))
        (torch.Size([5, 5, 5]), True)
    """
    for name, value, least in (("d", d, 1), ("order", order, 2)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 0 < n_samples < math.inf:
        raise ValueError(f"n_samples must be above 0 and finite, got {n_samples}")
    device = torch.device("cpu") if generator is None else generator.device
    theta = planted(d, direction, generator, dtype)
    z = torch.randn((d,) * order, dtype=dtype, device=device, generator=generator)
    noise = torch.zeros_like(z)
    for index in itertools.permutations(range(order)):
        noise += z.permute(index)
    noise /= math.factorial(order)
    spike = theta
    for _ in range(order - 1):
        spike = spike.unsqueeze(-1) * theta
    return spike + noise / math.sqrt(n_samples), theta


def planted(
    d: int, direction: Tensor | None, generator: torch.Generator | None, dtype: torch.dtype
) -> Tensor:
    """A unit vector: the given one, or a uniform one.

    Args:
        d: Dimension.
        direction: Any vector but zero, or None.
        generator: Source.
        dtype: Of the result.

    Returns:
        The vector.

    Raises:
        ValueError: If ``direction`` is no vector of ``d`` entries with a norm.
    """
    device = torch.device("cpu") if generator is None else generator.device
    if direction is None:
        direction = torch.randn(d, dtype=dtype, device=device, generator=generator)
    if tuple(direction.shape) != (d,):
        raise ValueError(f"direction must have shape ({d},), got {tuple(direction.shape)}")
    vector = direction.detach().to(device=device, dtype=dtype)
    norm = vector.norm()
    if not 0 < float(norm) < math.inf:
        raise ValueError(f"direction must have a finite norm above 0, got {float(norm)}")
    unit: Tensor = vector / norm
    return unit


def _check(T: Tensor, theta: Tensor | None = None) -> None:
    """Require equal sides, and vectors of that length."""
    if T.ndim < 2 or len(set(T.shape)) != 1:
        raise ValueError(f"T must have at least 2 dimensions of one size, got {tuple(T.shape)}")
    if theta is not None and (theta.ndim not in (1, 2) or theta.shape[-1] != T.shape[0]):
        raise ValueError(
            f"theta must have shape ({T.shape[0]},) or (chains, {T.shape[0]}) for a tensor of "
            f"shape {tuple(T.shape)}, got {tuple(theta.shape)}"
        )


def _contract(T: Tensor, theta: Tensor) -> Tensor:
    """All indices of T but one against every chain: ``(chains, d)``. T is read once."""
    d, rows = T.shape[0], theta.reshape(-1, T.shape[0])
    left = rows @ T.reshape(d, -1)  # (chains, d^(k-1))
    for _ in range(T.ndim - 2):
        left = torch.bmm(rows.unsqueeze(1), left.view(len(rows), d, left.shape[1] // d)).squeeze(1)
    return left.reshape(theta.shape)


def tensor_value(T: Tensor, theta: Tensor) -> Tensor:
    r"""Evaluate the form :math:`\langle T, \theta^{\otimes k} \rangle`.

    Args:
        T: ``(d, ..., d)``, k times; symmetric.
        theta: ``(d,)`` or ``(chains, d)``.

    Returns:
        A scalar, or one value a chain.

    Raises:
        ValueError: If shapes do not fit.
    """  # noqa: DOC502
    _check(T, theta)
    return (_contract(T, theta) * theta).sum(-1)


def tensor_gradient(T: Tensor, theta: Tensor) -> Tensor:
    r"""Gradient of :func:`tensor_value`, :math:`k\, T(\theta, \dots, \theta, \cdot)`.

    ``d ** k`` multiply-adds a chain, bound by reading T, which all chains share.

    Args:
        T: ``(d, ..., d)``, k times; symmetric, else this is no gradient.
        theta: ``(d,)`` or ``(chains, d)``.

    Returns:
        A tensor like ``theta``.

    Raises:
        ValueError: If shapes do not fit.

    Example:
        >>> import torch
        >>> from gradworks.optim.langevin import tensor_gradient
        >>> tensor_gradient(torch.diag(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 1.0]))
        tensor([2., 4.])
    """  # noqa: DOC502
    _check(T, theta)
    return _contract(T, theta) * T.ndim


def partial_trace(T: Tensor) -> Tensor:
    """Trace out pairs of indices until one (odd order) or two (even order) are left.

    The classical estimator of a planted direction: the vector, or the leading eigenvector.

    Args:
        T: ``(d, ..., d)``, at least twice.

    Returns:
        ``(d,)`` or ``(d, d)``.

    Raises:
        ValueError: If the sides differ.
    """  # noqa: DOC502
    _check(T)
    while T.ndim > 2:
        T = torch.diagonal(T, dim1=-2, dim2=-1).sum(-1)
    return T


def power_iteration(T: Tensor, theta0: Tensor, steps: int = 40) -> Tensor:
    r"""Refine an estimate by :math:`\theta \leftarrow T(\theta, \dots, \theta, \cdot)`, normalized.

    Args:
        T: Symmetric tensor.
        theta0: Where to start, ``(d,)`` or ``(chains, d)``, not zero.
        steps: How many; 40.

    Returns:
        Unit vectors like ``theta0``.

    Raises:
        ValueError: If shapes do not fit or ``steps`` is negative.
    """
    _check(T, theta0)
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    theta = unit_rows(theta0)
    for _ in range(steps):
        theta = unit_rows(_contract(T, theta))
    return theta


def unit_rows(x: Tensor) -> Tensor:
    """Rows of norm 1 whatever their scale; only zero stays zero."""
    return torch.nn.functional.normalize(x, dim=-1, eps=torch.finfo(x.dtype).tiny)


def double_factorial(k: int) -> int:
    """Product of k, k - 2, k - 4, ..., 1 for none."""
    return math.prod(range(k, 0, -2))


def rising(d: int, count: int) -> int:
    """Product of d, d + 2, ..., so many: denominators of the uniform law's moments."""
    return math.prod(range(d, d + 2 * count, 2))


@dataclass(frozen=True, eq=False)
class TensorPCA:
    """Tensor PCA as a problem for :func:`recover`.

    Args:
        T: Symmetric tensor.
        n_samples: As in :func:`spiked_tensor`; None estimates it from the norm of T, taking the
            signal's for 1.

    Raises:
        ValueError: If the sides differ or ``n_samples`` is out of range.
    """

    T: Tensor
    n_samples: float | None = None

    def __post_init__(self) -> None:
        _check(self.T)
        if self.n_samples is None:
            free = math.comb(self.dimension + self.order - 1, self.order)
            excess = float(self.T.square().sum()) - 1.0
            found = free / excess if excess > 0 else float(free)
            object.__setattr__(self, "n_samples", found)
        elif not 0 < self.n_samples < math.inf:
            raise ValueError(f"n_samples must be above 0 and finite, got {self.n_samples}")

    @property
    def order(self) -> int:
        """Number of indices."""
        return self.T.ndim

    @property
    def dimension(self) -> int:
        """Entries of the hidden direction."""
        return self.T.shape[0]

    @property
    def like(self) -> Tensor:
        """A tensor of the device and dtype of the chains."""
        return self.T

    def value(self, theta: Tensor) -> Tensor:
        """Loss, one value a chain."""
        return -tensor_value(self.T, theta)

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of the loss."""
        return -tensor_gradient(self.T, theta)

    def response(self) -> Tensor:
        r"""First-order response of the stationary law to the loss, times minus the temperature.

        Odd orders: :math:`E[\theta L]`, so that the average iterate is ``-response / temperature``
        up to the square of its inverse. Even orders: the covariance of :math:`\theta\theta^\top`
        and L, so that the second moment is ``I / d - response / temperature``. Expectations are
        over the uniform law on the sphere.

        Returns:
            ``(d,)`` or ``(d, d)``.
        """
        k, d, trace = self.order, self.dimension, partial_trace(self.T)
        if k % 2:
            return -double_factorial(k) / rising(d, (k + 1) // 2) * trace
        eye = torch.eye(d, dtype=trace.dtype, device=trace.device)
        whole = torch.trace(trace) * eye
        both = (k * trace + whole) * double_factorial(k - 1) / rising(d, k // 2 + 1)
        return -(both - whole / d * double_factorial(k - 1) / rising(d, k // 2))

    def reference(self) -> Tensor:
        """The partial-trace estimator, a unit vector."""
        trace = partial_trace(self.T)
        return trace / trace.norm() if self.order % 2 else leading(trace)

    def refine(self, theta: Tensor) -> Tensor:
        """Power iteration from an estimate."""
        return power_iteration(self.T, theta)
