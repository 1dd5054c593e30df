r"""Gradient and Hessian of a linear head under cross-entropy, in closed form and differentiable.

With :math:`\tilde z = (z, 1)`, :math:`p` the softmax (or sigmoid) of the logits and :math:`r = p -
y`, all means over the rows of a domain:

.. math::
    g = \langle r \otimes \tilde z \rangle, \qquad
    H U = \langle q \otimes \tilde z \rangle, \; q = p \odot s - p \, (p^\top s), \; s = U \tilde z,
    \qquad \operatorname{diag} H = \langle p (1 - p) \otimes \tilde z^2 \rangle

Parameters are ordered as ``nn.Linear`` has them: the weight row by row, then the bias. Nothing here
forms a Hessian except :func:`head_hessian`, and one ordinary backward pass goes through all of it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from gradworks.curvature.alignment.domains import Domains, check_domain, gather
from gradworks.curvature.alignment.processes import summed

__all__ = [
    "LinearHead",
    "head_gradient",
    "head_hessian",
    "head_hessian_diagonal",
    "head_hessian_vector",
]


class LinearHead:
    """Gradients and products of all domains at once.

    Args:
        rows: The domains.
        bias: Whether the head has a bias.
        process_group: Each process holds its share of every domain; sums go over the group.
    """

    def __init__(
        self, rows: Domains, *, bias: bool, process_group: ProcessGroup | None = None
    ) -> None:
        self.rows = rows
        self.bias = bias
        self.group = process_group
        self.shape = (rows.probabilities.shape[1], rows.features.shape[1])
        self.size = self.shape[0] * (self.shape[1] + bias)
        sizes = rows.sizes
        self._even = len(set(sizes)) == 1 and sizes[0] > 0
        self._counts: float | Tensor = float(sizes[0])
        if process_group is not None or not self._even:
            # Filled on the device: a tensor made of a list would be copied there.
            counts = torch.stack([rows.features.new_full((), float(k)) for k in sizes])
            self._counts = summed(counts, process_group)[:, None, None]

    def _outer(self, a: Tensor, b: Tensor) -> Tensor:
        """Sums of ``a_i b_i^T`` over each domain, ``(domains, A, B)``."""
        sizes = self.rows.sizes
        if self._even:
            k = sizes[0]
            return a.view(-1, k, a.shape[1]).mT @ b.view(-1, k, b.shape[1])
        return torch.stack(
            [x.mT @ y for x, y in zip(torch.split(a, list(sizes)), torch.split(b, list(sizes)))]
        )

    def _sums(self, a: Tensor) -> Tensor:
        """Sums over the rows of each domain, ``(domains, A, 1)``."""
        sizes = self.rows.sizes
        if self._even:
            return a.view(-1, sizes[0], a.shape[1]).sum(1)[..., None]
        return torch.stack([x.sum(0) for x in torch.split(a, list(sizes))])[..., None]

    def _means(self, a: Tensor, z: Tensor) -> Tensor:
        """Means of ``a_i (z_i, 1)^T`` over each domain, flat: ``(domains, K, m)``."""
        weight = self._outer(a, z)
        sums = weight
        if self.bias:
            sums = torch.cat([weight, self._sums(a)], 2)
        sums = summed(sums, self.group) / self._counts
        return self._flat(sums)

    def _flat(self, sums: Tensor) -> Tensor:
        """``(domains, K C, d + 1)`` in the order of the parameters: weight, then bias."""
        classes, width = self.shape
        sums = sums.view(len(sums), -1, classes, sums.shape[2])
        if not self.bias:
            return sums.flatten(2)
        return torch.cat([sums[..., :width].flatten(2), sums[..., width]], 2)

    def gradients(self) -> Tensor:
        """Gradient of every domain's mean loss, ``(domains, m)``."""
        return self._means(self.rows.residual, self.rows.features)[:, 0]

    def diagonals(self) -> Tensor:
        """Diagonal of every domain's Hessian, ``(domains, m)``."""
        p, z = self.rows.probabilities, self.rows.features
        return self._means(p * (1 - p), z.square())[:, 0]

    def gradient_variances(self) -> Tensor:
        """Variance (over n) of each element of single rows' gradients, ``(domains, m)``."""
        r, z = self.rows.residual, self.rows.features
        second = self._means(r.square(), z.square())[:, 0]
        return second - self.gradients().square()

    def products(self, vectors: Tensor) -> Tensor:
        """Hessians times vectors.

        Args:
            vectors: ``(domains, K, m)``, or ``(1, K, m)`` for the same in every domain.

        Returns:
            ``(domains, K, m)``.
        """
        classes, width = self.shape
        p, z = self.rows.probabilities, self.rows.features
        W = vectors[..., : classes * width].reshape(len(vectors), -1, width)  # row by row
        b = vectors[..., classes * width :].flatten(1)  # (domains or 1, K C), or (.., 0)
        s = self._rows_times(z, W, b).view(len(z), -1, classes)
        p = p[:, None]
        if self.rows.binary:
            q = p * (1 - p) * s
        else:
            ps = p * s
            q = ps - p * ps.sum(2, keepdim=True)
        return self._means(q.flatten(1), z)

    def _rows_times(self, z: Tensor, W: Tensor, b: Tensor) -> Tensor:
        """``W z_i + b`` with the matrix of the row's domain, ``(N, K C)``."""
        sizes = self.rows.sizes
        if len(W) == 1:
            return torch.addmm(b[0], z, W[0].mT) if self.bias else z @ W[0].mT
        if self._even:
            s = z.view(len(sizes), sizes[0], -1) @ W.mT
            return (s + b[:, None] if self.bias else s).flatten(0, 1)
        parts = [x @ w.mT for x, w in zip(torch.split(z, list(sizes)), W)]
        if self.bias:
            parts = [s + c for s, c in zip(parts, b)]
        return torch.cat(parts)


