"""Measuring must not change what is measured: modes, RNG and backends put back as they were."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = [
    "Mode",
    "RandomState",
    "double_backward_kernels",
    "linearized",
    "load_forward_mode",
    "log_attention",
    "model_mode",
]

Mode = Literal["eval", "train", "keep"]
_LOG = logging.getLogger("gradworks.curvature")


@contextmanager
def model_mode(model: nn.Module, mode: Mode) -> Iterator[None]:
    """Put the model into a mode; afterwards every submodule has its own flag again."""
    if mode == "keep":
        yield
        return
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.train(mode == "train")
        yield
    finally:
        for module, flag in flags:
            module.training = flag


class RandomState:
    """The state of the global generators at one moment, to be replayed for every product.

    Args:
        device: The device whose generator matters beside the CPU's.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        self._cpu_state = torch.get_rng_state()
        self._cuda_state = torch.cuda.get_rng_state(device) if self._cuda else None

    @contextmanager
    def replay(self, generators: list[torch.Generator]) -> Iterator[None]:
        """Run from the recorded state, then put the generators back where they were."""
        states = [g.get_state() for g in generators]
        devices = [self._device] if self._cuda else []
        try:
            with torch.random.fork_rng(devices=devices):
                torch.set_rng_state(self._cpu_state)
                if self._cuda_state is not None:
                    torch.cuda.set_rng_state(self._cuda_state, self._device)
                yield
        finally:
            for g, state in zip(generators, states):
                g.set_state(state)


@contextmanager
def double_backward_kernels() -> Iterator[None]:
    """Attention kernels that can be differentiated twice.

    Flash and memory-efficient attention have no second derivative, and the fused encoder of
    ``nn.TransformerEncoder`` has not even a first.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def log_attention(model: nn.Module) -> None:
    """Say once that attention runs on another backend than in training."""
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        _LOG.debug(
            "scaled_dot_product_attention runs on SDPBackend.MATH: the fused kernels have no "
            "double backward"
        )


@cache
def load_forward_mode() -> None:
    """Let torch load its forward-mode rules now, without the deprecation warning of doing so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        one = torch.ones(())
        torch.func.jvp(torch.sin, (one,), (one,))


def linearized(function: Callable[..., Any], *theta: Any) -> Callable[..., Any]:
    """The traced derivative of a function of parameters at ``theta``: vectors in, products out."""
    with warnings.catch_warnings():
        # torch's constant folding warns about attributes that it adds itself a moment later.
        warnings.filterwarnings("ignore", message="Attempted to insert a get_attr Node")
        return torch.func.linearize(function, *theta)[1]
