"""Fixed orthogonal bases, from whose columns a subspace is picked.

A basis is built in float64 from reduced angles (the released code builds it in float32 from angles
of many turns, which costs orthogonality: 6e-5 at n = 2048), once for each size, dtype and device,
and shared by all layers and optimizers that use it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from gradworks.optim.dct_adamw.fourier import fft_dct2, fft_dct3, turns
from gradworks.optim.dct_adamw.selection import BLOCK, in_blocks
from gradworks.optim.precision import work_dtype

__all__ = ["NAMES", "TRANSFORMS", "Basis", "basis_for", "check_basis", "dct", "dct_matrix"]

NAMES = ("dct3", "dct2", "identity", "hadamard")
TRANSFORMS = ("auto", "matmul", "fft")
# From this size on the FFT is the faster one: on a CPU measured, elsewhere the paper's finding that
# up to 2048 it is not.
FFT_FROM_CPU = 512
FFT_FROM = 8192
KEPT = 1024  # larger matrices are not kept for calls of dct
ORTHOGONAL = 1e-4  # largest entry of Q Q^T - I of a user's basis

_ROWS: WeakValueDictionary[str, Tensor] = WeakValueDictionary()


def dct_matrix(
    n: int,
    *,
    basis: str = "dct3",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""An orthogonal matrix Q; its columns are the basis.

    .. math::
        Q_{ij} = \sqrt{2/n} \, \cos \frac{\pi i (2j + 1)}{2n}, \qquad
        \text{row } 0 \text{ times } \sqrt{1/2} \qquad \text{(dct3)}

    and its transpose for "dct2", whose columns are cosines of rising frequency. ``x @ Q`` is the
    orthogonal DCT-III or DCT-II of the rows of x.

    Args:
        n: Size, at least 1.
        basis: "dct3" (the released code's), "dct2", "identity", or "hadamard" (n a power of 2).
        dtype: A floating dtype; the default one.
        device: Where to; the default one.

    Returns:
        Q, of shape (n, n), a tensor of the caller's own.

    Raises:
        TypeError: If n is no integer.
        ValueError: If n, the basis or the dtype is not as above.

    Example:
        >>> from gradworks.optim.dct_adamw import dct_matrix
        >>> dct_matrix(2)
        tensor([[ 0.7071,  0.7071],
                [ 0.7071, -0.7071]])
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an integer, got {n!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating dtype, got {dtype}")
    _known(basis, n)
    rows = _built(n, basis)
    return rows.T.to(
        device=torch.get_default_device() if device is None else device, dtype=dtype
    ).clone(memory_format=torch.contiguous_format)


def dct(x: Tensor, basis: str = "dct2", transform: str = "auto") -> Tensor:
    """``x @ Q`` along the last dimension: the orthogonal DCT-II or DCT-III.

    Args:
        x: Real, of shape (..., n); not 0-d. 16-bit tensors are transformed in float32.
        basis: "dct2" or "dct3" (its inverse); "identity" and "hadamard" too.
        transform: "matmul", "fft" (the DCTs only), or "auto": the FFT from n = 512 on a CPU, from
            8192 elsewhere.

    Returns:
        A tensor like x. Autograd can follow.

    Raises:
        TypeError: If x is not a real floating tensor.
        ValueError: If x is 0-d or empty along its last dimension, or the basis has no such
            transform.

    Example:
        >>> import torch
        >>> from gradworks.optim.dct_adamw import dct
        >>> x = torch.tensor([3.0, 1.0, 2.0])
        >>> torch.allclose(dct(dct(x, "dct2"), "dct3"), x)
        True
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a real floating tensor, got {getattr(x, 'dtype', type(x))}")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"x must have a last dimension of at least 1, got shape {tuple(x.shape)}")
    check_basis(basis, transform)
    if not isinstance(basis, str):
        raise ValueError("dct takes the name of a basis; for a matrix of your own write x @ Q")
    if basis == "identity" or x.numel() == 0:
        return x.clone()
    work = work_dtype(x.dtype)
    return _for_calls(basis, x.shape[-1], transform, work, x.device).project(x.to(work)).to(x.dtype)


def _for_calls(
    basis: str, n: int, transform: str, dtype: torch.dtype, device: torch.device
) -> Basis:
    """A basis that is not built anew at each call: a few small ones and all factors are kept."""
    if n <= KEPT or _turn(basis, n, transform, dtype, device) is not None:
        return _kept(basis, n, transform, dtype, device)
    return basis_for(basis, n, transform, dtype, device)


@lru_cache(maxsize=8)
def _kept(basis: str, n: int, transform: str, dtype: torch.dtype, device: torch.device) -> Basis:
    """A basis for calls; without its matrix where the FFT does all."""
    turn = _turn(basis, n, transform, dtype, device)
    if turn is not None:
        return Basis(torch.empty(0, dtype=dtype, device=device), basis, turn)
    return basis_for(basis, n, transform, dtype, device)


