"""Sizes of the runs, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

_NOTES = (
    "Nothing is tuned: no method here has a parameter to tune but gradient descent, which "
    "backtracks. Seeds draw the data of log-sum-exp and of the linear residual, the start of the "
    "others, and the rows of the real data that are left out (a tenth).",
    "f* of log-sum-exp and of the residuals is known; of the real data it is that of the exact "
    "Hessian, run until its gradient is below 1e-11.",
    "On real data the approximation keeps the blocks of single classes. A first one, without every "
    "row's rank-one term, was given up after a look at one seed: it is far above the Hessian.",
    "Chebyshev with the published 1,000 variables and log-sum-exp of 1,000 x 1,000 are the paper "
    "preset.",
)
_MUS = {"lse-1": 1.0, "lse-0.5": 0.5, "lse-0.1": 0.1, "lse-0.05": 0.05}


def _logsumexp(m: int, n: int, limit: int) -> dict[str, Any]:
    """Log-sum-exp at four smoothings."""
    return {
        name: {"kind": "logsumexp", "m": m, "n": n, "mu": mu, "limit": limit}
        for name, mu in _MUS.items()
    }


_SMALL = {
    "rosenbrock-p2": {"kind": "rosenbrock", "p": None, "limit": 400},
    "rosenbrock-p5": {"kind": "rosenbrock", "p": 5.0, "limit": 400},
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "problems": {
            **_logsumexp(80, 40, 400),
            **_SMALL,
            "linear-p4": {"kind": "linear", "m": 50, "n": 100, "p": 4.0, "limit": 400},
            "chebyshev": {"kind": "chebyshev", "n": 20, "p": 4.0, "limit": 400},
            "breast-cancer": {"kind": "breast-cancer", "penalty": 1e-3, "limit": 200},
        },
        "solves": {"n": 500, "repeats": 5},
        "final_seeds": 3,
        "trial_seconds": 1.0,
        "notes": ("Small problems, three seeds.", *_NOTES),
    },
    "full": {
        "problems": {
            **_logsumexp(400, 200, 1000),
            **_SMALL,
            "linear-p4": {"kind": "linear", "m": 100, "n": 200, "p": 4.0, "limit": 1000},
            "chebyshev": {"kind": "chebyshev", "n": 100, "p": 4.0, "limit": 1000},
            "breast-cancer": {"kind": "breast-cancer", "penalty": 1e-3, "limit": 1000},
            "digits": {"kind": "digits", "penalty": 1e-3, "limit": 500},
        },
        "solves": {"n": 2000, "repeats": 5},
        "final_seeds": 10,
        "trial_seconds": 10.0,
        "notes": ("Ten seeds; sizes a fifth of the notebook's.", *_NOTES),
    },
    "paper": {
        "problems": {
            **_logsumexp(1000, 1000, 1000),
            "linear-p4": {"kind": "linear", "m": 100, "n": 200, "p": 4.0, "limit": 1000},
            "chebyshev": {"kind": "chebyshev", "n": 1000, "p": 4.0, "limit": 1000},
        },
        "solves": {"n": 2000, "repeats": 5},
        "final_seeds": 1,
        "trial_seconds": 3600.0,
        "notes": ("The notebook's sizes: hours on a CPU.",),
    },
}
