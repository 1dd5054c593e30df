"""Over-parameterised matrix sensing (2023, arXiv:2310.01769): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="matrix-sensing",
    title=(
        "How Over-Parameterization Slows Down Gradient Descent in Matrix Sensing: The Curses of "
        "Symmetry and Initialization"
    ),
    date="2023-10-02",
    authors=3,
    arxiv="2310.01769",
    venue="ICLR 2024 spotlight",
    summary=(
        "Recovering a low-rank matrix from linear measurements by gradient descent on its "
        "factors: with more columns than the rank, the symmetric form is provably slow, the "
        "unbalanced asymmetric form is fast at a rate set by the scale of the start, and "
        "rescaling the factors once removes that scale. For people who fit low-rank models "
        "without knowing the rank, and a testbed in which slowness can be predicted to several "
        "digits. No authors' code was found."
    ),
    area="solvers",
    package="gradworks.solvers.matrix_sensing",
    usage="""\
from gradworks.solvers.matrix_sensing import MeasurementOperator, accelerated_gd

op = MeasurementOperator.gaussian(m=2000, n1=50)
result = accelerated_gd(op, y, rank=6)  # more columns than the unknown rank
print(result.estimate, result.n_iter)
""",
    tags=(
        "low rank",
        "matrix sensing",
        "over-parametrization",
        "convergence rates",
        "gradient descent",
    ),
)

CLAIMS = (
    Claim(
        id="symmetric",
        statement=(
            "Symmetric gradient descent with too many columns is slow: its error falls no faster "
            "than 1/T^2."
        ),
        published="err_T = Omega(1/T^2) (abstract).",
        holds_when=(
            "The 95 % interval of the log-log slope lies in [-2.05, -1.9], and T^2 eta^2 err is "
            "within 5 % of (k - r)/4 under full observation."
        ),
        setting="n = 50, rank 3, k > r, random start.",
        scaled_down="The same size; Gaussian measurements in `full`.",
        primary=True,
    ),
    Claim(
        id="exact-rank",
        statement="With the exact rank it converges linearly.",
        published="exp(-Omega(T)) (abstract).",
        holds_when="The log of the error is linear in T with R^2 above 0.999.",
        setting="Symmetric, k = r.",
        scaled_down="n = 50.",
    ),
    Claim(
        id="asymmetric-exact",
        statement="The asymmetric form with the exact rank converges linearly.",
        published="exp(-Omega(T)) (abstract).",
        holds_when="The log of the error is linear in T with R^2 above 0.999.",
        setting="Asymmetric, k = r.",
        scaled_down="n = 50.",
    ),
    Claim(
        id="asymmetric",
        statement=(
            "The unbalanced asymmetric form converges linearly at a rate set by the initial scale."
        ),
        published="exp(-Omega(alpha^2 T)) (abstract).",
        holds_when=(
            "The interval of the log-log slope of the rate in alpha meets [1.9, 2.15] and comes "
            "within 0.1 of 2."
        ),
        setting="Asymmetric, k > r.",
        scaled_down="n = 50, alpha from 0.15 to 0.6.",
    ),
    Claim(
        id="dependence",
        statement="Plain gradient descent cannot avoid the dependence on the initial scale.",
        published="An example (abstract).",
        holds_when=(
            "The ratio of the largest to the smallest rate over alpha from 0.15 to 0.6 is above 8."
        ),
        setting="Asymmetric, k > r.",
        scaled_down="n = 50.",
    ),
    Claim(
        id="one-step",
        statement="Modifying one step frees the rate from the initial scale.",
        published="Rate as with the exact rank (abstract, Section 5).",
        holds_when=(
            "The ratio of the largest to the smallest rate over alpha from 0.01 to 0.6 is below "
            "1.2."
        ),
        setting="Asymmetric, k > r.",
        scaled_down="n = 50.",
    ),
)
