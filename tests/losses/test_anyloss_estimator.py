"""AnyLossClassifier as scikit-learn wants it, and as the paper trained it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from gradworks.losses.anyloss import AnyLossClassifier

GOLDEN = Path(__file__).parents[1] / "golden" / "anyloss" / "logits_and_paths.json"


@pytest.fixture(scope="module")
def imbalanced() -> tuple[np.ndarray, np.ndarray]:
    return make_classification(
        400, n_features=6, weights=[0.88], class_sep=0.8, flip_y=0.05, random_state=1
    )


@parametrize_with_checks(
    [
        AnyLossClassifier(max_iter=300, random_state=0),
        AnyLossClassifier(
            "balanced_accuracy",
            hidden_layer_sizes=(8,),
            solver="adam",
            lr=0.02,
            max_iter=150,
            random_state=0,
        ),
    ]
)
def test_scikit_learn_contract(estimator: AnyLossClassifier, check: object) -> None:
    check(estimator)


def test_golden_path_of_the_paper() -> None:
    slp = json.loads(GOLDEN.read_text())["slp"]
    path = slp["paths"]["fbeta_1"]
    X, y = np.array(slp["X"])[:, 1:], np.array(slp["y"])
    model = AnyLossClassifier("f1", lr=path["lr"], standardize=False, max_iter=1000).fit(X, y)
    theta = np.r_[model.intercept_, model.coef_[0]]
    np.testing.assert_allclose(theta, path["theta"]["1000"], rtol=1e-10)
    assert model.predict(X).tolist() == path["predicted"]
    assert model.loss_curve_[0] > model.loss_curve_[-1]


def test_beats_logistic_regression_on_its_metric(imbalanced: tuple) -> None:
    X, y = imbalanced
    model = AnyLossClassifier("f1", max_iter=500)
    ours = cross_val_score(model, X, y, cv=5).mean()
    logistic = cross_val_score(LogisticRegression(), X, y, cv=5, scoring="f1").mean()
    assert ours > logistic


@pytest.mark.parametrize(
    ("metric", "scorer"),
    [
        ("f1", sk.f1_score),
        (
            "f2",
            lambda y, p, sample_weight: sk.fbeta_score(y, p, beta=2, sample_weight=sample_weight),
        ),
        ("balanced_accuracy", sk.balanced_accuracy_score),
        ("mcc", sk.matthews_corrcoef),
        ("accuracy", sk.accuracy_score),
    ],
)
def test_score_is_the_hard_metric(imbalanced: tuple, metric: str, scorer: object) -> None:
    X, y = imbalanced
    weight = np.linspace(0.1, 2.0, len(y))
    model = AnyLossClassifier(metric, max_iter=100).fit(X, y)
    predicted = model.predict(X)
    want = scorer(y, predicted, sample_weight=weight)
    assert model.score(X, y, weight) == pytest.approx(want, abs=1e-12)
    assert model.score(X, y) == pytest.approx(scorer(y, predicted, sample_weight=None), abs=1e-12)


@pytest.mark.parametrize("solver", ["gd", "adam", "lbfgs"])
@pytest.mark.parametrize("hidden", [(), (4,), (5, 3)])
def test_solvers_and_layers(imbalanced: tuple, solver: str, hidden: tuple[int, ...]) -> None:
    X, y = imbalanced
    model = AnyLossClassifier(
        hidden_layer_sizes=hidden, solver=solver, lr=0.05, max_iter=60, random_state=0
    ).fit(X, y)
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert len(model.loss_curve_) == model.n_iter_ <= 60
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert ((p[:, 1] > 0.5) == (model.predict(X) == 1)).all()
    assert ((model.decision_function(X) > 0) == (model.predict(X) == 1)).all()
    if hidden:
        assert next(w.shape for w in model.coef_) == (1, hidden[0], 6)


def test_random_state_decides(imbalanced: tuple) -> None:
    X, y = imbalanced

    def fitted(seed: int) -> AnyLossClassifier:
        model = AnyLossClassifier(
            hidden_layer_sizes=(4,),
            solver="adam",
            batch_size=50,
            lr=0.01,
            max_iter=20,
            early_stopping=True,
            random_state=seed,
        )
        return model.fit(X, y)

    a, b, c = fitted(0), fitted(0), fitted(1)
    assert (a.decision_function(X) == b.decision_function(X)).all()
    assert (a.decision_function(X) != c.decision_function(X)).any()
    linear = AnyLossClassifier(max_iter=20)
    assert (linear.fit(X, y).coef_ == clone(linear).fit(X, y).coef_).all()


def test_early_stopping_keeps_the_best(imbalanced: tuple) -> None:
    X, y = imbalanced
    model = AnyLossClassifier(
        early_stopping=True, n_iter_no_change=30, validation_fraction=0.3, random_state=0
    ).fit(X, y)
    scores = model.validation_scores_
    assert model.n_iter_ == len(scores) < 1000
    best = int(np.argmax(scores))
    assert model.n_iter_ == best + 1 + 30
    again = AnyLossClassifier(
        early_stopping=True,
        n_iter_no_change=1000,
        max_iter=best + 1,
        validation_fraction=0.3,
        random_state=0,
    ).fit(X, y)
    np.testing.assert_allclose(model.coef_, again.coef_, rtol=1e-12)


def test_warm_start_goes_on(imbalanced: tuple) -> None:
    X, y = imbalanced
    warm = AnyLossClassifier(max_iter=40, warm_start=True).fit(X, y)
    warm.fit(X, y)
    whole = AnyLossClassifier(max_iter=80).fit(X, y)
    np.testing.assert_allclose(warm.coef_, whole.coef_, rtol=1e-8)
    np.testing.assert_allclose(warm.loss_curve_, whole.loss_curve_, rtol=1e-8)
    assert warm.n_iter_ == 80
    # Other rows, other standardisation: the function is the same at the start.
    moved = clone(warm).fit(X, y)
    moved.set_params(max_iter=1, lr=1e-12)
    before = moved.decision_function(X)
    moved.fit(3 * X[:200] + 1, y[:200])
    np.testing.assert_allclose(moved.decision_function(X), before, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="classes of the last fit"):
        moved.fit(X, y + 1)
    moved.set_params(hidden_layer_sizes=(3,))
    with pytest.raises(ValueError, match="layers of the last fit"):
        moved.fit(X, y)


def test_warm_start_with_hidden_layers(imbalanced: tuple) -> None:
    X, y = imbalanced
    settings = {"hidden_layer_sizes": (4,), "lr": 0.1, "random_state": 0}
    warm = AnyLossClassifier(max_iter=30, warm_start=True, **settings).fit(X, y).fit(X, y)
    whole = AnyLossClassifier(max_iter=60, **settings).fit(X, y)
    np.testing.assert_allclose(
        warm.decision_function(X), whole.decision_function(X), rtol=1e-6, atol=1e-9
    )


def test_units_of_the_features_do_not_matter(imbalanced: tuple) -> None:
    X, y = imbalanced
    scale = np.array([1e-3, 1.0, 1e3, 5.0, 0.1, 2.0])
    a = AnyLossClassifier(max_iter=100).fit(X, y)
    b = AnyLossClassifier(max_iter=100).fit(X * scale - 3.0, y)
    np.testing.assert_allclose(
        a.decision_function(X), b.decision_function(X * scale - 3.0), rtol=1e-6, atol=1e-9
    )


def test_weights_are_repetition(imbalanced: tuple) -> None:
    X, y = imbalanced
    times = np.arange(len(y)) % 4
    a = AnyLossClassifier("gmean", max_iter=100).fit(X, y, sample_weight=times)
    b = AnyLossClassifier("gmean", max_iter=100).fit(np.repeat(X, times, 0), np.repeat(y, times))
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=1e-7)


def test_several_classes_and_text_labels() -> None:
    X, index = make_classification(
        300, n_features=6, n_informative=5, n_redundant=0, n_classes=3, random_state=0
    )
    y = np.array(["ant", "bee", "cat"])[index]
    model = AnyLossClassifier("f1", max_iter=300).fit(X, y)
    assert model.coef_.shape == (3, 6)
    assert model.decision_function(X).shape == (300, 3)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    assert model.score(X, y) == pytest.approx(sk.f1_score(y, model.predict(X), average="macro"))
    one = AnyLossClassifier("f1", max_iter=300).fit(X, y == "bee")
    np.testing.assert_allclose(one.coef_[0], model.coef_[1], rtol=1e-7)
    exact = AnyLossClassifier("accuracy", max_iter=300).fit(X, y)
    assert exact.score(X, y) == pytest.approx((exact.predict(X) == y).mean())


def test_schedule_and_grid_search() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    model = AnyLossClassifier(amplification=lambda step: min(73.0, 5.0 + step), max_iter=60)
    search = GridSearchCV(model, {"lr": [0.01, 0.1], "metric": ["f1", "mcc"]}, cv=3)
    assert search.fit(X, y).score(X, y) > 0.9


X4, Y4 = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"metric": "f1score"}, ValueError, "did you mean 'f1'"),
        ({"beta": -1}, ValueError, "beta must be positive"),
        ({"amplification": 0}, ValueError, "amplification must be positive"),
        ({"amplification": lambda s: 1.0, "solver": "lbfgs"}, ValueError, "got a schedule"),
        ({"solver": "sgd"}, ValueError, "gd, adam, lbfgs"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
        ({"max_iter": 1.5}, TypeError, "max_iter must be an int"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change must be at least 1"),
        ({"hidden_layer_sizes": (0,)}, ValueError, "hidden_layer_sizes must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"batch_size": 2, "solver": "lbfgs"}, ValueError, "full batch"),
        ({"hidden_layer_sizes": 5}, TypeError, "must be a tuple of widths"),
        ({"lr": "0.1"}, TypeError, "lr must be a number, got str '0.1'"),
        ({"validation_fraction": None}, TypeError, "validation_fraction must be a number"),
        ({"lr": 0.0}, ValueError, "lr must be positive"),
        ({"lr": float("nan")}, ValueError, "lr must be positive"),
        ({"validation_fraction": 1.0}, ValueError, "inside (0, 1)"),
    ],
)
def test_bad_settings(change: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        AnyLossClassifier(**change).fit(X4, Y4)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((X4, np.zeros(4)), "only one class: np.float64(0.0)"),
        ((X4, Y4, [1, 0, 1, 0]), "only one class: np.int64(0)"),
        ((X4, Y4, [1, 1, -1, 1]), "Negative values in data"),
        ((X4, Y4, [1, 1, 1]), "sample_weight.shape == (3,)"),
        ((X4, np.linspace(0, 1, 4)), "Unknown label type"),
    ],
)
def test_bad_tables(arguments: tuple, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        AnyLossClassifier().fit(*arguments)
    assert text in str(caught.value)


def test_score_wants_one_label_a_row() -> None:
    model = AnyLossClassifier(max_iter=2).fit(X4, Y4)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.score(X4, Y4[:3])


def test_score_takes_a_column_of_labels(imbalanced: tuple) -> None:
    X, y = imbalanced[:2]
    model = AnyLossClassifier(max_iter=20).fit(X, y)
    assert model.score(X, y[:, None]) == model.score(X, y)
    with pytest.raises(ValueError, match="1d array"):
        model.score(X, np.stack([y, y], 1))


def test_score_of_several_labels_wants_all_of_them(imbalanced: tuple) -> None:
    X, y = imbalanced[:2]
    both = np.stack([y, 1 - y], 1)
    model = AnyLossClassifier(max_iter=20).fit(X, both)
    for wrong in (y, y[:, None], both[:, [0, 1, 1]]):
        with pytest.raises(ValueError, match=r"y must have shape \(\d+, 2\)"):
            model.score(X, wrong)


def test_validation_scores_are_those_of_the_last_fit(imbalanced: tuple) -> None:
    model = AnyLossClassifier(max_iter=3, early_stopping=True).fit(*imbalanced[:2])
    assert len(model.validation_scores_) == 3
    model.set_params(early_stopping=False).fit(*imbalanced[:2])
    assert not hasattr(model, "validation_scores_")


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "sklearn":
            raise ImportError("no scikit-learn here")
sys.meta_path.insert(0, Block())
import torch
from gradworks.losses import AnyLoss
from gradworks.losses.anyloss import anyloss
anyloss(torch.zeros(2, dtype=torch.float64), torch.tensor([0, 1])).item()
assert not any(m.split(".")[0] == "sklearn" for m in sys.modules)
try:
    from gradworks.losses.anyloss import AnyLossClassifier
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_the_loss_does_not_need_scikit_learn() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True, timeout=120
    )
    assert 'pip install "gradworks[tables]"' in done.stdout
