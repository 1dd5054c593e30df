"""AdamP: the card of the paper and what it claims."""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="adamp",
    title="AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant Weights",
    date="2020-06-15",
    authors=8,
    summary=(
        "A weight followed by a normalization has no use for its length, yet every step of "
        "momentum SGD or Adam makes it longer, and a longer weight takes smaller effective steps: "
        "training slows down too soon. AdamP and SGDP find such weights by the angle between "
        "gradient and weight, remove the part of their step that only lengthens them, and decay "
        "them less. Drop-in replacements for AdamW and SGD."
    ),
    area="optim",
    package="gradworks.optim.adamp",
    usage=(
        "from gradworks.optim import AdamP\n"
        "\n"
        "optimizer = AdamP(model.parameters(), lr=1e-3, weight_decay=1e-2)\n"
    ),
    arxiv="2006.08217",
    venue="ICLR 2021",
    code="https://github.com/clovaai/AdamP",
    licence="MIT",
    tags=("optimizer", "normalization", "scale invariance", "momentum", "weight decay", "adam"),
)

TEST_IMAGE = 1 / 359  # the smallest difference worth having: one image of the test split
TUNED = ("cnn", "mlp", "resnet")  # workloads on which learning rate and decay are searched

CLAIMS = (
    Claim(
        id="slowdown",
        statement=(
            "Momentum lengthens scale-invariant weights, so that their effective step decays too "
            "soon; removing the radial part of the step keeps them short and trains better."
        ),
        published=(
            "2-D toy: the weight's norm grows from 1 to 2.93 at momentum 0.9 and to 27.87 at 0.99 "
            "(project page). ResNet-18 on ImageNet: momentum SGD 66.6 %, SGDP 69.0 % top-1 "
            "(analysis run of the project page). Gains on 13 benchmarks (abstract)."
        ),
        holds_when=(
            "(a) the toy's norms come out within 2 % of the published ones; (b) without decay, at "
            "equal published learning rates, the log of the norms' growth under SGD and Adam is at "
            "least 1.5 times that under SGDP and AdamP; (c) with learning rate and decay tuned "
            "alike, SGDP's and AdamP's test error is below SGD's and AdamW's by at least 0.28 "
            "points, one of the 359 test images. All three: reproduced; (a) and (b) alone: partly."
        ),
        setting=(
            "ResNet-18 and others on ImageNet, and 12 more benchmarks; a toy in two dimensions."
        ),
        scaled_down=(
            "Networks of three to eight layers on 1,797 images of 8x8 pixels instead of ImageNet. "
            "The toy's learning rate (0.02) and start (0.90 to 0.95 pi from the optimum) are "
            "inferred: the page does not give them."
        ),
        primary=True,
        criteria=(
            Criterion(
                name="toy, momentum 0.9",
                kind="exactness",
                metric="norm",
                arm="toy-sgd-0.9",
                workloads=("toy",),
                published=2.93,
                reference=2.93,
                tolerance=0.02,
            ),
            Criterion(
                name="toy, momentum 0.99",
                kind="exactness",
                metric="norm",
                arm="toy-sgd-0.99",
                workloads=("toy",),
                published=27.87,
                reference=27.87,
                tolerance=0.02,
            ),
            Criterion(
                name="growth, SGD over SGDP",
                kind="superiority",
                metric="final_log_growth",
                arm="plain-sgd",
                baseline="plain-sgdp",
                direction="higher",
                scale="ratio",
                workloads=("norms",),
                min_effect=1.5,
            ),
            Criterion(
                name="growth, Adam over AdamP",
                kind="superiority",
                metric="final_log_growth",
                arm="plain-adam",
                baseline="plain-adamp",
                direction="higher",
                scale="ratio",
                workloads=("norms",),
                min_effect=1.5,
            ),
            Criterion(
                name="test error, SGDP below SGD",
                kind="superiority",
                metric="error",
                arm="sgdp",
                baseline="sgd",
                direction="lower",
                workloads=TUNED,
                min_effect=TEST_IMAGE,
            ),
            Criterion(
                name="test error, AdamP below AdamW",
                kind="superiority",
                metric="error",
                arm="adamp",
                baseline="adamw",
                direction="lower",
                workloads=TUNED,
                min_effect=TEST_IMAGE,
            ),
        ),
    ),
    Claim(
        id="toy-speed",
        statement=(
            "On the toy, SGDP reaches the optimum in fewer steps than gradient descent with or "
            "without momentum."
        ),
        published="SGDP converges fastest (project page, a picture without figures).",
        holds_when=(
            "Steps until the cosine to the optimum stays above 0.999: SGDP at momentum 0.9 needs "
            "fewer than the best of gradient descent and SGD at momentum 0.9 and 0.99."
        ),
        setting="A toy in two dimensions, loss -cos(w, w*).",
        scaled_down="Nothing but the learning rate and start, which are inferred.",
        criteria=(
            Criterion(
                name="steps, SGDP below all others",
                kind="superiority",
                metric="steps_to_close",
                arm="toy-sgdp-0.9",
                baseline="toy-gd|toy-sgd-0.9|toy-sgd-0.99",
                direction="lower",
                scale="ratio",
                workloads=("toy",),
                min_effect=0.9,
            ),
        ),
    ),
)
