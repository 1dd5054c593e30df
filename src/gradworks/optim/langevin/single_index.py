"""Single-index models: labels that depend on one hidden direction of Gaussian inputs.

The link is a normalized Hermite polynomial, whose degree is the information exponent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gradworks.optim.langevin.average import leading
from gradworks.optim.langevin.spiked import double_factorial, planted, rising, unit_rows

__all__ = ["SingleIndex", "hermite", "single_index"]

LOSSES = ("correlation", "square")


def hermite(x: Tensor, degree: int) -> Tensor:
    r"""Evaluate the normalized Hermite polynomial :math:`He_k(x) / \sqrt{k!}`.

    Args:
        x: Any tensor.
        degree: :math:`k`, at least 0.

    Returns:
        Values; mean square 1 over standard normal ``x``.

    Raises:
        ValueError: If ``degree`` is negative.

    Example:
        >>> import torch
        >>> from gradworks.optim.langevin import hermite
        >>> hermite(torch.tensor([1.0, 2.0]), 3)  # (x^3 - 3x) / sqrt(6)
        tensor([-0.8165,  0.8165])
    """
    if degree < 0:
        raise ValueError(f"degree must be at least 0, got {degree}")
    if degree == 0:
        return torch.ones_like(x)
    before: Tensor | float = 1.0
    now = x
    for k in range(1, degree):
        before, now = now, x * now - k * before
    return now / math.sqrt(math.factorial(degree))


def single_index(
    d: int,
    n: int,
    degree: int,
    *,
    direction: Tensor | None = None,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Draw inputs and labels :math:`y = He_k(\langle \theta_*, x \rangle) / \sqrt{k!} + \nu`.

    Args:
        d: Dimension, at least 1.
        n: Number of samples, at least 1.
        degree: Of the polynomial :math:`k`, at least 2: the information exponent.
        direction: :math:`\theta_*`, of any norm but 0; None: uniform, drawn first.
        noise: Standard deviation of :math:`\nu`, at least 0.
        generator: Source; None: torch's.

    Returns:
        Inputs ``(n, d)``, labels ``(n,)`` and the unit direction, float64.

    Raises:
        ValueError: If a number is out of range or ``direction`` is no vector of ``d`` entries.

    Example:
        >>> import torch
        >>> from gradworks.optim.langevin import hermite, single_index
        >>> X, y, theta = single_index(4, 10, 3, generator=torch.Generator().manual_seed(0))
        >>> bool(torch.allclose(y, hermite(X @ theta, 3)))
        True
    """
    for name, value, least in (("d", d, 1), ("n", n, 1), ("degree", degree, 2)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be at least 0 and finite, got {noise}")
    device = torch.device("cpu") if generator is None else generator.device
    theta = planted(d, direction, generator, torch.float64)
    X = torch.randn(n, d, dtype=torch.float64, device=device, generator=generator)
    y = hermite(X @ theta, degree)
    if noise:
        y += noise * torch.randn(n, dtype=torch.float64, device=device, generator=generator)
    return X, y, theta


@dataclass(frozen=True, eq=False)
class SingleIndex:
    r"""A single-index model as a problem for :func:`recover`.

    .. math::
        L_\text{correlation} = -\frac1n \sum_i y_i\, \sigma(\langle \theta, x_i \rangle), \qquad
        L_\text{square} = \frac1{2n} \sum_i (y_i - \sigma(\langle \theta, x_i \rangle))^2

    Args:
        X: Inputs ``(n, d)``.
        y: Labels ``(n,)``.
        degree: Of :math:`\sigma`, at least 2.
        loss: ``"correlation"`` or ``"square"``.

    Raises:
        ValueError: If shapes do not fit, or ``degree`` or ``loss`` is none of these.
    """

    X: Tensor
    y: Tensor
    degree: int
    loss: str = "correlation"

    def __post_init__(self) -> None:
        if self.X.ndim != 2 or self.y.shape != self.X.shape[:1] or not len(self.y):
            raise ValueError(
                f"X must have shape (n, d) and y shape (n,), got {tuple(self.X.shape)} and "
                f"{tuple(self.y.shape)}"
            )
        if self.degree < 2:
            raise ValueError(f"degree must be at least 2, got {self.degree}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {LOSSES}, got {self.loss!r}")

    @property
    def order(self) -> int:
        """Information exponent."""
        return self.degree

    @property
    def dimension(self) -> int:
        """Entries of the hidden direction."""
        return self.X.shape[1]

    @property
    def n_samples(self) -> float:
        """Number of samples."""
        return float(len(self.y))

    @property
    def like(self) -> Tensor:
        """A tensor of the device and dtype of the chains."""
        return self.X

    def value(self, theta: Tensor, rows: Tensor | None = None) -> Tensor:
        """Loss, one value a chain.

        Args:
            theta: ``(d,)`` or ``(chains, d)``.
            rows: Indices of a minibatch; None: all samples.

        Returns:
            A scalar or ``(chains,)``.
        """
        X, y = self._part(rows)
        found = hermite(theta @ X.T, self.degree)
        if self.loss == "square":
            return (y - found).square().mean(-1) / 2
        return -(y * found).mean(-1)

    def gradient(self, theta: Tensor, rows: Tensor | None = None) -> Tensor:
        """Gradient of the loss; a step of minibatch SGD takes it over some rows.

        Args:
            theta: ``(d,)`` or ``(chains, d)``.
            rows: Indices of a minibatch; None: all samples.

        Returns:
            A tensor like ``theta``.
        """
        X, y = self._part(rows)
        projected = theta @ X.T
        pull = y
        if self.loss == "square":
            pull = y - hermite(projected, self.degree)
        # derivative of He_k / sqrt(k!): sqrt(k) He_{k-1} / sqrt((k-1)!)
        slope = hermite(projected, self.degree - 1) * math.sqrt(self.degree)
        return -((pull * slope) @ X) / len(y)

    def _part(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        return (self.X, self.y) if rows is None else (self.X[rows], self.y[rows])

    def response(self) -> Tensor:
        r"""First-order response to the correlation loss, as :meth:`TensorPCA.response`.

        For degree 3 proportional to :math:`\frac1n \sum y_i x_i (\lVert x_i \rVert^2 / (d + 2) -
        1)`. For the square loss it is that of its correlation part.

        Returns:
            ``(d,)`` or ``(d, d)``.
        """
        d, degree = self.dimension, self.degree
        squares = self.X.square().sum(1)
        coefficients = _coefficients(degree)
        weight = torch.zeros_like(squares)
        flat = torch.zeros_like(squares)  # the part of E[theta theta' t^m] along the identity
        for m, c in enumerate(coefficients):
            if c == 0:
                continue
            if degree % 2:  # E[theta t^m] = m!! |x|^(m-1) x / (d (d+2) ...)
                power = squares ** ((m - 1) // 2)
                weight += c * double_factorial(m) / rising(d, (m + 1) // 2) * power
                continue
            half = squares ** (m // 2)
            both = c * double_factorial(m - 1) / rising(d, m // 2 + 1)
            if m:
                weight += both * m * squares ** (m // 2 - 1)
            flat += both * half - c * double_factorial(m - 1) / rising(d, m // 2) * half / d
        scale = -1.0 / (len(self.y) * math.sqrt(math.factorial(degree)))
        if degree % 2:
            return scale * ((self.y * weight) @ self.X)
        eye = torch.eye(d, dtype=self.X.dtype, device=self.X.device)
        outer = (self.X * (self.y * weight).unsqueeze(1)).T @ self.X
        return scale * (outer + (self.y @ flat) * eye)

    def reference(self) -> Tensor:
        """The estimator that the average tends to at high temperature, a unit vector."""
        found = -self.response()
        return found / found.norm() if self.degree % 2 else leading(found)

    def refine(self, theta: Tensor, steps: int = 200) -> Tensor:
        """Climb the correlation from an estimate: normalized gradients, each averaged with theta.

        Args:
            theta: ``(d,)`` or ``(chains, d)``, not zero.
            steps: How many.

        Returns:
            Unit vectors like ``theta``.
        """
        theta = unit_rows(theta)
        for _ in range(steps):
            theta = unit_rows(theta + unit_rows(-self.gradient(theta)))
        return theta


def _coefficients(degree: int) -> list[float]:
    """Coefficients of He_k, the constant first."""
    before, now = [0.0], [1.0]
    for k in range(degree):
        shifted = [0.0, *now]
        padded = before + [0.0] * (len(shifted) - len(before))
        before, now = now, [a - k * b for a, b in zip(shifted, padded)]
    return now
