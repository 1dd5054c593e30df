"""Loss landscapes (2024, arXiv:2412.10146): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

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

CLAIMS = (
    Claim(
        id="batch-norm",
        statement=(
            "With batch normalisation, random normalised planes can be wrong; Hessian axes "
            "mitigate it."
        ),
        published="Direction (abstract); numeric tables not read.",
        holds_when=(
            "Over models, the relative difference between the eval and the recalibrated plane is "
            "larger for random filter-normalised axes than for Hessian axes: ratio with interval "
            "above 1."
        ),
        setting="ImageNet-1K models and own models.",
        scaled_down="Small nets on the 8x8 digits; 12 models, 5 seeds.",
        primary=True,
    ),
    Claim(
        id="criteria",
        statement="Numbers from the spectrum follow accuracy when the data change.",
        published="re and Kh with n = 0.5 change with accuracy (abstract and a summary).",
        holds_when=(
            "The absolute Spearman correlation of accuracy with re or Kh over shifts is at least "
            "0.8 with interval, and is set against the trivial proxy, the loss on the same batch."
        ),
        setting="Models trained on one data set and tested on another.",
        scaled_down="Digits with noise, rotation, contrast and translation; MNIST-5k.",
    ),
    Claim(
        id="spectra",
        statement="Typical spectra, mainly positive, exist for a wide range of networks.",
        published="Direction (abstract).",
        holds_when=(
            "Reported: the share of models whose most negative eigenvalue is above -0.6 times the "
            "largest, with its interval."
        ),
        setting="ImageNet-1K models and own models.",
        scaled_down="12 small models.",
    ),
)
