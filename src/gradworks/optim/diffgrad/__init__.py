"""DiffGrad: Adam whose step is damped where the gradient hardly changes.

"diffGrad: An Optimization Method for Convolutional Neural Networks", 2019, arXiv:1909.11015.

The arithmetic is that of the authors' corrected file (``diffGrad_v2.py``). Their first one, with
which the published figures were made by their own account, keeps the previous gradient by
reference: with gradients zeroed in place the difference is always zero, and the method is Adam at
half the learning rate. What differs from the corrected file: decoupled decay and a friction without
scale on request; complex and sharded weights; the arithmetic of 16-bit weights in float32.
"""

from __future__ import annotations

from gradworks.optim.diffgrad.diffgrad import DiffGrad, diffgrad

__all__ = ["DiffGrad", "diffgrad"]
