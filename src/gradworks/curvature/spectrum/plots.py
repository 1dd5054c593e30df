"""Matplotlib views of spectra and paths; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradworks.curvature.quadrature import SpectralMeasure
from gradworks.curvature.spectrum.measure import Spectrum, SpectrumReport
from gradworks.curvature.spectrum.path import PathLoss

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_path", "plot_spectrum"]

_INK = "#3b6ea5"
_ACCENT = "#c8553d"


def _axes(ax: Axes | None) -> Any:
    """The caller's axes, or new ones that no window manager knows of."""
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "gradworks[plots]"') from error
    return Figure(figsize=(7, 4), layout="constrained").add_subplot()


def plot_spectrum(
    found: SpectrumReport | Spectrum | SpectralMeasure | Tensor,
    ax: Axes | None = None,
    *,
    bins: int = 100,
    sigma: float | None = None,
    num_classes: int | None = None,
) -> Axes:
    """Draw a spectrum: counts of eigenvalues, or the density with its error band.

    The vertical axis is logarithmic, since thousands lie in the bulk and single ones outside.

    Args:
        found: A report, a spectrum, a measure or a vector of eigenvalues.
        ax: Where; default new axes (``axes.figure.savefig(...)`` writes them).
        bins: Bars, for exact spectra.
        sigma: Width of the kernels, for measures.
        num_classes: Marks the eigenvalue whose rank is the number of classes.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is absent.
        TypeError: ``found`` is something else.

    Example:
        >>> import torch
        >>> from gradworks.curvature.spectrum import plot_spectrum
        >>> plot_spectrum(torch.tensor([0.0, 0.1, 5.0])).get_xlabel()
        'eigenvalue'
    """  # noqa: DOC502
    outliers: Tensor | None = None
    if isinstance(found, SpectrumReport):
        outliers = found.split.outliers
        found = found.spectrum if found.spectrum is not None else _required(found.measure)
    values = found.eigenvalues if isinstance(found, Spectrum) else found
    if not isinstance(values, (Tensor, SpectralMeasure)):
        raise TypeError(
            "found must be a SpectrumReport, Spectrum, SpectralMeasure or tensor, got "
            f"{type(found).__name__}"
        )
    axes = _axes(ax)
    if isinstance(values, SpectralMeasure):
        grid = values.default_grid(sigma=sigma)
        density = values.density(grid, sigma)
        error = torch.nan_to_num(values.density_stderr(grid, sigma))
        floor = 1e-6 * float(density.max())
        low = (density - error).clamp_min(floor)
        axes.fill_between(grid.numpy(), low.numpy(), (density + error).numpy(), alpha=0.3)
        axes.plot(grid.numpy(), density.clamp_min(floor).numpy(), color=_INK)
        axes.set_ylabel("density")
    else:
        t = values.detach().cpu().double()
        axes.hist(t.numpy(), bins=bins, color=_INK)
        axes.set_ylabel("number of eigenvalues")
        if num_classes is not None and 1 <= num_classes <= len(t):
            at = float(t.sort(descending=True).values[num_classes - 1])
            axes.axvline(at, color=_ACCENT, linestyle="--", label=f"number {num_classes} from top")
            axes.legend()
    axes.set_yscale("log")
    if outliers is not None and len(outliers):
        low_edge = axes.get_ylim()[0]
        axes.plot(outliers.numpy(), [low_edge] * len(outliers), "|", color=_ACCENT, markersize=14)
    axes.set_xlabel("eigenvalue")
    return axes  # type: ignore[no-any-return]


def _required(measure: SpectralMeasure | None) -> SpectralMeasure:
    """A report has one of the two."""
    if measure is None:
        raise TypeError("found has neither a spectrum nor a measure")
    return measure


def plot_path(paths: PathLoss | Mapping[str, PathLoss], ax: Axes | None = None) -> Axes:
    """Draw the loss along one line or several.

    Args:
        paths: A path, or paths by label.
        ax: Where; default new axes.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is absent.

    Example:
        >>> import torch
        >>> from gradworks.curvature.spectrum import PathLoss, plot_path
        >>> path = PathLoss(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]), 0.0, 0.0, 1.0)
        >>> plot_path({"A to B": path}).get_ylabel()
        'loss'
    """  # noqa: DOC502
    axes = _axes(ax)
    named = {"": paths} if isinstance(paths, PathLoss) else dict(paths)
    for label, path in named.items():
        axes.plot(path.t.numpy(), path.loss.numpy(), label=f"{label} (climb {path.climb:.3g})")
    axes.set_xlabel("position on the line")
    axes.set_ylabel("loss")
    axes.legend()
    return axes  # type: ignore[no-any-return]
