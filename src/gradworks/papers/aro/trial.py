"""Trials that this paper alone has: steps to a loss, alignment of frames, step times and bytes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import nn

from gradworks.optim import ARO
from gradworks.optim.aro import descent_rate
from gradworks.optim.aro.maps import base_map
from gradworks.papers.aro.baselines import eigenbasis

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from gradworks.bench.trial import Trial

__all__ = ["Alignment", "cost", "pretraining", "race", "steps_to"]

_UNREACHED = 2.0  # times the budget


def steps_to(points: Sequence[tuple[int, float]], target: float, budget: int) -> float:
    """Return the step at which a curve first is at a target, linear between its points.

    Args:
        points: (step, value), by step.
        target: To be reached from above.
        budget: Steps of the run; twice as many count for a curve that never gets there.

    Example:
        >>> steps_to([(0, 4.0), (10, 3.0), (20, 2.0)], 2.5, 20)
        15.0
    """
    before: tuple[int, float] | None = None
    for step, value in points:
        if value <= target:
            if before is None:
                return float(step)
            share = (before[1] - target) / (before[1] - value)
            return before[0] + share * (step - before[0])
        before = (step, value)
    return _UNREACHED * budget


def race(trial: Trial) -> None:
    """Train the shared problem, and count the steps to the loss that ``spec`` names.

    Args:
        trial: ``spec`` is that of the shared trial and a ``target``.
    """
    from gradworks.bench.training import train

    whole = trial.workload
    spec: dict[str, Any] = dict(whole.spec)
    target = spec.pop("target")
    trial.workload = dataclasses.replace(whole, spec=spec)
    try:
        train(trial)
    finally:
        trial.workload = whole
    points = trial.curves["valid"]["nats"]
    steps = steps_to(points, target, trial.steps or points[-1][0])
    trial.result("valid", steps_to_target=steps)
    if trial.kind == "final":
        trial.result("test", steps_to_target=steps)


class Alignment:
    """Whether ARO's frame gives a larger decrease than the exact eigenbasis, while ARO trains.

    Observer of the shared trial: the share of pairs (weight, evaluation) so far.
    """

    def __init__(self) -> None:
        self.pairs, self.larger = 0, 0

    def state_dict(self) -> dict[str, int]:
        """Return the counts."""
        return {"pairs": self.pairs, "larger": self.larger}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from counts."""
        self.pairs, self.larger = state["pairs"], state["larger"]

    def __call__(
        self, model: nn.Module, optimizer: Optimizer, step: int, trial: Trial
    ) -> dict[str, float]:
        """Compare both frames on the momentum of each weight.

        Args:
            model: Not looked at.
            optimizer: ARO.
            step: Steps done.
            trial: Not looked at.
        """
        rates: list[tuple[float, float, float]] = []
        for group in optimizer.param_groups:
            for p in group["params"]:
                state = optimizer.state.get(p, {})
                if "rotation" not in state:
                    continue
                f = base_map(group["base"], group["base_steps"], group["sinkhorn"])
                M = state["momentum"].double()
                frames = (
                    state["rotation"].double(),
                    eigenbasis(M),
                    torch.eye(M.shape[0], dtype=M.dtype, device=M.device),
                )
                ours, eigen, plain = (float(descent_rate(M, R, f) / M.norm()) for R in frames)
                rates.append((ours, eigen, plain))
        if not rates:
            return {}
        self.pairs += len(rates)
        self.larger += sum(ours > eigen for ours, eigen, _ in rates)
        ours, eigen, plain = (math.fsum(column) / len(rates) for column in zip(*rates, strict=True))
        return {
            "rate_aro": ours,
            "rate_eigen": eigen,
            "rate_plain": plain,
            "final_share_above_eigen": self.larger / self.pairs,
        }


def cost(trial: Trial) -> None:
    """Bytes of state over their formula, and step times in turns in this process.

    Args:
        trial: ``spec`` gives a width and the number of blocks.
    """
    from gradworks.bench.muon import MuonWithAdamW
    from gradworks.bench.optimizers import optimizer_bytes
    from gradworks.bench.timing import compare
    from gradworks.papers.aro.baselines import SOAP

    spec: Any = trial.spec
    d, blocks = spec["width"], spec["blocks"]
    shapes = [(d, d)] * 4 + [(4 * d, d), (d, 4 * d)]
    generator = trial.generator("matrices")

    def made(make: Callable[[list[nn.Parameter]], Optimizer], sizes: Any = shapes) -> Any:
        params = []
        for shape in sizes:
            params.append(nn.Parameter(torch.randn(shape, generator=generator)))
            params[-1].grad = torch.randn(shape, generator=generator)
        optimizer = make(params)
        optimizer.step()
        return optimizer

    lr = 1e-9  # weights stay where they are: only the time counts
    square = [(d, d)] * 4
    own = optimizer_bytes(made(lambda p: ARO(p, lr), square))
    adamw = optimizer_bytes(made(lambda p: torch.optim.AdamW(p, lr), square))
    whole = optimizer_bytes(made(lambda p: ARO(p, lr)))
    formula = sum(4 * (d * max(shape) + d * d) + 4 for shape in shapes)
    found = {"bytes_over_adamw": own / adamw, "bytes_over_formula": whole / formula}
    ours = made(lambda p: ARO(p, lr)).step
    rivals: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
        "over_adamw": lambda p: torch.optim.AdamW(p, lr),
        "over_muon": lambda p: MuonWithAdamW(p, lr, nesterov=False),
        "over_soap": lambda p: SOAP(p, lr, gap=1),
    }
    for name, make in rivals.items():
        found[name] = compare(
            ours,
            made(make).step,
            name=name,
            peer_name=name,
            blocks=blocks,
            warm_up=1,
            threads=1,
            control=False,
        ).ratio
    trial.result("test", **found)


def pretraining(trial: Trial) -> NoReturn:
    """The published scale: refuses, as no package ships its data.

    Args:
        trial: Names the model.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset trains {wanted['model']} on {wanted['tokens']}, which no package ships "
        f"and gradworks does not download; it needs {wanted['hardware']}. Run --preset full for a "
        "verdict on this machine"
    )
