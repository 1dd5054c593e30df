"""GBWBN (2025, arXiv:2504.00660): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="gbw-batchnorm",
    title="Learning to Normalize on the SPD Manifold under Bures-Wasserstein Geometry",
    date="2025-04-01",
    authors=5,
    arxiv="2504.00660",
    venue="CVPR 2025",
    code="https://github.com/jjscc/GBWBN",
    licence="no licence stated",
    summary=(
        "Batch normalisation for networks whose activations are covariance matrices, as in EEG or "
        "skeleton recognition: centre at the batch's Bures-Wasserstein mean, rescale the spread, "
        "shift to a learned matrix, under a metric that is learned too. It is meant for "
        "ill-conditioned matrices, where the usual geometries struggle. With it come the layers "
        "of such networks, gradients that survive equal eigenvalues, and an optimizer for "
        "matrices that must stay orthogonal or positive."
    ),
    area="layers",
    package="gradworks.layers.spd",
    usage="""\
from gradworks.layers.spd import BiMap, CovariancePool, GBWBatchNorm, LogEig, ReEig

net = nn.Sequential(
    CovariancePool(), BiMap(12, 8), GBWBatchNorm(8, theta=0.5), ReEig(), LogEig(vectorize=True)
)
""",
    tags=("layer", "batch normalisation", "covariance", "spd manifold", "wasserstein", "eeg"),
)

CLAIMS = (
    Claim(
        id="accuracy",
        statement=(
            "Normalising under the generalised Bures-Wasserstein metric classifies better than "
            "under affine-invariant or log-Euclidean ones."
        ),
        published="Direction (abstract); no accuracy figure could be read.",
        holds_when=(
            "The paired accuracy difference to affine-invariant normalisation has its bootstrap "
            "95 % interval above 0 on real covariances and at condition numbers of 1e5 and more "
            "in a synthetic sweep."
        ),
        setting="SPDNet and RResNet on MAMEM-SSVEP-II, HDM05 and NTU60.",
        scaled_down="JapaneseVowels and BasicMotions, covariances of 12 and 6 channels, 10 seeds.",
        primary=True,
    ),
    Claim(
        id="ill-conditioned",
        statement="The data sets it is made for are ill-conditioned.",
        published="100 % of the samples of HDM05 and NTU have a condition number above 1e5.",
        holds_when="The share above 1e5 is measured on our sets and shown.",
        setting="HDM05 and NTU60.",
        scaled_down="JapaneseVowels (regularised covariances).",
    ),
)
