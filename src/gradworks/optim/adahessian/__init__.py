"""AdaHessian: Adam with the curvature of the loss, not its gradient, in the denominator.

"ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning", 2020, arXiv:2006.00719.

What differs from the authors' code: gradients keep no graph after the step; parameters of three
dimensions, linear losses, several processes; the bias correction counts estimates, not steps, where
``update_each`` is above 1; several probes, averaged before the absolute value.
"""

from __future__ import annotations

from gradworks.optim.adahessian.adahessian import AdaHessian

__all__ = ["AdaHessian"]
