"""diffGrad: the card of the paper and what it claims."""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion
from gradworks.papers._model import Card

__all__ = ["ACTIVATIONS", "CARD", "CLAIMS", "FUNCTIONS", "RIVALS"]

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
from gradworks.optim import DiffGrad

optimizer = DiffGrad(model.parameters(), lr=1e-3)
""",
    tags=("optimizer", "adam", "friction", "convolutional networks"),
)

FUNCTIONS = ("f1", "f2", "f3")  # the authors' three functions of one variable
ACTIVATIONS = {"relu": "ReLU", "elu": "ELU", "selu": "SELU", "gelu": "GELU"}
RIVALS = {  # arm: what tables print
    "sgd": "SGD with momentum",
    "adagrad": "AdaGrad",
    "adadelta": "AdaDelta",
    "rmsprop": "RMSProp",
    "amsgrad": "AMSGrad",
    "adamw": "AdamW",
}
# The smallest differences worth having: one image of the test split.
DIGITS_IMAGE, MNIST_IMAGE = 1 / 359, 1 / 1000
BOTH_IMAGES = (DIGITS_IMAGE + MNIST_IMAGE) / 2
TWO_STARTS = 0.05  # two of 41 starts


def _error(name: str, baseline: str, workloads: tuple[str, ...], image: float) -> Criterion:
    """Test error at tuned learning rates, lower than a baseline's."""
    return Criterion(
        name=name,
        kind="superiority",
        metric="error",
        arm="diffgrad",
        baseline=baseline,
        direction="lower",
        workloads=workloads,
        min_effect=image,
    )


def _share(name: str, baseline: str) -> Criterion:
    """Share of starts that end in the global basin, larger than a baseline's."""
    return Criterion(
        name=name,
        kind="superiority",
        metric="share",
        arm="curve-diffgrad",
        baseline=baseline,
        direction="higher",
        workloads=FUNCTIONS,
        min_effect=TWO_STARTS,
    )


def _end(name: str, arm: str, value: float) -> Criterion:
    """Where the published run on the first function ends."""
    return Criterion(
        name=name,
        kind="exactness",
        metric="end",
        arm=arm,
        workloads=("f1",),
        published=value,
        reference=value,
        tolerance=0.02,
    )


CLAIMS = (
    Claim(
        id="cifar",
        statement=(
            "Reaches better minima than SGD with momentum, AdaGrad, AdaDelta, RMSProp, AMSGrad and "
            "Adam: of functions with local minima, and of convolutional networks."
        ),
        published="Direction (abstract); the tables could not be read.",
        holds_when=(
            "(a) On the three functions, the share of starts that end in the global basin is above "
            "Adam's at the same learning rates, by 5 points or more; (b) with learning rates tuned "
            "alike, test errors are below Adam's on digits and on MNIST, and below those of the "
            "others on the mean of both, by one test image or more. All: reproduced; (a) alone: "
            "partly."
        ),
        setting="ResNet on CIFAR-10 and CIFAR-100; three functions of one variable.",
        scaled_down=(
            "Networks of three convolutions with batch normalization, on 1,797 images of 8x8 "
            "pixels and on 5,000 of 28x28, instead of ResNet-50 on CIFAR."
        ),
        primary=True,
        criteria=(
            _share("global basins, above Adam at the same rates", "curve-adam"),
            _error("digits, test error below Adam", "adam", ("digits",), DIGITS_IMAGE),
            _error("MNIST, test error below Adam", "adam", ("mnist",), MNIST_IMAGE),
            *(
                _error(f"test error below {label}", arm, ("digits", "mnist"), BOTH_IMAGES)
                for arm, label in RIVALS.items()
            ),
        ),
    ),
    Claim(
        id="synthetic",
        statement="Passes a local minimum of a function of one variable in which Adam stops.",
        published=(
            "From -1 at rate 0.1, Adam ends in the local minimum 0.2 of F1, diffGrad in the global "
            "one at -0.3 (authors' notebooks)."
        ),
        holds_when="Both runs end within 2 % of these points.",
        setting="F1, lr 0.1, betas (0.95, 0.999), start -1, 300 points.",
        scaled_down="Nothing.",
        criteria=(
            _end("F1, Adam ends at 0.2", "curve-adam", 0.2),
            _end("F1, diffGrad ends at -0.3", "curve-diffgrad", -0.3),
        ),
    ),
    Claim(
        id="friction",
        statement="It is the friction that does so, and not the smaller step that it amounts to.",
        published="Implied: no run with a smaller step is shown.",
        holds_when=(
            "The share of starts that end in the global basin is above that of Adam at half the "
            "learning rate, by 5 points or more."
        ),
        setting="Three functions, lr 0.1, betas (0.95, 0.999), 300 points.",
        scaled_down="Nothing: 41 starts and four learning rates instead of one each.",
        criteria=(_share("global basins, above Adam at half the rates", "curve-half"),),
    ),
    Claim(
        id="activations",
        statement="Is better than Adam whatever the activation function.",
        published="Direction (abstract).",
        holds_when=(
            "With learning rates tuned alike, the test error on digits is below Adam's by one test "
            "image or more, for ReLU, ELU, SELU and GELU each."
        ),
        setting="Convolutional networks.",
        scaled_down="A network of three convolutions on images of 8x8 pixels.",
        criteria=tuple(
            _error(
                f"{label}, test error below Adam",
                "adam",
                (f"digits-{name}",),
                DIGITS_IMAGE,
            )
            for name, label in ACTIVATIONS.items()
            if name != "relu"
        ),
    ),
)
