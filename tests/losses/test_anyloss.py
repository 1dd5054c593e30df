"""AnyLoss: golden vectors of the paper's code, gradients, limits, invariances, state, errors."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from gradworks.losses.anyloss import (
    METRICS,
    Confusion,
    anyloss,
    cost_metric,
    fbeta,
    soft_confusion,
    tversky,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "anyloss"
OFFICIAL = {"fbeta0.5": ("fbeta", 0.5), "fbeta1.0": ("f1", 1.0), "fbeta2.0": ("fbeta", 2.0)}
PUBLISHED = ("f1", "f0.5", "f2", "accuracy", "gmean", "balanced_accuracy")


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def load(name: str) -> dict[str, object]:
    return json.loads((GOLDEN / name).read_text())


def naive_counts(z: Tensor, y: Tensor, w: Tensor, L: float, t: float) -> Confusion:
    """The paper's Sec. 3, sum by sum, by automatic differentiation."""
    p = 1 / (1 + torch.exp(-z))
    yes = 1 / (1 + torch.exp(-L * (p - t)))
    no = 1 / (1 + torch.exp(L * (p - t)))
    tp, fn = (w * y * yes).sum(), (w * y * no).sum()
    return Confusion(tp, fn, (w * (1 - y) * yes).sum(), (w * (1 - y) * no).sum())


def problem(n: int = 9, seed: int = 0, scale: float = 0.15) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dtype=torch.float64, generator=g) * scale
    y = (torch.arange(n) % 3 == 0).double()
    return z, y, torch.rand(n, dtype=torch.float64, generator=g) + 0.1


# ---------------------------------------------------------------- golden


