"""The Hessian of a loss over data, by products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from gradworks.curvature.operators.batches import Microbatch
from gradworks.curvature.operators.layout import Selection
from gradworks.curvature.operators.model import LossFn, Method, ModelOperator
from gradworks.curvature.operators.surroundings import Mode, linearized
from gradworks.curvature.operators.twice import SecondDerivativeError, say_what_is_missing

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["HessianOperator"]

Grads = list[Tensor | None]
Vectors = tuple[Tensor, ...]


def _second(grads: Grads, params: Sequence[Tensor], vectors: Sequence[Tensor], **how: Any) -> Grads:
    """Derivative of grads . vectors; gradients that are constants contribute nothing."""
    pairs = [(g, v) for g, v in zip(grads, vectors) if g is not None and g.requires_grad]
    if not pairs:
        return [None] * len(params)
    with say_what_is_missing():
        return list(
            torch.autograd.grad(
                [g for g, _ in pairs], params, [v for _, v in pairs], allow_unused=True, **how
            )
        )


class HessianOperator(ModelOperator):
    r"""The Hessian of a model's loss over any data, multiplied without being formed.

    For traces, extreme eigenvalues and spectra of networks of any size, on ragged batches, with
    batch normalisation, dropout, frozen and tied parameters. Not for losses that are piecewise
    linear in the parameters (the Hessian is zero almost everywhere).

    .. math:: H = \sum_b \frac{n_b}{N}\, \nabla^2_\theta L_b(\theta)

    with batches :math:`b` of :math:`n_b` examples: a shorter last batch changes nothing. Model,
    mode flags, buffers, ``.grad`` and the global random state are left as they were found.

    Args:
        model: The model; its trainable parameters are the coordinates, in ``named_parameters()``
            order, each flattened row-major, a tied one once.
        loss_fn: ``(output, target) -> scalar``; the mean over the batch.
        data: One ``(inputs, targets)`` tuple, or a re-iterable of such pairs (list, DataLoader).
            Inputs are a tensor, a tuple or a dict (unpacked into the model).
        params: Restrict to names, a glob pattern or a predicate ``(name, tensor) -> bool``.
        method: ``"double_backward"`` (default, fastest on CPU and one GPU),
            ``"forward_over_reverse"`` (no kept graph), ``"linearize"`` (traced once) or
            ``"finite_difference"`` (for operations without a second derivative).
        mode: ``"eval"`` (default), ``"train"`` (same dropout masks in every product) or ``"keep"``.
        microbatch_size: Cut batches into pieces of at most this many examples. A loss that is a
            mean over something else (class weights, ignored labels) then depends on the cut;
            with ``reduction="sum"`` it does not.
        reduction: ``"mean"`` as above; ``"sum"``: ``loss_fn`` sums and so does the operator.
        cache: ``"auto"`` keeps the gradient graphs of all batches while they fit into
            ``cache_bytes``; ``"always"``; ``"never"`` rebuilds them for each product.
        cache_bytes: The limit, default 1 GiB.
        process_group: Each process holds its own batches; products are summed over the group. A
            model under ``DistributedDataParallel`` without it: each process's own Hessian.
        check: Multiply twice and test symmetry on construction (debug runs).
        probe_chunk: Vectors in one batched product of :meth:`matmat`; ``None`` multiplies one
            after the other, which is faster on CPU.

    Raises:
        TypeError: ``model``, ``loss_fn``, ``data`` or ``params`` of a wrong type; one-shot data.
        ValueError: Empty data, no trainable parameter, a wrong option, mixed devices or types,
            integer or complex parameters.
        RuntimeError: ``check=True`` and the products differ or are not symmetric. In a product:
            :class:`~gradworks.curvature.operators.SecondDerivativeError` where an operation has no
            second derivative, or hides that it has none.

    Note:
        ``weight_norm``, whose second derivative torch has wrong, is written out; compiled code runs
        as it was written, recurrent layers without cuDNN, attention without fused kernels: none of
        these has a second derivative.

        A model under ``fully_shard`` (FSDP2) is multiplied by finite differences, since FSDP2 keeps
        no graph of the gradient; vectors are then the local shards, and all processes make the same
        calls.

        A kept graph is rebuilt after an in-place change of a parameter or buffer, but changes made
        through ``.data``, or of the data tensors, cannot be seen: call :meth:`release`. One product
        with a kept graph costs about one backward pass through the gradient's graph.

    Example:
        >>> import torch
        >>> from gradworks.curvature.operators import HessianOperator
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> x, y = torch.eye(2), torch.zeros(2, 1)
        >>> op = HessianOperator(model, torch.nn.functional.mse_loss, (x, y))
        >>> op @ torch.tensor([1.0, 0.0])
        tensor([1., 0.])

    References:
        Pearlmutter, "Fast exact multiplication by the Hessian", 1994.
    """

    def __new__(cls, model: object = None, *args: Any, **options: Any) -> HessianOperator:
        """A model under ``fully_shard`` gets the operator that works on shards."""
        from gradworks.curvature.operators.sharded import ShardedHessian, is_sharded

        if cls is HessianOperator and isinstance(model, nn.Module) and is_sharded(model):
            cls = ShardedHessian
        return object.__new__(cls)

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        data: Any,
        *,
        params: Selection = None,
        method: Method = "double_backward",
        mode: Mode = "eval",
        microbatch_size: int | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        cache: Literal["auto", "always", "never"] = "auto",
        cache_bytes: int = 2**30,
        process_group: ProcessGroup | None = None,
        check: bool = False,
        probe_chunk: int | None = None,
    ) -> None:
        if probe_chunk is not None and probe_chunk < 1:
            raise ValueError(f"probe_chunk must be at least 1 or None, got {probe_chunk}")
        self._probe_chunk = probe_chunk
        super().__init__(
            model,
            loss_fn,
            data,
            params=params,
            method=method,
            mode=mode,
            microbatch_size=microbatch_size,
            reduction=reduction,
            cache=cache,
            cache_bytes=cache_bytes,
            process_group=process_group,
            check=check,
        )
        self._options["probe_chunk"] = probe_chunk

    @classmethod
    def from_closure(
        cls,
        closure: Callable[[], Tensor],
        params: Iterable[Tensor] | Mapping[str, Tensor] | Tensor,
        *,
        method: Literal["double_backward", "finite_difference"] = "double_backward",
        cache: Literal["auto", "always", "never"] = "auto",
        check: bool = False,
    ) -> HessianOperator:
        """The Hessian of any scalar that a function computes from tensors it closes over.

        For losses without (input, target): physics-informed networks, language models, regularised
        objectives. Modes and buffers are the closure's own business.

        Args:
            closure: Returns the loss with its graph; the same at each call.
            params: The tensors to differentiate by, each with ``requires_grad``.
            method: As for the class; ``"finite_difference"`` moves the tensors in place and back.
            cache: As for the class.
            check: As for the class.

        Returns:
            The operator.

        Raises:
            TypeError: ``closure`` cannot be called, or ``params`` holds something else than
                tensors.
            ValueError: No tensor, one that does not require a gradient, or an unknown ``method``.

        Example:
            >>> import torch
            >>> from gradworks.curvature.operators import HessianOperator
            >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
            >>> HessianOperator.from_closure(lambda: (w**3).sum(), w).to_dense()
            tensor([[ 6.,  0.],
                    [ 0., 12.]])
        """  # noqa: DOC502
        from gradworks.curvature.operators.closure import ClosureHessian

        return ClosureHessian(closure, params, method=method, cache=cache, check=check)

    def apply(self, v: Tensor) -> Tensor:
        """Multiply one vector by the chosen method, unchecked.

        Args:
            v: ``(P,)``, of ``dtype``.

        Returns:
            ``H v``, ``(P,)``.
        """
        kept = self._graphs() if self._method in {"double_backward", "linearize"} else None
        if kept is None:
            return self._weighted_sum(lambda part: self._term(part, v))
        if self._method == "linearize":
            return self._all_reduce(self._linear(kept, v) * self._scale())
        vectors = self._layout.split(v * self._scale())
        product = _second(kept, self._layout.tensors, vectors, retain_graph=True)
        return self._all_reduce(self._layout.join(product))

    def _linear(self, kept: list[Any], v: Tensor) -> Tensor:
        """Sum over traced microbatches; the trace draws dropout masks again, so it must be told."""
        vectors = tuple(self._layout.split(v))
        total = torch.zeros_like(v)
        with self._random_fork():
            for weight, (function, states, targets) in kept:
                self._restore(states)
                product = function(vectors, *map(torch.zeros_like, targets))
                total.add_(self._layout.join(product), alpha=weight)
        return total

    def apply_block(self, V: Tensor) -> Tensor:
        """Multiply several vectors: batched in ``probe_chunk`` columns, or in turn.

        Args:
            V: ``(P, k)``, of ``dtype``.

        Returns:
            ``H V``, ``(P, k)``.
        """
        if self._probe_chunk is None:
            return super().apply_block(V)
        return torch.cat(
            [self._columns(C) for C in torch.split(V, self._probe_chunk, dim=1)], dim=1
        )

    def _columns(self, unit: Tensor) -> Tensor:
        """All columns in one batched backward pass of the kept graph, else in turn."""
        kept = self._graphs() if self._method == "double_backward" else None
        if kept is None or unit.shape[1] == 1:
            return super().apply_block(unit)
        k = unit.shape[1]
        vectors = self._layout.split((unit * self._scale()).T.contiguous())
        try:
            rows = _second(
                kept, self._layout.tensors, vectors, retain_graph=True, is_grads_batched=True
            )
        except SecondDerivativeError:
            raise
        except RuntimeError:  # an operation without a batching rule
            return super().apply_block(unit)
        flat = [
            unit.new_zeros(k, size) if row is None else row.reshape(k, size)
            for row, size in zip(rows, self._layout.sizes)
        ]
        return self._all_reduce(torch.cat(flat, dim=1).T.contiguous())

    def _build(self, part: Microbatch) -> Any:
        """The gradient with its graph; or the linearised gradient."""
        if self._method == "linearize":
            states = self._states()
            gradient, theta, targets = self._functional(part)

            def replayed(*at: Any) -> Any:
                self._restore(states)
                return gradient(*at)

            return linearized(replayed, theta, *targets), states, targets
        return self._gradients(part, graph=True)

    def _weigh(self, part: Microbatch) -> None:
        """The graph of the gradient."""
        self._gradients(part, graph=True)

    def _combine(self, built: list[Any]) -> Any:
        """One graph for all microbatches: the weighted sum of their gradients."""
        if self._method == "linearize":
            return built
        total: Grads = [None] * len(self._layout.names)
        for weight, grads in built:
            for i, g in enumerate(grads):
                if g is not None:
                    term = g * weight
                    total[i] = term if total[i] is None else total[i] + term
        return total

    def _term(self, part: Microbatch, v: Tensor) -> Tensor:
        """One microbatch's product, nothing kept."""
        if self._method == "finite_difference":
            return self._finite_difference(part, v)
        vectors = self._layout.split(v)
        if self._method == "double_backward":
            grads = self._gradients(part, graph=True)
            return self._layout.join(_second(grads, self._layout.tensors, vectors))
        product = self._dual(part, tuple(vectors))
        return self._layout.join(product)

    def _functional(self, part: Microbatch) -> tuple[Callable[..., Any], Vectors, Vectors]:
        """The gradient as a function of parameters and targets, with both.

        mse_loss writes into the tangent of its target, which must therefore be real zeros: targets
        of floating point count as variables that do not move.
        """
        theta = tuple(t.detach() for t in self._layout.tensors)
        targets = part.targets
        moving = isinstance(targets, Tensor) and targets.is_floating_point()

        def loss(theta: Vectors, *given: Tensor) -> Tensor:
            at = replace(part, targets=given[0]) if given else part
            return self._loss(at, dict(zip(self._layout.names, theta)))

        return torch.func.grad(loss), theta, (targets,) if moving else ()

    def _dual(self, part: Microbatch, vectors: Vectors) -> Grads:
        """Forward mode over the gradient."""
        gradient, theta, targets = self._functional(part)
        try:
            pair: Any = torch.func.jvp(
                gradient, (theta, *targets), (vectors, *map(torch.zeros_like, targets))
            )
        except NotImplementedError as error:
            raise RuntimeError(
                f"method={self._method!r}: {str(error).splitlines()[0]} "
                "Use method='double_backward'."
            ) from error
        return list(pair[1])

    def _finite_difference(self, part: Microbatch, v: Tensor) -> Tensor:
        """Central difference of two gradients; the step balances truncation and rounding."""
        theta = torch.cat([t.detach().reshape(-1) for t in self._layout.tensors])
        norm = v.norm()
        root = torch.finfo(self.dtype).eps ** (1 / 3)
        step = torch.where(norm > 0, root * (1 + theta.norm()) / norm, torch.ones_like(norm))
        grads = []
        states = self._states()
        for sign in (1.0, -1.0):
            self._restore(states)
            moved = self._layout.split(theta + sign * step * v)
            override = {
                name: t.detach().clone().requires_grad_()
                for name, t in zip(self._layout.names, moved)
            }
            grads.append(self._layout.join(self._gradients(part, override)))
        return (grads[0] - grads[1]) / (2 * step)
