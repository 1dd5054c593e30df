"""The MS-SSIM paper: its judges against their published values, its networks, its trials."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradworks.bench import data
from gradworks.bench.data import MissingData
from gradworks.bench.experiment import Workload
from gradworks.bench.models import initialised
from gradworks.bench.result import Result
from gradworks.bench.trial import Diverged, Trial, TrialInterrupted
from gradworks.papers import ms_ssim as paper
from gradworks.papers.ms_ssim import pictures, training
from gradworks.papers.ms_ssim.digits import accuracies
from gradworks.papers.ms_ssim.judges import JUDGES, edge_energy, gmsd, haarpsi, psnr, vif
from gradworks.papers.ms_ssim.networks import SRCNN, Autoencoder
from gradworks.papers.ms_ssim.phase import fsim
from gradworks.papers.ms_ssim.photographs import patches, photographs, pieces
from gradworks.papers.ms_ssim.trial import codes, enlarge, enlarged, judged, published, reconstruct
from gradworks.papers.ms_ssim.variational import Variational

FULL = paper.build("full")
WORKLOADS = {w.name: w for w in FULL.workloads}
ARMS = {a.name: a for a in FULL.arms}
WINDOWS = {"kernel": 7, "scales": 3}

HERE = {row["name"] for row in data.installed() if row["here"]}
needs_photographs = pytest.mark.skipif(
    not {"photographs", "sample_images"} <= HERE, reason="needs: gradworks data install photographs"
)
needs_digits = pytest.mark.skipif("mnist5k" not in HERE, reason="needs: gradworks data install")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves(height: int = 48, width: int = 48, dtype: torch.dtype = torch.float64) -> Tensor:
    """Three smooth images with edges, the same on every machine."""
    v, u = torch.meshgrid(
        torch.arange(height, dtype=dtype), torch.arange(width, dtype=dtype), indexing="ij"
    )
    made = [
        0.5 + 0.3 * (u / 5).sin() * (v / 7).cos() + 0.2 * (u > 20),
        0.4 + 0.2 * ((u + v) / 3).sin() + 0.3 * (v > 30),
        0.5 + 0.45 * (u * v / 90).sin(),
    ]
    return torch.stack(made)[:, None].clamp(0, 1)


def worse(x: Tensor) -> Tensor:
    """The same images with a pattern over them and less contrast."""
    u = torch.arange(x.shape[-1], dtype=x.dtype)
    v = torch.arange(x.shape[-2], dtype=x.dtype)[:, None]
    return (0.1 + 0.75 * x + 0.08 * (1.7 * u + 2.3 * v).sin()).clamp(0, 1)


def short(name: str, steps: int = 4, **changes: Any) -> Workload:
    """A workload of the full preset, small."""
    workload = WORKLOADS[name]
    spec = {**workload.spec, "counts": {"train": 80, "valid": 6, "test": 6}, **changes}
    return dataclasses.replace(workload, spec=spec, steps=steps)


# ---------------------------------------------------------------- presets


def test_budgets_are_equal_and_claims_can_be_decided() -> None:
    assert FULL.tune_trials == 8
    assert FULL.final_seeds == 10
    spaces = {arm.space for arm in FULL.arms if arm.name != "bicubic"}
    assert len(spaces) == 1  # the same search for every loss
    for workload in FULL.workloads:
        assert {"l1", "l2", "ms-ssim"} <= set(workload.arms)
        assert workload.select_on == "own"
    for preset, ids in {
        "quick": {"perceptual", "own-metric"},
        "full": {c.id for c in paper.CLAIMS},
        "paper": {"perceptual", "own-metric"},
    }.items():
        assert {c.id for c in paper.build(preset).claims} == ids
    with pytest.raises(ValueError, match="preset must be one of"):
        paper.build("huge")


def test_no_criterion_hides_the_plateau_behind_the_other_networks() -> None:
    perceptual = next(c for c in FULL.claims if c.id == "perceptual")
    asked = {(c.metric, c.workloads) for c in perceptual.criteria}
    assert asked == {(judge, (name,)) for judge in JUDGES for name in ("mlp", "conv", "vae")}
    assert {c.baseline for c in perceptual.criteria} == {"l1|l2"}
    for criterion in perceptual.criteria:
        assert criterion.direction == JUDGES[criterion.metric][1]


def test_splits_share_no_photograph() -> None:
    for workload in FULL.workloads:
        names = [set(split) for split in workload.spec.get("pictures", {}).values()]
        assert sum(map(len, names)) == len(set().union(*names))
    assert len(WORKLOADS["sr-x2"].spec["pictures"]["test"]) >= 3


def test_the_published_scale_is_refused_with_what_it_needs() -> None:
    experiment = paper.build("paper")
    trial = Trial.offline(experiment.workloads[0], experiment.arms[0])
    with pytest.raises(MissingData, match=r"STL-10.* a GPU of 12 GB .* observers"):
        published(trial)


# ---------------------------------------------------------------- judges

# piq 0.8.0 in float64 on waves(49, 50) against worse(waves(49, 50))
PINNED: dict[str, list[float]] = {
    "gmsd": [0.020214814674, 0.016919057995, 0.015779155920],
    "haarpsi": [0.888735235011, 0.910793948622, 0.897568848488],
    "vif": [0.298623825115, 0.330443604061, 0.420117279312],
    "fsim": [0.912696262498, 0.820995756089, 0.889630171775],
}


@pytest.mark.parametrize("name", sorted(JUDGES))
def test_judges_give_the_values_of_a_public_implementation(name: str) -> None:
    y = waves(49, 50)
    found = JUDGES[name][0](worse(y), y)
    assert found.tolist() == pytest.approx(PINNED[name], abs=1e-8)
    single = JUDGES[name][0](worse(y).float(), y.float())
    assert single.tolist() == pytest.approx(PINNED[name], abs=1e-5)


def test_judges_against_piq() -> None:
    piq = pytest.importorskip("piq")
    y = waves()
    x = worse(y)
    peers = {
        "gmsd": piq.gmsd(x, y, reduction="none"),
        "haarpsi": piq.haarpsi(x, y, reduction="none"),
        "vif": piq.vif_p(x, y, reduction="none"),
        "fsim": piq.fsim(x, y, chromatic=False, reduction="none"),
    }
    for name, (judge, _) in JUDGES.items():
        torch.testing.assert_close(judge(x, y), peers[name], atol=1e-8, rtol=0)


def test_equal_images_are_judged_best_and_worse_ones_worse() -> None:
    y = waves()
    assert gmsd(y, y).tolist() == pytest.approx([0.0] * 3, abs=1e-12)
    for judge in (haarpsi, vif, fsim, edge_energy):
        assert judge(y, y).tolist() == pytest.approx([1.0] * 3, abs=1e-6)
    slightly = 0.9 * y + 0.1 * worse(y)
    for name, (judge, direction) in JUDGES.items():
        sign = 1 if direction == "higher" else -1
        assert bool((sign * judge(slightly, y) > sign * judge(worse(y), y)).all()), name
    assert bool((psnr(slightly, y) > psnr(worse(y), y)).all())
    assert psnr(y + 0.1, y).tolist() == pytest.approx([20.0] * 3)
    blurred = torch.nn.functional.avg_pool2d(y, 5, 1, 2, count_include_pad=False)
    assert bool((edge_energy(blurred, y) < 1).all())


def test_judges_are_finite_where_nothing_is_to_be_seen() -> None:
    flat = torch.full((2, 1, 48, 48), 0.5)
    black = torch.zeros(2, 1, 48, 48)
    for first in (flat, black, waves(dtype=torch.float32)[:2]):
        for second in (flat, black):
            for name, (judge, _) in JUDGES.items():
                assert bool(judge(first, second).isfinite().all()), name
    assert fsim(flat, flat).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="sides of at least 41"):
        vif(flat[..., :40], flat[..., :40])


# ---------------------------------------------------------------- data and networks


@needs_photographs
def test_patches_come_from_their_photographs_and_repeat() -> None:
    spec = short("mlp").spec
    found = photographs([n for names in spec["pictures"].values() for n in names])
    made, again = pieces(found, 48, spec), pieces(found, 48, spec)
    assert {split: len(x) for split, x in made.items()} == {"train": 80, "valid": 6, "test": 6}
    for split, x in made.items():
        assert torch.equal(x, again[split])
        assert x.shape[1:] == (1, 48, 48)
        assert float(x.min()) >= 0
        assert float(x.max()) <= 1 + 1e-6
        assert float(x.flatten(1).std(1).min()) >= 0.02
    picture = {"p": torch.arange(60.0 * 60).reshape(60, 60) / 3600}
    whole = patches(picture, 20, 3, seeded(), shrunk=False)
    assert bool((whole.diff(dim=3) * 3600 - 1).abs().max() < 1e-2)  # neighbours of the photograph
    with pytest.raises(ValueError, match=r"names must be among .* got \['nobody'\]"):
        photographs(["nobody"])


def test_a_fully_connected_autoencoder_starts_at_the_principal_components() -> None:
    images = torch.rand(200, 1, 8, 8, generator=seeded(1)).cumsum(3) / 8
    network = initialised(lambda: Autoencoder("mlp", 8, 5, 6), seeded())
    assert isinstance(network, Autoencoder)
    network.start(images)
    rows = images.flatten(1).double()
    centred = rows - rows.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    best = (centred - centred @ axes[:6].T @ axes[:6]).square().mean()
    with torch.no_grad():
        error = (network(images) - images).square().mean()
        code = network.encode(images)
    assert float(error) == pytest.approx(float(best), rel=1e-3)
    assert code.mean(0).tolist() == pytest.approx([0.0] * 6, abs=1e-3)
    assert code.std(0).tolist() == pytest.approx([1.0] * 6, abs=0.01)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_every_weight_of_an_autoencoder_is_trained(kind: str) -> None:
    network = initialised(lambda: Autoencoder(kind, 16, 4, 3), seeded())
    x = torch.rand(5, 1, 16, 16, generator=seeded(1))
    assert network(x).shape == x.shape
    (network(x) - x).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


def test_srcnn_without_weights_leaves_the_image() -> None:
    network = initialised(lambda: SRCNN(4), seeded())
    x = torch.rand(1, 1, 12, 14, generator=seeded(1))
    assert network(x).shape == x.shape
    nn.utils.vector_to_parameters(torch.zeros(sum(p.numel() for p in network.parameters())),
                                  network.parameters())  # fmt: skip
    assert torch.equal(network(x), x)
    smooth = waves(dtype=torch.float32)
    for factor in (2, 3):
        made = enlarged(smooth, factor)
        assert made.shape == smooth.shape
        assert 1e-4 < float((made - smooth).abs().mean()) < 0.1


def test_variational_codes_cost_what_is_asked_for() -> None:
    images = torch.rand(64, 1, 8, 8, generator=seeded(1)).cumsum(3) / 8
    network = initialised(lambda: Autoencoder("mlp", 8, 5, 6, variational=True), seeded())
    assert isinstance(network, Autoencoder)
    network.start(images)
    bound = Variational(network, nn.functional.l1_loss, 4.0, seeded(2))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    before = bound.cost(images)
    for _ in range(300):
        optimizer.zero_grad()
        bound(images).backward()
        optimizer.step()
    assert before > 8.0
    assert bound.cost(images) == pytest.approx(4.0, rel=0.15)
    assert torch.equal(bound.reconstruct(images), bound.reconstruct(images))


def test_codes_are_read_by_a_linear_classifier() -> None:
    y = torch.arange(300) % 3
    x = torch.nn.functional.one_hot(y, 5).float()
    x = x + 0.05 * torch.randn(x.shape, generator=seeded())
    found = accuracies({"train": (x, y), "test": (x, y)}, torch.arange(300), [30, 100])
    assert found == {"accuracy_30": 1.0, "accuracy_100": 1.0, "accuracy": 1.0}


# ---------------------------------------------------------------- trials


def test_each_arm_has_the_loss_that_it_names() -> None:
    y = waves(dtype=torch.float32)
    x = worse(y)
    values = {name: float(training.loss_of(name, WINDOWS)(x, y)) for name in training.LOSSES}
    assert set(values) == set(ARMS) - {"bicubic"}
    assert values["l1"] == pytest.approx(float((x - y).abs().mean()))
    assert values["l2"] == pytest.approx(float((x - y).square().mean()))
    assert values["ms-ssim"] == pytest.approx(1 - judged(x, y, WINDOWS)["ms_ssim"], abs=1e-6)
    assert 0 < values["ms-ssim"] < 1
    assert values["ssim"] != pytest.approx(values["ms-ssim"], rel=0.01)


@needs_photographs
@pytest.mark.parametrize("name", ["mlp", "conv", "vae"])
def test_reconstruction_reports_every_judge(name: str) -> None:
    workload = short(name)
    trial = Trial.offline(workload, ARMS["ms-ssim"])
    reconstruct(trial)
    found = trial.results["test"]
    assert set(JUDGES) | {"psnr", "mae", "edges", "ssim", "ms_ssim", "own_train"} <= set(found)
    assert all(map(math.isfinite, found.values()))
    assert ("nats" in found) == (name == "vae")
    assert [step for step, _ in trial.curves["valid"]["psnr"]] == [1, 2, 3, 4]
    tuned = Trial.offline(workload, ARMS["ms-ssim"], kind="tune")
    reconstruct(tuned)
    assert tuned.results == {"valid": trial.results["valid"]}
    assert not tuned.curves
    other = Trial.offline(workload, ARMS["l1"])
    reconstruct(other)
    assert other.results["test"]["gmsd"] != found["gmsd"]


@needs_photographs
@pytest.mark.parametrize("name", ["vae", "conv"])
def test_a_run_that_was_stopped_goes_on_where_it_was(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = short(name, steps=5)
    whole = Trial.offline(workload, ARMS["l2"])
    reconstruct(whole)
    half = Trial.offline(workload, ARMS["l2"])
    kept: list[bytes] = []

    def checkpoint(step: int, saved: bytes, rows: Any) -> None:
        kept.append(saved)

    monkeypatch.setattr(half._record, "checkpoint", checkpoint)
    monkeypatch.setattr(half._record, "stopping", lambda: half.steps_done == 3)
    with pytest.raises(TrialInterrupted):
        reconstruct(half)
    again = Trial.offline(workload, ARMS["l2"])
    again._saved = kept[-1]
    reconstruct(again)
    assert again.results == whole.results


@needs_photographs
def test_super_resolution_is_judged_on_each_photograph() -> None:
    workload = short("sr-x3", steps=2)
    named = {**workload.spec["pictures"], "test": ["coffee", "flower"]}
    workload = dataclasses.replace(workload, spec={**workload.spec, "pictures": named})
    trial = Trial.offline(workload, ARMS["ms-ssim"])
    enlarge(trial)
    found = trial.results["test"]
    mean = (found["gmsd_coffee"] + found["gmsd_flower"]) / 2
    assert found["gmsd"] == pytest.approx(mean)
    plain = Trial.offline(workload, ARMS["bicubic"])
    enlarge(plain)
    assert set(plain.results) == {"test"}
    picture = photographs(["flower"])["flower"][None, None, :426, :639]
    expected = float(psnr(enlarged(picture, 3), picture))
    assert plain.results["test"]["psnr_flower"] == pytest.approx(expected, abs=1e-4)
    tuned = Trial.offline(workload, ARMS["l2"], kind="tune")
    enlarge(tuned)
    assert set(tuned.results) == {"valid"}


@needs_digits
def test_codes_of_digits() -> None:
    workload = dataclasses.replace(WORKLOADS["codes"], steps=2)
    trial = Trial.offline(workload, ARMS["ms-ssim"])
    codes(trial)
    found = trial.results["test"]
    assert 0.3 < found["accuracy_50"] < found["accuracy_1000"] < 1
    tuned = Trial.offline(workload, ARMS["ssim"], kind="tune")
    codes(tuned)
    assert set(tuned.results) == {"valid"}


@needs_photographs
def test_a_loss_that_explodes_ends_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.LOSSES, "l2", lambda _: lambda x, y: (x - y).sum() * math.inf)
    with pytest.raises(Diverged, match="not finite after step 1"):
        reconstruct(Trial.offline(short("mlp"), ARMS["l2"]))


# ---------------------------------------------------------------- page


def stored() -> Result:
    """A result with a value for everything."""
    experiment = paper.build("full")
    metrics = [*JUDGES, "psnr", "edges", *(f"accuracy_{n}" for n in (50, 100, 200, 500, 1000))]
    finals = [
        {
            "arm": arm,
            "workload": w.name,
            "seed": seed,
            "status": "done",
            "metrics": {"test": dict.fromkeys(metrics, 0.1 * (seed + 1))},
        }
        for w in experiment.workloads
        for arm in w.arms
        for seed in range(2)
    ]
    curve = {
        "workload": "mlp", "arm": "l2", "split": "valid", "metric": "psnr",
        "step": [1, 2], "mean": [20.0, 21.0], "lo": [19.0, 20.0], "hi": [21.0, None],
    }  # fmt: skip
    document = {
        "format": 1, "paper": "ms-ssim", "preset": "full", "finals": finals, "curves": [curve],
        "workloads": [{"name": w.name, "spec": dict(w.spec)} for w in experiment.workloads],
    }  # fmt: skip
    return Result(document)


def test_figures_show_what_ran() -> None:
    result = stored()
    drawn = {figure.id: figure for figure in paper.figures(result)}
    assert {"reconstructions-gmsd", "super-resolution-vif", "codes", "mlp-psnr"} <= set(drawn)
    assert "conv-psnr" not in drawn
    assert [s.name for s in drawn["super-resolution-psnr"].series][-1] == "bicubic"
    assert list(drawn["codes"].series[0].x) == ["50", "100", "200", "500", "1,000"]
    assert list(drawn["mlp-psnr"].series[0].x) == [1]
    empty = Result({**result.document, "finals": [], "curves": []})
    assert paper.figures(empty) == []


@needs_photographs
def test_a_page_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(FULL, workloads=(short("conv", steps=1),))
    monkeypatch.setattr(paper, "build", lambda preset: small)
    file = tmp_path / "page.png"
    assert pictures.main([str(file), "--workload", "conv", "--rows", "3"]) == 0
    from PIL import Image

    with Image.open(file) as image:
        assert image.size == (2 * (5 * 48 + 4 * 4), 2 * (3 * 48 + 2 * 4))
    with pytest.raises(SystemExit):
        pictures.main([str(file), "--workload", "codes"])
