"""Many small classifiers trained in one tensor program.

All folds of a cross-validation, all learning rates of a search, or all one-vs-rest classes of an
estimator are rows of the same tensors, so a step costs about what one model's step would. Rows that
are not a model's own (padding of unequal folds, held-out samples) carry weight 0.

Shapes: ``folds`` have data of their own, ``variants`` share a fold's data (learning rates,
classes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gradworks.losses.anyloss.baselines import BatchedLoss, BoundLoss
from gradworks.losses.anyloss.network import BatchedNet
from gradworks.losses.anyloss.stepper import Stepper

__all__ = ["BatchedFit", "fit_batched"]

_SOLVERS = ("gd", "adam", "lbfgs")


@dataclass
class BatchedFit:
    """What :func:`fit_batched` returns.

    Args:
        net: The trained models.
        losses: Training loss of every epoch, (epochs, folds, variants); the mean over batches.
            No epochs where they were not asked for.
        epochs: Number of epochs that ran.
    """

    net: BatchedNet
    losses: Tensor
    epochs: int


def fit_batched(
    X: Tensor,
    y: Tensor,
    loss: BatchedLoss,
    *,
    weight: Tensor | None = None,
    lr: float | Tensor = 0.1,
    epochs: int = 1000,
    solver: str = "gd",
    hidden: Sequence[int] = (),
    activation: str = "relu",
    batch_size: int | None = None,
    init: BatchedNet | None = None,
    generator: torch.Generator | None = None,
    stop: Callable[[int, BatchedNet], bool] | None = None,
    stepper: Stepper | None = None,
    curve: bool = True,
) -> BatchedFit:
    r"""Train one perceptron a fold and variant, all in the same tensors.

    For cross-validations and learning-rate searches of small models, where the cost of a step is
    its overhead and not its arithmetic. Every model sees exactly the steps it would see alone.

    .. math:: \theta_{f,v} \leftarrow \theta_{f,v} - \mathrm{lr}_{f,v}\,
              \nabla \text{loss}(\text{logits}_{f,v}, y_{f,v}, w_{f,v})

    Args:
        X: Features (folds, rows, features); :func:`stack_folds` makes them.
        y: Labels in {0, 1}, (folds, rows), or (folds, variants, rows) if they differ by variant.
        loss: Function of (logits, target, weight), (folds, variants, rows) each, to one loss a
            model, (folds, variants): :class:`BatchedMetricLoss`, :func:`batched_bce`, ...
        weight: Weights >= 0 in either shape of ``y``; 0 leaves a row out. ``None`` is 1.
        lr: One number, or a tensor (variants,) or (folds, variants): the learning rate of each
            model, which also sets the number of variants.
        epochs: Passes over the rows, 1000 (one step each without ``batch_size``).
        solver: "gd"; "adam" (published constants); "lbfgs" (full batch, strong Wolfe line search,
            one model after the other: a line search is not shared).
        hidden: Widths of hidden layers; ``()`` is the paper's single-layer perceptron.
        activation: Between layers: "relu", "sigmoid" or "tanh".
        batch_size: Rows a step, shuffled each epoch, the same order for all folds; ``None`` is
            full batch, the published setting of the single-layer perceptron.
        init: Models to go on from (copied); ``None`` starts with :meth:`BatchedNet.zeros`.
        generator: CPU generator for hidden layers and batch order; ``None`` starts at seed 0.
        stop: Called as ``stop(epoch, net)`` after every epoch; ``True`` ends training.
        stepper: Optimizer to go on with (changed in place), moments and count included; it brings
            ``solver`` and ``lr`` with it. ``None`` starts one.
        curve: Whether to keep the loss of every epoch; False saves the time of a loss that its
            derivative does not need (cross-entropy takes a logarithm a sample).

    Returns:
        The models, their loss curves and the number of epochs.

    Raises:
        ValueError: If shapes or settings do not fit together.

    Example:
        >>> from gradworks.losses.anyloss import BatchedMetricLoss
        >>> X = torch.tensor([[[-2.0], [-1.0], [1.0], [2.0]]], dtype=torch.float64)
        >>> y = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
        >>> fit = fit_batched(
        ...     X, y, BatchedMetricLoss("f1"), lr=torch.tensor([0.01, 0.1]), epochs=50
        ... )
        >>> (fit.net.logits(X) > 0).int().tolist()
        [[[0, 0, 1, 1], [0, 0, 1, 1]]]
    """
    if solver not in _SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(_SOLVERS)}, got {solver!r}")
    if X.dim() != 3 or y.shape[:1] != X.shape[:1] or y.shape[-1:] != X.shape[1:2]:
        raise ValueError(
            f"X must be (folds, rows, features) and y (folds, rows) or (folds, variants, rows), "
            f"got {tuple(X.shape)} and {tuple(y.shape)}"
        )
    if epochs < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError(f"epochs and batch_size must be at least 1, got {epochs}, {batch_size}")
    if solver == "lbfgs" and batch_size is not None:
        raise ValueError("solver='lbfgs' is full batch only; drop batch_size or take 'adam'")
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    rate = torch.as_tensor(lr, dtype=X.dtype, device=X.device)
    y = y.unsqueeze(1) if y.dim() == 2 else y
    w = torch.ones_like(y[:, :1]) if weight is None else weight
    w = w.unsqueeze(1) if w.dim() == 2 else w
    variants = max(y.shape[1], w.shape[1], rate.shape[-1] if rate.dim() else 1)
    if init is not None:
        net, variants = init.clone(), init.weights[0].shape[1]
    else:
        net = BatchedNet.zeros(
            X.shape[0],
            variants,
            X.shape[2],
            hidden,
            activation=activation,
            generator=generator,
            dtype=X.dtype,
            device=X.device,
        )
    y, w = y.expand(-1, variants, -1), w.expand(-1, variants, -1)
    if solver == "lbfgs":
        return _fit_lbfgs(X, y, w, loss, net, rate.expand(X.shape[0], variants), epochs, stop)
    whole = batch_size is None or batch_size >= X.shape[1]
    fresh = stepper is None
    if stepper is None:
        stepper = Stepper(solver, rate.expand(X.shape[0], variants)[..., None, None])
    if len(net.weights) == 1 and whole and fresh:  # its moments have a layout of their own
        return _fit_linear(X, y, w, loss, net, stepper, epochs, stop, curve)
    params = net.parameters
    if whole and (variants == 1 or (y.stride(1) == 0 and w.stride(1) == 0)):
        return _fit_layers(X, y[:, :1], w[:, :1], loss, net, stepper, epochs, stop, curve)
    losses = []
    rows = X.shape[1]
    for epoch in range(epochs):
        total = torch.zeros(X.shape[0], variants, dtype=X.dtype, device=X.device)
        batches: Sequence[Tensor | slice] = [slice(None)]
        if batch_size is not None and batch_size < rows:
            batches = list(
                torch.split(torch.randperm(rows, generator=generator).to(X.device), batch_size)
            )
        for part in batches:
            values, grads = _gradient(net, X[:, part], y[..., part], w[..., part], loss)
            stepper.step(params, grads)
            total += values
        losses.append(total / len(batches))
        if stop is not None and stop(epoch, net):
            break
    return BatchedFit(net, torch.stack(losses), len(losses))


def _fit_linear(
    X: Tensor,
    y: Tensor,
    w: Tensor,
    loss: BatchedLoss,
    net: BatchedNet,
    stepper: Stepper,
    epochs: int,
    stop: Callable[[int, BatchedNet], bool] | None,
    curve: bool,
) -> BatchedFit:
    """Full-batch single layers: two matrix products and the loss a step, no recorded graph."""
    folds, variants, rows = y.shape
    theta = torch.cat([net.biases[0], net.weights[0]], dim=-1).squeeze(2)
    net = BatchedNet([theta[..., 1:].unsqueeze(2)], [theta[..., :1].unsqueeze(2)], net.activation)
    design = torch.cat([torch.ones_like(X[..., :1]), X], dim=-1)
    shared = y.stride(1) == 0 and w.stride(1) == 0
    if shared:
        y, w = y[:, :1], w[:, :1]
        work = theta
    else:  # labels of their own: every variant becomes a fold with the same rows
        design = design.repeat_interleave(variants, 0)
        y, w = y.reshape(-1, 1, rows), w.reshape(-1, 1, rows)
        work = theta.view(folds * variants, 1, -1)
    bound = _bound(loss, y, w, curve)
    losses = []
    done = 0
    for epoch in range(epochs):
        values, slope = bound(torch.bmm(work, design.mT))
        gradient = torch.bmm(slope, design)
        stepper.step([theta.unsqueeze(2)], [gradient.view_as(theta).unsqueeze(2)])
        done += 1
        if curve:
            losses.append(values.view(folds, variants))
        if stop is not None and stop(epoch, net):
            break
    return BatchedFit(net, _stacked(losses, net), done)


def _fit_layers(
    X: Tensor,
    y: Tensor,
    w: Tensor,
    loss: BatchedLoss,
    net: BatchedNet,
    stepper: Stepper,
    epochs: int,
    stop: Callable[[int, BatchedNet], bool] | None,
    curve: bool,
) -> BatchedFit:
    """Full-batch networks whose variants share labels, by the chain rule written out."""
    bound = _bound(loss, y, w, curve)
    losses = []
    done = 0
    for epoch in range(epochs):
        found = net.layers(X)
        values, slope = bound(found[-1].squeeze(2))
        stepper.step(net.parameters, net.gradients(X, found, slope))
        done += 1
        if curve:
            losses.append(values)
        if stop is not None and stop(epoch, net):
            break
    return BatchedFit(net, _stacked(losses, net), done)


def _stacked(losses: list[Tensor], net: BatchedNet) -> Tensor:
    """Losses (epochs, folds, variants), of no epoch where none was kept."""
    last = net.weights[-1]
    return torch.stack(losses) if losses else last.new_zeros(0, *last.shape[:2])


def _bound(loss: BatchedLoss, y: Tensor, w: Tensor, values: bool) -> BoundLoss:
    """Losses and derivatives for fixed labels: the closed form where there is one."""
    bind = getattr(loss, "bind", None)
    bound: BoundLoss | None = None
    if bind is not None:
        bound = bind(y, w) if values else bind(y, w, values=False)
    return partial(_recorded, loss, y, w) if bound is None else bound


def _recorded(loss: BatchedLoss, y: Tensor, w: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Losses and their derivatives by the logits, by automatic differentiation."""
    leaf = logits.requires_grad_()
    with torch.enable_grad():
        values = loss(leaf, y.expand_as(leaf), w.expand_as(leaf))
        (slope,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), slope