def _one(features: Tensor, logits: Tensor, targets: Tensor, bias: bool) -> LinearHead:
    """A head and one domain."""
    z, a, y = check_domain(features, logits, targets)
    return LinearHead(gather([z], [a], [y]), bias=bias)


def head_gradient(
    features: Tensor, logits: Tensor, targets: Tensor, *, bias: bool = True
) -> Tensor:
    r"""Gradient of the mean cross-entropy in the parameters of a linear head.

    .. math:: g = \frac1n \sum_i (p_i - y_i) \otimes (z_i, 1)

    Args:
        features: What goes into the head, ``(n, d)``.
        logits: What comes out, ``(n, C)`` for a softmax; ``(n, 1)`` or ``(n,)`` for a sigmoid.
        targets: Labels in 0..C-1 (0 and 1 for one logit), ``(n,)``.
        bias: Whether the head has a bias. Default True.

    Returns:
        ``(C d + C,)``, the weight row by row and then the bias; differentiable.

    Raises:
        TypeError: Something is no tensor, or the labels are not integers.
        ValueError: Shapes differ, no rows, labels out of range, features not finite.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import head_gradient
        >>> head = torch.nn.Linear(3, 2)
        >>> z, y = torch.eye(3), torch.tensor([0, 1, 1])
        >>> ours = head_gradient(z, head(z), y)
        >>> torch.nn.functional.cross_entropy(head(z), y).backward()
        >>> torch.allclose(ours[:6], head.weight.grad.flatten())
        True
    """  # noqa: DOC502
    return _one(features, logits, targets, bias).gradients()[0]


