"""GCond (2025, arXiv:2509.07252): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="gcond",
    title=(
        "GCond: Gradient Conflict Resolution via Accumulation-based Stabilization for Large-Scale "
        "Multi-Task Learning"
    ),
    date="2025-09-08",
    authors=2,
    arxiv="2509.07252",
    code="https://github.com/AlevLab-dev/GCond",
    licence="no licence stated",
    summary=(
        "Replaces the backward pass of a training step with several losses: it accumulates each "
        "loss's gradient over micro-batches, finds the pair that conflicts most, and projects "
        "with a strength that grows smoothly with the angle between them. In its stochastic mode "
        "each micro-batch serves one loss only, so that K losses cost about a K-th of the "
        "backward work. For pre-training with losses that pull against each other, such as L1 and "
        "SSIM."
    ),
    area="multitask",
    package="gradworks.multitask.gcond",
    usage="""\
from gradworks.multitask.gcond import Conductor

conductor = Conductor(model, {"l1": l1, "ssim": ssim_loss}, weights=None, accumulation_steps=4)
conductor.step(next_batch)  # writes .grad
optimizer.step()
""",
    tags=("multi-task", "gradient conflict", "projection", "accumulation", "self-supervised"),
)

CLAIMS = (
    Claim(
        id="speed",
        statement="The stochastic mode halves the work at equal quality.",
        published="Two-fold speed-up (abstract).",
        holds_when=(
            "Backward passes a step are counted exactly, the time ratio is at least 1.8 with two "
            "losses, and final L1 and SSIM are equivalent to the sequential mode (margin half the "
            "standard deviation over seeds)."
        ),
        setting="Two losses, ImageNet-1K and CT volumes.",
        scaled_down="Masked reconstruction on MNIST-5k and photograph crops, 10 seeds.",
        primary=True,
    ),
    Claim(
        id="losses",
        statement=(
            "Reaches lower L1 and SSIM losses than a linear combination, PCGrad, CAGrad and "
            "GradNorm."
        ),
        published="Superior on all (abstract); values not read.",
        holds_when=(
            "Both losses below those of the sum and of PCGrad by Holm-adjusted paired tests, and "
            "below the control: the plain sum with the same momentum and accumulation."
        ),
        setting="ImageNet-1K and head-and-neck CT, self-supervised.",
        scaled_down="Masked reconstruction on MNIST-5k and photograph crops, 10 seeds.",
    ),
    Claim(
        id="top1",
        statement="The features classify ImageNet better than those of the baselines.",
        published="+4.5 % top-1 over baselines (abstract of v2).",
        holds_when="Not decided at our scale; the preset `paper` states the setting.",
        setting="ImageNet.",
    ),
    Claim(
        id="scales",
        statement="Scales from small to large networks and works with AdamW and Lion/LARS.",
        published="MobileNetV3-Small to ConvNeXt-Base (abstract).",
        holds_when="Not decided at our scale; the preset `paper` states the setting.",
        setting="ImageNet.",
    ),
)
