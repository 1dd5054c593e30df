"""Read a pickled numpy array from a package without running what else a pickle may hold."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np

__all__ = ["RefusedPickle", "load_array"]

# numpy 1 pickles name numpy.core, numpy 2 pickles numpy._core.
_ALLOWED = frozenset(
    (module, name)
    for module, names in {
        "numpy": ("ndarray", "dtype"),
        "numpy.core.multiarray": ("_reconstruct",),
        "numpy._core.multiarray": ("_reconstruct",),
    }.items()
    for name in names
)


class RefusedPickle(pickle.UnpicklingError):
    """A pickle that asks for more than a plain numpy array."""


class _ArraysOnly(pickle.Unpickler):
    """Admits what builds a numpy array and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class by name, if it is one of the few that an array needs."""
        if (module, name) not in _ALLOWED:
            raise RefusedPickle(
                f"the pickle asks for {module}.{name}; only plain numpy arrays are read"
            )
        if name == "_reconstruct":
            from numpy._core import multiarray

            return multiarray._reconstruct
        import numpy as np

        return getattr(np, name)


def load_array(file: BinaryIO) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the numpy array in a pickle.

    Args:
        file: Open for reading, in binary mode.

    Raises:
        RefusedPickle: If the pickle names anything but what a numeric array is made of.
    """
    import numpy as np

    found = _ArraysOnly(file).load()
    if not isinstance(found, np.ndarray) or found.dtype.hasobject:
        raise RefusedPickle(f"the pickle holds a {type(found).__name__}, not a numeric array")
    return found
