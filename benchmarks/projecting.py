"""PCGrad's own arithmetic on vectors, as its authors compute it: a peer of the aggregators.

Every task's gradient is projected, one after the other in a random order, on the normal planes of
the gradients it conflicts with ("Gradient Surgery for Multi-Task Learning", 2020,
arXiv:2001.06782). Imported by the benchmarks beside it.
"""

from __future__ import annotations

import random

from torch import Tensor

__all__ = ["projecting"]


def projecting(matrix: Tensor) -> Tensor:
    """The sum of projected rows.

    Args:
        matrix: Gradients, ``(tasks, params)``.

    Returns:
        ``(params,)``.
    """
    total = matrix.new_zeros(matrix.shape[1])
    order = list(range(len(matrix)))
    for task in range(len(matrix)):
        row = matrix[task].clone()
        random.shuffle(order)
        for other in order:
            inner = row.dot(matrix[other])
            if inner < 0:
                row.sub_(inner * matrix[other] / matrix[other].dot(matrix[other]))
        total += row
    return total
