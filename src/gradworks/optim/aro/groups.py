"""Parameter groups of a transformer: which dimension of each weight is the residual stream's."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["transformer_groups"]


def transformer_groups(
    model: nn.Module, *, d_model: int | None = None, full_model: bool = False, **defaults: Any
) -> list[dict[str, Any]]:
    """Groups for :class:`~gradworks.optim.ARO` that rotate the residual stream of a transformer.

    By shapes and layers, never by names. The dimension that is ``d_model`` is rotated; where that
    would be the larger one (keys and values of grouped attention), the smaller. Of a module's
    square linear layers the last one registered is taken for the output of its attention, whose
    rows are rotated; queries, keys and values are transposed.

    Args:
        model: Embeddings, linear layers and whatever else; frozen parameters are left out.
        d_model: Width of the residual stream; None: that of the first ``nn.Embedding``.
        full_model: Rotate embeddings and the head, too; False gives them to AdamW. The head is the
            last ``nn.Linear`` if its outputs are as many as an embedding has entries.
        **defaults: Settings of all groups.

    Returns:
        Up to four groups: weights to be transposed, weights as they are, other matrices, and what
        is AdamW's. Empty ones are left out.

    Raises:
        ValueError: If there is no embedding and ``d_model`` is None, or it is below 1.

    Example:
        >>> from torch import nn
        >>> from gradworks.optim.aro import transformer_groups
        >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 16), nn.Linear(16, 4))
        >>> [
        ...     (len(g["params"]), g.get("orientation", g.get("algorithm")))
        ...     for g in transformer_groups(model)
        ... ]
        [(1, 'columns'), (1, 'rows'), (3, 'adamw')]
    """
    embeddings = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    if d_model is None:
        if not embeddings:
            raise ValueError("the model has no nn.Embedding to take d_model from; give d_model")
        d_model = embeddings[0].embedding_dim
    if d_model < 1:
        raise ValueError(f"d_model must be at least 1, got {d_model}")
    ends = _ends(model, embeddings)
    outputs = {id(weight) for weight in _outputs(model, d_model)}
    sorted_: dict[str, list[Tensor]] = {"columns": [], "rows": [], "auto": [], "adamw": []}
    for param in model.parameters():
        if not param.requires_grad:
            continue
        if param.ndim < 2 or (id(param) in ends and not full_model):
            sorted_["adamw"].append(param)
        else:
            sorted_[_orientation(param, d_model, id(param) in outputs)].append(param)
    groups = []
    for name, params in sorted_.items():
        if params:
            own = {"algorithm": name} if name == "adamw" else {"orientation": name}
            groups.append({"params": params, **defaults, **own})
    return groups


def _orientation(param: Tensor, d_model: int, output: bool) -> str:
    """Rotate the dimension of the residual stream, unless it is the larger one."""
    if param.ndim != 2:
        return "auto"
    rows, columns = param.shape
    if rows == columns == d_model:
        return "rows" if output else "columns"
    if columns == d_model and d_model <= rows:
        return "columns"
    return "rows" if rows == d_model and d_model <= columns else "auto"


def _ends(model: nn.Module, embeddings: list[nn.Embedding]) -> set[int]:
    """Embeddings and the head."""
    found = {id(module.weight) for module in embeddings}
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if linear and linear[-1].out_features in {m.num_embeddings for m in embeddings}:
        found.add(id(linear[-1].weight))
    return found


def _outputs(model: nn.Module, d_model: int) -> list[Tensor]:
    """Square weights that write to the residual stream: the last of each module."""
    found: list[Tensor] = []
    for module in model.modules():
        square = [
            child.weight
            for child in module.children()
            if isinstance(child, nn.Linear) and child.weight.shape == (d_model, d_model)
        ]
        if square:
            found.append(square[-1])
    return found
