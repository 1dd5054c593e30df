"""The learning-rate paper: measurements against naive ones, resumed trials, presets, figures."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradworks import bench
from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Workload
from gradworks.bench.trial import Diverged, Trial, TrialInterrupted
from gradworks.curvature import GGNOperator
from gradworks.curvature.learning_rate import batch_ggn_extreme_eigenvalue
from gradworks.papers import rmt_learning_rate as paper
from gradworks.papers.rmt_learning_rate.claims import LAW, LEARNERS
from gradworks.papers.rmt_learning_rate.dampings import damped_losses
from gradworks.papers.rmt_learning_rate.eigenvalues import fit_positive_noise, log_error
from gradworks.papers.rmt_learning_rate.largest_rates import rate_grid, unsaturated
from gradworks.papers.rmt_learning_rate.problems import draw_batch, network, reference, split
from gradworks.papers.rmt_learning_rate.side_by_side import final_losses, largest, smallest
from gradworks.papers.rmt_learning_rate.trial import huge
from gradworks.papers.rmt_learning_rate.trial import trial as run

DIGITS: dict[str, Any] = {"data": "digits", "pool": 2, "hidden": 5}
SHORT: dict[str, dict[str, Any]] = {
    "eigenvalues": {
        **DIGITS,
        "reference": {"steps": 20, "lr": 0.1, "batch_size": 32},
        "repeats": 2,
        "ggn_repeats": 1,
        "lanczos_steps": 6,
    },
    "rates": {
        **DIGITS,
        "reference": {"steps": 20, "lr": 0.1, "batch_size": 32},
        "noise": {"repeats": 2, "num_steps": 5},
        "steps": 40,
        "sizes": [8, 12, 16, 20, 24, 28],
    },
    "dampings": {"hidden": 3, "steps": 8, "dampings": [-6, 0]},
    "learner": {**DIGITS, "parts": [128, 200]},
}
COUNTS = {"eigenvalues": 9, "rates": 7, "dampings": 12, "learner": 12}  # ticks of a short trial


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(workload: Workload, **changes: Any) -> Workload:
    """A workload reduced to a fraction of a second."""
    study = workload.spec["study"]
    spec = {**workload.spec, **SHORT[study], **changes}
    if study == "learner":
        return dataclasses.replace(workload, spec=spec, steps=12, batch_size=32)
    return dataclasses.replace(workload, spec=spec)


def chosen(name: str, arm: str | None = None, **changes: Any) -> tuple[Workload, Any]:
    """A short workload of the full preset and one of its arms."""
    experiment = paper.build("full")
    workload = next(w for w in experiment.workloads if w.name == name)
    arms = experiment.arms_of(workload)
    return small(workload, **changes), next(a for a in arms if arm in (None, a.name))


CASES = [
    ("law-early", "network"),
    ("rates-digits", "sgd"),
    ("rates-digits", "adam"),
    ("damping", "damped"),
    ("learner-digits", "one-cycle"),
    ("learner-digits", "heavy-ball"),
]


# ---------------------------------------------------------------- presets and trials


@pytest.mark.parametrize("preset", ["quick", "full", "paper"])
def test_presets_are_experiments_whose_claims_can_be_decided(preset: str) -> None:
    experiment = paper.build(preset)
    assert experiment.final_seeds == {"quick": 5, "full": 10, "paper": 3}[preset]
    names = {w.name for w in experiment.workloads}
    found = {claim.id: claim for claim in experiment.claims}
    assert found["scaling"].primary
    assert {c.arm for c in found["scaling"].criteria} == {"sgd", "adam"}
    for claim in experiment.claims:
        for criterion in claim.criteria:
            assert set(criterion.workloads) <= names
    if preset == "paper":
        assert set(found) == {"scaling", "eigenvalues", "learner"}
    else:
        assert set(found) == {claim.id for claim in paper.CLAIMS}
    # every arm that is tuned has the same space, a learner has none: an eighth of the runs
    assert experiment.tune_trials == 8
    spaces = {a.space for a in experiment.arms if a.space}
    assert len(spaces) == 1
    assert all(a.space for a in experiment.arms if a.is_baseline)
    with pytest.raises(ValueError, match="preset must be one of"):
        paper.build("huge")


def test_full_runs_what_the_claims_name() -> None:
    names = {w.name for w in paper.build("full").workloads}
    assert names >= {*LAW, *LEARNERS, "rates-mnist", "rates-digits", "damping"}
    kinds = {w.name: w.spec for w in paper.build("full").workloads}
    assert not set(kinds["law-early"]["fit"]) & set(kinds["law-early"]["held_out"])


@pytest.mark.parametrize("name", [w.name for w in paper.build("paper").workloads])
def test_the_published_scale_says_what_it_needs(name: str) -> None:
    experiment = paper.build("paper")
    workload = next(w for w in experiment.workloads if w.name == name)
    with pytest.raises(MissingData, match=r"needs (a GPU|8 GPUs).*--preset full"):
        huge(Trial.offline(workload, experiment.arms_of(workload)[0]))


@pytest.mark.parametrize(("name", "arm"), CASES)
def test_a_trial_gives_what_its_criteria_ask_for_and_repeats_itself(name: str, arm: str) -> None:
    workload, found = chosen(name, arm)
    trial = Trial.offline(workload, found, seed=1)
    run(trial)
    assert trial.steps_done == COUNTS[workload.spec["study"]]
    asked = {
        c.metric
        for claim in paper.CLAIMS
        for c in claim.criteria
        if name in c.workloads and arm in {c.arm, *(one for terms in c.rivals for _, one in terms)}
    }
    assert asked
    assert asked <= set(trial.results["test"])
    again = Trial.offline(workload, found, seed=1)
    run(again)
    assert repr((again.results, again.curves)) == repr((trial.results, trial.curves))
    other = Trial.offline(workload, found, seed=2)
    run(other)
    assert repr((other.results, other.curves)) != repr((trial.results, trial.curves))


class Stops:
    """A record that stops a trial after some ticks and keeps its checkpoint."""

    def __init__(self, after: int) -> None:
        self.after, self.ticks, self.data = after, 0, b""

    def progress(self, step: int) -> None:
        """Not shown."""

    def rows(self, rows: list) -> None:
        """Not kept."""

    def checkpoint(self, step: int, data: bytes, rows: list) -> None:
        self.data = data

    def stopping(self) -> bool:
        self.ticks += 1
        return self.ticks >= self.after


@pytest.mark.parametrize(("name", "arm"), CASES)
@pytest.mark.parametrize("after", [1, 6])
def test_a_trial_that_was_stopped_ends_where_it_would_have(name: str, arm: str, after: int) -> None:
    workload, found = chosen(name, arm)
    whole = Trial.offline(workload, found, seed=3)
    run(whole)
    stops = Stops(after)
    common: dict[str, Any] = {"kind": "final", "number": 0, "seed": 3}
    common["params"] = {knob.name: knob.default for knob in found.space}
    with pytest.raises(TrialInterrupted):
        run(Trial(workload, found, record=stops, **common))
    resumed = Trial(workload, found, record=Stops(10**9), saved=stops.data, **common)
    run(resumed)
    assert repr(resumed.results) == repr(whole.results)  # NaN is not equal to itself


def test_both_optimizers_get_the_same_prediction() -> None:
    found = []
    for arm in ("sgd", "adam"):
        trial = Trial.offline(*chosen("rates-digits", arm), seed=1)
        run(trial)
        found.append(trial.results["test"])
    for name in ("lambda_max", "noise", "saturation", "in_range", "law_slope"):
        assert repr(found[0][name]) == repr(found[1][name])
    assert math.isfinite(found[0]["over_law"])
    assert found[0]["over_law"] != found[1]["over_law"]


def test_the_learner_pays_a_point_less_and_tuning_never_sees_the_test_part() -> None:
    for arm, point in (("constant", 0.01), ("heavy-ball", 0.0), ("rmt", 0.0)):
        workload, found = chosen("learner-digits", arm)
        trial = Trial.offline(workload, found, seed=1)
        run(trial)
        tested = trial.results["test"]
        assert tested["error_allowed"] == pytest.approx(tested["error"] + point)
        assert ("learner_share" in tested) == (point == 0)
        tuned = Trial.offline(workload, found, seed=1, kind="tune")
        run(tuned)
        assert set(tuned.results) == {"valid"}
        assert tuned.results["valid"] == trial.results["valid"]


def test_learners_change_the_rate_and_schedules_follow_their_shape() -> None:
    rates = {}
    for arm in ("constant", "cosine", "one-cycle", "heavy-ball", "rmt"):
        trial = Trial.offline(*chosen("learner-digits", arm), seed=1)
        run(trial)
        rates[arm] = [value for _, value in trial.curves["train"]["lr"]]
        momenta = {value for _, value in trial.curves["train"]["momentum"]}
        assert (momenta == {0.9}) == (arm != "heavy-ball")
    assert rates["constant"] == [0.1, 0.1, 0.1]
    assert rates["cosine"] == sorted(rates["cosine"], reverse=True)
    assert rates["one-cycle"][-1] < rates["one-cycle"][0]
    assert len(set(rates["heavy-ball"])) == len(set(rates["rmt"])) == 3


def test_a_training_that_explodes_is_told() -> None:
    workload, found = chosen("learner-digits", "constant")
    with pytest.raises(Diverged):
        run(Trial.offline(workload, found, params={"lr": math.inf}))
    model, data = problem()
    how = {"reference": {"steps": 20, "lr": 1e38, "batch_size": 4}}
    with pytest.raises(Diverged, match="reference training"):
        reference(model, (data[0] * 1e3, data[1]), how, gen())


# ---------------------------------------------------------------- rates side by side


def problem(kind: str = "deep") -> tuple[nn.Sequential, tuple[torch.Tensor, torch.Tensor]]:
    spec = {**DIGITS, "inputs": "standard", "network": kind}
    data = split(spec, gen(3))[0]
    return network(spec, tuple(data[0].shape[1:]), gen(1)), data


@pytest.mark.parametrize(
    ("optimizer", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)]
)
def test_rates_side_by_side_are_single_trainings(optimizer: str, kind: Any) -> None:
    rates = [0.01, 0.1, 0.5]
    model, data = problem()
    before = [p.clone() for p in model.parameters()]
    found = final_losses(model, optimizer, rates, data, steps=15, batch_size=7, generator=gen(5))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))
    for rate, loss in zip(rates, found.tolist()):
        one, _ = problem()
        update, batches = kind(one.parameters(), lr=rate), gen(5)
        for _ in range(15):
            x, y = draw_batch(data, 7, batches)
            update.zero_grad()
            F.cross_entropy(one(x), y).backward()
            update.step()
        assert loss == pytest.approx(
            float(F.cross_entropy(one(data[0]), data[1]).detach()), rel=1e-4
        )


def test_a_rate_that_diverges_leaves_the_others_alone() -> None:
    model, data = problem("shallow")
    common: dict[str, Any] = {"steps": 10, "batch_size": 5}
    alone = final_losses(model, "sgd", [0.1], data, generator=gen(), **common)
    both = final_losses(model, "sgd", [0.1, math.inf], data, generator=gen(), **common)
    assert both[0] == pytest.approx(float(alone[0]), rel=1e-5)
    assert not math.isfinite(both[1])
    with pytest.raises(TypeError, match="Conv2d"):
        final_losses(problem("conv")[0], "sgd", [0.1], data, generator=gen(), **common)


def test_largest_and_smallest_look_at_what_trained() -> None:
    losses = torch.tensor([1.5, 0.5, 0.9, math.nan, math.inf])
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert largest(values, losses, 1.0) == 3.0
    assert smallest(values, losses, 1.0) == 2.0
    assert math.isnan(largest(values, losses, 0.1))
    assert math.isnan(smallest(values, losses, 0.1))
    # an end of the grid that trains leaves the answer open
    assert math.isnan(largest(values[:3], losses[:3], 1.0))
    assert math.isnan(smallest(values[1:], losses[1:], 1.0))


def test_the_grid_and_the_range() -> None:
    grid = rate_grid(2**-6, 2**4)
    assert len(grid) == 21
    assert (grid[0], grid[-1]) == (2**-6, 2**4)
    sizes = [4, 6, 8, 11, 16, 23, 32, 64]
    assert unsaturated(sizes, 32.0) == [4, 6, 8, 11, 16, 23, 32]
    assert unsaturated(sizes, 22.9) == []  # five sizes carry no slope


# ---------------------------------------------------------------- dampings


def test_a_damped_step_is_the_dense_one() -> None:
    model, data = problem("shallow")
    dampings, lr = [0.01, 1.0], 0.5
    found = damped_losses(model, dampings, data, lr=lr, steps=1, batch_size=9, generator=gen(2))
    batch = draw_batch(data, 9, gen(2))
    with GGNOperator(model, F.cross_entropy, batch) as op:
        G = op.to_dense()
    grads = torch.autograd.grad(
        F.cross_entropy(model(batch[0]), batch[1]), list(model.parameters())
    )
    g = torch.cat([one.flatten() for one in grads])
    for damping, loss in zip(dampings, found.tolist()):
        moved, _ = problem("shallow")
        step = torch.linalg.solve(G + damping * torch.eye(len(g)), g)
        nn.utils.vector_to_parameters(
            nn.utils.parameters_to_vector(moved.parameters()) - lr * step, moved.parameters()
        )
        with torch.no_grad():
            assert loss == pytest.approx(float(F.cross_entropy(moved(data[0]), data[1])), rel=2e-3)


def test_no_damping_and_a_large_rate_diverge_without_an_error() -> None:
    model, data = problem("shallow")
    found = damped_losses(
        model, [1e-9, 10.0], data, lr=50.0, steps=5, batch_size=2, generator=gen()
    )
    assert not found[0] < math.log(10)


# ---------------------------------------------------------------- the laws' fits


@pytest.mark.parametrize("v", [1e-3, 0.02, 0.4])
def test_the_noise_of_law_2_is_found_again(v: float) -> None:
    lam, P, sizes = 3.0, 500, [8, 32, 128]
    seen = [batch_ggn_extreme_eigenvalue(lam, v, P, B) for B in sizes]
    assert fit_positive_noise(sizes, seen, lam, P) == pytest.approx(v, rel=1e-3)


def test_the_error_is_that_of_the_logarithm() -> None:
    assert log_error(lambda B: 2.0, [1, 2], [2.0 * math.e, 2.0]) == pytest.approx(0.5)


def test_eigenvalues_of_batches_are_larger_and_gains_are_of_the_same_sizes() -> None:
    trial = Trial.offline(*chosen("law-early", repeats=4, lanczos_steps=15), seed=4)
    run(trial)
    found = trial.results["test"]
    assert found["excess_top"] > 0
    assert found["excess_bottom"] > 0
    assert found["excess_ggn"] > 0
    assert found["noise"] > 0 < found["noise_direct"]
    tops = dict(trial.curves["train"]["top"])
    assert set(tops) == {8, 16, 32, 64, 128, 256, 512}
    whole = found["lambda_max"]
    constant = sum(abs(math.log(whole / tops[B])) for B in (16, 64, 256, 512)) / 4
    assert found["gain_constant"] + found["law_error"] == pytest.approx(constant)
    laws = dict(trial.curves["train"]["predicted"])
    error = sum(abs(math.log(laws[B] / tops[B])) for B in (16, 64, 256, 512)) / 4
    assert found["law_error"] == pytest.approx(error)
    # a power through the sizes of the fit
    x = torch.tensor([8.0, 32.0, 128.0], dtype=torch.float64).log()
    y = torch.tensor([tops[8], tops[32], tops[128]], dtype=torch.float64).log()
    A = torch.stack([torch.ones(3, dtype=torch.float64), x], 1)
    a, b = torch.linalg.lstsq(A, y.unsqueeze(1)).solution.flatten().tolist()
    power = sum(abs(a + b * math.log(B) - math.log(tops[B])) for B in (16, 64, 256, 512)) / 4
    assert found["gain_power"] + found["law_error"] == pytest.approx(power)


# ---------------------------------------------------------------- data and networks


def test_parts_are_standardised_by_the_first() -> None:
    spec = {"data": "digits", "inputs": "standard", "parts": [1000, 300]}
    train, valid, test = split(spec, gen())
    assert [len(part[1]) for part in (train, valid, test)] == [1000, 300, 497]
    assert train[0].mean(0).abs().max() < 1e-5
    assert 0.5 < float(train[0].std()) < 1
    assert valid[0].mean(0).abs().max() > 1e-3
    pixels = split({**spec, "inputs": "pixels"}, gen())[0]
    assert 0 <= float(pixels[0].min()) < float(pixels[0].max()) <= 1
    assert torch.equal(pixels[1], train[1])


@pytest.mark.parametrize(("kind", "count"), [("deep", 7690), ("shallow", 6634), ("conv", 2686)])
def test_networks_of_a_seed_leave_the_global_state_alone(kind: str, count: int) -> None:
    state = torch.get_rng_state()
    a, b = (network({"network": kind}, (1, 14, 14), gen(5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert sum(p.numel() for p in a.parameters()) == count
    assert a(torch.zeros(2, 1, 14, 14)).shape == (2, 10)


# ---------------------------------------------------------------- a whole run


@pytest.mark.slow
def test_a_whole_run_is_judged_and_drawn(tmp_path: Path) -> None:
    experiment = paper.build("quick")
    experiment = dataclasses.replace(
        experiment,
        workloads=tuple(small(w) for w in experiment.workloads),
        tune_trials=2,
        final_seeds=2,
    )
    result = bench.run(experiment, store=tmp_path / "runs.db", engine="serial")
    assert {c["id"] for c in result.claims} == {c.id for c in paper.CLAIMS}
    drawn = {f.id: f for f in paper.figures(result)}
    assert set(drawn) >= {"rates-digits", "law-early", "learner-digits", "learner-digits-rates"}
    for figure in drawn.values():
        assert figure.caption
        assert all(len(series.x) for series in figure.series)
    document = dict(result.document)
    document["workloads"], document["curves"], document["finals"] = [], [], []
    assert paper.figures(bench.Result(document)) == []
