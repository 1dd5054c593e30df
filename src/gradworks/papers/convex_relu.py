"""Convex ReLU training (2022, arXiv:2201.01965): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="convex-relu",
    title=(
        "Efficient Global Optimization of Two-Layer ReLU Networks: Quadratic-Time Algorithms and "
        "Adversarial Training"
    ),
    date="2022-01-06",
    authors=3,
    arxiv="2201.01965",
    venue="SIAM Journal on Mathematics of Data Science",
    code="https://github.com/Bai-YT/Convex-NN-Training",
    licence="MIT",
    summary=(
        "Training a two-layer ReLU network with weight decay is the same problem as a convex one "
        "over activation patterns, so its optimum can be found without a learning rate or a "
        "lottery of seeds. Patterns are sampled and the programme is solved by ADMM with one "
        "cached factorisation or with cheap block steps; a robust version trains against "
        "worst-case inputs. For tables with a few thousand rows, and as the reference that "
        "back-propagation can be compared with."
    ),
    area="solvers",
    package="gradworks.solvers.convex_relu",
    usage="""\
from gradworks.solvers.convex_relu import ConvexReLUClassifier

model = ConvexReLUClassifier(num_patterns=50, beta=1e-3, loss="bce").fit(X, y)
network = model.to_torch()  # the same network as nn.Sequential
""",
    tags=("convex", "relu", "admm", "tabular", "adversarial training", "global optimum"),
)

CLAIMS = (
    Claim(
        id="convergence",
        statement="ADMM converges linearly to the optimum of the sampled programme.",
        published="Direction (abstract); no figure could be read.",
        holds_when=(
            "The log of the residual is linear (R^2 above .95 on the last half) and the final "
            "value within 1e-6 of an interior-point solver on 20 random problems."
        ),
        setting="Sampled programmes of the paper.",
        scaled_down="n = 12 to 400, 7 to 10 patterns.",
        primary=True,
    ),
    Claim(
        id="early",
        statement="The first few iterations already predict well.",
        published="Direction (abstract).",
        holds_when=(
            "Accuracy after 10 steps is non-inferior to that at convergence (margin 1 point)."
        ),
        setting="Binary classification.",
        scaled_down="Breast cancer, digit pairs, wine, pima; 10 splits.",
    ),
    Claim(
        id="cost",
        statement="An iteration of the approximate formulation costs quadratic time.",
        published="Quadratic (abstract).",
        holds_when=(
            "The log-log slope of step time in the dimension lies in 1.6 to 2.4 at fixed patterns."
        ),
        setting="Approximate formulation.",
        scaled_down="Sizes where the products dominate.",
    ),
    Claim(
        id="sampled",
        statement="The sampled convex programme gives an approximately optimal classifier.",
        published="Direction (abstract).",
        holds_when=(
            "Its network objective is at most 1.05 times that of ADMM with 20 times as many "
            "directions."
        ),
        setting="Sampled convex programme.",
        scaled_down="Sizes where the products dominate.",
    ),
    Claim(
        id="robust",
        statement="Convex adversarial training yields robust networks.",
        published="Direction (abstract).",
        holds_when=(
            "Accuracy under a 50-step attack is above that of tuned adversarial back-propagation, "
            "paired over splits."
        ),
        setting="MNIST, Fashion-MNIST and CIFAR-10, two classes.",
        scaled_down="Breast cancer and other small tables, linf 0.3.",
    ),
)