def head_hessian_vector(
    features: Tensor, logits: Tensor, targets: Tensor, vector: Tensor, *, bias: bool = True
) -> Tensor:
    """Hessian of a linear head times a vector, without the Hessian.

    Args:
        features: ``(n, d)``.
        logits: As for :func:`head_gradient`.
        targets: Labels; checked, but the Hessian does not depend on them.
        vector: ``(m,)`` with m = C (d + 1), or several as rows ``(K, m)``.
        bias: Whether the head has a bias. Default True.

    Returns:
        The product, in the shape of ``vector``; differentiable in everything.

    Raises:
        TypeError: As :func:`head_gradient`.
        ValueError: As :func:`head_gradient`, or a vector of the wrong length.

    Note:
        About twice the head's own forward pass for each vector: O(n C d).

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import head_hessian_vector
        >>> z = torch.tensor([[1.0], [3.0]])
        >>> head_hessian_vector(z, torch.zeros(2), torch.tensor([0, 1]), torch.tensor([1.0, 0.0]))
        tensor([1.2500, 0.5000])
    """
    head = _one(features, logits, targets, bias)
    if not isinstance(vector, Tensor):
        raise TypeError(f"vector must be a torch.Tensor, got {type(vector).__name__}")
    if vector.dim() not in {1, 2} or vector.shape[-1] != head.size:
        raise ValueError(
            f"vector must have shape ({head.size},) or (K, {head.size}), got {tuple(vector.shape)}"
        )
    product = head.products(vector.to(head.rows.features.dtype).view(1, -1, head.size))[0]
    return product.view(vector.shape)


def head_hessian_diagonal(
    features: Tensor, logits: Tensor, targets: Tensor, *, bias: bool = True
) -> Tensor:
    """Exact diagonal of the Hessian of a linear head.

    Args:
        features: ``(n, d)``.
        logits: As for :func:`head_gradient`.
        targets: Labels; checked, but the Hessian does not depend on them.
        bias: Whether the head has a bias. Default True.

    Returns:
        ``(C d + C,)``; differentiable.

    Raises:
        TypeError: As :func:`head_gradient`.
        ValueError: As :func:`head_gradient`.

    Note:
        What a random estimate needs hundreds of products for is here as cheap as the gradient.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import head_hessian_diagonal
        >>> z = torch.tensor([[1.0], [3.0]])
        >>> head_hessian_diagonal(z, torch.zeros(2), torch.tensor([0, 1]))
        tensor([1.2500, 0.2500])
    """  # noqa: DOC502
    return _one(features, logits, targets, bias).diagonals()[0]


def head_hessian(features: Tensor, logits: Tensor, targets: Tensor, *, bias: bool = True) -> Tensor:
    """The whole Hessian of a linear head: for tests and for small heads.

    Args:
        features: ``(n, d)``.
        logits: As for :func:`head_gradient`.
        targets: Labels; checked, but the Hessian does not depend on them.
        bias: Whether the head has a bias. Default True.

    Returns:
        ``(m, m)`` with m = C (d + 1), symmetric, positive semi-definite; differentiable.

    Raises:
        TypeError: As :func:`head_gradient`.
        ValueError: As :func:`head_gradient`.

    Example:
        >>> import torch
        >>> from gradworks.curvature.alignment import head_hessian
        >>> z = torch.tensor([[1.0], [3.0]])
        >>> head_hessian(z, torch.zeros(2), torch.tensor([0, 1]))
        tensor([[1.2500, 0.5000],
                [0.5000, 0.2500]])
    """  # noqa: DOC502
    rows = _one(features, logits, targets, bias).rows
    return dense_hessian(rows, bias=bias)


def dense_hessian(rows: Domains, *, bias: bool) -> Tensor:
    """The mean Hessian over all rows, ``(m, m)``."""
    p, z = rows.probabilities, rows.features
    n, classes = p.shape
    width = z.shape[1]
    zt = torch.cat([z, z.new_ones(n, 1)], 1) if bias else z
    blocks: dict[tuple[int, int], Tensor] = {}
    for a in range(classes):
        for b in range(a, classes):
            same = p[:, a] if a == b else 0.0
            weight = p[:, a] * (1 - p[:, a]) if rows.binary else same - p[:, a] * p[:, b]
            blocks[a, b] = blocks[b, a] = (zt * weight[:, None]).mT @ zt / n
    whole = torch.cat(
        [torch.cat([blocks[a, b] for b in range(classes)], 1) for a in range(classes)]
    )
    if not bias:
        return whole
    # Blocks are (weight row, bias) for each class; the parameters have all biases last.
    places = torch.arange(classes * (width + 1), device=z.device).view(classes, width + 1)
    order = torch.cat([places[:, :width].flatten(), places[:, width]])
    return whole[order][:, order]
