"""Empirical Analysis of the Hessian of Over-Parametrized Neural Networks (2017, arXiv:1706.04454).

Five studies, each a trial of ``trial.py`` for every seed: spectra against width, against classes,
against separation and against batch size, and the loss between large- and small-batch solutions.
The criteria were fixed before the first run; the paper counts outliers by eye and prints no figure
that could be compared, so they are ours.
"""

from __future__ import annotations

from gradworks.bench.experiment import Arm, Experiment, Workload
from gradworks.papers._deciding import decidable
from gradworks.papers._model import Card
from gradworks.papers.hessian_spectrum.claims import CLAIMS
from gradworks.papers.hessian_spectrum.figures import figures
from gradworks.papers.hessian_spectrum.presets import PRESETS

__all__ = ["CARD", "CLAIMS", "PRESETS", "build", "figures"]

CARD = Card(
    slug="hessian-spectrum",
    title="Empirical Analysis of the Hessian of Over-Parametrized Neural Networks",
    date="2017-06-14",
    authors=5,
    arxiv="1706.04454",
    venue="ICLR 2018 workshop track",
    summary=(
        "The eigenvalues of a network's loss Hessian fall into two parts: a bulk near zero, which "
        "grows with the number of parameters, and a few large outliers, which depend on the data "
        "and are about as many as its classes. So minima are flat valleys, and solutions of "
        "small and large batches that look like different basins are joined without a barrier."
    ),
    area="curvature",
    package="gradworks.curvature.spectrum",
    usage=(
        "from gradworks.curvature import HessianOperator\n"
        "from gradworks.curvature.spectrum import spectrum\n"
        "\n"
        "report = spectrum(HessianOperator(model, loss_fn, data))\n"
        'print(report.split.num_outliers, report.summary["trace"])\n'
    ),
    tags=("hessian", "eigenvalues", "lanczos", "over-parametrization", "sharpness", "batch size"),
)

_TRIAL = "gradworks.papers.hessian_spectrum.trial:trial"
_NETWORK = Arm(name="network", label="trained network", method="torch.optim.SGD")


def _batch_arms(sizes: list[int]) -> tuple[Arm, ...]:
    """One arm a batch size; the smallest is what the others are compared with."""
    return tuple(
        Arm(
            name=f"batch-{size}",
            label=f"batch {size}",
            method="torch.optim.SGD",
            fixed={"batch_size": size},
            is_baseline=size == min(sizes),
        )
        for size in sizes
    )


def build(preset: str) -> Experiment:
    """Return the experiment of a preset.

    Args:
        preset: ``"quick"``, ``"full"`` or ``"paper"``.

    Returns:
        Workloads, arms and the claims they decide.

    Raises:
        ValueError: If there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    chosen = PRESETS[preset]
    batches = _batch_arms(chosen["batch_sizes"])
    workloads = tuple(
        Workload(
            name=name,
            label=entry["label"],
            trial=_TRIAL,
            spec=entry["spec"],
            steps=entry["steps"],
            batch_size=entry["spec"].get("batch_size", 0),
            arms=tuple(a.name for a in batches) if name == "batches" else (_NETWORK.name,),
            data=tuple(entry["data"]),
        )
        for name, entry in chosen["workloads"].items()
    )
    return Experiment(
        paper=CARD.slug,
        preset=preset,
        workloads=workloads,
        arms=(_NETWORK, *batches),
        claims=decidable(CLAIMS, workloads, whole=True),
        final_seeds=chosen["seeds"],
        trial_seconds=chosen["trial_seconds"],
        notes=tuple(chosen["notes"]),
    )
