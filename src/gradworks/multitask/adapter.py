"""Aggregators of torchjd as they are: by name or as an instance, behind our interface.

PCGrad, CAGrad, MGDA, UPGrad, Nash-MTL, IMTL-G, Aligned-MTL, ConFIG, GradVac and others are not
written anew here; torchjd has them (``pip install gradworks[multitask]``). Our aggregators need no
adapter the other way: ``torchjd.autojac.jac_to_grad`` calls any module that maps a matrix to a
vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.multitask.aggregator import Aggregator, GramianAggregator

__all__ = ["from_torchjd"]

# Attributes of torchjd 0.18.0 that are state but no buffers.
BESIDE = ("_state_key", "_n_steps", "step", "prvs_alpha", "normalization_factor")
# Weightings of the inner products between the gradients of two batches.
TWO_BATCHES = ("MoDo", "SDMGrad")
# What these give in one column depends on that column alone, or on no gradient at all.
COLUMNWISE = ("Sum", "Mean", "Constant", "Random", "GradDrop", "TrimmedMean")


def from_torchjd(name_or_instance: str | Any, **settings: Any) -> Aggregator:
    """Return an aggregator of torchjd behind our interface.

    The result computes what torchjd computes. It adds what our driver can use: most of them ask
    for inner products only, so they work within ``chunk_params`` and on sharded parameters; and a
    stateful one is saved by ``state_dict`` and resumes.

    Args:
        name_or_instance: A name such as ``"PCGrad"``, a class, or an instance. A weighting is
            combined with the rows (``"CRMOGM"`` with the argument ``weighting``).
        **settings: Its arguments, with a name or class.

    Returns:
        A module; ``.inner`` is torchjd's own.

    Raises:
        ImportError: If torchjd, or what the method needs besides, is not installed.
        TypeError: If it is none of torchjd's, or settings are given with an instance.
        ValueError: If the name is unknown (the message lists all), or the method needs gradients of
            two batches a step (MoDo, SDMGrad), which no single Jacobian holds.

    Example:
        >>> import torch
        >>> from gradworks.multitask import from_torchjd
        >>> mgda = from_torchjd("MGDA", max_iters=50)  # doctest: +SKIP
        >>> mgda(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))  # doctest: +SKIP
        tensor([0.5000, 0.5000])

    References:
        torchjd, https://torchjd.org.
    """
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise ImportError(
            "from_torchjd needs torchjd: pip install 'gradworks[multitask]'"
        ) from error
    if isinstance(name_or_instance, str):
        name_or_instance = _named(aggregation, name_or_instance)
    kinds = (aggregation.Aggregator, aggregation.Weighting)
    if isinstance(name_or_instance, type) and issubclass(name_or_instance, kinds):
        name_or_instance = name_or_instance(**settings)
    elif settings:
        raise TypeError(
            f"settings {sorted(settings)} were given with a {type(name_or_instance).__name__}; "
            "they go with a name or a class"
        )
    if not isinstance(name_or_instance, kinds):
        raise TypeError(
            "name_or_instance must be a name, an aggregator or a weighting of torchjd, got "
            f"{type(name_or_instance).__name__}"
        )
    inner = name_or_instance
    if type(inner).__name__.removesuffix("Weighting") in TWO_BATCHES:
        raise ValueError(
            f"{type(inner).__name__} needs the gradients of two independent batches a step, and an "
            "aggregator sees one Jacobian; use it with torchjd.autojac.jac"
        )
    if isinstance(inner, aggregation.Weighting):
        of_gramian = _reads_gramian(aggregation, inner)
        inner = (
            aggregation.GramianWeightedAggregator(inner)
            if of_gramian
            else aggregation.WeightedAggregator(inner)
        )
    if isinstance(inner, aggregation.GramianWeightedAggregator) and not _hooked(inner):
        return _FromGramian(inner)
    return _FromJacobian(inner)


def _named(aggregation: Any, name: str) -> Any:
    """The class of a name."""
    bases = {"Aggregator", "GramianWeightedAggregator", "WeightedAggregator", "Weighting"}
    names = [n for n in aggregation.__all__ if n not in bases]
    known = sorted({n.removesuffix("Weighting") for n in names})
    for found in (name, f"{name}Weighting"):
        if found in names:
            return getattr(aggregation, found)
    raise ValueError(f"name_or_instance must be one of {', '.join(known)}, got {name!r}")


def _reads_gramian(aggregation: Any, weighting: Any) -> bool:
    """Whether a weighting takes inner products, as the aggregator of its name tells."""
    wrapped = getattr(weighting, "weighting", None)  # CR-MOGM smooths another weighting
    if isinstance(wrapped, aggregation.Weighting):
        return _reads_gramian(aggregation, wrapped)
    whole = getattr(aggregation, type(weighting).__name__.removesuffix("Weighting"), None)
    return isinstance(whole, type) and issubclass(whole, aggregation.GramianWeightedAggregator)


def _hooked(module: nn.Module) -> bool:
    """Whether a user's hooks would be passed over by asking for the weights alone."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


