"""The training of ``AnyLossClassifier``: a whole table, or one batch of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gradworks.losses.anyloss.baselines import BatchedMetricLoss
from gradworks.losses.anyloss.batched import fit_batched
from gradworks.losses.anyloss.early_stopping import Watch
from gradworks.losses.anyloss.folds import stack_folds
from gradworks.losses.anyloss.metrics import get_metric
from gradworks.losses.anyloss.network import BatchedNet
from gradworks.losses.anyloss.stepper import Stepper
from gradworks.losses.anyloss.stream import Stream

__all__ = ["Fitted", "fit_batch", "fit_table"]


@dataclass(frozen=True)
class Fitted:
    """What training gives.

    Args:
        net: Models for features in their own units, float64 on CPU.
        losses: Training loss (mean over models) of every epoch.
        stream: What later batches go on from.
        scores: Metric on held-out rows of every epoch.
    """

    net: BatchedNet
    losses: list[float]
    stream: Stream
    scores: list[float] = field(default_factory=list)


def _place(model: Any) -> tuple[torch.device, torch.dtype]:
    """Where to compute and in which precision."""
    device = torch.device("cpu" if model.device is None else model.device)
    return device, torch.float32 if device.type == "mps" else torch.float64


def _start(model: Any, models: int, features: int, generator: torch.Generator) -> BatchedNet:
    """Models with a last layer of zeros, float64 on CPU."""
    hidden = tuple(model.hidden_layer_sizes)
    return BatchedNet.zeros(1, models, features, hidden, generator=generator)


def fit_table(
    model: Any,
    X: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    *,
    rows: np.ndarray,
    held_out: np.ndarray,
    seed: int,
    previous: BatchedNet | None,
) -> Fitted:
    """Standardise and fit all models in one program.

    Args:
        model: Settings, an ``AnyLossClassifier``.
        X: Features (samples, features).
        target: 0 or 1, (models, samples).
        weight: Sample weights (samples,).
        rows: Numbers of the training rows.
        held_out: Numbers of the rows that decide when to stop; empty without early stopping.
        seed: Of hidden layers and batch orders.
        previous: Models to go on from, or None.

    Returns:
        Models, losses, and where ``fit_batch`` goes on.
    """
    device, dtype = _place(model)
    stack = stack_folds(
        X,
        target[0],
        [rows],
        sample_weight=weight,
        standardize=model.standardize,
        dtype=dtype,
        device=device,
    )
    mean, scale = stack.mean.cpu().double(), stack.scale.cpu().double()
    labels = torch.as_tensor(target, dtype=dtype, device=device)
    generator = torch.Generator().manual_seed(seed)
    net = _start(model, len(target), X.shape[1], generator)
    if previous is not None:
        net = previous.standardized(mean, scale)
    watch = Watch(
        get_metric(model.metric, model.beta),
        model.n_iter_no_change,
        stack.transform(X[held_out]),
        labels[:, held_out],
        weight[held_out],
    )
    fit = fit_batched(
        stack.X,
        labels[None, :, rows],
        BatchedMetricLoss(model.metric, beta=model.beta, amplification=model.amplification),
        weight=stack.weight,
        lr=float(model.lr),
        epochs=model.max_iter,
        solver=model.solver,
        batch_size=model.batch_size,
        init=net.to(device, dtype),
        generator=generator,
        stop=watch if model.early_stopping else None,
    )
    best = watch.best if watch.best is not None else fit.net
    batches = 1 if model.batch_size is None else -(-len(rows) // model.batch_size)
    stream = Stream(np.random.RandomState(seed), steps=fit.epochs * batches)
    stream.see(X[rows], weight[rows])
    losses = fit.losses.mean(dim=(1, 2)).cpu().tolist()
    return Fitted(best.to("cpu", torch.float64).raw(mean, scale), losses, stream, watch.scores)


def fit_batch(
    model: Any,
    X: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    *,
    net: BatchedNet | None,
    stream: Stream,
) -> Fitted:
    """One epoch on a batch, in features standardised by all rows so far.

    Args:
        model: Settings, an ``AnyLossClassifier``.
        X: Features (samples, features).
        target: 0 or 1, (models, samples).
        weight: Sample weights (samples,), not all 0.
        net: Models so far, for features in their own units; None at the first batch.
        stream: What earlier batches left; not changed.

    Returns:
        Models, the loss, and the stream after this batch.
    """
    device, dtype = _place(model)
    stream = stream.copy()
    generator = torch.Generator().manual_seed(stream.seed())
    mean, scale = np.zeros((1, 1, X.shape[1])), np.ones((1, 1, X.shape[1]))
    stream.see(X, weight)
    if model.standardize:
        mean, scale = stream.standard()
    shift, stretch = torch.from_numpy(mean), torch.from_numpy(scale)
    if net is None:
        net = _start(model, len(target), X.shape[1], generator)
    else:
        net = net.standardized(shift, stretch)
    lr = torch.tensor(float(model.lr), dtype=dtype, device=device)
    stepper = stream.stepper
    if stepper is None or stepper.solver != model.solver:
        stepper = stream.stepper = Stepper(model.solver, lr)
    stepper.lr = lr
    before = stepper.count
    strength = stream.later(model.amplification)
    fit = fit_batched(
        torch.as_tensor((X - mean[0]) / scale[0], dtype=dtype, device=device)[None],
        torch.as_tensor(target, dtype=dtype, device=device)[None],
        BatchedMetricLoss(model.metric, beta=model.beta, amplification=strength),
        weight=torch.as_tensor(weight, dtype=dtype, device=device)[None],
        epochs=1,
        batch_size=model.batch_size,
        init=net.to(device, dtype),
        generator=generator,
        stepper=stepper,
    )
    stream.steps += stepper.count - before
    kept = fit.net.to("cpu", torch.float64).raw(shift, stretch)
    return Fitted(kept, [float(fit.losses.mean())], stream)
