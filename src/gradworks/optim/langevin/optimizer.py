"""Langevin dynamics as a ``torch.optim`` optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from gradworks.optim.checked import CheckedOptimizer
from gradworks.optim.langevin.dynamics import (
    check_manifold,
    check_temperature,
    langevin_step,
    many_steps,
    noise_scale,
    normal,
    one_step,
)
from gradworks.optim.precision import in_work_dtype, work_dtype
from gradworks.optim.sharded import is_sharded, refuse_partial
from gradworks.optim.tensors import choose_path

__all__ = ["Langevin"]


class Langevin(CheckedOptimizer):
    r"""Gradient descent with noise, on spheres or in space: samples :math:`\exp(-L/\varepsilon)`.

    For sampling, and with :class:`IterateAverage` for finding a direction that no single iterate
    shows. Not a faster optimizer: at the temperatures of interest the loss hardly falls. On a
    sphere each row (last dimension) of a parameter keeps its norm, which suits weights that a
    normalization follows.

    .. math::
        v &= -\eta g + \sqrt{2 \eta \varepsilon}\, \xi, \qquad
        v \leftarrow v - \frac{\langle v, \theta \rangle}{\lVert \theta \rVert^2} \theta \\
        \theta &\leftarrow \lVert \theta \rVert \frac{\theta + v}{\lVert \theta + v \rVert}

    Args:
        params: Parameters, named parameters or groups.
        lr: Step :math:`\eta`, above 0, a number or a tensor of one element. For a sphere in d
            dimensions ``0.05 / (temperature * d)`` follows the dynamics closely and four times
            as much still does well.
        temperature: :math:`\varepsilon`, at least 0; 0 is descent and draws nothing.
        manifold: ``"sphere"``, or ``"euclidean"`` (SGLD where the gradient is a minibatch's).
        generator: Source of the noise: one ``normal_`` of each parameter with a gradient, in their
            order, at every step. It may live on another device; None: torch's. Its state is part of
            ``state_dict()``.
        maximize: Ascend instead; the noise is the same.
        foreach: Multi-tensor path; None: on accelerators.

    Attributes:
        generator: The source of the noise.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is out of range, or a parameter has no sphere: fewer than 2 entries
            in its last dimension, or a row of norm 0.
        RuntimeError: If a gradient is sparse, a parameter flat (FSDP1) or a partial sum, or a
            sharded parameter (``DTensor``) has no ``generator``.

    Note:
        ``lr`` and ``temperature`` may be changed in ``param_groups`` at any time. A row (in space:
        an entry) whose gradient has NaN or infinity rests for this step, and so does a row whose
        squares overflow; its noise is drawn all the same. No state beside the generator's.

        Replicas (DDP) and shards (``DTensor``) stay together if each process is given a generator
        with the same seed: shards take their part of the whole parameter's noise, so that sharding
        does not change the trajectory. ``torch.compile`` cannot follow a generator; with
        ``generator=None`` it draws its own numbers.

        Complex parameters are pairs of reals, a complex row a sphere of twice the dimension.
        Parameters of 16 bits: noise and arithmetic in float32.

        About 12N flops and N normal numbers a step.

    Example:
        >>> import torch
        >>> from gradworks.optim.langevin import Langevin
        >>> theta = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        >>> noise = torch.Generator().manual_seed(0)
        >>> optimizer = Langevin([theta], lr=0.01, temperature=0.5, generator=noise)
        >>> for _ in range(3):
        ...     theta.grad = theta.detach() * torch.tensor([1.0, -1.0])
        ...     optimizer.step()
        >>> theta.norm(dim=1).data
        tensor([5.0000, 1.0000])

    References:
        "Improved high-dimensional estimation with Langevin dynamics and stochastic weight
        averaging", 2026, arXiv:2603.06028.
    """

    _counts = False

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        temperature: float,
        *,
        manifold: str = "sphere",
        generator: torch.Generator | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator or None, got {type(generator).__name__}"
            )
        self.generator = generator
        defaults = {
            "lr": lr,
            "temperature": temperature,
            "manifold": manifold,
            "maximize": maximize,
            "foreach": foreach,
        }
        super().__init__(params, defaults)

    @staticmethod
    def _check_settings(group: dict[str, Any]) -> None:
        """A step of size 0 would be a chain that never moves."""
        if float(group["lr"]) == 0:
            raise ValueError("lr must be above 0, got 0")
        check_temperature(group["temperature"])
        check_manifold(group["manifold"])

    @staticmethod
    def _check_param(group: dict[str, Any], param: Tensor) -> None:
        """On a sphere: rows that have a direction."""
        refuse_partial(param)
        if group["manifold"] != "sphere":
            return
        shape = tuple(param.shape)
        entries = (shape[-1] if shape else 1) * (2 if param.is_complex() else 1)
        if not shape or entries < 2:
            raise ValueError(
                "a parameter on the sphere must have at least 2 entries in its last dimension, got "
                f"shape {shape}; put it into a group with manifold='euclidean'"
            )
        if param.is_meta:
            return
        norms = torch.linalg.vector_norm(param.detach(), dim=-1)
        if is_sharded(norms):
            norms = norms.full_tensor()
        if bool((norms == 0).any()):
            raise ValueError(
                f"a parameter on the sphere must not have a row of norm 0, got one in shape {shape}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """The generator too, so that copies and pickles go on alike."""
        return {**super().__getstate__(), "generator": self.generator}

    def state_dict(self) -> dict[str, Any]:
        """Return groups and the state of the generator, if there is one.

        Returns:
            What ``load_state_dict`` needs to go on bit for bit.
        """
        found: dict[str, Any] = super().state_dict()
        if self.generator is not None:
            place = str(self.generator.device)
            found["generator"] = {"device": place, "state": self.generator.get_state()}
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take groups and the generator's state; a generator is made where there is none.

        Args:
            state_dict: From :meth:`state_dict`.
        """
        kept = {name: value for name, value in state_dict.items() if name != "generator"}
        super().load_state_dict(kept)
        saved = state_dict.get("generator")
        if saved is not None:
            if self.generator is None:
                self.generator = torch.Generator(device=saved["device"])
            self.generator.set_state(saved["state"].cpu())

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one step.

        Args:
            closure: Reevaluates the model and returns the loss.

        Returns:
            The closure's loss, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params, grads = self._collect(group)
            if params:
                self._step_group(group, params, grads)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """One step of one group."""
        temperature, lr = group["temperature"], group["lr"]
        if isinstance(lr, Tensor):
            lr = lr.squeeze()
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        noises = [self._noise(p) if temperature > 0 else None for p in params]
        plain = []
        for i, param in enumerate(params):
            if is_sharded(param):
                dtype = work_dtype(param.dtype)
                here, grad = param.to(dtype), grads[i].to(dtype)
                new = langevin_step(here, grad, noises[i], lr, temperature, group["manifold"])
                param.copy_(torch.where((new - new) == 0, new, here))
            else:
                plain.append(i)
        p = [params[i] for i in plain]
        rows = [_reals(x) for x in p]
        g = [_reals(grads[i]) for i in plain]
        work = in_work_dtype(rows)
        g = [x.to(y.dtype) for x, y in zip(g, work)]
        self._step_plain(group, work, g, [noises[i] for i in plain], lr)
        for x, y, z in zip(p, rows, work):
            if y is not z or x.is_complex():
                x.copy_(_like(z, x))

    def _step_plain(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        noises: list[Tensor | None],
        lr: float | Tensor,
    ) -> None:
        """One step of real tensors of this process, in place."""
        settings: dict[str, Any] = {
            "lr": lr,
            "scale": noise_scale(lr, group["temperature"]),
            "sphere": group["manifold"] == "sphere",
        }
        path = choose_path(params, foreach=group["foreach"], fused=None, differentiable=False)
        if path == "single":
            for tensors in zip(params, grads, noises):
                one_step(*tensors, **settings)
            return
        together: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, param in enumerate(params):
            together.setdefault((param.device, param.dtype), []).append(i)
        for members in together.values():
            drawn = [x for i in members if (x := noises[i]) is not None]
            many_steps(
                [params[i] for i in members],
                [grads[i] for i in members],
                drawn or None,
                **settings,
            )

    def _noise(self, param: Tensor) -> Tensor:
        """Standard normal numbers for one parameter, as reals of the dtype of the arithmetic."""
        if is_sharded(param):
            return self._shard_of_noise(param)
        shape = param.shape
        if param.is_complex():
            shape = torch.Size([*shape[:-1], 2 * shape[-1]] if shape else [2])
        dtype = work_dtype(param.dtype.to_real())
        like = torch.empty((), dtype=dtype, device=param.device).expand(shape)
        return normal(like, self.generator)

    def _shard_of_noise(self, param: Tensor) -> Tensor:
        """This process's part of the noise that the whole parameter would get."""
        from torch.distributed.tensor import distribute_tensor

        if self.generator is None:
            raise RuntimeError(
                f"a sharded parameter of shape {tuple(param.shape)} needs generator=, seeded alike "
                "on every process, so that all draw the same noise"
            )
        dtype = work_dtype(param.dtype)
        whole = torch.empty((), dtype=dtype, device=param.device).expand(param.shape)
        return distribute_tensor(
            normal(whole, self.generator),
            param.device_mesh,  # type: ignore[attr-defined]
            param.placements,  # type: ignore[attr-defined]
            src_data_rank=None,  # every process has drawn all of it
        )


def _reals(tensor: Tensor) -> Tensor:
    """Real and imaginary parts side by side in the last dimension."""
    if not tensor.is_complex():
        return tensor
    return torch.view_as_real(tensor.resolve_conj()).flatten(-2 if tensor.ndim else -1)


def _like(rows: Tensor, tensor: Tensor) -> Tensor:
    """The inverse of :func:`_reals`."""
    if not tensor.is_complex():
        return rows
    pairs = rows.reshape(*tensor.shape, 2).contiguous()
    return torch.view_as_complex(pairs)
