"""SVD-Free Low-Rank Adaptive Gradient Optimization (2025, arXiv:2505.17967): DCT-AdamW and Trion.

A language model with learning rates tuned alike; ranks; how much of real gradients each basis
captures; step times and bytes of state. The criteria were fixed before the first run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradworks.bench.experiment import Arm, Experiment, Knob, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers.dct_adamw.claims import CARD, CLAIMS
from gradworks.papers.dct_adamw.figures import figures
from gradworks.papers.dct_adamw.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

_HERE = "gradworks.papers.dct_adamw.trial"
_BASELINES = "gradworks.papers.dct_adamw.baselines"
_DCT = "gradworks.optim.DCTAdamW"
_AS_ADAM = (Knob(name="lr", low=1e-4, high=1e-1, default=1e-3),)
_AS_MUON = (Knob(name="lr", low=6e-4, high=6e-1, default=0.02),)
_REST = {"adamw_lr": 3e-3}  # of what is no hidden matrix
_METHODS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "dct": ("DCT-AdamW", _DCT, {}),
    "dct-ef": ("DCT-AdamW, error feedback", _DCT, {"error_feedback": True}),
    "norotate": ("DCT-AdamW without rotation", _DCT, {"rotate": False}),
    "random": ("random basis", f"{_HERE}.RandomBasis", {"size": 96}),
    "identity": ("identity basis", _DCT, {"basis": "identity"}),
    "galore": ("GaLore, SVD every 50 steps", f"{_BASELINES}.GaLore", {"gap": 50}),
    "galore-1": ("GaLore, SVD every step", f"{_BASELINES}.GaLore", {"gap": 1}),
    "ldadam": ("LDAdam", f"{_BASELINES}.LDAdam", {}),
    "trion": ("Trion", "gradworks.optim.Trion", _REST),
    "dion": ("Dion", f"{_BASELINES}.Dion", _REST),
}
_ORTHOGONAL = ("trion", "dion")
_OURS = ("dct", "dct-ef", "trion")
_CHOSEN = {
    "all": ("adamw", *_METHODS, "muon"),
    "few": ("adamw", "dct", "random", "galore", "trion", "dion"),
}


def _arms(rank: int) -> tuple[Arm, ...]:
    """All optimizers at a rank."""
    made = [
        Arm(
            name="adamw",
            label="AdamW",
            method="torch.optim.AdamW",
            space=_AS_ADAM,
            fixed={"weight_decay": 0.0},
            is_baseline=True,
        )
    ]
    made += [
        Arm(
            name=name,
            label=label,
            method=method,
            space=_AS_MUON if name in _ORTHOGONAL else _AS_ADAM,
            fixed={"rank": rank, **settings},
            is_baseline=name not in _OURS,
        )
        for name, (label, method, settings) in _METHODS.items()
    ]
    made.append(
        Arm(
            name="muon",
            label="Muon",
            method="gradworks.bench.muon.MuonWithAdamW",
            space=_AS_MUON,
            fixed=_REST,
            is_baseline=True,
        )
    )
    return tuple(made)


def _rank_arms(chosen: Mapping[str, Any]) -> tuple[Arm, ...]:
    """DCT-AdamW and Trion at several ranks, at one rate each."""
    settings = {"dct": {"lr": 3e-3}, "trion": {"lr": 0.02, **_REST}}
    return tuple(
        Arm(
            name=f"{name}-rank-{rank}",
            label=f"{_METHODS[name][0]}, rank {rank}",
            method=_METHODS[name][1],
            fixed={"rank": rank, **fixed},
        )
        for name, fixed in settings.items()
        for rank in chosen.get(name, ())
    )


_WATCHED = Arm(
    name="watched",
    label="AdamW, gradients watched",
    method="torch.optim.AdamW",
    fixed={"lr": 3e-3, "weight_decay": 0.0},
    is_baseline=True,
)
_MEASURED = (
    Arm(name="cost", label="DCT-AdamW", method=_DCT),
    Arm(name="memory", label="DCT-AdamW and Trion", method=_DCT),
)


def _text(name: str, label: str, steps: int, arms: tuple[str, ...], **spec: Any) -> Workload:
    """The language model that all optimizers share."""
    return Workload(
        name=name,
        label=label,
        trial="gradworks.bench.training:train",
        spec={"problem": "text-transformer", **spec},
        steps=steps,
        batch_size=16,
        arms=arms,
        data=("topics_text",),
        select_on="nats",
    )


def _workloads(chosen: Mapping[str, Any], ranks: tuple[Arm, ...]) -> tuple[Workload, ...]:
    """The workloads of a preset."""
    made = []
    if "text" in chosen:
        size = chosen["text"]
        label = "transformer on Python's manual"
        arms = _CHOSEN[size["arms"]]
        made.append(_text("text", label, size["steps"], arms, evals=size["evals"]))
    if ranks:
        size, names = chosen["ranks"], tuple(arm.name for arm in ranks)
        label = "transformer at several ranks, rates not tuned"
        made.append(_text("ranks", label, size["steps"], names, evals=size["evals"]))
    if "energy" in chosen:
        size = chosen["energy"]
        made.append(
            _text(
                "energy",
                "what each basis captures of real gradients",
                size["steps"],
                ("watched",),
                observer=f"{_HERE}:energies",
                evals=size["evals"],
            )
        )
    made += [
        Workload(
            name=name,
            label=f"{size['model']} on C4",
            trial=f"{_HERE}:llama",
            spec={**size, "context": chosen["context"], "rank": chosen["rank"]},
            steps=chosen["steps"],
            batch_size=chosen["batch_size"],
            arms=_CHOSEN["few"],
            select_on="nats",
        )
        for name, size in chosen.get("llama", {}).items()
    ]
    made.append(
        Workload(
            name="cost",
            label="time of a step",
            trial=f"{_HERE}:cost",
            spec=dict(chosen["cost"]),
            arms=("cost",),
            select_on="over_svd",
        )
    )
    made.append(
        Workload(
            name="memory",
            label="bytes of state of the transformer",
            trial=f"{_HERE}:memory",
            spec={"problem": "text-transformer", "rank": 24},
            arms=("memory",),
            data=("topics_text",),
            select_on="dct_over_formula",
        )
    )
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
    rank = chosen.get("rank") or chosen["text"]["rank"]
    ranks = _rank_arms(chosen.get("ranks", {}))
    workloads = _workloads(chosen, ranks)
    llama = [w.name for w in workloads if w.trial.endswith(":llama")]
    used = {name for workload in workloads for name in workload.arms}
    every = (*_arms(rank), *ranks, _WATCHED, *_MEASURED)
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=tuple(arm for arm in every if arm.name in used),
        claims=decidable(CLAIMS, workloads, instead={"nats": llama} if llama else None),
        tune_trials=chosen["tune_trials"],
        final_seeds=chosen["final_seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
