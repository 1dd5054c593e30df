"""DCT-AdamW's own trials and its baselines: subspaces, bytes, energies, refusals."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradworks.bench import workloads
from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Arm, Workload
from gradworks.bench.optimizers import make_optimizer
from gradworks.bench.result import Result
from gradworks.bench.training import train
from gradworks.bench.trial import Trial
from gradworks.optim import DCTAdamW
from gradworks.optim.dct_adamw import dct_matrix
from gradworks.papers.dct_adamw import CLAIMS, build, figures
from gradworks.papers.dct_adamw.baselines import Dion, GaLore, LDAdam
from gradworks.papers.dct_adamw.trial import (
    RandomBasis,
    cost,
    energies,
    llama,
    memory,
    random_basis,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "dct-adamw"


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
    betas = opt.param_groups[0]["betas"]
    grad = drawn(shape, 1)
    G = grad if shape[0] >= shape[1] else grad.T
    bases = []
    for t in range(4):
        p.grad = grad * (t + 1)
        opt.step()
        bases.append(opt.state[p]["basis"])
    basis = bases[-1]
    torch.testing.assert_close(basis.T @ basis, torch.eye(rank, dtype=torch.float64))
    if make is LDAdam:  # its axes turn inside the whole space
        assert float(opt.state[p]["error"].abs().max()) < 1e-12
        return
    turned = nn.Parameter((q.detach() if shape[0] >= shape[1] else q.detach().T) @ basis)
    plain = torch.optim.AdamW([turned], lr=0.1, betas=betas, weight_decay=0.0)
    for t in range(4):
        turned.grad = G @ basis * (t + 1)
        plain.step()
    want = turned.detach() @ basis.T
    torch.testing.assert_close(p.detach(), want if shape[0] >= shape[1] else want.T)


@pytest.mark.parametrize("name", ["tall", "wide"])
def test_ldadam_is_its_released_code(name: str) -> None:
    """Seven steps of the authors' LDAdamW in float32, lr 0.1, rank 3, decay 0.05."""
    golden = np.load(GOLDEN / "ldadam.npz")
    p = nn.Parameter(torch.tensor(golden[f"{name}_start"]))
    opt = LDAdam([p], lr=0.1, rank=3, weight_decay=0.05)
    for grad, want in zip(golden[f"{name}_grads"], golden[f"{name}_params"], strict=True):
        p.grad = torch.tensor(grad)
        opt.step()
        torch.testing.assert_close(p.detach(), torch.tensor(want), rtol=1e-5, atol=1e-5)


def test_the_rest_is_adamw() -> None:
    for make, settings in ((GaLore, {}), (LDAdam, {}), (Dion, {"adamw_lr": 0.1, "lr": 0.5})):
        v, w = nn.Parameter(drawn((5,), 0)), nn.Parameter(drawn((5,), 0))
        opt = make([v], **{"lr": 0.1, "rank": 2, "weight_decay": 0.1, **settings})
        group = opt.param_groups[0]
        betas = group["adamw_betas" if make is Dion else "betas"]
        plain = torch.optim.AdamW([w], 0.1, betas=betas, eps=group["eps"], weight_decay=0.1)
        for t in range(3):
            v.grad = w.grad = drawn((5,), t + 1)
            opt.step()
            plain.step()
        torch.testing.assert_close(v, w)


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


def test_dion_scales_by_rows_over_columns() -> None:
    """A wide weight takes the steps of the tall one, turned, times columns over rows."""
    tall, wide = nn.Parameter(torch.zeros(8, 2)), nn.Parameter(torch.zeros(2, 8))
    opt = Dion([tall, wide], lr=1.0, rank=2)
    tall.grad = drawn((8, 2), 1).float()
    wide.grad = tall.grad.T.clone()
    opt.step()
    torch.testing.assert_close(float(tall.detach().norm()), (2 * 8 / 2) ** 0.5)
    torch.testing.assert_close(tall.detach().T, 4 * wide.detach())


