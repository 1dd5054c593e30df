"""SAM-GS: golden sequences of the authors' code, closed forms, invariances, state, errors."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradworks.multitask import SAMGS, NonFiniteGradientError
from gradworks.multitask.sam_gs import conflict_statistics, magnitude_similarity

GOLDEN = Path(__file__).parents[1] / "golden" / "sam-gs" / "golden.json"
CASES = json.loads(GOLDEN.read_text())["cases"]


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw(tasks: int, params: int, seed: int = 0, spread: float = 0.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    J = torch.randn(tasks, params, dtype=torch.float64, generator=g)
    return J * (10.0 ** (spread * torch.arange(tasks, dtype=torch.float64)))[:, None]


def naive(jacobians: list[Tensor], beta1: float, beta2: float, gamma: float) -> list[Tensor]:
    """The spec's pseudo-code, scalar by scalar; T * g without a clip."""
    M, v, out = torch.zeros_like(jacobians[0]), 0.0, []
    for t, J in enumerate(jacobians, start=1):
        n = J.norm(dim=1)
        pairs = [2 * n[i] * n[j] / (n[i] ** 2 + n[j] ** 2) for i in range(len(n)) for j in range(i)]
        s = sum(pairs) / len(pairs)
        M = beta1 * M + (1 - beta1) * J
        v = beta2 * v + (1 - beta2) * (1 - s) ** 2 + 1e-8
        if s < gamma:
            g = sum(J[i] * n.mean() / n[i] for i in range(len(n)))
        else:
            hat = M / (1 - beta1**t)
            g = sum(J[i] * hat[i].abs() for i in range(len(n))) / (v / (1 - beta2**t)) ** 0.5
        out.append(len(n) * g)
    return out


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"gamma{c['gamma']}")
def test_golden_sequences_of_the_authors_code(case: dict) -> None:
    aggregator = SAMGS(case["momentum"], case["beta2"], case["gamma"], max_norm=None)
    for step in case["steps"]:
        out = aggregator(f64(step["jacobian"]))
        close = {"rtol": 1e-10, "atol": 1e-14}
        assert aggregator.similarity == pytest.approx(step["similarity"], rel=1e-10)
        assert aggregator.branch.startswith(step["branch"][:3])
        torch.testing.assert_close(out, f64(step["written"]), **close)
        torch.testing.assert_close(
            out / len(step["jacobian"]), f64(step["balance_output"]), **close
        )
        torch.testing.assert_close(aggregator.exp_avg, f64(step["exp_avg"]), **close)
        assert aggregator.exp_dissim == pytest.approx(step["second"], rel=1e-10)


@settings(max_examples=25, deadline=None)
@given(
    tasks=st.integers(2, 6),
    params=st.integers(1, 40),
    seed=st.integers(0, 1000),
    spread=st.floats(0, 0.6),
    gamma=st.floats(0, 1),
)
def test_equals_the_naive_transcription(
    tasks: int, params: int, seed: int, spread: float, gamma: float
) -> None:
    steps = [draw(tasks, params, seed + k, spread) for k in range(4)]
    aggregator = SAMGS(0.8, 0.9, gamma, max_norm=None)
    for J, want in zip(steps, naive(steps, 0.8, 0.9, gamma)):
        torch.testing.assert_close(aggregator(J), want, rtol=1e-9, atol=1e-12)


def test_many_columns_are_cut_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [draw(3, 1000, k, 0.2) for k in range(3)]
    whole, cut = SAMGS(max_norm=None), SAMGS(max_norm=None)
    want = [whole(J) for J in steps]
    monkeypatch.setitem(SAMGS.forward.__globals__, "TILE", 21)
    for J, expected in zip(steps, want):
        torch.testing.assert_close(cut(J), expected, rtol=1e-13, atol=0)


def test_closed_form_of_the_first_step_without_momentum() -> None:
    J, beta2 = draw(2, 5), 0.9
    n = J.norm(dim=1)
    s = float(2 * n[0] * n[1] / (n[0] ** 2 + n[1] ** 2))
    want = 2 * (J * J.abs()).sum(0) / math.sqrt((1 - s) ** 2 + 1e-8 / (1 - beta2))
    torch.testing.assert_close(SAMGS(0.0, beta2, 0.0, max_norm=None)(J), want, rtol=1e-12, atol=0)


