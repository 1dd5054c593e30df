"""Fabricated results in the published format: what a run of each kind looks like to a reader."""

from __future__ import annotations

import math
from typing import Any

from gradworks.bench.result import Result

ARMS = (("ours", "AdamP", False), ("adamw", "AdamW", True), ("sgd", "SGD", True))


def document(
    paper: str = "hessian-spectrum",
    preset: str = "full",
    status: str = "reproduced",
    finished: str = "2026-11-20T10:00:00Z",
    figures: bool = True,
) -> dict[str, Any]:
    """A result of ``paper``: its own claims with invented outcomes of ``status``."""
    from gradworks import papers

    claims = [
        _claim(claim, status if claim.primary else "partly", i)
        for i, claim in enumerate(papers.find(paper).claims)
    ]
    return {
        "format": 1,
        "paper": paper,
        "preset": preset,
        "experiment": f"{paper}-{preset}-1",
        "protocol_hash": "0123456789abcdef",
        "created": "2026-11-20T09:00:00Z",
        "finished": finished,
        "status": status,
        "notes": ["Two cores instead of eight GPUs.", "Digits instead of <ImageNet> & co."],
        "seconds": 512.25,
        "workloads": [
            {
                "name": "digits",
                "label": "digits, small conv net",
                "steps": 400,
                "batch_size": 64,
                "model": "digits-cnn",
                "spec": {"problem": "digits-cnn"},
                "arms": [name for name, _, _ in ARMS],
                "data": [
                    {"name": "digits", "sha256": "ab" * 32, "source": "x", "licence": "CC BY 4.0"}
                ],
                "select_on": "loss",
            }
        ],
        "arms": [
            {
                "name": name,
                "label": label,
                "method": f"torch.optim.{label}",
                "version": "2.13.0",
                "space": [
                    {"name": "lr", "low": 1e-4, "high": 0.1, "default": 1e-3, "scale": "log"}
                ],
                "fixed": {"weight_decay": 0.01},
                "is_baseline": baseline,
            }
            for name, label, baseline in ARMS
        ],
        "studies": [
            {
                "workload": "digits",
                "arm": name,
                "round": 1 if name == "sgd" else 0,
                "on_edge": name == "sgd",
                "chosen": {"lr": 0.0031},
                "trials": [
                    {
                        "number": k,
                        "params": {"lr": 10.0 ** -(k % 4)},
                        "value": None if k == 3 else 0.1 + 0.01 * k,
                        "status": "diverged" if k == 3 else "done",
                    }
                    for k in range(8)
                ],
                "expected_best": [0.2 / (k + 1) for k in range(8)],
            }
            for name, _, _ in ARMS
        ],
        "finals": [
            {
                "workload": "digits",
                "arm": name,
                "number": 0,
                "seed": 100 + seed,
                "params": {"lr": 0.0031},
                "status": "done",
                "seconds": 1.5,
                "state_bytes": 1024,
                "metrics": {"test": {"error": 0.05 + 0.001 * seed}, "valid": {"error": 0.06}},
            }
            for name, _, _ in ARMS
            for seed in range(10)
        ],
        "curves": [],
        "claims": claims,
        "figures": figure_list() if figures else [],
        "provenance": [
            {
                "git_sha": "c0ffee" * 6 + "c0ff",
                "dirty": False,
                "python": "3.11.7",
                "torch": "2.13.0+cpu",
                "numpy": "2.4.6",
                "gradworks": "0.1.0",
                "platform": "Linux-6.1",
                "cpu": "x86_64",
                "cores": 2,
                "threads": 1,
                "gpu": None,
                "deterministic": True,
            }
        ],
        "counts": {"tune": 24, "final": 30, "diverged": 3, "failed": 0},
    }


def result(**options: Any) -> Result:
    """The same as a Result."""
    return Result(document(**options))


