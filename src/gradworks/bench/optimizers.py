"""Optimizers by name, and the search space that each gets when nothing else is said.

A name is a short one (``adamw``), any class of ``torch.optim`` or ``gradworks.optim`` in any case
(``torch.optim.RAdam``, ``radam``), a dotted path to any other class, or ``path.py:Class``. Settings
follow it: ``dctadamw@rank=24``.

Methods for matrices (Muon, Trion, DCTAdamW) act on a model's hidden matrices; what embeds, what
gives the outputs and what is no matrix is AdamW's, as in their papers. ``muon`` is therefore
:class:`~gradworks.bench.muon.MuonWithAdamW`. Any class can ask for the same by an attribute
``rest_of_model``: the settings of the group that holds the rest.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradworks.bench.experiment import Arm, Knob
from gradworks.bench.targets import UnknownTarget, resolve

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

__all__ = [
    "KNOBS",
    "UnknownOptimizer",
    "acts_on",
    "arm",
    "check_settings",
    "hidden_matrices",
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
        rest: Of a method for matrices: settings of the group that holds the rest of a model.
    """

    lr: float | None = None
    weight_decay: float | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    rest: Mapping[str, Any] | None = None


KNOBS = ("lr", "weight_decay", "adamw_lr")  # what can be searched, where an optimizer takes it

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
    # The authors divide 5e-4 by lr, for the decay acts through it.
    "gradworks.optim.adahessian.adahessian.AdaHessian": _Usual(None, 3e-3),
    "gradworks.optim.dct_adamw.dct_adamw.DCTAdamW": _Usual(
        None, 1e-2, {"rank": 0.25}, {"max_dim": 0}
    ),
    "gradworks.optim.dct_adamw.trion.Trion": _Usual(None, 1e-2, {"rank": 0.25}, {"max_dim": 0}),
    "gradworks.optim.aro.optimizer.ARO": _Usual(None, 1e-2, {}, {"algorithm": "adamw"}),
    "gradworks.bench.muon.MuonWithAdamW": _Usual(None, 1e-2),
}
_PLAIN = _Usual(None, 1e-4)
_LABELS = {"MuonWithAdamW": "Muon"}


def known() -> dict[str, type[Optimizer]]:
    """Return the short names: classes of ``torch.optim`` and ``gradworks.optim``, lower case."""
    import torch

    import gradworks.optim
    from gradworks.bench.muon import MuonWithAdamW

    found: dict[str, type[Optimizer]] = {}
    for module in (torch.optim, gradworks.optim):
        for name, value in vars(module).items():
            if (
                inspect.isclass(value)
                and issubclass(value, torch.optim.Optimizer)
                and value is not torch.optim.Optimizer
            ):
                found[name.lower()] = value
    return found | {"muon": MuonWithAdamW}


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


