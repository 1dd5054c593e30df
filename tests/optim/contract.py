"""What every optimizer of the library must pass: one line a method in ``CONTRACT``.

``test_contract.py`` runs each line through all of it. A new optimizer adds a line here and writes
its own golden parity, transcription and identities beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradworks.optim import SGDP, AdamP

# Shapes that every optimizer must take: conv, transposed rows, one row, one column, 1-d, 0-d, empty
SHAPES = ((6, 4), (3, 2, 3, 3), (7,), (1, 5), (5, 1), (5, 8), (), (1,), (0, 3))


@dataclass(frozen=True, kw_only=True)
class Line:
    """One optimizer.

    Args:
        make: The class.
        settings: Arguments of an ordinary user.
        variants: Other settings whose paths must agree, added to ``settings``.
        state: State tensors shaped like the parameter.
        counts: Whether it keeps a ``step``.
        capturable: Whether it takes ``capturable``.
        bad: (arguments, error, fragment of the message).
    """

    make: Callable[..., Optimizer]
    settings: Mapping[str, Any]
    variants: tuple[Mapping[str, Any], ...] = ({},)
    state: tuple[str, ...] = ()
    counts: bool = True
    capturable: bool = True
    bad: tuple[tuple[Mapping[str, Any], type[Exception], str], ...] = field(default=())

    def __str__(self) -> str:
        return self.make.__name__

    def on(self, params: Any, **settings: Any) -> Optimizer:
        """The optimizer on parameters, ``settings`` on top of the line's."""
        return self.make(params, **{**self.settings, **settings})


SHARED_BAD = (
    ({"lr": -1.0}, ValueError, "lr must be at least 0 and finite, got -1.0"),
    ({"lr": float("nan")}, ValueError, "lr must be at least 0"),
    ({"lr": float("inf")}, ValueError, "lr must be at least 0 and finite"),
    ({"lr": torch.tensor(-1.0)}, ValueError, "lr must be at least 0"),
    ({"lr": torch.ones(2)}, ValueError, "one element, got shape (2,)"),
    ({"lr": "0.1"}, TypeError, "lr must be a number, got str"),
    ({"lr": None}, TypeError, "lr must be a number, got NoneType"),
    ({"lr": True}, TypeError, "lr must be a number, got bool"),
    ({"eps": -1e-8}, ValueError, "eps must be at least 0, got -1e-08"),
    ({"eps": float("nan")}, ValueError, "eps must be at least 0"),
    ({"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0, got -0.1"),
    ({"weight_decay": "0"}, TypeError, "weight_decay must be a number"),
    ({"maximize": 1}, TypeError, "maximize must be True or False, got 1"),
    ({"differentiable": None}, TypeError, "differentiable must be True or False"),
    ({"foreach": "yes"}, TypeError, "foreach must be True, False or None, got 'yes'"),
    ({"fused": 1}, TypeError, "fused must be True, False or None, got 1"),
    ({"foreach": True, "fused": True}, ValueError, "exclude each other"),
    ({"fused": True, "differentiable": True}, ValueError, "exclude each other"),
    ({"foreach": True, "differentiable": True}, ValueError, "exclude each other"),
)

PROJECTED_BAD = (
    ({"delta": -0.1}, ValueError, "delta must be at least 0, got -0.1"),
    ({"wd_ratio": 1.5}, ValueError, "wd_ratio must be in [0, 1], got 1.5"),
    ({"wd_ratio": -0.1}, ValueError, "wd_ratio must be in [0, 1], got -0.1"),
    ({"nesterov": "no"}, TypeError, "nesterov must be True or False"),
    ({"record_branches": 0}, TypeError, "record_branches must be True or False"),
    ({"channel_dim": 2}, ValueError, "channel_dim must be in [-2, 2) for a parameter of shape"),
    ({"channel_dim": 0.0}, TypeError, "channel_dim must be an integer"),
    ({"channel_dim": True}, TypeError, "channel_dim must be an integer"),
)

CONTRACT = (
    Line(
        make=AdamP,
        settings={"lr": 1e-2},
        variants=(
            {},
            {"weight_decay": 0.1, "delta": 0.3, "wd_ratio": 0.3},
            {"nesterov": True, "betas": (0.8, 0.97), "eps": 1e-6, "weight_decay": 0.05},
        ),
        state=("exp_avg", "exp_avg_sq"),
        bad=(
            *SHARED_BAD,
            *PROJECTED_BAD,
            ({"betas": (1.0, 0.9)}, ValueError, "betas[0] must be in [0, 1), got 1.0"),
            ({"betas": (0.9, -0.1)}, ValueError, "betas[1] must be in [0, 1), got -0.1"),
            ({"betas": (0.9, float("nan"))}, ValueError, "betas[1] must be in [0, 1)"),
            ({"betas": 0.9}, TypeError, "betas must be a pair"),
            ({"betas": (0.9,)}, TypeError, "betas must be a pair"),
            ({"capturable": 1}, TypeError, "capturable must be True or False"),
        ),
    ),
    Line(
        make=SGDP,
        settings={"lr": 5e-2, "momentum": 0.9},
        variants=(
            {},
            {"momentum": 0.0, "weight_decay": 0.01},
            {"dampening": 0.2, "weight_decay": 0.01, "delta": 0.3, "wd_ratio": 0.3},
            {"nesterov": True, "weight_decay": 0.01},
        ),
        state=("momentum_buffer",),
        counts=False,
        capturable=False,
        bad=(
            *SHARED_BAD,
            *PROJECTED_BAD,
            ({"momentum": 1.0}, ValueError, "momentum must be in [0, 1), got 1.0"),
            ({"momentum": -0.1}, ValueError, "momentum must be in [0, 1), got -0.1"),
            ({"dampening": 1.1}, ValueError, "dampening must be in [0, 1], got 1.1"),
            ({"dampening": -0.1}, ValueError, "dampening must be in [0, 1]"),
            ({"nesterov": True, "momentum": 0.0}, ValueError, "nesterov=True needs momentum > 0"),
            ({"nesterov": True, "dampening": 0.1}, ValueError, "dampening = 0, got momentum=0.9"),
        ),
    ),
)


def parameters(
    shapes: tuple[tuple[int, ...], ...] = SHAPES,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> list[torch.nn.Parameter]:
    """Parameters of given shapes."""
    g = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]
    return [torch.nn.Parameter(x.to(dtype)) for x in drawn]


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


def set_gradients(params: list[torch.nn.Parameter], step: int, *, seed: int = 1) -> None:
    """Give each parameter a gradient; over the steps every kind occurs for every parameter."""
    g = torch.Generator().manual_seed(1000 * seed + step)
    for i, param in enumerate(params):
        param.grad = gradient(param, (i + step) % 4, g).to(
            memory_format=torch.preserve_format, copy=True
        )


def train(optimizer: Optimizer, params: list[torch.nn.Parameter], steps: range) -> None:
    """Steps with gradients that depend on the parameters and the number of the step only."""
    for step in steps:
        set_gradients(params, step)
        optimizer.step()


def values(params: list[torch.nn.Parameter]) -> list[Tensor]:
    """Copies of the parameters."""
    return [param.detach().clone() for param in params]


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Groups without their parameters."""
    return [
        {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}
        for group in optimizer.param_groups
    ]
