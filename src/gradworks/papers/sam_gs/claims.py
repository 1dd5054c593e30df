"""What the paper claims and what decides it here, fixed before the first run that counts."""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion, Direction
from gradworks.papers._model import Card
from gradworks.papers.sam_gs.presets import CONTROLS, LABELS, PEERS

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="sam-gs",
    title="Gradient Similarity Surgery in Multi-Task Deep Learning",
    date="2025-06-06",
    authors=4,
    arxiv="2506.06130",
    code="https://github.com/ThomBors/samgs",
    licence="MIT",
    summary=(
        "Combines the gradients of several tasks by looking at their sizes, not their angles. "
        "Where the sizes are too unlike, every task's gradient is rescaled to the mean size; "
        "elsewhere each coordinate is weighted by that task's own momentum. It needs no solver "
        "and costs a few passes over the gradients. For one trunk trained on several losses of "
        "very different scale."
    ),
    area="multitask",
    package="gradworks.multitask.sam_gs",
    usage="""\
from gradworks.multitask import SAMGS, TaskGradients

gradients = TaskGradients(trunk.parameters(), {"a": head_a.parameters(), "b": head_b.parameters()})
aggregate = SAMGS(gamma=0.7)
# in the loop, in place of loss.backward():
gradients.backward({"a": loss_a, "b": loss_b}, aggregate)
""",
    tags=("multi-task", "gradient conflict", "magnitude", "momentum", "aggregation"),
)

_REAL = ("digits", "yeast")
_BENCHMARKS = ("cityscapes", "nyuv2", "celeba")
_ONE_START = 1 / 7  # of seven, on each of two problems
_ONE_PERCENT = 0.01  # of the geometric mean of the errors


def _over(
    name: str,
    metric: str,
    arm: str,
    baseline: str,
    workloads: tuple[str, ...],
    *,
    direction: Direction,
    least: float,
) -> Criterion:
    """A paired difference between two methods."""
    return Criterion(
        name=name,
        kind="superiority",
        metric=metric,
        arm=arm,
        baseline=baseline,
        direction=direction,
        workloads=workloads,
        min_effect=least,
    )


def _starts(metric: str, where: str, baseline: str, who: str, arm: str = "toy-samgs") -> Criterion:
    """A difference in the share of starts."""
    name = f"{LABELS[arm]} - {who}, {where}"
    return _over(name, metric, arm, baseline, ("toys",), direction="higher", least=_ONE_START)


def _errors(other: str, workloads: tuple[str, ...]) -> Criterion:
    """The logarithm of the ratio of errors, mean over tasks and problems."""
    return _over(
        f"SAM-GS - {LABELS[other]}, log error",
        "log_error",
        "samgs",
        other,
        workloads,
        direction="lower",
        least=_ONE_PERCENT,
    )


# The clip belongs to the authors' loop: rivals get the better of with and without in each unit.
_RIVALS = {
    "plain sum": "toy-sum|toy-sum-clip",
    "PCGrad": "toy-pcgrad|toy-pcgrad-clip",
    "equalisation alone": "toy-equalise|toy-equalise-clip",
}
_ENDS = {
    "reached_1": "off the ridge, equal scales",
    "reached_0.1": "off the ridge, one loss a tenth",
    "optimum_1": "at an optimum, equal scales",
}

