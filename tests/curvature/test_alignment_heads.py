"""Heads that are differentiated, and domains spread over processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.alignment_cases import CLOSE, domains
from torch import Tensor, nn

from gradworks.curvature.alignment import HGPAlignment, HutchinsonAlignment

BOTH = [HGPAlignment, HutchinsonAlignment]
SCRIPT = Path(__file__).with_name("alignment_processes.py")
needs_gloo = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch was built without gloo",
)


def leaves(z: list[Tensor]) -> list[Tensor]:
    return [v.clone().requires_grad_(True) for v in z]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("detach", [True, False])
def test_autograd_and_closed_form_agree_on_a_linear_head(
    kind: type, classes: int, detach: bool
) -> None:
    (z, _, y), head = domains((4, 3), classes, 2)
    results = []
    # Two linear maps in a row, the second the identity: the same function, but not nn.Linear.
    for form in (head, nn.Sequential(head)):
        features = leaves(z)
        penalty = kind.from_head(form, alpha=1.0, beta=1.0, detach_mean=detach)(features, None, y)
        head.zero_grad()
        penalty.total.backward()
        results.append([*penalty, head.weight.grad.clone(), *(v.grad for v in features)])
    assert len(results[0]) == len(results[1])
    for closed, differentiated in zip(*results):
        torch.testing.assert_close(differentiated, closed, **CLOSE)


def naive(
    head: nn.Module, z: list[Tensor], y: list[Tensor], loss_fn: object, kind: type
) -> tuple[Tensor, Tensor]:
    """Dense Hessians of the loss in the flat parameters."""
    names = [n for n, p in head.named_parameters() if p.requires_grad]
    given = [p.detach() for p in head.parameters() if p.requires_grad]
    theta = torch.cat([p.flatten() for p in given])

    def loss(flat: Tensor, v: Tensor, t: Tensor) -> Tensor:
        cut = torch.split(flat, [p.numel() for p in given])
        parts = {n: c.view_as(p) for n, c, p in zip(names, cut, given)}
        return loss_fn(torch.func.functional_call(head, parts, (v,)), t)

    hessian = torch.autograd.functional.hessian
    H = torch.stack([hessian(lambda w, v=v, t=t: loss(w, v, t), theta) for v, t in zip(z, y)])
    g = torch.stack([torch.func.grad(loss)(theta, v, t) for v, t in zip(z, y)])
    if kind is HGPAlignment:
        h = torch.stack([A @ b for A, b in zip(H, g)])
        hbar = H.mean(0) @ g.mean(0)
    else:
        h = H.diagonal(dim1=1, dim2=2)
        hbar = h.mean(0)
    return (h - hbar).square().sum(1).mean(), (g - g.mean(0)).square().sum(1).mean()


class Adapter(nn.Module):
    """A frozen map with a low-rank one beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 3).requires_grad_(False)
        self.down = nn.Linear(4, 1, bias=False)
        self.up = nn.Linear(1, 3, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.frozen(z) + self.up(self.down(z))


class Pooled(nn.Module):
    """A convolution whose outputs are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 2)

    def forward(self, z: Tensor) -> Tensor:
        return self.conv(z).mean(2)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", ["layers", "adapter", "conv", "mse"])
def test_other_heads_and_losses(kind: type, name: str) -> None:
    torch.manual_seed(0)
    (z, _, y), _ = domains((4, 3), 3, 4)
    loss_fn = F.cross_entropy
    if name == "layers":
        head: nn.Module = nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 3))
    elif name == "adapter":
        head = Adapter()
    elif name == "conv":
        head, z = Pooled(), [v.view(-1, 2, 2) for v in z]
    else:
        head = nn.Sequential(nn.Linear(4, 3), nn.Tanh())

        def loss_fn(output: Tensor, target: Tensor) -> Tensor:
            return F.mse_loss(output, F.one_hot(target, 3).to(output))

    head = head.double()
    chosen = None if loss_fn is F.cross_entropy else loss_fn
    penalty = kind.from_head(head, loss_fn=chosen)
    features = leaves(z)
    found = penalty(features, None, y)
    hessian, gradient = naive(head, z, y, loss_fn, kind)
    torch.testing.assert_close(found.hessian, hessian, **CLOSE)
    torch.testing.assert_close(found.gradient, gradient, **CLOSE)
    found.hessian.backward()
    trained = [p for p in head.parameters() if p.requires_grad]
    assert all(v.grad is not None for v in features)
    assert any(p.grad is not None and float(p.grad.norm()) > 0 for p in trained)


def test_gradcheck_of_a_differentiated_head() -> None:
    (z, _, y), _ = domains((2, 2), 2, 2)
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(2, 1), nn.Tanh(), nn.Linear(1, 2)).double()
    for kind in BOTH:
        penalty = kind.from_head(head, alpha=1.0, beta=1.0, detach_mean=False)
        assert torch.autograd.gradcheck(
            lambda *v, penalty=penalty: penalty(list(v), None, y).total, leaves(z)
        )


def test_sampled_diagonal_of_a_differentiated_head() -> None:
    (z, a, y), head = domains((4, 3), 3, 2)
    signs = [torch.ones(2, 9, dtype=torch.float64) for _ in range(3)]
    signs[1][0, ::2] = -1
    closed = HutchinsonAlignment(probes=signs)(z, a, y)
    found = HutchinsonAlignment.from_head(nn.Sequential(head), probes=signs)(z, None, y)
    torch.testing.assert_close(found, closed, **CLOSE)


def test_given_logits_are_used_and_grad_stays_as_it_is() -> None:
    (z, _, y), head = domains()
    net = nn.Sequential(nn.Dropout(0.5), head).train()
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    penalty = HGPAlignment.from_head(net)
    logits = [net(v) for v in z]
    before = torch.get_rng_state()
    assert penalty(z, logits, y).total == penalty(z, logits, y).total
    assert torch.equal(torch.get_rng_state(), before)
    assert all(bool((p.grad == 1).all()) for p in net.parameters())
    assert net.training


def test_without_gradients_the_value_is_the_same() -> None:
    (z, _, y), head = domains()
    for form in (head, nn.Sequential(head)):
        penalty = HGPAlignment.from_head(form)
        want = penalty(z, None, y)
        with torch.no_grad():
            found = penalty(z, [form(v) for v in z], y)
        assert not found.total.requires_grad
        torch.testing.assert_close(found, tuple(v.detach() for v in want), **CLOSE)


@pytest.mark.parametrize("deep", [False, True])
def test_a_head_in_float32_computes_its_own_logits_under_autocast(deep: bool) -> None:
    (z, _, y), head = domains(dtype=torch.float32)
    z = [v.bfloat16() for v in z]
    penalty = HGPAlignment.from_head(nn.Sequential(head) if deep else head)
    want = penalty([v.float() for v in z], None, y).total
    with torch.autocast("cpu", torch.bfloat16):
        found = penalty(z, None, y).total
    assert found == want


@pytest.mark.parametrize("kind", BOTH)
def test_a_differentiated_head_in_inference_mode(kind: type) -> None:
    (z, _, y), head = domains()
    penalty = kind.from_head(nn.Sequential(head))
    want = penalty(z, None, y).total.detach()
    with torch.inference_mode():
        inside = [v.clone() for v in z], [t.clone() for t in y]  # as a network makes them there
        for features, labels in ((z, y), inside):
            for logits in (None, [head(v) for v in features]):
                torch.testing.assert_close(penalty(features, logits, labels).total, want, **CLOSE)
        assert torch.is_inference_mode_enabled()


def test_the_head_is_not_a_part_of_the_penalty() -> None:
    penalty = HGPAlignment.from_head(nn.Linear(2, 2))
    assert not list(penalty.parameters())
    assert not penalty.state_dict()


@pytest.mark.parametrize(
    ("head", "settings", "error", "fragment"),
    [
        (nn.Linear(2, 2, bias=False), {"bias": True}, ValueError, "none: pass bias=False"),
        (nn.Linear(2, 2), {"bias": False}, ValueError, "bias=False does not fit the head"),
        (nn.Sequential(nn.Linear(2, 2)), {"bias": True}, ValueError, "bias is for linear heads"),
        (nn.ReLU(), {}, ValueError, "no parameter that requires a gradient"),
        (torch.relu, {}, TypeError, "head must be a torch.nn.Module"),
        (nn.Linear(2, 2), {"loss_fn": F.mse_loss, "process_group": 1}, ValueError, "linear head"),
    ],
)
@pytest.mark.parametrize("kind", BOTH)
def test_heads_that_do_not_fit(
    kind: type, head: object, settings: dict, error: type, fragment: str
) -> None:
    with pytest.raises(error) as found:
        kind.from_head(head, **settings)
    assert fragment in str(found.value)


def test_losses_that_do_not_fit() -> None:
    (z, a, y), head = domains()
    other = nn.Sequential(nn.Linear(4, 3).double())

    def rows(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction="none")

    with pytest.raises(ValueError, match="must return a scalar, got"):
        HGPAlignment.from_head(head, loss_fn=rows)(z, None, y)
    with pytest.raises(ValueError, match="is it this head's"):
        HGPAlignment.from_head(other)(z, a, y)
    with pytest.raises(ValueError, match="domain 0 has no graph"):
        HGPAlignment.from_head(head, loss_fn=lambda o, t: o.detach().sum())(z, None, y)
    with pytest.raises(ValueError, match="one entry for each domain"):
        HGPAlignment.from_head(other)(z, a[:1], y)
    with pytest.raises(ValueError, match=r"features\[0\] must have shape"):
        HGPAlignment.from_head(other)([v[:, 0] for v in z], a, y)
    with pytest.raises(ValueError, match="at least two domains"):
        HGPAlignment.from_head(other)(z[:1], None, y[:1])
    with pytest.raises(ValueError, match="at least two domains"):
        HGPAlignment.from_head(head, loss_fn=lambda o, t: o.sum())(z[:1], None, y[:1])


@needs_gloo
@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SCRIPT), str(rank), str(tmp_path / "rendezvous")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        outputs = [p.communicate(timeout=120) for p in processes]
    finally:
        for p in processes:
            if p.poll() is None:
                p.kill()
                p.wait()
    for process, (out, err) in zip(processes, outputs):
        assert process.returncode == 0, err[-3000:]
        assert '"done": true' in out
