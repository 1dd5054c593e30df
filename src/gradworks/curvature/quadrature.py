"""Spectral measures: nodes and weights of Gauss quadrature with error bars over runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SpectralMeasure"]

# Width of the density's kernel relative to the spread of the nodes.
RELATIVE_SIGMA = 0.01


@dataclass(frozen=True)
class SpectralMeasure:
    r"""An estimate of :math:`\frac1P \sum_i \delta(\lambda - \lambda_i)` from R independent runs.

    Attributes:
        nodes: Ritz values of each run, ascending, ``(m_r,)`` each.
        weights: Their weights, each run sums to 1.
        dimension: P.

    Example:
        >>> import torch
        >>> from gradworks.curvature.lanczos import SpectralMeasure
        >>> nodes, weights = torch.tensor([0.0, 4.0]), torch.tensor([0.75, 0.25])
        >>> measure = SpectralMeasure([nodes], [weights], 8)
        >>> float(measure.trace()), float(measure.cdf(torch.tensor(1.0)))
        (8.0, 0.75)
    """

    nodes: Sequence[Tensor]
    weights: Sequence[Tensor]
    dimension: int

    def __post_init__(self) -> None:
        if not self.nodes or len(self.nodes) != len(self.weights):
            raise ValueError(
                "nodes and weights must be lists of the same length of at least 1, got "
                f"{len(self.nodes)} and {len(self.weights)}"
            )
        for r, (t, w) in enumerate(zip(self.nodes, self.weights)):
            if t.dim() != 1 or t.shape != w.shape or len(t) == 0:
                raise ValueError(
                    f"nodes and weights of run {r} must be vectors of the same length, got "
                    f"{tuple(t.shape)} and {tuple(w.shape)}"
                )

    def _runs(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """One estimate a run."""
        return torch.stack([(w * f(t)).sum(-1) for t, w in zip(self.nodes, self.weights)])

    def expectation(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean of a function over the spectrum.

        Args:
            f: Elementwise function of eigenvalues, ``(m,) -> (m,)`` (or ``(..., m)``).

        Returns:
            The mean over runs of the weighted sums; P times it estimates ``tr f(A)``.
        """
        return self._runs(f).mean(0)

    def stderr(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """Standard error of :meth:`expectation` over runs.

        Args:
            f: As there.

        Returns:
            Sample standard deviation over runs divided by the root of their number; NaN for one.
        """
        runs = self._runs(f)
        if len(runs) < 2:
            return torch.full_like(runs[0], math.nan)
        return runs.std(0) / math.sqrt(len(runs))

    def trace(self) -> Tensor:
        """Estimate of the trace.

        Returns:
            P times the mean node.
        """
        return self.dimension * self.expectation(lambda t: t)

    def moment(self, k: int) -> Tensor:
        """Mean of the k-th power of the eigenvalues.

        Args:
            k: At least 0; exact for the start vectors up to 2m - 1.

        Returns:
            A scalar.

        Raises:
            ValueError: A negative or fractional ``k``.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 0:
            raise ValueError(f"k must be an integer of at least 0, got {k!r}")
        return self.expectation(lambda t: t**k)

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest node of all runs."""
        return min(float(t.min()) for t in self.nodes), max(float(t.max()) for t in self.nodes)

    def _sigma(self, sigma: float | None) -> float:
        """The kernel's width: given, or a hundredth of the spread."""
        if sigma is None:
            low, high = self.range
            return RELATIVE_SIGMA * (high - low) or RELATIVE_SIGMA * max(abs(high), 1.0)
        if not sigma > 0 or not math.isfinite(sigma):
            raise ValueError(f"sigma must be positive and finite, got {sigma}")
        return sigma

    def default_grid(self, num_points: int = 1000, *, sigma: float | None = None) -> Tensor:
        """A grid that holds all of the smoothed density.

        Args:
            num_points: At least 2.
            sigma: The kernel's width that will be used; margins are five of it.

        Returns:
            ``(num_points,)``.

        Raises:
            ValueError: ``num_points`` below 2 or ``sigma`` not positive.
        """
        if num_points < 2:
            raise ValueError(f"num_points must be at least 2, got {num_points}")
        low, high = self.range
        margin = 5 * self._sigma(sigma)
        return torch.linspace(low - margin, high + margin, num_points, dtype=self.nodes[0].dtype)

    def density(self, grid: Tensor | None = None, sigma: float | None = None) -> Tensor:
        """The density, smoothed by Gaussian kernels; it integrates to 1.

        Args:
            grid: Where, ``(n,)``; default :meth:`default_grid`.
            sigma: Standard deviation of the kernels; default a hundredth of the nodes' spread.

        Returns:
            ``(n,)``.

        Raises:
            ValueError: ``sigma`` not positive.
        """  # noqa: DOC502
        return self.expectation(self._kernel(grid, sigma))

    def density_stderr(self, grid: Tensor | None = None, sigma: float | None = None) -> Tensor:
        """Standard error of :meth:`density` over runs.

        Args:
            grid: As there.
            sigma: As there.

        Returns:
            ``(n,)``; NaN for one run.

        Raises:
            ValueError: ``sigma`` not positive.
        """  # noqa: DOC502
        return self.stderr(self._kernel(grid, sigma))

    def _kernel(self, grid: Tensor | None, sigma: float | None) -> Callable[[Tensor], Tensor]:
        """Gaussian kernels around each grid point, ``(m,) -> (n, m)``."""
        s = self._sigma(sigma)
        x = self.default_grid(sigma=s) if grid is None else grid
        norm = 1.0 / (s * math.sqrt(2 * math.pi))
        return lambda t: norm * torch.exp(-0.5 * ((x[:, None] - t) / s) ** 2)

    def cdf(self, x: Tensor | float) -> Tensor:
        """Share of the eigenvalues that are at most x.

        Args:
            x: Scalar or ``(n,)``.

        Returns:
            The same shape.
        """
        at = torch.as_tensor(x, dtype=self.nodes[0].dtype)
        return self.expectation(lambda t: (t <= at[..., None]).to(t.dtype))

    def cdf_stderr(self, x: Tensor | float) -> Tensor:
        """Standard error of :meth:`cdf` over runs.

        Args:
            x: Scalar or ``(n,)``.

        Returns:
            The same shape; NaN for one run.
        """
        at = torch.as_tensor(x, dtype=self.nodes[0].dtype)
        return self.stderr(lambda t: (t <= at[..., None]).to(t.dtype))

    def fraction_small(self, threshold: float) -> tuple[float, float]:
        """Share of the eigenvalues with magnitude below a threshold, with its standard error.

        Args:
            threshold: In units of the eigenvalues, positive.

        Returns:
            Share and standard error (NaN for one run).

        Raises:
            ValueError: ``threshold`` not positive.
        """
        if not threshold > 0:
            raise ValueError(f"threshold must be positive, got {threshold}")

        def small(t: Tensor) -> Tensor:
            return (t.abs() < threshold).to(t.dtype)

        return float(self.expectation(small)), float(self.stderr(small))

    def logdet(self) -> Tensor:
        """Estimate of the logarithm of the determinant.

        Returns:
            P times the mean logarithm of the nodes.

        Raises:
            ValueError: A node is not positive.
        """
        low = self.range[0]
        if low <= 0:
            raise ValueError(
                f"logdet needs positive nodes, the smallest is {low:.3g}; shift the operator"
            )
        return self.dimension * self.expectation(torch.log)
