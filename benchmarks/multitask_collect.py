"""The driver of per-task gradients against separate backward passes and torchjd's collection.

``python benchmarks/multitask_collect.py``: a trunk of about a million parameters, a head a task, 2,
10 and 40 tasks. Forward pass and collection against as many ``torch.autograd.grad`` calls, whose
results are kept as they come, and against ``torchjd.autojac``; the whole step with Aligned-MTL on
both sides; the same within blocks of parameters; and the most bytes that each holds at once, in
units of the trunk (target: tasks + 2). ``--device cuda`` adds the batched pass. Needs ``torchjd``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torchjd import aggregation, autojac

from gradworks.bench.timing import compare
from gradworks.multitask import Aggregator, TaskGradients, from_torchjd

Run = Callable[[], object]


class Problem:
    """A trunk, heads, and one batch."""

    def __init__(self, tasks: int, width: int, batch: int, device: str) -> None:
        g = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Linear(256, width), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Linear(width, width), nn.ReLU()]
        self.trunk = nn.Sequential(*layers).to(device)
        self.heads = {str(i): nn.Linear(width, 1).to(device) for i in range(tasks)}
        self.x = torch.randn(batch, 256, generator=g).to(device)
        self.shared = list(self.trunk.parameters())
        self.named = {n: list(head.parameters()) for n, head in self.heads.items()}
        self.size = sum(p.numel() for p in self.shared)

    def forward(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Features and losses."""
        z = self.trunk(self.x)
        return z, {n: (head(z) - 1).square().mean() for n, head in self.heads.items()}

    def clear(self) -> None:
        """Forget gradients."""
        for param in [*self.shared, *(p for head in self.named.values() for p in head)]:
            param.grad = None

    def rows(self, **arguments: object) -> Run:
        """Ours: the Jacobian."""
        collect = TaskGradients(self.shared, **arguments)
        return lambda: collect.jacobian(self.forward()[1])

    def step(self, aggregator: Callable[[Tensor], Tensor], **arguments: object) -> Run:
        """Ours: everything up to ``.grad``."""
        collect = TaskGradients(self.shared, self.named, **arguments)

        def run() -> object:
            self.clear()
            return collect.backward(self.forward()[1], aggregator)

        return run

    def collection(self) -> Run:
        """Ours: the rows of a step and next to nothing more, in memory that is used again."""
        return self.step(lambda jacobian: jacobian[0], method="sequential")

    def separate(self) -> object:
        """As many backward passes, their results kept as they come."""
        _, losses = self.forward()
        last = len(losses) - 1
        return [
            torch.autograd.grad(loss, self.shared, retain_graph=i < last)
            for i, loss in enumerate(losses.values())
        ]

    def plain(self) -> object:
        """One backward pass of the sum."""
        self.clear()
        return torch.stack(list(self.forward()[1].values())).sum().backward()

    def theirs(self, chunk: int | None) -> Run:
        """The collection of torchjd; ``chunk`` 1: a pass a task, None: one batched pass."""

        def run() -> object:
            _, losses = self.forward()
            autojac.backward(list(losses.values()), inputs=self.shared, parallel_chunk_size=chunk)
            return [p.__dict__.pop("jac") for p in self.shared]

        return run

    def their_step(self, aggregator: aggregation.Aggregator, chunk: int | None) -> Run:
        """Theirs: everything up to ``.grad``."""

        def run() -> object:
            self.clear()
            z, losses = self.forward()
            autojac.mtl_backward(
                list(losses.values()),
                features=z,
                tasks_params=list(self.named.values()),
                shared_params=self.shared,
                parallel_chunk_size=chunk,
            )
            return autojac.jac_to_grad(self.shared, aggregator)

        return run


