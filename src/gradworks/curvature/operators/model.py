"""What all operators of a model share: parameters, data, surroundings, weighted sums, processes."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradworks.curvature.operators.batches import Batches, Microbatch
from gradworks.curvature.operators.kept import GraphKeeper
from gradworks.curvature.operators.layout import (
    Layout,
    Selection,
    is_dtensor,
    select_parameters,
)
from gradworks.curvature.operators.selfcheck import self_check
from gradworks.curvature.operators.surroundings import (
    Mode,
    RandomState,
    double_backward_kernels,
    load_forward_mode,
    log_attention,
    model_mode,
)
from gradworks.curvature.operators.twice import (
    eager_code,
    has_weight_norm,
    look_for_breaks,
    recurrent_kernels,
    require_graph,
    say_what_is_missing,
    unwrapped,
    whole_weight_norm,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Method", "ModelOperator"]

Method = Literal["double_backward", "forward_over_reverse", "linearize", "finite_difference"]
METHODS = ("double_backward", "forward_over_reverse", "linearize", "finite_difference")
LossFn = Callable[[Any, Any], Tensor]


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """One of a few words."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


class ModelOperator(GraphKeeper):
    """Base of the Hessian, Gauss-Newton and Fisher operators; see those for the arguments."""

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
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable, got {type(loss_fn).__name__}")
        check_choice("mode", mode, ("eval", "train", "keep"))
        check_choice("reduction", reduction, ("mean", "sum"))
        # A reducer would wait for hooks that autograd.grad never runs; compiled code derives once.
        model = unwrapped(model)
        layout = Layout(select_parameters(model, params))
        self._refuse_shards(layout)
        self._model = model
        self._weight_norm = has_weight_norm(model)
        self._loss_fn = loss_fn
        self._mode: Mode = mode
        self._options: dict[str, Any] = {
            "method": method,
            "mode": mode,
            "microbatch_size": microbatch_size,
            "reduction": reduction,
            "cache": cache,
            "cache_bytes": cache_bytes,
            "process_group": process_group,
        }
        self._source = data
        batches = Batches(data, device=layout.device, microbatch_size=microbatch_size)
        self._start(layout, batches, method, reduction, cache, cache_bytes, process_group)
        log_attention(model)
        if (
            mode == "train"
            and microbatch_size is not None
            and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
        ):
            warnings.warn(
                "batch normalisation in train mode takes its statistics from each microbatch: "
                "the operator depends on microbatch_size; use mode='eval' or whole batches",
                UserWarning,
                stacklevel=3,
            )
        if check:
            self_check(self)

    def _refuse_shards(self, layout: Layout) -> None:
        """Without a graph of the outputs a product would come out as zeros, silently."""
        sharded = [n for n, p in zip(layout.names, layout.tensors) if is_dtensor(p)]
        if sharded:
            raise ValueError(
                f"{type(self).__name__} needs whole parameters, {sharded[0]} is sharded; "
                "only HessianOperator works under fully_shard"
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
        """The part of construction that closures share."""
        check_choice("method", method, METHODS)
        check_choice("cache", cache, ("auto", "always", "never"))
        if isinstance(cache_bytes, bool) or not isinstance(cache_bytes, int) or cache_bytes < 0:
            raise ValueError(f"cache_bytes must be an integer of at least 0, got {cache_bytes!r}")
        super().__init__(layout.size, dtype=layout.dtype, device=layout.device)
        if method in {"forward_over_reverse", "linearize"}:
            load_forward_mode()
        self._layout = layout
        self._batches = batches
        self._method = method
        self._mean = reduction == "mean"
        self._keep_graphs({"auto": cache_bytes, "always": None, "never": -1}[cache])
        self._group = process_group
        self._random = RandomState(layout.device)
        self._local_examples: int | None = None
        self._looked = False
        self._examples = 0

    # -- names and vectors ---------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Names of the parameters, in the order of the vector."""
        return list(self._layout.names)

    def flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        """One vector of tensors by name.

        Args:
            tensors: Exactly the operator's names, each in its parameter's shape.

        Returns:
            ``(P,)``.

        Raises:
            ValueError: A name is missing or unknown, or a shape differs.
        """  # noqa: DOC502
        return self._layout.flatten(tensors)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Tensors by name, views of one vector.

        Args:
            vector: ``(P,)``.

        Returns:
            A tensor in its parameter's shape for each name.

        Raises:
            ValueError: Wrong length.
        """  # noqa: DOC502
        return self._layout.unflatten(vector)

    def _multiply_dict(self, v: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.unflatten(self.matvec(self.flatten(v)))

    def block(self, name: Selection) -> Self:
        """The diagonal block of some parameters, as an operator of its own.

        Slicing a product with the whole matrix is not the block's product; this one is.

        Args:
            name: A name, glob pattern (``"layers.0.*"``), list of names or predicate.

        Returns:
            An operator of the same kind on those parameters.

        Raises:
            ValueError: The selection is empty.
        """
        mine = set(self._layout.names)
        wanted = [n for n in select_parameters(self._model, name) if n in mine]
        if not wanted:
            raise ValueError(
                f"block {name!r} has none of this operator's parameters; there are {self.names[:3]}"
            )
        return type(self)(self._model, self._loss_fn, self._source, params=wanted, **self._options)

    # -- surroundings ----------------------------------------------------------------------------

    @contextmanager
    def _conditions(self) -> Iterator[None]:
        """Everything a pass over the data needs, and everything put back after it."""
        generators = self._batches.generators if isinstance(self._batches, Batches) else []
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            double_backward_kernels(),
            recurrent_kernels(self._model, self.device),
            eager_code(),
            whole_weight_norm(self._weight_norm),
            model_mode(self._model, self._mode),
            self._random.replay(generators),
        ):
            yield

    def _forward(self, part: Microbatch, override: dict[str, Tensor] | None = None) -> Any:
        """Outputs; buffers are copies, so that the model's own never change."""
        swapped = {name: b.clone() for name, b in self._model.named_buffers()}
        if override is not None:
            swapped.update(override)
        if not swapped:
            return part.call(self._model)
        return part.call(
            lambda *args, **kwargs: functional_call(self._model, swapped, args, kwargs)
        )

    def _loss(self, part: Microbatch, override: dict[str, Tensor] | None = None) -> Tensor:
        """Loss of one microbatch."""
        return self._scalar(self._loss_fn(self._forward(part, override), part.targets), part)

    def _scalar(self, loss: object, part: Microbatch) -> Tensor:
        """The loss, or the reason why it is none."""
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss_fn must return a tensor, got {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(
                f"loss_fn must return one number, got shape {tuple(loss.shape)} for {part.label}; "
                "use reduction='mean' in the loss"
            )
        if loss.is_complex() or not loss.is_floating_point():
            raise ValueError(f"loss_fn must return a real number, got {loss.dtype}")
        return loss.reshape(())

    def _gradients(
        self, part: Microbatch, override: dict[str, Tensor] | None = None, *, graph: bool = False
    ) -> list[Tensor | None]:
        """First derivatives of one microbatch's loss, ``None`` where it does not depend."""
        loss = self._loss(part, override)
        self._require_graph(loss)
        params = (
            self._layout.tensors if override is None else [override[n] for n in self._layout.names]
        )
        with say_what_is_missing():
            grads: list[Tensor | None] = list(
                torch.autograd.grad(loss, params, create_graph=graph, allow_unused=True)
            )
        if not self._looked:
            self._layout.refuse_sparse(grads)
        if graph:
            self._look_for_breaks(grads)
        return grads

    def _look_for_breaks(self, grads: list[Tensor | None]) -> None:
        """Once: a hidden break of the graph would make products zero."""
        if not self._looked:
            look_for_breaks(grads)
            self._looked = True

    _require_graph = staticmethod(require_graph)

    # -- sums over the data and over processes -----------------------------------------------------

    def _weight(self, part: Microbatch) -> float:
        """Examples under ``reduction="mean"`` (divided by N at the end), one under ``"sum"``."""
        return float(part.size) if self._mean else 1.0

    def _parts(self) -> Iterator[Microbatch]:
        """The microbatches, counted; the count must be the same in every pass."""  # noqa: DOC402
        seen = 0
        for part in self._batches:
            seen += part.size
            yield part
        if self._local_examples is None:
            total = torch.tensor(float(seen), dtype=torch.float64, device=self.device)
            self._all_reduce(total)
            if total == 0:
                raise ValueError("data is empty; give at least one (inputs, targets) batch")
            self._local_examples, self._examples = seen, int(total)
        elif seen != self._local_examples:
            raise RuntimeError(
                f"data has changed: {seen} examples in this pass, {self._local_examples} before; "
                "use a data set of fixed length"
            )

    def _scale(self) -> float:
        """What a weighted sum is multiplied by; known after the first pass."""
        return 1.0 / self._examples if self._mean else 1.0

    def _all_reduce(self, value: Tensor) -> Tensor:
        """Sum over the processes of the group, in place."""
        if self._group is not None:
            torch.distributed.all_reduce(value, group=self._group)
        return value

    def _weighted_sum(self, term: Callable[[Microbatch], Tensor]) -> Tensor:
        """The mean (or sum) of a quantity over all microbatches of all processes."""
        total: Tensor | None = None
        with self._conditions():
            for part in self._parts():
                value = term(part).detach() * self._weight(part)
                total = value if total is None else total.add_(value)
        if total is None:  # this process has no data, others have
            total = torch.zeros(self._layout.size, dtype=self.dtype, device=self.device)
        return self._all_reduce(total * self._scale())

    def synchronize(self, v: Tensor) -> Tensor:
        """The vector of process 0 of the group.

        Args:
            v: ``(P,)``, overwritten on the other processes.

        Returns:
            ``v``.
        """
        if self._group is not None:
            source = torch.distributed.get_global_rank(self._group, 0)
            torch.distributed.broadcast(v, source, group=self._group)
        return v

    # -- values --------------------------------------------------------------------------------

    def loss(self) -> Tensor:
        """The loss over all data.

        Returns:
            A scalar without a graph.

        Raises:
            FloatingPointError: The loss of a batch is not finite.
        """  # noqa: DOC502

        def term(part: Microbatch) -> Tensor:
            with torch.no_grad():
                value = self._loss(part)
            if not bool(torch.isfinite(value)):
                raise FloatingPointError(f"loss of {part.label} is {value.item()}")
            return value.reshape(1)

        return self._weighted_sum(term)[0]

    def gradient(self) -> Tensor:
        """The gradient of the loss over all data; ``.grad`` is not touched.

        Returns:
            ``(P,)``.

        Raises:
            FloatingPointError: The gradient of a batch is not finite.
        """  # noqa: DOC502

        def term(part: Microbatch) -> Tensor:
            value = self._layout.join(self._gradients(part))
            if not bool(torch.isfinite(value).all()):
                raise FloatingPointError(f"gradient of {part.label} is not finite")
            return value

        return self._weighted_sum(term)

    # -- errors ------------------------------------------------------------------------------------

    @abstractmethod
    def _term(self, part: Microbatch, v: Tensor) -> Tensor:
        """The product of one microbatch's matrix, no graph kept."""

    def diagnose(self, v: Tensor) -> None:
        """Find the batch whose product is not finite and name it.

        Args:
            v: The vector, ``(P,)``.

        Raises:
            FloatingPointError: Always.
        """
        if bool(torch.isfinite(v).all()):
            with self._conditions():
                for part in self._parts():
                    if not bool(torch.isfinite(self._term(part, v)).all()):
                        with torch.no_grad():
                            loss = float(self._loss(part))
                        raise FloatingPointError(
                            f"product of {type(self).__name__} is not finite in {part.label} "
                            f"(loss {loss:g}); check that batch for NaN and overflow"
                        )
        super().diagnose(v)
