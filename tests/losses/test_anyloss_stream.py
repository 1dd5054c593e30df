"""AnyLossClassifier batch by batch, with several labels a row, and its probabilities."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn import metrics as sk
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification, make_multilabel_classification
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier
from torch import Tensor

from gradworks.losses.anyloss import AnyLossClassifier
from gradworks.losses.anyloss.stream import Stream

Table = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def table() -> Table:
    return make_classification(
        400, n_features=6, weights=[0.85], class_sep=0.8, flip_y=0.05, random_state=1
    )


@pytest.fixture(scope="module")
def labelled() -> Table:
    return make_multilabel_classification(200, n_features=8, n_classes=4, random_state=0)


# ---------------------------------------------------------------- partial_fit


@pytest.mark.parametrize("solver", ["gd", "adam"])
@pytest.mark.parametrize("hidden", [(), (4,)])
@pytest.mark.parametrize("standardize", [True, False])
def test_the_whole_table_again_and_again_is_fit(
    table: Table, solver: str, hidden: tuple[int, ...], standardize: bool
) -> None:
    X, y = table
    weight = np.linspace(0.5, 1.5, len(y))
    model = AnyLossClassifier(
        solver=solver,
        hidden_layer_sizes=hidden,
        standardize=standardize,
        lr=0.05,
        max_iter=12,
        random_state=3,
        amplification=lambda step: 20.0 + step,
    )
    whole = clone(model).fit(X, y, weight)
    for _ in range(12):
        model.partial_fit(X, y, [0, 1], weight)
    np.testing.assert_allclose(model.decision_function(X), whole.decision_function(X), rtol=1e-9)
    np.testing.assert_allclose(model.loss_curve_, whole.loss_curve_, rtol=1e-9)
    assert model.n_iter_ == 12


def test_goes_on_from_fit(table: Table) -> None:
    X, y = table
    model = AnyLossClassifier(max_iter=20, amplification=lambda step: 5.0 + step).fit(X, y)
    model.partial_fit(X, y).partial_fit(X, y)
    whole = AnyLossClassifier(max_iter=22, amplification=lambda step: 5.0 + step).fit(X, y)
    np.testing.assert_allclose(model.coef_, whole.coef_, rtol=1e-9)
    assert model.n_iter_ == 22


def test_other_batches_move_no_prediction_by_themselves(table: Table) -> None:
    """A batch in other units changes mean and deviation; the parameters are moved along."""
    X, y = table
    model = AnyLossClassifier("f1", max_iter=50).fit(X, y)
    before = model.decision_function(X)
    model.set_params(lr=1e-13).partial_fit(50.0 * X + 7.0, y)
    np.testing.assert_allclose(model.decision_function(X), before, rtol=1e-6, atol=1e-9)


def test_learns_a_stream(table: Table) -> None:
    X, y = table
    model = AnyLossClassifier("f1", lr=0.1, random_state=0)
    order = np.random.default_rng(0)
    for _ in range(15):
        rows = order.permutation(len(y))
        for part in np.array_split(rows, 4):
            model.partial_fit(X[part], y[part], classes=[0, 1])
    assert model.score(X, y) > AnyLossClassifier("f1", max_iter=200).fit(X, y).score(X, y) - 0.05


def test_resumes_from_a_pickle_bit_for_bit(table: Table) -> None:
    X, y = table
    model = AnyLossClassifier(
        hidden_layer_sizes=(3,), solver="adam", batch_size=40, lr=0.01, random_state=5
    )
    parts = np.array_split(np.arange(len(y)), 5)
    for part in parts[:2]:
        model.partial_fit(X[part], y[part], classes=[0, 1])
    again = pickle.loads(pickle.dumps(model))
    for one in (model, again):
        for part in parts[2:]:
            one.partial_fit(X[part], y[part])
    assert (model.decision_function(X) == again.decision_function(X)).all()
    assert model.loss_curve_ == again.loss_curve_


def test_classes_that_come_later(table: Table) -> None:
    X, y = table
    three = np.where(X[:, 0] > 1.0, "c", np.where(y == 1, "b", "a"))
    model = AnyLossClassifier("balanced_accuracy", lr=0.05)
    for wanted in (["a", "b"], ["b", "c"], ["a", "b", "c"]):
        rows = np.isin(three, wanted)
        model.partial_fit(X[rows], three[rows], classes=["c", "a", "b"])
    assert list(model.classes_) == ["a", "b", "c"]
    assert model.coef_.shape == (3, 6)
    only = three == "a"
    model.partial_fit(X[only], three[only])  # a batch of one class is a batch
    assert np.isfinite(model.coef_).all()


def test_a_failed_call_changes_nothing(table: Table) -> None:
    X, y = table
    model = AnyLossClassifier(solver="adam").partial_fit(X, y, [0, 1])
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match="not among"):
        model.partial_fit(X, y + 5)
    assert pickle.dumps(model) == before
    model.set_params(batch_size=100, amplification=lambda step: 73.0 if step < 3 else 0.0)
    coef, seen = model.coef_.copy(), model._stream.weight
    with pytest.raises(ValueError, match="amplification must be positive"):  # in the third step
        model.partial_fit(X, y)
    assert (model.coef_ == coef).all()
    assert (model._stream.weight, model._stream.steps, model.n_iter_) == (seen, 1, 1)
    assert model._stream.stepper.count == 1
    fresh = AnyLossClassifier()
    with pytest.raises(ValueError, match="not among"):
        fresh.partial_fit(X, y, [7, 8])
    assert not hasattr(fresh, "classes_")


@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 29), max_size=3),
    scale=st.floats(0.1, 9),
)
@settings(max_examples=30, deadline=None)
def test_running_moments_are_those_of_all_rows(seed: int, cuts: list[int], scale: float) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30, 3)) * scale + 100.0
    X[:, 2] = 4.2  # a constant is left at its scale
    weight = rng.uniform(0.1, 2.0, size=30)
    stream = Stream(np.random.RandomState(0))
    for rows in np.split(np.arange(30), sorted(set(cuts))):
        stream.see(X[rows], weight[rows])
    mean = np.average(X, axis=0, weights=weight)
    deviation = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))
    found_mean, found_scale = stream.standard()
    np.testing.assert_allclose(found_mean[0, 0], mean, rtol=1e-12)
    np.testing.assert_allclose(found_scale[0, 0], [*deviation[:2], 1.0], rtol=1e-9)


X4, Y4 = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("change", "arguments", "text"),
    [
        ({}, {}, "classes must be passed on the first call"),
        ({}, {"classes": [1]}, "at least 2 labels"),
        ({}, {"classes": [0, 2]}, "labels [np.int64(1)] that are not among"),
        ({}, {"classes": [0, 1], "sample_weight": [1, 1, 1, -1]}, "Negative values"),
        ({"early_stopping": True}, {"classes": [0, 1]}, "early_stopping=True needs fit"),
        ({"lr": -1.0}, {"classes": [0, 1]}, "lr must be positive"),
    ],
)
def test_bad_first_batches(change: dict, arguments: dict, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        AnyLossClassifier(**change).partial_fit(X4, Y4, **arguments)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("change", "X", "y", "classes", "text"),
    [
        ({}, X4, Y4, [0, 1, 2], "classes must be those of the first call"),
        ({}, X4[:, :1], Y4, None, "2 features"),
        ({"hidden_layer_sizes": (3,)}, X4, Y4, None, "needs the layers of the last fit"),
        ({}, X4, np.eye(4, 2, dtype=int), None, "as columns of y"),
    ],
)
def test_bad_later_batches(
    change: dict, X: np.ndarray, y: np.ndarray, classes: object, text: str
) -> None:
    model = AnyLossClassifier().partial_fit(X4, Y4, classes=[0, 1]).set_params(**change)
    with pytest.raises(ValueError) as caught:
        model.partial_fit(X, y, classes)
    assert text in str(caught.value)


def test_a_batch_without_weight_is_refused() -> None:
    # newer releases of scikit-learn refuse it first
    with pytest.raises(ValueError, match=r"nothing to learn from|at least one non-zero"):
        AnyLossClassifier().partial_fit(X4, Y4, [0, 1], np.zeros(4))


def test_lbfgs_has_no_partial_fit() -> None:
    assert not hasattr(AnyLossClassifier(solver="lbfgs"), "partial_fit")
    assert hasattr(AnyLossClassifier(solver="adam"), "partial_fit")


# ---------------------------------------------------------------- several labels a row


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, lambda y: y.astype(bool)])
def test_labels_are_learned_as_they_are_alone(labelled: Table, form: object) -> None:
    X, y = labelled
    model = AnyLossClassifier("f1", max_iter=150).fit(X, form(y))
    each = [AnyLossClassifier("f1", max_iter=150).fit(X, column) for column in y.T]
    np.testing.assert_allclose(model.coef_, np.concatenate([m.coef_ for m in each]), rtol=1e-8)
    assert model.multilabel_
    assert list(model.classes_) == [0, 1, 2, 3]
    assert model.predict(X).tolist() == np.stack([m.predict(X) for m in each], axis=1).tolist()
    np.testing.assert_allclose(
        model.predict_proba(X), np.stack([m.predict_proba(X)[:, 1] for m in each], axis=1)
    )
    want = sk.f1_score(y, model.predict(X), average="macro")
    assert model.score(X, form(y)) == pytest.approx(want, abs=1e-12)


def test_two_labels_are_not_two_classes(labelled: Table) -> None:
    X, y = labelled[0], labelled[1][:, :2]
    model = AnyLossClassifier("balanced_accuracy", max_iter=60).fit(X, y)
    assert model.coef_.shape == (2, 8)
    assert model.decision_function(X).shape == model.predict(X).shape == (200, 2)
    assert (model.predict(X) == (model.predict_proba(X) > 0.5)).all()


def test_labels_agree_with_one_versus_rest(labelled: Table) -> None:
    X, y = labelled
    base = AnyLossClassifier("f1", max_iter=80)
    other = OneVsRestClassifier(base).fit(X, y)
    assert (clone(base).fit(X, y).predict(X) == other.predict(X)).all()


def test_label_that_never_occurs_and_early_stopping(labelled: Table) -> None:
    X, y = labelled
    y = np.c_[y, np.zeros(len(y), dtype=int)]
    model = AnyLossClassifier(
        "f1", early_stopping=True, n_iter_no_change=20, max_iter=200, random_state=0
    ).fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert (model.coef_[4] == 0).all()  # no positive, no gradient of F1
    assert len(model.validation_scores_) == model.n_iter_


def test_labels_batch_by_batch(labelled: Table) -> None:
    X, y = labelled
    model = AnyLossClassifier("f1", max_iter=9)
    whole = clone(model).fit(X, y)
    for _ in range(9):
        model.partial_fit(X, y)  # the columns say which labels there are
    np.testing.assert_allclose(model.coef_, whole.coef_, rtol=1e-9)
    with pytest.raises(ValueError, match="2 columns of labels, but classes are"):
        model.partial_fit(X, y[:, :2])


def test_warm_start_keeps_to_its_kind(labelled: Table) -> None:
    X, y = labelled
    model = AnyLossClassifier(max_iter=5, warm_start=True).fit(X, y[:, :2])
    with pytest.raises(ValueError, match="needs the classes of the last fit"):
        model.fit(X, y[:, 0])
    for wrong in (2 * y + 1, y + np.arange(4)):
        with pytest.raises(ValueError, match=r"0 and 1 alone|not supported"):
            AnyLossClassifier().fit(X, wrong)


def test_a_metric_of_ones_own_as_a_function_of_the_four_counts(table: Table) -> None:
    def success(tp: Tensor, fn: Tensor, fp: Tensor, tn: Tensor) -> Tensor:
        return tp / (tp + fn + fp + 1e-12)

    X, y = table
    own = AnyLossClassifier(success, max_iter=60).fit(X, y)
    named = AnyLossClassifier("jaccard", max_iter=60).fit(X, y)
    np.testing.assert_allclose(own.coef_, named.coef_, rtol=1e-8)
    assert own.score(X, y) == pytest.approx(sk.jaccard_score(y, own.predict(X)))


# ---------------------------------------------------------------- probabilities


def test_probabilities_need_calibration_and_take_it() -> None:
    """Where the smaller class is a tenth, the sigmoid of the loss says too much; wrapping helps."""
    X, y = make_classification(
        1200, n_features=6, weights=[0.9], class_sep=0.7, flip_y=0.05, random_state=0
    )
    X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=0)
    model = AnyLossClassifier("balanced_accuracy", max_iter=150)
    raw = model.fit(X, y).predict_proba(X_test)[:, 1]
    wrapped = CalibratedClassifierCV(model, cv=3).fit(X, y).predict_proba(X_test)[:, 1]
    assert abs(wrapped.mean() - y_test.mean()) < 0.03 < abs(raw.mean() - y_test.mean())
    assert sk.brier_score_loss(y_test, wrapped) < 0.7 * sk.brier_score_loss(y_test, raw)