def test_equal_norms_leave_only_the_accumulated_floor() -> None:
    J = torch.eye(3, dtype=torch.float64)
    aggregator = SAMGS(gamma=1.0, max_norm=None)
    for k in range(1, 4):
        aggregator(J)
        assert aggregator.similarity == 1.0
        assert aggregator.branch == "momentum"
        assert aggregator.exp_dissim == pytest.approx(sum(1e-8 * 0.99**i for i in range(k)))


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_permuting_tasks_changes_nothing(gamma: float) -> None:
    order = [2, 0, 3, 1]
    a, b = SAMGS(gamma=gamma), SAMGS(gamma=gamma)
    for k in range(3):
        J = draw(4, 6, k, 0.3)
        torch.testing.assert_close(a(J), b(J[order]), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(a.exp_avg[order], b.exp_avg)


def test_momentum_branch_is_odd_and_equalising_keeps_directions() -> None:
    J = draw(3, 5)
    a, b = SAMGS(gamma=0.0, max_norm=None)(J), SAMGS(gamma=0.0, max_norm=None)(-J)
    torch.testing.assert_close(a, -b)
    K = J.clone()
    K[1] *= 100
    a, b = SAMGS(gamma=1.0, max_norm=None)(J), SAMGS(gamma=1.0, max_norm=None)(K)
    torch.testing.assert_close(a / a.norm(), b / b.norm())


@pytest.mark.parametrize("max_norm", [1.0, 1e-6, 1e9])
@pytest.mark.parametrize("size", [1.0, 1e-2, 1e3])
def test_clip_is_that_of_torch(size: float, max_norm: float) -> None:
    J = size * draw(3, 8)
    free = SAMGS(max_norm=None)(J)
    p = torch.nn.Parameter(torch.zeros(8, dtype=torch.float64))
    p.grad = free.clone()
    torch.nn.utils.clip_grad_norm_([p], max_norm)
    torch.testing.assert_close(SAMGS(max_norm=max_norm)(J), p.grad, rtol=1e-12, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_norm_scale_has_one_unit_in_both_branches(gamma: float) -> None:
    J = draw(3, 8, spread=0.2)
    out = SAMGS(gamma=gamma, scale="norm", max_norm=None)(J)
    assert float(out.norm()) == pytest.approx(3 * float(J.norm(dim=1).sum()))
    plain = SAMGS(gamma=gamma, max_norm=None)(J)
    torch.testing.assert_close(out / out.norm(), plain / plain.norm())
    torch.testing.assert_close(
        SAMGS(gamma=gamma, scale="norm")(J).norm(), f64(1.0), rtol=1e-5, atol=0
    )
    three = SAMGS(gamma=gamma, scale="norm", max_norm=None)(3 * J)
    torch.testing.assert_close(three, 3 * out, rtol=1e-9, atol=0)


def test_published_branches_have_two_units() -> None:
    J = draw(3, 8, spread=0.2)
    for gamma, degree in ((1.0, 1), (0.0, 2)):
        one, three = (SAMGS(gamma=gamma, max_norm=None)(c * J) for c in (1, 3))
        torch.testing.assert_close(three, 3**degree * one, rtol=1e-9, atol=0)


def test_min_reduction_takes_the_least_pair() -> None:
    J = draw(3, 8, spread=0.2)
    least = float(magnitude_similarity(J.norm(dim=1)).min())
    strict, mild = SAMGS(gamma=least + 1e-6, reduction="min"), SAMGS(gamma=least + 1e-6)
    strict(J)
    mild(J)
    assert strict.similarity == pytest.approx(least)
    assert (strict.branch, mild.branch) == ("equalise", "momentum")
    assert strict.exp_dissim == pytest.approx(0.01 * (1 - least) ** 2 + 1e-8)


def test_zero_single_and_all_zero_tasks() -> None:
    J = draw(3, 5)
    J[1] = 0
    with_zero = SAMGS(gamma=1.0, max_norm=None)(J)
    torch.testing.assert_close(with_zero / 3, SAMGS(gamma=1.0, max_norm=None)(J[[0, 2]]) / 2)
    torch.testing.assert_close(SAMGS()(J[:1]), J[0])
    nothing = SAMGS()
    assert nothing(torch.zeros(2, 4)).tolist() == [0.0] * 4
    assert nothing.step == 1
    J[0] = 0
    torch.testing.assert_close(SAMGS(max_norm=None)(J), 3 * J[2])


def test_resume_is_bit_for_bit_and_reset_forgets() -> None:
    steps = [draw(3, 7, k, 0.3) for k in range(6)]
    whole = SAMGS()
    want = [whole(J) for J in steps]
    half = SAMGS()
    for J in steps[:3]:
        half(J)
    saved = copy.deepcopy(half.state_dict())
    fresh, copied = SAMGS(), copy.deepcopy(half)
    fresh.load_state_dict(saved)
    for J, expected in zip(steps[3:], want[3:]):
        assert torch.equal(fresh(J), expected)
        assert torch.equal(copied(J), expected)
    fresh.reset()
    assert torch.equal(fresh(steps[0]), want[0])
    fresh.load_state_dict(SAMGS().state_dict())
    assert fresh.exp_avg is None
    assert torch.equal(fresh(steps[0]), want[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dtypes(dtype: torch.dtype) -> None:
    J = draw(3, 50, spread=0.2)
    aggregator = SAMGS()
    out = aggregator(J.to(dtype))
    assert out.dtype == dtype
    assert aggregator.exp_avg.dtype == torch.float32
    torch.testing.assert_close(out.double(), SAMGS()(J), rtol=0.05, atol=0.02)


def test_non_finite_gradient_names_the_task_and_leaves_the_state() -> None:
    aggregator = SAMGS()
    aggregator(draw(3, 4))
    before = copy.deepcopy(aggregator.state_dict())
    J = draw(3, 4)
    J[1, 2] = math.nan
    with pytest.raises(NonFiniteGradientError, match="task 1 is not finite") as caught:
        aggregator(J)
    assert caught.value.tasks == (1,)
    assert torch.equal(aggregator.exp_avg, before["exp_avg"])
    assert aggregator.get_extra_state() == before["_extra_state"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"momentum": math.nan}, "momentum"),
        ({"beta2": -0.1}, "beta2"),
        ({"gamma": 1.1}, "gamma"),
        ({"max_norm": 0.0}, "max_norm"),
        ({"scale": "unit"}, "scale"),
        ({"reduction": "sum"}, "reduction"),
        ({"state_dtype": torch.int64}, "state_dtype"),
    ],
)
def test_bad_settings(arguments: dict, fragment: str) -> None:
    with pytest.raises(ValueError, match=fragment):
        SAMGS(**arguments)


def test_bad_jacobians() -> None:
    aggregator = SAMGS()
    aggregator(torch.ones(2, 3))
    for bad, error, fragment in (
        (torch.ones(3, 3), ValueError, r"call reset\(\)"),
        (torch.ones(2, 4), ValueError, r"call reset\(\)"),
        (torch.ones(3), ValueError, "2-D"),
        (torch.ones(0, 3), ValueError, "no task"),
        (torch.ones(2, 3, dtype=torch.int64), TypeError, "floating"),
        ([[1.0]], TypeError, "tensor"),
    ):
        with pytest.raises(error, match=fragment):
            aggregator(bad)


def test_statistics_by_hand() -> None:
    found = conflict_statistics(f64([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]))
    torch.testing.assert_close(found.cosine[0], f64([1.0, 0.0, -1.0]))
    torch.testing.assert_close(found.magnitude[0], f64([1.0, 0.8, 1.0]))
    torch.testing.assert_close(found.curvature_bound[0], f64([0.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match="at least 0"):
        magnitude_similarity(f64([-1.0]))
    with pytest.raises(TypeError, match="floating"):
        magnitude_similarity(torch.tensor([1]))
    with pytest.raises(ValueError, match="1-D"):
        magnitude_similarity(torch.ones(2, 2))


def test_two_steps_by_hand() -> None:
    # norms 5 and 10: s = 2 * 50 / 125 = 0.8, and v / (1 - beta2^t) = 0.04 + 1e-6 at both steps
    aggregator, root = SAMGS(max_norm=None), math.sqrt(0.040001)
    first = aggregator(f64([[3.0, 4.0], [0.0, 10.0]]))
    torch.testing.assert_close(first, f64([2 * 9, 2 * 116]) / root, rtol=1e-12, atol=0)
    # the second turned round: its momentum is (0.09 * 10 - 0.1 * 10) / 0.19
    second = aggregator(f64([[3.0, 4.0], [0.0, -10.0]]))
    want = f64([2 * 9, 2 * (16 - 10 * 0.1 / 0.19)]) / root
    torch.testing.assert_close(second, want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_squares_of_the_direction_neither_overflow_nor_vanish(gamma: float) -> None:
    J = draw(3, 8, spread=0.2).float()
    clipped = SAMGS(gamma=gamma)(J)
    for size in (1e10, 1e15):  # the momentum branch is quadratic: 1e30, of which torch has no norm
        torch.testing.assert_close(SAMGS(gamma=gamma)(size * J).norm(), torch.tensor(1.0))
        torch.testing.assert_close(SAMGS(gamma=gamma)(size * J), clipped, rtol=1e-4, atol=1e-6)
    one = SAMGS(gamma=gamma, scale="norm", max_norm=None)(J)
    for size in (1e-15, 1e-12, 1e10, 1e15):
        found = SAMGS(gamma=gamma, scale="norm", max_norm=None)(size * J)
        torch.testing.assert_close(found / size, one, rtol=1e-4, atol=0)


def test_statistics_of_opposite_rows_and_of_nan() -> None:
    for tasks, params in ((2, 7), (5, 1001)):
        J = draw(tasks, params, params)
        J[-1] = -J[0]
        for rows in (J, J.float()):
            assert float(conflict_statistics(rows).curvature_bound[0, -1]) == 0.0
    J[1, 3] = math.nan
    for found in conflict_statistics(J):
        assert bool(found[1].isnan().all())
        assert not found[2:, 2:].isnan().any()
    assert bool(magnitude_similarity(f64([1.0, math.nan]))[0, 1].isnan())