@pytest.mark.parametrize("case", load("golden.json")["cases"], ids=lambda c: f"n{len(c['y'])}")
def test_golden_of_the_authors_functions(case: dict) -> None:
    X, y, L = f64(case["X"]), f64(case["y"]), case["L"]
    counts = soft_confusion(f64(case["logits"]), y, amplification=L)
    for name, value in case["counts"].items():
        torch.testing.assert_close(getattr(counts, name), f64(value), rtol=1e-10, atol=0)
    for name, want in case["metrics"].items():
        metric, beta = OFFICIAL.get(name, (name, 1.0))
        theta = f64(case["theta"]).requires_grad_()
        loss = anyloss(X @ theta, y, metric, beta=beta, amplification=L)
        loss.backward()
        torch.testing.assert_close(loss, f64(want["loss"]), rtol=1e-10, atol=0)
        torch.testing.assert_close(theta.grad, f64(want["grad_theta"]), rtol=1e-10, atol=1e-14)
        if "official_grad_theta" in want:  # the released G-mean gradient is four times too large
            official = f64(want["official_grad_theta"])
            torch.testing.assert_close(4 * theta.grad, official, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("case", load("logits_and_paths.json")["cases"], ids=lambda c: len(c["y"]))
def test_golden_by_logits(case: dict) -> None:
    z, y, L = f64(case["z"]), f64(case["y"]), case["L"]
    c = soft_confusion(z, y, amplification=L)
    torch.testing.assert_close(
        torch.stack([c.tn, c.fp, c.fn, c.tp]), f64(case["tn_fp_fn_tp"]), rtol=1e-10, atol=1e-14
    )
    short = {"fbeta_1": "f1", "fbeta_0.5": "f0.5", "fbeta_2": "f2"}
    seen = 0
    for kind, surrogate in (("official", "anyloss"), ("extra", "anyloss"), ("sol_cosine", "sol")):
        for name, value in case[f"{kind}_loss"].items():
            leaf = z.clone().requires_grad_()
            loss = anyloss(leaf, y, short.get(name, name), amplification=L, surrogate=surrogate)
            loss.backward()
            torch.testing.assert_close(loss, f64(value), rtol=1e-10, atol=0)
            # 1 - A by subtraction costs the stored gradients 1e-13 of their largest entry.
            want = f64(case[f"{kind}_grad"][name])
            torch.testing.assert_close(leaf.grad, want, rtol=1e-10, atol=1e-14)
            seen += 1
    assert seen == 19


# ---------------------------------------------------------------- naive transcription


@given(
    n=st.integers(1, 40),
    seed=st.integers(0, 10_000),
    L=st.floats(0.5, 73.0),
    t=st.floats(0.1, 0.9),
    metric=st.sampled_from(sorted(set(METRICS) - {"fbeta"})),
    positive=st.floats(0.0, 1.0),
)
@settings(max_examples=120, deadline=None)
def test_equals_the_naive_transcription(
    n: int, seed: int, L: float, t: float, metric: str, positive: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dtype=torch.float64, generator=g)
    y = (torch.rand(n, generator=g) < positive).double()
    w = torch.rand(n, dtype=torch.float64, generator=g) + 0.01
    fast, slow = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = anyloss(fast, y, metric, amplification=L, threshold=t, weight=w)
    expected = 1 - METRICS[metric](naive_counts(slow, y, w, L, t))
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("n", [2**18, 2**18 + 1, 600_001])
def test_blocks_change_nothing(n: int) -> None:
    """Long batches are handled in pieces: same counts, same gradient as shorter ones added up."""
    g = torch.Generator().manual_seed(n)
    z = torch.randn(n, dtype=torch.float64, generator=g).requires_grad_()
    y = torch.rand(n, generator=g) < 0.3
    w = torch.rand(n, generator=g, dtype=torch.float64)
    whole = soft_confusion(z, y, weight=w)
    halves = [
        soft_confusion(z[part], y[part], weight=w[part])
        for part in (slice(0, n // 2), slice(n // 2, None))
    ]
    for a, b, c in zip(whole, *halves):
        torch.testing.assert_close(a, b + c, rtol=1e-12, atol=1e-12)
    (grad,) = torch.autograd.grad(METRICS["f1"](whole), z)
    both = Confusion(*(b + c for b, c in zip(*halves)))
    (expected,) = torch.autograd.grad(METRICS["f1"](both), z)
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-18)


def test_blocks_of_probabilities_leave_their_slope() -> None:
    p = torch.full((2**18 + 1,), 0.25).requires_grad_()
    y = torch.arange(2**18 + 1) % 2
    soft_confusion(p, y, surrogate="linear", from_logits=False).tp.backward()
    assert torch.equal(p.grad, y.float())


# ---------------------------------------------------------------- derivatives


@pytest.mark.parametrize("L", [5.0, 73.0])
@pytest.mark.parametrize("metric", ["f1", "gmean", "balanced_accuracy", "mcc", "kappa"])
def test_gradcheck(metric: str, L: float) -> None:
    z, y, w = problem()

    def loss(z: Tensor) -> Tensor:
        return anyloss(z, y, metric, amplification=L, weight=w)

    z.requires_grad_()
    assert gradcheck(loss, (z,))
    assert gradgradcheck(loss, (z,))


FORWARD_MODE = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


@FORWARD_MODE  # the first use of forward mode loads torch's scripted decompositions
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("threshold", [0.5, 0.45])
@pytest.mark.parametrize("surrogate", ["anyloss", "sol", "linear"])
def test_gradcheck_of_surrogates(surrogate: str, threshold: float, from_logits: bool) -> None:
    z, y, w = problem()
    scores = z if from_logits else torch.sigmoid(z)

    def loss(s: Tensor) -> Tensor:
        return anyloss(
            s, y, "f1", threshold=threshold, surrogate=surrogate, from_logits=from_logits, weight=w
        )

    scores = scores.clone().requires_grad_()
    assert gradcheck(loss, (scores,), check_forward_ad=True)
    assert gradgradcheck(loss, (scores,))


def test_recorded_gradient_equals_the_plain_one() -> None:
    """create_graph takes another path through backward, with weights as well."""
    z, y, w = problem()
    z.requires_grad_()
    (plain,) = torch.autograd.grad(anyloss(z, y, "f1", weight=w), z)
    (recorded,) = torch.autograd.grad(anyloss(z, y, "f1", weight=w), z, create_graph=True)
    assert recorded.requires_grad
    torch.testing.assert_close(recorded.detach(), plain, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_metric_has_a_right_gradient(name: str) -> None:
    counts = tuple(f64(v).requires_grad_() for v in (3.0, 1.5, 2.0, 6.5))
    assert gradcheck(lambda *c: METRICS[name](Confusion(*c)), counts)


@FORWARD_MODE
def test_forward_over_reverse_and_vmap() -> None:
    z, y, _ = problem()

    def loss(z: Tensor) -> Tensor:
        return anyloss(z, y, "f1")

    hessian = torch.autograd.functional.hessian(loss, z)
    v = torch.eye(9, dtype=torch.float64)
    products = torch.func.vmap(lambda d: torch.func.jvp(torch.func.grad(loss), (z,), (d,))[1])(v)
    torch.testing.assert_close(products, hessian)
    many = torch.stack([z, -z, 2 * z])
    losses = torch.func.vmap(lambda z: anyloss(z, y, "f1", validate=False))(many)
    torch.testing.assert_close(losses, torch.stack([loss(row) for row in many]))


@pytest.mark.parametrize("amplification", [5.0, 73.0])
def test_float32_gradient_is_accurate_on_both_sides(amplification: float) -> None:
    """Fails for 1 - A by subtraction: there the right side is exactly 0 from z = 2 on."""
    z = torch.linspace(-3.0, 3.0, 121)
    y = (torch.arange(121) % 4 == 0).float()
    single, double = z.clone().requires_grad_(), z.double().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        anyloss(single, y, "f1", amplification=amplification).backward()
    anyloss(double, y, "f1", amplification=amplification).backward()
    assert (single.grad != 0).all()
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-4, atol=0)


def test_derivative_is_symmetric_to_the_last_bit() -> None:
    z = torch.tensor([2.0, -2.0, 0.3, -0.3, 20.0, -20.0], dtype=torch.float32, requires_grad=True)
    counts = soft_confusion(z, torch.ones(6), amplification=33.0)
    counts.tp.backward()
    left, right = z.grad[1::2], z.grad[0::2]
    assert torch.equal(left, right)
    assert (z.grad[:4] > 0).all()


# ---------------------------------------------------------------- closed forms and limits


def test_counts_sum_to_the_weights() -> None:
    z, y, w = problem(30, scale=3.0)
    torch.testing.assert_close(soft_confusion(z, y).total, f64(30.0), rtol=1e-14, atol=0)
    torch.testing.assert_close(soft_confusion(z, y, weight=w).total, w.sum(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_perfect_separation_is_loss_zero(name: str) -> None:
    y = f64([1, 0, 1, 0, 0])
    loss = anyloss(40 * (2 * y - 1), y, name)
    assert abs(loss.item()) < 1e-14


@pytest.mark.filterwarnings("ignore:amplification 5000")
def test_hard_metrics_are_the_limit() -> None:
    g = torch.Generator().manual_seed(3)
    z = torch.randn(200, dtype=torch.float64, generator=g)
    z = z + 0.3 * z.sign()  # nothing within 1/L of the threshold
    y = (torch.rand(200, generator=g) < torch.sigmoid(z)).long()
    said = (z > 0).long()
    soft = {name: 1 - anyloss(z, y, name, amplification=5e3).item() for name in METRICS}
    from imblearn.metrics import geometric_mean_score

    hard = {
        "accuracy": sk.accuracy_score(y, said),
        "f1": sk.f1_score(y, said),
        "f0.5": sk.fbeta_score(y, said, beta=0.5),
        "f2": sk.fbeta_score(y, said, beta=2.0),
        "gmean": geometric_mean_score(y, said),
        "balanced_accuracy": sk.balanced_accuracy_score(y, said),
        "recall": sk.recall_score(y, said),
        "precision": sk.precision_score(y, said),
        "jaccard": sk.jaccard_score(y, said),
        "mcc": sk.matthews_corrcoef(y, said),
        "kappa": sk.cohen_kappa_score(y, said),
        "fowlkes_mallows": math.sqrt(sk.precision_score(y, said) * sk.recall_score(y, said)),
        "informedness": sk.balanced_accuracy_score(y, said, adjusted=True),
        "cost": sk.accuracy_score(y, said),
    }
    for name, value in hard.items():
        assert soft[name] == pytest.approx(value, abs=1e-9), name


def test_small_amplification_is_affine() -> None:
    z, y, _ = problem()
    a = soft_confusion(z, torch.ones_like(y), amplification=1e-4).tp / 9
    expected = 0.5 + 1e-4 / 4 * (torch.sigmoid(z).mean() - 0.5)
    torch.testing.assert_close(a, expected, rtol=1e-10, atol=0)


def test_sol_has_no_gradient_far_from_the_threshold() -> None:
    z = torch.logit(f64([0.39, 0.61, 0.45, 0.55])).requires_grad_()
    anyloss(z, f64([1, 0, 1, 0]), "f1", surrogate="sol").backward()
    assert (z.grad[:2] == 0).all()
    assert (z.grad[2:] != 0).all()


def test_linear_surrogate_is_the_probability() -> None:
    z, y, _ = problem()
    counts = soft_confusion(z, y, surrogate="linear")
    torch.testing.assert_close(counts.tp, (y * torch.sigmoid(z)).sum())


def test_fbeta_names_agree() -> None:
    z, y, _ = problem()
    assert anyloss(z, y, "f2") == anyloss(z, y, "fbeta", beta=2.0) == anyloss(z, y, fbeta(2.0))
    assert anyloss(z, y, "f1", beta=0.5) == anyloss(z, y, "f0.5")


def test_f1_and_its_gradient_by_hand() -> None:
    """p of 3/4, 1/4, 1/2 and L = 4 ln 2: A is 2/3, 1/3, 1/2, so TP = FN = 1 and FP = TN = 3/2."""
    three = math.log(3)
    z = f64([three, -three, 0.0, three, -three]).requires_grad_()
    loss = anyloss(z, torch.tensor([1, 1, 0, 0, 0]), "f1", amplification=4 * math.log(2))
    loss.backward()
    assert loss.item() == pytest.approx(1 - 2 / 4.5, abs=1e-15)
    # dF1/dA is 28/81 for a positive, -8/81 for a negative; dA/dz is ln 2 / 6, at 0 ln 2 / 4.
    want = math.log(2) / 81 * f64([-28 / 6, -28 / 6, 8 / 4, 8 / 6, 8 / 6])
    torch.testing.assert_close(z.grad, want, rtol=1e-14, atol=0)


def test_tversky_and_cost_by_hand() -> None:
    c = Confusion(*f64([3.0, 1.0, 2.0, 4.0]))
    assert tversky(0.3, 0.7)(c).item() == pytest.approx(3 / (3 + 0.6 + 0.7))
    assert 1 - cost_metric(fn=5, fp=2, tp=-1)(c).item() == pytest.approx((5 + 4 - 3) / 10)


# ---------------------------------------------------------------- invariances


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "gmean", "mcc"])
def test_swapping_labels_and_signs(metric: str) -> None:
    z, y, _ = problem()
    torch.testing.assert_close(
        anyloss(z, y, metric), anyloss(-z, 1 - y, metric), rtol=1e-13, atol=0
    )


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_order_of_samples_does_not_matter(seed: int) -> None:
    z, y, _ = problem(12, seed)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        anyloss(z, y, "f1"), anyloss(z[order], y[order], "f1"), rtol=1e-13, atol=0
    )


@given(copies=st.lists(st.integers(0, 4), min_size=9, max_size=9).filter(any))
@settings(max_examples=40, deadline=None)
def test_weights_are_repetition(copies: list[int]) -> None:
    z, y, _ = problem(9)
    times = torch.tensor(copies)
    weighted = anyloss(z, y, "balanced_accuracy", weight=times)
    repeated = anyloss(z.repeat_interleave(times), y.repeat_interleave(times), "balanced_accuracy")
    torch.testing.assert_close(weighted, repeated, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("column", [False, True])
def test_labels_of_any_type_and_column_shapes(dtype: torch.dtype, column: bool) -> None:
    z, y, _ = problem()
    shaped = z[:, None] if column else z
    assert anyloss(shaped, y.to(dtype), "f1") == anyloss(z, y, "f1")
    assert anyloss(shaped, y.to(dtype)[:, None], "f1") == anyloss(z, y, "f1")


def test_probabilities_equal_logits() -> None:
    z, y, _ = problem()
    torch.testing.assert_close(
        anyloss(torch.sigmoid(z), y, "f1", from_logits=False), anyloss(z, y, "f1")
    )


def test_half_precision_is_computed_in_float32() -> None:
    z, y, _ = problem()
    leaf = z.to(torch.bfloat16).requires_grad_()
    loss = anyloss(leaf, y, "f1", amplification=33.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert leaf.grad.dtype == torch.bfloat16
    expected = anyloss(leaf.detach().float(), y.float(), "f1", amplification=33.0)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("name", sorted(METRICS))
def test_batch_of_one_class_is_finite(name: str, label: float) -> None:
    z = torch.linspace(-4, 4, 7, dtype=torch.float64).requires_grad_()
    loss = anyloss(z, torch.full((7,), label), name)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()
    if name in {"recall", "gmean", "f1"} and label == 0.0:
        assert loss.item() == pytest.approx(1.0, abs=2e-6)
        assert (z.grad == 0).all()


def test_soft_targets_on_request() -> None:
    z, y, _ = problem()
    soft = 0.9 * y + 0.05
    counts = soft_confusion(z, soft, soft_targets=True)
    torch.testing.assert_close(counts.positives, soft.sum())
    with pytest.raises(ValueError, match="soft_targets=True"):
        soft_confusion(z, soft)
