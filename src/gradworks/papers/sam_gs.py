"""Gradient Similarity Surgery in Multi-Task Deep Learning (2025, arXiv:2506.06130).

Its card and its claims; ``PRESETS``, ``build`` and ``figures``, which make it run, are still to
come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

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

CLAIMS = (
    Claim(
        id="synthetic",
        statement=(
            "Reaches the optimum on synthetic problems where other methods stall, also when the "
            "losses differ in scale."
        ),
        published="Direction (abstract, figures of the README).",
        holds_when=(
            "More starts end at an optimum than with the plain sum, PCGrad and equalisation "
            "alone, with the scale of one loss at 1 and 0.1; the clip that belongs to the method "
            "is ablated."
        ),
        setting="Two toy problems, seven starts.",
        scaled_down="The same problems.",
        primary=True,
    ),
    Claim(
        id="benchmarks",
        statement="Is effective on multi-task benchmarks.",
        published=(
            "NYUv2, Cityscapes, CelebA and Meta-World MT10 (abstract, repository); figures not "
            "read."
        ),
        holds_when=(
            "Mean rank over tasks and mean relative change against single-task training are "
            "better than those of the peers, all tuned alike, paired over seeds."
        ),
        setting="NYUv2, Cityscapes, CelebA, MT10.",
        scaled_down="Two overlaid digits and the 14 outputs of Yeast, 10 seeds.",
    ),
    Claim(
        id="cost",
        statement="Solves no inner problem: its cost is close to linear scalarisation.",
        published="Direction (abstract).",
        holds_when="The step costs at most 1.2 times IMTL-G at two tasks.",
        setting="NYUv2, Cityscapes, CelebA, MT10.",
        scaled_down="Random Jacobians, one thread.",
    ),
    Claim(
        id="magnitude",
        statement="Similarity of size matters more than the angle.",
        published="Direction (project page).",
        holds_when=(
            "The spread of the final per-task metric over loss scales of 1e-2 to 1e2 is smaller "
            "than with linear scalarisation and with an angle-based method."
        ),
        setting="NYUv2, Cityscapes, CelebA, MT10.",
        scaled_down="The same small workloads.",
    ),
)
