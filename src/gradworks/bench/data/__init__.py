"""Real data without downloads: each set lies in a package, is hash-checked and read by a function.

``gradworks data list`` shows the sets, ``gradworks data install NAME`` installs the package of
one. Every reader returns ``(X, y, meta)``; nothing here is split, scaled or shuffled. Importing
this package imports neither numpy nor any of the packages.

Example:
    >>> from gradworks.bench import data
    >>> [row["name"] for row in data.installed()][:3]
    ['mnist5k', 'animal_mnist', 'digits']
"""

from __future__ import annotations

from gradworks.bench.data.files import ChangedData, Meta, MissingData
from gradworks.bench.data.images import (
    animal_mnist,
    digits,
    mnist5k,
    optdigits,
    photographs,
    sample_images,
)
from gradworks.bench.data.packages import InstallFailed, install, installed, source, verify
from gradworks.bench.data.panel import regression, regression_names
from gradworks.bench.data.pickles import RefusedPickle
from gradworks.bench.data.registry import DataSet, UnknownData
from gradworks.bench.data.sensors import connectomes, emg, emg_covariances
from gradworks.bench.data.synthetic import anyloss_synthetic, blobs
from gradworks.bench.data.tables import (
    breast_cancer,
    diabetes,
    iris,
    keel,
    keel_names,
    linnerud,
    shuttle,
    solarflare,
    wine,
    yeast,
)
from gradworks.bench.data.text import sympy_text, topics_text

__all__ = [
    "ChangedData",
    "DataSet",
    "InstallFailed",
    "Meta",
    "MissingData",
    "RefusedPickle",
    "UnknownData",
    "animal_mnist",
    "anyloss_synthetic",
    "blobs",
    "breast_cancer",
    "connectomes",
    "diabetes",
    "digits",
    "emg",
    "emg_covariances",
    "install",
    "installed",
    "iris",
    "keel",
    "keel_names",
    "linnerud",
    "mnist5k",
    "optdigits",
    "photographs",
    "regression",
    "regression_names",
    "sample_images",
    "shuttle",
    "solarflare",
    "source",
    "sympy_text",
    "topics_text",
    "verify",
    "wine",
    "yeast",
]
