"""Criteria of the spectrum on one labelled batch, and how they follow accuracy over shifts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gradworks.papers.loss_landscape.claims import MAINLY_POSITIVE
from gradworks.papers.loss_landscape.examples import shifted

if TYPE_CHECKING:
    from torch import Tensor

    from gradworks.curvature.quadrature import SpectralMeasure
    from gradworks.papers.loss_landscape.session import Session

__all__ = ["PROXIES", "correlations", "measure", "spearman", "under_shift", "with_steps"]

# What could stand for accuracy; the last needs no Hessian.
PROXIES = ("re", "kh_half", "kh_one", "trace", "top", "loss")


def measure(session: Session, batch: tuple[Tensor, Tensor], steps: int) -> SpectralMeasure:
    """The spectral measure of the Hessian on a batch, by Lanczos from the same probes every time.

    Args:
        session: The trained network.
        batch: Images and labels.
        steps: Lanczos steps.

    Returns:
        Nodes and weights of each probe.
    """
    import torch.nn.functional as F

    from gradworks.curvature import HessianOperator, slq

    with HessianOperator(session.model, F.cross_entropy, batch) as op:
        return slq(
            op,
            num_steps=steps,
            num_probes=int(session.spec["probes"]),
            generator=session.generator("probes"),
        )


def _batch(session: Session, examples: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The examples whose labels are used."""
    count = int(session.spec["spectrum_batch"])
    return examples[0][:count], examples[1][:count]


def under_shift(session: Session, kind: str, level: float) -> dict[str, float]:
    """Accuracy on the shifted test set, and what is to stand for it on one batch.

    Args:
        session: The trained network.
        kind: Of the shift.
        level: Its strength.

    Returns:
        Figures by name.
    """
    import torch
    import torch.nn.functional as F

    from gradworks.curvature.landscape import hessian_criteria

    examples = shifted(session.test, kind, level, session.generator(f"shift {kind}"))
    batch = _batch(session, examples)
    with torch.no_grad():
        outputs = session.model(examples[0])
        accuracy = float((outputs.argmax(1) == examples[1]).double().mean())
        loss = float(F.cross_entropy(outputs[: len(batch[1])], batch[1]))
    found = measure(session, batch, int(session.spec["lanczos_steps"]))
    half = hessian_criteria(found, 0.5)
    return {
        "accuracy": accuracy,
        "loss": loss,
        "re": float(half.re),
        "kh_half": float(half.kh),
        "kh_one": float(hessian_criteria(found, 1.0).kh),
        "type_ratio": float(half.type_ratio),
        "trace": float(found.trace()),
        "top": found.range[1],
    }


def with_steps(session: Session, steps: int) -> dict[str, float]:
    """The criteria of the unshifted batch with another number of Lanczos steps.

    Args:
        session: The trained network.
        steps: Lanczos steps.

    Returns:
        ``re`` and ``kh_half``.
    """
    from gradworks.curvature.landscape import hessian_criteria

    found = hessian_criteria(measure(session, _batch(session, session.test), steps), 0.5)
    return {"re": float(found.re), "kh_half": float(found.kh)}


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; 0 where one of them does not vary.

    Args:
        x: Numbers.
        y: As many.
    """
    from scipy.stats import rankdata

    a, b = rankdata(x), rankdata(y)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def correlations(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How each proxy follows accuracy, and which spectra are mainly positive.

    Args:
        found: Figures of :func:`under_shift`, the unshifted set first.

    Returns:
        ``spearman_*`` for each proxy, the lead over the loss, and the type of spectra.
    """
    accuracy = [one["accuracy"] for one in found]
    rho = {proxy: spearman(accuracy, [one[proxy] for one in found]) for proxy in PROXIES}
    positive = [float(one["type_ratio"] > MAINLY_POSITIVE) for one in found]
    return {
        **{f"spearman_{proxy}": value for proxy, value in rho.items()},
        # the paper's direction is a negative correlation
        "beyond_loss": rho["loss"] - min(rho["re"], rho["kh_half"]),
        "mainly_positive": positive[0],
        "mainly_positive_shifted": sum(positive) / len(positive),
    }