CLAIMS = (
    Claim(
        id="synthetic",
        statement=(
            "Reaches the optimum on synthetic problems where other methods stall, also when the "
            "losses differ in scale."
        ),
        published="Direction (abstract, figures of the README).",
        holds_when=(
            "The share of starts that leave the ridge, with the scale of one loss at 1 and at 0.1, "
            "and the share that ends at an optimum with equal scales, are larger by at least 1/7 "
            "than with the plain sum, PCGrad and equalisation alone, each with or without a clip, "
            "whichever is better in each seed; every interval above zero."
        ),
        setting="Two synthetic problems, seven starts.",
        scaled_down="The same problems; later seeds move the starts by up to 0.5.",
        primary=True,
        criteria=tuple(
            _starts(metric, where, baseline, who)
            for metric, where in _ENDS.items()
            for who, baseline in _RIVALS.items()
        ),
    ),
    Claim(
        id="benchmarks",
        statement="Is effective on multi-task benchmarks.",
        published=(
            "NYUv2, Cityscapes, CelebA and Meta-World MT10 (abstract, repository); figures not "
            "read."
        ),
        holds_when=(
            "With equal tuning, the mean logarithm of the errors over tasks and both problems is "
            "lower by at least 0.01 (1 % of the errors) than that of the plain sum, uncertainty "
            "weighting, PCGrad, CAGrad, MGDA, IMTL-G, Nash-MTL and Aligned-MTL, each with its "
            "interval below zero. Mean rank and change against single-task training are shown."
        ),
        setting="NYUv2, Cityscapes, CelebA, MT10.",
        scaled_down=(
            "Two overlaid digits with reconstruction (120 steps) and the 14 outputs of Yeast (80 "
            "steps), 10 seeds."
        ),
        criteria=tuple(_errors(peer, (*_REAL, *_BENCHMARKS)) for peer in PEERS),
    ),
    Claim(
        id="cost",
        statement="Solves no inner problem: its cost is close to linear scalarisation.",
        published="Direction (abstract).",
        holds_when=(
            "A call takes at most 1.2 times that of IMTL-G at two tasks of a million parameters. A "
            "whole step over that of the plain sum is shown; it has a backward pass a task."
        ),
        setting="NYUv2, Cityscapes, CelebA, MT10.",
        scaled_down="Random Jacobians, one thread, timed in turns in one process.",
        criteria=(
            Criterion(
                name="SAM-GS over IMTL-G, two tasks",
                kind="threshold",
                metric="time_imtlg_2",
                arm="cost",
                direction="lower",
                reference=1.2,
                workloads=("cost",),
            ),
        ),
    ),
    Claim(
        id="magnitude",
        statement="Similarity of size matters more than the angle.",
        published="Direction (project page).",
        holds_when=(
            "The spread of each task's logarithm of the error over scales of one loss from 1e-2 to "
            "1e2 is smaller, by at least 0.05, than with the plain sum and with PCGrad, which "
            "looks at angles; both intervals below zero."
        ),
        setting="NYUv2, Cityscapes, CelebA, MT10.",
        scaled_down="Digits with reconstruction, the left one's loss scaled, 100 steps.",
        criteria=tuple(
            _over(
                f"SAM-GS - {LABELS[other]}, spread over scales",
                "spread",
                "samgs",
                other,
                ("scales",),
                direction="lower",
                least=0.05,
            )
            for other in ("sum", "pcgrad")
        ),
    ),
    Claim(
        id="controls",
        statement="It is more than equalisation and more than a sum with well-chosen weights.",
        published="Not stated: our controls.",
        holds_when=(
            "With equal tuning, the mean logarithm of the errors is lower by at least 0.01 than "
            "with equalisation alone and than with a sum whose weight is tuned, and the spread "
            "over scales lower by at least 0.05 than with equalisation alone; every interval below "
            "zero."
        ),
        scaled_down="The same small problems.",
        criteria=(
            *(_errors(control, (*_REAL, *_BENCHMARKS)) for control in CONTROLS),
            _over(
                "SAM-GS - equalisation alone, spread over scales",
                "spread",
                "samgs",
                "equalise",
                ("scales",),
                direction="lower",
                least=0.05,
            ),
        ),
    ),
    Claim(
        id="clip",
        statement="The clip of the training loop is part of the method.",
        published="Not stated; the released loop clips every gradient to norm 1.",
        holds_when=(
            "Without the clip the share of starts at an optimum, equal scales, is smaller by at "
            "least 1/7, with its interval; so is that of scale='norm', which is meant to replace "
            "it."
        ),
        scaled_down="The synthetic problems.",
        criteria=tuple(
            _starts("optimum_1", "at an optimum, equal scales", arm, LABELS[arm])
            for arm in ("toy-samgs-free", "toy-samgs-norm")
        ),
    ),
)
