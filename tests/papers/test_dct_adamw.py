"""DCT-AdamW's own trials and its baselines: subspaces, bytes, energies, refusals."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradworks.bench import workloads
from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Arm, Workload
from gradworks.bench.optimizers import make_optimizer
from gradworks.bench.result import Result
from gradworks.bench.trial import Trial
from gradworks.optim import DCTAdamW
from gradworks.papers.dct_adamw import build, figures
from gradworks.papers.dct_adamw.baselines import Dion, GaLore, LDAdam
from gradworks.papers.dct_adamw.trial import (
    RandomBasis,
    cost,
    energies,
    llama,
    memory,
    random_basis,
)


def parts(preset: str, workload: str) -> tuple[Workload, dict[str, Arm]]:
    """A workload of a preset, and its arms."""
    experiment = build(preset)
    found = next(w for w in experiment.workloads if w.name == workload)
    return found, {arm.name: arm for arm in experiment.arms_of(found)}


def drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------- baselines


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (6, 6)])
@pytest.mark.parametrize("make", [GaLore, LDAdam])
def test_full_rank_is_adamw_in_rotated_coordinates(make: Any, shape: tuple[int, int]) -> None:
    """Gradients of one fixed frame: the subspace never turns and nothing is left out."""
    p = nn.Parameter(drawn(shape, 0))
    q = nn.Parameter(p.detach().clone())
    rank = min(shape)
    opt = make([p], lr=0.1, rank=rank)
    grad = drawn(shape, 1)
    G = grad if shape[0] >= shape[1] else grad.T
    for t in range(4):
        p.grad = grad * (t + 1)
        opt.step()
    basis = opt.state[p]["basis"]
    torch.testing.assert_close(basis.T @ basis, torch.eye(rank, dtype=torch.float64))
    turned = nn.Parameter((q.detach() if shape[0] >= shape[1] else q.detach().T) @ basis)
    plain = torch.optim.AdamW([turned], lr=0.1, weight_decay=0.0)
    for t in range(4):
        turned.grad = G @ basis * (t + 1)
        plain.step()
    want = turned.detach() @ basis.T
    torch.testing.assert_close(p.detach(), want if shape[0] >= shape[1] else want.T)


def test_the_rest_is_adamw() -> None:
    for make, settings in ((GaLore, {}), (LDAdam, {}), (Dion, {"adamw_lr": 0.1, "lr": 0.5})):
        v, w = nn.Parameter(drawn((5,), 0)), nn.Parameter(drawn((5,), 0))
        opt = make([v], **{"lr": 0.1, "rank": 2, "weight_decay": 0.1, **settings})
        group = opt.param_groups[0]
        betas = group.get("adamw_betas", (0.9, 0.999))
        plain = torch.optim.AdamW([w], 0.1, betas=betas, eps=group["eps"], weight_decay=0.1)
        for t in range(3):
            v.grad = w.grad = drawn((5,), t + 1)
            opt.step()
            plain.step()
        torch.testing.assert_close(v, w)


def test_errors_fed_back_add_up() -> None:
    p = nn.Parameter(drawn((8, 6), 0))
    opt = LDAdam([p], lr=0.1, rank=2)
    total = torch.zeros(8, 6, dtype=torch.float64)
    kept = torch.zeros(8, 6, dtype=torch.float64)
    error = torch.zeros(8, 6, dtype=torch.float64)
    for t in range(5):
        p.grad = drawn((8, 6), t + 1)
        total += p.grad
        opt.step()
        basis = opt.state[p]["basis"]
        A = p.grad + error
        kept += A @ basis @ basis.T
        error = opt.state[p]["error"]
    torch.testing.assert_close(kept + error, total)


def test_a_step_of_dion_is_orthonormal() -> None:
    p = nn.Parameter(drawn((8, 6), 0))
    before = p.detach().clone()
    opt = Dion([p], lr=0.5, rank=3)
    p.grad = drawn((8, 6), 1)
    opt.step()
    step = (before - p.detach()) / (0.5 * (8 / 6) ** 0.5)
    values = torch.linalg.svdvals(step)
    # columns of one factor are orthonormal, of the other of length one
    assert 2.5 < float(values.square().sum()) == pytest.approx(3.0)
    # momentum keeps what was not stepped, and 95 % of what was
    U, S, Vh = torch.linalg.svd(p.grad)
    rest = p.grad - 0.05 * (U[:, :3] * S[:3]) @ Vh[:3]
    torch.testing.assert_close(opt.state[p]["momentum"], rest)


@pytest.mark.parametrize("shape", [(8, 5), (5, 8)])
def test_galore_is_its_peers(shape: tuple[int, int]) -> None:
    peer = pytest.importorskip("pytorch_optimizer", reason="peer pytorch_optimizer not installed")
    start = drawn(shape, 0).float()
    p, q = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    eps = 1e-30  # theirs stands before the bias correction
    opt = GaLore([p], lr=0.1, rank=3, gap=100, eps=eps)
    group = {"params": [q], "rank": 3, "update_proj_gap": 100, "scale": 1.0}
    other = peer.GaLore([{**group, "projection_type": "std"}], lr=0.1, eps=eps)
    for t in range(5):
        p.grad, q.grad = drawn(shape, t + 1).float(), drawn(shape, t + 1).float()
        opt.step()
        other.step()
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_baselines_resume() -> None:
    for make in (GaLore, LDAdam, Dion):
        p, q = nn.Parameter(drawn((8, 6), 0)), nn.Parameter(drawn((8, 6), 0))
        opt, other = make([p], lr=0.1, rank=2), make([q], lr=0.1, rank=2)
        for t in range(3):
            p.grad = drawn((8, 6), t)
            opt.step()
        q.data.copy_(p)
        other.load_state_dict(copy.deepcopy(opt.state_dict()))
        for t in range(3, 6):
            p.grad = q.grad = drawn((8, 6), t)
            opt.step()
            other.step()
        assert torch.equal(p, q)


# ---------------------------------------------------------------- trials


def test_the_random_basis_is_one_basis() -> None:
    Q = random_basis(12)
    torch.testing.assert_close(Q @ Q.T, torch.eye(12), rtol=0, atol=1e-5)
    assert torch.equal(Q, random_basis(12))
    p = nn.Parameter(torch.randn(14, 12))
    opt = RandomBasis([p], rank=3, size=12)
    assert isinstance(opt, DCTAdamW)
    p.grad = torch.outer(torch.arange(14.0), Q[:, 5])
    opt.step()
    assert 5 in opt.state[p]["indices"].tolist()


def test_energies_of_a_gradient_in_the_basis() -> None:
    problem = workloads.problem("text-transformer", 0)
    model = problem.model(torch.Generator().manual_seed(0))
    optimizer = make_optimizer("torch.optim.AdamW", model, {"lr": 1e-3})
    trial: Any = None
    assert energies(model, optimizer, 0, trial) == {}  # before the first gradient
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
        if p.ndim == 2:
            p.grad[: min(p.shape), 0] = 1.0
    found = energies(model, optimizer, 1, trial)
    assert found["energy_svd"] == pytest.approx(1.0)
    assert found["energy_identity"] == pytest.approx(1.0) or found["energy_identity"] < 1
    assert all(0 < value <= 1 + 1e-6 for value in found.values())


def test_bytes_are_those_of_the_formula() -> None:
    workload, arms = parts("quick", "memory")
    trial = Trial.offline(workload, arms["memory"])
    memory(trial)
    found = trial.results["test"]
    assert found["dct_over_formula"] == 1.0
    assert found["trion_over_formula"] == 1.0
    assert found["bytes_dct"] < found["bytes_galore"] < found["bytes_adamw"]


def test_prices_are_ratios() -> None:
    workload, arms = parts("quick", "cost")
    spec: Any = {"blocks": 2, "width": 48, "layers": 1, "rank": 8}
    small = Workload(name="cost", label="", trial=workload.trial, spec=spec)
    trial = Trial.offline(small, arms["cost"])
    cost(trial)
    assert set(trial.results["test"]) == {"over_svd", "over_adamw", "over_rank"}
    assert all(0 < value < 100 for value in trial.results["test"].values())


def test_presets() -> None:
    quick, full, paper = (build(name) for name in ("quick", "full", "paper"))
    assert {c.id for c in full.claims} == {
        "svd", "llama-800m", "basis", "parts", "trion", "memory",
    }  # fmt: skip
    assert {c.id for c in quick.claims} == {"svd", "basis", "trion", "memory"}
    assert sum(claim.primary for claim in paper.claims) == 1
    tuned = [arm for arm in full.arms if arm.space]
    assert {round(arm.space[0].high / arm.space[0].low) for arm in tuned} == {1000}


def test_the_published_scale_says_what_it_needs() -> None:
    workload, arms = parts("paper", "llama-350m")
    with pytest.raises(MissingData, match=r"Llama-350M on C4.*8 GPUs"):
        llama(Trial.offline(workload, arms["dct"]))


def test_figures_of_an_empty_result_are_left_out() -> None:
    empty: Any = {"arms": [], "workloads": [], "studies": [], "finals": [], "curves": []}
    assert figures(Result({"format": 1, **empty})) == []
