"""LoLDU (2024, arXiv:2410.13618): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="loldu",
    title=(
        "LoLDU: Low-Rank Adaptation via Lower-Diag-Upper Decomposition for Parameter-Efficient "
        "Fine-Tuning"
    ),
    date="2024-10-17",
    authors=7,
    arxiv="2410.13618",
    code="https://github.com/SKDDJ/LoLDU",
    licence="MIT",
    summary=(
        "A fine-tuning adapter that trains only r numbers a layer: the pre-trained weight is "
        "factored into lower, diagonal and upper parts, the triangles are frozen, and the first "
        "entries of the diagonal learn. An adapter of a small sentence encoder is 4,608 numbers, "
        "a file of 20 kB. For people who keep hundreds of small adapters of one model."
    ),
    area="layers",
    package="gradworks.layers.loldu",
    usage="""\
from gradworks.layers.loldu import apply_loldu, loldu_parameters

apply_loldu(model, rank=64, target_modules=["query", "value"])
optimizer = torch.optim.AdamW(loldu_parameters(model), lr=1e-2, weight_decay=0.0)
""",
    tags=("fine-tuning", "adapter", "peft", "lu decomposition", "low rank"),
)

CLAIMS = (
    Claim(
        id="comparable",
        statement="Fine-tunes as well as usual adapters with far fewer trainable parameters.",
        published=(
            "2600x fewer trainable parameters, comparable performance (abstract); tables not read."
        ),
        holds_when=(
            "Accuracy within 1 point of LoRA (two one-sided tests) and above the frozen head by a "
            "margin whose interval excludes 0; the parameter ratio is printed."
        ),
        setting=(
            "LLaMA2, RoBERTa, ViT and Stable Diffusion; 4 instruction, 6 NLU and 8 image data sets."
        ),
        scaled_down="all-MiniLM-L6-v2 on short texts, r = 8 to 384, 3 seeds.",
        primary=True,
    ),
)
