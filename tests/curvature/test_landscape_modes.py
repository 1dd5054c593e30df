"""Batch norm in three modes, what is left behind, the report, and bad input."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.nets import problem, vector
from torch import Tensor, nn
from torch.func import functional_call

from gradworks.curvature import landscape
from gradworks.curvature.lanczos import SpectralMeasure
from gradworks.curvature.landscape import (
    LossPlane,
    analyze,
    bn_report,
    centered_grid,
    loss_line,
    loss_plane,
    normalize_direction,
    random_directions,
)


def normed(*, dropout: float = 0.3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(dropout), nn.Linear(6, 3)
        ).double()
    model[1].running_mean += 0.2
    model[1].running_var *= 1.5
    return model


def data(n: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    return vector(3 * n, seed).view(n, 3), torch.arange(n) % 3


def before_the_norm(model: nn.Module) -> dict[str, Tensor]:
    """The direction that scales the layer before a batch norm."""
    return {n: model[0].get_parameter(n[2:]).detach().clone() for n in ("0.weight", "0.bias")}


VECTORIZE = ["never", "always"]


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_train_mode_does_not_see_a_scaling_before_the_norm(vectorize: Any) -> None:
    model, (x, y) = normed(), data()
    model[1].eps = 1e-12
    scales = torch.tensor([-0.5, 0.0, 1.0, 2.0])  # the layer times 0.5 to 3

    def spread(mode: Any) -> float:
        line = loss_line(
            model,
            F.cross_entropy,
            (x, y),
            before_the_norm(model),
            alphas=scales,
            mode=mode,
            calibration_data=(x, y),
            vectorize=vectorize,
        )
        return float(line.loss.max() - line.loss.min())

    assert spread("train") < 1e-9
    assert spread("recalibrate") < 1e-9  # fresh statistics follow the weights
    assert spread("eval") > 1e-2


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_modes_transcribed(vectorize: Any) -> None:
    model, (x, y) = normed(), data()
    calibration = [(x[:16], y[:16]), (x[16:], y[16:])]  # ragged
    a, b = random_directions(model)
    for mode in ("eval", "train", "recalibrate"):
        plane = loss_plane(
            model,
            F.cross_entropy,
            (x, y),
            a,
            b,
            alphas=[0.5],
            betas=[-0.25],
            mode=mode,
            calibration_data=calibration,
            vectorize=vectorize,
        )
        state = {n: p.detach() + 0.5 * a[n] - 0.25 * b[n] for n, p in model.named_parameters()}
        copied = copy.deepcopy(model).eval()
        if mode == "train":
            copied[1].train()
        if mode == "recalibrate":
            hidden = [F.linear(u, state["0.weight"], state["0.bias"]) for u, _ in calibration]
            copied[1].running_mean = (16 * hidden[0].mean(0) + 8 * hidden[1].mean(0)) / 24
            copied[1].running_var = (16 * hidden[0].var(0) + 8 * hidden[1].var(0)) / 24
        want = F.cross_entropy(functional_call(copied, state, (x,)), y).detach()
        torch.testing.assert_close(plane.loss[0, 0], want, rtol=1e-12, atol=1e-12)


def test_the_report_on_batch_norm() -> None:
    model, batch = normed(), data()
    a, b = random_directions(model)
    at = centered_grid(3)
    planes = {
        mode: loss_plane(
            model,
            F.cross_entropy,
            batch,
            a,
            b,
            alphas=at,
            betas=at,
            mode=mode,
            calibration_data=batch,
        )
        for mode in ("eval", "recalibrate")
    }
    stale, fresh = planes["eval"].loss, planes["recalibrate"].loss
    with pytest.warns(UserWarning, match="stored batch-norm statistics"):
        found = bn_report(planes["eval"], planes["recalibrate"])
    assert found == pytest.approx(float(((stale - fresh) / fresh).abs().max()))
    assert bn_report(planes["eval"], planes["eval"]) == 0
    infinite = LossPlane(at, at, stale.where(stale < stale.max(), torch.inf))
    assert bn_report(infinite, infinite) == 0
    with pytest.warns(UserWarning, match="inf"):
        assert math.isinf(bn_report(planes["eval"], infinite))
    with pytest.raises(ValueError, match="coordinates alpha"):
        bn_report(planes["eval"], LossPlane(at / 2, at, stale))
    with pytest.raises(ValueError, match="no measured point"):
        bn_report(planes["eval"], LossPlane(at, at, torch.full((3, 3), torch.nan)))


def test_no_batch_norm_to_recalibrate_is_said() -> None:
    model, loss_fn, batch = problem()
    a, _ = random_directions(model)
    with pytest.warns(UserWarning, match="no batch norm"):
        line = loss_line(model, loss_fn, batch, a, mode="recalibrate", calibration_data=batch)
    assert torch.equal(line.loss, loss_line(model, loss_fn, batch, a).loss)


@pytest.mark.parametrize("vectorize", VECTORIZE)
def test_fresh_statistics_owe_nothing_to_the_stored_ones(vectorize: Any) -> None:
    model, batch = normed(), data()
    a, _ = random_directions(model)
    options: dict[str, Any] = {"alphas": [0.0, 0.5], "vectorize": vectorize}
    options |= {"mode": "recalibrate", "calibration_data": batch}
    want = loss_line(model, F.cross_entropy, batch, a, **options).loss
    model[1].running_mean.fill_(torch.nan)
    model[1].running_var.fill_(torch.inf)
    assert torch.equal(loss_line(model, F.cross_entropy, batch, a, **options).loss, want)
    assert model[1].running_mean.isnan().all()


# -- everything is as it was ---------------------------------------------------------------------


@pytest.mark.parametrize("vectorize", VECTORIZE)
@pytest.mark.parametrize("mode", ["eval", "train", "recalibrate"])
def test_everything_is_as_it_was(mode: Any, vectorize: Any) -> None:
    model, batch = normed(), data()
    model.train()
    model[3].eval()
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    model[1].running_mean += 0.1
    kept = copy.deepcopy(model.state_dict())
    grads = {n: p.grad.clone() for n, p in model.named_parameters()}
    flags = [m.training for m in model.modules()]
    tensors = {n: t.data_ptr() for n, t in model.state_dict().items()}
    torch.rand(3)
    rng = torch.get_rng_state()
    a, b = random_directions(model)
    options: dict[str, Any] = {
        "alphas": centered_grid(3),
        "betas": centered_grid(3),
        "mode": mode,
        "calibration_data": batch,
        "vectorize": vectorize,
    }
    first = loss_plane(model, F.cross_entropy, batch, a, b, **options)
    assert torch.equal(first.loss, loss_plane(model, F.cross_entropy, batch, a, b, **options).loss)

    def fail(output: Tensor, target: Tensor) -> Tensor:
        torch.rand(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loss_plane(model, fail, batch, a, b, **options)
    analyze(model, F.cross_entropy, batch, points=3, num_steps=3, modes=[mode])
    assert torch.equal(torch.get_rng_state(), rng)
    assert [m.training for m in model.modules()] == flags
    assert model[1].momentum == 0.1
    assert not any(m._forward_hooks for m in model.modules())
    assert {n: t.data_ptr() for n, t in model.state_dict().items()} == tensors
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept[name])
    for name, p in model.named_parameters():
        assert torch.equal(p.grad, grads[name])
        assert p.requires_grad


def test_tied_weights_move_together() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(x)))

    model, batch = Tied().double(), data()
    assert list(random_directions(model)[0]) == ["first.weight"]
    d = {"first.weight": torch.ones(3, 3).double()}
    w = model.first.weight + 1
    want = F.cross_entropy(torch.tanh(batch[0] @ w.T) @ w.T, batch[1])
    for vectorize in ("never", "always"):
        line = loss_line(model, F.cross_entropy, batch, d, alphas=[1.0, 2.0], vectorize=vectorize)
        torch.testing.assert_close(line.loss[0], want.detach())


def test_mixed_types_and_half_precision() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3).to(torch.bfloat16))

    def run(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.float(), target)

    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, x: Tensor) -> Tensor:
            return self.parts[1](self.parts[0](x).to(torch.bfloat16))

    x, y = data()
    a, b = random_directions(Cast())
    scaled = [normalize_direction(d, Cast()) for d in (a, b)]
    assert scaled[0]["parts.1.weight"].dtype == torch.bfloat16
    plane = loss_plane(Cast(), run, (x.float(), y), *scaled, alphas=[0.0, 1.0], betas=[0.0, 1.0])
    assert plane.loss.isfinite().all()


# -- all views ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_report_of_all_views(tmp_path: Path) -> None:
    model, batch = normed(), data()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    way = [copy.deepcopy(model.state_dict())]
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()
        way.append(copy.deepcopy(model.state_dict()))
    model.eval()
    done: list[tuple[int, int]] = []
    options: dict[str, Any] = {
        "axes": ["random", "hessian", "adam", "adam_step", "trajectory"],
        "modes": ["eval", "recalibrate"],
        "points": 3,
        "num_steps": 10,
        "optimizer": optimizer,
        "checkpoints": way,
        "folder": tmp_path / "planes",
    }
    report = analyze(model, F.cross_entropy, batch, progress=lambda *p: done.append(p), **options)
    assert len(report.planes) == (4 * 3 + 1) * 2
    assert done[-1] == (26 * 9, 26 * 9)
    assert done == sorted(done)
    want = float(F.cross_entropy(model(batch[0]), batch[1]).detach())
    assert report.loss == pytest.approx(want)
    for name, plane in report.planes.items():
        if name.endswith("eval") and "step" not in name:
            assert float(plane.center) == pytest.approx(want)
    assert set(report.batch_norm) == {n.rsplit("-", 1)[0] for n in report.planes}
    assert report.batch_norm["random-none"] > 0.1
    assert report.criteria is not None
    assert report.criteria.num_steps == (10, 10)
    assert report.eigenvalues is not None
    document = report.to_dict()
    assert document["planes"]["adam_step-none-eval"]["rule"] == "adam"
    again = analyze(model, F.cross_entropy, batch, **options)  # nothing is measured again
    for name, plane in again.planes.items():
        assert torch.equal(plane.loss, report.planes[name].loss)
    report.save(tmp_path / "planes")
    assert len(list((tmp_path / "planes").iterdir())) == 26
    page = report.write_html(tmp_path / "all.html").read_text()
    assert page.count("<option>") == 26


# -- bad input -----------------------------------------------------------------------------------

MODEL, LOSS, BATCH = problem()
A, B = random_directions(MODEL)
AT = centered_grid(3)
ONE = torch.ones(1, 1)


def plane(**changed: Any) -> Any:
    given: dict[str, Any] = {"a": A, "b": B, "alphas": AT, "betas": AT, **changed}
    model, loss, batch = (given.pop(k, v) for k, v in (("m", MODEL), ("l", LOSS), ("d", BATCH)))
    return loss_plane(model, loss, batch, given.pop("a"), given.pop("b"), **given)


def all_views(**changed: Any) -> Any:
    return analyze(MODEL, LOSS, BATCH, points=3, criteria=False, **changed)


def spectral(*nodes: float) -> SpectralMeasure:
    t = torch.tensor(nodes)
    return SpectralMeasure([t], [torch.full_like(t, 1 / len(t))], len(t))


NEGATIVE = {n: -torch.ones_like(t) for n, t in A.items()}
FEW = {"0.weight": A["0.weight"]}
BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: plane(mode="test"), ValueError, "mode must be one of eval, train, recalibrate"),
    (lambda: plane(rule="sgd"), ValueError, "rule must be one of add, adam"),
    (lambda: plane(vectorize="yes"), ValueError, "vectorize must be one of"),
    (lambda: plane(alphas=[]), ValueError, "alphas is empty"),
    (lambda: plane(betas=[]), ValueError, "betas is empty"),
    (lambda: plane(alphas=[math.nan]), ValueError, "alphas must be finite"),
    (lambda: plane(betas=torch.zeros(2, 3)), ValueError, "betas must have 3 rows"),
    (lambda: plane(betas=torch.zeros(1, 3, 3)), ValueError, "betas must be a vector"),
    (lambda: plane(b=FEW), ValueError, "missing"),
    (lambda: plane(a={"x": ONE}, b={"x": ONE}), ValueError, "not a parameter of Sequential"),
    (lambda: plane(a={}, b={}), ValueError, "direction is empty"),
    (lambda: plane(a={"0.bias": ONE}, b={"0.bias": ONE}), ValueError, "must have shape (4,)"),
    (lambda: plane(mode="recalibrate"), ValueError, "needs calibration_data"),
    (lambda: plane(rule="adam"), ValueError, "betas must be positive"),
    (lambda: plane(rule="adam", betas=[0.0]), ValueError, "betas must be positive"),
    (lambda: plane(rule="adam", b=NEGATIVE, betas=[1.0]), ValueError, "negative entries"),
    (lambda: plane(rule="adam", betas=[1.0], eps=0.0), ValueError, "eps must be positive"),
    (lambda: plane(rows=[3]), ValueError, "rows must be some of 0..2"),
    (lambda: plane(rows=[]), ValueError, "rows must be some of 0..2"),
    (lambda: plane(m="net"), TypeError, "torch.nn.Module"),
    (lambda: plane(m=nn.ReLU()), ValueError, "no parameter to move"),
    (lambda: plane(l="loss"), TypeError, "loss_fn must be callable"),
    (lambda: plane(d=iter([BATCH])), TypeError, "re-iterable"),
    (lambda: plane(d=[]), ValueError, "data is empty"),
    (lambda: plane(l=lambda o, t: 1.0), TypeError, "must return a tensor"),
    (lambda: plane(l=lambda o, t: o), ValueError, "one number"),
    (lambda: loss_line(MODEL, LOSS, BATCH, A, alphas=[]), ValueError, "alphas is empty"),
    (lambda: normalize_direction(A, MODEL, "row"), ValueError, "rule must be one of filter"),
    (lambda: normalize_direction(A, MODEL, order=3), ValueError, "order must be 1 or 2"),
    (lambda: normalize_direction(A, MODEL, one_dimensional="no"), ValueError, "one_dimensional"),
    (lambda: normalize_direction(A, FEW), ValueError, "unknown"),
    (lambda: normalize_direction(FEW, A), ValueError, "missing"),
    (lambda: normalize_direction({"w": ONE}, {"w": ONE[0]}), ValueError, "must have shape (1,)"),
    (lambda: random_directions(MODEL, 0), ValueError, "k must be"),
    (lambda: random_directions(MODEL, 4, params="2.bias"), ValueError, "at most 3 orthogonal"),
    (lambda: random_directions(MODEL, distribution="cauchy"), ValueError, "distribution"),
    (lambda: random_directions(MODEL, params="x*"), ValueError, "selects no trainable"),
    (lambda: random_directions(nn.ReLU()), ValueError, "no trainable parameter"),
    (lambda: landscape.hessian_directions(MODEL, LOSS, BATCH, which="XX"), ValueError, "which"),
    (
        lambda: landscape.hessian_directions(MODEL, LOSS, BATCH, which="top_bottom", k=3),
        ValueError,
        "two directions",
    ),
    (
        lambda: landscape.hessian_directions(MODEL, LOSS, BATCH, indices=(0, 0)),
        ValueError,
        "indices must be different",
    ),
    (
        lambda: landscape.adam_directions(torch.optim.SGD(MODEL.parameters(), lr=0.1), MODEL),
        ValueError,
        "no moments",
    ),
    (lambda: landscape.adam_directions(None, MODEL), TypeError, "torch.optim.Optimizer"),
    (lambda: landscape.trajectory_directions([A, A]), ValueError, "at least 3"),
    (lambda: landscape.trajectory_directions([A, A, A]), ValueError, "fewer than 2 directions"),
    (lambda: landscape.trajectory_directions([A, FEW, A]), ValueError, "checkpoint 1"),
    (lambda: landscape.trajectory_directions([1, A, A]), TypeError, "checkpoint 0"),
    (lambda: landscape.hessian_criteria(spectral(1.0), 0), ValueError, "n must be positive"),
    (lambda: landscape.hessian_criteria(spectral(1.0), -1), ValueError, "n must be positive"),
    (lambda: landscape.hessian_criteria(spectral(-1.0, 0.0)), ValueError, "run 0"),
    (lambda: landscape.hessian_criteria(3), TypeError, "SpectralMeasure"),
    (lambda: landscape.esd_curve(spectral(1.0), num_bins=1), ValueError, "num_bins"),
    (lambda: landscape.esd_curve(spectral(1.0), variance=0.0), ValueError, "variance"),
    (lambda: landscape.legacy_grid(0), ValueError, "steps"),
    (lambda: landscape.legacy_grid(2, 0.0), ValueError, "distance"),
    (lambda: centered_grid(3, math.inf), ValueError, "distance"),
    (lambda: LossPlane(AT, AT, ONE), ValueError, "loss must have shape"),
    (lambda: LossPlane(AT[:1], AT[:1], ONE).plot("pie"), ValueError, "kind must be one of"),
    (lambda: LossPlane(AT[:1], AT[:1], ONE).clip(math.nan), ValueError, "cap"),
    (lambda: LossPlane.merge([]), ValueError, "planes is empty"),
    (lambda: all_views(axes=["up"]), ValueError, "axes must be one of random"),
    (lambda: all_views(axes=[]), ValueError, "axes must be a list"),
    (lambda: all_views(axes="random"), ValueError, "axes must be a list"),
    (lambda: all_views(modes=["on"]), ValueError, "modes must be one of"),
    (lambda: all_views(normalizations=["row"]), ValueError, "normalizations must be one of"),
    (lambda: all_views(normalizations="filter"), ValueError, "normalizations must be a list"),
    (lambda: all_views(axes=["adam"]), ValueError, "needs optimizer="),
    (lambda: all_views(axes=["trajectory"]), ValueError, "needs checkpoints="),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_input(call: Any, kind: type[Exception], text: str) -> None:
    with warnings.catch_warnings(), pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
