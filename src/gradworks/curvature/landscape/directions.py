"""Where to look: random axes, eigenvectors, an optimizer's moments, the path of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradworks.curvature.operators import HessianOperator
from gradworks.curvature.operators.layout import Selection, select_parameters
from gradworks.curvature.operators.model import LossFn, Method, check_choice
from gradworks.curvature.operators.surroundings import Mode
from gradworks.curvature.operators.twice import unwrapped
from gradworks.curvature.probes import check_count
from gradworks.curvature.ritz import eigsh

__all__ = [
    "Direction",
    "EigenDirections",
    "adam_directions",
    "hessian_directions",
    "random_directions",
    "trajectory_directions",
]

Direction = Mapping[str, Tensor]

# Accuracy of axes: an eigenvector that is 1e-3 off draws the same picture.
_AXES_TOL = 1e-3
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class EigenDirections(list[dict[str, Tensor]]):
    """Eigenvectors as directions, with what is known of them.

    Attributes:
        values: Eigenvalues of the directions, ``(k,)``.
        residuals: ``|H v - lambda v|``, ``(k,)``.
        matvecs: Hessian products used.
    """

    def __init__(
        self,
        directions: Sequence[dict[str, Tensor]],
        values: Tensor,
        residuals: Tensor,
        matvecs: int,
    ) -> None:
        super().__init__(directions)
        self.values = values
        self.residuals = residuals
        self.matvecs = matvecs


def dot(a: Direction, b: Direction) -> Tensor:
    """Inner product of two directions, accumulated in float64."""
    return torch.stack([(a[name].double() * b[name].double()).sum() for name in a]).sum()


def check_model(model: object) -> nn.Module:
    """The module itself, out of data-parallel and compiled wrappers."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return unwrapped(model)


