"""diffGrad: An Optimization Method for Convolutional Neural Networks (2019, arXiv:1909.11015).

Three kinds of workload: the authors' functions of one variable, from many starts; networks with
learning rates tuned alike; a loss multiplied by constants, which Adam does not see and diffGrad
does. The criteria were fixed before the first run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.bench.claims import Claim
from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.diffgrad.claims import ACTIVATIONS, CARD, CLAIMS, FUNCTIONS, RIVALS
from gradworks.papers.diffgrad.figures import figures
from gradworks.papers.diffgrad.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_HERE = "gradworks.papers.diffgrad"
_DIFFGRAD, _ADAM = "gradworks.optim.DiffGrad", "torch.optim.Adam"
_WATCHED = f"{_HERE}.watched.WatchedDiffGrad"


def _rate(default: float, low: float, high: float) -> tuple[Knob, ...]:
    """Three decades of learning rates."""
    return (Knob(name="lr", low=low, high=high, default=default),)


_AS_ADAM = _rate(1e-3, 1e-4, 1e-1)


def _rival(name: str, method: str, space: tuple[Knob, ...] = _AS_ADAM, **fixed: Any) -> Arm:
    """A baseline of the paper."""
    label = {"adam": "Adam", **RIVALS}[name]
    return Arm(name=name, label=label, method=method, space=space, fixed=fixed, is_baseline=True)


TUNED = (
    Arm(name="diffgrad", label="diffGrad", method=_DIFFGRAD, space=_AS_ADAM),
    _rival("adam", _ADAM),
    _rival("sgd", "torch.optim.SGD", _rate(0.1, 3e-3, 3.0), momentum=0.9),
    _rival("adagrad", "torch.optim.Adagrad", _rate(1e-2, 3e-4, 3e-1)),
    _rival("adadelta", "torch.optim.Adadelta", _rate(1.0, 3e-2, 30.0)),
    _rival("rmsprop", "torch.optim.RMSprop", _AS_ADAM),
    _rival("amsgrad", _ADAM, amsgrad=True),
    _rival("adamw", "torch.optim.AdamW"),
)
_CHOSEN = {
    "all": tuple(arm.name for arm in TUNED),
    "few": ("diffgrad", "adam", "adamw", "sgd"),
    "pair": ("diffgrad", "adam"),
}

_BETAS = {"betas": [0.95, 0.999]}  # the notebooks'
CURVES = (
    Arm(name="curve-diffgrad", label="diffGrad", method=_DIFFGRAD, fixed=_BETAS),
    Arm(name="curve-adam", label="Adam", method=_ADAM, fixed=_BETAS, is_baseline=True),
    Arm(
        name="curve-half",
        label="Adam at half the rate",
        method=_ADAM,
        fixed={**_BETAS, "rate": 0.5},
        is_baseline=True,
    ),
    Arm(
        name="curve-first",
        label="diffGrad as first released",
        method=_DIFFGRAD,
        fixed={**_BETAS, "by_reference": True},
        is_baseline=True,
    ),
)

_UNTUNED = {"lr": 1e-3}
SCALED = (
    Arm(name="scale-diffgrad", label="diffGrad", method=_WATCHED, fixed=_UNTUNED),
    Arm(
        name="scale-rms",
        label="diffGrad, friction without scale",
        method=_DIFFGRAD,
        fixed={**_UNTUNED, "friction_scale": "rms"},
    ),
    Arm(name="scale-adam", label="Adam", method=_ADAM, fixed=_UNTUNED, is_baseline=True),
)

_LABELS = {
    "digits": "CNN with batch normalization on digits",
    "mnist": "CNN with batch normalization on MNIST",
    "text": "transformer on Python's manual",
    **{f"digits-{name}": f"CNN on digits, {label}" for name, label in ACTIVATIONS.items()},
}
_DATA = {"mnist5k-cnn": "mnist5k", "text-transformer": "topics_text"}


def _curves(size: Mapping[str, Any]) -> list[Workload]:
    """The three functions."""
    return [
        Workload(
            name=name,
            label=f"function {name.upper()} of one variable",
            trial=f"{_HERE}.trial:curve",
            spec={**{k: v for k, v in size.items() if k != "steps"}, "function": name},
            steps=size["steps"],
            arms=tuple(arm.name for arm in CURVES),
            select_on="share",
        )
        for name in FUNCTIONS
    ]


def _tuned(name: str, size: Mapping[str, Any]) -> Workload:
    """A network whose learning rates are searched."""
    problem = size.get("problem") or f"{_HERE}.networks:{size['activation']}"
    return Workload(
        name=name,
        label=_LABELS[name],
        trial="gradworks.bench.training:train",
        spec={"problem": problem},
        steps=size["steps"],
        batch_size=16 if name == "text" else 64,
        arms=_CHOSEN[size["arms"]],
        data=(_DATA.get(problem, "digits"),),
        select_on="nats" if name == "text" else "error",
    )


def _scaled(factor: float, steps: int) -> Workload:
    """A network whose loss is multiplied by a constant."""
    names = {0.001: "thousandth", 1: "plain", 1000: "thousand"}
    return Workload(
        name=f"loss-x{factor:g}",
        label=f"CNN on digits, loss times {factor:g}",
        trial="gradworks.bench.training:train",
        spec={
            "problem": f"{_HERE}.networks:{names[factor]}",
            "schedule": "constant",
            "observer": f"{_HERE}.watched:frictions",
        },
        steps=steps,
        batch_size=64,
        arms=tuple(arm.name for arm in SCALED),
        data=("digits",),
        select_on="error",
    )


def _cifar(name: str, size: Mapping[str, Any], epochs: int, drop: Mapping[str, int]) -> Workload:
    """The published scale."""
    batch = size["batch_size"]
    return Workload(
        name=name,
        label=f"ResNet-50 on CIFAR-{size['classes']}, batch {batch}",
        trial=f"{_HERE}.trial:cifar",
        spec={**size, "epochs": epochs, "drop": dict(drop)},
        steps=epochs * -(-50_000 // batch),
        batch_size=batch,
        arms=_CHOSEN["all"],
        select_on="error",
    )


def _claims(workloads: tuple[Workload, ...], preset: str) -> tuple[Claim, ...]:
    """The claims that a preset can decide; at the published scale test errors are CIFAR's."""
    if preset != "paper":
        return decidable(CLAIMS, workloads)
    cifar = [w.name for w in workloads if w.name.startswith("cifar")]
    claims = [claim for claim in CLAIMS if claim.id != "activations"]
    return decidable(claims, workloads, instead={"error": cifar})


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
    made = _curves(chosen["curves"])
    made += [_tuned(name, size) for name, size in chosen.get("tuned", {}).items()]
    if "scaled" in chosen:
        size = chosen["scaled"]
        made += [_scaled(factor, size["steps"]) for factor in size["factors"]]
    made += [
        _cifar(name, size, chosen["epochs"], chosen["drop"])
        for name, size in chosen.get("cifar", {}).items()
    ]
    workloads = tuple(made)
    used = {name for workload in workloads for name in workload.arms}
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=tuple(arm for arm in (*TUNED, *CURVES, *SCALED) if arm.name in used),
        claims=_claims(workloads, preset),
        tune_trials=chosen["tune_trials"],
        final_seeds=chosen["final_seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
