"""One line of the contract: an optimizer, what it can and what it refuses; and how it is driven."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Shapes that every optimizer must take: conv, transposed rows, one row, one column, 1-d, 0-d, empty
SHAPES = ((6, 4), (3, 2, 3, 3), (7,), (1, 5), (5, 1), (5, 8), (), (1,), (0, 3))
PATHS: dict[str, dict[str, Any]] = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
Bad = tuple[Mapping[str, Any], type[Exception], str]


def plain_backward(optimizer: Optimizer, loss: Tensor) -> None:
    """Gradients as any training loop takes them."""
    loss.backward()


@dataclass(frozen=True, kw_only=True)
class Line:
    """One optimizer.

    What it cannot do is said here and tested to be refused; nothing is skipped.

    Args:
        make: The class.
        settings: Arguments of an ordinary user.
        required: Those of them without a default.
        suits: Settings without which it does not take every shape of ``SHAPES``.
        variants: Other settings whose paths must agree, added to ``settings``.
        paths: Ways to step that its constructor can be asked for.
        state: State tensors shaped like a vector or a convolution.
        matrix_state: Shapes of the state of a matrix (6, 4), where they are not the parameter's.
        conv_state: The same of a convolution (4, 3, 3, 3).
        integers: State that keeps integers, in every dtype.
        wide: State that is kept in float32 at least.
        counters: Further counts that it keeps, like ``step``.
        ungrouped: Arguments of the optimizer, not of its groups.
        counts: Whether it keeps a ``step``; of matrices only if ``counts_matrices`` is not False.
        capturable: Whether it takes ``capturable``.
        differentiable: Whether it takes ``differentiable``.
        decays: Whether it takes ``weight_decay``; where not, runs are without.
        smooth: Settings under which a step has a derivative everywhere.
        complex: None, or a fragment of the error for complex parameters.
        lr_tensor: Settings that the multi-tensor path needs for ``lr`` as a tensor.
        spoiled: What of a matrix one NaN in its gradient spoils: "entry", "row", "tensor",
            or "nothing": it rests.
        before: Called before each step, with gradients in place.
        backward: From a loss to all that a step needs.
        sharded: Settings of the runs with two processes.
        alone: Settings with which one process does what two do with weights in a placement.
        reductions: All-reduces of a step over weights sharded by rows.
        tolerance: Of a run in a dtype against float64, where not the common one.
        bad: (arguments, error, fragment of the message).
    """

    make: Callable[..., Optimizer]
    settings: Mapping[str, Any]
    required: Mapping[str, Any] = field(default_factory=dict)
    suits: Mapping[str, Any] = field(default_factory=dict)
    variants: tuple[Mapping[str, Any], ...] = ({},)
    paths: tuple[str, ...] = ("single", "foreach", "fused")
    state: tuple[str, ...] = ()
    matrix_state: Mapping[str, tuple[int, ...]] | None = None
    conv_state: Mapping[str, tuple[int, ...]] | None = None
    integers: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()
    ungrouped: tuple[str, ...] = ()
    counts: bool = True
    counts_matrices: bool = True
    capturable: bool = True
    differentiable: bool = True
    decays: bool = True
    smooth: Mapping[str, Any] = field(default_factory=dict)
    complex: str | None = None
    lr_tensor: Mapping[str, Any] = field(default_factory=dict)
    spoiled: str = "entry"
    before: Callable[[Any], None] | None = None
    backward: Callable[[Any, Tensor], None] = plain_backward
    sharded: Mapping[str, Any] = field(default_factory=dict)
    alone: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reductions: int = 0
    tolerance: Mapping[torch.dtype, float] = field(default_factory=dict)
    bad: tuple[Bad, ...] = ()

    def __str__(self) -> str:
        return self.make.__name__

    def on(self, params: Any, **settings: Any) -> Any:
        """The optimizer on parameters, ``settings`` on top of the line's."""
        if not self.decays:
            settings.pop("weight_decay", None)
        return self.make(params, **{**self.settings, **self.suits, **self.required, **settings})

    def asked(self, path: str, lr: object = None) -> dict[str, Any]:
        """Arguments for a path, and for a learning rate on it."""
        asked = dict(PATHS[path])
        if lr is not None:
            asked["lr"] = lr
        if isinstance(lr, Tensor) and path == "foreach":
            asked.update(self.lr_tensor)
        return asked

    def step(self, optimizer: Any) -> None:
        """One step with the gradients that are there."""
        if self.before is not None:
            self.before(optimizer)
        optimizer.step()

    def train(self, optimizer: Any, params: list[nn.Parameter], steps: Sequence[int]) -> None:
        """Steps with gradients that depend on the parameters and the number of the step only."""
        for step in steps:
            set_gradients(params, step)
            self.step(optimizer)


def parameters(
    shapes: tuple[tuple[int, ...], ...] = SHAPES,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> list[nn.Parameter]:
    """Parameters of given shapes."""
    g = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]
    return [nn.Parameter(x.to(dtype)) for x in drawn]


def gradient(param: Tensor, kind: int, g: torch.Generator) -> Tensor:
    """A gradient: by kind orthogonal per row (0), as a whole (1), in no way (2), or zero (3)."""
    values = param.detach()
    work = values if values.dtype in {torch.float64, torch.complex128} else values.float()
    grad = torch.randn(work.shape, generator=g, dtype=work.dtype)
    if kind == 3:
        return torch.zeros_like(values)
    if work.ndim > 1 and work.numel() > 0 and kind != 2:
        rows = work.flatten(1) if kind == 0 else work.reshape(1, -1)
        flat = grad.reshape(rows.shape)
        along = (flat * rows.conj()).sum(1, keepdim=True) / (rows.abs() ** 2).sum(1, keepdim=True)
        grad = (flat - along * rows).reshape(work.shape)
    return grad.to(values.dtype)


def set_gradients(params: list[nn.Parameter], step: int, *, seed: int = 1) -> None:
    """Give each parameter a gradient; over the steps every kind occurs for every parameter."""
    g = torch.Generator().manual_seed(1000 * seed + step)
    for i, param in enumerate(params):
        param.grad = gradient(param, (i + step) % 4, g).to(
            memory_format=torch.preserve_format, copy=True
        )


def train(optimizer: Optimizer, params: list[nn.Parameter], steps: Sequence[int]) -> None:
    """Steps with gradients that depend on the parameters and the number of the step only."""
    for step in steps:
        set_gradients(params, step)
        optimizer.step()


def values(params: list[nn.Parameter]) -> list[Tensor]:
    """Copies of the parameters."""
    return [param.detach().clone() for param in params]


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Groups without their parameters.

    Torch adds ``differentiable=False`` to every group that it loads.
    """
    return [
        {
            k: copy.deepcopy(v)
            for k, v in group.items()
            if k != "params" and (k, v) != ("differentiable", False)
        }
        for group in optimizer.param_groups
    ]


def assert_same(got: Sequence[Tensor], want: Sequence[Tensor]) -> None:
    """The same bits."""
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def assert_near(got: Sequence[Tensor], want: Sequence[Tensor]) -> None:
    """Equal but for the order of sums in float64."""
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
