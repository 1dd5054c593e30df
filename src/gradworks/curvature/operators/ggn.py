"""The generalised Gauss-Newton matrix, by products in the space of the outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradworks.curvature.operators.batches import Microbatch
from gradworks.curvature.operators.model import ModelOperator
from gradworks.curvature.operators.surroundings import linearized
from gradworks.curvature.operators.twice import look_for_breaks, say_what_is_missing

__all__ = ["GGNOperator"]

OutputProduct = Callable[[Tensor], Tensor]


@dataclass
class _Graph:
    """Of one microbatch: outputs over parameters, their pull-back over a dummy, and the middle."""

    output: Tensor
    dummy: Tensor
    pullback: list[Tensor | None]
    middle: OutputProduct


class GGNOperator(ModelOperator):
    r"""The generalised Gauss-Newton matrix of a model's loss, multiplied without being formed.

    The Hessian without the second derivatives of the model: positive semi-definite for losses that
    are convex in the outputs, of rank at most (examples x outputs). For natural-gradient and
    Levenberg-Marquardt methods, and to split a Hessian into :math:`H = G + R`.

    .. math:: G = \sum_b \frac{n_b}{N}\, J_b^\top A_b J_b

    with :math:`J_b` the Jacobian of the batch's outputs (``model``) and :math:`A_b` the Hessian of
    ``loss_fn`` in them.

    Args:
        model: As for :class:`HessianOperator`; it must return one tensor.
        loss_fn: As there.
        data: As there.
        params: As there.
        method: ``"double_backward"`` (default) takes :math:`Jv` as the derivative of the
            pull-back :math:`J^\top u` by :math:`u`, on a kept graph; ``"forward_over_reverse"``
            takes it from dual numbers (``torch.func.jvp``); ``"linearize"`` from a traced
            linearisation; ``"finite_difference"`` from two forward passes.
        mode: As there.
        microbatch_size: As there.
        reduction: As there.
        cache: As there.
        cache_bytes: As there.
        process_group: As there.
        check: As there.

    Raises:
        TypeError: As there; in a product, a model that does not return a tensor.
        ValueError: As there.

    Example:
        >>> import torch
        >>> from gradworks.curvature.operators import GGNOperator
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> op = GGNOperator(model, torch.nn.functional.mse_loss, (torch.eye(2), torch.ones(2, 1)))
        >>> op.to_dense()
        tensor([[1., 0.],
                [0., 1.]])

    References:
        Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent",
        2002.
    """

    def apply(self, v: Tensor) -> Tensor:
        """Multiply one vector, unchecked.

        Args:
            v: ``(P,)``, of ``dtype``.

        Returns:
            ``G v``, ``(P,)``.
        """
        kept = self._graphs() if self._method in {"double_backward", "linearize"} else None
        if kept is None:
            return self._weighted_sum(lambda part: self._term(part, v))
        total = torch.zeros_like(v)
        with torch.enable_grad():
            for weight, graph in kept:
                total.add_(self._through(graph, v, keep=True), alpha=weight)
        return self._all_reduce(total * self._scale())

    def _through(self, graph: Any, v: Tensor, *, keep: bool) -> Tensor:
        """J^T A J v on recorded graphs."""
        vectors = self._layout.split(v)
        if self._method == "linearize":
            output, forward, middle, states = graph
            with self._random_fork():
                self._restore(states)  # the trace draws dropout masks again
                pushed = forward(*vectors)
        else:
            output, middle = graph.output, graph.middle
            pairs = [
                (g, u) for g, u in zip(graph.pullback, vectors) if g is not None and g.requires_grad
            ]
            if not pairs:
                return torch.zeros_like(v)
            with say_what_is_missing():
                (pushed,) = torch.autograd.grad(
                    [g for g, _ in pairs],
                    [graph.dummy],
                    [u for _, u in pairs],
                    retain_graph=True,
                    materialize_grads=True,
                )
        pulled = torch.autograd.grad(
            output, self._layout.tensors, middle(pushed), retain_graph=keep, allow_unused=True
        )
        return self._layout.join(pulled)

    def _output(self, part: Microbatch, override: dict[str, Tensor] | None = None) -> Tensor:
        """Outputs of one microbatch, which must be one tensor."""
        output = self._forward(part, override)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"{type(self).__name__} needs a model that returns one tensor, got "
                f"{type(output).__name__}; wrap the model"
            )
        return output

    def _build(self, part: Microbatch) -> Any:
        """Graphs of one microbatch."""
        if self._method != "linearize":
            return self._recorded(part)
        states = self._states()
        output = self._output(part)
        self._require_graph(output)
        middle = self._middle(output.detach(), part)
        theta = tuple(t.detach() for t in self._layout.tensors)

        def outputs(*theta: Tensor) -> Tensor:
            self._restore(states)
            return self._output(part, dict(zip(self._layout.names, theta)))

        return output, linearized(outputs, *theta), middle, states

    def _weigh(self, part: Microbatch) -> None:
        """The graphs of outputs and pull-back."""
        self._recorded(part)

    def _recorded(self, part: Microbatch) -> _Graph:
        """Outputs and pull-back of one microbatch with their graphs."""
        output = self._output(part)
        self._require_graph(output)
        middle = self._middle(output.detach(), part)
        dummy = torch.zeros_like(output, requires_grad=True)
        with say_what_is_missing():
            pullback = torch.autograd.grad(
                output, self._layout.tensors, dummy, create_graph=True, allow_unused=True
            )
        self._look_for_breaks(list(pullback))
        return _Graph(output, dummy, list(pullback), middle)

    def _term(self, part: Microbatch, v: Tensor) -> Tensor:
        """One microbatch's product, nothing kept."""
        if self._method in {"double_backward", "linearize"}:
            return self._through(self._build(part), v, keep=False)
        names, vectors = self._layout.names, self._layout.split(v)
        states = self._states()
        if self._method == "finite_difference":
            output, pushed = self._difference(part, v, states)
        else:
            theta = tuple(t.detach() for t in self._layout.tensors)
            pair: Any = torch.func.jvp(
                lambda *theta: self._output(part, dict(zip(names, theta))), theta, tuple(vectors)
            )
            pushed = pair[1]
            self._restore(states)
            output = self._output(part)
        self._require_graph(output)
        middle = self._middle(output.detach(), part)
        pulled = torch.autograd.grad(
            output, self._layout.tensors, middle(pushed.detach()), allow_unused=True
        )
        return self._layout.join(pulled)

    def _difference(
        self, part: Microbatch, v: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Outputs, and their central difference along ``v``."""
        theta = torch.cat([t.detach().reshape(-1) for t in self._layout.tensors])
        norm = v.norm()
        root = torch.finfo(self.dtype).eps ** (1 / 3)
        step = torch.where(norm > 0, root * (1 + theta.norm()) / norm, torch.ones_like(norm))
        moved = []
        with torch.no_grad():
            for sign in (1.0, -1.0):
                override = dict(
                    zip(self._layout.names, self._layout.split(theta + sign * step * v))
                )
                moved.append(self._output(part, override))
                self._restore(states)
        return self._output(part), (moved[0] - moved[1]) / (2 * step)

    def _middle(self, output: Tensor, part: Microbatch) -> OutputProduct:
        """Multiplication by A, the Hessian of the loss in the outputs."""
        leaf = output.detach().requires_grad_()
        loss = self._scalar(self._loss_fn(leaf, part.targets), part)
        self._require_graph(loss)
        with say_what_is_missing():
            (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
        look_for_breaks([slope])
        if not slope.requires_grad:  # a loss linear in the outputs
            return torch.zeros_like

        def product(u: Tensor) -> Tensor:
            # Two reverse passes: jvp(grad(loss)) fails on mse_loss ("ZeroTensors are immutable").
            with say_what_is_missing():
                (out,) = torch.autograd.grad(
                    slope, leaf, u, retain_graph=True, materialize_grads=True
                )
            return out

        return product
