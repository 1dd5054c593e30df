"""AdamP: Slowing Down the Slowdown for Momentum Optimizers (2020, arXiv:2006.08217).

Three kinds of workload: the two-dimensional toy of the authors' page; norms at equal learning
rates without decay; training with learning rate and decay tuned alike. The criteria were fixed
before the first run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gradworks.bench.claims import Claim
from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers.adamp.claims import CARD, CLAIMS
from gradworks.papers.adamp.figures import figures
from gradworks.papers.adamp.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_HERE = "gradworks.papers.adamp.trial"
_SGD, _SGDP = "torch.optim.SGD", "gradworks.optim.SGDP"
_ADAMW, _ADAMP = "torch.optim.AdamW", "gradworks.optim.AdamP"
_HEAVY = {"momentum": 0.9, "nesterov": True}  # as the authors' README recommends
_WATCHED = {"record_branches": True}


def _adam_space() -> tuple[Knob, ...]:
    """Three decades each around the README's 1e-3 and 1e-2; rates reach higher for short runs."""
    return (
        Knob(name="lr", low=1e-4, high=1e-1, default=1e-3),
        Knob(name="weight_decay", low=3e-4, high=3e-1, default=1e-2),
    )


def _sgd_space(decay: float) -> tuple[Knob, ...]:
    """Three decades each, one space for both arms; the defaults differ."""
    return (
        Knob(name="lr", low=3e-3, high=3.0, default=0.1),
        Knob(name="weight_decay", low=1e-6, high=1e-3, default=decay),
    )


TUNED = (
    Arm(
        name="sgd",
        label="SGD",
        method=_SGD,
        space=_sgd_space(1e-4),
        fixed=_HEAVY,
        is_baseline=True,
    ),
    Arm(name="sgdp", label="SGDP", method=_SGDP, space=_sgd_space(1e-5), fixed=_HEAVY),
    Arm(name="adamw", label="AdamW", method=_ADAMW, space=_adam_space(), is_baseline=True),
    Arm(name="adamp", label="AdamP", method=_ADAMP, space=_adam_space()),
)

PLAIN = (
    Arm(
        name="plain-sgd",
        label="SGD, no decay",
        method=_SGD,
        fixed={"lr": 0.1, "weight_decay": 0.0, **_HEAVY},
        is_baseline=True,
    ),
    Arm(
        name="plain-sgdp",
        label="SGDP, no decay",
        method=_SGDP,
        fixed={"lr": 0.1, "weight_decay": 0.0, **_HEAVY, **_WATCHED},
    ),
    Arm(
        name="plain-adam",
        label="Adam, no decay",
        method=_ADAMW,
        fixed={"lr": 1e-3, "weight_decay": 0.0},
        is_baseline=True,
    ),
    Arm(
        name="plain-adamp",
        label="AdamP, no decay",
        method=_ADAMP,
        fixed={"lr": 1e-3, "weight_decay": 0.0, **_WATCHED},
    ),
)


def _toy_arms(lr: float) -> tuple[Arm, ...]:
    """Gradient descent, and SGD and SGDP at two momenta."""
    kinds = (
        ("toy-gd", "GD", _SGD, 0.0),
        ("toy-sgd-0.9", "SGD, momentum 0.9", _SGD, 0.9),
        ("toy-sgd-0.99", "SGD, momentum 0.99", _SGD, 0.99),
        ("toy-sgdp-0.9", "SGDP, momentum 0.9", _SGDP, 0.9),
        ("toy-sgdp-0.99", "SGDP, momentum 0.99", _SGDP, 0.99),
    )
    return tuple(
        Arm(
            name=name,
            label=label,
            method=method,
            fixed={"lr": lr, "momentum": momentum},
            is_baseline=method == _SGD,
        )
        for name, label, method, momentum in kinds
    )


def _training(
    name: str, label: str, size: Mapping[str, Any], arms: tuple[Arm, ...], **spec: Any
) -> Workload:
    """A network on digits, for arms whose settings are theirs."""
    return Workload(
        name=name,
        label=label,
        trial="gradworks.bench.training:train",
        spec={"problem": size["problem"], **spec},
        steps=size["steps"],
        batch_size=64,
        arms=tuple(arm.name for arm in arms),
        data=("digits",),
        select_on="error",
    )


_LABELS = {
    "cnn": "CNN with batch normalization on digits",
    "mlp": "perceptron with layer normalization on digits",
    "resnet": "residual network on digits",
}


def _workloads(chosen: Mapping[str, Any], toy: tuple[Arm, ...]) -> tuple[Workload, ...]:
    """The workloads of a preset."""
    made = [
        Workload(
            name="toy",
            label="two-dimensional toy",
            trial=f"{_HERE}:toy",
            spec={"start": chosen["toy"]["start"], "every": chosen["toy"]["every"]},
            steps=chosen["toy"]["steps"],
            arms=tuple(arm.name for arm in toy),
        )
    ]
    if "norms" in chosen:
        made.append(
            _training(
                "norms",
                "CNN on digits, no decay",
                chosen["norms"],
                PLAIN,
                observer=f"{_HERE}:Watch",
            )
        )
    for name, size in chosen.get("tuned", {}).items():
        made.append(_training(name, _LABELS[name], size, TUNED))
    for name, size in chosen.get("imagenet", {}).items():
        made.append(
            Workload(
                name=name,
                label=f"{size['model']} on ImageNet",
                trial=f"{_HERE}:imagenet",
                spec={**size, "epochs": chosen["epochs"]},
                steps=chosen["steps"],
                batch_size=chosen["batch_size"],
                arms=tuple(arm.name for arm in TUNED),
                select_on="error",
            )
        )
    return tuple(made)


def _claims(names: tuple[str, ...], tuned: tuple[str, ...]) -> tuple[Claim, ...]:
    """The claims with the criteria, and those with the workloads, that a preset has."""
    made = []
    for claim in CLAIMS:
        criteria = []
        for criterion in claim.criteria:
            judged_alone = criterion.arm not in {arm.name for arm in TUNED}
            found = tuple(w for w in criterion.workloads if w in names) if judged_alone else tuned
            if found:
                criteria.append(dataclasses.replace(criterion, workloads=found))
        made.append(dataclasses.replace(claim, criteria=tuple(criteria)))
    return tuple(made)


def build(preset: str) -> Experiment:
    """Return the experiment of a preset.

    Args:
        preset: ``"quick"``, ``"full"`` or ``"paper"``; the last is a configuration that only
            hardware and data of the published size can run.

    Returns:
        Workloads, arms and the claims they decide.

    Raises:
        ValueError: If there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    chosen = PRESETS[preset]
    toy = _toy_arms(chosen["toy"]["lr"])
    workloads = _workloads(chosen, toy)
    names = tuple(w.name for w in workloads)
    tuned = tuple(w.name for w in workloads if TUNED[0].name in w.arms)
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=(*TUNED, *(PLAIN if "norms" in names else ()), *toy),
        claims=_claims(names, tuned),
        tune_trials=chosen["tune_trials"],
        final_seeds=chosen["final_seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
