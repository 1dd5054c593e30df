"""LV-HBA (2024, arXiv:2401.16164): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="lv-hba",
    title=(
        "Constrained Bi-Level Optimization: Proximal Lagrangian Value function Approach and "
        "Hessian-free Algorithm"
    ),
    date="2024-01-29",
    authors=4,
    arxiv="2401.16164",
    venue="ICLR 2024 spotlight",
    code="https://github.com/SUSTech-Optimization/LV-HBA",
    licence="no licence stated",
    summary=(
        "Solves problems in which one optimisation contains another and constraints tie the two "
        "together, such as choosing the penalties of a support vector machine. There is no inner "
        "loop, no Hessian and no linear system: each step takes gradients at two points and one "
        "projection. The lower level may have many solutions. For tuning models with explicit "
        "constraints, data cleaning, pricing and transport."
    ),
    area="solvers",
    package="gradworks.solvers.bilevel",
    usage="""\
from gradworks.solvers.bilevel import LVHBA, BilevelProblem

problem = BilevelProblem(upper=F, lower=f, constraint=g, project=project)
result = LVHBA(problem).solve(x0, y0, max_iter=20_000)
""",
    tags=("bilevel", "hyper-parameters", "constraints", "hessian-free", "svm"),
)

CLAIMS = (
    Claim(
        id="coupled",
        statement=(
            "Handles lower-level constraints that couple both levels, in a single loop without "
            "Hessians."
        ),
        published="Direction (abstract); no figure could be read.",
        holds_when=(
            "The relative error is at most 1e-2 on both toy problems after 20,000 steps with one "
            "setting."
        ),
        setting="Toy problems with coupled constraints.",
        scaled_down="The same problems, n = 10 to 4000.",
        primary=True,
    ),
    Claim(
        id="non-unique",
        statement=(
            "Converges when the lower level is not strongly convex and its solution not unique."
        ),
        published="Direction (abstract).",
        holds_when=(
            "The relative error is at most 1e-2 on the problem whose lower solution is not "
            "unique, after 20,000 steps."
        ),
        setting="Toy problem LLC.",
        scaled_down="The same problems, n = 10 to 4000.",
    ),
    Claim(
        id="faster",
        statement=(
            "Is faster than AiPOD and E-AiPOD on toy problems and than GAM on support vector "
            "machines and data cleaning."
        ),
        published="Superior practical performance (abstract); no figure could be read.",
        holds_when=(
            "Steps and time to an error of 1e-1 below tuned E-AiPOD's in all seeds; on SVMs, test "
            "accuracy non-inferior to a grid search (margin 1 point) with hyper-parameters that "
            "moved."
        ),
        setting="Toy problems, SVM, data cleaning.",
        scaled_down="pima, breast cancer, digit pairs; 10 splits.",
    ),
)
