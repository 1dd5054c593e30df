"""Digits with other activation functions, and with a loss multiplied by a constant."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from gradworks.bench import models, workloads
from gradworks.bench.workloads import Problem

__all__ = ["elu", "gelu", "plain", "selu", "thousand", "thousandth"]

_CHANNELS, _STRIDES = (16, 32, 32), (1, 2, 1)  # of the problem "digits-cnn"


def _network(activation: Callable[[], nn.Module]) -> nn.Module:
    """Three convolutions with batch normalization, mean pooling, a linear layer."""
    layers: list[nn.Module] = []
    before = 1
    for width, stride in zip(_CHANNELS, _STRIDES, strict=True):
        conv = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        layers += [conv, nn.BatchNorm2d(width), activation()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def _with(activation: Callable[[], nn.Module], seed: int = 0) -> Problem:
    """The problem ``digits-cnn`` with another activation."""
    build = partial(_network, activation)
    return dataclasses.replace(
        workloads.problem("digits-cnn", seed),
        model=lambda generator: models.initialised(build, generator),
    )


def _times(factor: float, seed: int = 0) -> Problem:
    """The problem ``digits-cnn`` with another loss."""
    plain_ = workloads.problem("digits-cnn", seed)

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        return factor * plain_.loss_fn(output, target)

    return dataclasses.replace(plain_, loss_fn=loss_fn)


elu, selu, gelu = (partial(_with, made) for made in (nn.ELU, nn.SELU, nn.GELU))
thousandth, plain, thousand = (partial(_times, factor) for factor in (1e-3, 1.0, 1e3))
