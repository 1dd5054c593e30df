"""AnyLoss: what it warns of, and the errors for everything it does not take."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gradworks.losses.anyloss import (
    METRICS,
    AnyLoss,
    amplification_bound,
    anyloss,
    register_metric,
    tversky,
)


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def problem(n: int = 9, seed: int = 0, scale: float = 0.15) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dtype=torch.float64, generator=g) * scale
    y = (torch.arange(n) % 3 == 0).double()
    return z, y, torch.rand(n, dtype=torch.float64, generator=g) + 0.1


# ---------------------------------------------------------------- warnings and errors


def test_bound_is_the_papers_73() -> None:
    assert 73 <= amplification_bound(torch.float64) < 74
    assert 33 <= amplification_bound(torch.float32) < 34
    assert amplification_bound(torch.bfloat16) == amplification_bound(torch.float32)
    for dtype, L in ((torch.float64, 73), (torch.float32, 33)):
        one = torch.ones((), dtype=dtype)
        assert 1 / (1 + torch.exp(-L * (one - 0.5))) != 1
        assert 1 / (1 + torch.exp(-(L + 1) * (one - 0.5))) == 1


def test_amplification_above_the_bound_warns_once() -> None:
    z, y, _ = problem()
    module = AnyLoss()
    with pytest.warns(RuntimeWarning, match=r"33\.27, the bound of torch\.float32"):
        module(z.float(), y)
    module(z.float(), y)  # a second warning would be an error here
    with pytest.warns(RuntimeWarning, match=r"73\.4"):
        anyloss(z, y, amplification=74.0)
    warm_up = AnyLoss(amplification=lambda step: 5.0 if step == 0 else 73.0)
    warm_up(z.float(), y)
    with pytest.warns(RuntimeWarning, match=r"33\.27"):
        warm_up(z.float(), y)
    warm_up(z.float(), y)
    anyloss(z, y, amplification=73.0)
    anyloss(z.float(), y, amplification=33.0)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_logit_that_is_no_number_is_not_hidden(name: str) -> None:
    z, y, _ = problem()
    assert anyloss(z.index_fill(0, torch.tensor([1]), math.nan), y, name).isnan()


def test_infinite_logits_are_decisions_without_gradient() -> None:
    z, y, _ = problem()
    leaf = z.clone()
    leaf[:2] = torch.tensor([math.inf, -math.inf])
    leaf.requires_grad_()
    anyloss(leaf, y, "f1").backward()
    far = z.clone()
    far[:2] = torch.tensor([1e3, -1e3])
    torch.testing.assert_close(anyloss(leaf.detach(), y, "f1"), anyloss(far, y, "f1"))
    assert (leaf.grad[:2] == 0).all()
    assert (leaf.grad[2:] != 0).all()


Z, Y = torch.zeros(4, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
BAD = [
    ("target values", {"target": torch.tensor([0, 1, 2, 1])}, ValueError, "0 or 1, found"),
    ("target float", {"target": f64([0, 1, 1e-9, 1])}, ValueError, "found values from 0 to 1"),
    ("target sign", {"target": torch.tensor([-1, 1, -1, 1])}, ValueError, "from -1 to 1"),
    ("target nan", {"target": f64([0, math.nan, 0, 1])}, ValueError, "nan"),
    ("soft range", {"target": f64([0, 1.5, 0, 1]), "soft_targets": True}, ValueError, "in [0, 1]"),
    ("target shape", {"target": torch.zeros(5)}, ValueError, "target (5,)"),
    ("target list", {"target": [0, 1, 0, 1]}, TypeError, "target must be a torch.Tensor"),
    ("target complex", {"target": Y.to(torch.complex64)}, TypeError, "must be real"),
    ("target grad", {"target": f64([0, 1, 0, 1]).requires_grad_()}, ValueError, "detach"),
    ("empty", {"input": torch.zeros(0), "target": torch.zeros(0)}, ValueError, "no samples"),
    ("scalar", {"input": f64(0.0), "target": f64(0.0)}, ValueError, "no samples"),
    ("integer logits", {"input": Y}, TypeError, "floating-point scores, got torch.int64"),
    ("metric", {"metric": "balanced_acuracy"}, ValueError, "did you mean 'balanced_accuracy'"),
    ("metric type", {"metric": 3}, TypeError, "metric must be a name or a callable"),
    ("metric arity", {"metric": lambda a, b: a}, TypeError, "takes 2 arguments"),
    ("metric result", {"metric": lambda c: c.tp[None]}, ValueError, "metric must return"),
    ("amplification", {"amplification": 0.0}, ValueError, "amplification must be positive"),
    ("amplification inf", {"amplification": math.inf}, ValueError, "positive and finite"),
    ("amplification type", {"amplification": "73"}, TypeError, "must be a number, got str"),
    ("beta", {"beta": -1.0}, ValueError, "beta must be positive"),
    ("beta contradicts", {"metric": "f2", "beta": 0.5}, ValueError, "contradicts beta=0.5"),
    ("threshold", {"threshold": 1.0}, ValueError, "inside (0, 1), got 1.0"),
    ("probabilities", {"input": Z + 2, "from_logits": False}, ValueError, "from_logits=False"),
    ("weight sign", {"weight": f64([1, 1, -1, 1])}, ValueError, "not negative, found -1"),
    ("weight inf", {"weight": f64([1, 1, math.inf, 1])}, ValueError, "finite"),
    ("weight shape", {"weight": torch.ones(3)}, ValueError, "weight must have shape (4,)"),
    ("surrogate", {"surrogate": "hinge"}, ValueError, "anyloss, sol, linear"),
    ("average", {"average": "samples"}, ValueError, "binary, macro, micro, weighted"),
    ("reduction", {"reduction": "mean"}, ValueError, "metric, none"),
    ("classes", {"input": torch.zeros(4, 3), "target": Y}, ValueError, "average='binary'"),
    (
        "class index",
        {"input": torch.zeros(4, 3), "target": Y + 2, "average": "macro"},
        ValueError,
        "allowed are 0 to 2",
    ),
    (
        "class labels",
        {"input": torch.zeros(4, 3), "target": torch.zeros(4), "average": "macro"},
        ValueError,
        "integer class indices",
    ),
]


@pytest.mark.parametrize(("change", "error", "text"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input(change: dict, error: type[Exception], text: str) -> None:
    arguments = {"input": Z, "target": Y, **change}
    with pytest.raises(error) as caught:
        anyloss(**arguments)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"metric": "auc"}, ValueError, "unknown"),
        ({"accumulate": -1}, ValueError, "accumulate must be at least 0"),
        ({"accumulate": 1.5}, TypeError, "accumulate must be an int"),
        ({"average": "none"}, ValueError, "average must be one of"),
        ({"amplification": -3}, ValueError, "amplification must be positive"),
        ({"beta": 0}, ValueError, "beta must be positive"),
        ({"threshold": 0.0}, ValueError, "threshold must be a probability"),
        ({"surrogate": "soft"}, ValueError, "surrogate must be one of"),
    ],
)
def test_bad_settings_of_the_module(change: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        AnyLoss(**change)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("name", "fn", "error", "text"),
    [
        ("", lambda c: c.tp, ValueError, "non-empty"),
        ("f1", lambda c: c.tp, ValueError, "taken"),
        ("mine", 3, TypeError, "callable"),
        ("mine", lambda a, b, c: a, TypeError, "takes 3 arguments"),
    ],
)
def test_bad_registrations(name: str, fn: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        register_metric(name, fn)
    assert text in str(caught.value)
    with pytest.raises(ValueError, match="negative"):
        tversky(-1.0)
