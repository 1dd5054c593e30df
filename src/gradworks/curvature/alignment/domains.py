"""What every function here is given, checked: features, logits and labels of one or more domains.

Shapes are always checked. Values (labels in range, nothing infinite) are looked at where looking
does not make the host wait: on a CPU, or anywhere with ``validate=True``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Domains",
    "at_least_two",
    "check_domain",
    "check_lists",
    "check_outputs",
    "domain_losses",
    "full_precision",
    "gather",
    "mean_cross_entropy",
]


@dataclass(frozen=True)
class Domains:
    """Rows of all domains below one another.

    Attributes:
        features: ``(N, d)``.
        logits: ``(N, C)``; ``(N, 1)`` for one logit.
        probabilities: Of the classes, ``(N, C)``; of class 1 for one logit.
        residual: Probabilities minus labels, ``(N, C)``.
        sizes: Rows of each domain.
        binary: One logit and a sigmoid, rather than a softmax.
    """

    features: Tensor
    logits: Tensor
    probabilities: Tensor
    residual: Tensor
    sizes: tuple[int, ...]
    binary: bool


def _columns(logits: Tensor) -> Tensor:
    """One-dimensional logits are one column."""
    return logits[:, None] if logits.dim() == 1 else logits


def check_domain(
    features: object,
    logits: object,
    targets: object,
    *,
    where: str = "",
    allow_empty: bool = False,
    validate: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One domain: tensors of matching rows.

    Args:
        features: ``(n, d)``.
        logits: ``(n, C)``, ``(n, 1)`` or ``(n,)``.
        targets: Labels ``(n,)``; for one logit also ``(n, 1)``.
        where: Put behind the names in messages, e.g. ``"[1]"``.
        allow_empty: Whether no rows are fine.
        validate: Look at values: always, never, or (None) on a CPU.

    Returns:
        Features, logits with two dimensions, labels with one.

    Raises:
        TypeError: Something is no tensor, or labels are not integers.
        ValueError: Shapes, labels or values do not fit.
    """
    given = {"features": features, "logits": logits, "targets": targets}
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}{where} must be a torch.Tensor, got {type(value).__name__}")
    z, a, y = (value for value in given.values() if isinstance(value, Tensor))
    for name, value in (("features", z), ("logits", a)):
        if not value.is_floating_point():
            raise TypeError(f"{name}{where} must be real floating point, got {value.dtype}")
    if z.dim() != 2 or z.shape[1] == 0:
        raise ValueError(
            f"features{where} must have shape (rows, features), got {tuple(z.shape)}; flatten them"
        )
    if a.dim() not in {1, 2} or (a.dim() == 2 and a.shape[1] == 0):
        raise ValueError(f"logits{where} must have shape (rows, classes), got {tuple(a.shape)}")
    a = _columns(a)
    binary = a.shape[1] == 1
    if binary and y.dim() == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dim() != 1:
        raise ValueError(f"targets{where} must have shape (rows,), got {tuple(y.shape)}")
    if not len(z) == len(a) == len(y):
        raise ValueError(
            f"features{where}, logits and targets must have the same number of rows, got "
            f"{len(z)}, {len(a)} and {len(y)}"
        )
    if len(z) == 0 and not allow_empty:
        raise ValueError(f"features{where} is an empty domain; leave it out")
    if not z.device == a.device == y.device:
        raise ValueError(
            f"features{where}, logits and targets must be on one device, got {z.device}, "
            f"{a.device} and {y.device}"
        )
    if y.is_complex() or (y.is_floating_point() and not binary):
        raise TypeError(f"targets{where} must be integer labels, got {y.dtype}")
    if len(z) and (validate or (validate is None and z.device.type == "cpu")):
        _check_values(z, a, y, where)
    return z, a, y


def _check_values(z: Tensor, a: Tensor, y: Tensor, where: str) -> None:
    """Labels in range, everything finite."""
    for name, value in (("features", z), ("logits", a)):
        # The sum is one pass; only if it is not finite is it worth looking closer.
        if not bool(value.detach().sum().isfinite()) and not bool(value.detach().isfinite().all()):
            raise ValueError(f"{name}{where} has NaN or infinite entries")
    top = max(a.shape[1] - 1, 1)
    low, high = (float(v) for v in y.to(torch.float64).aminmax())
    if not 0 <= low <= high <= top:
        found = low if not low >= 0 else high
        raise ValueError(f"targets{where} must be labels in 0..{top}, got {found:g}")


