"""How the estimated diagonal is smoothed over a parameter: absolute values first, then means.

The authors' three versions for PyTorch smooth differently; the modes here cover them all.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gradworks.optim.sharded import is_sharded

__all__ = ["Averaging", "check_averaging", "check_shape", "smoothed"]

Averaging = str | Mapping[int, int]
MODES = ("spatial", "row", "none")


def check_averaging(value: object) -> None:
    """Require a mode, or blocks by number of dimensions.

    Args:
        value: What was given as ``averaging``.

    Raises:
        TypeError: If it is neither.
        ValueError: If there is no such mode, or a number is below 1.
    """
    if isinstance(value, str):
        if value not in MODES:
            raise ValueError(
                f"averaging must be one of {', '.join(MODES)} or a mapping such as {{4: 9}}, "
                f"got {value!r}"
            )
        return
    if not isinstance(value, Mapping):
        raise TypeError(f"averaging must be a name or a mapping, got {type(value).__name__}")
    for ndim, block in value.items():
        for number in (ndim, block):
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"averaging must map integers to integers, got {value!r}")
        if ndim < 0 or block < 1:
            raise ValueError(
                "averaging must map numbers of dimensions to block sizes of at least 1, got "
                f"{ndim}: {block}"
            )


def averaged_dims(mode: str, ndim: int) -> tuple[int, ...]:
    """The dimensions that a mode takes the mean over."""
    if mode == "none" or ndim < 2 or (mode == "spatial" and ndim == 2):
        return ()
    return (1,) if ndim == 2 else tuple(range(2, ndim))


def check_shape(averaging: Averaging, param: Tensor) -> None:
    """Require that blocks divide a parameter, and that no mean crosses processes.

    Args:
        averaging: A mode or blocks.
        param: The parameter.

    Raises:
        ValueError: If a block does not divide the number of elements.
        RuntimeError: If a sharded parameter (``DTensor``) is split within a mean.
    """
    if isinstance(averaging, str):
        dims = averaged_dims(averaging, param.ndim)
        if is_sharded(param) and any(
            not p.is_replicate() and p.dim % param.ndim in dims
            for p in param.placements  # type: ignore[attr-defined]
        ):
            raise RuntimeError(
                f"averaging={averaging!r} takes means over dimensions {dims} of a parameter of "
                f"shape {tuple(param.shape)}, which is sharded there; use averaging='none' in its "
                "group"
            )
        return
    block = averaging.get(param.ndim, 1)
    whole = param.to_local() if is_sharded(param) else param  # type: ignore[attr-defined]
    if param.numel() % block or whole.numel() % block:
        raise ValueError(
            f"averaging in blocks of {block} does not divide a parameter of shape "
            f"{tuple(param.shape)} ({param.numel()} elements"
            f"{', sharded' if whole is not param else ''})"
        )


def smoothed(diagonal: Tensor, averaging: Averaging) -> Tensor:
    """The means of ``|D|``, in the shape of ``D``; ``D`` itself where there are none to take.

    Only its square is used, so that it keeps its sign then.

    Args:
        diagonal: z * Hz of one parameter.
        averaging: A mode or blocks, which divide it.

    Returns:
        The diagonal up to signs.
    """
    D = diagonal
    if isinstance(averaging, str):
        dims = averaged_dims(averaging, D.ndim)
        return D.abs().mean(dims, keepdim=True).expand_as(D) if dims and D.numel() else D
    block = averaging.get(D.ndim, 1)
    if block == 1 or D.numel() == 0:
        return D
    rows = D.abs().reshape(-1, block)
    return rows.mean(1, keepdim=True).expand_as(rows).reshape(D.shape)
