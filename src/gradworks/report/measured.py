"""The spectrum of a target of the command line, in the type and by the products that it allows."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradworks.curvature.spectrum import SpectrumReport

__all__ = ["first_examples", "in_double", "spectrum_of"]


def spectrum_of(
    kind: Any, model: Any, loss_fn: Any, data: Any, seed: int, options: dict[str, Any]
) -> tuple[SpectrumReport, str, str]:
    """The spectrum; by differences of gradients, in float64, where a second derivative is missing.

    Differences in float32 keep three digits, those in float64 nine; a model that runs in no other
    type than its own keeps it.

    Args:
        kind: Class of the operator.
        model: The model.
        loss_fn: Its loss.
        data: Its data.
        seed: Of the probes.
        options: As :func:`gradworks.curvature.spectrum.spectrum` takes them.

    Returns:
        The report, ``"derivatives"`` or ``"finite differences"``, and the type.
    """
    import torch

    from gradworks.curvature.operators.twice import SecondDerivativeError
    from gradworks.curvature.spectrum import spectrum

    def found(op: Any) -> SpectrumReport:
        return spectrum(op, generator=torch.Generator().manual_seed(seed), **options)

    own = str(next(model.parameters()).dtype).rpartition(".")[2]
    try:
        with kind(model, loss_fn, data) as op:
            return found(op), "derivatives", own
    except SecondDerivativeError:
        pass
    dtype = own
    if own != "float64":
        double, wider = copy.deepcopy(model).double(), in_double(data)
        with contextlib.suppress(RuntimeError):
            kind(double, loss_fn, wider).loss()
            model, data, dtype = double, wider, "float64"
    with kind(model, loss_fn, data, method="finite_difference") as op:
        return found(op), "finite differences", dtype


def first_examples(data: Any, examples: int, model: Any) -> list[tuple[Any, Any]]:
    """The first so many examples of data of any form, batches cut where needed.

    Args:
        data: As the operators take them.
        examples: At least 1; all where there are fewer.
        model: Whose device the data are on.

    Returns:
        Batches.
    """
    from gradworks.curvature.operators.batches import Batches

    device = next(model.parameters()).device
    found: list[tuple[Any, Any]] = []
    left = examples
    for part in Batches(data, device=device, microbatch_size=examples):
        if part.size > left:
            pair = [(part.inputs, part.targets)]
            part = next(iter(Batches(pair, device=device, microbatch_size=left)))
        found.append((part.inputs, part.targets))
        left -= part.size
        if left == 0:
            break
    return found


class _Double:
    """Re-iterable data whose floating-point tensors come out in float64."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __iter__(self) -> Iterator[Any]:
        return (_cast(batch) for batch in self._data)

    def __len__(self) -> int:
        return len(self._data)


def in_double(data: Any) -> Any:
    """The same data in float64: one batch at once, several as they are read.

    Args:
        data: As the operators take them.

    Returns:
        Data of the same form.
    """
    return _cast(data) if isinstance(data, tuple) else _Double(data)


def _cast(item: Any) -> Any:
    import torch

    if isinstance(item, torch.Tensor):
        return item.double() if item.is_floating_point() else item
    if isinstance(item, Mapping):
        return {key: _cast(value) for key, value in item.items()}
    return type(item)(_cast(one) for one in item) if isinstance(item, (tuple, list)) else item
