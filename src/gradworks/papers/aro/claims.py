"""The card of ARO, its claims and the tests that decide them here."""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="aro",
    title="ARO: A New Lens On Matrix Optimization For Large Models",
    date="2026-02-09",
    authors=6,
    arxiv="2602.09006",
    summary=(
        "Adaptively Rotated Optimization turns the momentum of a weight matrix into a rotated "
        "frame, applies a simple rule there (row and column normalisation by default) and turns "
        "the result back. The rotation follows from one QR a step that looks at the rule itself, "
        "so it is neither the eigenbasis of SOAP nor the plain orthogonalisation of Muon; memory "
        "is that of AdamW for square weights. For people who pre-train transformers with Muon or "
        "SOAP today; no authors' code was found."
    ),
    area="optim",
    package="gradworks.optim.aro",
    usage="""\
from gradworks.optim.aro import ARO, transformer_groups

optimizer = ARO(transformer_groups(model), lr=1e-3, base="sinkhorn")
""",
    tags=(
        "optimizer",
        "matrix",
        "rotation",
        "muon",
        "sinkhorn",
        "language models",
        "adaptively rotated optimization",
    ),
)

# Steps of ARO over steps of the other: 1.3 to 1.35 and 1.1 to 1.15 times as fast, the lower end.
OVER_ADAMW, OVER_MUON = 1 / 1.3, 1 / 1.1
_LARGE = "Language model pre-training up to 8B activated parameters, up to 8x overtrained."
_SMALL = "A transformer of two layers for characters of Python's manual, 150 steps."


def _fewer_steps(name: str, baseline: str, published: float) -> Criterion:
    """Steps to the target over a baseline's."""
    return Criterion(
        name=name,
        kind="speed",
        metric="steps_to_target",
        arm="aro",
        baseline=baseline,
        direction="lower",
        scale="ratio",
        workloads=("text",),
        published=published,
    )


def _lower(name: str, arm: str, baseline: str, published: float) -> Criterion:
    """Test cross-entropy below a baseline's."""
    return Criterion(
        name=name,
        kind="superiority",
        metric="nats",
        arm=arm,
        baseline=baseline,
        direction="lower",
        workloads=("text",),
        published=published,
    )


def _larger(name: str, arm: str) -> Criterion:
    """Share of pairs above one half."""
    return Criterion(
        name=name,
        kind="threshold",
        metric="final_share_above_eigen",
        arm=arm,
        direction="higher",
        workloads=("descent",),
        reference=0.5,
    )


def _bytes(name: str, metric: str) -> Criterion:
    """Bytes of state over what they should be; a count of steps more or less does not matter."""
    return Criterion(
        name=name,
        kind="exactness",
        metric=metric,
        arm="cost",
        workloads=("cost",),
        reference=1.0,
        tolerance=1e-12,
    )


CLAIMS = (
    Claim(
        id="adamw",
        statement="Reaches the loss of AdamW in fewer steps.",
        published=(
            "1.3-1.35x speed-up over AdamW, in steps to equal loss (abstract), that does not "
            "shrink with scale: the latter is not decided here."
        ),
        holds_when=(
            "With rates tuned alike, steps to a validation cross-entropy of 2.55 nats, where AdamW "
            "ended in a pilot run, are fewer by a third of the published gain or more, paired over "
            "seeds."
        ),
        setting=_LARGE,
        scaled_down=_SMALL,
        primary=True,
        criteria=(_fewer_steps("steps over AdamW's", "adamw", OVER_ADAMW),),
    ),
    Claim(
        id="muon",
        statement="Reaches the loss of orthogonalisation methods in fewer steps.",
        published="1.1-1.15x speed-up over orthogonalisation methods (abstract).",
        holds_when=(
            "The same against torch.optim.Muon with updates of AdamW's size, without Nesterov's "
            "momentum as ARO is. Muon with it is shown."
        ),
        setting=_LARGE,
        scaled_down=_SMALL + " The loss is the same, AdamW's.",
        criteria=(_fewer_steps("steps over Muon's", "muon", OVER_MUON),),
    ),
    Claim(
        id="descent",
        statement=(
            "Its rotation gives a larger instantaneous decrease than the exact eigenbasis for most "
            "weights."
        ),
        published="For most parameters of a model of 130M (second-hand); no figure.",
        holds_when=(
            "While ARO trains, the share of pairs (weight, evaluation) where the decrease along "
            "its step, for the step's size, is larger than in the eigenvectors of M M^T is above "
            "one half, over seeds, which draw all weights anew; for both maps."
        ),
        setting="nanoGPT of 130M parameters.",
        scaled_down=_SMALL,
        criteria=(
            _larger("Sinkhorn, above half", "watched"),
            _larger("sign, above half", "watched-sign"),
        ),
    ),
    Claim(
        id="rotation-gap",
        statement="Its rotation gives a lower loss than the eigenbasis, with a standard QR.",
        published="Lower by about 0.02 (Sign) and 0.008 (Sinkhorn) (second-hand).",
        holds_when=(
            "With rates tuned alike, the test cross-entropy is below that of the frame of "
            "orthogonal iteration by a third of the published gap or more, paired over seeds; for "
            "both maps. The map without a rotation is shown."
        ),
        setting="Ablation of the paper.",
        scaled_down=_SMALL,
        criteria=(
            _lower("Sinkhorn, below the eigenbasis", "aro", "eigen", -0.008),
            _lower("sign, below the eigenbasis", "aro-sign", "eigen-sign", -0.02),
        ),
    ),
    Claim(
        id="cost",
        statement="Memory equals AdamW's on hidden weights and throughput is close to it.",
        published="Same memory; throughput about 1 % below AdamW (second-hand).",
        holds_when=(
            "Bytes of state of square matrices equal AdamW's, those of a transformer's block m n + "
            "m^2 numbers a matrix. Ratios of step times are shown, not judged: a step alone is no "
            "throughput."
        ),
        setting="Large models.",
        scaled_down="State and step time of the matrices of one block.",
        criteria=(
            _bytes("square matrices, over AdamW", "bytes_over_adamw"),
            _bytes("one block, over the formula", "bytes_over_formula"),
        ),
    ),
)