def peak(make: Callable[[], Run], problem: Problem) -> int:
    """Most bytes that the tensors of a driver's first step hold at once, its rows included."""
    make()()  # what is made once for all is made before the count
    problem.clear()
    run = make()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    held = most = 0
    results = seen.profiler.kineto_results if seen.profiler is not None else None
    events = [] if results is None else results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def report(ours: Run, peer: Run, name: str, peer_name: str, blocks: int, target: str = "") -> None:
    """Time and print."""
    found = compare(
        ours,
        peer,
        name=name,
        peer_name=peer_name,
        peer_version=version("torchjd") if "torchjd" in peer_name else torch.__version__,
        blocks=blocks,
        threads=1,
    )
    print(f"{found.line()}   {target}", flush=True)


def times(problem: Problem, tasks: int, blocks: int, device: str) -> None:
    """Ratios at one number of tasks."""
    aligned, theirs = from_torchjd("AlignedMTL"), aggregation.AlignedMTL()
    rows, name = problem.rows(method="sequential"), f"{tasks} tasks"
    collection = problem.collection()
    for ours, what, target in ((collection, "collection", "[<= 1.05]"), (rows, "rows", "")):
        report(ours, problem.separate, f"{name}, {what}", "autograd.grad a task", blocks, target)
    report(
        collection,
        problem.theirs(1),
        f"{name}, collection",
        "torchjd, a pass a task",
        blocks,
        "[<= 1]",
    )
    report(rows, problem.theirs(1), f"{name}, rows", "torchjd, a pass a task", blocks, "[<= 1]")
    batched = problem.theirs(None)
    report(rows, batched, f"{name}, rows", "torchjd, batched", blocks, "[<= 1]")
    if device != "cpu":
        vjp = problem.rows(method="vjp")
        report(vjp, batched, f"{name}, rows batched", "torchjd, batched", blocks)
    step = problem.step(aligned, method="sequential")
    for chunk, how in ((1, "a pass a task"), (None, "batched")):
        peer = problem.their_step(theirs, chunk)
        report(step, peer, f"{name}, step, Aligned-MTL", f"torchjd, {how}", blocks, "[<= 1]")
    report(step, problem.plain, f"{name}, step, Aligned-MTL", "backward of the sum", blocks)
    limit = problem.size // 4
    blocked = problem.step(aligned, method="sequential", chunk_params=limit)
    report(blocked, step, f"{name}, step in blocks of {limit}", "the step in one", blocks)


def memory(problem: Problem, tasks: int) -> None:
    """Peak memory at one number of tasks, beyond that of a plain step."""
    word = 4 * problem.size
    plain = peak(lambda: problem.plain, problem)
    aligned, theirs = from_torchjd("AlignedMTL"), aggregation.AlignedMTL()
    limit = problem.size // 4
    runs: dict[str, Callable[[], Run]] = {
        "rows": lambda: problem.rows(method="sequential"),
        "rows, torchjd, a pass a task": lambda: problem.theirs(1),
        "rows, torchjd, batched": lambda: problem.theirs(None),
        "step, sum": lambda: problem.step(Aggregator(), method="sequential"),
        "step, Aligned-MTL": lambda: problem.step(aligned, method="sequential"),
        "step, Aligned-MTL, torchjd": lambda: problem.their_step(theirs, 1),
        "step, Aligned-MTL, blocks": lambda: problem.step(
            aligned, method="sequential", chunk_params=limit
        ),
    }
    print(f"{tasks} tasks: peak in trunks of {problem.size} parameters [target <= {tasks + 2}]")
    print(f"  {plain / word:6.2f}  backward of the sum")
    for name, make in runs.items():
        print(f"  {peak(make, problem) / word:6.2f}  {name}", flush=True)


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 10, 40])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=("time", "memory"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for tasks in options.tasks:
        problem = Problem(tasks, options.width, options.batch, options.device)
        if options.only != "time" and options.device == "cpu":
            memory(problem, tasks)
        if options.only != "memory":
            times(problem, tasks, options.blocks, options.device)


if __name__ == "__main__":
    main()
