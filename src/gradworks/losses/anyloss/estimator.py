"""``AnyLossClassifier``: a scikit-learn classifier trained on the metric it is scored by.

After arXiv:2405.14745 (SLP and MLP, full-batch gradient descent from zero). What differs from the
authors' notebooks: features are standardised on the training rows alone, the gradient is the true
one, several classes go one-vs-rest. Training is that of ``fit_batched``: one model a class, all in
the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_consistent_length, check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:  # pragma: no cover - needs an environment without scikit-learn
    raise ImportError(
        "AnyLossClassifier needs scikit-learn 1.6 or later; install it with: "
        'pip install "gradworks[tables]"'
    ) from error

from gradworks.losses.anyloss.baselines import BatchedMetricLoss, hard_confusion
from gradworks.losses.anyloss.batched import fit_batched
from gradworks.losses.anyloss.early_stopping import Watch
from gradworks.losses.anyloss.folds import stack_folds
from gradworks.losses.anyloss.inputs import check_beta, check_rule
from gradworks.losses.anyloss.metrics import get_metric
from gradworks.losses.anyloss.network import BatchedNet

__all__ = ["AnyLossClassifier"]

_SOLVERS = ("gd", "adam", "lbfgs")


def _check_count(name: str, value: object) -> int:
    """A positive integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an int, got {type(value).__name__} {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


class AnyLossClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    r"""Linear or multi-layer classifier that maximises a confusion-matrix metric.

    For tables with classes out of balance that are scored by F1, balanced accuracy, G-mean or any
    metric in ``METRICS``: no resampling, no class weights and no threshold search. Not for ranking
    (AUC) or calibrated probabilities: take logistic regression there.

    .. math:: \min_\theta\; 1 - \text{metric}\bigl(\mathrm{TP}, \mathrm{FN}, \mathrm{FP},
              \mathrm{TN}\bigr), \qquad \mathrm{TP} = \sum_i w_i y_i\, \sigma\bigl(L
              (\sigma(z_i) - \tfrac12)\bigr), \quad z = f_\theta(x)

    Args:
        metric: Name in ``METRICS``, or a function of a ``Confusion`` or of (tp, fn, fp, tn). "f1".
        beta: F-beta's weight of recall, positive; 1.0.
        hidden_layer_sizes: Widths of ReLU layers; () is the paper's single-layer perceptron.
        amplification: :math:`L > 0`, 73.0 (the paper); or a schedule ``(step) -> L``.
        max_iter: Epochs, 1000 (the paper); one step each unless ``batch_size`` is given.
        lr: Learning rate, positive; 0.1. The paper takes 0.1 in its overview, 0.005 to 0.01 in the
            102-set study. With "lbfgs" the length of the first trial step.
        solver: "gd" (the paper), "adam" or "lbfgs" (full batch with line search).
        batch_size: Rows a step; ``None`` is full batch. Metrics do not add over batches, so a
            batch should hold several samples of each class. Not for "lbfgs".
        warm_start: Go on from the last fit's parameters, in the raw feature space.
        early_stopping: Hold out ``validation_fraction`` of the rows (stratified), stop when the
            metric there has not risen for ``n_iter_no_change`` epochs, keep the best parameters.
        validation_fraction: In (0, 1); 0.1.
        n_iter_no_change: Epochs without a rise; 10. With full-batch "gd" the metric of a small
            held-out part moves in steps: give it 50 or more.
        standardize: Learn on features of mean 0 and standard deviation 1 (by sample weight);
            ``coef_`` is in the units of ``X`` all the same.
        random_state: Seed of hidden layers, batches and the held-out part. A linear full-batch fit
            has no randomness.
        device: Where to compute; ``None`` is CPU. float64, except on "mps", which has none.

    Attributes:
        classes_: Labels, sorted, (n_classes,); of two, the second is the positive one.
        coef_: (1, n_features), or (n_classes, n_features) one-vs-rest; with hidden layers a list of
            arrays (n_models, out, in), one a layer.
        intercept_: (1,) or (n_classes,); with hidden layers a list of arrays (n_models, out).
        loss_curve_: Training loss (mean over classes) of every epoch.
        validation_scores_: Metric on held-out rows of every epoch, if ``early_stopping``.
        n_iter_: Number of epochs run.
        n_features_in_: Number of features.
        feature_names_in_: Their names, if ``X`` had text names.

    Raises:
        ValueError: In ``fit``, if a setting is out of range or only one class is present.
        TypeError: In ``fit``, if a setting has a wrong type.

    Note:
        ``predict_proba`` gives the sigmoid that the loss saw: ordered, but not calibrated. Start is
        a last layer of zeros, where every probability is 1/2 and the gradient is largest.

    Example:
        >>> from sklearn.datasets import make_classification
        >>> X, y = make_classification(300, weights=[0.9], random_state=0)
        >>> model = AnyLossClassifier("f1", max_iter=200).fit(X, y)
        >>> bool(model.score(X, y) > 0.6), model.coef_.shape, model.n_iter_
        (True, (1, 20), 200)

    References:
        "AnyLoss: Transforming Classification Metrics into Loss Functions", 2024, arXiv:2405.14745,
        Sec. 3 and 4.
    """

    def __init__(
        self,
        metric: str | Callable[..., torch.Tensor] = "f1",
        beta: float = 1.0,
        hidden_layer_sizes: tuple[int, ...] = (),
        amplification: float | Callable[[int], float] = 73.0,
        max_iter: int = 1000,
        lr: float = 0.1,
        solver: Literal["gd", "adam", "lbfgs"] = "gd",
        batch_size: int | None = None,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        standardize: bool = True,
        random_state: Any = None,
        device: Any = None,
    ) -> None:
        self.metric = metric
        self.beta = beta
        self.hidden_layer_sizes = hidden_layer_sizes
        self.amplification = amplification
        self.max_iter = max_iter
        self.lr = lr
        self.solver = solver
        self.batch_size = batch_size
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.standardize = standardize
        self.random_state = random_state
        self.device = device

    def _check_settings(self) -> None:
        """Refuse settings out of range before any work is done."""
        get_metric(self.metric, check_beta(self.beta))
        if not callable(self.amplification):
            check_rule("anyloss", self.amplification, 0.5)
        elif self.solver == "lbfgs":
            raise ValueError("amplification must be a number with solver='lbfgs', got a schedule")
        if self.solver not in _SOLVERS:
            raise ValueError(f"solver must be one of {', '.join(_SOLVERS)}, got {self.solver!r}")
        _check_count("max_iter", self.max_iter)
        _check_count("n_iter_no_change", self.n_iter_no_change)
        if not isinstance(self.hidden_layer_sizes, list | tuple):
            raise TypeError(
                "hidden_layer_sizes must be a tuple of widths, () for a linear model, "
                f"got {self.hidden_layer_sizes!r}"
            )
        for width in self.hidden_layer_sizes:
            _check_count("hidden_layer_sizes", width)
        if self.batch_size is not None:
            _check_count("batch_size", self.batch_size)
            if self.solver == "lbfgs":
                raise ValueError("batch_size must be None with solver='lbfgs', which is full batch")
        for name in ("lr", "validation_fraction"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
        if not 0.0 < self.lr < float("inf"):
            raise ValueError(f"lr must be positive and finite, got {self.lr}")
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(
                f"validation_fraction must lie inside (0, 1), got {self.validation_fraction}"
            )

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> AnyLossClassifier:
        """Train on a table.

        Args:
            X: Features (n_samples, n_features).
            y: Labels (n_samples,), two classes or more.
            sample_weight: Weights >= 0, (n_samples,); 0 removes a row, 2 counts it twice.

        Returns:
            The fitted classifier.

        Raises:
            ValueError: If a setting is out of range or fewer than two classes have weight.
        """
        self._check_settings()
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        classes, label = np.unique(y, return_inverse=True)
        present = np.unique(label[weight > 0])
        if len(present) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data "
                f"contains only one class: {classes[present[0]] if len(present) else classes[0]!r}"
            )
        previous = self._previous(classes, X.shape[1])
        self.classes_ = classes
        # One row of 0/1 labels a model: the second class, or each class against the rest.
        wanted = np.arange(len(classes)) if len(classes) > 2 else np.array([1])
        target = (label[None, :] == wanted[:, None]).astype(np.float64)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        rows, held_out = np.arange(len(y)), np.arange(0)
        if self.early_stopping:
            size = max(len(classes), int(np.ceil(self.validation_fraction * len(y))))
            rows, held_out = train_test_split(
                rows, test_size=size, random_state=seed, stratify=label
            )
        self._train(X, target, weight, rows, held_out, seed, previous)
        return self

    def _previous(self, classes: np.ndarray, features: int) -> BatchedNet | None:
        """Parameters to go on from, in raw feature space."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        if not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"warm_start=True needs the classes of the last fit {self.classes_}, got {classes}"
            )
        net = self._net()
        widths = [w.shape[2] for w in net.weights[:-1]]
        if widths != list(self.hidden_layer_sizes) or net.weights[0].shape[3] != features:
            raise ValueError(
                f"warm_start=True needs the layers of the last fit {widths}, "
                f"got hidden_layer_sizes={self.hidden_layer_sizes}"
            )
        return net

    def _net(self) -> BatchedNet:
        """The fitted parameters as a network of one fold, float64 on CPU."""
        if isinstance(self.coef_, list):
            weights = [torch.from_numpy(w.copy())[None] for w in self.coef_]
            biases = [torch.from_numpy(b.copy())[None, :, :, None] for b in self.intercept_]
            return BatchedNet(weights, biases)
        weight = torch.from_numpy(self.coef_.copy())[None, :, None, :]
        return BatchedNet([weight], [torch.from_numpy(self.intercept_.copy())[None, :, None, None]])

    def _train(
        self,
        X: np.ndarray,
        target: np.ndarray,
        weight: np.ndarray,
        rows: np.ndarray,
        held_out: np.ndarray,
        seed: int,
        previous: BatchedNet | None,
    ) -> None:
        """Standardise, fit all models in one program, store the parameters in raw units."""
        device = torch.device("cpu" if self.device is None else self.device)
        dtype = torch.float32 if device.type == "mps" else torch.float64
        stack = stack_folds(
            X,
            target[0],
            [rows],
            sample_weight=weight,
            standardize=self.standardize,
            dtype=dtype,
            device=device,
        )
        labels = torch.as_tensor(target, dtype=dtype, device=device)
        generator = torch.Generator().manual_seed(seed)
        net = previous
        if net is None:
            hidden = tuple(self.hidden_layer_sizes)
            net = BatchedNet.zeros(1, len(target), X.shape[1], hidden, generator=generator)
        else:
            mean, scale = stack.mean.cpu().double(), stack.scale.cpu().double()
            first = net.weights[0]
            net.biases[0] = net.biases[0] + first @ mean[:, None].mT
            net.weights[0] = first * scale[:, None]
        net = BatchedNet(
            [w.to(device, dtype) for w in net.weights], [b.to(device, dtype) for b in net.biases]
        )
        watch = Watch(
            get_metric(self.metric, self.beta),
            self.n_iter_no_change,
            stack.transform(X[held_out]),
            labels[:, held_out],
            weight[held_out],
        )
        fit = fit_batched(
            stack.X,
            labels[None, :, rows],
            BatchedMetricLoss(self.metric, beta=self.beta, amplification=self.amplification),
            weight=stack.weight,
            lr=float(self.lr),
            epochs=self.max_iter,
            solver=self.solver,
            batch_size=self.batch_size,
            init=net,
            generator=generator,
            stop=watch if self.early_stopping else None,
        )
        best = watch.best if watch.best is not None else fit.net
        self._store(best, stack.mean, stack.scale)
        curve = fit.losses.mean(dim=(1, 2)).cpu().tolist()
        self.loss_curve_: list[float] = curve if previous is None else self.loss_curve_ + curve
        self.n_iter_ = len(self.loss_curve_)
        if self.early_stopping:
            self.validation_scores_ = watch.scores

    def _store(self, net: BatchedNet, mean: torch.Tensor, scale: torch.Tensor) -> None:
        """Fold the standardisation into the first layer and keep NumPy arrays."""
        weights = [w.detach().double().cpu() for w in net.weights]
        biases = [b.detach().double().cpu() for b in net.biases]
        weights[0] = weights[0] / scale.double().cpu()[:, None]
        biases[0] = biases[0] - weights[0] @ mean.double().cpu()[:, None].mT
        if len(weights) == 1:
            self.coef_: Any = weights[0][0, :, 0].numpy().copy()
            self.intercept_: Any = biases[0][0, :, 0, 0].numpy().copy()
            return
        self.coef_ = [w[0].numpy().copy() for w in weights]
        self.intercept_ = [b[0, :, :, 0].numpy().copy() for b in biases]

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits; above 0 the (second) class is predicted.

        Args:
            X: Features (n_samples, n_features).

        Returns:
            (n_samples,) for two classes, else (n_samples, n_classes).
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        if isinstance(self.coef_, list):
            logits = self._net().logits(torch.from_numpy(np.array(X))[None])[0].numpy().T
        else:
            logits = X @ self.coef_.T + self.intercept_
        return logits.ravel() if len(self.classes_) == 2 else logits

    def predict(self, X: Any) -> np.ndarray:
        """Most likely class; of two, the second where its probability is above 1/2.

        Args:
            X: Features (n_samples, n_features).

        Returns:
            Labels (n_samples,).
        """
        logits = self.decision_function(X)
        index = (logits > 0).astype(np.int64) if logits.ndim == 1 else logits.argmax(axis=1)
        return np.asarray(self.classes_[index])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Sigmoids of the logits, normalised over classes; not calibrated.

        Args:
            X: Features (n_samples, n_features).

        Returns:
            Probabilities (n_samples, n_classes), rows that sum to 1.
        """
        logits = torch.from_numpy(np.atleast_2d(self.decision_function(X).T))
        p = torch.sigmoid(logits).T
        if len(self.classes_) == 2:
            return torch.cat([torch.sigmoid(-logits).T, p], dim=1).numpy()
        p = p.clamp_min(torch.finfo(p.dtype).tiny)
        return (p / p.sum(dim=1, keepdim=True)).numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The metric of the predictions.

        Args:
            X: Features (n_samples, n_features).
            y: True labels (n_samples,).
            sample_weight: Weights (n_samples,) or ``None``.

        Returns:
            The metric, larger is better; for several classes its mean over one-vs-rest problems,
            except "accuracy", which is the share of right answers.
        """
        predicted = self.predict(X)
        y = np.asarray(y)
        weight = _check_sample_weight(sample_weight, predicted, dtype=np.float64)
        check_consistent_length(predicted, y, weight)
        if self.metric == "accuracy":
            return float(np.average(predicted == y, weights=weight))
        wanted = self.classes_ if len(self.classes_) > 2 else self.classes_[1:]
        truth = torch.from_numpy((y[None, :] == wanted[:, None]).astype(np.float64))
        said = torch.from_numpy((predicted[None, :] == wanted[:, None]).astype(np.float64))
        confusion = hard_confusion(said - 0.5, truth, torch.from_numpy(weight))
        return float(get_metric(self.metric, self.beta)(confusion).mean())
