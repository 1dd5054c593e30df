"""What AdamP's trials do beside training: the toy, and the norms that are watched."""

from __future__ import annotations

import importlib
import math
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from gradworks.bench.trial import Trial

__all__ = ["Watch", "imagenet", "invariant_weights", "toy"]

CLOSE = 0.999  # cosine to the optimum that counts as arrived
SMALLEST_ANGLE = 1e-9  # what is drawn on a logarithmic scale for none


def toy(trial: Trial) -> None:
    """Minimize -cos(w, w*) over w in the plane, from ``|w| = 1``.

    ``spec["start"]`` bounds the first angle between w and w*, in units of pi. The result: the
    weight's last norm, and the steps after which the cosine stays above 0.999.
    """
    import torch

    from gradworks.optim.adamp import effective_step

    rng = trial.rng("start")
    turn = rng.uniform(0.0, 2 * math.pi)
    angle = turn + math.pi * rng.uniform(*trial.spec["start"])
    target = torch.tensor([math.cos(turn), math.sin(turn)], dtype=torch.float64)
    weight = torch.nn.Parameter(
        torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    )
    module, _, name = trial.arm.method.rpartition(".")
    optimizer: Optimizer = getattr(importlib.import_module(module), name)(
        [weight], **trial.settings
    )
    first, far = 0, 0
    state = trial.resume()
    if state is not None:
        weight.data.copy_(state["weight"])
        optimizer.load_state_dict(state["optimizer"])
        first, far = state["step"], state["far"]

    for step in range(first, trial.steps + 1):
        norm = weight.norm()
        cosine = (weight @ target / norm).squeeze()
        if cosine.item() <= CLOSE:
            far = step + 1
        if step % trial.spec["every"] == 0:
            trial.log(
                step,
                split="train",
                norm=norm.item(),
                effective_step=effective_step(weight.detach(), trial.settings["lr"]).item(),
                angle=max(_angle(weight.detach().squeeze(), target), SMALLEST_ANGLE),
            )
        if step == trial.steps:
            break
        optimizer.zero_grad()
        (-cosine).backward()
        optimizer.step()

        counts = {"step": step + 1, "far": far}
        trial.tick(step + 1, partial(_state, weight, optimizer, counts))
    trial.result("test", norm=weight.norm().item(), steps_to_close=float(min(far, trial.steps)))


def _angle(one: Tensor, other: Tensor) -> float:
    """Angle between two vectors of the plane; exact for small ones, unlike the arc cosine."""
    cross = one[0] * other[1] - one[1] * other[0]
    return math.atan2(abs(cross.item()), (one @ other).item())


def _state(weight: Tensor, optimizer: Optimizer, counts: dict[str, int]) -> dict[str, Any]:
    """All that the toy needs to go on."""
    return {"weight": weight.detach(), "optimizer": optimizer.state_dict(), **counts}


def invariant_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of the convolutions and linear layers that a normalization follows, by name.

    Args:
        model: A network whose modules are registered in the order in which they are applied.
    """
    from torch import nn

    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
    leaves = [(name, m) for name, m in model.named_modules() if not [*m.children()]]
    found = {}
    for (name, module), (_, after) in pairwise(leaves):
        if isinstance(module, (nn.Conv2d, nn.Linear)) and isinstance(after, norms):
            found[f"{name}.weight"] = module.weight
    return found


class Watch:
    """Observer of a training run: norms, effective steps and branches of scale-invariant weights.

    Keeps the initial norms, in checkpoints too.
    """

    def __init__(self) -> None:
        self._initial: dict[str, float] = {}

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint holds."""
        return dict(self._initial)

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self._initial = dict(state)

    def __call__(
        self, model: nn.Module, optimizer: Optimizer, step: int, trial: Trial
    ) -> dict[str, float]:
        """Return norm, growth and effective step of each weight, and the mean log growth.

        Args:
            model: What is trained.
            optimizer: What trains it; its ``last_branch`` is counted where it keeps one.
            step: Steps done.
            trial: Unused.
        """
        from gradworks.optim.adamp import effective_step

        lr = float(optimizer.param_groups[0]["lr"])
        weights = {name: w.detach() for name, w in invariant_weights(model).items()}
        norms = {name: w.norm().item() for name, w in weights.items()}
        self._initial = self._initial or norms
        growth = {name: norm / self._initial[name] for name, norm in norms.items()}
        found = {f"norm {name}": norm for name, norm in norms.items()}
        found |= {f"growth {name}": ratio for name, ratio in growth.items()}
        if step:  # before the first step the schedule has not set the rate
            steps = {name: effective_step(w, lr).item() for name, w in weights.items()}
            found |= {f"effective_step {name}": value for name, value in steps.items()}
        found["final_log_growth"] = sum(map(math.log, growth.values())) / len(growth)
        branches = [int(b) for b in getattr(optimizer, "last_branch", {}).values()]
        tested = [branch for branch in branches if branch >= 0]
        for name, branch in (("channels", 1), ("layer", 2), ("untouched", 0)):
            if tested:
                found[f"share_{name}"] = tested.count(branch) / len(tested)
        return found


def imagenet(trial: Trial) -> NoReturn:
    """The published scale: refuses, as no package ships its data.

    Args:
        trial: Names the network.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset trains {wanted['model']} for {wanted['epochs']} epochs on ImageNet "
        f"(1,281,167 images, 150 GB), which no package ships and gradworks does not download; it "
        f"needs {wanted['hardware']}. Run --preset full for a verdict on this machine"
    )
