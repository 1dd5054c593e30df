"""The Hessian of a model whose parameters are spread over processes by FSDP2.

``fully_shard`` gathers parameters on the fly and gives gradients through ``backward`` only, without
a graph: products are central differences of two gradients. Vectors are local shards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gradworks.curvature.operators.batches import Batches, Microbatch
from gradworks.curvature.operators.hessian import HessianOperator
from gradworks.curvature.operators.layout import Layout, is_dtensor

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator
    from torch.distributed import ProcessGroup

__all__ = ["ShardedHessian", "is_sharded"]

_LOG = logging.getLogger("gradworks.curvature")


class ShardedHessian(HessianOperator):
    """What :class:`HessianOperator` becomes for a model under ``fully_shard``.

    Every process must make the same calls and hold the same number of batches. ``shape`` is that of
    the local shard, ``dimension`` that of the whole matrix.
    """

    def _refuse_shards(self, layout: Layout) -> None:
        """They are what this is for."""

    def _prepare(self, layout: Layout) -> Layout:
        """Local shards in place of the parameters; the mesh they lie on."""
        from torch.distributed.fsdp import FSDPModule
        from torch.distributed.tensor import Shard

        whole = [name for name, p in zip(layout.names, layout.tensors) if not is_dtensor(p)]
        if whole or not any(isinstance(m, FSDPModule) for m in self._model.modules()):
            raise ValueError(
                f"parameters {whole[:3]} are whole and others sharded; apply fully_shard to the "
                "whole model, or select the parameters with params="
                if whole
                else "parameters are DTensors without fully_shard (tensor parallelism); "
                "only FSDP2 is supported"
            )
        meshes = [p.device_mesh for p in layout.tensors]  # type: ignore[attr-defined]
        places = [p.placements for p in layout.tensors]  # type: ignore[attr-defined]
        if any(m != meshes[0] for m in meshes) or not all(
            len(place) == 1 and isinstance(place[0], Shard) for place in places
        ):
            raise ValueError(
                "parameters must be sharded over one and the same one-dimensional mesh, got "
                f"{sorted({str(place) for place in places})[:3]}"
            )
        group = meshes[0].get_group()
        if self._group not in (None, group):
            raise ValueError("process_group must be that of the parameters' mesh, or None")
        self._group = group
        self._world = torch.distributed.get_world_size(group)
        self._rank = torch.distributed.get_rank(group)
        self._total = layout.size
        return Layout(
            {
                name: p.detach().to_local()  # type: ignore[attr-defined]
                for name, p in zip(layout.names, layout.tensors)
            }
        )

    def _start(
        self,
        layout: Layout,
        batches: Batches | list[Microbatch],
        method: str,
        reduction: str,
        cache: str,
        cache_bytes: int,
        process_group: ProcessGroup | None,
    ) -> None:
        if method not in {"double_backward", "finite_difference"}:
            raise ValueError(
                f"method={method!r} needs whole parameters; sharded ones work with "
                "'finite_difference'"
            )
        if method == "double_backward":
            _LOG.debug("FSDP2 keeps no graph of the gradient: products are finite differences")
        self._group = process_group
        layout = self._prepare(layout)
        method = "finite_difference"
        super()._start(layout, batches, method, reduction, cache, cache_bytes, self._group)
        self._check_counts(batches)

    def _check_counts(self, batches: Batches | list[Microbatch]) -> None:
        """Unequal numbers of batches would wait for each other for ever."""
        count = float(sum(1 for _ in batches))
        both = torch.tensor([count, -count], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(both, torch.distributed.ReduceOp.MAX, group=self._group)
        most, least = int(both[0]), int(-both[1])
        if most != least:
            raise ValueError(
                f"every process needs the same number of batches, got {least} to {most}; "
                "sharded parameters are gathered by all of them for each"
            )

    @property
    def dimension(self) -> int:
        """Order of the whole matrix."""
        return self._total

    def reduce(self, partial: Tensor) -> Tensor:
        """Sum inner products over the shards.

        Args:
            partial: Of the local shards.

        Returns:
            Of the whole vectors.
        """
        return self._all_reduce(partial.clone())

    def synchronize(self, v: Tensor) -> Tensor:
        """Nothing: each process has its own part of the vector.

        Args:
            v: ``(P,)``, local.

        Returns:
            ``v``.
        """
        return v

    def stream(self, generator: torch.Generator) -> torch.Generator:
        """A generator of this process's own, so that shards are independent.

        Args:
            generator: The common one; it advances equally on all processes.

        Returns:
            Seeded from process 0's and the rank.
        """
        seed = torch.randint(2**40, (1,), generator=generator, device=generator.device)
        seed = seed.to(self.device)
        source = torch.distributed.get_global_rank(self._required_group(), 0)
        torch.distributed.broadcast(seed, source, group=self._group)
        own = torch.Generator(device=generator.device)
        return own.manual_seed(int(seed) * self._world + self._rank)

    def _required_group(self) -> ProcessGroup:
        if self._group is None:
            raise RuntimeError("a sharded operator has lost its process group")
        return self._group

    def apply(self, v: Tensor) -> Tensor:
        """Central difference of two gradients; not finite anywhere: not finite everywhere.

        Args:
            v: ``(P,)``, the local shard.

        Returns:
            The local shard of ``H v``.
        """
        before = [t.clone() for t in self._layout.tensors]
        theta = self._layout.join(before)
        norm, size = (self.reduce(x @ x).sqrt() for x in (v, theta))
        if float(norm) == 0.0:
            return torch.zeros_like(v)
        step = torch.finfo(self.dtype).eps ** (1 / 3) * (1 + size) / norm
        grads = []
        try:
            for sign in (1.0, -1.0):
                self._write(self._layout.split(theta + sign * step * v))
                grads.append(self._local_gradient())
        finally:
            self._write(before)
        product = (grads[0] - grads[1]) / (2 * step)
        lost = self.reduce((~torch.isfinite(product)).sum())
        return torch.full_like(product, torch.nan) if bool(lost > 0) else product

    def apply_block(self, V: Tensor) -> Tensor:
        """One column after the other.

        Args:
            V: ``(P, k)``, local shards.

        Returns:
            Local shards of the products.
        """
        return torch.stack([self.apply(column) for column in V.unbind(1)], dim=1)

    def _write(self, values: list[Tensor]) -> None:
        """Put the shards in place, and let go of what was gathered from the old ones."""
        from torch.distributed.fsdp import FSDPModule

        for shard, value in zip(self._layout.tensors, values):
            shard.copy_(value)
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _local_gradient(self) -> Tensor:
        """The shard of the gradient over all data; ``.grad`` is put back."""
        params = list(self._model.parameters())
        before = [p.grad for p in params]
        try:
            for p in params:
                p.grad = None
            with self._conditions():
                for part in self._parts():
                    # fully_shard averages over the processes; the sum is wanted.
                    loss = self._loss(part) * (self._weight(part) * self._world)
                    self._require_graph(loss)
                    loss.backward()  # type: ignore[no-untyped-call]
            mine = dict(self._model.named_parameters())
            found = [mine[name].grad for name in self._layout.names]
            return (
                self._layout.join([None if g is None else _local(g) for g in found]) * self._scale()
            )
        finally:
            for p, grad in zip(params, before):
                p.grad = grad

    def gradient(self) -> Tensor:
        """The local shard of the gradient over all data; ``.grad`` is put back.

        Returns:
            ``(P,)``, local.

        Raises:
            FloatingPointError: It is not finite.
        """
        value = self._local_gradient()
        if bool(self.reduce((~torch.isfinite(value)).sum()) > 0):
            raise FloatingPointError("gradient is not finite; check the loss and the data")
        return value

    def _term(self, part: Microbatch, v: Tensor) -> Tensor:
        """No batch can be looked at alone: all processes gather for each."""
        return torch.zeros_like(v)

    def diagnose(self, v: Tensor) -> None:
        """Raise; which batch it was is not known.

        Args:
            v: The vector, local.

        Raises:
            FloatingPointError: Always.
        """
        raise FloatingPointError(
            "product of a sharded Hessian with a vector is not finite; check the loss and the "
            "parameters for NaN and overflow"
        )

    def to_dense(
        self, *, chunk_size: int = 64, progress: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """Refuse: columns lie on several processes.

        Args:
            chunk_size: Unused.
            progress: Unused.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a sharded Hessian cannot be written down; use slq, eigsh or trace")

    def to_scipy(self) -> LinearOperator:
        """Refuse: SciPy knows of one process only.

        Raises:
            ValueError: Always.
        """
        raise ValueError("SciPy cannot use a sharded Hessian; use slq, eigsh or trace")


def _local(tensor: Tensor) -> Tensor:
    """This process's part."""
    part: Tensor = tensor.to_local() if is_dtensor(tensor) else tensor  # type: ignore[attr-defined]
    return part


def is_sharded(model: nn.Module) -> bool:
    """Whether any parameter of a model is a ``DTensor``.

    Args:
        model: The model.

    Returns:
        The answer.
    """
    return any(is_dtensor(p) for p in model.parameters())
