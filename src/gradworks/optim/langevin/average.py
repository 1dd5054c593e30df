"""A running average of weights, and of their second moments, that any optimizer can be given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.optim.langevin.batch_norm import fresh_statistics
from gradworks.optim.sharded import is_sharded

__all__ = ["IterateAverage", "direction"]


class IterateAverage:
    r"""Equal-weight average of parameters over the steps of any optimizer.

    For evaluating the mean of the last steps instead of the last one (stochastic weight averaging:
    call :meth:`update` at a constant or cyclic rate, :meth:`swap` for evaluation), and for
    reading a direction off a chain (:func:`direction`). Not an exponential average: every counted
    step weighs the same.

    .. math::
        \bar\theta \leftarrow \bar\theta + (\theta - \bar\theta) / n, \qquad
        S \leftarrow S + (\theta \theta^\top - S) / n

    Args:
        params: Parameters, or tensors that are changed in place; or a module, whose parameters
            are taken.
        second_moment: Keep :math:`S` too: for a parameter ``(..., d)`` of shape ``(..., d, d)``,
            the last dimension being the vector.
        burn_in: Updates to leave out at the start, at least 0.
        every: Count one in so many of those that follow, at least 1, the first of them included.
        dtype: Of the averages; float64 also for float32 parameters: after :math:`10^8` steps a
            step's share in float32 is lost to rounding. Complex parameters take the complex
            counterpart.

    Attributes:
        count: Updates that were counted.
        mean: One average a parameter, zeros at first.
        second_moment: One matrix a parameter (or a stack of them), or None.

    Raises:
        TypeError: If ``params`` holds something else, or ``dtype`` is no floating type.
        ValueError: If a number is out of range or there is no parameter, or ``second_moment`` is
            asked for a scalar or a sharded parameter.

    Note:
        State: one tensor of ``dtype`` a parameter, d times as much for second moments. No copies
        where parameter and average have one dtype.

    Example:
        >>> import torch
        >>> from gradworks.optim.langevin import IterateAverage
        >>> weight = torch.nn.Parameter(torch.tensor([0.0, 4.0]))
        >>> average = IterateAverage([weight])
        >>> for _ in range(3):
        ...     weight.data += 1.0
        ...     average.update()
        >>> with average.swap():
        ...     print(weight.data)
        tensor([2., 6.])
        >>> weight.data, average.count
        (tensor([3., 7.]), 3)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | nn.Module,
        *,
        second_moment: bool = False,
        burn_in: int = 0,
        every: int = 1,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        for name, value, least in (("burn_in", burn_in, 0), ("every", every, 1)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating dtype of torch, got {dtype}")
        self.burn_in, self.every, self.count = burn_in, every, 0
        self._calls, self._swapped = 0, False
        self._params = _tensors(params)
        self.mean = [_zeros(p, dtype) for p in self._params]
        self.second_moment: list[Tensor] | None = None
        if second_moment:
            self.second_moment = [_square_of(m) for m in self.mean]

    @torch.no_grad()
    def update(self) -> None:
        """Count the parameters as they are now, if it is their turn; call it after ``step()``.

        Raises:
            RuntimeError: If the average itself is in their place.
        """
        if self._swapped:
            raise RuntimeError("update() inside swap() would average the average; leave swap first")
        self._calls += 1
        late = self._calls - self.burn_in - 1
        if late < 0 or late % self.every:
            return
        self.count += 1
        share = 1.0 / self.count
        now = [p.detach().to(m.dtype) for p, m in zip(self._params, self.mean)]
        if any(is_sharded(p) for p in now):
            for m, p in zip(self.mean, now):
                m.add_(p - m, alpha=share)
        else:
            torch._foreach_lerp_(self.mean, now, share)
        for square, p in zip(self.second_moment or (), now):
            rows = p.reshape(-1, p.shape[-1])
            flat = square.view(-1, p.shape[-1], p.shape[-1])
            flat.baddbmm_(
                rows.unsqueeze(-1), rows.conj().unsqueeze(-2), beta=1.0 - share, alpha=share
            )

    @contextmanager
    def swap(
        self, model: nn.Module | None = None, data: Iterable[Any] | None = None
    ) -> Iterator[None]:
        """Put the mean in the place of the parameters, and the parameters back on exit.

        Args:
            model: Whose batch-norm statistics are estimated anew over ``data`` for the mean
                weights, and set back on exit: those of the run belong to other weights.
            data: Batches of inputs: tensors, or tuples, lists or dicts whose first entry is one.

        Yields:
            Nothing.

        Raises:
            RuntimeError: If nothing is counted yet, or the mean is in their place already.
            ValueError: If only one of ``model`` and ``data`` is given, or ``data`` has no batch.
        """
        if (model is None) != (data is None):
            raise ValueError("model and data are given together or not at all, got one of them")
        if self._swapped:
            raise RuntimeError("the mean is in the parameters' place already")
        self._require_count("swap")
        before = [p.detach().clone() for p in self._params]
        with ExitStack() as stack:
            stack.callback(self._put_back, before)
            self._swapped = True
            self._put(self.mean)
            if model is not None and data is not None:
                stack.enter_context(fresh_statistics(model, data))
            yield

    def _put_back(self, before: list[Tensor]) -> None:
        self._swapped = False
        self._put(before)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        """Copy values into the parameters."""
        for param, value in zip(self._params, values):
            param.copy_(value)

    def _require_count(self, what: str) -> None:
        if not self.count:
            raise RuntimeError(
                f"{what} needs an average, but no update is counted yet (update() was called "
                f"{self._calls} times, burn_in={self.burn_in})"
            )

    @torch.no_grad()
    def all_reduce(self, group: Any = None) -> None:
        """Pool the averages of all processes, each weighted by its count: chains run side by side.

        Args:
            group: Process group; None: the default one.

        Raises:
            RuntimeError: If a parameter is sharded, or no process has counted anything.
        """
        if any(is_sharded(m) for m in self.mean):
            raise RuntimeError("sharded parameters are averaged in place already; nothing to pool")
        total = torch.tensor(float(self.count), dtype=torch.float64, device=self.mean[0].device)
        torch.distributed.all_reduce(total, group=group)
        own, self.count = self.count, int(total)
        self._require_count("all_reduce")
        for tensor in (*self.mean, *(self.second_moment or ())):
            tensor.mul_(own / self.count)
            torch.distributed.all_reduce(tensor, group=group)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on; tensors are not copied.

        Returns:
            Averages, counts and settings.
        """
        return {
            "mean": list(self.mean),
            "second_moment": None if self.second_moment is None else list(self.second_moment),
            "count": self.count,
            "calls": self._calls,
            "burn_in": self.burn_in,
            "every": self.every,
        }

    @torch.no_grad()
    def load_state_dict(self, sd: dict[str, Any]) -> None:
        """Go on from a state, settings included.

        Args:
            sd: From :meth:`state_dict`.

        Raises:
            ValueError: If it belongs to other parameters, or has second moments where these have
                none, or the reverse.
        """
        own = [*self.mean, *(self.second_moment or ())]
        given = [*sd["mean"], *(sd["second_moment"] or ())]
        means = len(self.mean) == len(sd["mean"])
        if not means or [tuple(x.shape) for x in own] != [tuple(x.shape) for x in given]:
            raise ValueError(
                f"the state holds averages of shapes {[tuple(x.shape) for x in given][:3]}, the "
                f"parameters need {[tuple(x.shape) for x in own][:3]}"
            )
        for tensor, value in zip(own, given):
            tensor.copy_(value)
        self.count, self._calls = int(sd["count"]), int(sd["calls"])
        self.burn_in, self.every = int(sd["burn_in"]), int(sd["every"])


def _tensors(params: Iterable[Tensor] | nn.Module) -> list[Tensor]:
    """A list of floating tensors."""
    if isinstance(params, nn.Module):
        params = params.parameters()
    elif isinstance(params, Tensor):
        raise TypeError("params must be an iterable of tensors or a module, got a tensor")
    found = list(params)
    if not found:
        raise ValueError("params holds no parameter")
    for x in found:
        if not isinstance(x, Tensor):
            raise TypeError(f"params must hold tensors, got {type(x).__name__}")
        if not (x.is_floating_point() or x.is_complex()):
            raise TypeError(f"params must be floating or complex, got {x.dtype}")
    return found


def _zeros(param: Tensor, dtype: torch.dtype) -> Tensor:
    """Where the mean will be."""
    if param.is_complex():
        dtype = dtype.to_complex()
    return torch.zeros_like(param, dtype=dtype, requires_grad=False)


def _square_of(mean: Tensor) -> Tensor:
    """Where the second moment will be."""
    if is_sharded(mean) or mean.ndim == 0:
        what = "sharded parameters" if is_sharded(mean) else "scalars"
        raise ValueError(f"second_moment=True does not work for {what}")
    return torch.zeros((*mean.shape, mean.shape[-1]), dtype=mean.dtype, device=mean.device)


def direction(average: IterateAverage, order: int, index: int = 0) -> Tensor:
    """Read the hidden direction off an average.

    Args:
        average: Of the chain.
        order: Order of the hidden signal (the information exponent), at least 2. Odd: the
            normalized mean. Even: both signs are equally likely, the mean tends to zero, and the
            direction is the leading eigenvector of the second moment; its sign is not determined
            (here the largest entry is positive).
        index: Which parameter.

    Returns:
        Unit vectors of the parameter's shape, one for each of its chains.

    Raises:
        ValueError: If ``order`` is below 2.
        RuntimeError: If nothing is counted yet, or ``order`` is even without second moments.

    Example:
        >>> import torch
        >>> from gradworks.optim.langevin import IterateAverage, direction
        >>> theta = torch.tensor([0.6, 0.8])
        >>> average = IterateAverage([theta], second_moment=True)
        >>> for sign in (1.0, -1.0):
        ...     _ = theta.copy_(sign * torch.tensor([0.6, 0.8]))
        ...     average.update()
        >>> direction(average, order=4)
        tensor([0.6000, 0.8000], dtype=torch.float64)
    """
    if isinstance(order, bool) or not isinstance(order, int):
        raise TypeError(f"order must be an integer, got {order!r}")
    if order < 2:
        raise ValueError(f"order must be at least 2, got {order}")
    average._require_count("direction")
    if order % 2:
        return torch.nn.functional.normalize(average.mean[index], dim=-1, eps=0.0)
    if average.second_moment is None:
        raise RuntimeError(
            f"order={order} is even: the mean tends to zero; construct the average with "
            "second_moment=True"
        )
    return leading(average.second_moment[index])


def leading(matrices: Tensor) -> Tensor:
    """Eigenvectors of the largest eigenvalues, the largest entry of each positive."""
    found: Tensor = torch.linalg.eigh(matrices).eigenvectors[..., -1]
    if found.is_complex():
        return found
    largest = found.gather(-1, found.abs().argmax(-1, keepdim=True))
    return found * largest.sign()
