"""Learning to Generate Images with Perceptual Similarity Metrics (2015, arXiv:1511.06409).

Its card and its claims; ``PRESETS``, ``build`` and ``figures``, which make it run, are still to
come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="ms-ssim",
    title="Learning to Generate Images with Perceptual Similarity Metrics",
    date="2015-11-19",
    authors=6,
    arxiv="1511.06409",
    venue="ICIP 2017",
    summary=(
        "Train networks that output images on structural similarity instead of squared error: "
        "local contrast and structure are compared in Gaussian windows over several scales. "
        "People prefer the pictures, and the authors report better features. For autoencoders, "
        "super-resolution and any image-to-image network."
    ),
    area="losses",
    package="gradworks.losses.ms_ssim",
    usage="""\
from gradworks.losses.ms_ssim import MSSSIMLoss

loss = MSSSIMLoss(kernel_size=7, scales=3)(model(x), target)
""",
    tags=("loss", "ssim", "images", "perceptual", "autoencoder", "super-resolution"),
)

CLAIMS = (
    Claim(
        id="perceptual",
        statement=(
            "Networks trained on multi-scale structural similarity make images that are judged "
            "better than those trained on pixel losses."
        ),
        published=(
            "Observers prefer MS-SSIM-trained reconstructions to L1- and L2-trained ones, three "
            "architectures (abstract; percentages not read)."
        ),
        holds_when=(
            "Above L1 and L2 on the majority of independent perceptual metrics that nobody "
            "trained on, with Holm; human judgments cannot be rerun here."
        ),
        setting="Autoencoders and variational autoencoders, judged by people.",
        scaled_down=(
            "32x32 and 64x64 crops of photographs; GMSD, FSIM, VIF and others in place of people."
        ),
        primary=True,
    ),
    Claim(
        id="earlier",
        statement=(
            "Observers prefer images of networks trained on single-scale similarity to those "
            "trained on squared error."
        ),
        published="Nearly 7 to 1 (abstract of an earlier version).",
        holds_when="Not testable here: it needs people.",
        setting="Earlier version of the paper.",
    ),
    Claim(
        id="codes",
        statement="The learned codes classify better under analysed conditions.",
        published="Direction (abstract).",
        holds_when=(
            "Accuracy of a linear classifier on the codes above that of L2-trained ones, paired "
            "over seeds."
        ),
        setting="Identity and pose of faces.",
        scaled_down="MNIST digits at 50 to 1,000 labels.",
    ),
    Claim(
        id="super-resolution",
        statement="Super-resolution is better than with pixel losses.",
        published="Direction (abstract).",
        holds_when=(
            "Above L2 on independent metrics on at least 3 held-out photographs, paired over seeds."
        ),
        setting="SRCNN.",
        scaled_down="SRCNN, x2 and x3.",
    ),
    Claim(
        id="own-metric",
        statement="Each network wins on the metric it was trained on.",
        published="Implied.",
        holds_when="MS-SSIM of the one and PSNR of the other are above, paired over seeds.",
        setting="SRCNN.",
        scaled_down="SRCNN, x2 and x3.",
    ),
)
