"""Transformers learn in-context by gradient descent (2022, arXiv:2212.07677).

Its card and its claims; ``PRESETS``, ``build`` and ``figures``, which make it run, are still to
come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="in-context-gd",
    title="Transformers learn in-context by gradient descent",
    date="2022-12-15",
    authors=7,
    arxiv="2212.07677",
    venue="ICML 2023",
    code="https://github.com/google-research/self-organising-systems",
    licence="Apache-2.0 (not checked)",
    summary=(
        "One linear self-attention layer with explicit weights performs exactly one step of "
        "gradient descent on the regression task written in its context, and K layers perform K "
        "steps. Transformers trained on such tasks end up at that algorithm, or at a version with "
        "a learned curvature correction. Here are the constructed models, the trainer and the "
        "metrics that tell how alike two models are: for the study of in-context learning, and as "
        "a test oracle for linear-attention kernels."
    ),
    area="incontext",
    package="gradworks.incontext.gradient_descent",
    usage="""\
from gradworks.incontext.gradient_descent import alignment, construct_gd
from gradworks.incontext.tasks import regression_tasks

built = construct_gd(in_features=10, n_context=10, lr=6.06, num_layers=2)
tasks = regression_tasks(2048)
print(alignment(trained, built, tasks.tokens))  # differences and sensitivity cosine
""",
    tags=(
        "in-context learning",
        "transformers",
        "linear attention",
        "meta-learning",
        "construction",
    ),
)

CLAIMS = (
    Claim(
        id="construction",
        statement=(
            "A linear self-attention layer with explicit weights is one gradient-descent step, "
            "exactly."
        ),
        published="Exact (Proposition 1).",
        holds_when="The largest error over 20 random shapes is at most 1e-12 in float64.",
        setting="Linear self-attention.",
        primary=True,
    ),
    Claim(
        id="one-layer",
        statement=(
            "A trained single layer reaches the loss of gradient descent and its weights match "
            "the construction."
        ),
        published="Sensitivity cosine about 1, differences about 0 (abstract; curves).",
        holds_when=(
            "The 95 % interval over seeds of the relative loss difference lies in [-0.01, +0.02] "
            "and the mean cosine is at least 0.99."
        ),
        setting="One layer, d = N = 10.",
        scaled_down="5 seeds, 5,000 steps.",
    ),
    Claim(
        id="deeper",
        statement=(
            "Two and more trained layers beat plain gradient descent and match it with a "
            "curvature correction."
        ),
        published="Direction (abstract; curves).",
        holds_when=(
            "The trained loss is below the best gradient descent in every seed, within 10 % of "
            "the corrected one, and the cosine to the latter is higher, paired p at most 0.05."
        ),
        setting="K layers, looped and not.",
        scaled_down="Two and five shared layers, 5 seeds.",
    ),
    Claim(
        id="sine",
        statement="With a learned embedding it matches gradient descent on deep features.",
        published="Direction (abstract; curves).",
        holds_when="The two losses differ by at most 15 %.",
        setting="Sine regression, MLP and one layer.",
        scaled_down="5,000 steps.",
    ),
    Claim(
        id="copying",
        statement=(
            "With inputs and targets in separate tokens the first layer learns to copy neighbours."
        ),
        published="Direction (abstract; curves).",
        holds_when=(
            "The gradient norm on the next token is at least 5 times that on others and the loss "
            "at most 1.1 times one-step gradient descent."
        ),
        setting="Split tokens, two layers.",
        scaled_down="5,000 steps.",
    ),
    Claim(
        id="beyond",
        statement=(
            "Looped past their training depth and on other scales, trained model and gradient "
            "descent degrade alike."
        ),
        published="Direction (authors' notebook): dampening 0.75.",
        holds_when="Reported: both curves over extra steps and scales.",
        setting="Looped layers, inputs out of distribution.",
        scaled_down="The same on small sweeps.",
    ),
)
