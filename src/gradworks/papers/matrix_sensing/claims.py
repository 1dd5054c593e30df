"""What the paper claims and what decides it here, fixed before the first run that counts.

Every claim is a rate, and every rate here has a prediction with its constant, which the figures
draw beside the measurements. Bounds of slopes hold for each number of columns, not for their mean.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion
from gradworks.papers._model import Card

__all__ = ["ARM", "CARD", "CLAIMS"]

ARM = "descent"

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


def _bound(name: str, metric: str, workload: str, value: float, *, most: bool = False) -> Criterion:
    """A figure whose interval over seeds lies on one side of a constant."""
    return Criterion(
        name=name,
        kind="threshold",
        metric=metric,
        arm=ARM,
        direction="lower" if most else "higher",
        reference=value,
        workloads=(workload,),
    )


def _slopes(where: str, workload: str) -> tuple[Criterion, Criterion]:
    """The window of the log-log slope."""
    return (
        _bound(f"slope above -2.05, {where}", "slope_low", workload, -2.05),
        _bound(f"slope below -1.9, {where}", "slope_high", workload, -1.9, most=True),
    )


def _rates(where: str, workload: str) -> tuple[Criterion, ...]:
    """The window of the slope of the rate in alpha."""
    return (
        _bound(f"slope above 1.9, {where}", "slope_low", workload, 1.9),
        _bound(f"slope below 2.15, {where}", "slope_high", workload, 2.15, most=True),
        _bound(f"mean slope below 2.1, {where}", "slope", workload, 2.1, most=True),
    )


FULL, GAUSSIAN, DIGITS = "full observation", "Gaussian", "digits"
_SETTING = "50 x 50, rank 3, random starts; curves, no table."
_SCALED = (
    "Full observation of 50 x 50 matrices in `quick`; in `full` Gaussian measurements of {} too{}."
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
            "For every number of columns the log-log slope of the error on T from 4,000 to 40,000 "
            "lies in [-2.05, -1.9] with its interval over seeds: full observation, Gaussian "
            "measurements, condition numbers 3 and 10, the digits; and with full observation of "
            "random matrices T^2 eta^2 err is within 5 % of (k - r)/4 for every seed."
        ),
        setting=_SETTING,
        scaled_down=_SCALED.format(
            "30 x 30 ones", ", condition numbers up to 10, and second moments of the digits"
        ),
        primary=True,
        criteria=(
            *_slopes(FULL, "symmetric"),
            Criterion(
                name="T^2 eta^2 err over (k - r)/4",
                kind="exactness",
                metric="constant",
                arm=ARM,
                reference=1.0,
                tolerance=0.05,
                workloads=("symmetric",),
            ),
            *_slopes(GAUSSIAN, "symmetric-gaussian"),
            *_slopes("ill-conditioned", "kappa-gaussian"),
            *_slopes(DIGITS, "digits"),
        ),
    ),
    Claim(
        id="exact-rank",
        statement="With the exact rank it converges linearly.",
        published="exp(-Omega(T)) (abstract).",
        holds_when=(
            "The log of the error between 1e-24 and 1e-4 is linear in T with R^2 above 0.999."
        ),
        setting="Symmetric, k = r.",
        scaled_down=_SCALED.format("20 x 20 ones", ", and second moments of the digits"),
        criteria=(
            _bound(f"R^2, {FULL}", "r2_symmetric", "exact", 0.999),
            _bound(f"R^2, {GAUSSIAN}", "r2_symmetric", "exact-gaussian", 0.999),
            _bound(f"R^2, {DIGITS}", "r2_symmetric", "digits", 0.999),
        ),
    ),
    Claim(
        id="asymmetric-exact",
        statement="The asymmetric form with the exact rank converges linearly.",
        published="exp(-Omega(T)) (abstract).",
        holds_when=(
            "The log of the error between 1e-24 and 1e-4 is linear in T with R^2 above 0.999."
        ),
        setting="Asymmetric, k = r.",
        scaled_down=_SCALED.format("20 x 20 ones", ""),
        criteria=(
            _bound(f"R^2, {FULL}", "r2_asymmetric", "exact", 0.999),
            _bound(f"R^2, {GAUSSIAN}", "r2_asymmetric", "exact-gaussian", 0.999),
        ),
    ),
    Claim(
        id="asymmetric",
        statement=(
            "The unbalanced asymmetric form converges linearly at a rate set by the initial scale."
        ),
        published="exp(-Omega(alpha^2 T)) (abstract).",
        holds_when=(
            "The log-log slope of the rate in alpha lies in [1.9, 2.15] for every number of "
            "columns and below 2.1 in their mean, with its interval over seeds."
        ),
        setting="Asymmetric, k > r.",
        scaled_down=_SCALED.format("20 x 20 ones", "; alpha from 0.15 to 0.6"),
        criteria=(
            *_rates(FULL, "asymmetric"),
            *_rates(GAUSSIAN, "asymmetric-gaussian"),
        ),
    ),
    Claim(
        id="dependence",
        statement="Plain gradient descent cannot avoid the dependence on the initial scale.",
        published="An example (abstract).",
        holds_when=(
            "The ratio of the largest to the smallest rate over alpha from 0.15 to 0.6 is above 8."
        ),
        setting="Asymmetric, k > r.",
        scaled_down=_SCALED.format("20 x 20 ones", ""),
        criteria=(
            _bound(f"ratio of rates, {FULL}", "ratio", "asymmetric", 8.0),
            _bound(f"ratio of rates, {GAUSSIAN}", "ratio", "asymmetric-gaussian", 8.0),
        ),
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
        scaled_down=_SCALED.format("20 x 20 ones", ""),
        criteria=(
            _bound(f"ratio of rates, {FULL}", "ratio", "one-step", 1.2, most=True),
            _bound(f"ratio of rates, {GAUSSIAN}", "ratio", "one-step-gaussian", 1.2, most=True),
        ),
    ),
)
