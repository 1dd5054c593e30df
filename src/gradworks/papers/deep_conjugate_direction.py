"""A deep conjugate direction method (2022, arXiv:2205.10763): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="deep-conjugate-direction",
    title="A Deep Conjugate Direction Method for Iteratively Solving Linear Systems",
    date="2022-05-22",
    authors=6,
    arxiv="2205.10763",
    venue="ICML 2023",
    code="https://github.com/ayano721/2023_DCDM",
    licence="no licence stated",
    summary=(
        "A conjugate-direction solver whose search direction comes from a small convolutional "
        "network applied to the residual, followed by an exact line search. The network is "
        "trained without solutions, from the operator alone. It needs far fewer iterations than "
        "conjugate gradients, but each one costs a network call: it pays only on a GPU and for "
        "thousands of solves of one family of systems, such as pressure projection in fluids."
    ),
    area="solvers",
    package="gradworks.solvers.deep_cg",
    usage="""\
from gradworks.solvers.deep_cg import DirectionNetwork, PoissonOperator, deep_conjugate_direction

A = PoissonOperator((64, 64))
net = DirectionNetwork.small(ndim=2)  # trained by train_direction_network
result = deep_conjugate_direction(A, b, net, rtol=1e-4)
""",
    tags=("linear systems", "conjugate gradients", "poisson", "fluids", "learned solver"),
)

CLAIMS = (
    Claim(
        id="iterations",
        statement="Reduces the residual in few iterations, independent of the size of the system.",
        published="Direction (abstract); no figure could be read.",
        holds_when=(
            "Median iterations grow by less than 1.25 a doubling of N over three doublings; "
            "partly, if the growth is below 60 % of that of conjugate gradients."
        ),
        setting="3-D Poisson systems, N = 64, 128, 256.",
        scaled_down="2-D grids to 256^2 and 3-D to 64^3, nets trained for minutes.",
        primary=True,
    ),
    Claim(
        id="generalises",
        statement="Solves systems that were not seen in training.",
        published="Direction (abstract): obstacles, other resolutions.",
        holds_when=(
            "On at least 10 unseen obstacles the iterations are at most half those of conjugate "
            "gradients, paired sign-flip p at most 0.05."
        ),
        setting="Obstacles and resolutions not seen.",
        scaled_down="The same on small grids.",
    ),
    Claim(
        id="millions",
        statement="Works with millions of unknowns.",
        published="N = 64, 128, 256 in 3-D (abstract and README).",
        holds_when="Not decided at our scale; the preset `paper` states the setting.",
        setting="256^3 cells on a GPU.",
    ),
    Claim(
        id="time",
        statement="Is faster than plain, deflated and incomplete-Cholesky conjugate gradients.",
        published="Direction (the authors' test program); no figure could be read.",
        holds_when=(
            "Wall time on the device at hand below that of the best peer, multigrid among them, "
            "at equal relative tolerances."
        ),
        setting="GPU.",
        scaled_down="CPU, all peers at one tolerance with set-up time listed.",
    ),
)
