"""A paper whose trials are arithmetic: it runs in no time and knows its answer."""

from __future__ import annotations

import torch

from gradworks.bench import (
    Arm,
    Claim,
    Criterion,
    Experiment,
    Figure,
    Series,
    Trial,
    Workload,
)
from gradworks.bench.result import Result
from gradworks.papers import Card, Paper

SHIFT = {"value": 0.0}  # a test changes it to make this machine compute something else

CLAIM = Claim(
    id="lower",
    statement="The method ends lower.",
    published="0.5 lower",
    holds_when="paired difference below 0",
    primary=True,
    criteria=(
        Criterion(
            name="lower",
            kind="superiority",
            metric="error",
            arm="ours",
            baseline="theirs",
            direction="lower",
            workloads=("second", "first"),
        ),
    ),
)


def trial(trial: Trial) -> None:
    """A figure that depends on seed, arm and a setting, and one that depends on the clock."""
    trial.resume()
    g = trial.generator("noise")
    noise = torch.rand((), dtype=torch.float64, generator=g).item()
    error = trial.settings["level"] + noise + SHIFT["value"]
    trial.result("test", error=error, threads=float(torch.get_num_threads()))
    trial.result("train", step_seconds=trial.elapsed)


def build(preset: str) -> Experiment:
    """Two workloads, two arms, six seeds."""
    return Experiment(
        paper="adamp",  # a slug of the catalogue, so that figures find their way
        preset=preset,
        workloads=tuple(
            Workload(name=name, label=f"{name} toy", trial="tests.papers.toy:trial")
            for name in ("first", "second")
        ),
        arms=(
            Arm(name="ours", label="ours", method="a word", fixed={"level": 1.0}),
            Arm(
                name="theirs",
                label="theirs",
                method="a word",
                fixed={"level": 2.0},
                is_baseline=True,
            ),
        ),
        claims=(CLAIM,),
        final_seeds=6,
    )


def figures(result: Result) -> list[Figure]:
    """One figure with a value that JSON cannot hold."""
    values = result.values("error", "ours", "first")
    return [
        Figure(
            id="error",
            title="Error",
            caption="One point a seed.",
            x_label="seed",
            y_label="error",
            series=(
                Series(name="ours", x=list(values), y=list(values.values()), style="points"),
                Series(name="nothing", x=(0.0,), y=(float("nan"),)),
            ),
        )
    ]


def paper(**changes: object) -> Paper:
    """The toy as a paper of the catalogue."""
    facts: dict[str, object] = {
        "card": Card(
            slug="adamp",
            title="A toy",
            date="2020-01-01",
            authors=1,
            summary="A toy. It adds.",
            area="optim",
            package="gradworks.optim.toy",
            usage="",
        ),
        "claims": (CLAIM,),
        "module": "tests.papers.toy",
        "presets": {"quick": {}, "full": {}, "paper": {}},
        "builder": build,
        "drawer": figures,
    }
    return Paper(**{**facts, **changes})  # type: ignore[arg-type]
