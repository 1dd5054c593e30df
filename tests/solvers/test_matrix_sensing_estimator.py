"""MatrixSensing as scikit-learn wants it, and what it finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import gradworks.solvers.matrix_sensing as package
from gradworks.solvers.matrix_sensing import MatrixSensing, random_low_rank
from gradworks.solvers.matrix_sensing.estimator import HALVINGS


@parametrize_with_checks(
    [
        # one column: the one shape that fits tables of every width
        MatrixSensing(shape=(-1, 1), random_state=0),
        MatrixSensing(shape=(1, -1), method="asymmetric", random_state=0),
    ]
)
def test_scikit_learn_contract(estimator: MatrixSensing, check: Any) -> None:
    check(estimator)


def sensed(
    n1: int, n2: int, m: int, *, rank: int = 2, symmetric: bool = False, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrix, samples, targets."""
    g = torch.Generator().manual_seed(seed)
    M = random_low_rank(n1, n2, rank=rank, kappa=2.0, symmetric=symmetric, generator=g).numpy()
    X = torch.randn(m, n1, n2, generator=g, dtype=torch.float64).numpy()
    return M, X, np.einsum("mij,ij->m", X, M)


@pytest.mark.parametrize("method", ["accelerated", "asymmetric"])
@pytest.mark.parametrize("m", [90, 300], ids=["fewer than entries", "more"])
def test_finds_a_rectangular_matrix(method: str, m: int) -> None:
    M, X, y = sensed(12, 9, m)
    model = MatrixSensing(4 if m == 300 else 2, method=method, random_state=0, max_iter=20_000)
    model.fit(X, y)
    np.testing.assert_allclose(model.coef_, M, atol=1e-3)
    F, G = model.factors_
    np.testing.assert_allclose(F @ G.T, model.coef_)
    assert model.residuals_[-1] <= model.tol
    assert len(model.residuals_) == model.n_iter_ + 1
    assert model.score(X, y) > 1 - 1e-8


def test_symmetric_method_takes_samples_that_are_not() -> None:
    M, X, y = sensed(8, 8, 60, symmetric=True)
    model = MatrixSensing(2, method="symmetric", random_state=0).fit(X, y)
    np.testing.assert_allclose(model.coef_, M, atol=1e-4)
    (factor,) = model.factors_
    np.testing.assert_allclose(factor @ factor.T, model.coef_)
    np.testing.assert_allclose(model.predict(X), y, atol=1e-3)


def test_flat_samples_are_the_same_samples() -> None:
    _, X, y = sensed(5, 4, 60)
    deep = MatrixSensing(2, random_state=3).fit(X, y)
    flat = MatrixSensing(2, shape=(5, 4), random_state=3).fit(X.reshape(60, -1), y)
    inferred = MatrixSensing(2, shape=(5, -1), random_state=3).fit(X.reshape(60, -1), y)
    assert np.array_equal(deep.coef_, flat.coef_)
    assert np.array_equal(deep.coef_, inferred.coef_)
    assert np.array_equal(deep.predict(X), flat.predict(X.reshape(60, -1)))


def test_units_do_not_matter() -> None:
    """Samples and targets in other units: the same steps, the same matrix in those units."""
    _, X, y = sensed(6, 5, 80)
    one = MatrixSensing(2, random_state=0).fit(X, y)
    other = MatrixSensing(2, random_state=0).fit(1e4 * X, 1e-3 * y)
    np.testing.assert_allclose(other.coef_, 1e-7 * one.coef_, rtol=1e-6)
    assert other.n_iter_ == one.n_iter_


def test_a_step_of_its_own_is_halved_and_a_given_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, X, y = sensed(6, 5, 80)
    with pytest.raises(FloatingPointError, match="lr=5"):
        MatrixSensing(2, lr=5.0, random_state=0).fit(X, y)
    monkeypatch.setattr(MatrixSensing, "_first_step", lambda self, op: 5.0)
    model = MatrixSensing(2, random_state=0).fit(X, y)
    assert model.lr_ == 5.0 / 2 ** round(np.log2(5.0 / model.lr_))
    # at 1.25 it bounces for ever without an explosion, and that is too large as well
    assert 5.0 / 2**HALVINGS < model.lr_ < 0.5
    assert model.score(X, y) > 0.999


