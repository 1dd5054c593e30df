"""How far apart the domains' head Hessians are, and what that says about an unseen domain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from gradworks.curvature.alignment import head_hessian, hessian_distance, transfer_measure
from gradworks.papers.hessian_alignment.training import Batch, Network

__all__ = ["apart", "spearman", "transferred"]

SMALL = 128  # parameters of a head whose Hessians are written down
RADIUS = 0.1  # of the ball around the head, over the head's norm
ROWS = 500  # of source and target that the transfer measure looks at


@torch.no_grad()
def apart(network: Network, batch: Batch) -> dict[str, float]:
    """Return the mean distance between the head Hessians of two domains, in two norms.

    Args:
        network: The network.
        batch: At least two domains.
    """
    features, logits = network(batch)
    n = len(batch.sizes)
    if sum(p.numel() for p in network.head.parameters()) <= SMALL:
        whole = [head_hessian(*one) for one in zip(features, logits, batch.targets)]
        gaps = torch.stack([a - b for a, b in itertools.combinations(whole, 2)]).double()
        values = torch.linalg.eigvalsh(gaps)
        return {
            "spectral": float(values.abs().amax(1).mean()),
            "frobenius": float(values.square().sum(1).sqrt().mean()),
        }
    found = {}
    for norm in ("spectral", "frobenius"):
        distances = hessian_distance(features, logits, batch.targets, norm=norm, tol=1e-4)
        found[norm] = float(distances.sum()) / (n * (n - 1))
    return found


@torch.no_grad()
def transferred(network: Network, source: Batch, target: Batch) -> dict[str, float]:
    """Return the transfer measure from the seen domains to an unseen one, and its bound.

    The ball around the head has a tenth of the head's norm as its radius, so that a head twice as
    large on features half as large is judged alike.

    Args:
        network: The network.
        source: The domains it was trained on, as one.
        target: The unseen one.

    Returns:
        ``transfer``, ``transfer_bound``, ``transfer_distance`` (spectral norm of the difference of
        the Hessians), and ``bounded``: 1 where the bound holds.
    """
    sides = []
    for batch in (source, target):
        features, logits = network(batch)
        y = torch.cat(batch.targets)
        # evenly over all domains, the same rows for every method
        index = torch.linspace(0, len(y) - 1, min(ROWS, len(y))).round().long()
        sides.append((torch.cat(features)[index], torch.cat(logits)[index], y[index]))
    norm = math.sqrt(sum(float(p.square().sum()) for p in network.head.parameters()))
    found = transfer_measure(*zip(*sides, strict=True), radius=RADIUS * norm, steps=20, starts=1)
    return {
        "transfer": found.value,
        "transfer_bound": found.bound,
        "transfer_distance": found.distance,
        "bounded": float(found.value <= found.bound),
    }


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the rank correlation; 0 of fewer than two pairs and where one side does not vary.

    Args:
        x: Numbers.
        y: As many.
    """
    from scipy.stats import rankdata

    if len(x) < 2:
        return 0.0
    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size else 0.0
