"""ARO: A New Lens On Matrix Optimization For Large Models (2026, arXiv:2602.09006).

Its card and its claims; ``PRESETS``, ``build`` and ``figures``, which make it run, are still to
come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
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

CLAIMS = (
    Claim(
        id="adamw",
        statement="Reaches the loss of AdamW in fewer steps.",
        published="1.3-1.35x speed-up over AdamW, in steps to equal loss.",
        holds_when=(
            "Steps of AdamW to its own final loss over steps of ARO to that loss: the bootstrap "
            "95 % interval over seeds lies above 1."
        ),
        setting="Language model pre-training up to 8B activated parameters, up to 8x overtrained.",
        scaled_down="2-layer character transformer of width 64, 1,500 steps, 3 seeds.",
        primary=True,
    ),
    Claim(
        id="muon",
        statement="Reaches the loss of orthogonalisation methods in fewer steps.",
        published="1.1-1.15x speed-up over orthogonalisation methods (Muon).",
        holds_when="The same ratio against Muon: interval above 1.",
        setting="Language model pre-training up to 8B activated parameters, up to 8x overtrained.",
        scaled_down="As above; equal learning-rate grids and like momentum.",
    ),
    Claim(
        id="scale",
        statement="The gain does not shrink as models grow.",
        published="Qualitative.",
        holds_when="Not decided at our scale; the preset `paper` states the setting.",
        setting="Language model pre-training up to 8B activated parameters, up to 8x overtrained.",
    ),
    Claim(
        id="descent",
        statement=(
            "Its rotation gives a larger instantaneous decrease than the exact eigenbasis for "
            "most weights."
        ),
        published="Qualitative, for most parameters of a 130M model (second-hand).",
        holds_when=(
            "The share of pairs (weight, step) where the decrease is larger exceeds 50 %, with a "
            "95 % interval over weights that excludes 50."
        ),
        setting="130M nanoGPT.",
        scaled_down="The small transformer; base rules sign and Sinkhorn.",
    ),
    Claim(
        id="rotation-gap",
        statement="Its rotation gives a lower loss than the eigenbasis, with a standard QR.",
        published="Loss gap about 0.02 (Sign) and 0.008 (Sinkhorn) (second-hand).",
        holds_when="Final validation loss below that of the eigen-rotation, paired over seeds.",
        setting="Ablation of the paper.",
        scaled_down="The small transformer.",
    ),
    Claim(
        id="cost",
        statement="Memory equals AdamW's on hidden weights and throughput is close to it.",
        published="Same memory; throughput about 1 % below AdamW (second-hand).",
        holds_when="State bytes follow the formula exactly; the step-time ratio is printed.",
        setting="Large models.",
        scaled_down="State and step time of square matrices.",
    ),
)
