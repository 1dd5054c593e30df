"""Labels of a table as rows of 0 and 1, one row a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

__all__ = ["Labels", "is_multilabel", "read_labels"]


@dataclass(frozen=True)
class Labels:
    """What the labels of a table say.

    Args:
        classes: Labels, sorted; column numbers where a row may have several.
        target: 0 or 1 for every model and sample, (models, samples): the second of two classes,
            each of several against the rest, or each column.
        index: Class number of each sample, None where a row may have several labels.
    """

    classes: np.ndarray
    target: np.ndarray
    index: np.ndarray | None

    def check_present(self, weight: np.ndarray) -> None:
        """Refuse a table in which only one class has weight.

        Args:
            weight: Sample weights.

        Raises:
            ValueError: If fewer than two classes have weight.
        """
        if self.index is None:
            return
        present = np.unique(self.index[weight > 0])
        if len(present) < 2:
            only = self.classes[present[0]] if len(present) else self.classes[0]
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data "
                f"contains only one class: {only!r}"
            )


def is_multilabel(y: Any) -> bool:
    """Whether a row of ``y`` may have several labels.

    Args:
        y: Labels as a user gives them.

    Returns:
        True for a matrix of 0 and 1 with two columns or more.
    """
    return bool(type_of_target(y, input_name="y") == "multilabel-indicator")


def read_labels(y: Any, classes: np.ndarray | None = None) -> Labels:
    """Read the labels of a table.

    Args:
        y: One label a sample, (n,); or a matrix of 0 and 1, (n, labels), dense or sparse.
        classes: All labels there are, sorted; ``None`` for those of ``y``.

    Returns:
        The classes and a row of 0 and 1 for every model.

    Raises:
        ValueError: If ``y`` is neither, or holds a label that is not among ``classes``.
    """
    check_classification_targets(y)
    if is_multilabel(y):
        dense = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
        values = np.unique(dense)
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"y with several columns must hold 0 and 1 alone, found {values}")
        numbers = np.arange(dense.shape[1])
        if classes is not None and not np.array_equal(classes, numbers):
            raise ValueError(
                f"y has {len(numbers)} columns of labels, but classes are {list(classes)}"
            )
        return Labels(numbers, np.ascontiguousarray(dense.T, dtype=np.float64), None)
    if np.ndim(y) == 2 and np.shape(y)[1] > 1:
        raise ValueError(
            f"y of shape {np.shape(y)} must hold 0 and 1 alone, one column a label; "
            "several classes in each of several columns are not supported"
        )
    y = column_or_1d(y, warn=True)
    found = np.unique(y)
    if classes is None:
        classes = found
    unknown = np.setdiff1d(found, classes)
    if len(unknown):
        raise ValueError(f"y holds labels {list(unknown[:3])} that are not among {list(classes)}")
    index = np.searchsorted(classes, y)
    # One row of 0/1 labels a model: the second class, or each class against the rest.
    wanted = np.arange(len(classes)) if len(classes) > 2 else np.array([1])
    return Labels(classes, (index[None, :] == wanted[:, None]).astype(np.float64), index)