@pytest.mark.parametrize("gap", [1, 3])
def test_galore_renews_its_directions(gap: int) -> None:
    p = nn.Parameter(drawn((8, 5), 0))
    opt = GaLore([p], lr=0.1, rank=2, gap=gap)
    bases = []
    for t in range(7):
        p.grad = drawn((8, 5), t + 1)
        opt.step()
        bases.append(opt.state[p]["basis"])
    renewed = [t for t in range(1, 7) if not torch.equal(bases[t], bases[t - 1])]
    assert renewed == [t for t in range(1, 7) if t % gap == 0]


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
    names = ("dct3", "dct2", "random", "identity")
    shown = {f"energy_{name}" for name in (*names, "svd")}
    for basis, Q in (("dct3", dct_matrix(96)), ("random", random_basis(96))):
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
            if p.ndim == 2 and 96 in p.shape:  # in the span of 24 columns, on its own side
                inside = torch.zeros(max(p.shape), 96)
                inside[:24] = Q[:, 5:29].T
                p.grad.copy_(inside[: p.shape[0]] if p.shape[1] == 96 else inside.T)
        found = energies(model, optimizer, 1, trial)
        assert {name for name in found if not name.startswith("final")} == shown
        assert found[f"energy_{basis}"] == pytest.approx(1.0, abs=1e-5)
        assert found["energy_svd"] == pytest.approx(1.0, abs=1e-5)
        for other in set(names) - {basis}:
            assert found[f"energy_{other}"] < 0.99
        want = found["energy_dct3"] / found["energy_random"]
        assert found["final_energy_over_random"] == pytest.approx(want)
        assert found["final_energy_over_svd"] == pytest.approx(found["energy_dct3"], abs=1e-5)


def test_bytes_are_those_of_the_formula() -> None:
    workload, arms = parts("quick", "memory")
    trial = Trial.offline(workload, arms["memory"])
    memory(trial)
    found = trial.results["test"]
    assert found["dct_over_formula"] == 1.0
    assert found["trion_over_muon"] == 1.0
    assert found["bytes_dct"] < found["bytes_galore"] < found["bytes_adamw"]
    assert found["dct_over_galore"] == found["bytes_dct"] / found["bytes_galore"] < 1
    assert found["trion_over_dion"] == found["bytes_trion"] / found["bytes_dion"] < 1
    assert found["bytes_dct"] < found["bytes_dct_int8"] < found["bytes_dct_ef"]
    # a float32 error of each hidden matrix, 2 x 12 x 96 x 96 numbers, and no more
    assert found["bytes_dct_ef"] - found["bytes_dct"] == 4 * 2 * 12 * 96 * 96


def test_prices_are_ratios() -> None:
    workload, arms = parts("quick", "cost")
    spec: Any = {"blocks": 2, "width": 48, "layers": 1, "rank": 8}
    small = Workload(name="cost", label="", trial=workload.trial, spec=spec)
    trial = Trial.offline(small, arms["cost"])
    cost(trial)
    assert set(trial.results["test"]) == {
        "over_svd", "over_adamw", "over_rank", "over_ldadam", "trion_over_dion", "trion_over_muon",
    }  # fmt: skip
    assert all(0 < value < 100 for value in trial.results["test"].values())


def test_presets() -> None:
    quick, full, paper = (build(name) for name in ("quick", "full", "paper"))
    assert [c.id for c in full.claims] == [c.id for c in CLAIMS]
    assert full.claims == CLAIMS  # every criterion is decided
    assert {c.id for c in quick.claims} == {c.id for c in CLAIMS} - {"parts"}
    assert sum(claim.primary for claim in paper.claims) == 1
    with pytest.raises(ValueError, match="preset must be one of"):
        build("half")


