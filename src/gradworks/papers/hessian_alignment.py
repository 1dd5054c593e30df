"""Understanding Hessian Alignment for Domain Generalization (2023, arXiv:2308.11778).

Its card and its claims; ``PRESETS``, ``build`` and ``figures``, which make it run, are still to
come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="hessian-alignment",
    title="Understanding Hessian Alignment for Domain Generalization",
    date="2023-08-22",
    authors=4,
    arxiv="2308.11778",
    venue="ICCV 2023",
    code="https://github.com/huawei-noah/Federated-Learning",
    licence="Apache-2.0",
    summary=(
        "A regulariser for training on several domains so that the model survives one it has not "
        "seen: make the gradient and the Hessian of the classifier head in each domain equal to "
        "those of the average loss. The Hessian is never formed; a product or a diagonal is "
        "enough, and for a linear head both have a closed form that costs one ordinary backward "
        "pass. For people with data from several hospitals, sites or cameras."
    ),
    area="curvature",
    package="gradworks.curvature.alignment",
    usage="""\
from gradworks.curvature.alignment import HGPAlignment

align = HGPAlignment(alpha=1e-4, beta=5e-3)
penalty = align(features, logits, targets)  # lists: one entry a domain
(losses.mean() + penalty.total).backward()
""",
    tags=("domain generalisation", "hessian", "regulariser", "invariance", "robustness"),
)

CLAIMS = (
    Claim(
        id="ood",
        statement="Aligning the head's gradients and Hessians raises accuracy on an unseen domain.",
        published=(
            "Promising accuracy under correlation, label and diversity shift against ERM, CORAL, "
            "IRM, V-REx, Fish and Fishr (abstract); tables not read."
        ),
        holds_when=(
            "The paired differences of test accuracy HGP - ERM and Hutchinson - ERM have their "
            "interval above +0.05."
        ),
        setting=(
            "Colored MNIST: label noise 0.25, colour flips 0.2 / 0.1 in training and 0.9 in test, "
            "25,000 images each, 10 restarts."
        ),
        scaled_down="Colored MNIST from a 5,000-image sample; a synthetic shift.",
        primary=True,
    ),
    Claim(
        id="bound",
        statement=(
            "The distance between the domains' head Hessians bounds how well a model transfers."
        ),
        published="Direction (abstract): spectral norm.",
        holds_when=(
            "Spearman correlation of the log distance and test accuracy along training below -0.5."
        ),
        setting="Classifier heads.",
        scaled_down="Logged every 25 steps of the runs above.",
    ),
    Claim(
        id="benchmarks",
        statement="Holds on standard benchmarks.",
        published=(
            "VLCS, PACS, OfficeHome, DomainNet; 20 draws of hyper-parameters x 3 trials; values "
            "not read."
        ),
        holds_when="Not decided at our scale; the preset `paper` states the setting.",
        setting="ResNet-50, DomainBed.",
    ),
)
