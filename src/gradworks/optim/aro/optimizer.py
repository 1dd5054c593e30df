"""ARO: a base map in a frame that is turned towards what the map does to the momentum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from gradworks.optim.arguments import betas_of, flags, in_interval, integer_at_least
from gradworks.optim.aro.directions import Settings
from gradworks.optim.aro.layout import ORIENTATIONS, Layout, layout_of
from gradworks.optim.aro.maps import BASES, SINKHORN, BaseMap, base_map
from gradworks.optim.aro.paths import Matrix, Rule, Together, multi_tensor_aro, single_tensor_aro
from gradworks.optim.aro.rotations import ROTATIONS
from gradworks.optim.aro.shards import sharded_aro, sharded_zeros
from gradworks.optim.checked import CheckedOptimizer, load_with_hooks
from gradworks.optim.dct_adamw.dense import DenseTensors, multi_tensor_adamw, single_tensor_adamw
from gradworks.optim.precision import work_dtype
from gradworks.optim.sharded import is_sharded, refuse_partial
from gradworks.optim.steps import new_step, refuse_capture
from gradworks.optim.tensors import choose_path, refuse_sparse, to_real

__all__ = ["ARO"]

ALGORITHMS = ("aro", "adamw")


class ARO(CheckedOptimizer):
    r"""Steps of a base map in rotated coordinates, with a rotation that the map itself asks for.

    For pre-training of transformers, for those who have Muon or SOAP. A learning rate tuned for
    AdamW can be kept: all updates have the root mean square of AdamW's.

    .. math::
        M_t &= \beta M_{t-1} + (1 - \beta) G_t \\
        R_t &= \text{Q-factor} \left( M_t \, f(R_{t-1}^T M_t)^T \right) \\
        D_t &= R_t \, f(R_t^T M_t), \qquad
        D_t \leftarrow \frac{\rho \sqrt{m n}}{\lVert D_t \rVert_F} D_t \\
        W_t &= (1 - \eta \lambda) W_{t-1} - \eta D_t

    with f five rounds of :func:`~gradworks.optim.aro.sinkhorn`. Momentum and rotation are of the
    weight oriented to (m, n): by default m is the smaller dimension.

    Args:
        params: Parameters, named parameters or groups. Weights of two dimensions or more take the
            steps above, convolutions as (out, rest); all others AdamW's with the same ``lr`` and
            ``weight_decay``. Embeddings and heads belong into a group with ``algorithm="adamw"``:
            :func:`~gradworks.optim.aro.transformer_groups` makes it.
        lr: Step :math:`\eta`, at least 0, a number or a tensor of one element; 1e-3.
        momentum: :math:`\beta` in [0, 1); 0.95.
        nesterov: Rotate the gradient mixed into the momentum once more.
        weight_decay: Decoupled decay :math:`\lambda`, at least 0; 0.1.
        base: Map f: "sinkhorn", "sign", "row" (rows of equal norm), "adam" (second moments in
            rotated coordinates), or a function of a batch of matrices, without state.
        base_steps: Rounds of Sinkhorn, at least 1; 5.
        sinkhorn: Their order, "simultaneous" or "alternating".
        rotation: "qr" (Householder), "scqr" (Cholesky factor of a shifted Gram matrix; fast on
            accelerators, orthogonal only for well-conditioned matrices), "scqr2" (twice, orthogonal
            to rounding) or "polar" (for study).
        qr_eps: Shift of "scqr" and "scqr2", above 0; 1e-6.
        rotation_every: Steps from rotation to rotation, at least 1; 1.
        update_rms: Root mean square :math:`\rho` of an update, above 0; None leaves its size to f;
            0.2.
        orientation: "auto" (transposed where there are more rows than columns), "rows" (never),
            "columns" (always). The dimension that m is should be the residual stream's.
        algorithm: "adamw": no parameter of a group is rotated.
        betas: Decay of AdamW's moments; the second also of base "adam"; (0.9, 0.95).
        eps: Added to their denominators; 1e-8.
        maximize: Ascend instead.
        foreach: One product and factorization for all weights of a shape; None: yes.
        capturable: Keep ``step`` on the device, for CUDA graphs.
        batch_dims: Leading dimensions that count weights, of experts for example; 0.
        share_rotation: One rotation for all weights of a group with the same m: give each layer a
            group.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is out of range, a name unknown, or a weight is to be rotated along
            the larger dimension by "scqr", which has no answer there.
        RuntimeError: If a parameter is complex or flat (FSDP1), or a gradient sparse.

    Note:
        Second-hand and our own choices: no code was released, and the published text was not at
        hand. A rotation stays where its matrix is zero or not finite; rows of the rotated momentum
        that are rounding noise are cleared before f. Weights that never had a gradient rest. A
        gradient with NaN or infinity is passed over: the weight goes on along its momentum. AdamW's
        parameters step with it, as in ``torch.optim``.
        Sharded weights are gathered, one a process, and their direction sent to all.

        Flops 8 m^2 n and a QR of (m, m), against Muon's 20 m^2 n + 10 m^3. State: momentum and an
        (m, m) rotation, kept in float32 at least; with base "adam" one tensor more.

    Example:
        >>> import torch
        >>> from gradworks.optim import ARO
        >>> weight = torch.nn.Parameter(torch.zeros(2, 2))
        >>> opt = ARO([weight], lr=1.0, base="row")
        >>> weight.grad = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
        >>> opt.step()
        >>> [round(x, 4) for x in weight.data.diagonal().tolist()]
        [-0.2828, -0.2828]

    References:
        "ARO: A New Lens On Matrix Optimization For Large Models", 2026, arXiv:2602.09006.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = False,
        weight_decay: float = 0.1,
        base: str | BaseMap = "sinkhorn",
        base_steps: int = 5,
        sinkhorn: str = "simultaneous",
        rotation: str = "qr",
        qr_eps: float = 1e-6,
        rotation_every: int = 1,
        update_rms: float | None = 0.2,
        orientation: str = "auto",
        algorithm: str = "aro",
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        batch_dims: int = 0,
        share_rotation: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "base": base,
            "base_steps": base_steps,
            "sinkhorn": sinkhorn,
            "rotation": rotation,
            "qr_eps": qr_eps,
            "rotation_every": rotation_every,
            "update_rms": update_rms,
            "orientation": orientation,
            "algorithm": algorithm,
            "betas": betas,
            "eps": eps,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "batch_dims": batch_dims,
            "share_rotation": share_rotation,
        }
        super().__init__(params, defaults)

    @staticmethod
    def _check_settings(group: dict[str, Any]) -> None:
        """What ARO takes."""
        in_interval("momentum", group["momentum"], closed=False)
        betas_of(group["betas"])
        for name, names in (
            ("sinkhorn", SINKHORN),
            ("rotation", ROTATIONS),
            ("orientation", ORIENTATIONS),
            ("algorithm", ALGORITHMS),
        ):
            if group[name] not in names:
                raise ValueError(f"{name} must be one of {', '.join(names)}, got {group[name]!r}")
        base = group["base"]
        if isinstance(base, str) and base not in BASES:
            raise ValueError(f"base must be one of {', '.join(BASES)}, got {base!r}")
        if not isinstance(base, str) and not callable(base):
            raise TypeError(f"base must be a name or a function, got {type(base).__name__}")
        for name in ("base_steps", "rotation_every"):
            integer_at_least(name, group[name], 1)
        integer_at_least("batch_dims", group["batch_dims"], 0)
        _above_zero("qr_eps", group["qr_eps"])
        if group["update_rms"] is not None:
            _above_zero("update_rms", group["update_rms"])
        flags(group, "share_rotation")
        if group["share_rotation"] and (base == "adam" or group["batch_dims"]):
            raise ValueError("share_rotation=True takes neither base='adam' nor batch_dims")

    @staticmethod
    def _check_param(group: dict[str, Any], param: Tensor) -> None:
        """No complex weights; no tall ones where the factorization fails."""
        refuse_partial(param)
        if param.is_complex():
            raise RuntimeError(
                f"ARO does not take complex parameters, got one of shape {tuple(param.shape)}; "
                "make it two real ones"
            )
        layout = layout_of(group, param)
        if layout and layout.m > layout.n and group["rotation"] in {"scqr", "scqr2"}:
            raise ValueError(
                f"rotation={group['rotation']!r} needs m <= n, a weight of shape "
                f"{tuple(param.shape)} is rotated along {layout.m} > {layout.n} under "
                f"orientation={group['orientation']!r}; take rotation='qr' or orientation='auto'"
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint: rotations keep their precision, shared ones are one again.

        Args:
            state_dict: What ``state_dict()`` gave.

        Raises:
            ValueError: If the groups differ, or a parameter's state is of another kind or
                orientation than its group asks for.
        """  # noqa: DOC502
        state_dict = load_with_hooks(self, super().load_state_dict, state_dict)
        for group, saved in zip(self.param_groups, state_dict["param_groups"]):
            for param, key in zip(group["params"], saved["params"]):
                found = self.state.get(param)
                if not found:
                    continue
                _check_loaded(group, param, found)
                given = state_dict["state"].get(key, {})
                for name in ("rotation", "second_moment"):
                    if name in found:
                        found[name] = (
                            given[name]
                            .detach()
                            .to(device=found[name].device, dtype=work_dtype(param.dtype), copy=True)
                        )
            if group["share_rotation"]:
                for members in self._sharing(group):
                    for param in members[1:]:
                        self.state[param]["rotation"] = self.state[members[0]]["rotation"]

    def _sharing(self, group: dict[str, Any]) -> list[list[Tensor]]:
        """Parameters with state that share a rotation."""
        found: dict[Any, list[Tensor]] = {}
        for param in group["params"]:
            layout = layout_of(group, param)
            if layout is not None and self.state.get(param):
                found.setdefault(_frame(param, layout), []).append(param)
        return list(found.values())

    def _start_matrix(
        self, group: dict[str, Any], param: Tensor, layout: Layout, state: dict[str, Any]
    ) -> None:
        """Zero momentum, and the frame of the weight or of those it shares it with."""
        shape = (*layout.lead, layout.m, layout.n)
        work = work_dtype(param.dtype)
        rotation = None
        if group["share_rotation"]:
            for members in self._sharing(group):
                if _frame(members[0], layout_of(group, members[0])) == _frame(param, layout):
                    rotation = self.state[members[0]]["rotation"]
        if rotation is None:
            eye = torch.eye(layout.m, dtype=work, device=param.device)
            rotation = eye.expand(*layout.lead, layout.m, layout.m).clone()
        state["step"] = new_step(param, group)
        state["momentum"] = (
            sharded_zeros(param, layout)
            if is_sharded(param)
            else torch.zeros(shape, dtype=param.dtype, device=param.device)
        )
        state["rotation"] = rotation
        if group["base"] == "adam":
            state["second_moment"] = torch.zeros(shape, dtype=work, device=param.device)

    def _sorted(self, group: dict[str, Any], traced: bool) -> tuple[list[Together], DenseTensors]:
        """Weights with a gradient by rotation, and AdamW's parameters, local."""
        found: dict[Any, list[tuple[Tensor, Layout]]] = {}
        dense = DenseTensors([], [], [], [], [])
        for i, param in enumerate(group["params"]):
            if param.grad is None:
                continue
            refuse_sparse("ARO", param)
            state = self.state[param]
            layout = layout_of(group, param)
            if layout is not None:
                if not state:
                    self._start_matrix(group, param, layout, state)
                key = _frame(param, layout) if group["share_rotation"] else i
                found.setdefault(key, []).append((param, layout))
                continue
            if not state:
                state["step"] = new_step(param, group)
                for name in ("exp_avg", "exp_avg_sq"):
                    state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)
            tensors = (param, param.grad, state["exp_avg"], state["exp_avg_sq"], state["step"])
            for held, tensor in zip(dense, tensors):
                held.append(tensor)
        to_real(*dense[:4])
        return [self._together(group, members, traced) for members in found.values()], dense

    def _together(
        self, group: dict[str, Any], members: list[tuple[Tensor, Layout]], traced: bool
    ) -> Together:
        """Weights of one rotation, a step counted."""
        matrices = []
        for param, layout in members:
            self.state[param]["step"] += 1
            grad: Any = param.grad
            matrices.append(Matrix(param, grad, self.state[param]["momentum"], layout))
        state = self.state[members[0][0]]
        every = group["rotation_every"]
        due: bool | Tensor = True
        if every > 1 and traced:
            due = (state["step"] - 1) % every == 0
        elif every > 1:
            due = (int(state["step"]) - 1) % every == 0
        return Together(matrices, state["rotation"], state.get("second_moment"), due)

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
            traced = group["capturable"] or torch.compiler.is_compiling()
            items, dense = self._sorted(group, traced)
            refuse_capture("ARO", group["params"], group["capturable"])
            lr = group["lr"].squeeze() if isinstance(group["lr"], Tensor) else group["lr"]
            rule = _rule(group, lr)
            sharded = [item for item in items if is_sharded(item.matrices[0].param)]
            whole = [item for item in items if not is_sharded(item.matrices[0].param)]
            (single_tensor_aro if group["foreach"] is False else multi_tensor_aro)(whole, rule)
            if sharded:
                sharded_aro(sharded, rule)
            decay = group["weight_decay"]
            plain: dict[str, Any] = {
                "lr": lr,
                "beta1": group["betas"][0],
                "beta2": group["betas"][1],
                "eps": group["eps"],
                "weight_decay": lr * decay if decay != 0 else 0.0,
                "maximize": group["maximize"],
                "traced": traced,
            }
            path = choose_path(
                dense.params, foreach=group["foreach"], fused=None, differentiable=False
            )
            (multi_tensor_adamw if path == "foreach" else single_tensor_adamw)(dense, **plain)
        return loss


