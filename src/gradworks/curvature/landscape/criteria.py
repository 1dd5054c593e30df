"""Numbers of a spectrum that should follow generalisation when the data change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradworks.curvature.probes import check_count
from gradworks.curvature.quadrature import SpectralMeasure

__all__ = ["MAINLY_POSITIVE", "HessianCriteria", "esd_curve", "hessian_criteria"]

# C_t above which a spectrum counts as mainly positive (arXiv:2504.17618, as summarised).
MAINLY_POSITIVE = -0.6


@dataclass(frozen=True)
class HessianCriteria:
    """Criteria of a spectrum, means over runs, with the settings they depend on.

    Attributes:
        re: Mean of ``|min t / max t|``.
        kh: Mean of the ratio of negative to positive mass, of order ``n``.
        type_ratio: ``C_t``, mean of ``min t / max t``.
        per_run: ``re``, ``kh`` and ``type_ratio`` of each run, ``(runs,)`` each.
        n: The order.
        num_steps: Nodes of each run: for ``n < 1`` the value depends on them.
        num_probes: Runs.
    """

    re: float
    kh: float
    type_ratio: float
    per_run: Mapping[str, Tensor]
    n: float
    num_steps: tuple[int, ...]
    num_probes: int

    @property
    def applies(self) -> bool:
        """Whether the spectrum is mainly positive; else the criteria say nothing."""
        return self.type_ratio > MAINLY_POSITIVE

    def to_dict(self) -> dict[str, object]:
        """Plain numbers for JSON.

        Returns:
            All fields, and ``applies``.
        """
        return {
            "re": self.re,
            "kh": self.kh,
            "type_ratio": self.type_ratio,
            "applies": self.applies,
            "n": self.n,
            "num_steps": list(self.num_steps),
            "num_probes": self.num_probes,
            "reorthogonalisation": "full",
            "per_run": {name: t.tolist() for name, t in self.per_run.items()},
        }


def hessian_criteria(measure: SpectralMeasure, n: float = 0.5) -> HessianCriteria:
    r"""The paper's criteria of a spectrum: smaller means fewer and weaker negative directions.

    .. math:: r_e = \left| \frac{\min t}{\max t} \right|, \qquad
        K_{H,n} = \frac{\sum_{t<0} |t w|^n}{\sum_{t>0} (t w)^n}, \qquad
        C_t = \frac{\min t}{\max t}

    for the nodes t and weights w of each run, then the mean over runs.

    Args:
        measure: From :func:`~gradworks.curvature.lanczos.slq` of the Hessian.
        n: The order, positive. Default 0.5; 1 gives the ratio of the negative to the positive
            part of the trace.

    Returns:
        The three numbers, those of each run, and the settings.

    Raises:
        TypeError: ``measure`` is no :class:`~gradworks.curvature.lanczos.SpectralMeasure`.
        ValueError: ``n`` not positive and finite, or a run without a positive node.

    Note:
        For ``n < 1`` the value is one of the discretisation too: it grows with the Lanczos steps
        and with ghost eigenvalues. Compare only values of the same steps and probes. Where
        ``C_t`` is below -0.6 (``applies`` is false) the criteria are not meant to be used.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import hessian_criteria
        >>> from gradworks.curvature.lanczos import SpectralMeasure
        >>> t, w = torch.tensor([-1.0, 1.0, 4.0]), torch.tensor([0.25, 0.5, 0.25])
        >>> found = hessian_criteria(SpectralMeasure([t], [w], 3), n=1)
        >>> found.re, round(found.kh, 4), found.applies
        (0.25, 0.1667, True)

    References:
        Gabdullin, arXiv:2412.10146 (2024); ``C_t``: arXiv:2504.17618 (2025).
    """
    if not isinstance(measure, SpectralMeasure):
        raise TypeError(f"measure must be a SpectralMeasure, got {type(measure).__name__}")
    if isinstance(n, bool) or not (n > 0 and math.isfinite(n)):
        raise ValueError(f"n must be positive and finite, got {n!r}")
    ratios, masses = [], []
    for r, (nodes, weights) in enumerate(zip(measure.nodes, measure.weights)):
        t, w = nodes.detach().double(), weights.detach().double()
        if not bool((t > 0).any()):
            raise ValueError(
                f"run {r} of the measure has no positive node; the criteria need positive "
                "curvature somewhere"
            )
        mass = (t * w).abs() ** n
        ratios.append(t.min() / t.max())
        masses.append(mass[t < 0].sum() / mass[t > 0].sum())
    ratio, kh = torch.stack(ratios).cpu(), torch.stack(masses).cpu()
    return HessianCriteria(
        re=float(ratio.abs().mean()),
        kh=float(kh.mean()),
        type_ratio=float(ratio.mean()),
        per_run={"re": ratio.abs(), "kh": kh, "type_ratio": ratio},
        n=float(n),
        num_steps=tuple(len(t) for t in measure.nodes),
        num_probes=len(measure.nodes),
    )


def esd_curve(
    measure: SpectralMeasure,
    *,
    num_bins: int = 10_000,
    variance: float = 1e-5,
    margin: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    r"""The density as the paper draws it: narrow Gaussian kernels on a grid.

    Kernels have :math:`\sigma^2 = \text{variance} \cdot \max(1, \text{range})`; the grid runs from
    the runs' mean smallest node minus ``margin`` to their mean largest plus ``margin``; the sum
    times the grid's step is 1. With an error band: ``measure.density()``.

    Args:
        measure: Nodes and weights.
        num_bins: Points of the grid, at least 2.
        variance: Of the kernels, relative to the range, positive.
        margin: Beyond the ends.

    Returns:
        Grid and density, ``(num_bins,)`` each, float64.

    Raises:
        ValueError: ``num_bins`` below 2, or ``variance`` not positive.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import esd_curve
        >>> from gradworks.curvature.lanczos import SpectralMeasure
        >>> one = SpectralMeasure([torch.tensor([0.0, 1.0])], [torch.tensor([0.5, 0.5])], 2)
        >>> grid, density = esd_curve(one, num_bins=100)
        >>> round(float(density.sum() * (grid[1] - grid[0])), 6)
        1.0
    """
    if check_count("num_bins", num_bins) < 2:
        raise ValueError(f"num_bins must be at least 2, got {num_bins}")
    if not variance > 0:
        raise ValueError(f"variance must be positive, got {variance!r}")
    low = torch.stack([t.min() for t in measure.nodes]).double().mean().cpu() - margin
    high = torch.stack([t.max() for t in measure.nodes]).double().mean().cpu() + margin
    grid = low + (high - low) * torch.arange(num_bins, dtype=torch.float64) / (num_bins - 1)
    spread = variance * (high - low).clamp_min(1.0)
    runs = []
    for nodes, weights in zip(measure.nodes, measure.weights):
        t, w = nodes.detach().double().cpu(), weights.detach().double().cpu()
        # One node after the other: bins times nodes at once would not fit for long runs.
        total = torch.zeros_like(grid)
        for at, share in zip(t, w):
            total += share * torch.exp(-((grid - at) ** 2) / (2 * spread))
        runs.append(total)
    density = torch.stack(runs).mean(0)
    return grid, density / (density.sum() * (high - low) / (num_bins - 1))