def test_ill_conditioned_samples_get_a_smaller_step() -> None:
    _, X, _ = sensed(6, 5, 80)
    X = X + 10.0  # one direction that outweighs all others
    M = np.ones((6, 5))
    y = np.einsum("mij,ij->m", X, M)
    model = MatrixSensing(1, random_state=0).fit(X, y)
    assert model.lr_ < 0.02
    np.testing.assert_allclose(model.predict(X), y, rtol=0.05)


def test_nothing_to_explain() -> None:
    _, X, y = sensed(4, 3, 20)
    model = MatrixSensing(2).fit(X, 0 * y)
    assert np.array_equal(model.coef_, np.zeros((4, 3)))
    assert model.n_iter_ == 0
    assert [f.shape for f in model.factors_] == [(4, 2), (3, 2)]
    (factor,) = MatrixSensing(2, shape=(2, 2), method="symmetric").fit(X[:, :2, :2], 0 * y).factors_
    assert factor.shape == (2, 2)


def test_noise_does_not_stop_it() -> None:
    M, X, y = sensed(10, 8, 400)
    noisy = y + 0.1 * np.random.default_rng(0).normal(size=y.size)
    model = MatrixSensing(2, random_state=0).fit(X, noisy)
    full = np.linalg.lstsq(X.reshape(400, -1), noisy, rcond=None)[0].reshape(10, 8)
    # two ranks of eight have 32 degrees of freedom in place of 80
    assert np.linalg.norm(model.coef_ - M) < 0.8 * np.linalg.norm(full - M)


def test_samples_of_another_shape_are_refused() -> None:
    """With as many entries, their rows would be read as others."""
    _, X, y = sensed(5, 4, 60)
    model = MatrixSensing(2, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"samples of shape \(5, 4\), got \(4, 5\)"):
        model.predict(X.transpose(0, 2, 1))


def test_tools_of_scikit_learn() -> None:
    _, X, y = sensed(4, 4, 60)
    flat = X.reshape(60, -1)
    grid = GridSearchCV(MatrixSensing(random_state=0), {"rank": np.arange(1, 3)}, cv=3).fit(flat, y)
    assert grid.best_params_ == {"rank": 2}
    assert cross_val_score(MatrixSensing(2, random_state=0), flat, y, cv=3).min() > 0.99
    model = clone(MatrixSensing(3, beta=0.7))
    assert model.get_params()["beta"] == 0.7


def test_found_when_asked_for() -> None:
    assert package.MatrixSensing is MatrixSensing
    assert "MatrixSensing" in dir(package)


X20, Y20 = np.ones((20, 12)), np.arange(20.0)


@pytest.mark.parametrize(
    ("settings", "X", "error", "message"),
    [
        ({}, X20, ValueError, "shape must be given where a row has 12 entries"),
        ({"shape": (5, 2)}, X20, ValueError, r"shape \(5, 2\) does not fit .* 12 entries"),
        ({"shape": (5, -1)}, X20, ValueError, r"shape \(5, -1\) does not fit"),
        ({"shape": (-1, -1)}, X20, ValueError, r"shape \(-1, -1\) does not fit"),
        ({"shape": 12}, X20, TypeError, "shape must be a pair"),
        ({"shape": (4, 3)}, X20.reshape(20, 3, 4), ValueError, r"shape \(3, 4\)"),
        ({"shape": (4, 3), "method": "newton"}, X20, ValueError, "method must be one of symmetric"),
        ({"shape": (4, 3), "method": "symmetric"}, X20, ValueError, "square samples, got 4 x 3"),
        ({"shape": (4, 3), "rank": 4}, X20, ValueError, "rank must be at most min"),
        ({"shape": (4, 3), "rank": 0}, X20, ValueError, "rank must be at least 1, got 0"),
        ({"shape": (4, 3), "rank": 1.5}, X20, TypeError, "rank must be an int"),
        ({"shape": (4, 3), "lr": 0.0}, X20, ValueError, "lr must be"),
        ({"shape": (4, 3), "alpha": -1}, X20, ValueError, "alpha must be"),
        ({"shape": (4, 3), "beta": 0}, X20, ValueError, "beta must be"),
        ({"shape": (4, 3), "imbalance": "3"}, X20, TypeError, "imbalance must be a number"),
        ({"shape": (4, 3), "max_iter": -1}, X20, ValueError, "max_iter must be"),
        ({"shape": (4, 3), "tol": -1e-3}, X20, ValueError, "tol must be"),
    ],
)
def test_bad_settings(
    settings: dict[str, Any], X: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        MatrixSensing(**settings).fit(X, Y20)