class _State(Aggregator):
    """The module of torchjd, and its state in ``state_dict``."""

    inner: Any

    def extra_repr(self) -> str:
        return repr(self.inner)

    def reset(self) -> None:
        """Forget the state, where there is one."""
        for module in [self.inner, *self.inner.modules()]:
            if callable(getattr(module, "reset", None)):
                module.reset()
                return

    def get_extra_state(self) -> dict[str, dict[str, Any]]:
        """Return what torchjd keeps beside its buffers: step counts, and what a state is for."""
        found: dict[str, dict[str, Any]] = {}
        for name, module in self.inner.named_modules():
            kept = {key: vars(module)[key] for key in BESIDE if key in vars(module)}
            if kept:
                found[name] = {
                    key: torch.from_numpy(value.copy()) if hasattr(value, "dtype") else value
                    for key, value in kept.items()
                }
        return found

    def set_extra_state(self, state: dict[str, dict[str, Any]]) -> None:
        """Take what :meth:`get_extra_state` gave."""
        modules = dict(self.inner.named_modules())
        for name, kept in state.items():
            for key, value in kept.items():
                setattr(modules[name], key, value.numpy() if isinstance(value, Tensor) else value)
            # Nash-MTL poses its problem at the first step alone
            pose = getattr(modules[name], "_init_optim_problem", None)
            if pose is not None and kept.get("step", 0) > 0:
                pose()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Make room for buffers that a fresh module does not have yet."""
        for name, module in self.inner.named_modules():
            for key in module._buffers:
                path = f"{prefix}inner.{name}.{key}" if name else f"{prefix}inner.{key}"
                saved = state_dict.get(path)
                module._buffers[key] = None if saved is None else torch.empty_like(saved)
        super()._load_from_state_dict(state_dict, prefix, *args)


class _FromGramian(_State, GramianAggregator):
    """One whose weights depend on the inner products alone."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def weights(self, gramian: Tensor) -> Tensor:
        """Weights of the tasks, ``(tasks,)``."""
        found: Tensor = self.inner.gramian_weighting(gramian)
        return found

    def forward(self, jacobian: Tensor) -> Tensor:
        """Return what torchjd returns, ``(params,)``."""
        self.check(jacobian)
        if self.sharded or jacobian.element_size() < 4:  # no solver knows half precision
            return super().forward(jacobian)
        found: Tensor = self.inner(jacobian)
        return found


class _FromJacobian(_State):
    """One that reads the whole matrix."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def bind(
        self, block_sizes: Sequence[int], reduce: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Refuse shards where they would change the result.

        Args:
            block_sizes: As for any aggregator.
            reduce: As for any aggregator.

        Raises:
            ValueError: If the method needs columns that other processes hold.
        """
        kind = type(self.inner).__name__
        if reduce is not None and kind not in COLUMNWISE:
            raise ValueError(
                f"{kind} reads the whole Jacobian, and each process holds a part of its columns; "
                "take one that needs inner products only, such as PCGrad, MGDA, IMTLG or UPGrad"
            )
        super().bind(block_sizes, reduce)

    def forward(self, jacobian: Tensor) -> Tensor:
        """Return what torchjd returns, ``(params,)``."""
        self.check(jacobian)
        wide = jacobian.float() if jacobian.element_size() < 4 else jacobian
        found: Tensor = self.inner(wide).to(jacobian.dtype)
        return found
