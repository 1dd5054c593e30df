"""DeltaProduct (2025, arXiv:2502.10297): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="delta-product",
    title="DeltaProduct: Improving State-Tracking in Linear RNNs via Householder Products",
    date="2025-02-14",
    authors=6,
    arxiv="2502.10297",
    venue="NeurIPS 2025",
    code="https://github.com/automl/DeltaProduct",
    licence="MIT",
    summary=(
        "A linear recurrent layer with a matrix state that takes several Householder steps a "
        "token instead of one. With eigenvalues down to -1 a single layer can then represent "
        "permutations and rotations, and follow a changing state far past its training length. "
        "For builders of linear-time sequence models who need state tracking, and as a readable "
        "reference on any device of the GPU kernels."
    ),
    area="layers",
    package="gradworks.layers.delta_product",
    usage="""\
from gradworks.layers.delta_product import DeltaProduct

mixer = DeltaProduct(hidden_size=128, num_heads=4, num_householder=2)
y, state = mixer(x)  # pass the state on to stream
""",
    tags=(
        "layer",
        "linear attention",
        "recurrent",
        "householder",
        "state tracking",
        "sequence models",
    ),
)

CLAIMS = (
    Claim(
        id="s3",
        statement=(
            "Two Householder steps with eigenvalues in [-1, 1] solve the word problem of S3; one "
            "step, or eigenvalues in [0, 1], do not."
        ),
        published=(
            "DeltaProduct_2[-1,1] is expected to train successfully; DeltaProduct_1[-1,1], "
            "_1[0,1] and _2[0,1] are not expected to converge (authors' README)."
        ),
        holds_when=(
            "The best of equal tries reaches sequence accuracy 0.99 at the training length for "
            "the first, and stays below 0.5 for the other three; two steps also beat one on S4 "
            "and A5."
        ),
        setting="S3, one layer, words of 128, tested at 512.",
        scaled_down="Words of 16 and 32, width 32 to 64, a few tries a cell.",
        primary=True,
    ),
    Claim(
        id="groups",
        statement=(
            "More Householder steps track the states of larger groups and longer words than "
            "DeltaNet does."
        ),
        published="Direction (abstract).",
        holds_when=(
            "Sequence accuracy, and the length at which token accuracy falls under 0.9, grow with "
            "the number of steps at equal tries."
        ),
        setting="S3, S4, A5, S5, one layer.",
        scaled_down="Words of 32, tested to 256.",
    ),
    Claim(
        id="language",
        statement="Language models improve with the number of steps.",
        published="Direction (abstract): perplexity and length extrapolation; figures not read.",
        holds_when="Not decided at our scale; the preset `paper` states the setting.",
        setting="213M to 805M parameters.",
    ),
)
