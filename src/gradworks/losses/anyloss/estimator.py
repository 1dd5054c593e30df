"""``AnyLossClassifier``: a scikit-learn classifier trained on the metric it is scored by.

After arXiv:2405.14745 (SLP and MLP, full-batch gradient descent from zero). What differs from the
authors' notebooks: features are standardised on the training rows alone, the gradient is the true
one, several classes go one-vs-rest. Training is that of ``fit_batched``: one model a class, all in
the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_consistent_length, check_random_state
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_is_fitted,
        column_or_1d,
        validate_data,
    )
except ImportError as error:  # pragma: no cover - needs an environment without scikit-learn
    raise ImportError(
        "AnyLossClassifier needs scikit-learn 1.6 or later; install it with: "
        'pip install "gradworks[tables]"'
    ) from error

from gradworks.losses.anyloss.baselines import hard_confusion
from gradworks.losses.anyloss.fitting import Fitted, fit_batch, fit_table
from gradworks.losses.anyloss.labels import Labels, is_multilabel, read_labels
from gradworks.losses.anyloss.metrics import get_metric
from gradworks.losses.anyloss.network import BatchedNet
from gradworks.losses.anyloss.settings import check_settings
from gradworks.losses.anyloss.stream import Stream

__all__ = ["AnyLossClassifier"]


def _takes_steps(model: Any) -> bool:
    """Whether the solver can learn from one batch after another."""
    return bool(model.solver != "lbfgs")


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
        classes_: Labels, sorted, (n_classes,); of two, the second is the positive one. Column
            numbers where a row may have several labels.
        multilabel_: Whether a row may have several labels.
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
        ``predict_proba`` gives the sigmoid that the loss saw: ordered, but not calibrated, because
        a metric of decisions is indifferent to how far a score lies from 1/2. Where probabilities
        are used as such, wrap the model in scikit-learn's ``CalibratedClassifierCV``. Start is a
        last layer of zeros, where every probability is 1/2 and the gradient is largest. Several
        classes, and several labels a row (``y`` a matrix of 0 and 1), are one model each: training
        maximises the mean of their metrics ("macro").

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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> AnyLossClassifier:
        """Train on a table.

        Args:
            X: Features (n_samples, n_features).
            y: Labels (n_samples,), two classes or more; or a matrix of 0 and 1
                (n_samples, n_labels), where a row may have several labels.
            sample_weight: Weights >= 0, (n_samples,); 0 removes a row, 2 counts it twice.

        Returns:
            The fitted classifier.

        Raises:
            ValueError: If a setting is out of range or fewer than two classes have weight.
        """  # noqa: DOC502 (raised by the checks it calls)
        check_settings(self)
        X, y, weight = self._table(X, y, sample_weight, reset=True)
        labels = read_labels(y)
        labels.check_present(weight)
        previous = self._previous(labels, X.shape[1])
        seed = self._seed()
        rows, held_out = np.arange(len(X)), np.arange(0)
        if self.early_stopping:
            size = max(len(labels.classes), int(np.ceil(self.validation_fraction * len(X))))
            rows, held_out = train_test_split(
                rows, test_size=size, random_state=seed, stratify=labels.index
            )
        fitted = fit_table(
            self,
            X,
            labels.target,
            weight,
            rows=rows,
            held_out=held_out,
            seed=seed,
            previous=previous,
        )
        self._keep(fitted, labels, [] if previous is None else self.loss_curve_)
        if self.early_stopping:
            self.validation_scores_ = fitted.scores
        elif hasattr(self, "validation_scores_"):
            del self.validation_scores_
        return self

    @available_if(_takes_steps)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> AnyLossClassifier:
        """Go on with the rows of one batch: one epoch of them, one step unless ``batch_size``.

        Features are standardised by the mean and deviation of all rows so far; parameters are
        moved along, so that a batch with other means changes no prediction by itself. A batch's
        metric is that of its own rows: give each some of every class. A class that is absent has
        no recall, and its model learns from the other terms alone.

        Args:
            X: Features (n_samples, n_features).
            y: Labels of the batch.
            classes: All labels that will come, needed at the first call (not for a matrix of 0 and
                1, whose columns say it).
            sample_weight: Weights >= 0, (n_samples,).

        Returns:
            The classifier.

        Raises:
            ValueError: If a setting is out of range, ``classes`` is missing or differs from the
                first call's, a label is not among them, or no row has weight.
        """
        check_settings(self)
        if self.early_stopping:
            raise ValueError("early_stopping=True needs fit; partial_fit sees no whole table")
        first = not hasattr(self, "coef_")
        X, y, weight = self._table(X, y, sample_weight, reset=first)
        known = None if first else self.classes_
        if classes is not None:
            given = np.unique(classes)
            if known is not None and not np.array_equal(given, known):
                raise ValueError(f"classes must be those of the first call {known}, got {given}")
            known = given
        if known is None and not is_multilabel(y):
            raise ValueError("classes must be passed on the first call to partial_fit")
        if known is not None and len(known) < 2 and not is_multilabel(y):
            raise ValueError(f"classes must hold at least 2 labels, got {list(known)}")
        labels = read_labels(y, known)
        if not first:
            self._check_same(labels, X.shape[1], "partial_fit")
        if not weight.sum() > 0.0:
            raise ValueError("sample_weight is 0 for every row of the batch: nothing to learn from")
        fitted = fit_batch(
            self,
            X,
            labels.target,
            weight,
            net=None if first else self._net(),
            stream=self._new_stream() if first else self._stream,
        )
        self._keep(fitted, labels, [] if first else self.loss_curve_)
        return self

    def _table(self, X: Any, y: Any, sample_weight: Any, *, reset: bool) -> tuple[Any, Any, Any]:
        """Validated features, labels and weights."""
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, reset=reset)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        return X, y, weight

    def _seed(self) -> int:
        """A number for the generator of hidden layers and batch orders."""
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _new_stream(self) -> Stream:
        """Nothing seen yet; with a number as ``random_state`` hidden layers start as in ``fit``."""
        given = isinstance(self.random_state, int | np.integer)
        return Stream(np.random.RandomState(self.random_state if given else self._seed()))

    def _previous(self, labels: Labels, features: int) -> BatchedNet | None:
        """Parameters to go on from, in raw feature space."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        self._check_same(labels, features, "warm_start=True")
        return self._net()

    def _check_same(self, labels: Labels, features: int, what: str) -> None:
        """Refuse to go on with other classes or layers."""
        several = labels.index is None
        if several != self.multilabel_ or not np.array_equal(labels.classes, self.classes_):
            raise ValueError(
                f"{what} needs the classes of the last fit {self.classes_}, got {labels.classes}"
                f"{', as columns of y' if several else ''}"
            )
        net = self._net()
        widths = [w.shape[2] for w in net.weights[:-1]]
        if widths != list(self.hidden_layer_sizes) or net.weights[0].shape[3] != features:
            raise ValueError(
                f"{what} needs the layers of the last fit {widths}, "
                f"got hidden_layer_sizes={self.hidden_layer_sizes}"
            )

    def _net(self) -> BatchedNet:
        """The fitted parameters as a network of one fold, float64 on CPU."""
        if isinstance(self.coef_, list):
            weights = [torch.from_numpy(w.copy())[None] for w in self.coef_]
            biases = [torch.from_numpy(b.copy())[None, :, :, None] for b in self.intercept_]
            return BatchedNet(weights, biases)
        weight = torch.from_numpy(self.coef_.copy())[None, :, None, :]
        return BatchedNet([weight], [torch.from_numpy(self.intercept_.copy())[None, :, None, None]])

    def _keep(self, fitted: Fitted, labels: Labels, earlier: list[float]) -> None:
        """Store what training gave."""
        self.classes_, self.multilabel_ = labels.classes, labels.index is None
        net = fitted.net
        if len(net.weights) == 1:
            self.coef_: Any = net.weights[0][0, :, 0].numpy().copy()
            self.intercept_: Any = net.biases[0][0, :, 0, 0].numpy().copy()
        else:
            self.coef_ = [w[0].numpy().copy() for w in net.weights]
            self.intercept_ = [b[0, :, :, 0].numpy().copy() for b in net.biases]
        self.loss_curve_: list[float] = [*earlier, *fitted.losses]
        self.n_iter_ = len(self.loss_curve_)
        self._stream = fitted.stream

    @property
    def _one_column(self) -> bool:
        """Whether there is one model, of the second of two classes."""
        return len(self.classes_) == 2 and not self.multilabel_

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits; above 0 the (second) class, or the label, is predicted.

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
        return logits.ravel() if self._one_column else logits

    def predict(self, X: Any) -> np.ndarray:
        """Most likely class; of two, the second where its probability is above 1/2.

        Args:
            X: Features (n_samples, n_features).

        Returns:
            Labels (n_samples,); where a row may have several, a matrix of 0 and 1
            (n_samples, n_labels).
        """
        logits = self.decision_function(X)
        if self.multilabel_:
            return (logits > 0).astype(np.int64)
        index = (logits > 0).astype(np.int64) if logits.ndim == 1 else logits.argmax(axis=1)
        return np.asarray(self.classes_[index])

    def predict_proba(self, X: Any) -> np.ndarray:
        """Sigmoids of the logits, normalised over classes; not calibrated (see Note above).

        Args:
            X: Features (n_samples, n_features).

        Returns:
            Probabilities (n_samples, n_classes), rows that sum to 1; where a row may have several
            labels, the probability of each.
        """
        logits = torch.from_numpy(np.atleast_2d(self.decision_function(X).T))
        p = torch.sigmoid(logits).T
        if self._one_column:
            return torch.cat([torch.sigmoid(-logits).T, p], dim=1).numpy()
        limits = torch.finfo(p.dtype)
        p = p.clamp(limits.tiny, 1.0 - limits.eps / 2)
        if self.multilabel_:
            return p.numpy()
        return (p / p.sum(dim=1, keepdim=True)).numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The metric of the predictions.

        Args:
            X: Features (n_samples, n_features).
            y: True labels (n_samples,), or a matrix of 0 and 1.
            sample_weight: Weights (n_samples,) or ``None``.

        Returns:
            The metric, larger is better; for several classes or labels its mean over their
            problems, except "accuracy" of classes, which is the share of right answers.

        Raises:
            ValueError: If ``y`` does not hold the labels of each row.
        """
        predicted = self.predict(X)
        y = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
        weight = _check_sample_weight(sample_weight, predicted, dtype=np.float64)
        check_consistent_length(predicted, y, weight)
        if not self.multilabel_:
            y = column_or_1d(y)
        elif y.shape != predicted.shape:
            raise ValueError(
                f"y must have shape {predicted.shape}, a column a label, got {y.shape}"
            )
        if self.multilabel_:
            truth, said = y.T == 1, predicted.T == 1
        elif self.metric == "accuracy":
            return float(np.average(predicted == y, weights=weight))
        else:
            wanted = self.classes_[1:] if self._one_column else self.classes_
            truth, said = y[None, :] == wanted[:, None], predicted[None, :] == wanted[:, None]
        confusion = hard_confusion(
            torch.from_numpy(said.astype(np.float64)) - 0.5,
            torch.from_numpy(truth.astype(np.float64)),
            torch.from_numpy(weight),
        )
        return float(get_metric(self.metric, self.beta)(confusion).mean())