def _given(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the settings of ``name@key=value@key=value``.

    Raises:
        ValueError: If a setting is not of that form.
    """
    name, *parts = text.split("@")
    settings: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not (key.isidentifier() and equals and value):
            raise ValueError(f"optimizer {text!r}: {part!r} must be a setting, such as rank=24")
        try:
            settings[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[key] = value  # a word
    return name, settings


def _usual(cls: Any) -> _Usual:
    return _USUAL.get(f"{cls.__module__}.{getattr(cls, '__qualname__', '')}", _PLAIN)


def arm(name: str, *, is_baseline: bool = False, search: Collection[str] = KNOBS) -> Arm:
    """Return an arm with the usual search space: learning rates and decay, 3 decades each.

    The space is centred on the optimizer's published default; a decay whose default is zero is
    centred on what is customary (1e-2 decoupled, 5e-4 or 1e-4 coupled).

    Args:
        name: As for :func:`resolve_optimizer`, and settings that are not searched:
            ``dctadamw@rank=24``.
        is_baseline: Whether the others are compared with it.
        search: Which of ``KNOBS`` to search; the others stay at the centre of their space.

    Raises:
        UnknownOptimizer: If there is no such optimizer.
        TypeError: If the name is not an optimizer class, or the class needs further settings or
            does not take one that was given.
        ValueError: If a setting is not ``key=value``, or a knob is none.

    Example:
        >>> made = arm("adamw")
        >>> made.method, [knob.name for knob in made.space], made.space[0].default
        ('torch.optim.AdamW', ['lr', 'weight_decay'], 0.001)
    """  # noqa: DOC502
    unknown = sorted(set(search) - set(KNOBS))
    if unknown:
        raise ValueError(f"search must name some of {', '.join(KNOBS)}, got {unknown[0]!r}")
    path, given = _given(name)
    cls = resolve_optimizer(path)
    parameters = _parameters(cls)
    usual = _usual(cls)
    space, fixed = [], {**usual.fixed, **given}
    centres = dict(zip(KNOBS, (usual.lr, usual.weight_decay, None), strict=True))
    for knob, centre in centres.items():
        if knob in given:
            continue
        default = parameters[knob].default if knob in parameters else None
        if centre is None and isinstance(default, int | float) and default > 0:
            centre = float(default)
        if knob in parameters and centre is not None:
            wide = 10**1.5
            if knob in search:
                space.append(Knob(name=knob, low=centre / wide, high=centre * wide, default=centre))
            else:
                fixed[knob] = centre
    check_settings(path, cls, {**fixed, **{knob.name: 0.0 for knob in space}})
    shown = [f"{key.replace('_', ' ')} {value}" for key, value in given.items()]
    return Arm(
        name=name.replace("torch.optim.", "").replace("gradworks.optim.", "").lower(),
        label=", ".join([_LABELS.get(getattr(cls, "__name__", ""), cls.__name__), *shown]),
        method=path if ":" in path or "." in path else _public_path(cls),
        space=tuple(space),
        fixed=fixed,
        is_baseline=is_baseline,
    )


def _public_path(cls: type) -> str:
    """Return the path users write: ``torch.optim.AdamW``, not where the class is defined."""
    if cls.__module__.startswith("gradworks.bench."):
        return f"{cls.__module__}.{cls.__qualname__}"
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
    spared = decay == "weights" and bool(settings.get("weight_decay"))
    rest = _rest_of(made)
    if rest is None and not (spared and any(p.dim() < 2 for p in wanted)):
        return made(wanted, **settings)
    hidden = set(hidden_matrices(model)) if rest is not None else set(wanted)
    # what is special about a group -> its parameters, in the model's order
    parts: dict[tuple[bool, bool], list[Tensor]] = {}
    for p in wanted:
        parts.setdefault((p not in hidden, spared and p.dim() < 2), []).append(p)
    groups = [
        {
            "params": parts[outside, exempt],
            **(rest or {} if outside else {}),
            **({"weight_decay": 0.0} if exempt else {}),
        }
        for outside, exempt in sorted(parts)
    ]
    return made(groups, **settings)


def _rest_of(made: Callable[..., Any]) -> Mapping[str, Any] | None:
    """Return the settings of what is no hidden matrix, None for a method that takes everything."""
    usual = _usual(made).rest
    return usual if usual is not None else getattr(made, "rest_of_model", None)


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """Return the trained matrices of a model, without embeddings and its last linear layer.

    Args:
        model: Layers in the order in which they were registered.
    """
    from torch import nn

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Embedding)]
    outside = {m.weight for m in layers if isinstance(m, nn.Embedding)}
    outside |= {m.weight for m in [m for m in layers if isinstance(m, nn.Linear)][-1:]}
    return [p for p in model.parameters() if p.requires_grad and p.dim() == 2 and p not in outside]


def acts_on(name: str, model: nn.Module) -> float:
    """Return which part of a model's parameters an optimizer steps by its own rule.

    Args:
        name: As for :func:`arm`.
        model: Whose parameters.

    Returns:
        1, or for a method for matrices the share of the hidden matrices.

    Raises:
        UnknownOptimizer: If there is no such optimizer.
    """  # noqa: DOC502
    if _rest_of(resolve_optimizer(_given(name)[0])) is None:
        return 1.0
    whole = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return sum(p.numel() for p in hidden_matrices(model)) / whole if whole else 0.0


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
