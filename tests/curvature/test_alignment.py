"""Hessian alignment: golden values of the authors' code, invariances, gradients, bad input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curvature.alignment_cases import CASES, CLOSE, domains, f64, stored, through
from torch import Tensor, nn

from gradworks.curvature.alignment import (
    HGPAlignment,
    HutchinsonAlignment,
    MovingAverage,
    domain_losses,
    head_gradient,
    head_hessian,
    head_hessian_diagonal,
    head_hessian_vector,
)
from gradworks.curvature.alignment.domains import gather
from gradworks.curvature.alignment.head import LinearHead

BOTH = [HGPAlignment, HutchinsonAlignment]


def official(case: dict, kind: str) -> HGPAlignment | HutchinsonAlignment:
    """The penalty with the settings that the stored numbers were made with."""
    if kind == "official_hgp":
        return HGPAlignment(case["alpha"], case["beta"])
    probes = [f64(z) for z in case[kind]["probes_mean_then_each_domain"]]
    return HutchinsonAlignment(case["alpha"], case["beta"], probes=probes)


# --- golden -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["official_hgp", "official_hutchinson"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c["sizes"]))
def test_loss_gradients_and_one_adam_step_of_the_authors_code(case: dict, kind: str) -> None:
    net, x, y = stored(case)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    features, logits = through(net, x)
    penalty = official(case, kind)(features, logits, y)
    loss = domain_losses(logits, y).mean() + penalty.total
    want = case[kind]
    torch.testing.assert_close(penalty.total, f64(want["penalty"]), **CLOSE)
    torch.testing.assert_close(loss, f64(want["loss"]), **CLOSE)
    loss.backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, f64(want["grad"][name]), **CLOSE)
    if "after_one_adam_step" in want:
        optimizer.step()
        for name, p in net.named_parameters():
            torch.testing.assert_close(p.detach(), f64(want["after_one_adam_step"][name]), **CLOSE)


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c["sizes"]))
def test_ingredients_of_every_domain_and_of_their_mean(case: dict) -> None:
    net, x, y = stored(case)
    features, logits = through(net, x)
    gradients, diagonals, hessians = [], [], []
    for z, a, t, want in zip(features, logits, y, case["per_domain"]):
        g = head_gradient(z, a, t)
        H = head_hessian(z, a, t)
        torch.testing.assert_close(F.cross_entropy(a, t), f64(want["nll"]), **CLOSE)
        torch.testing.assert_close(g, f64(want["grad"]), **CLOSE)
        torch.testing.assert_close(head_hessian_vector(z, a, t, g), f64(want["hgp"]), **CLOSE)
        torch.testing.assert_close(head_hessian_diagonal(z, a, t), f64(want["diag"]), **CLOSE)
        torch.testing.assert_close(H.norm(), f64(want["hessian_frobenius"]), **CLOSE)
        spectral = torch.linalg.matrix_norm(H, 2)
        torch.testing.assert_close(spectral, f64(want["hessian_spectral"]), **CLOSE)
        gradients.append(g)
        diagonals.append(head_hessian_diagonal(z, a, t))
        hessians.append(H)
    gbar, Hbar = torch.stack(gradients).mean(0), torch.stack(hessians).mean(0)
    torch.testing.assert_close(gbar, f64(case["mean"]["grad"]), **CLOSE)
    torch.testing.assert_close(Hbar @ gbar, f64(case["mean"]["hgp"]), **CLOSE)
    torch.testing.assert_close(torch.stack(diagonals).mean(0), f64(case["mean"]["diag"]), **CLOSE)


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c["sizes"]))
def test_penalties_of_the_scripts_and_of_exact_diagonals(case: dict) -> None:
    net, x, y = stored(case)
    features, logits = through(net, x)
    summed = HGPAlignment(1.0, 1.0, reduction="sum", detach_mean=False)(features, logits, y)
    torch.testing.assert_close(summed.total, f64(case["penalty_hgp_sum"]), **CLOSE)
    exact = HutchinsonAlignment(case["alpha"], case["beta"])(features, logits, y)
    want = f64(case["penalty_hutchinson_exact_diag_domainbed"])
    torch.testing.assert_close(exact.total, want, **CLOSE)
    assert exact.total == case["alpha"] * exact.hessian + case["beta"] * exact.gradient


def test_one_logit_and_one_feature_by_hand() -> None:
    # At logit 0: g = (1/2 - y) z and H = z^2 / 4, so g = (-1/2, 1), H = (1/4, 1), and the means are
    # 1/4 and 5/8. Products: -1/8 and 1, of the means 5/32.
    z, a = [torch.tensor([[1.0]]), torch.tensor([[2.0]])], [torch.zeros(1)] * 2
    y = [torch.tensor([1]), torch.tensor([0])]
    hgp = HGPAlignment(2.0, 3.0, bias=False)(z, a, y)
    assert float(hgp.hessian) == ((9 / 32) ** 2 + (27 / 32) ** 2) / 2
    assert float(hgp.gradient) == 9 / 16
    assert float(hgp.total) == 2 * float(hgp.hessian) + 3 * 9 / 16
    diagonal = HutchinsonAlignment(reduction="sum", bias=False)(z, a, y)
    assert float(diagonal.hessian) == 2 * (3 / 8) ** 2
    assert float(diagonal.gradient) == 2 * 9 / 16


# --- the closed form against autograd -----------------------------------------------------------


def reference_loss(z: Tensor, y: Tensor, classes: int, bias: bool) -> Callable[[Tensor], Tensor]:
    """The loss as a function of the flat parameters."""

    def loss(theta: Tensor) -> Tensor:
        W = theta[: classes * z.shape[1]].view(classes, -1)
        logits = z @ W.mT
        if bias:
            logits = logits + theta[classes * z.shape[1] :]
        if classes == 1:
            return F.binary_cross_entropy_with_logits(logits[:, 0], y.to(z.dtype))
        return F.cross_entropy(logits, y)

    return loss


@settings(max_examples=20)
@given(
    n=st.integers(1, 6),
    classes=st.integers(1, 4),
    width=st.integers(1, 5),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_closed_forms_are_the_derivatives(
    n: int, classes: int, width: int, bias: bool, seed: int
) -> None:
    (z, a, y), head = domains((n, n), classes, width, seed=seed, bias=bias)
    theta = torch.cat([p.detach().flatten() for p in head.parameters()])
    loss = reference_loss(z[0], y[0], classes, bias)
    H = torch.autograd.functional.hessian(loss, theta)
    ours = head_hessian(z[0], a[0], y[0], bias=bias)
    torch.testing.assert_close(ours, H, **CLOSE)
    torch.testing.assert_close(
        head_gradient(z[0], a[0], y[0], bias=bias), torch.func.grad(loss)(theta), **CLOSE
    )
    diagonal = head_hessian_diagonal(z[0], a[0], y[0], bias=bias)
    torch.testing.assert_close(diagonal, H.diagonal(), **CLOSE)
    torch.testing.assert_close(ours.trace(), diagonal.sum(), **CLOSE)
    V = torch.randn(3, len(theta), dtype=torch.float64)
    block = head_hessian_vector(z[0], a[0], y[0], V, bias=bias)
    torch.testing.assert_close(block, V @ H, **CLOSE)
    one = head_hessian_vector(z[0], a[0], y[0], V[1], bias=bias)
    torch.testing.assert_close(one, block[1], **CLOSE)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(
    "function",
    [
        head_gradient,
        head_hessian,
        head_hessian_diagonal,
        lambda z, a, y: head_hessian_vector(z, a, y, a.new_ones(len(y), a.shape[1] * 3)),
    ],
    ids=["gradient", "hessian", "diagonal", "vector"],
)
def test_gradcheck_of_the_head(function: Callable[..., Tensor], classes: int) -> None:
    (z, a, y), _ = domains((2, 2), classes, 2)
    inputs = (z[0].requires_grad_(True), a[0].detach().requires_grad_(True))
    assert torch.autograd.gradcheck(lambda u, v: function(u, v, y[0]), inputs)


@pytest.mark.parametrize("detach", [False])
@pytest.mark.parametrize("sizes", [(2, 2), (1, 3)])
@pytest.mark.parametrize("kind", BOTH)
def test_gradcheck_of_the_penalties(kind: type, sizes: tuple[int, int], detach: bool) -> None:
    (z, a, y), _ = domains(sizes, 3, 2)
    leaves = [t.detach().requires_grad_(True) for t in (*z, *a)]
    penalty = kind(1.0, 1.0, detach_mean=detach)
    assert torch.autograd.gradcheck(lambda *t: penalty(t[:2], t[2:], y).total, leaves)


def test_one_logit_is_a_softmax_head_of_half_weights_up_to_a_factor() -> None:
    # p_1 = sigmoid(2u) for logits (-u, u); a step of theta/2 in row 2 and -theta/2 in row 1 moves
    # the one logit by theta, so with J = (-I/2, I/2): g = J g2, and g2 = (-g, g) as r2 = (-r, r).
    # Then |g2|^2 = 2 |g|^2. H2 has A = p(1-p) (1, -1; -1, 1), so H2 g2 = 2 (-Hg, Hg): its square is
    # 8 |Hg|^2, and the two diagonals are copies: 2 |diag|^2.
    (z, a, y), _ = domains((5, 3), 1, 4)
    two = [torch.cat([-b / 2, b / 2], 1) for b in a]
    for kind, factor in ((HGPAlignment, 8), (HutchinsonAlignment, 2)):
        one, softmax = kind(1.0, 1.0)(z, a, y), kind(1.0, 1.0)(z, two, y)
        torch.testing.assert_close(softmax.hessian, factor * one.hessian, **CLOSE)
        torch.testing.assert_close(softmax.gradient, 2 * one.gradient, **CLOSE)


def test_one_logit_in_every_form() -> None:
    (z, a, y), _ = domains((5, 3), 1, 4)
    want = HGPAlignment(1.0, 1.0)(z, a, y).total
    forms = [
        (z, [b[:, 0] for b in a], y),
        (z, a, [t[:, None] for t in y]),
        (z, a, [t.double() for t in y]),
        (z, a, [t.bool() for t in y]),
    ]
    for form in forms:
        assert HGPAlignment(1.0, 1.0)(*form).total == want


# --- invariances --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_identical_domains_cost_nothing(kind: type) -> None:
    (z, a, y), _ = domains((5, 5))
    penalty = kind(1.0, 1.0)([z[0]] * 3, [a[0]] * 3, [y[0]] * 3)
    assert max(float(part.detach().abs()) for part in penalty) < 1e-28


@pytest.mark.parametrize("kind", BOTH)
def test_what_changes_nothing(kind: type) -> None:
    (z, a, y), _ = domains((5, 3, 4))
    penalty = kind(1.0, 1.0)
    want = penalty(z, a, y).total
    order = [2, 0, 1]
    shuffle = [torch.randperm(len(v), generator=torch.Generator().manual_seed(3)) for v in z]
    variants = {
        "order of the domains": tuple([v[i] for i in order] for v in (z, a, y)),
        "order inside": tuple([t[s] for t, s in zip(v, shuffle)] for v in (z, a, y)),
        "a constant on all logits": (z, [b + 7 for b in a], y),
        "every row of one domain twice": tuple([torch.cat([v[0]] * 2), *v[1:]] for v in (z, a, y)),
    }
    for name, variant in variants.items():
        torch.testing.assert_close(penalty(*variant).total, want, **CLOSE, msg=name)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("bias", [True, False])
def test_equal_sizes_take_the_batched_way_to_the_same_result(kind: type, bias: bool) -> None:
    (z, a, y), _ = domains((4, 4, 4), bias=bias)
    want = kind(1.0, 1.0, bias=bias)(z, a, y)
    # the same domains, one of them twice as long
    uneven = tuple([torch.cat([v[0]] * 2), *v[1:]] for v in (z, a, y))
    torch.testing.assert_close(kind(1.0, 1.0, bias=bias)(*uneven), want, **CLOSE)


def test_domains_weigh_equally_unless_told() -> None:
    (z, a, y), _ = domains((9, 2))
    plain = HGPAlignment(1.0, 1.0)(z, a, y)
    equal = HGPAlignment(1.0, 1.0, domain_weights=[3, 3])(z, a, y)
    torch.testing.assert_close(equal, plain, **CLOSE)
    # A weight of two is the domain given twice.
    twice = HGPAlignment(1.0, 1.0)([*z, z[1]], [*a, a[1]], [*y, y[1]])
    weighted = HGPAlignment(1.0, 1.0, domain_weights=[1, 2])(z, a, y)
    torch.testing.assert_close(weighted, twice, **CLOSE)


def test_mean_of_products_is_not_the_product_of_means() -> None:
    (z, a, y), _ = domains()
    g = [head_gradient(*d) for d in zip(z, a, y)]
    h = torch.stack([head_hessian_vector(*d, v) for *d, v in zip(z, a, y, g)])
    wrong = (h - h.mean(0)).square().sum(1).mean()
    right = HGPAlignment()(z, a, y).hessian
    assert abs(float((wrong / right).detach()) - 1) > 0.01


def test_detaching_changes_gradients_only_where_the_mean_is_not_a_mean() -> None:
    """Deviations from a plain mean sum to zero, so only HGP notices."""
    (z, _, y), head = domains()
    for kind, same in ((HGPAlignment, False), (HutchinsonAlignment, True)):
        found = []
        for detach in (True, False):
            head.zero_grad()
            kind(1.0, 1.0, detach_mean=detach)(z, [head(v) for v in z], y).total.backward()
            found.append(head.weight.grad.clone())
        assert torch.allclose(*found, rtol=1e-10, atol=0) is same


def test_penalties_reach_the_featuriser() -> None:
    (z, _, y), head = domains()
    body = nn.Linear(4, 4).double()
    for kind in BOTH:
        body.zero_grad()
        features = [body(v) for v in z]
        kind(1.0, 1.0)(features, [head(v) for v in features], y).total.backward()
        assert float(body.weight.grad.norm()) > 0


# --- estimates, precision, state ----------------------------------------------------------------


def test_random_probes_come_close_like_one_over_root_k() -> None:
    (z, a, y), _ = domains((6, 6), 3, 6)
    exact = torch.stack([head_hessian_diagonal(*d) for d in zip(z, a, y)])
    H = torch.stack([head_hessian(*d) for d in zip(z, a, y)])
    # variance of one probe: squares of the off-diagonal row
    spread = (H.square().sum(2) - exact.square()).sum()

    head = LinearHead(gather(z, a, y), bias=True)

    def squared_error(k: int) -> float:
        penalty = HutchinsonAlignment(probes=k, generator=torch.Generator().manual_seed(k))
        draws = [penalty._curvature(head, head.gradients())[0] for _ in range(30)]
        return float((torch.stack(draws) - exact).square().sum().detach()) / len(draws)

    for k in (4, 64):
        assert squared_error(k) == pytest.approx(float(spread.detach()) / k, rel=0.3)


def test_probes_are_fresh_and_reproducible() -> None:
    (z, a, y), _ = domains()
    one, two = (
        HutchinsonAlignment(probes=5, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    first = one(z, a, y).hessian
    assert first == two(z, a, y).hessian
    assert first != one(z, a, y).hessian


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_also_under_autocast(
    kind: type, dtype: torch.dtype
) -> None:
    (z, a, y), _ = domains(dtype=torch.float32)
    z, a = [v.to(dtype) for v in z], [b.detach().to(dtype) for b in a]
    want = kind(1.0, 1.0)([v.float() for v in z], [b.float() for b in a], y).total
    with torch.autocast("cpu", torch.bfloat16):
        found = kind(1.0, 1.0)(z, a, y).total
    assert found.dtype == torch.float32
    assert found == want


def test_float32_is_close_to_float64_at_the_scripts_weight() -> None:
    (z, a, y), _ = domains()
    penalty = HGPAlignment(91257.18613115903, 91257.18613115903, reduction="sum")
    a = [b.detach() for b in a]
    want = penalty(z, a, y).total
    found = penalty([v.float() for v in z], [b.float() for b in a], y).total
    assert float(found) == pytest.approx(float(want), rel=1e-5)


def test_a_zero_gradient_has_no_trap() -> None:
    z = [torch.ones(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    logits = [torch.zeros(2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    y = [torch.tensor([0, 1])] * 2
    HGPAlignment(1.0, 1.0)(z, logits, y).total.backward()
    assert all(bool(t.grad.isfinite().all()) for t in (*z, *logits))


def test_moving_average_by_hand_and_back_from_its_state() -> None:
    (z, a, y), _ = domains((5, 3))
    (w, b, t), _ = domains((5, 3), seed=1)
    penalty = HutchinsonAlignment(1.0, 0.0, ema=MovingAverage(0.9))
    penalty(z, a, y)
    restored = HutchinsonAlignment(1.0, 0.0, ema=MovingAverage(0.9))
    restored.load_state_dict(penalty.state_dict())
    diagonals = [
        torch.stack([head_hessian_diagonal(*d) for d in zip(*lists)])
        for lists in ((z, a, y), (w, b, t))
    ]
    mixed = 0.9 * diagonals[0] + diagonals[1]
    want = (mixed - mixed.mean(0)).square().sum(1).mean()
    torch.testing.assert_close(restored(w, b, t).hessian, want, **CLOSE)
    found = penalty.eval()(w, b, t).hessian
    torch.testing.assert_close(found, want, **CLOSE)
    torch.testing.assert_close(penalty(w, b, t).hessian, want, **CLOSE)  # eval kept the state
    penalty.ema.reset()
    fresh = HutchinsonAlignment(1.0, 0.0)(w, b, t).hessian
    torch.testing.assert_close(penalty.train()(w, b, t).hessian, fresh, **CLOSE)


def test_without_gradients_nothing_has_a_graph() -> None:
    (z, a, y), _ = domains()
    with torch.no_grad():
        assert not HGPAlignment()(z, a, y).total.requires_grad
    assert HGPAlignment()(z, a, y).total.requires_grad
