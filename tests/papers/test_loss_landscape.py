"""The loss-landscape paper: its networks in small, resumed trials, shifts, figures, data."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gradworks import bench
from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Workload
from gradworks.bench.trial import Diverged, Trial, TrialInterrupted
from gradworks.bench.verdicts import judge
from gradworks.curvature import landscape
from gradworks.papers import loss_landscape as paper
from gradworks.papers.loss_landscape import presets
from gradworks.papers.loss_landscape.examples import SHIFTS, draw, shifted, with_wrong_labels
from gradworks.papers.loss_landscape.networks import network, weight_before_norm
from gradworks.papers.loss_landscape.planes import Planes
from gradworks.papers.loss_landscape.session import Session
from gradworks.papers.loss_landscape.spectra import PROXIES, correlations, spearman
from gradworks.papers.loss_landscape.trial import published
from gradworks.papers.loss_landscape.trial import trial as run

SMALL: dict[str, Any] = {
    "train_steps": 40,
    "snapshots": 4,
    "ladder": [["noise", 0.0], ["noise", 0.3], ["noise", 0.9]],
    "spectrum_batch": 60,
    "lanczos_steps": 6,
    "kh_steps": [4],
    "plane_batch": 40,
    "calibration_batch": 80,
    "points": 5,
}


def small(name: str, **changes: Any) -> Workload:
    """A workload of the full preset, reduced to well under a second."""
    workload = next(w for w in paper.build("full").workloads if w.name == name)
    spec = {
        **workload.spec,
        **SMALL,
        "network": {**workload.spec["network"], "widths": [4, 4]},
        "shifts": [["noise", 0.0], ["rotation", 40.0], ["mnist", 0.0]],
        "table_points": 3,
        **changes,
    }
    return dataclasses.replace(
        workload, spec=spec, steps=spec["train_steps"] + len(presets.cells(spec))
    )


def network_arm() -> Any:
    return paper.build("quick").arms[0]


@pytest.mark.parametrize("preset", ["quick", "full", "paper"])
def test_presets_are_experiments_whose_claims_can_be_decided(preset: str) -> None:
    experiment = paper.build(preset)
    assert {c.id for c in experiment.claims} == {c.id for c in paper.CLAIMS}
    for claim in experiment.claims:
        for criterion in claim.criteria:
            assert criterion.unit == "workload"
            named = {w.name: w for w in experiment.workloads if w.name in criterion.workloads}
            assert bool(named) == criterion.metric.startswith("bn_")
            assert len(named) == len(criterion.workloads)
            assert all(w.spec.get("network", w.spec)["norm"] for w in named.values())
    with pytest.raises(ValueError, match="preset must be one of"):
        paper.build("huge")


def test_the_full_preset_is_that_of_the_specification() -> None:
    experiment = paper.build("full")
    assert (len(experiment.workloads), experiment.final_seeds) == (12, 5)
    specs = [w.spec for w in experiment.workloads]
    assert all(len(s["shifts"]) == 8 and s["points"] == 21 for s in specs)
    assert {s["optimizer"] for s in specs} == {"sgd", "adam"}
    assert {s["network"]["kind"] for s in specs} == {"mlp", "conv"}
    assert {s["wrong_labels"] for s in specs} == {0.0, 0.2}
    # enough networks that Holm's correction over all tests of the paper can be passed
    tests = sum(len(claim.criteria) for claim in experiment.claims)
    assert 2.0 ** -len(presets.NORMED) * tests <= 0.05
    quick = paper.build("quick")
    assert quick.final_seeds == 1
    assert [w.name for w in quick.workloads] == ["mlp", "conv-bn"]
    assert all(len(w.spec["shifts"]) == 6 for w in quick.workloads)


@pytest.mark.parametrize("name", ["mlp", "mlp-bn", "conv-bn-adam"])
def test_a_trial_gives_every_figure_that_the_criteria_ask_for(name: str) -> None:
    workload = small(name)
    trial = Trial.offline(workload, network_arm(), seed=1)
    run(trial)
    assert trial.steps_done == workload.steps
    found = trial.results["test"]
    asked = {
        c.metric
        for claim in paper.CLAIMS
        for c in claim.criteria
        if not c.workloads or name in c.workloads
    }
    assert asked <= set(found)
    assert all(math.isfinite(value) for value in found.values())
    assert ("ladder_spearman_re" in found) == bool(workload.spec["ladder"])
    assert ("bn_ratio" in found) == ("bn" in name)
    assert ("rise_filter_table_adam" in found) == ("adam" in name)
    assert len(trial.curves["train"]["slice_hessian_long_eval"]) == 5
    if name == "mlp-bn":
        gaps = {key: value for key, value in found.items() if key.startswith("gap")}
        assert min(gaps.values()) > 1e-4  # not the floor: statistics are estimated anew
        assert found["bn_ratio"] == found["gap_random"] / found["gap_hessian"]
        assert found["bn_ratio_long"] == found["gap_random"] / found["gap_hessian_long"]
        again = Trial.offline(workload, network_arm(), seed=1)
        run(again)
        assert again.results == trial.results
        other = Trial.offline(workload, network_arm(), seed=2)
        run(other)
        assert other.results != trial.results


def test_scaling_before_batch_norm_shows_in_eval_mode_only() -> None:
    trial = Trial.offline(small("mlp-bn"), network_arm())
    run(trial)
    found = trial.results["test"]
    assert found["spread_train_scaling"] < 1e-3 * found["spread_eval_scaling"]
    assert found["spread_recalibrate_scaling"] < 1e-3 * found["spread_eval_scaling"]


def test_planes_that_are_compared_have_axes_of_equal_length(monkeypatch: Any) -> None:
    seen: list[tuple[float, ...]] = []
    measured = landscape.loss_plane

    def spy(model: Any, loss_fn: Any, data: Any, *pair: Any, **options: Any) -> Any:
        seen.append(tuple(sum(float((t**2).sum()) for t in d.values()) ** 0.5 for d in pair))
        return measured(model, loss_fn, data, *pair, **options)

    monkeypatch.setattr(landscape, "loss_plane", spy)
    session = Session(Trial.offline(small("mlp-bn", points=3), network_arm()))
    session.learn()
    planes = Planes(session)
    weights = sum(float((p.detach() ** 2).sum()) for p in session.model.parameters()) ** 0.5
    for draw_plane, length in (
        (planes.random, weights),
        (planes.hessian_long, weights),
        (planes.hessian_batch, weights),
        (planes.hessian, 1.0),
        (planes.random_short, 1.0),
    ):
        seen.clear()
        draw_plane()
        assert seen
        for pair in seen:
            assert pair == pytest.approx((length, length), rel=1e-3)


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


STOPPED = {"points": 3, "lanczos_steps": 4}


@functools.cache
def whole_run() -> dict[str, dict[str, float]]:
    """Figures of a trial that nothing stops."""
    trial = Trial.offline(small("conv-bn-adam", **STOPPED), network_arm(), seed=3)
    run(trial)
    return trial.results


@pytest.mark.parametrize("after", [17, 40, 45])
def test_a_trial_that_was_stopped_ends_where_it_would_have(after: int) -> None:
    workload = small("conv-bn-adam", **STOPPED)
    assert workload.steps > 45
    stops = Stops(after)
    common: dict[str, Any] = {"kind": "final", "number": 0, "seed": 3, "params": {}}
    with pytest.raises(TrialInterrupted):
        run(Trial(workload, network_arm(), record=stops, **common))
    resumed = Trial(workload, network_arm(), record=Stops(10**9), saved=stops.data, **common)
    run(resumed)
    assert resumed.results == whole_run()


def test_training_that_leaves_the_numbers_is_a_divergence() -> None:
    trial = Trial.offline(small("mlp", lr=1e38, train_steps=60), network_arm())
    with pytest.raises(Diverged, match="after 50 steps"):
        Session(trial).learn()


def test_the_published_scale_says_what_it_needs() -> None:
    experiment = paper.build("paper")
    trial = Trial.offline(experiment.workloads[0], experiment.arms[0])
    with pytest.raises(MissingData, match=r"vgg16.*GPU.*--preset full"):
        published(trial)


# ---------------------------------------------------------------- what is judged


def test_correlations_by_hand() -> None:
    assert spearman([1, 2, 3], [0.1, 0.5, 7.0]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 1, 2]) == pytest.approx(-0.8)
    assert spearman([1, 2, 3], [2, 2, 2]) == 0
    shifts = [
        {"accuracy": 0.9, "re": 0.1, "kh_half": 0.4, "loss": 0.5, "type_ratio": -0.1},
        {"accuracy": 0.8, "re": 0.2, "kh_half": 0.5, "loss": 0.4, "type_ratio": -0.9},
        {"accuracy": 0.7, "re": 0.3, "kh_half": 0.3, "loss": 0.6, "type_ratio": -0.2},
    ]
    found = correlations([{**dict.fromkeys(PROXIES, 1.0), **one} for one in shifts])
    assert found["spearman_re"] == pytest.approx(-1)
    assert found["spearman_loss"] == pytest.approx(-0.5)
    assert found["beyond_loss"] == pytest.approx(0.5)
    assert found["spearman_trace"] == 0
    assert found["mainly_positive"] == 1
    assert found["mainly_positive_shifted"] == pytest.approx(2 / 3)


PERFECT = {
    "bn_ratio": 3.0,
    "bn_ratio_long": 1.4,
    "spearman_re": -0.95,
    "spearman_kh_half": -0.9,
    "beyond_loss": 0.1,
    "mainly_positive": 1.0,
}


def statuses(**changes: float) -> dict[str, str]:
    """Verdicts where each network has these figures, a little apart."""
    experiment = paper.build("full")
    figures = {**PERFECT, **changes}
    names = [w.name for w in experiment.workloads]

    def sample(metric: str, arm: str, workload: str) -> dict[int, float]:
        value = figures[metric]
        return {s: value * (1 + 0.002 * names.index(workload) + 0.001 * s) for s in range(5)}

    verdicts = judge(experiment.claims, sample, workloads=names, preset="full", expected_seeds=5)
    return {v.claim: v.status for v in verdicts}


@pytest.mark.parametrize(
    ("changes", "claim", "status"),
    [
        ({}, "batch-norm", "reproduced"),
        ({"bn_ratio_long": 0.7}, "batch-norm", "partly"),
        ({"bn_ratio_long": 0.7, "bn_ratio": 0.9}, "batch-norm", "not reproduced"),
        ({}, "criteria", "reproduced"),
        ({"spearman_kh_half": 0.1}, "criteria", "partly"),
        ({"spearman_kh_half": 0.9}, "criteria", "partly"),
        ({"spearman_kh_half": -0.5, "spearman_re": -0.7}, "criteria", "not reproduced"),
        ({}, "beyond-loss", "reproduced"),
        ({"beyond_loss": -0.05}, "beyond-loss", "not reproduced"),
        ({}, "spectra", "reproduced"),
        ({"mainly_positive": 0.7}, "spectra", "partly"),
        ({"mainly_positive": 0.3}, "spectra", "not reproduced"),
    ],
)
def test_verdicts(changes: dict[str, float], claim: str, status: str) -> None:
    assert statuses(**changes)[claim] == status


@pytest.mark.slow
def test_a_whole_run_is_judged_and_drawn(tmp_path: Path) -> None:
    experiment = paper.build("quick")
    names = ("mlp", "conv-bn")
    experiment = dataclasses.replace(experiment, workloads=tuple(small(name) for name in names))
    result = bench.run(experiment, store=tmp_path / "runs.db", engine="serial")
    assert {c["id"] for c in result.claims} == {c.id for c in paper.CLAIMS}
    assert result.status in {"indication", "undecided"}
    drawn = paper.figures(result)
    assert [f.id for f in drawn] == [
        "gaps",
        "slice-random",
        "slice-hessian",
        "rules",
        "correlations",
        "accuracy-re",
        "accuracy-kh-half",
        "accuracy-loss",
        "lanczos-steps",
        "types",
    ]
    assert all(figure.caption and figure.series for figure in drawn)
    assert [len(s.x) for s in drawn[1].series] == [5, 5, 5]
    document = dict(result.document)
    document["workloads"], document["curves"], document["finals"] = [], [], []
    assert paper.figures(bench.Result(document)) == []


# ---------------------------------------------------------------- data and networks


def test_the_split_is_that_of_the_specification() -> None:
    (x, y), (held, labels) = draw(1)
    assert (len(x), len(y), len(held), len(labels)) == (1000, 1000, 797, 797)
    assert x.shape[1:] == (1, 8, 8)
    assert (float(x.min()), float(x.max())) == (0, 1)
    assert torch.equal(draw(1)[0][0], x)
    assert not torch.equal(draw(2)[0][0], x)


def test_wrong_labels_are_wrong() -> None:
    labels = torch.arange(1000) % 10
    wrong = with_wrong_labels(labels, 0.2, torch.Generator().manual_seed(0))
    assert int((wrong != labels).sum()) == 200
    assert (int(wrong.min()), int(wrong.max())) == (0, 9)
    assert torch.equal(with_wrong_labels(labels, 0.0, torch.Generator()), labels)


@pytest.mark.parametrize("kind", sorted(SHIFTS))
def test_a_shift_moves_images_and_leaves_labels_and_the_global_state(kind: str) -> None:
    _, test = draw(0)
    state = torch.get_rng_state()
    images, labels = shifted(test, kind, 1.0 if kind != "contrast" else 0.4, torch.Generator())
    assert images.shape == test[0].shape
    assert not torch.equal(images, test[0])
    assert torch.equal(labels, test[1])
    assert torch.equal(torch.get_rng_state(), state)
    neutral = 1.0 if kind == "contrast" else 0.0
    same, _ = shifted(test, kind, neutral, torch.Generator())
    assert torch.allclose(same, test[0], atol=1e-5)


def test_shifts_by_hand() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 2, 3] = 1.0
    label = torch.tensor([3])
    moved, _ = shifted((image, label), "translation", 1.0, torch.Generator())
    assert moved.nonzero().tolist() == [[0, 0, 2, 4]]
    turned, _ = shifted((image, label), "rotation", 90.0, torch.Generator())
    assert int(turned.argmax()) in (8 * 3 + 5, 8 * 4 + 2)
    flat, _ = shifted((image, label), "contrast", 0.0, torch.Generator())
    assert torch.allclose(flat, torch.full_like(flat, 1 / 64))


def test_the_other_data_set_has_the_digits_size() -> None:
    _, test = draw(0)
    images, labels = shifted(test, "mnist", 0.0, torch.Generator().manual_seed(0))
    assert images.shape == (797, 1, 8, 8)
    assert labels.unique().tolist() == list(range(10))
    # both fill their frame alike
    assert float(images.mean()) == pytest.approx(float(test[0].mean()), rel=0.4)


@pytest.mark.parametrize("name", sorted(presets.MODELS))
def test_networks_of_a_seed_leave_the_global_state_alone(name: str) -> None:
    spec = presets.MODELS[name]["network"]
    state = torch.get_rng_state()
    a, b = (network(spec, seed=5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert a(torch.ones(2, 1, 8, 8)).shape == (2, 10)
    assert ("bn" in name) == spec["norm"]
    scaling = weight_before_norm(a)
    moving = [key for key, value in scaling.items() if value.abs().sum() > 0]
    assert moving == ["0.weight", "0.bias"] if spec["kind"] == "conv" else ["1.weight", "1.bias"]
