"""Learning rates and batch size (2020, arXiv:2006.09092): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="rmt-learning-rate",
    title=(
        "Learning Rates as a Function of Batch Size: A Random Matrix Theory Approach to Neural "
        "Network Training"
    ),
    date="2020-06-16",
    authors=3,
    arxiv="2006.09092",
    venue="JMLR 23(173), 2022",
    summary=(
        "The largest usable learning rate is set by the largest eigenvalue of the batch Hessian, "
        "which random matrix theory predicts from the full one and a measured noise. So the rate "
        "should grow linearly with the batch size for SGD and with its square root for Adam, up "
        "to a saturation that can be computed beforehand. The eigenvalues cost a few Hessian "
        "products, so rate and momentum can also be set during training. For anyone who changes "
        "batch size or starts a run without a sweep."
    ),
    area="curvature",
    package="gradworks.curvature.learning_rate",
    usage="""\
from gradworks.curvature.learning_rate import measure_noise, scale_learning_rate

noise = measure_noise(model, loss_fn, dataset)
print(noise.max_learning_rate(1024), noise.saturation_batch())
lr = scale_learning_rate(0.1, from_batch=128, to_batch=1024, rule="linear")
""",
    tags=("learning rate", "batch size", "random matrix theory", "hessian", "momentum", "schedule"),
)

CLAIMS = (
    Claim(
        id="scaling",
        statement=(
            "The largest usable learning rate grows linearly with the batch size for SGD and with "
            "its square root for adaptive methods."
        ),
        published="Linear and square root (abstract).",
        holds_when=(
            "The slope of log rate on log batch size in the unsaturated range, predicted "
            "beforehand: the interval contains 1 for SGD and 0.5 for Adam, and excludes the "
            "other."
        ),
        setting="VGG and WideResNet on CIFAR-100 and ImageNet.",
        scaled_down="Small nets on MNIST-5k and digits, batch 4 to 1024, 10 seeds.",
        primary=True,
    ),
    Claim(
        id="eigenvalues",
        statement=(
            "The extreme eigenvalues of the batch Hessian exceed those of the full one, by a "
            "predictable amount; the same holds for the Gauss-Newton matrix."
        ),
        published="Direction (abstract).",
        holds_when=(
            "With the noise fitted at batch sizes 8, 32 and 128 the mean absolute log error at "
            "16, 64, 256 and 512 is below 0.15 and below both baselines, interval over 5 "
            "checkpoints."
        ),
        setting="VGG and WideResNet on CIFAR-100 and ImageNet.",
        scaled_down="5 nets and checkpoints.",
    ),
    Claim(
        id="damping",
        statement=(
            "The smallest useful damping is proportional to the learning rate over the batch size."
        ),
        published="Proportional to lr/B (abstract of earlier versions).",
        holds_when="Reported: the slope of log damping on log batch size, with its interval.",
        setting="VGG and WideResNet on CIFAR-100 and ImageNet.",
        scaled_down="Small nets.",
    ),
    Claim(
        id="learner",
        statement="A learner of rate and momentum from the spectrum works.",
        published=(
            "Good preliminary results on Pre-ResNet, CIFAR-100 (abstract); accuracies not read."
        ),
        holds_when=(
            "Final test error not worse than tuned SGD by more than 1 point, at an eighth of the "
            "tuning runs."
        ),
        setting="Pre-ResNet on CIFAR-100.",
        scaled_down="Small nets on digits and MNIST-5k.",
    ),
)
