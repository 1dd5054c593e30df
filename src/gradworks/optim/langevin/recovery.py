"""From a landscape to its hidden direction: a hot chain, its average, a climb."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gradworks.optim.langevin.average import leading
from gradworks.optim.langevin.dynamics import check_temperature, trajectory
from gradworks.optim.langevin.spiked import TensorPCA

__all__ = ["Problem", "Recovery", "recover"]

BURN_IN = 10.0  # relaxation times, each 1 / cs steps, before iterates count
CLEAR = 4.0  # a mean counts as one where its squared norm is so many times that of pure noise


@runtime_checkable
class Problem(Protocol):
    """What :func:`recover` asks of a landscape, and :class:`TensorPCA`, :class:`SingleIndex` have.

    ``order`` may be None where it is not known; ``like`` gives device and dtype of the chains;
    ``refine`` climbs from an estimate to an optimum nearby.
    """

    @property
    def dimension(self) -> int:
        """Entries of the hidden direction."""

    @property
    def n_samples(self) -> float | None:
        """Samples that the landscape is made of."""

    @property
    def order(self) -> int | None:
        """Order of the signal, None where unknown."""

    @property
    def like(self) -> Tensor:
        """A tensor of the device and dtype of the chains."""

    def gradient(self, theta: Tensor) -> Tensor:
        """Gradient of the loss, ``(chains, d)`` to ``(chains, d)``."""

    def refine(self, theta: Tensor) -> Tensor:
        """Climb from an estimate ``(d,)``."""


@dataclass(frozen=True, eq=False)
class Recovery:
    """What :func:`recover` found.

    Attributes:
        direction: Unit vector ``(d,)``, refined where asked for.
        estimate: The same before refinement.
        mean: Average iterate over chains and steps, ``(d,)`` float64.
        second_moment: Average of ``theta theta'``, ``(d, d)`` float64.
        last: Where the chains ended, ``(chains, d)``.
        odd: Whether the direction was read off the mean, or off the second moment.
        mean_norm: Norm of the mean.
        noise_level: The norm it would have by chance, ``sqrt(2 / (cs steps chains))``.
        eigenvalue_gap: Largest eigenvalue of the second moment less the one after it, times d.
        lr: Step.
        temperature: Temperature.
        steps: Steps that were averaged.
    """

    direction: Tensor
    estimate: Tensor
    mean: Tensor
    second_moment: Tensor
    last: Tensor
    odd: bool
    mean_norm: float
    noise_level: float
    eigenvalue_gap: float
    lr: float
    temperature: float
    steps: int

    def overlap(self, theta: Tensor) -> float:
        """Cosine of the found direction and another; of its absolute value where signs are lost.

        Args:
            theta: Any vector but zero.

        Returns:
            At most 1.
        """
        other = theta.to(self.direction)
        found = float(self.direction @ other / other.norm())
        return found if self.odd else abs(found)


def recover(
    problem: Problem | Tensor,
    *,
    temperature: float | None = None,
    c: float = 4.0,
    cs: float = 0.1,
    steps: int | None = None,
    chains: int = 1,
    refine: bool = True,
    generator: torch.Generator | None = None,
    order: int | None = None,
) -> Recovery:
    r"""Find a hidden direction by averaging a hot Langevin chain on the sphere.

    Args:
        problem: A symmetric tensor, :class:`TensorPCA`, :class:`SingleIndex` or any other
            :class:`Problem`.
        temperature: Of the chain; None: ``c / sqrt(n d)``.
        c: See there; 4 to 8. Below about 1 the chain freezes.
        cs: Time scale: ``lr = cs / (temperature d)``; 0.05 follows the dynamics closely, 0.2 is
            fast.
        steps: To average over, after ``10 / cs`` to forget the start; None: ``c^2 d^{3/2} / cs``,
            twice that for even orders, at least 4000.
        chains: Side by side; each takes all steps.
        refine: Climb from the estimate to the optimum nearby.
        generator: Source of start and noise; None: torch's.
        order: Order of the signal; None: the problem's own, and where it has none, odd if the mean
            stands out from its noise (twice the norm) and from the second moment's leading
            eigenvalue (half of its root), else even.

    Returns:
        Direction, averages and what they are worth: an average whose ``mean_norm`` is not above its
        ``noise_level`` (odd), or an ``eigenvalue_gap`` near 0 (even), shows noise.

    Raises:
        ValueError: If an argument is out of range, or the temperature cannot be chosen since the
            number of samples is unknown.
        TypeError: If ``problem`` is none.
        RuntimeError: If the chain is not finite; names the iteration and the step size.

    Example:
        >>> import torch
        >>> from gradworks.optim.langevin import recover, spiked_tensor
        >>> g = torch.Generator().manual_seed(1)
        >>> T, theta = spiked_tensor(8, 3, 200, generator=g)
        >>> found = recover(T, chains=4, steps=2000, generator=g)
        >>> found.overlap(theta) > 0.9
        True
    """  # noqa: DOC502
    if isinstance(problem, Tensor):
        problem = TensorPCA(problem)
    if not isinstance(problem, Problem):
        raise TypeError(
            "problem must be a tensor, TensorPCA, SingleIndex or another Problem, got "
            f"{type(problem).__name__}"
        )
    d, order = problem.dimension, problem.order if order is None else order
    if order is not None and order < 2:
        raise ValueError(f"order must be at least 2, got {order}")
    if d < 2:
        raise ValueError(f"the direction must have at least 2 entries, got {d}")
    for name, value in (("c", c), ("cs", cs)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value}")
    temperature = _temperature(problem, temperature, c)
    if steps is None:
        scale = temperature * math.sqrt((problem.n_samples or d) * d)
        share = 1 if order is not None and order % 2 else 2
        steps = max(4000, math.ceil(share * scale**2 * d**1.5 / cs))
    for name, count in (("steps", steps), ("chains", chains)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    lr = cs / (temperature * d)
    theta, mean, square = _run(
        problem, lr, temperature, math.ceil(BURN_IN / cs), steps, chains, generator
    )
    values = torch.linalg.eigvalsh(square)
    noise = math.sqrt(2 / (cs * steps * chains))
    norm = float(mean.norm())
    gap = float(values[-1] - values[-2])
    if order is None:  # chains that lock on to an even signal leave a mean, but a smaller one
        odd = norm**2 > CLEAR * max(noise**2, gap / CLEAR**2)
    else:
        odd = bool(order % 2)
    estimate = (mean / mean.norm() if odd else leading(square)).to(problem.like)
    return Recovery(
        direction=problem.refine(estimate) if refine else estimate,
        estimate=estimate,
        mean=mean,
        second_moment=square,
        last=theta,
        odd=odd,
        mean_norm=norm,
        noise_level=noise,
        eigenvalue_gap=d * gap,
        lr=lr,
        temperature=temperature,
        steps=steps,
    )


def _temperature(problem: Problem, temperature: float | None, c: float) -> float:
    """The given one, or that at which the chain wanders over nearly all of the sphere."""
    if temperature is not None:
        if not check_temperature(temperature) > 0:
            raise ValueError("temperature must be above 0 for an average to be over more than one")
        return float(temperature)
    if problem.n_samples is None:
        raise ValueError("temperature must be given where the problem's n_samples is None")
    return c / math.sqrt(problem.n_samples * problem.dimension)


def _run(
    problem: Problem,
    lr: float,
    temperature: float,
    burn_in: int,
    steps: int,
    chains: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Last iterates, mean and second moment of chains from uniform starts."""
    d, like = problem.dimension, problem.like
    device = like.device if generator is None else generator.device
    start = torch.randn(chains, d, dtype=like.dtype, device=device, generator=generator)
    theta = torch.nn.functional.normalize(start.to(like.device), dim=-1)
    for block in trajectory(problem.gradient, theta, lr, temperature, burn_in, generator=generator):
        theta = block[-1]
    wide = torch.float64 if like.device.type != "mps" else torch.float32
    mean = torch.zeros(d, dtype=wide, device=like.device)
    square = torch.zeros(d, d, dtype=wide, device=like.device)
    for block in trajectory(problem.gradient, theta, lr, temperature, steps, generator=generator):
        theta = block[-1]
        rows = block.reshape(-1, d).to(wide)
        mean += rows.sum(0)
        square += rows.T @ rows
    return theta, mean / (steps * chains), square / (steps * chains)
