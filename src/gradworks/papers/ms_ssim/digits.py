"""Digits, and how well a linear classifier reads their codes from few labels."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradworks.bench import data
from gradworks.bench.workloads import split_rows

__all__ = ["accuracies", "images"]

_PENALTY = 1.0  # inverse strength of scikit-learn's logistic regression, its default


@functools.cache
def images() -> Mapping[str, tuple[Tensor, Tensor]]:
    """Return images (count, 1, 28, 28) from 0 to 1 and labels of all splits."""
    pixels, labels, _ = data.mnist5k()
    found = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28) / 255
    known = torch.tensor(labels)
    parts = map(torch.from_numpy, split_rows(labels, len(labels), seed=0))
    return {
        split: (found[rows], known[rows])
        for split, rows in zip(("train", "valid", "test"), parts, strict=True)
    }


def accuracies(
    codes: Mapping[str, tuple[Tensor, Tensor]], order: Tensor, counts: Sequence[int]
) -> dict[str, float]:
    """Return the test accuracy of logistic regression on standardised codes.

    Args:
        codes: Codes and labels of ``"train"`` and ``"test"``.
        order: Rows of ``"train"``; the first are the labelled ones.
        counts: Numbers of labels.

    Returns:
        ``accuracy_50`` and so on, and ``accuracy``, their mean.
    """
    from sklearn.linear_model import LogisticRegression

    known, labels = codes["train"]
    mean, deviation = known.mean(0), known.std(0).clamp_min(1e-6)
    test = ((codes["test"][0] - mean) / deviation).double().numpy()
    wanted = codes["test"][1].numpy()
    found = {}
    for count in counts:
        rows = order[:count]
        X = ((known[rows] - mean) / deviation).double().numpy()
        fitted = LogisticRegression(C=_PENALTY, max_iter=1000).fit(X, labels[rows].numpy())
        found[f"accuracy_{count}"] = float(fitted.score(test, wanted))
    return {**found, "accuracy": sum(found.values()) / len(found)}
