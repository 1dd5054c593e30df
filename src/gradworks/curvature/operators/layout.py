"""Which parameters an operator covers, and how they lie in one vector."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Layout", "Selection", "is_dtensor", "select_parameters"]

Selection = str | Sequence[str] | Callable[[str, Tensor], bool] | None


def is_dtensor(tensor: Tensor) -> bool:
    """Whether a tensor is sharded; never imports ``torch.distributed.tensor`` to find out.

    Args:
        tensor: Any.

    Returns:
        The answer.
    """
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def _listed(names: Sequence[str], limit: int = 3) -> str:
    """The first few names."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, … ({len(names)} in all)"


def select_parameters(model: nn.Module, params: Selection) -> dict[str, Tensor]:
    """The trainable parameters a selection names, tied ones once, in the model's order.

    Args:
        model: The model.
        params: ``None`` for all; names; a glob pattern over names; a predicate
            ``(name, tensor) -> bool``.

    Returns:
        Parameters by name.

    Raises:
        TypeError: ``params`` is none of these.
        ValueError: No trainable parameter is left, or a name is unknown or frozen.
    """
    every = dict(model.named_parameters())
    trainable: dict[str, Tensor] = {name: p for name, p in every.items() if p.requires_grad}
    lazy = [n for n, p in trainable.items() if isinstance(p, nn.parameter.UninitializedParameter)]
    if lazy:
        raise ValueError(f"parameters {_listed(lazy)} have no shape yet; call the model once first")
    if not trainable:
        raise ValueError(
            f"{type(model).__name__} has no trainable parameter: set requires_grad=True on at "
            "least one"
        )
    if params is None:
        return trainable
    if isinstance(params, str):
        chosen = {n: p for n, p in trainable.items() if fnmatch.fnmatchcase(n, params)}
    elif callable(params):
        chosen = {n: p for n, p in trainable.items() if params(n, p)}
    elif isinstance(params, Sequence) and all(isinstance(name, str) for name in params):
        unknown = [name for name in params if name not in trainable]
        if unknown:
            frozen = [name for name in unknown if name in every]
            raise ValueError(
                f"params names {_listed(unknown)}, not a trainable parameter of "
                f"{type(model).__name__}{' (frozen)' if frozen else ''}; "
                f"there are {_listed(list(trainable))}"
            )
        chosen = {n: p for n, p in trainable.items() if n in set(params)}
    else:
        raise TypeError(
            "params must be None, names, a glob pattern or a predicate (name, tensor) -> bool, "
            f"got {type(params).__name__}"
        )
    if not chosen:
        raise ValueError(
            f"params={params!r} selects no trainable parameter; there are "
            f"{_listed(list(trainable))}"
        )
    return chosen


class Layout:
    """Named tensors as one vector: each flattened row-major, concatenated in order.

    Args:
        params: Tensors by name; all real floating point, on one device, of one type.

    Raises:
        ValueError: An integer or complex tensor, or mixed devices or types.
    """

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        self.names = list(params)
        self.tensors = list(params.values())
        for name, p in params.items():
            if p.is_complex():
                raise ValueError(f"parameter {name} is complex ({p.dtype}); only real ones work")
            if not p.is_floating_point():
                raise ValueError(f"parameter {name} is {p.dtype}; only floating point works")
        devices = sorted({str(p.device) for p in self.tensors})
        if len(devices) > 1:
            raise ValueError(
                f"parameters lie on mixed devices ({', '.join(devices)}); "
                "move the model to one, or select the parameters of one with params="
            )
        types = sorted({str(p.dtype) for p in self.tensors})
        if len(types) > 1:
            raise ValueError(
                f"parameters have mixed types ({', '.join(types)}); "
                "cast the model to one, or select those of one with params="
            )
        self.shapes = [p.shape for p in self.tensors]
        self.sizes = [p.numel() for p in self.tensors]
        self.size = sum(self.sizes)
        self.dtype = self.tensors[0].dtype
        self.device = self.tensors[0].device

    def split(self, vector: Tensor) -> list[Tensor]:
        """Views of a (P,) vector in the tensors' shapes; of (k, P): with k in front."""
        lead = vector.shape[:-1]
        parts = torch.split(vector, self.sizes, dim=-1)
        return [part.view((*lead, *shape)) for part, shape in zip(parts, self.shapes)]

    def join(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """One (P,) vector of tensors in order; ``None`` stands for zeros."""
        return torch.cat(
            [
                self.tensors[i].new_zeros(self.sizes[i]) if t is None else t.detach().reshape(-1)
                for i, t in enumerate(tensors)
            ]
        )

    def refuse_sparse(self, grads: Sequence[Tensor | None]) -> None:
        """Sparse gradients have neither a second derivative nor a place in a vector."""
        for name, g in zip(self.names, grads):
            if g is not None and g.is_sparse:
                raise ValueError(f"gradient of {name} is sparse; build its layer with sparse=False")

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """One vector of tensors by name.

        Args:
            tensors: Exactly the layout's names, each in its parameter's shape.

        Returns:
            ``(P,)``.

        Raises:
            ValueError: A name is missing or unknown, or a shape differs.
        """
        missing = [name for name in self.names if name not in tensors]
        extra = [name for name in tensors if name not in set(self.names)]
        if missing or extra:
            raise ValueError(
                "tensors must have exactly the operator's names"
                + (f"; missing {_listed(missing)}" if missing else "")
                + (f"; unknown {_listed(extra)}" if extra else "")
            )
        for name, shape in zip(self.names, self.shapes):
            if tensors[name].shape != shape:
                raise ValueError(
                    f"{name} must have shape {tuple(shape)}, got {tuple(tensors[name].shape)}"
                )
        return torch.cat([tensors[name].detach().reshape(-1) for name in self.names])

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Tensors by name, views of one vector.

        Args:
            vector: ``(P,)``.

        Returns:
            A tensor in its parameter's shape for each name.

        Raises:
            ValueError: Wrong length.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"vector must have shape ({self.size},), got {tuple(vector.shape)}")
        return dict(zip(self.names, self.split(vector)))