def test_enough_seeds_and_trials_for_the_family() -> None:
    full = build("full")
    tests = [c for claim in full.claims for c in claim.criteria if c.kind != "exactness"]
    assert 2**full.final_seeds * 0.05 >= len(tests)
    assert full.final_seeds == 10
    assert full.tune_trials == 8  # one searched knob


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_all_are_tuned_alike(preset: str) -> None:
    tuned = [arm for arm in build(preset).arms if arm.space]
    assert {tuple(k.name for k in arm.space) for arm in tuned} == {("lr",)}
    assert {round(arm.space[0].high / arm.space[0].low) for arm in tuned} == {1000}
    orthogonal = {arm.space for arm in tuned if arm.name in ("trion", "dion", "muon")}
    assert len(orthogonal) == 1
    assert len({arm.space for arm in tuned}) == 2
    ranks = {arm.fixed["rank"] for arm in tuned if "rank" in arm.fixed}
    assert ranks == {24}
    assert all(arm.fixed.get("weight_decay", 0.0) == 0.0 for arm in tuned)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["random", "galore", "dct", "trion", "dion"])
def test_arms_learn_and_leave_the_rest_to_adamw(arm: str) -> None:
    """Two steps of the real trial: the loss falls, hidden matrices alone have low rank."""
    workload, arms = parts("quick", "text")
    short = dataclasses.replace(workload, steps=2, spec={**workload.spec, "evals": 1})
    trial = Trial.offline(short, arms[arm])
    train(trial)
    assert trial.results["test"]["nats"] < 4.7  # log of 107 characters is 4.67
    assert trial.state_bytes is not None
    whole = 8 * trial.results["train"]["parameters"]
    assert trial.state_bytes < (0.62 if arm in ("trion", "dion") else 0.4) * whole


def test_the_published_scale_says_what_it_needs() -> None:
    workload, arms = parts("paper", "llama-350m")
    with pytest.raises(MissingData, match=r"Llama-350M on C4.*8 GPUs"):
        llama(Trial.offline(workload, arms["dct"]))


def test_figures_show_what_ran() -> None:
    """Two seeds of each kind of workload, one of them diverged."""
    arms = [{"name": n, "label": n} for n in ("adamw", "dct", "dct-rank-8", "dct-rank-48")]
    memory_of = {f"bytes_{name}": 1e6 for name in ("adamw", "dct")}
    runs = [
        ("text", "adamw", {"nats": 2.2}), ("text", "dct", {"nats": 2.3}), ("text", "dct", {}),
        ("ranks", "dct-rank-48", {"nats": 2.3}), ("ranks", "dct-rank-8", {"nats": 2.4}),
        ("ranks", "dct-rank-8", {"nats": 2.5}),
        ("cost", "cost", {"over_svd": 0.1, "over_rank": 1.2}), ("memory", "memory", memory_of),
    ]  # fmt: skip
    finals = [
        {
            "workload": workload,
            "arm": arm,
            "seed": seed,
            "status": "done" if metrics else "diverged",
            "metrics": {"test": metrics} if metrics else {},
        }
        for seed, (workload, arm, metrics) in enumerate(runs)
    ]
    steps: dict[str, Any] = {
        "step": [0, 5],
        "mean": [None, 0.5],
        "lo": [None, 0.4],
        "hi": [None, 1],
    }
    curves = [
        {"workload": "energy", "arm": "watched", "split": "train", "metric": "energy_svd", **steps},
        {"workload": "text", "arm": "dct", "split": "valid", "metric": "nats", **steps},
    ]
    document = {"format": 1, "arms": arms, "workloads": [], "finals": finals, "curves": curves}
    drawn_figures = {figure.id: figure for figure in figures(Result(document))}
    assert list(drawn_figures) == ["losses", "curves", "ranks", "energy", "times", "bytes"]
    assert list(drawn_figures["losses"].series[0].y) == [2.2, 2.3]
    (ranks,) = drawn_figures["ranks"].series
    assert (list(ranks.x), list(ranks.y)) == ([8.0, 48.0], [2.45, 2.3])
    assert list(drawn_figures["energy"].series[0].y) == [0.5]
    assert list(drawn_figures["curves"].series[0].x) == [5]
    assert list(drawn_figures["bytes"].series[0].y) == [1.0, 1.0]


def test_figures_of_an_empty_result_are_left_out() -> None:
    empty: Any = {"arms": [], "workloads": [], "studies": [], "finals": [], "curves": []}
    assert figures(Result({"format": 1, **empty})) == []
