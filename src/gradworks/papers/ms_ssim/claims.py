"""What the paper claims and what decides it here, fixed before the first run that counts."""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS", "LABELS"]

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

LABELS = {
    "l1": "L1",
    "l2": "L2",
    "ssim": "SSIM",
    "ms-ssim": "MS-SSIM",
    "bicubic": "bicubic",
}
_PIXELS = "l1|l2"
# Judges with the smallest difference worth having, about a tenth of that of the first trials.
_JUDGES = {
    "gmsd": ("GMSD", "lower", 0.003),
    "haarpsi": ("HaarPSI", "higher", 0.01),
    "vif": ("VIF", "higher", 0.01),
    "fsim": ("FSIM", "higher", 0.005),
}
_AUTOENCODERS = {"mlp": "fully connected", "conv": "convolutional", "vae": "variational"}
_RESOLUTION = ("sr-x2", "sr-x3")


def _judged(
    where: str,
    arm: str,
    baseline: str,
    workloads: tuple[str, ...],
    *,
    part: float = 1.0,
) -> tuple[Criterion, ...]:
    """One test a judge; ``part`` of its smallest effect counts."""
    rival = "better of L1, L2" if baseline == _PIXELS else LABELS[baseline]
    return tuple(
        Criterion(
            name=f"{label}, {where}: {LABELS[arm]} - {rival}",
            kind="superiority",
            metric=metric,
            arm=arm,
            baseline=baseline,
            direction="lower" if direction == "lower" else "higher",
            workloads=workloads,
            min_effect=part * least,
        )
        for metric, (label, direction, least) in _JUDGES.items()
    )


def _over(
    name: str, metric: str, arm: str, baseline: str, workloads: tuple[str, ...], least: float
) -> Criterion:
    """A paired difference, higher is better."""
    return Criterion(
        name=name,
        kind="superiority",
        metric=metric,
        arm=arm,
        baseline=baseline,
        workloads=workloads,
        min_effect=least,
    )


_PEOPLE = "What people prefer is not testable here: it needs people."

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
            "On held-out photographs, for each of three architectures, GMSD (lower by 0.003), "
            "HaarPSI and VIF (higher by 0.01) and FSIM (higher by 0.005) prefer MS-SSIM to the "
            f"better of L1 and L2 for each seed, with equal tuning. {_PEOPLE}"
        ),
        setting="Autoencoders and variational autoencoders, judged by people.",
        scaled_down=(
            "48x48 patches of nine photographs, codes of 64 numbers; four measures that nobody "
            "trained on in place of people."
        ),
        primary=True,
        criteria=tuple(
            criterion
            for name, label in _AUTOENCODERS.items()
            for criterion in _judged(label, "ms-ssim", _PIXELS, (name,))
        ),
    ),
    Claim(
        id="earlier",
        statement=(
            "Networks trained on single-scale similarity are preferred to those trained on "
            "squared error, and their codes classify better."
        ),
        published=(
            "Nearly 7 to 1 among people; codes: direction (abstract of an earlier version)."
        ),
        holds_when=(
            "GMSD, HaarPSI, VIF and FSIM prefer SSIM to L2 on a convolutional autoencoder, and "
            f"accuracy of digits from the codes is at least 0.005 above L2's. {_PEOPLE}"
        ),
        setting="Earlier version of the paper.",
        scaled_down="As above; codes of MNIST digits.",
        criteria=(
            *_judged("convolutional", "ssim", "l2", ("conv",)),
            _over("accuracy of codes, SSIM - L2", "accuracy", "ssim", "l2", ("codes",), 0.005),
        ),
    ),
    Claim(
        id="codes",
        statement="The learned codes classify better under analysed conditions.",
        published="Direction (abstract).",
        holds_when=(
            "Accuracy of logistic regression on the codes of MS-SSIM is at least 0.005 above that "
            "of the better of L1 and L2, paired over seeds: from 100 labels, and from 1,000."
        ),
        setting="Identity and pose of faces, linear classifier.",
        scaled_down="MNIST digits (a sample of 5,000), at 50 to 1,000 labels.",
        criteria=tuple(
            _over(
                f"{count:,} labels, MS-SSIM - better of L1, L2",
                f"accuracy_{count}",
                "ms-ssim",
                _PIXELS,
                ("codes",),
                0.005,
            )
            for count in (100, 1000)
        ),
    ),
    Claim(
        id="super-resolution",
        statement="Super-resolution is better than with pixel losses.",
        published="Direction (abstract).",
        holds_when=(
            "GMSD, HaarPSI, VIF and FSIM, means over three held-out photographs and over x2 and "
            "x3, prefer MS-SSIM to the better of L1 and L2, paired over seeds, by a tenth of what "
            "counts for reconstructions."
        ),
        setting="SRCNN.",
        scaled_down="SRCNN with a quarter of the channels and a bicubic shortcut, x2 and x3.",
        criteria=_judged("x2 and x3", "ms-ssim", _PIXELS, _RESOLUTION, part=0.1),
    ),
    Claim(
        id="own-metric",
        statement="Each network wins on the metric it was trained on.",
        published="Implied.",
        holds_when=(
            "MS-SSIM of the one is above that of the better of L1 and L2 and PSNR of L2 is above "
            "that of MS-SSIM, paired over seeds: on autoencoders, and for super-resolution."
        ),
        setting="All networks of the paper.",
        scaled_down="As above.",
        criteria=tuple(
            criterion
            for where, workloads, least, decibels in (
                ("autoencoders", tuple(_AUTOENCODERS), 0.005, 0.1),
                ("super-resolution", _RESOLUTION, 0.0005, 0.05),
            )
            for criterion in (
                _over(
                    f"MS-SSIM, {where}: MS-SSIM - better of L1, L2",
                    "ms_ssim",
                    "ms-ssim",
                    _PIXELS,
                    workloads,
                    least,
                ),
                _over(f"PSNR, {where}: L2 - MS-SSIM", "psnr", "l2", "ms-ssim", workloads, decibels),
            )
        ),
    ),
)
