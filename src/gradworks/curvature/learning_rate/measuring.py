"""Measure how the Hessian of a batch differs from that of all data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gradworks.curvature.lanczos import tridiagonalize
from gradworks.curvature.learning_rate.examples import Examples
from gradworks.curvature.learning_rate.fit import fit_noise
from gradworks.curvature.learning_rate.laws import full_eigenvalue
from gradworks.curvature.learning_rate.noise import NoiseModel, NoiseRow
from gradworks.curvature.operators.algebra import SymmetricOperator
from gradworks.curvature.operators.hessian import HessianOperator
from gradworks.curvature.operators.layout import Selection
from gradworks.curvature.operators.model import LossFn, Method
from gradworks.curvature.operators.surroundings import Mode
from gradworks.curvature.probes import check_count, random_vector

__all__ = ["device_of", "measure_noise", "ritz_values"]

Progress = Callable[[int, int], None]

# Products of one direct estimate: one with each of two disjoint batches.
_PAIR = 2


def device_of(model: object) -> torch.device:
    """Where the trainable parameters live."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for p in model.parameters():
        if p.requires_grad:
            return p.device
    raise ValueError("model has no trainable parameter; call requires_grad_() on some")


def ritz_values(
    op: SymmetricOperator, num_steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Ritz values ascending and their weights, from a random start."""
    return tridiagonalize(op, num_steps, generator=generator).quadrature()


class _Counter:
    """Products done, of all that will be."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, products: int) -> None:
        self._done += products
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def measure_noise(
    model: nn.Module,
    loss_fn: LossFn,
    dataset: Any,
    *,
    batch_sizes: Sequence[int] = (8, 32, 128),
    repeats: int = 8,
    num_steps: int = 25,
    method: Literal["fit", "direct"] = "fit",
    generator: torch.Generator | None = None,
    full_size: int | None = None,
    params: Selection = None,
    mode: Mode = "eval",
    microbatch_size: int | None = None,
    products: Method = "double_backward",
    progress: Progress | None = None,
) -> NoiseModel:
    r"""Measure :math:`\lambda_1` over all data and the noise :math:`\nu` of its batches.

    Random batches without replacement, in evaluation mode unless ``mode`` says otherwise; the model
    is left as it was. Both estimates of the noise are made where they can be, ``method`` says which
    one counts:

    - ``"fit"``: Law 1 fitted to the mean largest Ritz value at each batch size
      (:func:`fit_noise`).
    - ``"direct"``: :math:`\nu = B\,\overline{|(H_1 - H_2) z|^2} / 2P` over pairs of disjoint
      batches and random signs z. Two products a pair, but it takes the noise as spread evenly over
      all coordinates, which that of a network is not.

    Args:
        model: The model, at the weights of interest: curvature changes in training.
        loss_fn: ``(output, target) -> scalar``; the mean over the batch.
        dataset: One ``(inputs, targets)`` tuple, a re-iterable of such batches, a DataLoader or a
            torch ``Dataset`` of examples. Random augmentation changes the Hessian from product to
            product: leave it off.
        batch_sizes: Sizes to measure at, each at most N; at least two for a fit. Default 8, 32,
            128.
        repeats: Batches of each size, at least 1. Default 8.
        num_steps: Lanczos steps a batch, and over all data. Default 25.
        method: ``"fit"`` (default) or ``"direct"``.
        generator: Source of batches and probes, on the CPU; ``None`` for a fresh one with seed 0.
        full_size: Stand in for all data with this many random examples, where all are too many;
            its own excess is then taken out by the law.
        params: Restrict to some parameters, as for
            :class:`~gradworks.curvature.operators.HessianOperator`.
        mode: ``"eval"`` (default), ``"train"`` or ``"keep"``.
        microbatch_size: Cut batches into pieces of at most this many examples.
        products: The operator's ``method``; ``"finite_difference"`` where an operation has no
            second derivative.
        progress: Called with (products done, products in all).

    Returns:
        The two numbers, the table behind them and the rates they support.

    Raises:
        FloatingPointError: A product is not finite.
        TypeError: ``model``, ``loss_fn`` or ``dataset`` of a wrong type; one-shot data.
        ValueError: A batch size outside 1..N, fewer than two for a fit, a count below 1, an unknown
            method, empty data, or no positive curvature to fit to.

    Note:
        Costs ``num_steps`` products over all data and ``num_steps * repeats * sum(batch_sizes)``
        products of single examples, each about three gradients. The spec of Law 1 is isotropic
        noise; where excess falls faster than 1/b, the fit is a compromise: look at the table.
        Where two batches are disjoint their Hessians are not quite independent; B in place of the
        effective b in the direct estimate makes up for that exactly.

    Example:
        >>> import torch
        >>> from gradworks.curvature.learning_rate import measure_noise
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(400, 5, generator=g)
        >>> model = torch.nn.Linear(5, 1)
        >>> found = measure_noise(model, torch.nn.functional.mse_loss, (x, x.sum(1, keepdim=True)))
        >>> found.dataset_size, found.max_learning_rate(8) < found.max_learning_rate(400)
        (400, True)
    """  # noqa: DOC502
    if method not in ("fit", "direct"):
        raise ValueError(f"method must be one of fit, direct, got {method!r}")
    check_count("repeats", repeats)
    check_count("num_steps", num_steps)
    examples = Examples(dataset, device=device_of(model))
    total = len(examples)
    sizes = _check_sizes(batch_sizes, total, method)
    if full_size is not None and not check_count("full_size", full_size) <= total:
        raise ValueError(f"full_size must be at most {total} examples, got {full_size}")
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    steps = 1 + (len(sizes) * repeats if method == "fit" else 0)
    pairs = sum(repeats for size in sizes if 2 * size <= total)
    counter = _Counter(steps * num_steps + pairs * _PAIR, progress)

    def operator(data: Any) -> HessianOperator:
        return HessianOperator(
            model,
            loss_fn,
            data,
            params=params,
            method=products,
            mode=mode,
            microbatch_size=microbatch_size,
        )

    whole = (
        examples.in_order()
        if full_size in (None, total)
        else examples.draw(full_size or total, generator)
    )
    with operator(whole) as op:
        nodes, _ = ritz_values(op, num_steps, generator)
    counter.add(num_steps)
    rows = []
    for size in sizes:
        ends = []
        for _ in range(repeats if method == "fit" else 0):
            with operator(examples.draw(size, generator)) as op:
                found, _ = ritz_values(op, num_steps, generator)
            ends.append((float(found[-1]), float(found[0])))
            counter.add(num_steps)
        direct = None
        if 2 * size <= total:
            direct = _direct(operator, examples, size, repeats, generator, counter)
        tops, bottoms = tuple(t for t, _ in ends), tuple(b for _, b in ends)
        rows.append(NoiseRow(size, tops, bottoms, direct))
    return _model(rows, float(nodes[-1]), float(nodes[0]), total, full_size, method)


def _check_sizes(batch_sizes: Sequence[int], total: int, method: str) -> list[int]:
    """Sizes that the data hold, ascending."""
    sizes = [check_count("batch_sizes", size) for size in batch_sizes]
    if not sizes:
        raise ValueError("batch_sizes is empty; give at least one size, two for a fit")
    if max(sizes) > total:
        raise ValueError(
            f"batch_sizes must be at most the {total} examples of dataset, got {max(sizes)}"
        )
    if method == "fit" and len(set(sizes)) < 2:
        raise ValueError(f"batch_sizes must hold at least two different sizes, got {sizes}")
    if method == "direct" and 2 * min(sizes) > total:
        raise ValueError(
            "the direct estimate needs two disjoint batches: batch_sizes must reach down to "
            f"{total // 2}, got {sizes}"
        )
    return sorted(set(sizes))


def _direct(
    operator: Callable[[Any], HessianOperator],
    examples: Examples,
    size: int,
    repeats: int,
    generator: torch.Generator,
    counter: _Counter,
) -> float:
    """Mean of ``B |(H_1 - H_2) z|^2 / 2P`` over pairs of disjoint batches."""
    found = []
    for _ in range(repeats):
        index = torch.randperm(len(examples), generator=generator)
        first = operator(examples.take(index[:size]))
        second = operator(examples.take(index[size : 2 * size]))
        with first, second:
            z = first.synchronize(random_vector(first, "rademacher", generator))
            gap = (first.matvec(z) - second.matvec(z)).to(first.accumulate_dtype)
            found.append(float(first.reduce(torch.dot(gap, gap))) / first.dimension)
        counter.add(_PAIR)
    return size * float(np.mean(found)) / 2


def _model(
    rows: list[NoiseRow],
    top: float,
    bottom: float,
    total: int,
    full_size: int | None,
    method: str,
) -> NoiseModel:
    """Fit, direct estimate and the jackknife of the one that counts."""
    direct = [row.direct for row in rows if row.direct is not None]
    noise_direct = float(np.mean(direct)) if direct else None
    whole = full_size or total
    if method == "direct":
        error = float(np.std(direct, ddof=1)) / math.sqrt(len(direct)) if direct[1:] else math.nan
        noise = noise_direct or 0.0
        lam = full_eigenvalue(top, noise, whole, total) if whole < total else top
        return NoiseModel(lam, bottom, noise, tuple(rows), total, error, noise_direct=noise_direct)
    if not top > 0:
        raise ValueError(
            f"the largest eigenvalue over all data must be above 0 to fit the noise, got {top:.3g}"
        )
    sizes = [row.batch_size for row in rows]
    noise = fit_noise(sizes, [row.top for row in rows], top, total)
    lam = top
    if whole < total:  # the stand-in has an excess of its own, which depends on the noise
        for _ in range(20):
            lam = full_eigenvalue(top, noise, whole, total)
            noise = fit_noise(sizes, [row.top for row in rows], lam, total)
    return NoiseModel(
        lam,
        bottom,
        noise,
        tuple(rows),
        total,
        _jackknife(rows, lam, total),
        noise_fit=noise,
        noise_direct=noise_direct,
    )


def _jackknife(rows: list[NoiseRow], lam: float, total: int) -> float:
    """Standard error of the fit: one batch of every size left out in turn."""
    repeats = min(len(row.tops) for row in rows)
    if repeats < 2:
        return math.nan
    sizes = [row.batch_size for row in rows]
    left = [
        fit_noise(
            sizes,
            [float(np.mean([t for i, t in enumerate(row.tops) if i != out])) for row in rows],
            lam,
            total,
        )
        for out in range(repeats)
    ]
    return float(np.std(left)) * math.sqrt(repeats - 1)
