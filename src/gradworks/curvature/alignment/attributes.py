r"""What exactly becomes equal when gradients and Hessians do, attribute by attribute.

For a linear head under cross-entropy, with :math:`A = \operatorname{diag}(p) - p p^\top`, gradient
and Hessian are five means over a domain: of the error :math:`r = p - y`, of :math:`r \otimes z`, of
:math:`A`, of :math:`A \otimes z` and of :math:`A \otimes z z^\top`. Other regularisers match
functions of them, or the plain moments of z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradworks.curvature.alignment.distances import block_gaps, block_products, one_by_one
from gradworks.curvature.alignment.domains import Domains, mean_cross_entropy
from gradworks.curvature.alignment.head import LinearHead

__all__ = ["AlignmentReport", "Attribute", "alignment_report"]


@dataclass(frozen=True)
class Attribute:
    """One thing that domains may agree in.

    Attributes:
        name: Short name.
        meaning: What it is, in a line.
        part: ``"gradient"``, ``"hessian"`` or ``"other"``: where it is found.
        matched_by: Methods that match it, or a function of it.
        distances: Euclidean distance between every two domains, ``(domains, domains)``, float64.
        relative: Mean distance of pairs over the root mean square norm; 0 for a zero attribute.
    """

    name: str
    meaning: str
    part: str
    matched_by: tuple[str, ...]
    distances: Tensor
    relative: float


@dataclass(frozen=True)
class AlignmentReport:
    """All attributes of some domains; printing it gives a table.

    Attributes:
        attributes: By name, gradient first.
    """

    attributes: dict[str, Attribute]

    def __getitem__(self, name: str) -> Attribute:
        """An attribute by its name."""
        return self.attributes[name]

    def __str__(self) -> str:
        """A table: attribute, relative distance, methods that match it."""
        rows = [("attribute", "relative distance", "matched by")]
        rows += [
            (a.name, f"{a.relative:.3g}", ", ".join(a.matched_by)) for a in self.attributes.values()
        ]
        first, second = (max(len(row[i]) for row in rows) for i in range(2))
        return "\n".join(f"{a:{first}}  {b:>{second}}  {c}".rstrip() for a, b, c in rows)


_BOTH = ("HGP", "Hutchinson")
_GRADIENT = (*_BOTH, "IGA", "Fish")


def _vectors(d: Domains, bias: bool) -> dict[str, Tensor]:
    """Attributes of one domain that are vectors."""
    z, p, r = d.features, d.probabilities, d.residual
    head = LinearHead(d, bias=bias)
    centred = z - z.mean(0)
    labels = p - r
    classes = labels[:, 0] if d.binary else labels.argmax(1)
    return {
        "error": r.mean(0),
        "error x feature": (r.mT @ z / len(z)).flatten(),
        "hessian diagonal": head.diagonals()[0],
        "loss": mean_cross_entropy(d.logits, classes)[None],
        "scale": (r * d.logits).sum(1).mean()[None],
        "gradient variance": head.gradient_variances()[0],
        "feature mean": z.mean(0),
        "feature covariance": (centred.mT @ centred / max(len(z) - 1, 1)).flatten(),
        "labels": labels.mean(0),
    }


# name: meaning, where it is found, who matches it
_KINDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "error": ("mean of p - y: gradient of the bias", "gradient", _GRADIENT),
    "error x feature": ("mean of (p - y) z: gradient of the weight", "gradient", _GRADIENT),
    "confidence": ("mean of diag(p) - p p^T: Hessian of the bias", "hessian", _BOTH),
    "confidence x feature": ("the same times z: Hessian of weight and bias", "hessian", _BOTH),
    "confidence x feature^2": ("the same times z z^T: Hessian of the weight", "hessian", _BOTH),
    "hessian diagonal": ("p (1 - p) times squared features", "hessian", ("Hutchinson",)),
    "loss": ("mean loss", "other", ("V-REx",)),
    "scale": ("derivative in a factor on the logits", "other", ("IRM",)),
    "gradient variance": ("variance of single gradients", "other", ("Fishr",)),
    "feature mean": ("mean of z", "other", ("CORAL",)),
    "feature covariance": ("covariance of z", "other", ("CORAL",)),
    "labels": ("share of each class", "other", ()),
}
_BLOCKS = ("confidence", "confidence x feature", "confidence x feature^2")


def alignment_report(
    features: Sequence[Tensor],
    logits: Sequence[Tensor],
    targets: Sequence[Tensor],
    *,
    bias: bool = True,
) -> AlignmentReport:
    """Measure in what domains agree: every attribute that gradient and Hessian contain, and more.

    Args:
        features: ``(n_e, d)`` for each domain.
        logits: ``(n_e, C)`` for each domain; one column or none for one logit.
        targets: ``(n_e,)`` for each domain.
        bias: Whether the head has a bias; only the diagonal and the variance depend on it.

    Returns:
        Distances between domains for each attribute.

    Raises:
        TypeError: As :class:`~gradworks.curvature.alignment.HGPAlignment`.
        ValueError: As :class:`~gradworks.curvature.alignment.HGPAlignment`.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import alignment_report
        >>> z = [torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]])]
        >>> report = alignment_report(z, [torch.zeros(2)] * 2, [torch.tensor([0, 1])] * 2)
        >>> report["feature mean"].relative, report["confidence x feature^2"].relative > 0
        (0.0, True)

    References:
        Hemati, Zhang, Estiri, Chen, 2023, arXiv:2308.11778, whose abstract names the analysis; the
        decomposition here was derived for this library.
    """  # noqa: DOC502
    with torch.no_grad():
        domains = one_by_one(features, logits, targets)
        vectors = [_vectors(d, bias) for d in domains]
        norms = torch.stack([block_products(d, d) for d in domains])
        attributes = {}
        for name, (meaning, part, matched_by) in _KINDS.items():
            if name in _BLOCKS:
                place = _BLOCKS.index(name)
                squares = norms[:, place]
                distances = _pairs(domains, lambda a, b, k=place: block_gaps(a, b)[k].sqrt())  # type: ignore[misc]
            else:
                stacked = torch.stack([v[name] for v in vectors])
                squares = stacked.square().sum(1)
                distances = torch.cdist(
                    stacked, stacked, compute_mode="donot_use_mm_for_euclid_dist"
                )
            attributes[name] = Attribute(
                name, meaning, part, matched_by, distances, _relative(distances, squares)
            )
    return AlignmentReport(attributes)


def _pairs(domains: list[Domains], gap: Callable[[Domains, Domains], Tensor]) -> Tensor:
    """A symmetric table of distances."""
    n = len(domains)
    table = domains[0].features.new_zeros(n, n)
    for i in range(n):
        for j in range(i + 1, n):
            table[i, j] = table[j, i] = gap(domains[i], domains[j])
    return table


def _relative(distances: Tensor, squares: Tensor) -> float:
    """Mean distance of pairs over the root mean square norm."""
    n = len(distances)
    scale = float(squares.mean().sqrt())
    return float(distances.sum()) / (n * (n - 1)) / scale if scale > 0 else 0.0
