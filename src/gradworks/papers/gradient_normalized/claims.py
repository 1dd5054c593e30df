"""The card of gradient-normalised Newton, its claims and the tests that decide them here."""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion
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

LOGSUMEXP = ("lse-1", "lse-0.5", "lse-0.1", "lse-0.05")
SHARP = ("lse-0.1", "lse-0.05")  # mu up to 0.2
NONCONVEX = ("rosenbrock-p5", "linear-p4", "chebyshev")
REAL = ("breast-cancer", "digits")
ARM = "gradient-normalized"


def _every(name: str, metric: str, workloads: tuple[str, ...]) -> Criterion:
    """1 on every problem and for every seed."""
    return Criterion(
        name=name,
        kind="exactness",
        metric=metric,
        arm=ARM,
        workloads=workloads,
        reference=1.0,
        tolerance=1e-12,
    )


def _bound(
    name: str, metric: str, workloads: tuple[str, ...], value: float, *, most: bool = True
) -> Criterion:
    """Mean of the problems at most, or at least, so large."""
    return Criterion(
        name=name,
        kind="threshold",
        metric=metric,
        arm=ARM,
        direction="lower" if most else "higher",
        workloads=workloads,
        reference=value,
    )


CLAIMS = (
    Claim(
        id="universal",
        statement=(
            "Approximate Hessians give fast global convergence on convex and non-convex problems "
            "without class parameters."
        ),
        published=(
            "Universal global rates (abstract); figures are curves. Log-sum-exp 1000 x 1000 to "
            "1e-8: exact 29.0 s, weighted Gauss-Newton 83.9 s (the authors' notebook)."
        ),
        holds_when=(
            "With the approximate Hessian, f - f* falls below 1e-8 on every problem and for every "
            "seed; on log-sum-exp within 5 times the iterations of the exact Hessian; and for mu "
            "up to 0.2 in under a third of those without a Hessian."
        ),
        setting="Log-sum-exp, power residuals, Chebyshev, Rosenbrock.",
        scaled_down=(
            "The same problems, smaller; logistic regression of breast cancer and softmax "
            "regression of digits as real data."
        ),
        primary=True,
        criteria=(
            _every("solved, every problem", "solved_approximate", (*LOGSUMEXP, *NONCONVEX, *REAL)),
            _bound("iterations over the exact Hessian's", "over_exact", LOGSUMEXP, 5.0),
            _bound("iterations over those without one", "over_zero", SHARP, 1 / 3),
        ),
    ),
    Claim(
        id="linear",
        statement=(
            "Logistic and softmax problems converge linearly with the weighted Gauss-Newton matrix."
        ),
        published="Global linear rate (abstract).",
        holds_when=(
            "A line through the log of f - f* over the iterations, between 1e-2 and 1e-10 of the "
            "first value, has R^2 of at least 0.95."
        ),
        setting="Logistic regression, softmax.",
        scaled_down="Log-sum-exp with mu from 1 to 0.05; breast cancer; digits.",
        criteria=(
            _bound("R^2, log-sum-exp", "r2_approximate", LOGSUMEXP, 0.95, most=False),
            _bound("R^2, real data", "r2_approximate", REAL, 0.95, most=False),
        ),
    ),
    Claim(
        id="nonconvex",
        statement=(
            "The rates carry over to non-convex problems with Fisher and Gauss-Newton matrices."
        ),
        published="Direction (abstract).",
        holds_when="f - f* falls below 1e-8 on each, for every seed.",
        setting="Non-linear equations.",
        scaled_down="Rosenbrock p = 5, linear p = 4, Chebyshev p = 4.",
        criteria=(_every("solved, power residuals", "solved_approximate", NONCONVEX),),
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
        holds_when="A dense solve takes at least 100 times as long at n = 2000, in one process.",
        setting="The authors' notebook.",
        scaled_down="One CPU thread; the solve alone.",
        criteria=(
            Criterion(
                name="dense over rank-one solve",
                kind="threshold",
                metric="dense_over_rank_one",
                arm="solves",
                direction="higher",
                workloads=("solves",),
                reference=100.0,
            ),
        ),
    ),
    Claim(
        id="time-chebyshev",
        statement="The inexact Hessian is cheaper than the exact one on Chebyshev.",
        published="n = 1000, p = 4, 100 iterations: exact 328.6 s, inexact 87.1 s.",
        holds_when=(
            "Time to f - f* below 1e-8 with the inexact Hessian over the time with the exact one, "
            "in one process, is below 1."
        ),
        setting="The authors' notebook.",
        scaled_down="n = 100.",
        criteria=(_bound("time over the exact Hessian's", "time_ratio", ("chebyshev",), 1.0),),
    ),
)