def _claim(claim: Any, status: str, index: int) -> dict[str, Any]:
    outcomes = [_outcome(c, status, index + k) for k, c in enumerate(claim.criteria)]
    return {
        "id": claim.id,
        "statement": claim.statement,
        "published": claim.published,
        "holds_when": claim.holds_when,
        "setting": claim.setting,
        "scaled_down": claim.scaled_down,
        "primary": claim.primary,
        "status": status,
        "text": f"{status.capitalize()}: as invented for the tests.",
        "outcomes": outcomes,
    }


def _outcome(criterion: Any, status: str, index: int) -> dict[str, Any]:
    ratio = criterion.scale == "ratio" and criterion.baseline is not None
    sign = 1 if criterion.direction == "higher" else -1
    centre = criterion.reference if criterion.reference is not None else (1.0 if ratio else 0.0)
    step = 0.04 + 0.01 * index
    estimate = centre + sign * step
    return {
        "criterion": criterion.name,
        "kind": criterion.kind,
        "status": status,
        "estimate": estimate,
        "lo": estimate - step / 2,
        "hi": estimate + step / 2,
        "level": 0.95 if index % 3 else None,
        "p": 0.001,
        "p_adj": 0.0039,
        "n": 10,
        "min_effect": centre + sign * step / 3 if criterion.baseline else None,
        "n_needed": 14 if status == "undecided" else None,
        "published": criterion.published,
        "values": [estimate + 0.001 * k for k in range(10)],
        "baseline_values": [centre + 0.001 * k for k in range(10)],
        "text": "invented",
    }


def figure_list() -> list[dict[str, Any]]:
    """One figure of each style: lines with bands, points with errors, bars, a log scale."""
    steps = list(range(0, 401, 10))

    def curve(rate: float) -> list[float]:
        return [2.3 * math.exp(-rate * s) + 0.05 for s in steps]

    def lines(name: str, rate: float) -> dict[str, Any]:
        y = curve(rate)
        return {
            "name": name,
            "x": steps,
            "y": y,
            "lo": [0.9 * v for v in y],
            "hi": [1.1 * v for v in y],
            "style": "line",
        }

    plain = {"lo": None, "hi": None}
    return [
        {
            "id": "loss",
            "title": "Validation loss",
            "caption": "AdamP and AdamW reach the same loss; SGD is slower. Bands: 95 % intervals.",
            "x_label": "step",
            "y_label": "loss",
            "series": [
                lines("AdamP", 0.02),
                lines("AdamW", 0.018),
                lines("SGD", 0.009),
                {"name": "target", "x": [0, 400], "y": [0.1, 0.1], "style": "reference", **plain},
            ],
            "x_log": False,
            "y_log": True,
        },
        {
            "id": "width & <size>",
            "title": "Small eigenvalues against width",
            "caption": "The bulk near zero grows with the number of parameters.",
            "x_label": "parameters",
            "y_label": "share of small eigenvalues",
            "series": [
                {
                    "name": "after training",
                    "x": [275, 745, 1415, 5000],
                    "y": [0.735, 0.917, 0.956, None],
                    "lo": [0.70, 0.90, 0.95, None],
                    "hi": [0.77, 0.93, 0.96, None],
                    "style": "points",
                }
            ],
            "x_log": True,
            "y_log": False,
        },
        {
            "id": "sets",
            "title": "Error by data set",
            "caption": "On two of three sets the paper's method has the lower error.",
            "x_label": "data set",
            "y_label": "test error",
            "series": [
                {
                    "name": name,
                    "x": ["glass", "yeast", "wine"],
                    "y": [0.2 * k, 0.15, 0.1 * k],
                    "lo": [0.18 * k, 0.14, 0.09 * k],
                    "hi": [0.22 * k, 0.16, 0.11 * k],
                    "style": "bars",
                }
                for k, name in ((1, "AnyLoss"), (2, "BCE"))
            ],
            "x_log": False,
            "y_log": False,
        },
    ]
