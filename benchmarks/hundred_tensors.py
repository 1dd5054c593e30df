"""What the benchmarks of optimizers step: 100 tensors of 10 million parameters, or one matrix.

Imported by the scripts ``optim_*.py`` beside it; run alone, it prints the sizes.

- ``mixed``: 30 matrices of 512 x 512 and 512 x 1024, 10 convolutions, 60 vectors: a transformer
  with a stem. 9.84 million parameters.
- ``residual``: convolutions with two vectors each, and a linear layer: a residual network. 9.71
  million. Gradients of convolutions are orthogonal to each row, as before a batch normalization.
- ``matrix``: one of 4096 x 4096.

``small=True`` takes a tenth of each dimension, convolution kernels apart: a smoke test, not a
measurement.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# (tensors, shape)
MIXED = ((24, (512, 512)), (6, (512, 1024)), (10, (64, 64, 3, 3)), (60, (512,)))
MATRIX = ((1, (4096, 4096)),)
# (weights, channels out, channels in, kernel side); two vectors follow each convolution
STAGES = ((10, 64, 64, 3), (10, 128, 128, 3), (10, 256, 256, 3), (1, 512, 256, 3), (1, 512, 512, 1))
HEAD = (1000, 512)
RESIDUAL = (
    *((count, (out, channels, side, side)) for count, out, channels, side in STAGES),
    *((2 * count, (out,)) for count, out, _, _ in STAGES),
    (1, HEAD),
    (1, HEAD[:1]),
)
MODELS: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "mixed": MIXED,
    "residual": RESIDUAL,
    "matrix": MATRIX,
}
LR = 1e-9  # weights stay where they are, so that each step finds the same problem


class Peer(NamedTuple):
    """Another package's optimizer."""

    name: str
    make: Callable[..., Any]
    version: str


def shapes(model: str, *, small: bool = False) -> list[tuple[int, ...]]:
    """Shapes of a model's parameters."""
    scale = 10 if small else 1
    found: list[tuple[int, ...]] = []
    for count, shape in MODELS[model]:
        sizes = (*(max(1, n // scale) for n in shape[:2]), *shape[2:])
        found += [sizes] * count
    return found


def described(model: str, *, small: bool = False) -> str:
    """How much there is to step, in words."""
    sizes = [math.prod(shape) for shape in shapes(model, small=small)]
    tensors = "1 tensor" if len(sizes) == 1 else f"{len(sizes)} tensors"
    return f"{tensors}, {sum(sizes) / 1e6:.2f} million parameters, float32"


def parameters(
    model: str, *, small: bool = False, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[nn.Parameter]:
    """Parameters with gradients: orthogonal to each row for convolutions, random elsewhere."""
    g = torch.Generator().manual_seed(0)
    params = []
    for shape in shapes(model, small=small):
        weight, grad = (torch.randn(shape, generator=g) for _ in range(2))
        if weight.ndim == 4:
            p, rows = weight.flatten(1), grad.flatten(1)
            rows -= p * (rows * p).sum(1, keepdim=True) / (p * p).sum(1, keepdim=True)
        param = nn.Parameter(weight.to(device, dtype))
        param.grad = grad.to(device, dtype)
        params.append(param)
    return params


def stepper(
    make: Callable[..., Any],
    params: Sequence[nn.Parameter],
    *,
    before: Callable[[Any], object] | None = None,
    **settings: Any,
) -> Callable[[], object]:
    """One step of an optimizer, after a first one that makes its state and compiles its kernels.

    Args:
        make: The optimizer's class.
        params: Parameters of its own: no two sides of a comparison share memory.
        before: Called with the optimizer before each step, inside the time.
        **settings: Its arguments; ``lr`` and ``weight_decay`` have defaults here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers use what torch has deprecated
        optimizer = make(list(params), **{"lr": LR, "weight_decay": 1e-2, **settings})
    step: Callable[[], object] = optimizer.step
    if before is not None:

        def step() -> object:
            before(optimizer)
            return optimizer.step()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step()
    return step


def peer(module: str, name: str, *, package: str | None = None) -> Peer | None:
    """An installed peer; None, with a line that says so, where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        print(f"{module}.{name}: not measured ({error}); pip install 'gradworks[peers]'")
        return None
    distribution = package or module.partition(".")[0].replace("_", "-")
    return Peer(f"{module}.{name}", made, importlib.metadata.version(distribution))


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state tensors, also of those in containers and objects of a peer."""
    seen: dict[int, int] = {}

    def visit(value: Any, depth: int) -> None:
        if isinstance(value, Tensor):
            seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif depth < 4:
            if isinstance(value, dict):
                inner = list(value.values())
            elif isinstance(value, (list, tuple)):
                inner = list(value)
            else:
                inner = list(getattr(value, "__dict__", {}).values())
            for each in inner:
                visit(each, depth + 1)

    for state in optimizer.state.values():
        visit(state, 0)
    return sum(seen.values())


def settle_memory() -> None:
    """Free one large block before anything is measured.

    Until then glibc returns each temporary tensor to the system: a cost that no training loop has,
    and that would fall on whoever runs first.
    """
    torch.empty(7_500_000).fill_(0.0)


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all of these scripts have."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--blocks", type=int, default=30)
    made.add_argument("--threads", type=int, nargs="+", default=[1])
    made.add_argument("--models", nargs="+", choices=tuple(MODELS), default=["mixed", "matrix"])
    made.add_argument("--device", default="cpu")
    made.add_argument("--small", action="store_true", help="a smoke test")
    return made


if __name__ == "__main__":
    for model in MODELS:
        print(f"{model}: {described(model)}")
