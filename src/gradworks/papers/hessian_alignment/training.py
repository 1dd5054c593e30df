"""One network trained on several domains by one method; what its head looks like on the way.

The first layer of coloured images is applied to the pixels of each channel apart: the other
channel of every image is empty, so that this is exact and half the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradworks.curvature.alignment import FishOuter, PenaltySchedule
from gradworks.papers.hessian_alignment.domains import BOTH, Domain, Problem
from gradworks.papers.hessian_alignment.methods import Penalty

__all__ = ["Batch", "Network", "accuracy", "joined", "train"]


@dataclass(frozen=True)
class Batch:
    """Rows of some domains in one tensor.

    Attributes:
        inputs: All rows: domain after domain or, of coloured images, the first channel of every
            domain and then the second.
        sizes: Rows of each domain.
        targets: Labels of each domain, in the order of its features.
        blocks: Rows of each domain in the first channel, then in the second; empty for plain
            inputs and for images in both channels.
    """

    inputs: Tensor
    sizes: list[int]
    targets: list[Tensor]
    blocks: list[int]

    def by_domain(self, rows: Tensor) -> list[Tensor]:
        """Cut what belongs to the rows into domains.

        Args:
            rows: ``(rows, ...)``.
        """
        if not self.blocks:
            return list(rows.split_with_sizes(self.sizes))
        pieces, n = rows.split_with_sizes(self.blocks), len(self.sizes)
        return [torch.cat([pieces[e], pieces[n + e]]) for e in range(n)]


def joined(domains: Sequence[Domain]) -> Batch:
    """Return domains as one batch.

    Args:
        domains: All coloured or all plain.
    """
    sizes = [len(d) for d in domains]
    colours = [d.colours for d in domains if d.colours is not None]
    if not colours or bool((colours[0] == BOTH).all()):
        inputs = torch.cat([d.inputs for d in domains])
        return Batch(inputs, sizes, [d.targets for d in domains], [])
    parts = [
        [d.rows((c == channel).nonzero()[:, 0]) for d, c in zip(domains, colours)]
        for channel in range(2)
    ]
    every = [*parts[0], *parts[1]]
    return Batch(
        torch.cat([d.inputs for d in every]),
        sizes,
        [torch.cat([a.targets, b.targets]) for a, b in zip(*parts)],
        [len(d) for d in every],
    )


class Network(nn.Module):
    """A perceptron with ReLU layers and a linear head; two classes share one logit.

    Args:
        problem: Gives inputs, channels and classes.
        hidden: Units of each hidden layer.
        depth: Hidden layers.
        generator: Draws the weights (Xavier, uniform; biases are 0).
    """

    def __init__(
        self, problem: Problem, hidden: int, depth: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.channels = problem.channels
        self.first = nn.Linear(problem.width, hidden)
        self.others = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(depth - 1))
        self.head = nn.Linear(hidden, 1 if problem.classes == 2 else problem.classes)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.xavier_uniform_(p, generator=generator)
            else:
                nn.init.zeros_(p)

    def features(self, batch: Batch) -> list[Tensor]:
        """Return what the head sees of each domain.

        Args:
            batch: The rows.
        """
        first = self.first
        if self.channels == 1:
            z = first(batch.inputs)
        else:
            weights = first.weight.tensor_split(2, 1)
            if not batch.blocks:
                z = F.linear(batch.inputs, weights[0] + weights[1], first.bias)
            else:
                cut = sum(batch.blocks[: len(batch.sizes)])
                pixels = batch.inputs.tensor_split([cut])
                z = torch.cat([F.linear(x, w, first.bias) for x, w in zip(pixels, weights)])
        z = z.relu()
        for layer in self.others:
            z = layer(z).relu()
        return batch.by_domain(z)

    def forward(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """Return features and logits of each domain.

        Args:
            batch: The rows.
        """
        features = self.features(batch)
        return features, [self.head(z) for z in features]


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy.

    Args:
        logits: ``(n, classes)``, or one column for two classes.
        targets: ``(n,)``.
    """
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], targets.to(logits.dtype))
    return F.cross_entropy(logits, targets)


@torch.no_grad()
def accuracy(network: Network, batch: Batch) -> float:
    """Return the share of right answers, each domain with equal weight.

    Args:
        network: The network.
        batch: Domains.
    """
    _, logits = network(batch)
    shares = [
        ((a[:, 0] > 0).long() if a.shape[1] == 1 else a.argmax(1)).eq(y).float().mean()
        for a, y in zip(logits, batch.targets)
    ]
    return float(torch.stack(shares).mean())


