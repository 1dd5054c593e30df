"""Any head and any loss, by differentiating the gradients of its parameters once more.

The closed form covers linear heads under cross-entropy; this covers the rest (a multi-layer head, a
convolution, adapters, another loss) at the price of a second and third derivative. A product is
taken backwards, as the Hessian is symmetric: losses without forward-mode rules work too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gradworks.curvature.alignment.domains import full_precision

__all__ = ["AutogradHead", "head_parameters"]


def head_parameters(head: nn.Module) -> list[nn.Parameter]:
    """What is aligned: the head's parameters that are trained.

    Args:
        head: The module behind the features.

    Returns:
        In the order of ``named_parameters``.

    Raises:
        ValueError: There are none.
    """
    parameters = [p for p in head.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("head has no parameter that requires a gradient")
    return parameters


class AutogradHead:
    """Gradients and products of all domains by automatic differentiation.

    Args:
        head: The module whose parameters are aligned.
        loss_fn: ``(output, target) -> scalar``, the mean over the rows.
        logits: The head's output for each domain, with its graph.
        targets: Labels of each domain.

    Raises:
        ValueError: A loss is no scalar, or does not depend on the head.
    """

    def __init__(
        self,
        head: nn.Module,
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        logits: Sequence[Tensor],
        targets: Sequence[Tensor],
    ) -> None:
        self.parameters = head_parameters(head)
        self.size = sum(p.numel() for p in self.parameters)
        self._gradients: list[Tensor] = []
        for i, (a, y) in enumerate(zip(logits, targets)):
            loss = loss_fn(a.to(full_precision(a)), y)
            if not isinstance(loss, Tensor) or loss.dim() != 0:
                shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                raise ValueError(f"loss_fn must return a scalar, got {shape}")
            if not loss.requires_grad:
                raise ValueError(
                    f"the loss of domain {i} has no graph; pass logits=None to let the head "
                    "compute them"
                )
            self._gradients.append(self._derivative(loss, None, create_graph=True))
        if not any(g.requires_grad for g in self._gradients):
            raise ValueError(
                "the loss does not depend on the head's parameters; is it this head's?"
            )

    def _derivative(self, value: Tensor, along: Tensor | None, *, create_graph: bool) -> Tensor:
        """One flat derivative in the head's parameters; zeros where nothing depends on them."""
        if not value.requires_grad:
            return torch.zeros(self.size, dtype=value.dtype, device=value.device)
        found = torch.autograd.grad(
            value,
            self.parameters,
            along,
            create_graph=create_graph,
            retain_graph=True,
            allow_unused=True,
        )
        pieces = [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for g, p in zip(found, self.parameters)
        ]
        return torch.cat(pieces)

    def gradients(self) -> Tensor:
        """Gradient of every domain's loss, ``(domains, m)``."""
        return torch.stack(self._gradients)

    def products(self, vectors: Tensor) -> Tensor:
        """Hessians times vectors ``(domains, K, m)`` or ``(1, K, m)``, in the full shape."""
        create_graph = torch.is_grad_enabled()
        each = vectors.expand(len(self._gradients), -1, -1)
        return torch.stack(
            [
                torch.stack([self._derivative(g, v, create_graph=create_graph) for v in block])
                for g, block in zip(self._gradients, each)
            ]
        )

    def diagonals(self) -> Tensor:
        """Diagonals by m products a domain: exact, for small heads only."""
        unit = torch.eye(
            self.size, dtype=self._gradients[0].dtype, device=self._gradients[0].device
        )
        return self.products(unit[None]).diagonal(dim1=1, dim2=2)
