"""The step itself, as a function of tensors, and whole trajectories without an optimizer.

The noise of a step has the scale ``sqrt(2 lr temperature)``. On the sphere gradient and noise are
both projected; going back to the sphere supplies the drift ``-(d - 1) temperature theta`` of the
stochastic differential equation, which must not be added a second time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from gradworks.optim.arguments import at_least_zero, learning_rate
from gradworks.optim.sharded import is_sharded

__all__ = [
    "MANIFOLDS",
    "check_manifold",
    "check_temperature",
    "langevin_step",
    "many_steps",
    "noise_scale",
    "one_step",
    "trajectory",
]

MANIFOLDS = ("sphere", "euclidean")
BLOCK = 64  # steps of a trajectory between two looks at whether it is still finite


def check_manifold(value: object) -> None:
    """Require one of the two manifolds.

    Args:
        value: What was given as ``manifold``.

    Raises:
        TypeError: If it is no string.
        ValueError: If it is neither.
    """
    if not isinstance(value, str):
        raise TypeError(f"manifold must be one of {MANIFOLDS}, got {type(value).__name__}")
    if value not in MANIFOLDS:
        raise ValueError(f"manifold must be one of {MANIFOLDS}, got {value!r}")


def check_temperature(value: object) -> float:
    """Require a finite temperature that is not negative.

    Args:
        value: What was given as ``temperature``.

    Returns:
        The value as a float.

    Raises:
        ValueError: If it is negative or not finite.
    """
    number = at_least_zero("temperature", value)
    if number == math.inf:
        raise ValueError("temperature must be finite, got inf")
    return number


def noise_scale(lr: float | Tensor, temperature: float) -> float | Tensor:
    """Standard deviation of a step's noise, ``sqrt(2 lr temperature)``."""
    if isinstance(lr, Tensor):
        return (2 * temperature * lr).sqrt()
    return math.sqrt(2 * lr * temperature)


def langevin_step(
    theta: Tensor,
    grad: Tensor,
    noise: Tensor | None,
    lr: float | Tensor,
    temperature: float,
    manifold: str = "sphere",
) -> Tensor:
    r"""One step of Langevin dynamics, a new tensor; everything that :class:`Langevin` computes.

    .. math::
        v &= -\eta g + \sqrt{2 \eta \varepsilon}\, \xi, \qquad
        v \leftarrow v - \frac{\langle v, \theta \rangle}{\lVert \theta \rVert^2} \theta \\
        \theta &\leftarrow \lVert \theta \rVert \frac{\theta + v}{\lVert \theta + v \rVert}

    Args:
        theta: Where it is. The last dimension is the sphere, whose radius is the current norm;
            leading ones are independent chains.
        grad: Euclidean gradient of the loss there.
        noise: Standard normal numbers of the same shape; None for none.
        lr: Step :math:`\eta`, at least 0.
        temperature: :math:`\varepsilon`, at least 0; the stationary law is
            :math:`\exp(-L / \varepsilon)`.
        manifold: ``"sphere"`` or ``"euclidean"``, where the first line's left half is all.

    Returns:
        Where it goes. A row with a NaN gradient goes to NaN, and so does one on the sphere whose
        squares overflow. Complex rows are pairs of reals.

    Raises:
        ValueError: If ``manifold`` is neither, a number is out of range, or there is a temperature
            and no noise.

    Example:
        >>> import torch
        >>> from gradworks.optim.langevin import langevin_step
        >>> theta = torch.tensor([0.6, 0.8])
        >>> there = langevin_step(theta, torch.tensor([0.0, -1.0]), None, 0.1, 0.0)
        >>> there, round(float(there.norm()), 6)
        (tensor([0.5510, 0.8345]), 1.0)
    """
    if not isinstance(lr, Tensor):
        learning_rate(lr)
    check_manifold(manifold)
    check_temperature(temperature)
    if noise is None and temperature > 0:
        raise ValueError(f"noise must be given at temperature {temperature}, got None")
    move = _move(grad, noise if temperature > 0 else None, lr, noise_scale(lr, temperature))
    if manifold == "euclidean":
        return theta + move
    square = dot(theta, theta)
    move = move - dot(move, theta) / square * theta
    there = theta + move
    ratio = square / dot(there, there)
    return there * ratio.masked_fill(_lost(ratio), math.nan).sqrt()


def _lost(ratio: Tensor) -> Tensor:
    """Rows whose norm cannot be restored: NaN, infinity, or squares out of the dtype's range."""
    return (ratio > torch.finfo(ratio.dtype).tiny).logical_not()


