"""Optimizers by name, and the search space that each gets when nothing else is said.

A name is a short one (``adamw``), any class of ``torch.optim`` or ``gradworks.optim`` in any case
(``torch.optim.RAdam``, ``radam``), a dotted path to any other class, or ``path.py:Class``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradworks.bench.experiment import Arm, Knob
from gradworks.bench.targets import UnknownTarget, resolve

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = [
    "UnknownOptimizer",
    "arm",
    "check_settings",
    "known",
    "make_optimizer",
    "optimizer_bytes",
    "resolve_optimizer",
]


class UnknownOptimizer(LookupError):
    """No optimizer of that name."""


@dataclass(frozen=True)
class _Usual:
    """What is customary for an optimizer where its own defaults are not.

    Args:
        lr: Centre of the learning rates; None takes the class's default.
        weight_decay: Centre of the weight decays; None leaves the decay alone.
        fixed: Settings beside these.
    """

    lr: float | None = None
    weight_decay: float | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)


_MOMENTUM = {"momentum": 0.9, "nesterov": True}
# Decoupled decays are relative to lr and of the order 1e-2 (torch's AdamW), coupled ones 1e-4.
_USUAL = {
    "torch.optim.sgd.SGD": _Usual(0.1, 5e-4, _MOMENTUM),
    "torch.optim.adam.Adam": _Usual(None, 1e-4),
    "torch.optim.adamw.AdamW": _Usual(None, 1e-2),
    "torch.optim.nadam.NAdam": _Usual(1e-3, 1e-4),
    "torch.optim.radam.RAdam": _Usual(None, 1e-4),
    "gradworks.optim.adamp.adamp.AdamP": _Usual(None, 1e-2),
    "gradworks.optim.adamp.sgdp.SGDP": _Usual(0.1, 5e-4, _MOMENTUM),
}
_PLAIN = _Usual(None, 1e-4)


def known() -> dict[str, type[Optimizer]]:
    """Return the short names: classes of ``torch.optim`` and ``gradworks.optim``, lower case."""
    import torch

    import gradworks.optim

    found: dict[str, type[Optimizer]] = {}
    for module in (torch.optim, gradworks.optim):
        for name, value in vars(module).items():
            if (
                inspect.isclass(value)
                and issubclass(value, torch.optim.Optimizer)
                and value is not torch.optim.Optimizer
            ):
                found[name.lower()] = value
    return found


def resolve_optimizer(name: str) -> type[Optimizer]:
    """Return the class of an optimizer.

    Args:
        name: Short name, dotted path, or ``path.py:Class``.

    Raises:
        UnknownOptimizer: If there is none; the message suggests the nearest.
        TypeError: If the name leads to something that is not an optimizer class.
    """
    import torch

    short = known()
    lower = name.lower().removeprefix("torch.optim.").removeprefix("gradworks.optim.")
    if lower in short:
        return short[lower]
    if "." not in name and ":" not in name:
        near = difflib.get_close_matches(lower, short, n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else "."
        raise UnknownOptimizer(
            f"no optimizer is called {name!r}{hint} Known: {', '.join(sorted(short))}; any other "
            "is a dotted path such as package.module.Class"
        )
    head, _, tail = name.rpartition(".")
    target = name if ":" in name else f"{head}:{tail}"
    try:
        found = resolve(target)
    except UnknownTarget as error:
        raise UnknownOptimizer(f"optimizer {name!r}: {error}") from None
    if not callable(found) or (
        inspect.isclass(found) and not issubclass(found, torch.optim.Optimizer)
    ):
        raise TypeError(f"optimizer {name!r} must be a torch.optim.Optimizer class, got {found!r}")
    return found  # type: ignore[no-any-return]


def _parameters(made: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(made).parameters


def check_settings(name: str, made: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Refuse settings that an optimizer does not take, or that it needs and does not get.

    Args:
        name: As the user gave it, for the message.
        made: The class.
        settings: Keyword arguments.

    Raises:
        TypeError: With the name of the setting and those that are taken.
    """
    taken = _parameters(made)
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    unknown = sorted(set(settings) - set(taken))
    if unknown:
        raise TypeError(
            f"optimizer {name!r} takes no setting {unknown[0]!r}; it takes "
            f"{', '.join(list(taken)[1:])}"
        )
    needed = [
        p.name
        for p in list(taken.values())[1:]
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    missing = [n for n in needed if n not in settings]
    if missing:
        raise TypeError(f"optimizer {name!r} needs a value for {', '.join(missing)}")


def arm(name: str, *, is_baseline: bool = False) -> Arm:
    """Return an arm with the usual search space: ``lr`` and ``weight_decay``, 3 decades each.

    The space is centred on the optimizer's published default; a decay whose default is zero is
    centred on what is customary (1e-2 decoupled, 5e-4 or 1e-4 coupled).

    Args:
        name: As for :func:`resolve_optimizer`.
        is_baseline: Whether the others are compared with it.

    Raises:
        UnknownOptimizer: If there is no such optimizer.
        TypeError: If the name is not an optimizer class, or the class needs further settings.

    Example:
        >>> made = arm("adamw")
        >>> made.method, [knob.name for knob in made.space], made.space[0].default
        ('torch.optim.AdamW', ['lr', 'weight_decay'], 0.001)
    """  # noqa: DOC502
    cls = resolve_optimizer(name)
    parameters = _parameters(cls)
    usual = _USUAL.get(f"{cls.__module__}.{cls.__qualname__}", _PLAIN)
    space = []
    for knob, centre in (("lr", usual.lr), ("weight_decay", usual.weight_decay)):
        default = parameters[knob].default if knob in parameters else None
        if centre is None and isinstance(default, int | float) and default > 0:
            centre = float(default)
        if knob in parameters and centre is not None:
            wide = 10**1.5
            space.append(Knob(name=knob, low=centre / wide, high=centre * wide, default=centre))
    check_settings(name, cls, {**usual.fixed, **{knob.name: 0.0 for knob in space}})
    method = name if ":" in name or "." in name else _public_path(cls)
    return Arm(
        name=name.replace("torch.optim.", "").replace("gradworks.optim.", "").lower(),
        label=getattr(cls, "__name__", name),
        method=method,
        space=tuple(space),
        fixed=dict(usual.fixed),
        is_baseline=is_baseline,
    )


def _public_path(cls: type) -> str:
    """Return the path users write: ``torch.optim.AdamW``, not where the class is defined."""
    head = "gradworks.optim" if cls.__module__.startswith("gradworks.") else "torch.optim"
    return f"{head}.{cls.__name__}"


def make_optimizer(
    name: str, model: nn.Module, settings: Mapping[str, Any], *, decay: str = "weights"
) -> Optimizer:
    """Return an optimizer over a model's parameters.

    Args:
        name: As for :func:`resolve_optimizer`.
        model: Whose parameters.
        settings: Keyword arguments. ``weight_decay`` acts on the same parameters for every
            optimizer.
        decay: ``"weights"``: parameters of two and more dimensions; ``"all"``.

    Raises:
        UnknownOptimizer: If there is no such optimizer.
        TypeError: If it does not take a setting.
    """  # noqa: DOC502
    made = resolve_optimizer(name)
    check_settings(name, made, settings)
    wanted = [p for p in model.parameters() if p.requires_grad]
    groups: list[Any] = list(wanted)
    exempt = [p for p in wanted if p.dim() < 2]
    if decay == "weights" and settings.get("weight_decay") and exempt:
        weights = [p for p in wanted if p.dim() >= 2]
        groups = [{"params": weights}, {"params": exempt, "weight_decay": 0.0}]
    return made(groups, **settings)


def optimizer_bytes(optimizer: Optimizer) -> int:
    """Return the bytes of tensors in an optimizer's state."""
    from torch import Tensor

    def size(value: Any) -> int:
        if isinstance(value, Tensor):
            return value.numel() * value.element_size()
        if isinstance(value, Mapping):
            return sum(size(v) for v in value.values())
        if isinstance(value, list | tuple):
            return sum(size(v) for v in value)
        return 0

    return sum(size(state) for state in optimizer.state.values())
