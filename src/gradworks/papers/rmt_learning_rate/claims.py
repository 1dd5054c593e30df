"""What the paper claims and what decides it here, fixed before the first run that counts."""

from __future__ import annotations

from gradworks.bench.claims import Claim, Criterion
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS", "LAW", "LEARNERS", "RATES", "TUNED"]

# Networks and stages of training at which the law is tested: names of workloads.
LAW = ("law-early", "law-late", "law-shallow", "law-standard", "law-conv")
RATES = {"mnist": "MNIST sample", "digits": "digits"}
LEARNERS = ("learner-digits", "learner-mnist", "learner-conv")
TUNED = ("constant", "cosine", "one-cycle")

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


def _above(name: str, metric: str, value: float = 0.0, *, most: bool = False) -> Criterion:
    """A figure of the measured networks whose interval over seeds lies on one side of a value."""
    return Criterion(
        name=name,
        kind="threshold",
        metric=metric,
        arm="network",
        direction="lower" if most else "higher",
        reference=value,
        workloads=LAW,
    )


def _slope(
    name: str, metric: str, arm: str, workload: str, reference: float, rival: float
) -> Criterion:
    """A slope whose interval over seeds holds the claimed exponent and leaves the rival out."""
    return Criterion(
        name=name,
        kind="rate",
        metric=metric,
        arm=arm,
        reference=reference,
        rival=rival,
        workloads=(workload,),
    )


def _scaling(data: str, label: str) -> tuple[Criterion, Criterion]:
    """Linear for SGD, square root for Adam."""
    return (
        _slope(f"SGD is linear, {label}", "slope", "sgd", f"rates-{data}", 1.0, 0.5),
        _slope(f"Adam is a square root, {label}", "slope", "adam", f"rates-{data}", 0.5, 1.0),
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
            "The slope of log rate on log batch size below the saturation batch, which is "
            "predicted beforehand from a measured noise model: the interval over seeds contains 1 "
            "for SGD and 0.5 for Adam, and excludes the other. A rate trains when the loss over "
            "all examples is below 1.0 after 150 steps."
        ),
        setting="VGG and WideResNet on CIFAR-100 and ImageNet.",
        scaled_down="196-32-32-10 and 64-32-32-10 tanh networks on MNIST-5k and digits.",
        primary=True,
        criteria=tuple(c for data, label in RATES.items() for c in _scaling(data, label)),
    ),
    Claim(
        id="eigenvalues",
        statement=(
            "The extreme eigenvalues of the batch Hessian exceed those of the full one, by a "
            "predictable amount; the same holds for the Gauss-Newton matrix."
        ),
        published="Direction (abstract).",
        holds_when=(
            "At batch size 8 the largest and the smallest eigenvalue of the Hessian and the "
            "largest of the Gauss-Newton matrix are further from zero than over all data. With "
            "the noise fitted at batch sizes 8, 32 and 128 the mean absolute log error at 16, 64, "
            "256 and 512 is below 0.15 and below both baselines: no inflation, and a power of the "
            "batch size. Mean over five networks and stages of training, interval over seeds."
        ),
        setting="VGG and WideResNet on CIFAR-100 and ImageNet.",
        scaled_down="Three small networks on MNIST-5k, five checkpoints.",
        criteria=(
            _above("Hessian, upper edge", "excess_top"),
            _above("Hessian, lower edge", "excess_bottom"),
            _above("Gauss-Newton matrix", "excess_ggn"),
            _above("error of the law", "law_error", 0.15, most=True),
            _above("error below no inflation's", "gain_constant"),
            _above("error below a power's", "gain_power"),
        ),
    ),
    Claim(
        id="damping",
        statement=(
            "The smallest useful damping is proportional to the learning rate over the batch size."
        ),
        published="Proportional to lr/B (abstract of earlier versions).",
        holds_when=(
            "The slope of log damping on log batch size: the interval contains -1 and excludes 0; "
            "on log learning rate: it contains 1 and excludes 0. The damping is the smallest with "
            "which damped Gauss-Newton steps on batches end below a loss of 1.0."
        ),
        setting="VGG and WideResNet on CIFAR-100 and ImageNet.",
        scaled_down="A 16-6-10 network on digits, exact Gauss-Newton matrices.",
        criteria=(
            _slope("against the batch size", "slope_batch", "damped", "damping", -1.0, 0.0),
            _slope("against the learning rate", "slope_lr", "damped", "damping", 1.0, 0.0),
        ),
    ),
    Claim(
        id="learner",
        statement="A learner of rate and momentum from the spectrum works.",
        published=(
            "Good preliminary results on Pre-ResNet, CIFAR-100 (abstract); accuracies not read."
        ),
        holds_when=(
            "Final test error of the untuned learner not worse by more than 1 point than that of "
            "the best of SGD with constant, cosine and one-cycle rates, each the best of eight "
            "tuning runs: an eighth of their tuning."
        ),
        setting="Pre-ResNet on CIFAR-100.",
        scaled_down="Small networks on digits and MNIST-5k.",
        criteria=(
            # The tuned arms' error_allowed is their error and one point, the learner's its error.
            Criterion(
                name="within a point of tuned SGD",
                kind="superiority",
                metric="error_allowed",
                arm="heavy-ball",
                baseline="|".join(TUNED),
                direction="lower",
                workloads=LEARNERS,
            ),
        ),
    ),
)
