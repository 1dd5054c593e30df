"""What the paper claims and what decides it here, fixed before the first run that counts.

The tables of the paper could not be read, so the bounds are ours. A unit is a network, averaged
over its seeds: the claims speak of a wide range of networks.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion
from gradworks.papers._model import Card
from gradworks.papers.loss_landscape.presets import NORMED

__all__ = ["ARM", "CARD", "CLAIMS", "MAINLY_POSITIVE"]

ARM = "network"

# Smallest over largest eigenvalue above which a spectrum is called mainly positive (arXiv
# 2504.17618, the follow-up).
MAINLY_POSITIVE = -0.6
# Strength of a rank correlation that counts as following.
FOLLOWS = 0.8

CARD = Card(
    slug="loss-landscape",
    title=(
        "Investigating generalization capabilities of neural networks by means of loss landscapes "
        "and Hessian analysis"
    ),
    date="2024-12-13",
    authors=1,
    arxiv="2412.10146",
    code="https://github.com/GabdullinN/loss-landscape-analysis",
    licence="Apache-2.0",
    summary=(
        "Plots of the loss on a plane through a trained model, with several choices of axes and "
        "scalings, and numbers from the Hessian's spectrum that should follow how a model takes "
        "to other data. Its warning: with batch normalisation the usual random planes can "
        "mislead, and planes along Hessian eigenvectors are safer. For people who compare "
        "training recipes or want a cheap proxy of generalisation."
    ),
    area="curvature",
    package="gradworks.curvature.landscape",
    usage="""\
from gradworks.curvature.landscape import hessian_directions, loss_plane

a, b = hessian_directions(model, loss_fn, data)
plane = loss_plane(model, loss_fn, data, a, b, alphas=grid, betas=grid, mode="recalibrate")
plane.plot(kind="contour")
""",
    tags=("loss landscape", "hessian", "batch normalisation", "visualisation", "generalisation"),
)


def _planes(name: str, metric: str) -> Criterion:
    """Random planes are further off than Hessian ones."""
    return Criterion(
        name=name,
        kind="threshold",
        metric=metric,
        arm=ARM,
        scale="ratio",
        reference=1.0,
        unit="workload",
        workloads=NORMED,
    )


def _follows(name: str, metric: str) -> Criterion:
    """Accuracy falls as the number rises."""
    return Criterion(
        name=name,
        kind="threshold",
        metric=metric,
        arm=ARM,
        direction="lower",
        reference=-FOLLOWS,
        unit="workload",
    )


_OWN = "ImageNet-1K models and own models."
_SCALED = "12 small networks on the 8x8 digits, 5 seeds (quick: 2 networks, 1 seed)."
_SHIFTS = "Noise, rotation, contrast, translation and MNIST-5k (quick: six levels of noise)."

CLAIMS = (
    Claim(
        id="batch-norm",
        statement=(
            "With batch normalisation, random normalised planes can be wrong; Hessian axes "
            "mitigate it."
        ),
        published="Direction (abstract); numeric tables not read.",
        holds_when=(
            "Over networks with batch norm, the largest relative difference between the eval and "
            "the recalibrated plane is larger for random filter-normalised axes than for Hessian "
            "axes: ratio with interval above 1. A unit eigenvector is a shorter step than a "
            "filter-normalised direction, so the ratio must be above 1 at equal lengths too."
        ),
        setting=_OWN,
        scaled_down=_SCALED,
        primary=True,
        criteria=(
            _planes("unit Hessian axes", "bn_ratio"),
            _planes("Hessian axes as long as random ones", "bn_ratio_long"),
        ),
    ),
    Claim(
        id="criteria",
        statement="Numbers from the spectrum follow accuracy when the data change.",
        published="re and Kh with n = 0.5 change with accuracy (abstract and a summary).",
        holds_when=(
            "The Spearman correlation of accuracy over shifts, averaged over networks, is at most "
            "-0.8 with its interval: for re, and for Kh with n = 0.5. One of the two alone is "
            "'partly'."
        ),
        setting="Models trained on one data set and tested on another.",
        scaled_down=_SHIFTS,
        criteria=(
            _follows("re", "spearman_re"),
            _follows("Kh, n = 0.5", "spearman_kh_half"),
        ),
    ),
    Claim(
        id="beyond-loss",
        statement="The criteria follow accuracy better than the loss on the same batch does.",
        published="Not claimed in what was read: the trivial proxy, which needs the same labels.",
        holds_when=(
            "The stronger of the correlations of re and Kh (n = 0.5), in the paper's direction, is "
            "stronger than that of the loss, averaged over networks, with interval above 0."
        ),
        setting="Our control.",
        scaled_down=_SHIFTS,
        criteria=(
            Criterion(
                name="re or Kh beyond the loss",
                kind="threshold",
                metric="beyond_loss",
                arm=ARM,
                reference=0.0,
                unit="workload",
            ),
        ),
    ),
    Claim(
        id="spectra",
        statement="Typical spectra, mainly positive, exist for a wide range of networks.",
        published="Direction (abstract).",
        holds_when=(
            "The share of trained networks whose most negative eigenvalue is above -0.6 times the "
            "largest is above a half with its interval, and at least four fifths."
        ),
        setting=_OWN,
        scaled_down=_SCALED,
        criteria=(
            Criterion(
                name="share mainly positive",
                kind="threshold",
                metric="mainly_positive",
                arm=ARM,
                reference=0.5,
                min_effect=0.3,
                unit="workload",
            ),
        ),
    ),
)