def _check_list(name: str, value: object) -> None:
    """A list, not a tensor that could be cut into one."""
    if isinstance(value, Tensor) or not isinstance(value, Sequence):
        raise TypeError(
            f"{name} must be a list with one tensor for each domain, got {type(value).__name__}"
        )


def check_lists(
    features: Sequence[Tensor],
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    allow_empty: bool = False,
    validate: bool | None = None,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """At least two domains that agree in features and classes.

    Args:
        features: One tensor a domain.
        logits: One tensor a domain.
        targets: One tensor a domain.
        allow_empty: Whether a domain may have no rows here.
        validate: As for :func:`check_domain`.

    Returns:
        Three lists as :func:`check_domain` returns them.

    Raises:
        TypeError: A list is a tensor, or as :func:`check_domain`.
        ValueError: Fewer than two domains, lists of different length, domains that do not agree,
            or as :func:`check_domain`.
    """  # noqa: DOC502
    for name, value in (("features", features), ("logits", logits), ("targets", targets)):
        _check_list(name, value)
    if not len(features) == len(logits) == len(targets):
        raise ValueError(
            "features, logits and targets must have one entry for each domain, got "
            f"{len(features)}, {len(logits)} and {len(targets)}"
        )
    at_least_two(len(features))
    checked = [
        check_domain(z, a, y, where=f"[{i}]", allow_empty=allow_empty, validate=validate)
        for i, (z, a, y) in enumerate(zip(features, logits, targets))
    ]
    zs, as_, ys = (list(column) for column in zip(*checked))
    for name, values in (("features", zs), ("logits", as_)):
        widths = [v.shape[1] for v in values]
        if len(set(widths)) > 1:
            raise ValueError(f"{name} must have the same width in all domains, got {widths}")
    return zs, as_, ys


def check_outputs(
    logits: Sequence[Tensor], targets: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """The checks of :func:`check_lists` where there are no features."""
    _check_list("logits", logits)
    # The logits stand in for features.
    stand_in = [_columns(a) if isinstance(a, Tensor) else a for a in logits]
    _, checked, labels = check_lists(stand_in, logits, targets)
    return checked, labels


def at_least_two(count: int) -> None:
    """One domain has nothing to agree with."""
    if count < 2:
        raise ValueError(f"at least two domains are needed, got {count}")


def full_precision(*tensors: Tensor) -> torch.dtype:
    """The widest type, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def gather(
    features: Sequence[Tensor], logits: Sequence[Tensor], targets: Sequence[Tensor]
) -> Domains:
    """Checked domains below one another, in float32 at least.

    Args:
        features: From :func:`check_lists`.
        logits: From :func:`check_lists`.
        targets: From :func:`check_lists`.

    Returns:
        The rows.
    """
    sizes = tuple(len(z) for z in features)
    z, a, y = (t[0] if len(t) == 1 else torch.cat(list(t)) for t in (features, logits, targets))
    dtype = full_precision(z, a)
    z, a = z.to(dtype), a.to(dtype)
    binary = a.shape[1] == 1
    if binary:
        p = torch.sigmoid(a)
        residual = p - y[:, None].to(dtype)
    else:
        p = torch.softmax(a, 1)
        ones = p.new_ones(len(p), 1)
        residual = p.scatter_add(1, y[:, None].long(), -ones)
    return Domains(z, a, p, residual, sizes, binary)


def domain_losses(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean cross-entropy of each domain.

    Args:
        logits: ``(n_e, C)`` for each domain; one column or none for two classes by one logit.
        targets: ``(n_e,)`` for each domain.

    Returns:
        ``(domains,)``; their mean is what plain training minimises, whatever the domains' sizes.

    Raises:
        ValueError: As for :class:`~gradworks.curvature.alignment.HGPAlignment`.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import domain_losses
        >>> labels = [torch.tensor([0, 1, 1]), torch.tensor([1])]
        >>> domain_losses([torch.zeros(3, 2), torch.zeros(1, 2)], labels)
        tensor([0.6931, 0.6931])
    """  # noqa: DOC502
    checked, labels = check_outputs(logits, targets)
    return torch.stack([mean_cross_entropy(a, y) for a, y in zip(checked, labels)])


def mean_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Of a softmax, or of a sigmoid where there is one column; in float32 at least."""
    a = logits.to(full_precision(logits))
    if a.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(a[:, 0], targets.to(a.dtype))
    return F.cross_entropy(a, targets.long())