class Basis(NamedTuple):
    """A basis on a device.

    Attributes:
        rows: The basis vectors as rows, Q^T.
        name: Which one; "own" for a user's.
        turn: Factors of the fast transform; None: it is not taken.
    """

    rows: Tensor
    name: str
    turn: Tensor | None

    def project(self, x: Tensor) -> Tensor:
        """``x @ Q`` along the last dimension."""
        if self.name == "identity":
            return x
        if self.turn is None or x.numel() == 0:  # an FFT of nothing fails
            return x @ self.rows.mT
        transform = fft_dct2 if self.name == "dct2" else fft_dct3
        if not in_blocks(x):
            return transform(x, self.turn)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        rows = max(1, BLOCK // x.shape[-1])
        for found, part in zip(torch.split(out, rows), torch.split(x, rows)):
            found.copy_(transform(part.contiguous(), self.turn))
        return out

    def project_columns(self, x: Tensor) -> Tensor:
        """``Q^T @ x``, along the last dimension but one."""
        if self.name == "identity":
            return x
        if self.turn is None:
            return self.rows @ x
        return self.project(x.mT).mT


def check_basis(basis: object, transform: object) -> None:
    """A known name with a transform that it has, or an orthogonal matrix.

    Raises:
        TypeError: If the basis is neither a name nor a tensor.
        ValueError: If the name is unknown, the matrix not square and orthogonal, or the transform
            unknown or not the basis's.
    """
    if transform not in TRANSFORMS:
        raise ValueError(f"transform must be one of {', '.join(TRANSFORMS)}, got {transform!r}")
    if isinstance(basis, Tensor):
        _check_orthogonal(basis)
    elif not isinstance(basis, str):
        raise TypeError(
            f"basis must be one of {', '.join(NAMES)} or a square orthogonal tensor, got "
            f"{type(basis).__name__}"
        )
    elif basis not in NAMES:
        raise ValueError(
            f"basis must be one of {', '.join(NAMES)} or a square orthogonal tensor, got {basis!r}"
        )
    if transform == "fft" and (isinstance(basis, Tensor) or basis not in {"dct2", "dct3"}):
        named = "a tensor" if isinstance(basis, Tensor) else repr(basis)
        raise ValueError(f"transform='fft' needs basis 'dct2' or 'dct3', got {named}")


def _check_orthogonal(basis: Tensor) -> None:
    """Q Q^T = I to 1e-4 in every entry."""
    if basis.ndim != 2 or basis.shape[0] != basis.shape[1] or not basis.is_floating_point():
        raise ValueError(
            f"basis as a tensor must be square, real and floating, got shape {tuple(basis.shape)} "
            f"of {basis.dtype}"
        )
    if basis.is_meta:
        return
    wide = basis.detach().to(work_dtype(basis.dtype))
    off = (wide @ wide.T - torch.eye(len(wide), dtype=wide.dtype, device=wide.device)).abs()
    worst = float(off.max()) if off.numel() else 0.0
    if not worst <= ORTHOGONAL:
        raise ValueError(
            f"basis as a tensor must be orthogonal to {ORTHOGONAL:g}, got an error of {worst:.2g}; "
            "take the first factor of torch.linalg.qr"
        )


def _known(basis: str, n: int) -> None:
    """A name, and a size that it has."""
    check_basis(basis, "auto")
    if basis == "hadamard" and n & (n - 1):
        raise ValueError(f"basis 'hadamard' needs a size that is a power of 2, got {n}")


def basis_for(
    basis: str | Tensor, n: int, transform: str, dtype: torch.dtype, device: torch.device
) -> Basis:
    """The basis of a size, shared with all others who hold it.

    Raises:
        ValueError: If there is none of that size.
    """
    if isinstance(basis, Tensor):
        if basis.shape[0] != n:
            raise ValueError(
                f"basis as a tensor has size {basis.shape[0]}, a weight needs {n}; give weights of "
                "other sizes a group with a basis of their own"
            )
        own = basis.detach().mT.to(device=device, dtype=dtype)
        return Basis(own.clone(memory_format=torch.contiguous_format), "own", None)
    _known(basis, n)
    key = f"{basis}/{n}/{dtype}/{device}"
    rows = _ROWS.get(key)
    if rows is None:
        with torch.inference_mode(False):  # autograd may need it later
            rows = _built(n, basis).to(device=device, dtype=dtype)
        _ROWS[key] = rows
    return Basis(rows, basis, _turn(basis, n, transform, dtype, device))


def _turn(
    basis: str, n: int, transform: str, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """Factors of the FFT; None where the product with the matrix is taken."""
    if basis not in {"dct2", "dct3"}:
        return None
    smallest = FFT_FROM_CPU if device.type == "cpu" else FFT_FROM
    if transform == "fft" or (transform == "auto" and n >= smallest):
        return turns(n, basis, dtype, device)
    return None


def _built(n: int, basis: str) -> Tensor:
    """Q^T on the host in float64, contiguous: basis vectors are rows."""
    with torch.device("cpu"):
        if basis == "identity":
            return torch.eye(n, dtype=torch.float64)
        if basis == "hadamard":
            rows = torch.ones(1, 1, dtype=torch.float64)
            while len(rows) < n:
                rows = torch.cat((torch.cat((rows, rows), 1), torch.cat((rows, -rows), 1)))
            return rows / math.sqrt(n)
        i = torch.arange(n)
        # exact in integers: cos of a large angle would lose digits
        angle = (i.unsqueeze(1) * (2 * i + 1)) % (4 * n)
        rows = torch.cos(angle.to(torch.float64) * (math.pi / (2 * n))) * math.sqrt(2 / n)
        rows[0] *= math.sqrt(0.5)
        return rows if basis == "dct2" else rows.T.contiguous()
