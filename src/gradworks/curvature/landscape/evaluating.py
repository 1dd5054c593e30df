"""The loss at many points of weight space: from the saved weights, many at once where it pays."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradworks.curvature.landscape.batch_norm import (
    MODES,
    PlaneMode,
    estimating,
    measuring,
    norm_layers,
)
from gradworks.curvature.landscape.directions import Direction, check_model
from gradworks.curvature.landscape.points import Flat, OneByOne, Points, State, Together, alike
from gradworks.curvature.operators.batches import Batches, Microbatch
from gradworks.curvature.operators.layout import is_dtensor
from gradworks.curvature.operators.model import LossFn, check_choice
from gradworks.curvature.operators.surroundings import RandomState

__all__ = ["PointLosses", "Vectorize"]

Vectorize = Literal["auto", "always", "never"]
# Activations and weights of the points of one call together: what a core's cache holds about.
_CPU_BYTES = 2**23
_DEVICE_BYTES = 2**30
_LARGEST_CHUNK = 256
# A point above this keeps a core busy by itself: batching would only move more memory.
_CPU_POINT = 2**17
# Batched weights turn these into grouped or unfused kernels, which are slower than one by one.
_UNBATCHED = (nn.modules.conv._ConvNd, nn.RNNBase)


class PointLosses:
    """Losses at points ``theta + sum_k c_k d_k``, each from the saved weights.

    Args:
        model: The model; left as it is.
        loss_fn: ``(output, target) -> scalar``.
        data: As for the operators.
        directions: K directions; names that are left out do not move.
        mode: Which batch-norm statistics.
        calibration_data: Data for ``"recalibrate"``.
        vectorize: Many points at once by ``torch.vmap``: where it pays, always, or never.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        data: Any,
        directions: Sequence[Direction],
        *,
        mode: PlaneMode = "eval",
        calibration_data: Any = None,
        vectorize: Vectorize = "auto",
    ) -> None:
        self.model = check_model(model)
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable, got {type(loss_fn).__name__}")
        check_choice("mode", mode, MODES)
        check_choice("vectorize", vectorize, ("auto", "always", "never"))
        self.weights = {n: p.detach() for n, p in self.model.named_parameters()}
        if not self.weights:
            raise ValueError(f"{type(self.model).__name__} has no parameter to move")
        sharded = [n for n, p in self.weights.items() if is_dtensor(p)]
        if sharded:
            raise ValueError(f"landscapes need whole parameters, {sharded[0]} is sharded")
        self.device = next(iter(self.weights.values())).device
        self.loss_fn = loss_fn
        self.moves = [self._checked(d) for d in directions]
        self.flat = Flat(self.weights, self.moves)
        self.batches = Batches(data, device=self.device)
        self.mode = mode
        self.norms = norm_layers(self.model)
        self.calibration = self._calibration(mode, calibration_data)
        self.random = RandomState(self.device)
        self._wanted = vectorize
        self._chunk: int | None = None

    def _checked(self, direction: Direction) -> State:
        """A direction of this model, on its device."""
        unknown = [n for n in direction if n not in self.weights]
        if unknown or not direction:
            raise ValueError(
                f"direction names {unknown[:3]}, not a parameter of {type(self.model).__name__}"
                if unknown
                else "direction is empty; give at least one parameter"
            )
        for name, d in direction.items():
            if d.shape != self.weights[name].shape:
                raise ValueError(
                    f"direction[{name!r}] must have shape {tuple(self.weights[name].shape)}, "
                    f"got {tuple(d.shape)}"
                )
        return {n: d.detach().to(self.weights[n]) for n, d in direction.items()}

    def _calibration(self, mode: str, data: Any) -> Batches | None:
        """The batches that statistics are taken from, if any are."""
        if mode != "recalibrate":
            return None
        if data is None:
            raise ValueError("mode='recalibrate' needs calibration_data; the data itself will do")
        if not self.norms:
            warnings.warn(
                f"{type(self.model).__name__} has no batch norm with running statistics: "
                "mode='recalibrate' is the same as 'eval'",
                UserWarning,
                stacklevel=4,
            )
            return None
        return Batches(data, device=self.device)

    @contextmanager
    def _conditions(self) -> Iterator[None]:
        """Everything a pass needs, and everything put back after it."""
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            measuring(self.model, self.norms, batch=self.mode == "train"),
        ):
            yield

    def loss(self, model: nn.Module, part: Microbatch) -> Tensor:
        """The loss of one microbatch.

        Args:
            model: With its tensors replaced.
            part: The microbatch.

        Returns:
            A scalar.

        Raises:
            TypeError: The loss is no tensor.
            ValueError: It is not one number.
        """
        output = part.call(model)
        loss: object = self.loss_fn(output, part.targets)
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss_fn must return a tensor, got {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(
                f"loss_fn must return one number, got shape {tuple(loss.shape)} for {part.label}; "
                "use reduction='mean' in the loss"
            )
        return loss if loss.dim() == 0 else loss.reshape(())

    # -- many points ----------------------------------------------------------------------------

    def __call__(self, coefficients: Tensor) -> Tensor:
        """Losses at points.

        Args:
            coefficients: ``(n, K)``.

        Returns:
            ``(n,)``, float64 on CPU; ``inf`` where not finite.
        """
        with self._conditions():
            size = self.chunk_size()
            if size > 1:
                pieces = coefficients.chunk(-(-len(coefficients) // size))
                try:
                    return self._run([self._together(c) for c in pieces])
                except (RuntimeError, UserWarning):
                    # An operation that vmap cannot batch, or batches by a slow loop of its own.
                    if self._wanted == "always":
                        raise
                    self._chunk = 1
            return self._run([OneByOne(self.model, self.flat, self.loss, coefficients)])

    def _together(self, coefficients: Tensor) -> Together:
        own = self.mode != "eval"
        return Together(self.model, self.flat, self.loss, coefficients, own_buffers=own)

    def _run(self, chunks: Sequence[Points]) -> Tensor:
        """All data for all points; data outside, chunks of points inside."""
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="There is a performance drop")
            if self.calibration is not None:
                for chunk in chunks:
                    chunk.forget(self.norms)
                seen = 0
                for part in self._passed(self.calibration, "calibration_data"):
                    seen += part.size
                    with estimating(self.norms, part.size / seen):
                        for chunk in alike(chunks, self.device):
                            chunk.calibrate(part)
            totals = [torch.zeros((), dtype=torch.float64, device=self.device) for _ in chunks]
            seen = 0
            for part in self._passed(self.batches, "data"):
                seen += part.size
                for i, chunk in enumerate(alike(chunks, self.device)):
                    totals[i] = totals[i] + chunk.losses(part).double() * part.size
        joined = torch.cat(totals) / seen
        return joined.where(joined.isfinite(), math.inf).cpu()

    def _passed(self, batches: Batches, name: str) -> Iterator[Microbatch]:
        """One pass over data, the same in every call; random numbers are put back."""  # noqa: DOC402
        with self.random.replay(batches.generators):
            empty = True
            for part in batches:
                empty = False
                yield part
            if empty:
                raise ValueError(f"{name} is empty; give at least one (inputs, targets) batch")

    # -- how many at once -----------------------------------------------------------------------

    @property
    def batched(self) -> bool:
        """Whether many points are measured at once."""
        with self._conditions():
            return self.chunk_size() > 1

    def chunk_size(self) -> int:
        """Points of one call; 1 means one by one.

        Returns:
            The size, found at the first call from the activations of one batch.
        """
        if self._chunk is None:
            self._chunk = self._measure_chunk()
        return self._chunk

    def _measure_chunk(self) -> int:
        slow = any(isinstance(m, _UNBATCHED) for m in self.model.modules())
        if self._wanted == "never" or (self._wanted == "auto" and slow):
            return 1
        per_point = self._bytes_of_one_point()
        cpu = self.device.type == "cpu"
        size = min((_CPU_BYTES if cpu else _DEVICE_BYTES) // max(per_point, 1), _LARGEST_CHUNK)
        if self._wanted == "always":
            return max(size, 2)
        return 1 if size < 2 or (cpu and per_point > _CPU_POINT) else size

    def _bytes_of_one_point(self) -> int:
        """Weights, and the outputs of all leaves for the first batch."""
        total = sum(w.numel() * w.element_size() for w in self.weights.values())
        sizes: list[int] = []

        def count(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                sizes.append(output.numel() * output.element_size())

        leaves = [m for m in self.model.modules() if not any(m.children())]
        handles = [m.register_forward_hook(count) for m in leaves]
        try:
            center = torch.zeros(1, len(self.moves), dtype=torch.float64)
            point = OneByOne(self.model, self.flat, self.loss, center)
            with self.random.replay(self.batches.generators):
                for part in self.batches:
                    point.losses(part)
                    break
        finally:
            for handle in handles:
                handle.remove()
        return total + sum(sizes)