class _Batches:
    """All rows each step, or as many of each domain, drawn without replacement."""

    def __init__(
        self, domains: Sequence[Domain], size: int | None, generator: torch.Generator
    ) -> None:
        self.domains, self.size, self.generator = domains, size, generator
        self.whole = joined(domains)

    def next(self) -> list[Domain]:
        """Rows of each domain."""
        if self.size is None:
            return list(self.domains)
        return [
            d.rows(torch.randperm(len(d), generator=self.generator)[: self.size])
            for d in self.domains
        ]

    def joined(self, drawn: list[Domain]) -> Batch:
        """What was drawn, as one batch; of all rows always the same."""
        return self.whole if self.size is None else joined(drawn)


def _fish(
    network: Network,
    outer: FishOuter,
    optimizer: torch.optim.Adam,
    domains: Sequence[Domain],
    loss: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor],
) -> None:
    """One round of Fish: a step on each domain, then part of the way."""
    with outer:
        for domain in domains:
            batch = joined([domain])
            optimizer.zero_grad()
            torch.autograd.backward(loss(network(batch)[1], batch.targets))
            optimizer.step()


def train(
    problem: Problem,
    settings: Mapping[str, Any],
    spec: Mapping[str, Any],
    generator: torch.Generator,
    watch: Callable[[int, Network], None],
) -> Network:
    """Train a network.

    Args:
        problem: Its domains.
        settings: The arm's: ``method``, and the searched knobs ``strength``, ``anneal``, ``rate``
            and ``meta_lr`` as far as it has them.
        spec: The workload's: ``hidden``, ``depth``, ``steps``, ``lr``, ``l2``, ``batch``,
            ``weights``, ``rescale``, ``every``.
        generator: Draws weights, then batches: the same for every method.
        watch: Called with the steps done and the network, every ``every`` steps and at the end.

    Returns:
        The trained network.

    Raises:
        FloatingPointError: If the loss leaves the finite numbers.
    """  # noqa: DOC502
    network = Network(problem, int(spec["hidden"]), int(spec["depth"]), generator)
    batches = _Batches(problem.train, spec.get("batch"), generator)
    method, steps, every = str(settings["method"]), int(spec["steps"]), int(spec["every"])
    params = list(network.parameters())
    lr = float(spec["lr"]) * float(settings.get("rate", 1.0))

    def fresh() -> torch.optim.Adam:
        return torch.optim.Adam(params, lr=lr)

    def plain(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        losses = torch.stack([loss_of(a, y) for a, y in zip(logits, targets)])
        norms = torch.stack([p.square().sum() for p in params]).sum() if spec["l2"] else 0.0
        return losses.mean() + float(spec["l2"]) * norms

    penalty = Penalty(method, spec, params)
    schedule = None
    if penalty.active:
        weight = float(spec["weights"][method]) * float(settings["strength"])
        schedule = PenaltySchedule(
            weight,
            round(float(settings["anneal"]) * steps),
            before=min(1.0, weight),
            rescale=bool(spec["rescale"]),
        )
    outer = FishOuter(network, float(settings["meta_lr"])) if method == "fish" else None
    optimizer = fresh()
    for step in range(steps):
        if step % every == 0:
            _check_finite(params, method, step)
            watch(step, network)
        drawn = batches.next()
        if outer is not None:
            _fish(network, outer, optimizer, drawn, plain)
            continue
        # the benchmark's code starts Adam anew when the penalty sets in
        if schedule is not None and not spec["rescale"] and step == schedule.reset_optimizer_at:
            optimizer = fresh()
        batch = batches.joined(drawn)
        features, logits = network(batch)
        loss = plain(logits, batch.targets)
        _check_finite([loss], method, step)
        if schedule is not None:
            loss = schedule(loss, penalty(features, logits, batch.targets))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    _check_finite(params, method, steps)
    watch(steps, network)
    return network


def _check_finite(values: Sequence[Tensor], method: str, step: int) -> None:
    """A run that has diverged is told before anything is made of it."""
    if not all(bool(v.isfinite().all()) for v in values):
        raise FloatingPointError(f"{method} left the finite numbers within {step} steps")
