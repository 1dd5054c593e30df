"""LoLDU: fine-tuning a linear layer through the diagonal of its LDU factors.

"LoLDU: Low-Rank Adaptation via Lower-Diag-Upper Decomposition for Parameter-Efficient
Fine-Tuning", 2024, arXiv:2410.13618.

What differs from the authors' code: the layer equals its base exactly before the first step for
every initial value (theirs only for some), the base weight is never overwritten, the permutation is
a list of row numbers and no trainable matrix, and tiny pivots do not divide.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "LDU",
    "BaseModelMismatchError",
    "LoLDULinear",
    "apply_loldu",
    "ldu",
    "load_loldu_state_dict",
    "loldu_parameters",
    "loldu_state_dict",
]

# A pivot below this share of the largest one is not divided by (our choice).
TINY_PIVOT = 1e-6

Init = Literal["lu", "constant", "uniform", "normal", "ones", "zeros"]
INITS = ("lu", "constant", "uniform", "normal", "ones", "zeros")


class BaseModelMismatchError(RuntimeError):
    """An adapter was trained on another base weight than the one it is loaded onto."""


class LDU(NamedTuple):
    """``W[row_perm] == L @ diag(d) @ U``.

    Attributes:
        row_perm: Row of W for each row of L, ``(out,)``.
        L: Unit lower triangular, ``(out, q)`` with q = min(out, in).
        d: Pivots, ``(q,)``; 1 where the pivot was too small to divide by.
        U: Unit upper triangular, ``(q, in)``, up to the rows of tiny pivots.
    """

    row_perm: Tensor
    L: Tensor
    d: Tensor
    U: Tensor


def ldu(W: Tensor) -> LDU:
    """Factor a matrix into lower triangle, diagonal and upper triangle, with partial pivoting.

    Args:
        W: Finite, floating, ``(out, in)``; half precision is factored in float32.

    Returns:
        The factors, in float32 or float64.

    Raises:
        TypeError: If it is not of a floating dtype.
        ValueError: If it is not 2-D, empty, zero or not finite.

    Example:
        >>> import torch
        >>> from gradworks.layers.loldu import ldu
        >>> W = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
        >>> f = ldu(W)
        >>> torch.allclose(f.L @ torch.diag(f.d) @ f.U, W[f.row_perm])
        True
    """
    if not isinstance(W, Tensor) or not W.is_floating_point():
        found = W.dtype if isinstance(W, Tensor) else type(W).__name__
        raise TypeError(
            f"W must be a floating tensor, got {found}; dequantise an integer weight first"
        )
    if W.dim() != 2 or W.numel() == 0:
        raise ValueError(f"W must be 2-D and not empty, got shape {tuple(W.shape)}")
    W = W.detach().to(torch.promote_types(W.dtype, torch.float32))
    largest = float(W.abs().max())
    if not largest < float("inf"):
        raise ValueError("W has NaN or infinite entries")
    if largest == 0:
        raise ValueError("W is all zero: it has no pivots to train")
    P, L, U = torch.linalg.lu(W)
    pivots = U.diagonal()
    tiny = pivots.abs() < TINY_PIVOT * pivots.abs().max()
    d = torch.where(tiny, torch.ones_like(pivots), pivots)
    return LDU(P.argmax(0), L, d, U / d[:, None])


class LoLDULinear(nn.Module):
    r"""A linear layer of which only ``rank`` numbers are trained.

    The weight is factored once, :math:`W = P L D U`. The triangles stay, the first entries of the
    diagonal become trainable. For many small adapters of one model: 8 numbers a layer, not
    8 (in + out). Truncated LU is no low-rank approximation; the frozen weight keeps the function.

    .. math::
        y = x W^\top + b + \sigma \,
            \bigl( (x B^\top) \odot (z - z_0) \bigr) A^\top, \qquad
        A = P L_{:, :r}, \; B = U_{:r}, \; \sigma = \alpha / r

    Args:
        base: The layer to adapt; kept as ``.base`` with its parameters frozen.
        rank: Trained entries r, at least 1; 8. More than min(out, in) is cut with a warning.
        alpha: Finite; the update is scaled by ``alpha / r``; 1.0 (released ``from_linear``).
        init: Start of ``z``: ``"lu"`` the pivots, their ``"constant"`` mean, ``"uniform"`` or
            ``"normal"`` around it, ``"ones"``, ``"zeros"``.
        residual: ``"exact"``: :math:`z_0` is the initial z, so nothing changes before the first
            step; ``"lu"``: :math:`z_0` is the pivots, as released for ones and zeros.
        generator: Draws ``"uniform"`` and ``"normal"``; None takes torch's.

    Raises:
        TypeError: If ``base`` is no ``nn.Linear``, or its weight not of a floating dtype.
        ValueError: If ``rank`` is below 1, ``alpha`` not finite, a word unknown, or the weight
            zero or not finite.

    Note:
        Trained: r numbers. Frozen: r (out + in) floats, recomputed from the base weight and not
        saved. A step adds r (in + out) multiply-adds a token; after :meth:`merge_` none. No weight
        decay on ``z``: it would pull to 0, not to the base model.

    Example:
        >>> import torch
        >>> from gradworks.layers import LoLDULinear
        >>> base = torch.nn.Linear(16, 4)
        >>> layer = LoLDULinear(base, rank=4)
        >>> x = torch.randn(2, 16)
        >>> (
        ...     torch.equal(layer(x), base(x)),
        ...     [n for n, p in layer.named_parameters() if p.requires_grad],
        ... )
        (True, ['z'])

    References:
        "LoLDU: Low-Rank Adaptation via Lower-Diag-Upper Decomposition for Parameter-Efficient
        Fine-Tuning", 2024, arXiv:2410.13618.
    """

    A: Tensor
    B: Tensor
    z_init: Tensor
    pivot: Tensor
    pivot_norm: Tensor

    def __init__(
        self,
        base: nn.Linear,
        rank: int = 8,
        alpha: float = 1.0,
        *,
        init: Init = "lu",
        residual: Literal["exact", "lu"] = "exact",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be an nn.Linear, got {type(base).__name__}")
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        if not abs(alpha) < float("inf"):
            raise ValueError(f"alpha must be finite, got {alpha}")
        if init not in INITS:
            raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")
        if residual not in ("exact", "lu"):
            raise ValueError(f"residual must be 'exact' or 'lu', got {residual!r}")
        factors = ldu(base.weight)
        q = len(factors.d)
        if rank > q:
            warnings.warn(f"rank {rank} is cut to min(out, in) = {q}", stacklevel=2)
            rank = q
        self.base = base.requires_grad_(False)
        self.rank = rank
        self.alpha = alpha
        self.merged = False
        d = factors.d[:rank].clone()
        A = torch.empty_like(factors.L[:, :rank])
        A[factors.row_perm] = factors.L[:, :rank]  # A = P L
        z = _initial(d, init, generator)
        self.z = nn.Parameter(z)
        self.register_buffer("A", A, persistent=False)
        self.register_buffer("B", factors.U[:rank].clone(), persistent=False)
        self.register_buffer(
            "z_init", (z.detach() if residual == "exact" else d).clone(), persistent=False
        )
        # What tells this factorisation from one of another base weight.
        self.register_buffer("pivot", factors.row_perm[:rank].int(), persistent=False)
        self.register_buffer("pivot_norm", torch.linalg.vector_norm(d), persistent=False)

    @property
    def scaling(self) -> float:
        """Factor sigma = alpha / rank of the update."""
        return self.alpha / self.rank

    def extra_repr(self) -> str:
        """Return rank, alpha and state, as ``print(module)`` shows them."""
        return f"rank={self.rank}, alpha={self.alpha}, merged={self.merged}"

    def delta_weight(self) -> Tensor:
        """Return what is added to the base weight, ``(out, in)``, in the dtype of ``z``."""
        delta: Tensor = (self.A * (self.scaling * (self.z - self.z_init))) @ self.B
        return delta

    def to_dense(self) -> Tensor:
        """Return the weight in use, ``(out, in)``."""
        weight = self.base.weight
        return weight if self.merged else weight + self.delta_weight().to(weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``.

        Args:
            x: In the dtype of the base weight, or under autocast.
        """
        out, inp = self.base.weight.shape
        if self.merged:
            return F.linear(x, self.base.weight, self.base.bias)
        tokens = x.numel() // max(inp, 1)
        trains = torch.is_grad_enabled() and self.z.requires_grad
        if not trains and tokens * (inp + out) > inp * out:
            return F.linear(x, self.to_dense(), self.base.bias)
        scale = (self.scaling * (self.z - self.z_init)).to(self.A.dtype)
        inner = F.linear(x.to(self.B.dtype), self.B)
        y = F.linear(x, self.base.weight, self.base.bias)
        return y + F.linear(inner * scale.to(inner.dtype), self.A).to(y.dtype)

    @torch.no_grad()
    def merge_(self, *, safe: bool = False) -> LoLDULinear:
        """Add the update to the base weight, so that a step costs what the base costs.

        Args:
            safe: Check that the sum is finite first.

        Returns:
            The layer itself.

        Raises:
            ValueError: If ``safe`` and the merged weight is not finite; nothing is changed.
        """
        if not self.merged:
            weight = self.to_dense()
            if safe and not bool(torch.isfinite(weight).all()):
                raise ValueError("the merged weight is not finite; z was left unmerged")
            self.base.weight.copy_(weight)
            self.merged = True
        return self

    @torch.no_grad()
    def unmerge_(self) -> LoLDULinear:
        """Take the update out of the base weight again (to rounding).

        Returns:
            The layer itself.
        """
        if self.merged:
            self.base.weight.sub_(self.delta_weight().to(self.base.weight.dtype))
            self.merged = False
        return self

    @torch.no_grad()
    def to_linear(self) -> nn.Linear:
        """Return an ordinary layer with the merged weight; this one stays as it is."""
        weight, bias = self.to_dense(), self.base.bias
        linear = nn.Linear(
            weight.shape[1],
            weight.shape[0],
            bias=bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
        return linear


def _initial(d: Tensor, init: Init, generator: torch.Generator | None) -> Tensor:
    """Start of z from the pivots (Sec. 3.2 of the released code's options)."""
    if init == "lu":
        return d.clone()
    if init == "ones":
        return torch.ones_like(d)
    if init == "zeros":
        return torch.zeros_like(d)
    mean = float(d.mean())
    if init == "constant":
        return torch.full_like(d, mean)
    if init == "uniform":
        half = abs(mean) / 2
        return torch.empty_like(d).uniform_(-half, half, generator=generator)
    spread = float(d.std()) if len(d) > 1 else 0.0
    return torch.empty_like(d).normal_(mean, spread, generator=generator)


def apply_loldu(
    model: nn.Module,
    *,
    rank: int = 8,
    alpha: float = 1.0,
    target_modules: Iterable[str] | Callable[[str, nn.Module], bool],
    init: Init = "lu",
) -> list[str]:
    """Replace linear layers of a model by adapted ones and freeze all else, in place.

    Args:
        model: Any module; its parameters are frozen but for the new ``z``. Turn a head on again
            with ``model.head.requires_grad_()``.
        rank: As in :class:`LoLDULinear`.
        alpha: As there.
        target_modules: Names, or ends of names (``"query"`` fits ``encoder.0.query``), or a
            function of (name, module).
        init: As there.

    Returns:
        Names of the layers that were replaced.

    Raises:
        TypeError: If a target is no ``nn.Linear``.
        ValueError: If nothing fits, or as for :class:`LoLDULinear`.

    Example:
        >>> import torch
        >>> from gradworks.layers.loldu import apply_loldu, loldu_parameters
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> apply_loldu(model, rank=4, target_modules=["0"])
        ['0']
        >>> sum(p.numel() for p in loldu_parameters(model))
        4
    """
    if callable(target_modules):
        fits = target_modules
    else:
        ends = tuple(target_modules)

        def fits(name: str, module: nn.Module) -> bool:
            return any(name == end or name.endswith(f".{end}") for end in ends)

    chosen = [
        (name, module)
        for name, module in model.named_modules()
        if name and not isinstance(module, LoLDULinear) and fits(name, module)
    ]
    if not chosen:
        raise ValueError(f"target_modules fits no layer of {type(model).__name__}")
    for name, module in chosen:
        if not isinstance(module, nn.Linear):
            raise TypeError(f"target {name!r} is a {type(module).__name__}, not an nn.Linear")
    adapted = [
        (name, LoLDULinear(module, rank, alpha, init=init))
        for name, module in chosen
        if isinstance(module, nn.Linear)
    ]
    model.requires_grad_(False)
    for name, layer in adapted:
        layer.train(model.training)
        layer.z.requires_grad_()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    return [name for name, _ in adapted]


def _layers(model: nn.Module) -> Iterator[tuple[str, LoLDULinear]]:
    """Adapted layers by name."""  # noqa: DOC402
    for name, module in model.named_modules():
        if isinstance(module, LoLDULinear):
            yield name, module


def loldu_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the trained vectors of all adapted layers, for an optimizer without weight decay.

    Args:
        model: A model with adapted layers.
    """
    return [layer.z for _, layer in _layers(model)]


def loldu_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return what an adapter file holds: ``z`` and the fingerprint of its base weight, by layer.

    Args:
        model: A model with adapted layers.
    """
    state = {}
    for name, layer in _layers(model):
        dot = f"{name}." if name else ""
        state[f"{dot}loldu_z"] = layer.z.detach().clone()
        state[f"{dot}loldu_pivot"] = layer.pivot.clone()
        state[f"{dot}loldu_norm"] = layer.pivot_norm.clone()
    return state


@torch.no_grad()
def load_loldu_state_dict(
    model: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True
) -> None:
    """Load an adapter onto a model that was adapted in the same way.

    Args:
        model: A model with adapted layers, none of them merged.
        state: From :func:`loldu_state_dict`.
        strict: False skips the comparison of base weights.

    Raises:
        BaseModelMismatchError: If a layer's base weight was factored differently: the numbers
            would mean something else there.
        KeyError: If a layer has no entry.
        RuntimeError: If a layer is merged.
        ValueError: If the ranks differ.
    """  # noqa: DOC502
    for name, layer in _layers(model):
        dot = f"{name}." if name else ""
        z = state[f"{dot}loldu_z"]
        if layer.merged:
            raise RuntimeError(f"layer {name!r} is merged; call unmerge_() before loading")
        if z.shape != layer.z.shape:
            raise ValueError(f"layer {name!r} has rank {layer.rank}, the adapter {len(z)}")
        if strict:
            same = torch.equal(state[f"{dot}loldu_pivot"].to(layer.pivot), layer.pivot)
            norm = state[f"{dot}loldu_norm"].to(layer.pivot_norm)
            if not same or not torch.allclose(norm, layer.pivot_norm, rtol=1e-3, atol=0):
                raise BaseModelMismatchError(
                    f"layer {name!r} has another base weight than the adapter was trained on "
                    "(other pivots); load it onto that base, or pass strict=False"
                )
    for name, layer in _layers(model):
        layer.z.copy_(state[f"{name}.loldu_z" if name else "loldu_z"])
