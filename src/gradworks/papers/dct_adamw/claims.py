"""The card of DCT-AdamW, its claims and the tests that decide them here."""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion
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

# A hundredth of a nat a character counts as equal: a perplexity that differs by 1 %.
MARGIN = 0.01


def _lower(name: str, arm: str, baseline: str, least: float | None = None) -> Criterion:
    """Test cross-entropy below a baseline's."""
    return Criterion(
        name=name,
        kind="superiority",
        metric="nats",
        arm=arm,
        baseline=baseline,
        direction="lower",
        workloads=("text",),
        min_effect=least,
    )


def _ratio(name: str, metric: str, most: float) -> Criterion:
    """A ratio of step times at most so large."""
    return Criterion(
        name=name,
        kind="threshold",
        metric=metric,
        arm="cost",
        direction="lower",
        workloads=("cost",),
        reference=most,
    )


def _bytes(name: str, metric: str) -> Criterion:
    """Bytes of state over what the formula says."""
    return Criterion(
        name=name,
        kind="exactness",
        metric=metric,
        arm="memory",
        workloads=("memory",),
        reference=1.0,
        tolerance=1e-12,
    )


CLAIMS = (
    Claim(
        id="svd",
        statement=(
            "Picking columns of a cosine transform replaces the singular value decomposition: "
            "equal losses, faster steps, a running time that does not depend on the rank."
        ),
        published=(
            "Faster, up to 25 % less memory, running time independent of rank; matches SVD-based "
            "projections (abstract)."
        ),
        holds_when=(
            "With rates tuned alike, the test cross-entropy equals that of GaLore (SVD every 50 "
            "steps) and of GaLore at every step within 0.01 nats; a step with a choice takes at "
            "most 0.2 of GaLore's with an SVD; at four times the rank at most 1.1 times as long."
        ),
        setting="Llama models on C4.",
        scaled_down=(
            "A transformer of two layers for characters of Python's manual, rank 24 of 96; step "
            "times on one thread."
        ),
        primary=True,
        criteria=(
            Criterion(
                name="loss as GaLore's, SVD every 50 steps",
                kind="equivalence",
                metric="nats",
                arm="dct",
                baseline="galore",
                direction="lower",
                workloads=("text",),
                margin=MARGIN,
            ),
            Criterion(
                name="loss as GaLore's, SVD every step",
                kind="equivalence",
                metric="nats",
                arm="dct",
                baseline="galore-1",
                direction="lower",
                workloads=("text",),
                margin=MARGIN,
            ),
            _ratio("step time over GaLore's with an SVD", "over_svd", 0.2),
            _ratio("step time at four times the rank", "over_rank", 1.1),
        ),
    ),
    Claim(
        id="llama-800m",
        statement="Loses less perplexity than another low-rank AdamW, LDAdamW.",
        published=(
            "Validation perplexity 13.69 against 13.91 (LDAdamW) and 11.73 (AdamW, full rank); "
            "memory 57.82 / 72.10 / 73.72 GiB; time 1d15h17m / 2d1h24m / 1d13h22m."
        ),
        holds_when=(
            "With rates tuned alike, the test cross-entropy, with error feedback on both, is below."
        ),
        setting="Llama-800M on C4, 100 tokens a parameter.",
        scaled_down="The small transformer; LDAdam re-expressed from its published update.",
        criteria=(_lower("with error feedback, below LDAdam", "dct-ef", "ldadam"),),
    ),
    Claim(
        id="basis",
        statement="It is the cosine basis that does so, and not any fixed orthogonal one.",
        published="Not shown: reviewers asked for the comparison.",
        holds_when=(
            "With rates tuned alike, the test cross-entropy is below that of a random orthogonal "
            "basis and of the identity (rows or columns of the gradient itself)."
        ),
        setting="None published.",
        scaled_down="The small transformer.",
        criteria=(
            _lower("below a random basis", "dct", "random"),
            _lower("below the identity", "dct", "identity"),
        ),
    ),
    Claim(
        id="parts",
        statement="Moments must be rotated between subspaces, and error feedback lowers the loss.",
        published="Named as parts of the method; no ablation could be read.",
        holds_when=(
            "With rates tuned alike, the test cross-entropy is above without rotation, and below "
            "with error feedback."
        ),
        setting="Llama models on C4.",
        scaled_down="The small transformer.",
        criteria=(
            _lower("with rotation, below without", "dct", "norotate"),
            _lower("with error feedback, below without", "dct-ef", "dct"),
        ),
    ),
    Claim(
        id="trion",
        statement="Trion loses less perplexity than Dion.",
        published=(
            "350M / 800M / 1.3B, rank 256: Trion 15.30 / 12.22 / 11.28, Dion 15.64 / 12.42 / "
            "11.47, Muon (full rank) 14.99 / 12.05 / 11.13."
        ),
        holds_when=(
            "With rates tuned alike, the test cross-entropy is below Dion's at the same rank."
        ),
        setting="C4, 20 tokens a parameter.",
        scaled_down="The small transformer, rank 24 of 96.",
        criteria=(_lower("below Dion", "trion", "dion"),),
    ),
    Claim(
        id="memory",
        statement="State is as small as its formula says; Trion keeps no more than Muon.",
        published=(
            "350M / 800M / 1.3B: Trion 42.42 / 67.45 / 63.62 GB, Dion 45.59 / 71.75 / 68.58, Muon "
            "42.42 / 67.45 / 63.64."
        ),
        holds_when=(
            "Bytes of state of the small transformer: DCT-AdamW's equal the formula, Trion's are "
            "Muon's, one buffer like each matrix; the rest is AdamW's."
        ),
        setting="C4, 20 tokens a parameter.",
        scaled_down="State of the small transformer.",
        criteria=(
            _bytes("DCT-AdamW over its formula", "dct_over_formula"),
            _bytes("Trion over its formula", "trion_over_formula"),
        ),
    ),
)