def _move(grad: Tensor, noise: Tensor | None, lr: float | Tensor, scale: float | Tensor) -> Tensor:
    """Descent and noise before any projection, a new tensor."""
    if noise is None:
        return grad * -lr
    if isinstance(lr, Tensor):
        return (noise * scale).sub_(grad * lr)
    return (noise * scale).sub_(grad, alpha=lr)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products along the last dimension, which is kept; complex numbers as pairs."""
    if is_sharded(a):
        return ((a.conj() * b).real if a.is_complex() else a * b).sum(-1, keepdim=True)
    product: Tensor = torch.linalg.vecdot(a, b)
    return (product.real if a.is_complex() else product).unsqueeze(-1)


# ------------------------------------------------------- steps in place, for the optimizer


def one_step(
    param: Tensor,
    grad: Tensor,
    noise: Tensor | None,
    *,
    lr: float | Tensor,
    scale: float | Tensor,
    sphere: bool,
) -> None:
    """:func:`langevin_step` in place; what is not finite stays where it is."""
    move = _move(grad, noise, lr, scale)
    if not sphere:
        param.add_(move.nan_to_num_(0.0, 0.0, 0.0))
        return
    square = dot(param, param)
    along = dot(move, param).div_(square)
    there = move.addcmul_(param, along, value=-1).add_(param)
    # one entry that is not finite makes the inner products so: the whole row rests
    _go(param, there, square.div_(dot(there, there)))


def _go(param: Tensor, there: Tensor, ratio: Tensor) -> None:
    """Rows back to their norm, in place; those that are lost have not moved."""
    lost = _lost(ratio)
    torch.where(lost, param, there.mul_(ratio.sqrt_()), out=param)


def many_steps(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    noises: Sequence[Tensor] | None,
    *,
    lr: float | Tensor,
    scale: float | Tensor,
    sphere: bool,
) -> None:
    """:func:`one_step` for tensors of one device and dtype, elementwise parts all at once."""
    p, g = list(params), list(grads)
    if noises is None:
        moves = torch._foreach_mul(g, -lr)
    else:
        moves = torch._foreach_mul(list(noises), scale)
        if isinstance(lr, Tensor):
            torch._foreach_sub_(moves, torch._foreach_mul(g, lr))
        else:
            torch._foreach_sub_(moves, g, alpha=lr)
    if not sphere:
        for move in moves:
            move.nan_to_num_(0.0, 0.0, 0.0)
        torch._foreach_add_(p, moves)
        return
    squares = [dot(x, x) for x in p]
    alongs = [dot(move, x) for move, x in zip(moves, p)]
    torch._foreach_div_(alongs, squares)
    for move, x, along in zip(moves, p, alongs):
        move.addcmul_(x, along, value=-1)
    torch._foreach_add_(moves, p)
    torch._foreach_div_(squares, [dot(there, there) for there in moves])
    for x, there, ratio in zip(p, moves, squares):
        _go(x, there, ratio)


# ------------------------------------------------------- trajectories


def trajectory(
    gradient: Callable[[Tensor], Tensor],
    theta: Tensor,
    lr: float,
    temperature: float,
    steps: int,
    *,
    manifold: str = "sphere",
    generator: torch.Generator | None = None,
    block: int = BLOCK,
) -> Iterator[Tensor]:
    """Follow chains of a gradient that is a function, without autograd and without an optimizer.

    Chains are the leading dimensions of ``theta``: sixteen of them cost little more than one where
    the gradient reads a large tensor. To go on later, start from the last iterate with the same
    generator.

    Args:
        gradient: Euclidean gradient of the loss at all chains.
        theta: Where they start; left alone.
        lr: Step, above 0.
        temperature: At least 0; 0 draws nothing.
        steps: How many, at least 0.
        manifold: ``"sphere"`` or ``"euclidean"``.
        generator: Source of the noise, which may live on another device than the chains: the
            numbers are drawn there; None: torch's.
        block: Steps a piece, at least 1. Noise is drawn a piece at a time.

    Yields:
        Iterates ``(at most block, *theta.shape)``, the first one after the first step.

    Raises:
        ValueError: If an argument is out of range.
        RuntimeError: If an iterate is not finite; names the iteration and the step size.
    """  # noqa: DOC502
    check_manifold(manifold)
    check_temperature(temperature)
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be above 0 and finite, got {lr}")
    for name, value, least in (("steps", steps, 0), ("block", block, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    here = theta.detach()
    for first in range(0, steps, block):
        size = min(block, steps - first)
        found = torch.empty((size, *theta.shape), dtype=theta.dtype, device=theta.device)
        noises = normal(found, generator) if temperature > 0 else [None] * size
        with torch.no_grad():
            for t in range(size):
                step = langevin_step(here, gradient(here), noises[t], lr, temperature, manifold)
                found[t] = step
                here = found[t]
        _look(found, first, lr, temperature)
        yield found


def normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers of a tensor's shape, drawn where the generator lives.

    Args:
        like: Shape, dtype and device.
        generator: Source; None: torch's, on the tensor's device.

    Returns:
        A contiguous tensor: the memory format of ``like`` does not change who gets which number.
    """
    device = like.device if generator is None else generator.device
    pairs = like.is_complex()  # torch's complex normal has half the variance in each part
    shape, dtype = ((*like.shape, 2), like.dtype.to_real()) if pairs else (like.shape, like.dtype)
    drawn = torch.empty(shape, dtype=dtype, device=device).normal_(generator=generator)
    return (torch.view_as_complex(drawn) if pairs else drawn).to(like.device, non_blocking=True)


def _look(found: Tensor, first: int, lr: float, temperature: float) -> None:
    """Stop where chains have left the finite numbers."""
    sound = torch.isfinite(found).flatten(1).all(1)
    if not bool(sound.all()):
        t = int((~sound).nonzero()[0])
        raise RuntimeError(
            f"iteration {first + t + 1} is not finite at lr={lr:.3g}, "
            f"temperature={temperature:.3g}; take a smaller lr, or look at the gradient there"
        )
