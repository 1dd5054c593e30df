"""The Hessian of any scalar that a function computes; made by ``HessianOperator.from_closure``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from gradworks.curvature.operators.batches import Microbatch
from gradworks.curvature.operators.hessian import HessianOperator
from gradworks.curvature.operators.layout import Layout, Selection
from gradworks.curvature.operators.selfcheck import self_check
from gradworks.curvature.operators.surroundings import double_backward_kernels
from gradworks.curvature.operators.twice import eager_code, whole_weight_norm

__all__ = ["ClosureHessian"]

# The others need the parameters as arguments of a function.
_METHODS = ("double_backward", "finite_difference")


class ClosureHessian(HessianOperator):
    """Made by :meth:`HessianOperator.from_closure`."""

    def __init__(
        self,
        closure: Callable[[], Tensor],
        params: Iterable[Tensor] | Mapping[str, Tensor] | Tensor,
        *,
        method: str = "double_backward",
        cache: str = "auto",
        check: bool = False,
    ) -> None:
        if not callable(closure):
            raise TypeError(f"closure must be callable, got {type(closure).__name__}")
        if isinstance(params, Tensor):
            params = [params]
        named = (
            dict(params)
            if isinstance(params, Mapping)
            else {str(i): p for i, p in enumerate(params)}
        )
        if not named:
            raise ValueError("params is empty; give the tensors to differentiate by")
        for name, p in named.items():
            if not isinstance(p, Tensor):
                raise TypeError(f"params[{name}] must be a tensor, got {type(p).__name__}")
        layout = Layout(named)
        for name, p in named.items():
            if not p.requires_grad:
                raise ValueError(f"params[{name}] does not require a gradient: requires_grad_() it")
        if len({id(p) for p in named.values()}) < len(named):
            raise ValueError("params holds the same tensor twice; name it once")
        if method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
        self._closure = closure
        self._probe_chunk = None
        self._start(
            layout,
            [Microbatch(0, 0, 1, None, None)],
            method,
            "mean",
            cache,
            2**30,
            None,
        )
        if check:
            self_check(self)

    @contextmanager
    def _conditions(self) -> Iterator[None]:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            double_backward_kernels(),
            eager_code(),
            whole_weight_norm(True),
            self._random.replay([]),
        ):
            yield

    def _loss(self, part: Microbatch, override: dict[str, Tensor] | None = None) -> Tensor:
        loss = self._closure()
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"closure must return one number as a tensor, got {found}")
        return self._scalar(loss, part)

    def _finite_difference(self, part: Microbatch, v: Tensor) -> Tensor:
        """Central difference of two gradients, the tensors moved in place and put back."""
        before = [t.detach().clone() for t in self._layout.tensors]
        theta, norm = self._layout.join(before), v.norm()
        root = torch.finfo(self.dtype).eps ** (1 / 3)
        step = torch.where(norm > 0, root * (1 + theta.norm()) / norm, torch.ones_like(norm))
        grads, states = [], self._states()
        try:
            for sign in (1.0, -1.0):
                self._restore(states)
                self._write(self._layout.split(theta + sign * step * v))
                grads.append(self._layout.join(self._gradients(part)))
        finally:
            self._write(before)
        return (grads[0] - grads[1]) / (2 * step)

    def _write(self, values: list[Tensor]) -> None:
        """Put values into the tensors."""
        with torch.no_grad():
            for tensor, value in zip(self._layout.tensors, values):
                tensor.copy_(value)

    def _fingerprint(self) -> tuple[Any, ...]:
        return tuple((t.data_ptr(), t._version) for t in self._layout.tensors)

    def block(self, name: Selection) -> HessianOperator:  # type: ignore[override]
        """The diagonal block of some of the closure's tensors.

        Args:
            name: A name or a list of names.

        Returns:
            The operator of those.

        Raises:
            ValueError: No such name.
        """
        every = dict(zip(self._layout.names, self._layout.tensors))
        wanted = [name] if isinstance(name, str) else list(cast("Sequence[str]", name))
        unknown = [n for n in wanted if n not in every]
        if unknown or not wanted:
            raise ValueError(f"block has no tensor {unknown[:3]}; there are {self.names[:3]}")
        return ClosureHessian(
            self._closure, {n: every[n] for n in every if n in wanted}, method=self._method
        )
