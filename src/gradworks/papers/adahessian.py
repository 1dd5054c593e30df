"""ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning (2020, arXiv:2006.00719).

Its card and its claims; ``PRESETS``, ``build`` and ``figures``, which make it run, are still to
come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="adahessian",
    title="ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning",
    date="2020-06-01",
    authors=6,
    arxiv="2006.00719",
    venue="AAAI 2021",
    code="https://github.com/amirgholami/adahessian",
    licence="MIT",
    summary=(
        "Adam scales every step by the size of past gradients; AdaHessian scales it by an "
        "estimate of the curvature instead. One extra Hessian-vector product a step gives a noisy "
        "diagonal of the Hessian, smoothed over convolution kernels and over time, and the rest "
        "is Adam. It keeps two buffers a parameter like Adam and no curvature factors, so it is "
        "the second-order baseline that is easiest to try; a step costs two to three times one of "
        "Adam."
    ),
    area="optim",
    package="gradworks.optim.adahessian",
    usage="""\
from gradworks.optim.adahessian import AdaHessian

optimizer = AdaHessian(model.parameters(), lr=0.15)
optimizer.estimate(loss_fn(model(x), y))  # gradients and a curvature sample
optimizer.step()
optimizer.zero_grad()
""",
    tags=("optimizer", "second order", "hessian", "hutchinson", "adaptive"),
)

CLAIMS = (
    Claim(
        id="cifar10",
        statement="Classifies CIFAR-10 more accurately than Adam with residual networks.",
        published="ResNet-20 / ResNet-32: +1.80 / +1.45 points of accuracy over Adam.",
        holds_when=(
            "The bootstrap 95 % interval of the paired accuracy difference lies above 0 against "
            "Adam (coupled L2, published lr 1e-3) and against tuned AdamW; partly, if only "
            "against Adam."
        ),
        setting=(
            "ResNet-20 and ResNet-32 on CIFAR-10, batch 256, 160 epochs, lr divided by 10 at "
            "epochs 80 and 120."
        ),
        scaled_down="Small convolutional and residual nets on the 8x8 digits, 20 epochs, 8 seeds.",
        primary=True,
    ),
    Claim(
        id="cifar10-logs",
        statement="Reaches a higher test accuracy than Adam and SGD in the logged ResNet-20 runs.",
        published=(
            "Best / last test accuracy: AdaHessian 0.9231 / 0.9222 (160 epochs), Adam 0.9024 / "
            "0.8999 (200), SGD 0.9138 / 0.9119 (200)."
        ),
        holds_when=(
            "Reported: accuracy at the tuned lr of every optimizer, paired over seeds, beside the "
            "published default."
        ),
        setting="ResNet-20 on CIFAR-10, TensorFlow logs of the authors' repository.",
        scaled_down="Small convolutional and residual nets on the 8x8 digits, 20 epochs, 8 seeds.",
    ),
    Claim(
        id="imagenet",
        statement="Classifies ImageNet more accurately than Adam.",
        published="+5.55 points over Adam.",
        holds_when="Not decided at our scale; the preset `paper` states the setting.",
        setting="ImageNet.",
    ),
    Claim(
        id="translation",
        statement="Translates better than AdamW.",
        published="+0.13 / +0.33 BLEU over AdamW on IWSLT14 / WMT14.",
        holds_when="Not decided at our scale; the preset `paper` states the setting.",
        setting="Transformers on IWSLT14 and WMT14.",
    ),
    Claim(
        id="language",
        statement="Models language with a lower perplexity than AdamW.",
        published="2.7 / 1.0 lower perplexity than AdamW on PTB / WikiText-103.",
        holds_when=(
            "Validation loss of a small transformer, paired over seeds, below that of tuned AdamW."
        ),
        setting="Transformers on PTB and WikiText-103.",
        scaled_down="2-layer character transformer on text that ships with CPython.",
    ),
    Claim(
        id="glue",
        statement="Fine-tunes SqueezeBERT to a higher GLUE score than AdamW.",
        published="+0.41 over AdamW.",
        holds_when="Not decided at our scale; the preset `paper` states the setting.",
        setting="SqueezeBERT on GLUE.",
    ),
    Claim(
        id="recommendation",
        statement="Predicts clicks slightly better than Adagrad.",
        published="+0.032 % over Adagrad.",
        holds_when="Not decided at our scale; the preset `paper` states the setting.",
        setting="DLRM on Criteo.",
    ),
    Claim(
        id="cost",
        statement="An iteration costs about as much as one of a first-order method.",
        published="Comparable to first-order methods; no ratio printed in what could be read.",
        holds_when=(
            "The ratio of a whole training step to AdamW's, measured in turns in one process, is "
            "printed beside every accuracy."
        ),
    ),
)