def _gradient(
    net: BatchedNet, X: Tensor, y: Tensor, w: Tensor, loss: BatchedLoss
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Losses (folds, variants) and gradients of all parameters; models do not share any."""
    leaves = BatchedNet(
        [p.detach().requires_grad_() for p in net.weights],
        [p.detach().requires_grad_() for p in net.biases],
        net.activation,
    )
    with torch.enable_grad():
        values = loss(leaves.logits(X), y, w)
        grads = torch.autograd.grad(values.sum(), leaves.parameters)
    return values.detach(), grads


def _fit_lbfgs(
    X: Tensor,
    y: Tensor,
    w: Tensor,
    loss: BatchedLoss,
    net: BatchedNet,
    lr: Tensor,
    epochs: int,
    stop: Callable[[int, BatchedNet], bool] | None,
) -> BatchedFit:
    """L-BFGS, every model with a line search of its own, an iteration of each in turn."""
    models = []
    for f in range(X.shape[0]):
        for v in range(y.shape[1]):
            params = [p[f : f + 1, v : v + 1].clone().requires_grad_() for p in net.parameters]
            depth = len(net.weights)
            one = BatchedNet(params[:depth], params[depth:], net.activation)
            # The defaults (evaluations counted by max_iter, loss changes of 1e-9) end line
            # searches long before the minimum.
            optimizer = torch.optim.LBFGS(
                params,
                lr=float(lr[f, v]),
                max_iter=1,
                max_eval=25,
                tolerance_grad=1e-9,
                tolerance_change=0.0,
                line_search_fn="strong_wolfe",
            )
            models.append((f, v, one, optimizer))
    curve: list[Tensor] = []
    for epoch in range(epochs):
        values = torch.zeros(X.shape[0], y.shape[1], dtype=X.dtype, device=X.device)
        moved = False
        for f, v, one, optimizer in models:
            fold, variant = slice(f, f + 1), slice(v, v + 1)
            before = [p.detach().clone() for p in one.parameters]

            def closure(
                one: BatchedNet = one,
                optimizer: torch.optim.LBFGS = optimizer,
                fold: slice = fold,
                variant: slice = variant,
            ) -> Tensor:
                optimizer.zero_grad()
                value = loss(one.logits(X[fold]), y[fold, variant], w[fold, variant]).sum()
                value.backward()  # type: ignore[no-untyped-call]
                return value

            values[f, v] = optimizer.step(closure).detach()  # type: ignore[no-untyped-call]
            for whole, part, old in zip(net.parameters, one.parameters, before):
                moved = moved or not torch.equal(part.detach(), old)
                whole[fold, variant] = part.detach()
        curve.append(values)
        if not moved or (stop is not None and stop(epoch, net)):
            break
    return BatchedFit(net, torch.stack(curve), len(curve))
