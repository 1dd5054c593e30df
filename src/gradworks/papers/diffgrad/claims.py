"""diffGrad: An Optimization Method for Convolutional Neural Networks (2019, arXiv:1909.11015).

Its card and its claims; ``PRESETS``, ``build`` and ``figures``, which make it run, are still to
come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="diffgrad",
    title="diffGrad: An Optimization Method for Convolutional Neural Networks",
    date="2019-09-12",
    authors=6,
    arxiv="1909.11015",
    venue="IEEE TNNLS 31(11), 2020",
    code="https://github.com/shivram1987/diffGrad",
    licence="MIT by its README; no licence file",
    summary=(
        "Adam whose step is multiplied, coordinate by coordinate, by a friction between a half "
        "and one: the sigmoid of how much that coordinate's gradient changed since the last step. "
        "Where the gradient hardly changes the step is halved, where it jumps the step is Adam's. "
        "In short: Adam at between half and the whole learning rate, by a factor that depends on "
        "the absolute scale of the gradients."
    ),
    area="optim",
    package="gradworks.optim.diffgrad",
    usage="""\
from gradworks.optim.diffgrad import DiffGrad

optimizer = DiffGrad(model.parameters(), lr=1e-3)
""",
    tags=("optimizer", "adam", "friction", "convolutional networks"),
)

CLAIMS = (
    Claim(
        id="cifar",
        statement=(
            "Trains residual networks to a higher accuracy than SGD with momentum, AdaGrad, "
            "AdaDelta, RMSProp, AMSGrad and Adam."
        ),
        published="Direction (abstract); the tables could not be read.",
        holds_when=(
            "At every optimizer's best lr, chosen on a validation split, the paired accuracy "
            "difference to Adam has its bootstrap 95 % interval above 0."
        ),
        setting="ResNet on CIFAR-10 and CIFAR-100.",
        scaled_down="CNN with batch norm on the 8x8 digits, 20 epochs, 8 seeds.",
        primary=True,
    ),
    Claim(
        id="synthetic",
        statement="Passes local minima of one-dimensional functions in which Adam stops.",
        published=(
            "On F1 Adam ends in the local minimum 0.2, diffGrad in the global one at -0.3 "
            "(authors' notebooks, rerun)."
        ),
        holds_when=(
            "The share of starts that reach the global basin is above Adam's at the same lr; Adam "
            "at half the lr is shown beside it as the control."
        ),
        setting="Three functions, lr 0.1, betas (0.95, 0.999), start -1, 300 points.",
        scaled_down="41 starts and 4 learning rates.",
    ),
    Claim(
        id="activations",
        statement="Holds for different activation functions.",
        published="Direction (abstract).",
        holds_when="The sign of the difference is the same for ReLU, ELU, SELU and GELU.",
        setting="CNN.",
        scaled_down="The digits CNN.",
    ),
)
