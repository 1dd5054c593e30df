"""Several processes: which hold other samples, and which hold other columns of the Jacobian.

``autograd.grad`` never reaches the hooks by which DDP averages, so the driver sums the rows itself.
Under FSDP2 the rows are sums already and each process has a shard of the columns.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Parameter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Processes", "SumOver", "local_of"]

# Numbers summed in one message: 25 MB of float32, the bucket of DDP.
BUCKET = 25 * (1 << 18)


class SumOver:
    """Sums a tensor over process groups; what aggregators get as ``reduce``.

    Args:
        groups: One after the other.
    """

    def __init__(self, groups: Sequence[ProcessGroup]) -> None:
        self.groups = tuple(groups)

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the sum, a new tensor."""
        summed = tensor.detach().clone(memory_format=torch.contiguous_format)
        for group in self.groups:
            torch.distributed.all_reduce(summed, group=group)
        return summed

    def __deepcopy__(self, memo: dict[int, Any]) -> SumOver:
        return self


class Processes:
    """The processes of a driver.

    Args:
        shared: Parameters of the trunk.
        others: Parameters of all heads.
        process_group: The replicas of DDP, or None.

    Attributes:
        sharded: Whether the parameters are ``DTensor``.
        replicas: The group over which rows are averaged, or None.
        factor: What each row is multiplied by before the sum over replicas.
        shards: Sums over the other columns, or None where all are here.

    Raises:
        RuntimeError: If torch.distributed was not started.
        TypeError: If ``process_group`` is none.
        ValueError: If sharded and plain parameters, several meshes, or sharded parameters and a
            group are mixed.
    """

    def __init__(
        self,
        shared: Sequence[Parameter],
        others: Sequence[Parameter],
        process_group: ProcessGroup | None,
    ) -> None:
        self.device = shared[0].device
        self.replicas = _checked(process_group)
        self.factor = 1.0
        self.shards: SumOver | None = None
        self._everyone: list[ProcessGroup] = []
        self._seed: int | None = None
        flags = [_is_sharded(p) for p in [*shared, *others]]
        self.sharded = all(flags)
        if any(flags) and not self.sharded:
            raise ValueError(
                "some parameters are DTensors and some are plain; shard the heads with the trunk "
                "(fully_shard on the whole model)"
            )
        if self.replicas is not None:
            if self.sharded:
                raise ValueError(
                    "process_group is for replicas; the gradients of sharded parameters (FSDP2) "
                    "are averaged already, leave it out"
                )
            self.factor = 1 / torch.distributed.get_world_size(self.replicas)
            self._everyone = [self.replicas]
        if self.sharded:
            self._lay_out(shared)

    def _lay_out(self, shared: Sequence[Any]) -> None:
        """Find the mesh and the dimensions that split the parameters."""
        mesh = shared[0].device_mesh
        found = set()
        for param in shared:
            if param.device_mesh != mesh:
                raise ValueError("shared parameters lie on several device meshes")
            if any(p.is_partial() for p in param.placements):
                raise ValueError(
                    f"a parameter of shape {tuple(param.shape)} has a Partial placement; "
                    "redistribute it to Shard or Replicate first"
                )
            found.add(tuple(i for i, p in enumerate(param.placements) if not p.is_replicate()))
        if len(found) > 1:
            raise ValueError(
                "some shared parameters are split over mesh dimensions where others are whole; "
                "their inner products cannot be summed together"
            )
        self._everyone = [mesh.get_group(i) for i in range(mesh.ndim)]
        split = [self._everyone[i] for i in next(iter(found))]
        self.shards = SumOver(split) if split else None

    @property
    def alone(self) -> bool:
        """Whether no other process takes part."""
        return not self._everyone

    def mean(self, values: Tensor) -> Tensor:
        """Mean of a small tensor over all processes."""
        if self.alone:
            return values
        count = 1
        for group in self._everyone:
            count *= torch.distributed.get_world_size(group)
        return SumOver(self._everyone)(values / count)

    def start(self, row: Tensor) -> list[Any]:
        """Begin to sum a row over the replicas, bucket by bucket, and return what to wait for."""
        if self.replicas is None:
            return []
        return [
            torch.distributed.all_reduce(part, group=self.replicas, async_op=True)
            for part in torch.split(row.view(-1), BUCKET)
        ]

    def sum_replicas(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Sum tensors over the replicas in as few messages as there are buckets."""
        if self.replicas is None or not tensors:
            return list(tensors)
        summed: list[Tensor] = []
        for bucket in _buckets(tensors):
            flat = torch.cat([t.reshape(-1) for t in bucket])
            torch.distributed.all_reduce(flat, group=self.replicas)
            parts = torch.split(flat, [t.numel() for t in bucket])
            summed += [part.view(t.shape) for part, t in zip(parts, bucket)]
        return summed

    @contextmanager
    def same_draws(self) -> Iterator[None]:
        """Let an aggregator that draws at random draw the same on every process."""
        if self.alone:
            yield
            return
        if self._seed is None:
            own = torch.tensor(torch.initial_seed() & ((1 << 62) - 1), device=self.device)
            for group in self._everyone:
                torch.distributed.all_reduce(own, torch.distributed.ReduceOp.MAX, group=group)
            self._seed = int(own)
        self._seed += 1
        generators = [torch.default_generator]
        if self.device.type == "cuda":
            generators.append(torch.cuda.default_generators[self.device.index or 0])
        states = [generator.get_state() for generator in generators]
        try:
            for generator in generators:
                generator.manual_seed(self._seed)
            yield
        finally:
            for generator, state in zip(generators, states):
                generator.set_state(state)


def local_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a gradient, laid out as its parameter; a plain tensor is its own."""
    if not _is_sharded(tensor):
        return tensor
    if tensor.placements != like.placements:  # type: ignore[attr-defined]
        tensor = tensor.redistribute(placements=like.placements)  # type: ignore[attr-defined]
    part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Cut a list of tensors into messages.

    Yields:
        Tensors of one dtype, at most ``BUCKET`` numbers or one tensor.
    """
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or size + tensor.numel() > BUCKET):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    yield bucket


def _is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a ``DTensor``; never imports ``torch.distributed`` to find out."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def _checked(group: ProcessGroup | None) -> ProcessGroup | None:
    """A group of more than one process, or None."""
    if group is None:
        return None
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        raise RuntimeError(
            "process_group was given but torch.distributed is not running; call "
            "init_process_group first or leave it out"
        )
    if not isinstance(group, torch.distributed.ProcessGroup):
        raise TypeError(
            f"process_group must be a ProcessGroup or None, got {type(group).__name__}; "
            "torch.distributed.group.WORLD is all processes"
        )
    return group if torch.distributed.get_world_size(group) > 1 else None
