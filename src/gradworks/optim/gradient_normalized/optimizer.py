"""The same method for the parameters of a model: one outer iteration a ``step``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from gradworks.optim.gradient_normalized.arguments import check_hessian, check_settings
from gradworks.optim.gradient_normalized.curvature import HessianSpec, Solver, exact, given
from gradworks.optim.gradient_normalized.metric import Metric
from gradworks.optim.gradient_normalized.search import Point, Search
from gradworks.optim.gradient_normalized.solves import Curvature, prepare
from gradworks.optim.sharded import is_sharded

__all__ = ["GradientNormalizedNewton"]

_SETTINGS = (
    "gamma0", "gamma_min", "eps", "max_trials", "adaptive", "strict", "solver", "cg_tol",
    "cg_max_iter",
)  # fmt: skip


class GradientNormalizedNewton(Optimizer):
    r"""Gradient-regularised Newton for a model: nothing to tune, one search a step.

    .. math:: \theta \leftarrow \theta - (H + \tfrac{\|g\|_*}{\gamma} B)^{-1} g

    with :math:`\gamma` halved until the loss falls by :math:`\|g_+\|_*^2 \gamma / (8 \|g\|_*)`, and
    doubled then. For full-batch or large-batch problems whose loss is deterministic: dropout off,
    the same batch for all calls of the closure. Not for noisy gradients.

    Args:
        params: Parameters, one group, all of one real dtype on one device.
        gamma0: First radius, above 0; 1.
        gamma_min: Least radius after a step, at least 0; 1e-9.
        eps: Added to the radius, above 0; 1e-8.
        max_trials: Trials a step, at least 1; 41.
        metric: B over the flat vector of all parameters, ``(n,)`` or ``(n, n)``; None: identity.
        adaptive: False takes every step with ``gamma0``.
        strict: The authors' test to the letter; see :func:`minimize`.
        solver: ``"cholesky"``, ``"woodbury"``, ``"cg"`` or ``"auto"`` by the Hessian's type.
        cg_tol: Relative residual of conjugate gradients, in (0, 1); 1e-6.
        cg_max_iter: Products a trial, at least 1; None: ten times n.

    Raises:
        TypeError: If an argument is of the wrong type; complex parameters; a step without closure.
        ValueError: If a number is out of range, or there is no parameter or more than one group.
        RuntimeError: If a parameter is sharded (``DTensor``).

    Note:
        State: ``gamma``, ``n_trials`` (systems solved so far), ``grad_norm`` and ``status`` of the
        last step (``"accepted"``, ``"stationary"``, or ``"search_failed"``: the parameters are then
        as they were). ``.grad`` is neither read nor written.

    Example:
        >>> import torch
        >>> from gradworks.optim.gradient_normalized import GradientNormalizedNewton
        >>> weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        >>> opt = GradientNormalizedNewton([weight])
        >>> target = torch.tensor([0.3, 0.7], dtype=torch.float64)
        >>> loss_of = lambda w: torch.logsumexp(w, 0) - w @ target
        >>> for _ in range(20):
        ...     loss = opt.step(lambda: loss_of(weight))
        >>> round(float(weight.softmax(0)[0].detach()), 6)
        0.3

    References:
        "Gradient-Normalized Smoothness for Optimization with Approximate Hessians", 2025,
        arXiv:2506.13710, Algorithm 1.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        gamma0: float = 1.0,
        gamma_min: float = 1e-9,
        eps: float = 1e-8,
        max_trials: int = 41,
        metric: Tensor | None = None,
        adaptive: bool = True,
        strict: bool = False,
        solver: Solver = "auto",
        cg_tol: float = 1e-6,
        cg_max_iter: int | None = None,
    ) -> None:
        defaults = {
            "gamma0": gamma0,
            "gamma_min": gamma_min,
            "eps": eps,
            "max_trials": max_trials,
            "metric": metric,
            "adaptive": adaptive,
            "strict": strict,
            "solver": solver,
            "cg_tol": cg_tol,
            "cg_max_iter": cg_max_iter,
        }
        super().__init__(params, defaults)
        self._metric_of: tuple[Tensor | None, Metric] | None = None
        if metric is not None:
            self._metric(self._flat())

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the one group.

        Raises:
            ValueError: If there is one already, or a number is out of range.
            TypeError: If a setting is of the wrong type, or parameters are complex or mixed.
            RuntimeError: If a parameter is sharded.
        """  # noqa: DOC502
        if self.param_groups:
            raise ValueError(
                "GradientNormalizedNewton takes exactly one parameter group: its metric and its "
                "radius belong to all parameters together"
            )
        if isinstance(param_group, dict):
            settings = {**self.defaults, **param_group}
            check_settings(**{name: settings[name] for name in _SETTINGS})
        super().add_param_group(param_group)
        params = self.param_groups[0]["params"]
        problem = _unfit(params)
        if problem is not None:
            self.param_groups.clear()
            raise problem

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Forget the factored metric, which is made anew."""
        super().__setstate__(state)
        self._metric_of = None

    def _params(self) -> list[Tensor]:
        return list(self.param_groups[0]["params"])

    def _flat(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self._params()])

    def _metric(self, like: Tensor) -> Metric:
        """The metric, factored once."""
        given = self.param_groups[0]["metric"]
        if self._metric_of is None or self._metric_of[0] is not given:
            self._metric_of = (given, Metric(given, like))
        return self._metric_of[1]

    @torch.no_grad()
    def _move(self, x: Tensor, *, for_good: bool = False) -> None:
        """Write a flat vector into the parameters.

        A trial is written behind autograd's back: graphs that were recorded at the start of the
        step hold again once the start has been put back.
        """
        params = self._params()
        for param, part in zip(params, torch.split(x, [p.numel() for p in params])):
            (param if for_good else param.data).copy_(part.view_as(param))

    def _gradient(
        self, closure: Callable[[], Tensor], *, graph: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients at the parameters as they are."""
        params = self._params()
        with torch.enable_grad():
            loss = closure()
            if not isinstance(loss, Tensor):
                raise TypeError(f"closure must return the loss, got {type(loss).__name__}")
            if loss.numel() != 1:
                raise ValueError(
                    f"closure must return a scalar loss, got shape {tuple(loss.shape)}"
                )
            if not loss.requires_grad:
                raise RuntimeError(
                    "the loss does not depend on the parameters through autograd; the closure "
                    "must compute it with gradients on and without calling backward()"
                )
            try:
                grads = torch.autograd.grad(
                    loss.reshape(()), params, create_graph=graph, allow_unused=True
                )
            except RuntimeError as error:
                if "a second time" in str(error):
                    raise RuntimeError(
                        "the closure must return the loss without calling backward()"
                    ) from error
                raise
        return loss.detach(), [
            torch.zeros_like(p) if g is None else g for g, p in zip(grads, params)
        ]

    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Tensor] | None = None,
        hessian: HessianSpec = "exact",
    ) -> Tensor:
        """Perform one outer iteration: one Hessian, trials until the loss falls.

        Args:
            closure: Returns the loss without calling ``backward``; called once for the start and
                once a trial, and must give the same value for the same parameters.
            hessian: ``"exact"``, ``"zero"``, an operator of the model (such as :func:`ggn`), or a
                function of the flat vector of parameters.

        Returns:
            The loss before the step, 0-d.

        Raises:
            TypeError: If there is no closure, or it returns something else.
            ValueError: If the loss is no scalar, or the Hessian's shape does not fit.
            FloatingPointError: If loss or gradient is not finite before the step.
            RuntimeError: If the loss has no graph.
        """  # noqa: DOC502
        if closure is None:
            raise TypeError("GradientNormalizedNewton.step needs a closure that returns the loss")
        check_hessian(hessian)
        group = self.param_groups[0]
        params = self._params()
        state = self.state[params[0]]
        if not state:
            state.update(gamma=float(group["gamma0"]), n_trials=0)

        loss, grads = self._gradient(closure, graph=hessian == "exact")
        x = self._flat()
        metric = self._metric(x)
        g = torch.cat([grad.detach().reshape(-1) for grad in grads])
        here = Point(x, float(loss), g, float(metric.dual_norm(g)))
        if not (math.isfinite(here.fun) and math.isfinite(here.grad_norm)):
            raise FloatingPointError(
                f"the loss is {here.fun} and its gradient's norm {here.grad_norm}; the parameters "
                "were not changed"
            )
        state["grad_norm"] = here.grad_norm
        if here.grad_norm == 0:
            state["status"] = "stationary"
            return loss

        H: Curvature
        if hessian == "zero":
            H = None
        elif hessian == "exact":
            H = exact(grads, params, n=x.numel(), solver=group["solver"])
        else:
            H = given(hessian, x, group["solver"])
        solve = prepare(H, g, metric, cg_tol=group["cg_tol"], cg_max_iter=group["cg_max_iter"])
        search = Search(
            metric,
            group["gamma_min"],
            group["eps"],
            group["max_trials"],
            group["adaptive"],
            group["strict"],
        )

        def step_from(lam: float) -> Tensor | None:
            self._move(x)  # an operator of the model reads its parameters: not those of a trial
            return solve.step(lam)

        def evaluate(at: Tensor) -> tuple[Tensor, Tensor]:
            self._move(at)
            value, parts = self._gradient(closure, graph=False)
            return value, torch.cat([part.reshape(-1) for part in parts])

        try:
            found = search.iterate(here, step_from, state["gamma"], evaluate)
        except BaseException:
            self._move(x)
            raise
        state["gamma"] = found.gamma
        state["n_trials"] += found.n_solves
        self._move(x)
        if found.point is None:
            state["status"] = "search_failed"
        else:
            self._move(found.point.x, for_good=True)
            state["status"] = "accepted"
        return loss


def _unfit(params: list[Tensor]) -> Exception | None:
    """Why these parameters cannot be one vector."""
    if not params:
        return ValueError("GradientNormalizedNewton needs at least one parameter, got none")
    first = params[0]
    for param in params:
        if is_sharded(param):
            return RuntimeError(
                "GradientNormalizedNewton does not take sharded parameters (DTensor); gather them"
            )
        if not param.is_floating_point():
            return TypeError(f"parameters must be real floating point, got {param.dtype}")
        if param.dtype != first.dtype or param.device != first.device:
            return TypeError(
                "parameters must have one dtype and device, got "
                f"{first.dtype} on {first.device} and {param.dtype} on {param.device}"
            )
    return None