def _zeros_elsewhere(model: nn.Module, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All trainable parameters' names, zeros where the direction does not move."""
    every = select_parameters(model, None)
    return {n: given[n] if n in given else torch.zeros_like(p.detach()) for n, p in every.items()}


def random_directions(
    model: nn.Module,
    k: int = 2,
    *,
    distribution: Literal["gaussian", "uniform"] = "gaussian",
    orthogonal: bool = True,
    params: Selection = None,
    generator: torch.Generator | None = None,
) -> list[dict[str, Tensor]]:
    r"""Random directions shaped like the parameters.

    With ``orthogonal`` each is freed of its projections on those before it,
    :math:`d_2 \leftarrow d_2 - \frac{d_1 \cdot d_2}{d_1 \cdot d_1} d_1`; lengths are not touched.

    Args:
        model: The model.
        k: How many. Default 2.
        distribution: ``"gaussian"`` (default), or ``"uniform"`` on [0, 1) as the authors' code
            draws: all entries positive, so that the axes lean to one orthant.
        orthogonal: Whether they are made orthogonal to each other.
        params: Names, a glob pattern or a predicate: entries of other parameters are zero.
        generator: Source; ``None`` for a fresh one with seed 0.

    Returns:
        ``k`` directions by parameter name.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: ``k`` below 1 or, if ``orthogonal``, above the number of selected entries; an
            unknown distribution, or nothing selected.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import random_directions
        >>> a, b = random_directions(torch.nn.Linear(3, 2))
        >>> sorted(a), abs(float(sum((a[n] * b[n]).sum() for n in a))) < 1e-5
        (['bias', 'weight'], True)
    """  # noqa: DOC502
    model = check_model(model)
    check_count("k", k)
    check_choice("distribution", distribution, ("gaussian", "uniform"))
    chosen = select_parameters(model, params)
    room = sum(p.numel() for p in chosen.values())
    if orthogonal and k > room:
        raise ValueError(f"the parameters have at most {room} orthogonal directions, got k={k}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    draw = torch.randn if distribution == "gaussian" else torch.rand
    made: list[dict[str, Tensor]] = []
    for _ in range(k):
        new: dict[str, Tensor] = {}
        for name, p in chosen.items():
            wide = p.dtype if p.dtype in {torch.float32, torch.float64} else torch.float32
            z = draw(p.shape, generator=generator, dtype=wide, device=generator.device)
            new[name] = z.to(p.device, p.dtype)
        for old in made if orthogonal else []:
            share = dot(old, new) / dot(old, old)
            new = {name: z - share.to(z.dtype) * old[name] for name, z in new.items()}
        made.append(new)
    return [_zeros_elsewhere(model, d) for d in made]


def hessian_directions(
    model: nn.Module,
    loss_fn: LossFn,
    data: Any,
    *,
    which: Literal["LA", "SA", "LM", "BE", "top_bottom"] = "LA",
    k: int = 2,
    indices: Sequence[int] | None = None,
    params: Selection = None,
    mode: Mode = "eval",
    microbatch_size: int | None = None,
    method: Method = "double_backward",
    **lanczos: Any,
) -> EigenDirections:
    """Unit eigenvectors of the Hessian: the axes along which the surface bends most.

    They follow the curvature that is there, so that a plane through them is less at the mercy of
    scalings that leave the function unchanged.

    Args:
        model: The model.
        loss_fn: ``(output, target) -> scalar``, a mean over the batch.
        data: One ``(inputs, targets)`` tuple or a re-iterable of them.
        which: ``"LA"`` largest (default), ``"LM"`` largest in magnitude (the authors' choice),
            ``"SA"`` smallest, ``"BE"`` both ends in turn, ``"top_bottom"`` the largest and the
            smallest.
        k: How many. Default 2.
        indices: Which of them in the order of ``which``, e.g. ``(0, 3)``; ``k`` then does not
            count.
        params: Parameters that move; entries of others are zero.
        mode: Mode of the model for the products.
        microbatch_size: As for :class:`~gradworks.curvature.operators.HessianOperator`.
        method: As there; ``"finite_difference"`` for operations without a second derivative.
        **lanczos: For :func:`~gradworks.curvature.lanczos.eigsh`: ``tol`` (1e-3 here),
            ``max_steps``, ``start``, ``generator``, ``basis_device``, ``progress``.

    Returns:
        A list of directions with ``values``, ``residuals`` and ``matvecs``.

    Raises:
        FloatingPointError: A product is not finite.
        TypeError: A model, loss or data of a wrong type.
        ValueError: An unknown ``which``, ``k`` out of range, or indices that are negative or
            repeated.

    Warns:
        RuntimeWarning: Not converged.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import hessian_directions
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> data = (torch.diag(torch.tensor([3.0, 1.0])), torch.zeros(2, 1))
        >>> a, b = hessian_directions(model, torch.nn.functional.mse_loss, data)
        >>> a["weight"].abs().round(decimals=3).tolist()
        [[1.0, 0.0]]
    """  # noqa: DOC502
    model = check_model(model)
    check_choice("which", which, ("LA", "SA", "LM", "BE", "top_bottom"))
    if which == "top_bottom":
        if indices is not None or k != 2:
            raise ValueError(f"which='top_bottom' gives two directions, got k={k}, {indices=}")
        which = "BE"
    if indices is not None:
        wrong = any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in indices)
        if wrong or len(indices) == 0 or len(set(indices)) != len(indices):
            raise ValueError(f"indices must be different integers of at least 0, got {indices!r}")
        k = max(indices) + 1
    options = {"tol": _AXES_TOL, **lanczos}
    with HessianOperator(
        model,
        loss_fn,
        data,
        params=params,
        mode=mode,
        microbatch_size=microbatch_size,
        method=method,
    ) as hessian:
        pairs = eigsh(hessian, k, which=which, **options)
        pick = list(range(k)) if indices is None else list(indices)
        columns = [hessian.unflatten(pairs.vectors[:, i].to(hessian.dtype)) for i in pick]
    return EigenDirections(
        [
            _zeros_elsewhere(model, {name: t.detach().clone() for name, t in column.items()})
            for column in columns
        ],
        pairs.values[pick],
        pairs.residuals[pick],
        pairs.matvecs,
    )


def adam_directions(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[dict[str, Tensor]]:
    """First and second moments of an Adam-like optimizer, as directions.

    Args:
        optimizer: Whose state has ``exp_avg`` and ``exp_avg_sq``.
        model: The model it trains.

    Returns:
        First and second moment by parameter name; zeros for parameters without a state.

    Raises:
        TypeError: Not an optimizer, or not a module.
        ValueError: No parameter of the model has both moments.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import adam_directions
        >>> model = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
        >>> model(torch.ones(1, 1)).sum().backward()
        >>> optimizer.step()
        >>> first, second = adam_directions(optimizer, model)
        >>> round(first["bias"].item(), 4), round(second["bias"].item(), 4)
        (0.1, 0.01)
    """
    model = check_model(model)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    first: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    for name, p in select_parameters(model, None).items():
        state = optimizer.state.get(p, {})
        if isinstance(state.get("exp_avg"), Tensor) and isinstance(state.get("exp_avg_sq"), Tensor):
            first[name] = state["exp_avg"].detach().clone().to(p.dtype).view(p.shape)
            second[name] = state["exp_avg_sq"].detach().clone().to(p.dtype).view(p.shape)
    if not first:
        raise ValueError(
            f"{type(optimizer).__name__} has no moments exp_avg and exp_avg_sq for this model: "
            "take at least one step of an Adam-like optimizer"
        )
    return [_zeros_elsewhere(model, first), _zeros_elsewhere(model, second)]


def trajectory_directions(
    checkpoints: Sequence[Mapping[str, Tensor] | nn.Module],
    *,
    k: int = 2,
    model: nn.Module | None = None,
) -> list[dict[str, Tensor]]:
    """Principal directions of the way that training took, as seen from its end.

    Args:
        checkpoints: State dicts or models in the order of time, the last one the centre.
        k: How many. Default 2.
        model: Names its trainable parameters as those to use; without it all floating-point
            entries but batch-norm statistics.

    Returns:
        ``k`` orthonormal directions, the one with most of the way first.

    Raises:
        TypeError: A checkpoint that is neither.
        ValueError: Fewer than ``k + 1`` checkpoints, ones of different keys or shapes, or a way
            that spans fewer than ``k`` directions.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import trajectory_directions
        >>> way = [{"w": torch.tensor([x, y])} for x, y in ((4.0, 0.0), (2.0, 1.0), (0.0, 0.0))]
        >>> a, b = trajectory_directions(way)
        >>> a["w"].abs().argmax().item()
        0
    """
    check_count("k", k)
    states: list[dict[str, Tensor]] = []
    wanted = None if model is None else set(select_parameters(check_model(model), None))
    for i, one in enumerate(checkpoints):
        found: object = (
            dict(unwrapped(one).named_parameters()) if isinstance(one, nn.Module) else one
        )
        if not isinstance(found, Mapping):
            raise TypeError(
                f"checkpoint {i} must be a state dict or a module, got {type(one).__name__}"
            )
        states.append(
            {
                name: t.detach()
                for name, t in found.items()
                if isinstance(t, Tensor)
                and t.is_floating_point()
                and (not name.endswith(_STATISTICS) if wanted is None else name in wanted)
            }
        )
    if len(states) < k + 1:
        raise ValueError(f"checkpoints must be at least {k + 1} for k={k}, got {len(states)}")
    last = states[-1]
    for i, state in enumerate(states):
        if not last or {n: t.shape for n, t in state.items()} != {
            n: t.shape for n, t in last.items()
        }:
            raise ValueError(f"checkpoint {i} has other parameters than the last one")
    # Through the Gram matrix of the differences: T x T instead of P x P.
    steps = [{n: s[n].double() - last[n].double() for n in last} for s in states[:-1]]
    gram = torch.stack([torch.stack([dot(a, b) for b in steps]) for a in steps])
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0)[:k], vectors.flip(1)[:, :k]
    if not bool(values[-1] > 1e-12 * values[0].clamp_min(torch.finfo(torch.float64).tiny)):
        raise ValueError(f"checkpoints span fewer than {k} directions; add others in between")
    weights = (vectors / values.sqrt()).T.tolist()
    return [
        {
            n: sum((w * s[n] for w, s in zip(row, steps)), torch.zeros_like(steps[0][n])).to(
                last[n].dtype
            )
            for n in last
        }
        for row in weights
    ]