def _rule(group: dict[str, Any], lr: float | Tensor) -> Rule:
    """What of a group a step of matrices depends on."""
    base = group["base"]
    settings = Settings(
        None if base == "adam" else base_map(base, group["base_steps"], group["sinkhorn"]),
        group["rotation"],
        group["qr_eps"],
        group["update_rms"],
        group["betas"][1],
        group["eps"],
    )
    return Rule(
        lr, group["momentum"], group["nesterov"], group["weight_decay"], group["maximize"], settings
    )


def _frame(param: Any, layout: Layout | None) -> Any:
    """Weights with the same can share a rotation."""
    mesh = param.device_mesh if is_sharded(param) else None
    return layout and (layout.m, param.dtype, param.device, mesh)


def _check_loaded(group: dict[str, Any], param: Tensor, found: dict[str, Any]) -> None:
    """State of the kind that the group's settings ask for."""
    layout = layout_of(group, param)
    want: dict[str, tuple[int, ...]] = {"exp_avg": tuple(param.shape)}
    if layout is not None:
        want = {"momentum": (*layout.lead, layout.m, layout.n)}
        if group["base"] == "adam":
            want["second_moment"] = want["momentum"]
    for name, shape in want.items():
        if name not in found or tuple(found[name].shape) != shape:
            raise ValueError(
                f"the checkpoint holds no {name} of shape {shape} for a parameter of shape "
                f"{tuple(param.shape)}; it was written under another algorithm, orientation, base "
                "or batch_dims"
            )


def _above_zero(name: str, value: object) -> None:
    """Require a number above 0, and finite.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not 0.0 < value < float("inf"):
        raise ValueError(f"{name} must be above 0 and finite, got {value!r}")
