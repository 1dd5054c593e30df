"""Trials that this paper alone has: two functions of the plane, and the price of a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from gradworks.bench.trial import Trial

__all__ = ["FUNCTIONS", "cifar", "cost", "gallery"]


def rosenbrock(point: Tensor) -> Tensor:
    """(1 - x)^2 + 100 (y - x^2)^2: a bent valley, minimum at (1, 1)."""
    x, y = point
    height: Tensor = (1 - x) ** 2 + 100 * (y - x**2) ** 2
    return height


def rastrigin(point: Tensor) -> Tensor:
    """20 + x^2 + y^2 - 10 (cos 2 pi x + cos 2 pi y): minima on a grid, the least at 0."""
    return 20 + (point**2 - 10 * torch.cos(2 * math.pi * point)).sum()


# function, start, minimum
FUNCTIONS: dict[
    str, tuple[Callable[[Tensor], Tensor], tuple[float, float], tuple[float, float]]
] = {
    "rosenbrock": (rosenbrock, (-1.2, 1.0), (1.0, 1.0)),
    "rastrigin": (rastrigin, (-2.0, 3.5), (0.0, 0.0)),
}


def gallery(trial: Trial) -> None:
    """Walk on a function of the plane and log the path.

    Args:
        trial: ``spec`` names the function and how often the place is logged.
    """
    from gradworks.bench.optimizers import resolve_optimizer

    spec: Any = trial.spec
    function, start, minimum = FUNCTIONS[spec["function"]]
    point = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    settings = dict(trial.settings)
    settings["lr"] = settings["lr"][spec["function"]]
    if trial.arm.name.endswith("adahessian"):
        settings["generator"] = trial.generator("probes")
    optimizer: Any = resolve_optimizer(trial.arm.method)([point], **settings)
    first, state = 0, trial.resume()
    if state is not None:
        first = state["step"]
        optimizer.load_state_dict(state["optimizer"])
        point.data.copy_(state["point"])

    def place() -> dict[str, float]:
        x, y = point.detach().tolist()
        far = math.dist((x, y), minimum)
        return {"x": x, "y": y, "height": float(function(point.detach())), "distance": far}

    for step in range(first, trial.steps + 1):
        if step % spec["every"] == 0 or step == trial.steps:
            trial.log(step, split="train", **place())
        if step == trial.steps:
            break
        optimizer.zero_grad()
        loss = function(point)
        if hasattr(optimizer, "estimate"):
            optimizer.estimate(loss)
        else:
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        trial.tick(step + 1, partial(_state, point, optimizer, step + 1))
    trial.result("test", **place())


def _state(point: Tensor, optimizer: Optimizer, step: int) -> dict[str, Any]:
    """All that is needed to go on."""
    return {"point": point.detach(), "optimizer": optimizer.state_dict(), "step": step}


def cost(trial: Trial) -> None:
    """Time a whole training step against AdamW's, in turns in this process.

    Args:
        trial: ``spec`` names the problem and the number of blocks.
    """
    from gradworks.bench import workloads
    from gradworks.bench.optimizers import make_optimizer
    from gradworks.bench.timing import compare

    spec: Any = trial.spec
    problem = workloads.problem(spec["problem"], trial.seed)
    inputs, targets = (part[: problem.batch_size] for part in problem.train)

    def stepper(method: str, lr: float) -> Callable[[], None]:
        model = problem.model(trial.generator("init"))
        optimizer: Any = make_optimizer(method, model, {"lr": lr})

        def step() -> None:
            optimizer.zero_grad()
            loss = problem.loss_fn(model(inputs), targets)
            if hasattr(optimizer, "estimate"):
                optimizer.estimate(loss)
            else:
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return step

    # at rates so small that the network stays where it is: only the time counts
    found = compare(
        stepper(trial.arm.method, 1e-6),
        stepper("torch.optim.AdamW", 1e-6),
        name=f"training step, {spec['problem']}",
        peer_name="AdamW",
        blocks=spec["blocks"],
        threads=1,
        control=False,
    )
    trial.result("test", step_ratio=found.ratio)


def cifar(trial: Trial) -> NoReturn:
    """The published scale: refuses, as no package ships its data.

    Args:
        trial: Names the network.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset trains {wanted['model']} for {wanted['epochs']} epochs on CIFAR-10 "
        "(50,000 images, 170 MB), which no package ships and gradworks does not download; it needs "
        f"{wanted['hardware']}. Run --preset full for a verdict on this machine"
    )
