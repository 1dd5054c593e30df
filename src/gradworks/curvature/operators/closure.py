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

__all__ = ["ClosureHessian"]


class ClosureHessian(HessianOperator):
    """Made by :meth:`HessianOperator.from_closure`."""

    def __init__(
        self,
        closure: Callable[[], Tensor],
        params: Iterable[Tensor] | Mapping[str, Tensor] | Tensor,
        *,
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
        self._closure = closure
        self._probe_chunk = None
        self._start(
            layout,
            [Microbatch(0, 0, 1, None, None)],
            "double_backward",
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
            self._random.replay([]),
        ):
            yield

    def _loss(self, part: Microbatch, override: dict[str, Tensor] | None = None) -> Tensor:
        loss = self._closure()
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"closure must return one number as a tensor, got {found}")
        return self._scalar(loss, part)

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
        return ClosureHessian(self._closure, {n: every[n] for n in every if n in wanted})
