"""Gradient-normalized smoothness (2025, arXiv:2506.13710): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="gradient-normalized",
    title="Gradient-Normalized Smoothness for Optimization with Approximate Hessians",
    date="2025-06-16",
    authors=3,
    arxiv="2506.13710",
    venue="ICLR 2026",
    code="https://github.com/epfml/grad-norm-smooth",
    licence="Apache-2.0",
    summary=(
        "A Newton method whose regulariser is the gradient norm divided by a radius that is found "
        "on the fly, by one test on the decrease. The Hessian may be any positive approximation: "
        "Gauss-Newton, Fisher, diagonal, or nothing at all. There is no Lipschitz constant and no "
        "line search to tune, and it converges from anywhere. For full-batch problems with up to "
        "some ten thousand parameters: logistic and softmax regression, non-linear least squares, "
        "heads of networks."
    ),
    area="optim",
    package="gradworks.optim.gradient_normalized",
    usage="""\
from gradworks.optim.gradient_normalized import GradientNormalizedNewton, minimize

result = minimize(fun, x0, hessian="exact", grad_tol=1e-8)
optimizer = GradientNormalizedNewton(model.parameters())  # optimizer.step(closure, hessian=...)
""",
    tags=("second order", "newton", "gauss-newton", "fisher", "parameter-free", "convex"),
)

CLAIMS = (
    Claim(
        id="universal",
        statement=(
            "Approximate Hessians give fast global convergence on convex and non-convex problems "
            "without class parameters."
        ),
        published="Universal global rates (abstract); figures are curves.",
        holds_when=(
            "The approximate method reaches f - f* below 1e-8 on every problem, within 5 times "
            "the outer iterations of the exact one on log-sum-exp, and in under a third of those "
            "without a Hessian for mu up to 0.2."
        ),
        setting="Log-sum-exp, power residuals, Chebyshev, Rosenbrock.",
        scaled_down=(
            "The same problems, small sizes in `quick`; breast cancer and digits as real data."
        ),
        primary=True,
    ),
    Claim(
        id="linear",
        statement=(
            "Logistic and softmax problems converge linearly with the weighted Gauss-Newton matrix."
        ),
        published="Global linear rate (abstract).",
        holds_when=(
            "The log of f - f* falls linearly with the iterations over its last decades before "
            "1e-10; R^2 is shown."
        ),
        setting="Logistic regression, softmax.",
        scaled_down="Log-sum-exp with mu from 1 to 0.05; breast cancer; digits.",
    ),
    Claim(
        id="nonconvex",
        statement=(
            "The rates carry over to non-convex problems with Fisher and Gauss-Newton matrices."
        ),
        published="Direction (abstract).",
        holds_when=(
            "The approximate method reaches f - f* below 1e-8 on the power residuals and on "
            "Chebyshev."
        ),
        setting="Non-linear equations.",
    ),
    Claim(
        id="time-logsumexp",
        statement="The approximate Hessian solves log-sum-exp to 1e-8.",
        published=(
            "Wall time, 1000 x 1000: exact 29.0 s, weighted Gauss-Newton 83.9 s; 1000 gradient "
            "steps 3.9 s with B, 2.0 s without."
        ),
        holds_when="Times are ratios within one process; iterations decide.",
        setting="A uniform in [-1, 1], mu = 1, start at ones; the authors' machine.",
    ),
    Claim(
        id="time-rank-one",
        statement=(
            "A rank-one Fisher term solved by Woodbury is far cheaper than the exact Hessian."
        ),
        published=(
            "100 iterations, linear residual, p = 4, 100 x 200: exact 442 s, rank-one Fisher 0.91 "
            "s, gradient 0.03 s."
        ),
        holds_when="The step-time ratio to a dense solve is at least 100 at n = 2000.",
        setting="The authors' notebook.",
        scaled_down="One CPU thread.",
    ),
    Claim(
        id="time-chebyshev",
        statement="The inexact Hessian is cheaper than the exact one on Chebyshev.",
        published="n = 1000, p = 4, 100 iterations: exact 328.6 s, inexact 87.1 s.",
        holds_when="Reported as a ratio within one process.",
        setting="The authors' notebook.",
        scaled_down="n = 100.",
    ),
)
