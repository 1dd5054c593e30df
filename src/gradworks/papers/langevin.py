"""Langevin dynamics and weight averaging (2026, arXiv:2603.06028): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="langevin",
    title=(
        "Improved high-dimensional estimation with Langevin dynamics and stochastic weight "
        "averaging"
    ),
    date="2026-03-06",
    authors=3,
    arxiv="2603.06028",
    venue="ICLR 2026",
    summary=(
        "Noise plus averaging of the iterates finds a hidden direction in a rough landscape with "
        "far fewer samples than the last iterate of the same dynamics needs: every single iterate "
        "looks like noise, their average does not. Here are a spherical Langevin optimizer and a "
        "streaming average of weights that keeps second moments too, with the exact prediction of "
        "what the average tends to. For researchers of feature learning; no authors' code was "
        "found."
    ),
    area="optim",
    package="gradworks.optim.langevin",
    usage="""\
from gradworks.optim.langevin import IterateAverage, Langevin, direction

optimizer = Langevin([theta], lr=1e-3, temperature=0.05, manifold="sphere")
average = IterateAverage([theta], burn_in=1000)
# in the loop: loss.backward(); optimizer.step(); average.update()
found = direction(average, order=3)
""",
    tags=(
        "langevin",
        "averaging",
        "tensor pca",
        "single-index models",
        "sample complexity",
        "sgld",
    ),
)

CLAIMS = (
    Claim(
        id="average",
        statement=(
            "The average iterate recovers the hidden direction with about d to the power k*/2 "
            "samples."
        ),
        published="n >= C d^{k*/2} (abstract); figures are curves.",
        holds_when=(
            "The average is not worse than the partial-trace estimator (paired interval above "
            "-0.05, cosine above 0.93), and its overlap times d^{1/4} at n = d^{1.5} does not "
            "fall with d."
        ),
        setting="Tensor PCA and single-index models.",
        scaled_down=(
            "Tensors of order 3 with d from 10 to 48; the asymptotic exponents are out of reach."
        ),
        primary=True,
    ),
    Claim(
        id="last",
        statement="The last iterate, and online SGD, need d to the power max(1, k* - 1).",
        published="Earlier work, cited in the abstract.",
        holds_when=(
            "At the same n and temperature the overlap of the last iterate is within 0.06 of "
            "chance while the average exceeds 0.45."
        ),
        setting="Tensor PCA and single-index models.",
        scaled_down=(
            "Tensors of order 3 with d from 10 to 48; the asymptotic exponents are out of reach."
        ),
    ),
    Claim(
        id="smoothing",
        statement=(
            "Smoothing the landscape reaches d to the power max(1, k*/2), optimal in the worst "
            "case."
        ),
        published="Earlier work, cited in the abstract.",
        holds_when="Reported: explicit smoothing as a baseline on the same tensors.",
        setting="Tensor PCA and single-index models.",
        scaled_down=(
            "Tensors of order 3 with d from 10 to 48; the asymptotic exponents are out of reach."
        ),
    ),
    Claim(
        id="sgd",
        statement="Minibatch SGD with averaging, without added noise, has the same rate.",
        published="A conjecture (abstract).",
        holds_when=(
            "Reported as curves: averaged against last iterate over batch sizes 1 to 32 and a "
            "grid of lr."
        ),
        setting="Tensor PCA and single-index models.",
        scaled_down=(
            "Tensors of order 3 with d from 10 to 48; the asymptotic exponents are out of reach."
        ),
    ),
)
