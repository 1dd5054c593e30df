"""The comparison as an experiment: workloads, arms that apply to them, budgets."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from gradworks.bench import workloads as named
from gradworks.bench.experiment import Arm, Experiment, Workload

if TYPE_CHECKING:
    from gradworks.bench.workloads import Problem

__all__ = ["SHARED", "SHARED_OPTIMIZERS", "SHARED_WORKLOADS", "experiment", "shared"]

SHARED = "compare optimizers"  # what the shared comparison is called in run stores
SHARED_WORKLOADS = ("text-transformer", "mnist5k-cnn")
SHARED_OPTIMIZERS = (
    "adamw",
    "adam",
    "sgd",
    "adamp",
    "sgdp",
    "diffgrad",
    "adahessian",
    "muon",
    "trion",
    "dctadamw",
)
# Six rates over three decades an arm and six paired seeds: the least that carries an interval, and
# as many trials as two cores finish in twelve minutes.
_SHARED_TRIALS, _SHARED_SEEDS = 6, 6
_SHARED_SEARCH = ("lr", "adamw_lr")
_LEAST_SHARE = 0.5  # of a model's parameters, for a method to be compared on it


def experiment(
    workload: str | Sequence[str],
    optimizers: Sequence[str],
    *,
    trials: int = 8,
    seeds: int = 5,
    steps: int | None = None,
    search: Collection[str] | None = None,
    name: str | None = None,
    preset: str = "custom",
) -> Experiment:
    """Return the comparison of optimizers on one or more workloads, ready to run.

    A method for matrices is left out, with a note, on workloads where it would step less than half
    of the parameters by its own rule.

    Args:
        workload: One of ``workloads.NAMES``, ``module:function`` or ``path.py:function``, or
            several of them.
        optimizers: Names as ``gradworks compare`` takes them; the first is the baseline.
        trials: Tuning trials an optimizer, at least 1; a power of two keeps the points balanced.
        seeds: Final runs an optimizer, at least 1.
        steps: Budget; None takes the workload's own.
        search: Which of ``lr``, ``weight_decay`` and ``adamw_lr`` are tuned, where an optimizer
            takes them; None tunes all.
        name: What the run store calls it; None: "compare" and the workloads.
        preset: Likewise.

    Raises:
        ValueError: If a number is too small, nothing is named or something twice, a knob is
            unknown, or an optimizer applies to none of the workloads or the baseline not to all.
        UnknownTarget: If there is no such workload.
        UnknownOptimizer: If there is no such optimizer.
        TypeError: If the function gives no problem, or a name is not an optimizer's.
    """  # noqa: DOC502
    from gradworks.bench import optimizers as by_name

    for what, value in (("trials", trials), ("seeds", seeds), ("steps", steps)):
        if value is not None and value < 1:
            raise ValueError(f"{what} must be at least 1, got {value}")
    targets = [workload] if isinstance(workload, str) else list(workload)
    if not targets:
        raise ValueError("workload must name at least one, such as digits-cnn")
    if not optimizers:
        raise ValueError("optimizers must name at least one, such as adamw,adamp")
    knobs = by_name.KNOBS if search is None else search
    arms = tuple(
        by_name.arm(optimizer, is_baseline=i == 0, search=knobs)
        for i, optimizer in enumerate(optimizers)
    )
    problems = [named.problem(target) for target in targets]
    names = dict(zip((arm.name for arm in arms), optimizers, strict=True))
    applying = [_applying(arms, names, problem) for problem in problems]
    _require_use(arms, applying, targets)
    code = _digest([*targets, *(arm.method for arm in arms)])
    made = tuple(
        _workload(target, problem, steps, code, use if len(use) < len(arms) else [])
        for target, problem, use in zip(targets, problems, applying, strict=True)
    )
    seconds = [
        named.seconds_a_step(each.name) * each.steps
        for each, use in zip(made, applying, strict=True)
        for _ in use
    ]
    return Experiment(
        paper=name or f"compare {', '.join(targets)}",
        preset=preset,
        workloads=made,
        arms=arms,
        tune_trials=trials,
        final_seeds=seeds,
        trial_seconds=fmean(seconds),
        notes=tuple(
            note
            for problem, use in zip(problems, applying, strict=True)
            for note in _notes(problem, arms, use)
        ),
    )


def shared(optimizers: Sequence[str] | None = None) -> Experiment:
    """Return the comparison of all optimizers on the workloads that their papers share.

    A character transformer on a pinned text and a small convolutional network on images; learning
    rates are tuned, decay is what is customary.

    Args:
        optimizers: None takes PyTorch's and ours, ``adamw`` the baseline.

    Raises:
        ValueError: If an optimizer applies to neither workload or is named twice.
        UnknownOptimizer: If there is no such optimizer.
    """  # noqa: DOC502
    return experiment(
        SHARED_WORKLOADS,
        SHARED_OPTIMIZERS if optimizers is None else optimizers,
        trials=_SHARED_TRIALS,
        seeds=_SHARED_SEEDS,
        search=_SHARED_SEARCH,
        name=SHARED,
        preset="full" if optimizers is None else "custom",
    )


def _workload(
    target: str, problem: Problem, steps: int | None, code: str | None, arms: Sequence[str]
) -> Workload:
    from gradworks.bench import training

    return Workload(
        name=target,
        label=problem.name,
        trial=training.TRIAL,
        spec=training.spec(target, code=code),
        steps=steps or problem.steps,
        batch_size=problem.batch_size,
        arms=tuple(arms),
        data=problem.data,
        select_on=problem.metric_name,
        select_direction=problem.direction,
    )


def _applying(arms: Sequence[Arm], names: dict[str, str], problem: Problem) -> list[str]:
    """Return the arms that step at least half of a problem's parameters by their own rule."""
    import torch

    from gradworks.bench.optimizers import acts_on

    model = problem.model(torch.Generator().manual_seed(0))
    return [arm.name for arm in arms if acts_on(names[arm.name], model) >= _LEAST_SHARE]


def _require_use(
    arms: Sequence[Arm], applying: Sequence[Sequence[str]], targets: Sequence[str]
) -> None:
    why = "it acts on hidden matrices, and these hold less than half of the parameters"
    for arm in arms:
        missed = [t for t, use in zip(targets, applying, strict=True) if arm.name not in use]
        if len(missed) == len(targets):
            raise ValueError(f"{arm.label} does not apply to {', '.join(missed)}: {why}")
        if missed and arm.is_baseline:
            raise ValueError(
                f"{arm.label} cannot be the baseline, for it does not apply to "
                f"{', '.join(missed)}: {why}; name another optimizer first"
            )


def _notes(problem: Problem, arms: Sequence[Arm], use: Sequence[str]) -> list[str]:
    said = [f"{problem.name}: {len(problem.train[0])} training examples"]
    left_out = [arm.label for arm in arms if arm.name not in use]
    if left_out:
        said.append(
            f"{problem.name}: without {', '.join(left_out)}, made for hidden matrices, which hold "
            "less than half of this model's parameters"
        )
    return said


def _digest(targets: Sequence[str]) -> str | None:
    """Return a hash of the user's files among the targets: other code is another experiment."""
    found = [
        Path(where).expanduser().read_bytes()
        for where in (target.rpartition(":")[0] for target in targets)
        if where.endswith(".py")
    ]
    return hashlib.sha256(b"\0".join(found)).hexdigest()[:16] if found else None
