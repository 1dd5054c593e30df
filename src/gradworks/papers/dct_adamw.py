"""DCT-AdamW (2025, arXiv:2505.17967): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="dct-adamw",
    title="SVD-Free Low-Rank Adaptive Gradient Optimization for Large Language Models",
    date="2025-05-23",
    authors=4,
    arxiv="2505.17967",
    venue="ICLR 2026, as Trion",
    code="https://github.com/IST-DASLab/ISTA-DASLab-Optimizers",
    licence="MIT",
    summary=(
        "AdamW whose moments live in a small subspace of each weight matrix. Instead of an SVD, "
        "the subspace is a handful of columns of one fixed cosine transform, picked at every step "
        "by how much of the gradient they capture; a layer stores column numbers and no "
        "projector. Trion uses the same selection inside Muon. For models whose optimizer state "
        "does not fit; later versions of the paper have another title and 6 authors."
    ),
    area="optim",
    package="gradworks.optim.dct_adamw",
    usage="""\
from gradworks.optim.dct_adamw import DCTAdamW

optimizer = DCTAdamW(model.parameters(), lr=1e-3, rank=64)
""",
    tags=(
        "optimizer",
        "low rank",
        "memory",
        "cosine transform",
        "galore",
        "trion",
        "language models",
    ),
)

CLAIMS = (
    Claim(
        id="llama-800m",
        statement="Loses less perplexity than another low-rank AdamW, for less memory and time.",
        published=(
            "Validation perplexity 13.69 against 13.91 (LDAdamW) and 11.73 (AdamW, full rank); "
            "memory 57.82 / 72.10 / 73.72 GiB; time 1d15h17m / 2d1h24m / 1d13h22m."
        ),
        holds_when=(
            "The gap in validation loss to AdamW is at most 1.1 times that of GaLore, paired over "
            "seeds with an interval."
        ),
        setting="Llama-800M on C4, 100 tokens a parameter.",
        scaled_down="2 to 4 layer character transformers, ranks 8 to 96, 5 seeds.",
        primary=True,
    ),
    Claim(
        id="trion",
        statement="Trion loses less perplexity than Dion.",
        published=(
            "350M / 800M / 1.3B, rank 256: Trion 15.30 / 12.22 / 11.28, Dion 15.64 / 12.42 / "
            "11.47, Muon (full rank) 14.99 / 12.05 / 11.13."
        ),
        holds_when=(
            "Reported: validation loss against that of Muon at the same ranks, paired over seeds "
            "with an interval."
        ),
        setting="C4, 20 tokens a parameter.",
        scaled_down="The same small transformers.",
    ),
    Claim(
        id="trion-memory",
        statement="Trion needs the memory of Muon and less than Dion.",
        published=(
            "350M / 800M / 1.3B: Trion 42.42 / 67.45 / 63.62 GB, Dion 45.59 / 71.75 / 68.58, Muon "
            "42.42 / 67.45 / 63.64."
        ),
        holds_when="State bytes follow the formula exactly.",
        setting="C4, 20 tokens a parameter.",
        scaled_down="State of the small models.",
    ),
    Claim(
        id="trion-time",
        statement="Trion is faster than Dion.",
        published="350M: 1h53m, Dion 2h3m, Muon 1h52m.",
        holds_when="Reported: step-time ratios, measured in turns in one process.",
        setting="C4, 20 tokens a parameter.",
        scaled_down="CPU step time.",
    ),
    Claim(
        id="svd",
        statement=(
            "Choosing columns replaces the SVD: faster, with less memory and running time that "
            "does not depend on the rank."
        ),
        published=(
            "Faster, up to 25 % less memory, running time independent of rank; matches SVD-based "
            "projections (abstract)."
        ),
        holds_when=(
            "Step time at most 0.2 of GaLore's with an SVD at every step; the difference to a "
            "random basis is reported whatever it is."
        ),
        setting="Abstract.",
        scaled_down="100 tensors, 10M parameters, one thread.",
    ),
)
