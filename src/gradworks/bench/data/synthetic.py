"""Sets that are computed: Gaussian blobs, and the AnyLoss authors' imbalanced set."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from gradworks.bench.data.files import Meta, MissingData

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["anyloss_synthetic", "blobs"]


def _described(name: str, X: Array, y: Array, note: str, classes: int) -> Meta:
    """Return the description of a computed set; its hash is of its numbers."""
    return Meta(
        name=name,
        source="computed by gradworks",
        licence="Apache-2.0",
        sha256=hashlib.sha256(X.tobytes() + y.tobytes()).hexdigest(),
        classes=tuple(str(k) for k in range(classes)),
        note=note,
    )


def blobs(
    n: int = 1000,
    classes: int = 5,
    features: int = 10,
    separation: float = 3.0,
    spread: float = 1.0,
    seed: int = 0,
) -> tuple[Array, Array, Meta]:
    """Return Gaussian blobs whose centres are drawn on a sphere.

    Args:
        n: Rows, at least ``classes``; classes differ in size by one row at most.
        classes: Number of blobs, at least 1.
        features: Dimension, at least 1.
        separation: Distance of each centre from the origin, at least 0.
        spread: Standard deviation of a blob, above 0.
        seed: Of centres and points.

    Returns:
        X (n, features) float64, shuffled; y (n,) int64; what is known.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> X, y, meta = blobs(n=100, classes=4)
        >>> X.shape, y.max().item(), meta.name
        ((100, 10), 3, 'blobs')
    """
    import numpy as np

    for name, value, low in (("classes", classes, 1), ("features", features, 1), ("n", n, classes)):
        if value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}")
    if separation < 0 or not spread > 0:
        raise ValueError(
            f"separation must be at least 0 and spread above 0, got {separation} and {spread}"
        )
    rng = np.random.default_rng(np.random.SeedSequence([0xB10B5, seed]))
    centres = rng.standard_normal((classes, features))
    centres *= separation / np.linalg.norm(centres, axis=1, keepdims=True)
    y = rng.permutation(np.arange(n) % classes)
    X = centres[y] + spread * rng.standard_normal((n, features))
    note = f"n={n}, separation={separation}, spread={spread}, seed={seed}"
    return X, y, _described("blobs", X, y, note, classes)


def anyloss_synthetic() -> tuple[Array, Array, Meta]:
    """Return the two-dimensional imbalanced set of the AnyLoss authors.

    Ten thousand rows, a tenth positive: scikit-learn's ``make_classification`` with their
    arguments, then its two principal components. The recipe is theirs; the numbers depend on
    scikit-learn's generators, which are stable.

    Returns:
        X (10000, 2) float64; y (10000,) int64; what is known.

    Raises:
        MissingData: If scikit-learn is not installed.
    """
    import numpy as np

    try:
        from sklearn.datasets import make_classification
        from sklearn.decomposition import PCA
    except ImportError:
        raise MissingData(
            "the data set 'anyloss_synthetic' needs scikit-learn: pip install \"gradworks[tables]\""
        ) from None
    X, y = make_classification(
        10000,
        weights=[0.9, 0.1],
        class_sep=1.2,
        n_features=5,
        n_informative=3,
        n_redundant=1,
        n_clusters_per_class=1,
        random_state=0,
    )
    flat = np.ascontiguousarray(PCA(2).fit_transform(X))
    y = y.astype(np.int64)
    return flat, y, _described("anyloss_synthetic", flat, y, "make_classification, PCA(2)", 2)
