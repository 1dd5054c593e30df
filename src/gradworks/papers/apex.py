"""Self-Adversarial One Step Generation via Condition Shifting (2026, arXiv:2604.12322).

Its card and its claims; ``PRESETS``, ``build`` and ``figures``, which make it run, are still to
come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="apex",
    title="Self-Adversarial One Step Generation via Condition Shifting",
    date="2026-04-14",
    authors=6,
    arxiv="2604.12322",
    code="https://github.com/LINs-lab/APEX",
    licence="Apache-2.0",
    summary=(
        "Turns a flow-matching model into a one-step generator by making it its own critic: the "
        "same network, asked under a shifted condition, learns the field of what it currently "
        "generates, and the difference between the two fields corrects it. There is no "
        "discriminator and no teacher, and it works with LoRA, so that owners of a conditional "
        "model get 1 to 4 step sampling by fine-tuning. The paper and the released code are two "
        "different algorithms; both are planned here, and labelled."
    ),
    area="generative",
    package="gradworks.generative.apex",
    usage="""\
from gradworks.generative.apex import APEXLoss, sample

loss = APEXLoss(objective="consistency", branch="condition")
loss(model, x, cond).loss.backward()
images = sample(model, noise, cond, steps=1)
""",
    tags=("generative", "flow matching", "one step", "consistency", "diffusion", "lora"),
)

CLAIMS = (
    Claim(
        id="one-step",
        statement="One network evaluation generates as well as far larger few-step models.",
        published=(
            "GenEval at one evaluation: 0.6B .84, 1.6B .84, 20B LoRA r=32 .88, LoRA r=64 .89, 20B "
            "full .89; against FLUX-schnell 12B .69, Sana-Sprint 1.6B .76, Qwen-Image-Lightning "
            ".85, TwinFlow .86, RCGM .52; teacher at 50 steps .87."
        ),
        holds_when=(
            "At one evaluation the distance to the data is at most half that of flow matching and "
            "within 2x of MeanFlow, at equal numbers of network evaluations in training."
        ),
        setting="Text to image, models of 0.6B to 20B parameters.",
        scaled_down=(
            "Two moons, a checkerboard and 8x8 digits; sliced Wasserstein and Frechet distance "
            "instead of GenEval."
        ),
        primary=True,
    ),
    Claim(
        id="lora",
        statement="LoRA fine-tuning is enough to get a fast sampler.",
        published="6 hours, 2K steps, batch 64; 15.33x faster than the 50-step teacher.",
        holds_when=(
            "With the base frozen and rank-4 adapters on the linear layers, the one-step distance "
            "is below that of flow matching, interval over seeds."
        ),
        setting="20B model.",
        scaled_down="Adapters on the digits model.",
    ),
    Claim(
        id="fid",
        statement="One-step samples are closer to the data than those of other one-step methods.",
        published=(
            "FID on MJHQ at one evaluation: 0.6B 6.99, 20B r=64 7.14, RCGM 11.38, TwinFlow 7.32."
        ),
        holds_when=(
            "Reported: Frechet distance at one evaluation with its interval, beside RCGM and the "
            "other peers."
        ),
        setting="MJHQ.",
        scaled_down="Digits, distance in the features of a small classifier.",
    ),
    Claim(
        id="both-losses",
        statement="Both losses are needed, in equal parts.",
        published="Weights fake:mix on 0.6B: 1:0 .32, 0:1 .63, 1:.5 .72, 1:1 .77, 1:2 .74.",
        holds_when=(
            "The self-adversarial term improves the one-step distance over a run without it, "
            "paired over seeds."
        ),
        setting="0.6B model, GenEval.",
        scaled_down="Rectification weight 0, .5 and 1 on the toy sets.",
    ),
    Claim(
        id="shift-grid",
        statement="A negative scale with a positive offset is the best condition shift.",
        published=(
            "GenEval for offset 0, .1, 1, 10: scale -1 .76 .73 .74 .74; -.5 .75 .79 .81 .70; .5 "
            ".29 .37 .30 .73."
        ),
        holds_when=(
            "The condition branch is not worse than the time branch of the released code, and the "
            "grid is reported with a control that shifts nothing."
        ),
        setting="0.6B model, GenEval.",
        scaled_down="Four cells of the grid on the toy sets.",
    ),
    Claim(
        id="gradient",
        statement="The mixed loss has the gradient of supervision and consistency taken apart.",
        published="Exact (Theorem 1).",
        holds_when="The two gradients agree to 1e-12 in float64.",
        setting="Any model.",
    ),
)
