"""The two parts of a Hessian, and the Gauss-Newton spectrum through the Gram matrix of outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradworks.curvature.operators.batches import Microbatch
from gradworks.curvature.operators.ggn import GGNOperator
from gradworks.curvature.operators.hessian import HessianOperator
from gradworks.curvature.operators.model import LossFn

__all__ = ["GaussNewtonSplit", "gauss_newton_split", "gram_spectrum"]


@dataclass(frozen=True)
class GaussNewtonSplit:
    """H = G + R, dense.

    Attributes:
        gauss_newton: G, ``(P, P)``: curvature of the loss through the slopes of the outputs.
        residual: R, ``(P, P)``: curvature of the outputs themselves; vanishes at a perfect fit.
    """

    gauss_newton: Tensor
    residual: Tensor

    @property
    def hessian(self) -> Tensor:
        """Their sum."""
        return self.gauss_newton + self.residual


def gauss_newton_split(
    model: nn.Module, loss_fn: LossFn, data: Any, **operator_options: Any
) -> GaussNewtonSplit:
    r"""Write down both parts of a Hessian.

    .. math:: \nabla^2 L = \underbrace{\tfrac1N J^\top A J}_{G}
        + \underbrace{\tfrac1N \sum_i \ell'_i \nabla^2 f_i}_{R}

    Args:
        model: As for :class:`~gradworks.curvature.operators.GGNOperator`.
        loss_fn: As there.
        data: As there.
        **operator_options: As there.

    Returns:
        Both matrices, for small P.

    Raises:
        TypeError: As for the operators.
        ValueError: As for the operators.

    Example:
        >>> import torch
        >>> from gradworks.curvature.spectrum import gauss_newton_split
        >>> model = torch.nn.Linear(2, 1)
        >>> data = (torch.eye(2), torch.ones(2, 1))
        >>> split = gauss_newton_split(model, torch.nn.functional.mse_loss, data)
        >>> bool(split.residual.abs().max() < 1e-6)  # a linear model has no second derivative
        True
    """  # noqa: DOC502
    with GGNOperator(model, loss_fn, data, **operator_options) as ggn:
        G = ggn.to_dense()
    with HessianOperator(model, loss_fn, data, **operator_options) as hessian:
        H = hessian.to_dense()
    return GaussNewtonSplit(G, H - G)


class _OutputJacobian(GGNOperator):
    """The rows of A^(1/2) J, from the graphs of a Gauss-Newton operator."""

    def rows(self, chunk_size: int) -> Iterator[Tensor]:
        """Blocks of rows, weighted so that their Gram matrix over P is G."""  # noqa: DOC402
        with self._conditions():
            for part in self._parts():
                output = self._output(part)
                self._require_graph(output)
                root = self._root(output.detach(), part)
                weight = self._weight(part) ** 0.5
                n, C = root.shape[:2]
                cotangents = torch.zeros(n * C, n, C, dtype=output.dtype, device=output.device)
                index = torch.arange(n * C, device=output.device)
                cotangents[index, index // C] = root.reshape(n * C, C) * weight
                for chunk in torch.split(cotangents, chunk_size):
                    yield self._pull(output, chunk.reshape(len(chunk), *output.shape))

    def _pull(self, output: Tensor, cotangents: Tensor) -> Tensor:
        """Pull-backs of several cotangents: batched, or in turn where that is impossible."""
        params = self._layout.tensors
        k = len(cotangents)
        try:
            rows = torch.autograd.grad(
                output,
                params,
                cotangents,
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=True,
            )
        except RuntimeError:  # an operation without a batching rule
            flat = [
                self._layout.join(
                    torch.autograd.grad(output, params, c, retain_graph=True, allow_unused=True)
                )
                for c in cotangents
            ]
            return torch.stack(flat)
        return torch.cat(
            [
                cotangents.new_zeros(k, size) if row is None else row.reshape(k, size)
                for row, size in zip(rows, self._layout.sizes)
            ],
            dim=1,
        )

    def _root(self, output: Tensor, part: Microbatch) -> Tensor:
        """A^(1/2) of each example's outputs, ``(n, C, C)``; A couples no two examples."""
        n = output.shape[0] if output.dim() > 0 else 0
        if n != part.size:
            raise ValueError(
                f"gram_spectrum needs outputs whose first dimension counts examples ({part.size} "
                f"in {part.label}), got shape {tuple(output.shape)}"
            )
        product = self._middle(output, part)
        C = output[0].numel()
        unit = torch.eye(C, dtype=output.dtype, device=output.device)
        columns = [
            product(u.expand(n, C).reshape(output.shape)).reshape(n, C) for u in unit.unbind(0)
        ]
        A = torch.stack(columns, dim=2).to(self.accumulate_dtype)
        values, vectors = torch.linalg.eigh((A + A.mT) / 2)
        slack = C * torch.finfo(output.dtype).eps * values.abs().max()
        if bool((values < -10 * slack).any()):
            raise ValueError(
                "loss_fn is not convex in the outputs: its Gauss-Newton matrix has no Gram form; "
                "use GGNOperator with exact_spectrum"
            )
        root: Tensor = (vectors * values.clamp_min(0).sqrt()[:, None, :]) @ vectors.mT
        return root.to(output.dtype)


def gram_spectrum(
    model: nn.Module,
    loss_fn: LossFn,
    data: Any,
    *,
    chunk_size: int = 64,
    max_outputs: int = 20_000,
    **options: Any,
) -> Tensor:
    r"""Nonzero eigenvalues of the Gauss-Newton matrix through its smaller Gram matrix.

    .. math:: \operatorname{spec}_{\ne 0} \tfrac1N J^\top A J
        = \operatorname{spec}_{\ne 0} \tfrac1N A^{1/2} J J^\top A^{1/2}

    Cheaper than :func:`exact_spectrum` when there are fewer outputs (examples x outputs each) than
    parameters.

    Args:
        model: As for :class:`~gradworks.curvature.operators.GGNOperator`.
        loss_fn: As there; convex in the outputs, without coupling between examples.
        data: As there.
        chunk_size: Rows of the Jacobian in one batched backward pass.
        max_outputs: Refuse more outputs than this (default 20,000).
        **options: As there; no ``process_group``.

    Returns:
        Eigenvalues above rounding, ascending.

    Raises:
        TypeError: As there.
        ValueError: Outputs that do not count examples first, too many of them, a loss that is not
            convex in them, or ``chunk_size`` below 1.

    Example:
        >>> import torch
        >>> from gradworks.curvature.spectrum import gram_spectrum
        >>> model = torch.nn.Linear(3, 1, bias=False)
        >>> data = (2 * torch.eye(3)[:2], torch.ones(2, 1))
        >>> gram_spectrum(model, torch.nn.functional.mse_loss, data).round(decimals=4)
        tensor([4., 4.])
    """  # noqa: DOC502
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if options.get("process_group") is not None:
        raise ValueError("gram_spectrum needs all outputs in one process; leave process_group out")
    op = _OutputJacobian(model, loss_fn, data, **options)
    blocks: list[Tensor] = []
    count = 0
    for block in op.rows(chunk_size):
        count += len(block)
        if count > max_outputs:
            raise ValueError(
                f"data has more than max_outputs={max_outputs} outputs; "
                'use spectrum(GGNOperator(...), method="slq") or raise max_outputs'
            )
        blocks.append(block)
    W = torch.cat(blocks).to(op.accumulate_dtype) * op._scale() ** 0.5
    gram = W @ W.T if len(W) <= W.shape[1] else W.T @ W
    values = torch.linalg.eigvalsh(gram)
    floor = values[-1].clamp_min(0) * max(W.shape) * torch.finfo(W.dtype).eps
    kept: Tensor = values[values > floor]
    return kept
