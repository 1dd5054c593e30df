"""ARO's own trials and its baselines: frames, SOAP, steps to a loss, bytes, refusals."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Arm, Workload
from gradworks.bench.muon import MuonWithAdamW
from gradworks.bench.optimizers import hidden_matrices, make_optimizer
from gradworks.bench.result import Result
from gradworks.bench.transformer import Transformer
from gradworks.bench.trial import Trial
from gradworks.optim import ARO
from gradworks.papers.aro import CLAIMS, build, figures
from gradworks.papers.aro.baselines import SOAP, FixedFrame, RotatedARO, eigenbasis
from gradworks.papers.aro.trial import Alignment, cost, pretraining, race, steps_to


def parts(preset: str, workload: str) -> tuple[Workload, dict[str, Arm]]:
    """A workload of a preset, and its arms."""
    experiment = build(preset)
    found = next(w for w in experiment.workloads if w.name == workload)
    return found, {arm.name: arm for arm in experiment.arms_of(found)}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------- baselines


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
@pytest.mark.parametrize("base", ["sinkhorn", "sign"])
def test_the_map_without_a_rotation_is_aro_in_a_frame_that_stays(
    base: str, shape: tuple[int, int]
) -> None:
    p, q = nn.Parameter(drawn(*shape)), nn.Parameter(drawn(*shape))
    opt = FixedFrame([p], 0.1, base=base, frame="none", weight_decay=0.1)
    ours = ARO([q], 0.1, base=base, rotation_every=100)
    q.grad = torch.zeros_like(q)
    ours.step()  # the frame is turned by nothing
    for t in range(4):
        p.grad = q.grad = drawn(*shape, seed=t + 1)
        opt.step()
        ours.step()
    torch.testing.assert_close(p, q)


def test_the_eigenbasis_is_found_by_iteration() -> None:
    p = nn.Parameter(drawn(5, 9))
    opt = FixedFrame([p], 0.0, base="sinkhorn", frame="eigen")
    scales = torch.tensor([16.0, 8.0, 4.0, 2.0, 1.0], dtype=torch.float64)
    G = torch.linalg.qr(drawn(5, 5)).Q * scales @ torch.linalg.qr(drawn(9, 9, seed=1)).Q[:5]
    for _ in range(60):
        p.grad = G
        opt.step()
    R = opt.state[p]["rotation"]
    torch.testing.assert_close((R.mT @ eigenbasis(G)).abs(), torch.eye(5, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(6, 8), (8, 6)])
def test_soap_is_adam_where_gradients_keep_their_bases(shape: tuple[int, int]) -> None:
    """Gradients U s_t V with growing factors: coordinates are those of the singular vectors."""
    U, V = torch.linalg.qr(drawn(6, 6)).Q, torch.linalg.qr(drawn(8, 8, seed=1)).Q[:6]
    s = torch.tensor([9.0, 7.0, 5.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    p = nn.Parameter(torch.zeros(*shape, dtype=torch.float64))
    opt = SOAP([p], 0.1, gap=1, eps=0.0)
    plain = nn.Parameter(torch.zeros(6, dtype=torch.float64))
    adam = torch.optim.Adam([plain], 0.1, betas=(0.95, 0.95), eps=0.0)
    for t in range(4):
        G = U * (s * (t + 1)) @ V
        p.grad = G if shape == (6, 8) else G.mT.contiguous()
        opt.step()
        if t == 0:
            assert not p.any()  # the first makes the bases
            continue
        plain.grad = s * (t + 1)
        adam.step()
    M = p.detach() if shape == (6, 8) else p.detach().mT
    got = U.mT @ M @ V.mT
    torch.testing.assert_close(got.diagonal(), plain.detach(), rtol=1e-6, atol=1e-8)


def test_soap_is_near_its_peer() -> None:
    """Peers differ in the order of first moments: the same to a few percent on steady gradients."""
    peer = pytest.importorskip("pytorch_optimizer", reason="peer pytorch_optimizer not installed")
    start = drawn(6, 8).float()
    p, q = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    opt = SOAP([p], 0.01, gap=1)
    other = peer.SOAP([q], lr=0.01, betas=(0.95, 0.95), precondition_frequency=1, weight_decay=0.0)
    for t in range(20):
        p.grad = (drawn(6, 8, seed=50) + 0.1 * drawn(6, 8, seed=t)).float()
        q.grad = p.grad.clone()
        opt.step()
        other.step()
    cosine = nn.functional.cosine_similarity((p - start).ravel(), (q - start).ravel(), 0)
    assert cosine > 0.98


def test_muon_without_nesterov_is_torchs() -> None:
    p, q = nn.Parameter(drawn(6, 8).float()), nn.Parameter(drawn(6, 8).float())
    settings: Any = {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.0}
    opt = MuonWithAdamW([p], 0.1, **settings)
    other = torch.optim.Muon([q], 0.1, **settings)
    for t in range(3):
        p.grad = drawn(6, 8, seed=t).float()
        q.grad = p.grad.clone()
        opt.step()
        other.step()
    assert torch.equal(p, q)
    released = nn.Parameter(drawn(6, 8).float())
    plain = MuonWithAdamW([released], 0.1)
    released.grad = drawn(6, 8, seed=0).float()
    plain.step()
    assert not torch.equal(released, p)


def settings_of(name: str) -> tuple[str, dict[str, Any]]:
    arm = next(arm for arm in build("full").arms if arm.name == name)
    return arm.method, {**arm.fixed, "lr": 0.01}


@pytest.mark.parametrize("name", ["aro", "aro-sign", "muon", "soap", "eigen", "plain"])
def test_arms_leave_the_rest_to_adamw_and_resume(name: str) -> None:
    def made() -> tuple[nn.Module, Any]:
        torch.manual_seed(0)
        model = Transformer(11, 6, 8, 1, 2)
        method, settings = settings_of(name)
        return model, make_optimizer(method, model, settings)

    def steps(model: nn.Module, optimizer: Any, over: range) -> None:
        for t in over:
            x = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(t))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    model, optimizer = made()
    steps(model, optimizer, range(3))
    other, resumed = made()
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer, range(3, 5))
    steps(other, resumed, range(3, 5))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    hidden = set(hidden_matrices(model))
    for p in model.parameters():
        is_adamw = set(optimizer.state[p]) == {"step", "exp_avg", "exp_avg_sq"}
        assert is_adamw == (p not in hidden)


# ---------------------------------------------------------------- trials


def test_steps_to_a_loss() -> None:
    points = [(0, 4.0), (10, 3.0), (20, 3.5), (30, 2.0)]
    assert steps_to(points, 3.5, 30) == 5.0
    assert steps_to(points, 2.75, 30) == 25.0
    assert steps_to(points, 1.0, 30) == 60.0
    assert steps_to(points, 5.0, 30) == 0.0


@pytest.mark.parametrize("kind", ["aro", "muon"])
def test_race_counts_steps(kind: str) -> None:
    workload, arms = parts("quick", "text")
    spec = {**workload.spec, "evals": 2, "target": 4.0}
    short = dataclasses.replace(workload, steps=4, spec=spec)
    arm = dataclasses.replace(arms[kind], space=(), fixed={**arms[kind].fixed, "lr": 0.03})
    trial = Trial.offline(short, arm)
    race(trial)
    points = trial.curves["valid"]["nats"]
    want = steps_to(points, 4.0, 4)
    assert trial.results["test"]["steps_to_target"] == want
    assert trial.results["valid"]["steps_to_target"] == want
    assert trial.workload is short
    assert trial.results["test"]["nats"] < 4.6  # log of 107 characters is 4.67


def test_alignment_counts_pairs() -> None:
    p, q, v = nn.Parameter(drawn(5, 9)), nn.Parameter(drawn(6, 30)), nn.Parameter(drawn(3))
    opt = RotatedARO([{"params": [p, q, v]}], 0.1, base="sign")
    observer, trial = Alignment(), None
    assert observer(nn.Identity(), opt, 0, trial) == {}  # type: ignore[arg-type]
    for t in range(3):
        for x in (p, q, v):
            x.grad = drawn(*x.shape, seed=t)
        opt.step()
        found = observer(nn.Identity(), opt, t, trial)  # type: ignore[arg-type]
        assert observer.pairs == 2 * (t + 1)
        assert found["final_share_above_eigen"] == observer.larger / observer.pairs
        assert all(0 < found[f"rate_{name}"] <= 1 for name in ("aro", "eigen", "plain"))
    other = Alignment()
    other.load_state_dict(observer.state_dict())
    assert (other.pairs, other.larger) == (observer.pairs, observer.larger)
    # a frame that is the eigenbasis is not above it
    opt.state[p]["rotation"].copy_(eigenbasis(opt.state[p]["momentum"]))
    opt.state[q]["rotation"].copy_(eigenbasis(opt.state[q]["momentum"]))
    equal = Alignment()
    found = equal(nn.Identity(), opt, 3, trial)  # type: ignore[arg-type]
    assert found["rate_aro"] == found["rate_eigen"]
    assert equal.larger == 0


def test_bytes_and_prices() -> None:
    workload, arms = parts("quick", "cost")
    spec: Any = {"width": 24, "blocks": 2}
    trial = Trial.offline(dataclasses.replace(workload, spec=spec), arms["cost"])
    cost(trial)
    found = trial.results["test"]
    assert found["bytes_over_adamw"] == 1.0
    assert found["bytes_over_formula"] == 1.0
    assert all(0 < found[f"over_{name}"] < 1000 for name in ("adamw", "muon", "soap"))


def test_presets() -> None:
    quick, full, paper = (build(name) for name in ("quick", "full", "paper"))
    assert full.claims == CLAIMS  # every criterion is decided
    assert {c.id for c in quick.claims} == {c.id for c in CLAIMS} - {"rotation-gap"}
    assert sum(claim.primary for claim in paper.claims) == 1
    with pytest.raises(ValueError, match="preset must be one of"):
        build("half")


def test_enough_seeds_for_the_family() -> None:
    full = build("full")
    tests = [c for claim in full.claims for c in claim.criteria if c.kind != "exactness"]
    assert 2**full.final_seeds * 0.05 >= len(tests)


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_all_are_tuned_alike(preset: str) -> None:
    tuned = [arm for arm in build(preset).arms if arm.space]
    assert {tuple(k.name for k in arm.space) for arm in tuned} == {("lr",)}
    assert {round(arm.space[0].high / arm.space[0].low) for arm in tuned} == {1000}
    assert len({arm.space for arm in tuned if arm.name != "adamw"}) == 1
    assert all(arm.fixed["weight_decay"] == 0.0 for arm in tuned)


def test_the_published_scale_says_what_it_needs() -> None:
    workload, arms = parts("paper", "gpt2-124m")
    with pytest.raises(MissingData, match=r"GPT-2 of 124M parameters.*8 GPUs"):
        pretraining(Trial.offline(workload, arms["aro"]))


def test_figures_show_what_ran() -> None:
    arms = [{"name": n, "label": n} for n in ("adamw", "aro", "watched", "cost")]
    runs = [
        ("text", "adamw", {"nats": 2.6, "steps_to_target": 150.0}),
        ("text", "aro", {"nats": 2.4, "steps_to_target": 60.0}),
        ("text", "aro", {}),
        ("cost", "cost", {"over_adamw": 30.0, "over_muon": 1.2}),
    ]
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
        "step": [0, 5], "mean": [None, 0.5], "lo": [None, 0.4], "hi": [None, 1],
    }  # fmt: skip
    curves = [
        {"workload": "descent", "arm": "watched", "split": "train", "metric": m, **steps}
        for m in ("rate_aro", "rate_eigen")
    ]
    curves.append({"workload": "text", "arm": "aro", "split": "valid", "metric": "nats", **steps})
    document = {"format": 1, "arms": arms, "workloads": [], "finals": finals, "curves": curves}
    found = {figure.id: figure for figure in figures(Result(document))}
    assert set(found) == {"steps", "losses", "curves", "alignment-Sinkhorn", "times"}
    assert list(found["steps"].series[0].y) == [150.0, 60.0]
    assert len(found["alignment-Sinkhorn"].series) == 2
    assert list(found["times"].series[0].x) == ["AdamW", "Muon"]
    empty = {**document, "finals": [], "curves": []}
    assert figures(Result(empty)) == []
