"""AnyLoss with several classes, metrics of one's own, and as a module with state."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from gradworks.losses.anyloss import (
    METRICS,
    AnyLoss,
    Confusion,
    anyloss,
    register_metric,
    soft_confusion,
)


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def problem(n: int = 9, seed: int = 0, scale: float = 0.15) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dtype=torch.float64, generator=g) * scale
    y = (torch.arange(n) % 3 == 0).double()
    return z, y, torch.rand(n, dtype=torch.float64, generator=g) + 0.1


# ---------------------------------------------------------------- several classes


def test_one_vs_rest_averages() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(20, 3, dtype=torch.float64, generator=g)
    index = torch.randint(3, (20,), generator=g)
    onehot = torch.nn.functional.one_hot(index, 3)
    each = torch.stack([anyloss(z[:, c], onehot[:, c], "f1") for c in range(3)])
    share = onehot.double().mean(0)
    pooled = anyloss(z.flatten(), onehot.flatten(), "f1")
    for target in (index, onehot):
        torch.testing.assert_close(anyloss(z, target, average="macro"), each.mean())
        torch.testing.assert_close(anyloss(z, target, average="weighted"), (each * share).sum())
        torch.testing.assert_close(anyloss(z, target, average="micro"), pooled)
        torch.testing.assert_close(anyloss(z, target, average="macro", reduction="none"), each)
    weight = torch.rand(20, dtype=torch.float64, generator=g)
    first = soft_confusion(z[:, 0], onehot[:, 0], weight=weight)
    torch.testing.assert_close(soft_confusion(z, index, weight=weight).fp[0], first.fp)


def test_masks_are_pooled_or_per_class() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(2, 1, 4, 5, dtype=torch.float64, generator=g)
    y = torch.rand(2, 1, 4, 5, generator=g) < 0.4
    torch.testing.assert_close(
        anyloss(z, y, "jaccard"), anyloss(z.flatten(), y.flatten(), "jaccard")
    )
    many = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=g)
    index = torch.randint(3, (2, 4, 5), generator=g)
    flat = anyloss(many.movedim(1, -1).reshape(-1, 3), index.flatten(), average="macro")
    torch.testing.assert_close(anyloss(many, index, average="macro"), flat)


@pytest.mark.filterwarnings("ignore:amplification 5000")
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_several_labels_a_row_reach_the_hard_averages(average: str) -> None:
    g = torch.Generator().manual_seed(4)
    z = torch.randn(80, 4, dtype=torch.float64, generator=g)
    z = z + 0.3 * z.sign()  # nothing within 1/L of the threshold
    y = torch.rand(80, 4, generator=g) < torch.sigmoid(z)
    weight = torch.rand(80, dtype=torch.float64, generator=g)
    said = (z > 0).numpy()
    for name, hard in (("f1", sk.f1_score), ("jaccard", sk.jaccard_score)):
        loss = anyloss(z, y, name, amplification=5e3, average=average, weight=weight)
        want = hard(y.numpy(), said, average=average, sample_weight=weight.numpy())
        assert 1 - loss.item() == pytest.approx(want, abs=1e-9)


# ---------------------------------------------------------------- metrics of one's own


def test_callables_of_one_or_four_arguments() -> None:
    z, y, _ = problem()
    want = anyloss(z, y, "accuracy")
    for fn in (
        lambda c: (c.tp + c.tn) / c.total,
        lambda tp, fn, fp, tn: (tp + tn) / (tp + fn + fp + tn),
        lambda *counts: (counts[0] + counts[3]) / sum(counts),
    ):
        torch.testing.assert_close(anyloss(z, y, fn), want)


def test_registered_metric_is_known_by_name() -> None:
    register_metric("hit_rate_of_the_test", lambda tp, fn, fp, tn: tp / (tp + fn))
    z, y, _ = problem()
    torch.testing.assert_close(anyloss(z, y, "hit_rate_of_the_test"), anyloss(z, y, "recall"))
    assert "hit_rate_of_the_test" in METRICS
    with pytest.raises(ValueError, match="taken"):
        register_metric("hit_rate_of_the_test", lambda c: c.tp)
    with pytest.raises(TypeError, match="assignment"):
        METRICS["x"] = lambda c: c.tp


# ---------------------------------------------------------------- the module


def test_module_equals_function() -> None:
    z, y, w = problem()
    module = AnyLoss("gmean", amplification=20.0, threshold=0.4)
    expected = anyloss(z, y, "gmean", amplification=20.0, threshold=0.4, weight=w)
    assert module(z, y, w) == expected
    assert "gmean" in repr(module)


def test_running_counts_see_earlier_batches_without_their_gradient() -> None:
    module = AnyLoss("f1", accumulate=2)
    batches = [problem(9, seed) for seed in range(4)]
    losses = [module(z, y) for z, y, _ in batches]
    history = [soft_confusion(z, y) for z, y, _ in batches]
    pooled = Confusion(*(a + b + c for a, b, c in zip(*history[1:])))
    torch.testing.assert_close(losses[3], 1 - METRICS["f1"](pooled))
    torch.testing.assert_close(losses[0], 1 - METRICS["f1"](history[0]))
    for _ in range(2):  # the second step would fail if counts kept the first one's graph
        z = (2 * batches[3][0].clone().requires_grad_()).clone()
        z.retain_grad()
        module(z, batches[3][1]).backward()
        assert z.grad.abs().sum() > 0
    module.reset()
    assert module(*batches[0][:2]) == losses[0]


def test_schedule_is_called_with_the_step_and_resumes() -> None:
    seen = []

    def warm_up(step: int) -> float:
        seen.append(step)
        return min(73.0, 5.0 + 10 * step)

    z, y, _ = problem()
    module = AnyLoss("f1", amplification=warm_up, accumulate=3)
    straight = [module(z * (k + 1), y) for k in range(6)]
    assert seen == list(range(6))
    assert straight[0] == anyloss(z, y, "f1", amplification=5.0)
    first = AnyLoss("f1", amplification=warm_up, accumulate=3)
    for k in range(3):
        first(z * (k + 1), y)
    second = AnyLoss("f1", amplification=warm_up, accumulate=3)
    second.load_state_dict(first.state_dict())
    resumed = [second(z * (k + 1), y) for k in range(3, 6)]
    assert resumed == straight[3:]
    second.eval()
    before = len(seen)
    second(z, y)
    second(z, y)
    assert seen[before] == seen[before + 1]


def test_skipped_counts_terms_without_samples() -> None:
    module = AnyLoss("balanced_accuracy")
    z, y, _ = problem()
    module(z, y)
    assert module.skipped.item() == 0
    module(z, torch.zeros(9))
    module(z, torch.ones(9))
    assert module.skipped.item() == 2
    module.eval()
    module(z, torch.ones(9))
    assert module.skipped.item() == 2


def test_true_is_a_window_of_ten_batches() -> None:
    z, y, _ = problem()
    ten, flag, off = AnyLoss(accumulate=10), AnyLoss(accumulate=True), AnyLoss(accumulate=False)
    batches = [(z * (k + 1), y) for k in range(13)]
    assert [flag(*b) for b in batches] == [ten(*b) for b in batches]
    assert off(*batches[3]) == anyloss(*batches[3])


def test_module_survives_pickle_with_its_state() -> None:
    z, y, _ = problem()
    module = AnyLoss("f2", accumulate=2, threshold=0.4)
    module(z, y)
    again = pickle.loads(pickle.dumps(module))
    assert again(2 * z, y) == module(2 * z, y) != anyloss(2 * z, y, "f2", threshold=0.4)


def test_autocast_keeps_the_counts_in_float32() -> None:
    """Sums in bfloat16 stop at 256; the gradient still reaches the half-precision layer."""
    X = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(600) % 2
    layer = torch.nn.Linear(3, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(X)
        loss = AnyLoss(amplification=33.0)(logits, y)
        total = soft_confusion(logits, y).total
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert total.item() == pytest.approx(600.0, rel=1e-6)
    torch.testing.assert_close(loss, anyloss(logits.float(), y, amplification=33.0))
    loss.backward()
    assert layer.weight.grad.abs().sum() > 0


def test_class_count_may_not_change_in_running_counts() -> None:
    module = AnyLoss("f1", average="macro", accumulate=2, amplification=33.0)
    module(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    with pytest.raises(RuntimeError, match="reset"):
        module(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]))


def test_a_batch_that_is_refused_is_no_step() -> None:
    seen = []

    def schedule(step: int) -> float:
        seen.append(step)
        return 5.0

    module = AnyLoss("f1", average="macro", accumulate=2, amplification=schedule)
    module(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="reset"):
            module(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]))
    module(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    assert seen == [0, 1, 1, 1]


def test_trains_an_imbalanced_problem() -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(400, 3, dtype=torch.float64, generator=g)
    y = (X[:, 0] + 0.5 * torch.randn(400, dtype=torch.float64, generator=g) > 1.3).double()
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([theta, bias], lr=0.1)
    module = AnyLoss("f1")
    start = module(X @ theta + bias, y)
    for _ in range(300):
        optimizer.zero_grad()
        module(X @ theta + bias, y).backward()
        optimizer.step()
    said = (X @ theta + bias > 0).long()
    score = sk.f1_score(y.long(), said)
    logistic = LogisticRegression(C=1e6).fit(X.numpy(), y.numpy()).predict(X.numpy())
    assert score > sk.f1_score(y.long(), logistic) > 1 - start.item()


# ---------------------------------------------------------------- compile, processes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_compiles_in_one_graph() -> None:
    z = torch.randn(512, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = (torch.arange(512) % 5 == 0).float()

    @torch.compile(fullgraph=True)
    def compiled(z: Tensor, y: Tensor) -> Tensor:
        return anyloss(z, y, "f1", amplification=33.0)

    (got,) = torch.autograd.grad(compiled(z, y), z)
    loss = anyloss(z, y, "f1", amplification=33.0)
    (want,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(compiled(z, y), loss)
    torch.testing.assert_close(got, want)


PROCESS = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from gradworks.losses.anyloss import AnyLoss
rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
g = torch.Generator().manual_seed(0)
X = torch.randn(30, 4, dtype=torch.float64, generator=g)
y = (X[:, 0] > 0.6).double()
own = slice(0, 12) if rank == 0 else slice(12, 30)   # unequal parts of the joint batch
torch.manual_seed(1)
model = torch.nn.Linear(4, 1).double()
wrapped = DistributedDataParallel(model)
result = {}
for name in ("f1", "gmean"):
    criterion = AnyLoss(name, sync=True)
    model.zero_grad()
    loss = criterion(wrapped(X[own]), y[own])
    loss.backward()
    result[name] = (loss.detach(), [p.grad.clone() for p in model.parameters()])
running = AnyLoss("f1", sync=True, accumulate=2)
result["running"] = [running(2.0 * k * X[own, 0], y[own]).detach() for k in (1, 2, 3)]
torch.save(result, f"{out}{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_the_joint_batch(tmp_path: Path) -> None:
    script = tmp_path / "process.py"
    script.write_text(textwrap.dedent(PROCESS))
    command = [sys.executable, "-W", "ignore", str(script)]
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store"), str(tmp_path / "out")])
        for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    g = torch.Generator().manual_seed(0)
    X = torch.randn(30, 4, dtype=torch.float64, generator=g)
    y = (X[:, 0] > 0.6).double()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = torch.nn.Linear(4, 1).double()
    for name in ("f1", "gmean"):
        loss = anyloss(model(X), y, name)
        want = torch.autograd.grad(loss, list(model.parameters()))
        for rank in range(2):
            value, grads = torch.load(tmp_path / f"out{rank}.pt")[name]
            torch.testing.assert_close(value, loss.detach(), rtol=1e-12, atol=0)
            torch.testing.assert_close(grads, list(want), rtol=1e-10, atol=1e-14)
    alone = AnyLoss("f1", accumulate=2)
    running = [alone(2.0 * k * X[:, 0], y) for k in (1, 2, 3)]
    for rank in range(2):  # running counts are those of the joint batches
        torch.testing.assert_close(torch.load(tmp_path / f"out{rank}.pt")["running"], running)


def test_sync_without_processes_changes_nothing() -> None:
    z, y, _ = problem()
    assert anyloss(z, y, "f1", sync=True) == anyloss(z, y, "f1")
    assert AnyLoss("f1", sync=True)(z, y) == anyloss(z, y, "f1")
