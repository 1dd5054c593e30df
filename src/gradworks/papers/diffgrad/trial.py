"""What diffGrad's trials do beside training: descend three functions of one variable.

Their derivatives are the authors' notebooks'.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from gradworks.bench.trial import Trial

__all__ = ["BASINS", "cifar", "curve", "slope"]

PUBLISHED_START, PUBLISHED_RATE = -1.0, 0.1
# Between which points descent ends in the global minimum: at -0.3, -0.9 and 0.
BASINS: dict[str, tuple[float, float]] = {
    "f1": (float("-inf"), 0.0),
    "f2": (float("-inf"), -0.317666),  # where x cos 8x + sin 8x + 3x^2 changes its sign
    "f3": (-0.4, 0.4),
}


def slope(name: str, x: Tensor) -> Tensor:
    """Return a function's derivative.

    Args:
        name: ``"f1"``, ``"f2"`` or ``"f3"``.
        x: Where.
    """
    import torch

    if name == "f1":
        return torch.where(x <= 0, 2 * x + 0.6, 2 * x - 0.4)
    if name == "f2":
        wave = x * torch.cos(8 * x) + torch.sin(8 * x) + 3 * x**2
        return torch.where(x <= -0.9, -40.0, wave)
    pieces = ((-0.5, 1.0), (-0.4, -7 / 8), (0.0, 7 / 8), (0.4, -1.0))
    found = 2 * x
    for low, value in pieces:
        found = torch.where((x > low) & (x <= 0.5), value, found)
    return found


def curve(trial: Trial) -> None:
    """Descend one function from many starts at several rates.

    ``spec`` holds ``function``, ``rates``, ``starts`` (their number), ``within`` (their range) and
    ``every``. Results: ``share`` of all starts that end in the global basin, at each rate too, and
    the ``end`` of the run from -1 at the rate 0.1. The arm's setting ``rate`` multiplies all rates;
    ``by_reference`` makes the previous gradient the present one, as the first released code does.
    """
    import torch

    from gradworks.bench.optimizers import resolve_optimizer

    spec: Any = trial.spec
    settings = dict(trial.settings)
    factor, by_reference = settings.pop("rate", 1.0), settings.pop("by_reference", False)
    low, high = spec["within"]
    width = (high - low) / spec["starts"]
    shifts = torch.as_tensor(trial.rng("starts").uniform(0.0, 1.0, spec["starts"]))
    grid = low + width * (torch.arange(spec["starts"], dtype=torch.float64) + shifts)
    starts = torch.cat([grid, torch.tensor([PUBLISHED_START], dtype=torch.float64)])
    points = [torch.nn.Parameter(starts.clone()) for _ in spec["rates"]]
    groups = [
        {"params": [x], "lr": rate * factor} for x, rate in zip(points, spec["rates"], strict=True)
    ]
    optimizer: Optimizer = resolve_optimizer(trial.arm.method)(groups, **settings)
    first, state = 0, trial.resume()
    if state is not None:
        first = state["step"]
        optimizer.load_state_dict(state["optimizer"])
        for x, saved in zip(points, state["points"], strict=True):
            x.data.copy_(saved)

    for step in range(first, trial.steps + 1):
        if step % spec["every"] == 0 or step == trial.steps:
            trial.log(step, split="train", **_where(spec, points))
        if step == trial.steps:
            break
        for x in points:
            x.grad = slope(spec["function"], x.detach())
            if by_reference and optimizer.state[x]:
                optimizer.state[x]["previous_grad"].copy_(x.grad)
        optimizer.step()
        trial.tick(step + 1, partial(_state, points, optimizer, step + 1))
    trial.result("test", **_where(spec, points))


def _where(spec: Any, points: Sequence[Tensor]) -> dict[str, float]:
    """Shares in the global basin, and the run from the published start."""
    low, high = BASINS[spec["function"]]
    shares, found = [], {}
    for x, rate in zip(points, spec["rates"], strict=True):
        at = x.detach()[:-1]
        shares.append(((at > low) & (at < high)).double().mean().item())
        found[f"share_{rate:g}"] = shares[-1]
        if rate == PUBLISHED_RATE:
            found["end"] = x.detach()[-1].item()
    return {**found, "share": sum(shares) / len(shares)}


def _state(points: Sequence[Tensor], optimizer: Optimizer, step: int) -> dict[str, Any]:
    """All that is needed to go on."""
    kept = [x.detach() for x in points]
    return {"points": kept, "optimizer": optimizer.state_dict(), "step": step}


def cifar(trial: Trial) -> NoReturn:
    """The published scale: refuses, as no package ships its data.

    Args:
        trial: Names the data.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset trains ResNet-50 for {wanted['epochs']} epochs on "
        f"CIFAR-{wanted['classes']} (50,000 images, 170 MB), which no package ships and gradworks "
        f"does not download; it needs {wanted['hardware']}. Run --preset full for a verdict on "
        "this machine"
    )
