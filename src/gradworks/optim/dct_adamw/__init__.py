"""DCTAdamW and Trion: moments and momentum in columns of one fixed cosine basis.

"SVD-Free Low-Rank Adaptive Gradient Optimization for Large Language Models", 2025,
arXiv:2505.17967; later versions are called "FFT-based Dynamic Subspace Selection for Low-Rank
Adaptive Optimization of LLMs" and add Trion.

What differs from the authors' code: moments are carried between subspaces (theirs writes the
rotation into its own input), error feedback in 8 bits has 256 levels and in 4 bits its order, one
basis fits each layer, all state is in ``state_dict``, parameters that are not matrices are trained,
and sharded weights (``DTensor``) are stepped as whole ones are.
"""

from __future__ import annotations

from gradworks.optim.dct_adamw.basis import dct, dct_matrix
from gradworks.optim.dct_adamw.dct_adamw import DCTAdamW
from gradworks.optim.dct_adamw.layout import state_bytes
from gradworks.optim.dct_adamw.selection import captured_energy, select_columns
from gradworks.optim.dct_adamw.trion import Trion

__all__ = [
    "DCTAdamW",
    "Trion",
    "captured_energy",
    "dct",
    "dct_matrix",
    "select_columns",
    "state_bytes",
]
