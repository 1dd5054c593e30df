"""A fabricated comparison of all optimizers: curves, misses, an arm left out, edges."""

from __future__ import annotations

import math
import random
from typing import Any

from gradworks.bench import compare
from gradworks.bench.result import Result

# name, label, class, speed over AdamW, seconds a step over AdamW, bytes a parameter
ARMS = (
    ("adamw", "AdamW", "torch.optim.AdamW", 1.0, 1.0, 8.0),
    ("sgd", "SGD", "torch.optim.SGD", 0.5, 0.9, 4.0),
    ("adamp", "AdamP", "gradworks.optim.AdamP", 1.02, 1.05, 8.0),
    ("diffgrad", "DiffGrad", "gradworks.optim.DiffGrad", 0.96, 1.1, 12.0),
    ("adahessian", "AdaHessian", "gradworks.optim.AdaHessian", 1.15, 2.9, 8.0),
    ("muon", "Muon", "gradworks.bench.muon.MuonWithAdamW", 1.4, 1.3, 4.3),
    ("dctadamw", "DCTAdamW", "gradworks.optim.DCTAdamW", 0.9, 1.2, 3.4),
    ("mine.py:Own<b>", "Own<b>", "mine.py:Own<b>", 1.1, 1.0, 8.0),
)
WORKLOADS = (("text-transformer", "nats", 220, 16), ("mnist5k-cnn", "error", 188, 64))
SEEDS = 6


def document(finished: str = "2026-11-24T10:00:00Z") -> dict[str, Any]:
    """A comparison as ``gradworks compare --shared --publish`` writes it."""
    draw = random.Random(7)
    made: dict[str, Any] = {
        "format": 1,
        "paper": compare.SHARED,
        "preset": "full",
        "experiment": "compare-optimizers-full-1",
        "protocol_hash": "0123456789abcdef",
        "created": "2026-11-24T09:00:00Z",
        "finished": finished,
        "status": "done",
        "notes": ["mnist5k-cnn: without Muon and DCTAdamW, made for <hidden> matrices"],
        "seconds": 1200.5,
        "workloads": [],
        "arms": [
            {
                "name": name,
                "label": label,
                "method": method,
                "version": "1",
                "is_baseline": name == "adamw",
                "space": [
                    {"name": "lr", "low": 3e-5, "high": 3e-2, "default": 1e-3, "scale": "log"}
                ],
                "fixed": {"weight_decay": 0.01},
            }
            for name, label, method, *_ in ARMS
        ],
        "studies": [],
        "finals": [],
        "curves": [],
        "claims": [],
        "figures": [],
        "provenance": [{"id": 1, "torch": "2.13.0", "cpu": "a processor", "cores": 2}],
        "counts": {"tune": 84, "final": 84, "diverged": 0, "failed": 0},
    }
    for name, metric, steps, batch in WORKLOADS:
        used = [arm for arm in ARMS if name == "text-transformer" or arm[0] not in MATRIX]
        made["workloads"].append(
            {
                "name": name,
                "label": name,
                "steps": steps,
                "batch_size": batch,
                "model": name,
                "spec": {},
                "arms": [arm[0] for arm in used],
                "data": [{"name": "d", "sha256": "ab" * 32, "source": "a file", "licence": "x"}],
                "select_on": metric,
                "select_direction": "lower",
            }
        )
        for arm in used:
            _runs(made, name, metric, steps, arm, draw)
    made["figures"] = [figure.to_dict() for figure in compare.figures(Result(made))]
    return made


MATRIX = ("muon", "dctadamw")


def _runs(
    made: dict[str, Any], name: str, metric: str, steps: int, arm: Any, draw: random.Random
) -> None:
    short, _, _, speed, cost, state = arm
    grid = [round(i * steps / 40) for i in range(41)]
    runs = {}
    for seed in range(SEEDS):
        pace = speed * (1 + draw.gauss(0, 0.03))
        shift = draw.gauss(0, 0.01)
        # Flat at the end, as under a cosine: half of the baseline's runs reach the target.
        spent = [min(at / steps, 0.9) for at in grid]
        curve = [2.0 + shift + 2.6 * math.exp(-3.2 * pace * part) for part in spent]
        runs[str(seed)] = curve
        made["finals"].append(
            {
                "workload": name,
                "arm": short,
                "number": seed,
                "seed": seed,
                "params": {"lr": 1e-3},
                "status": "done",
                "seconds": steps * 0.02 * cost * (1 + draw.gauss(0, 0.05)),
                "steps_done": steps,
                "state_bytes": round(state * 1000),
                "peak_rss": 10**8,
                "metrics": {
                    "valid": {metric: curve[-1]},
                    "test": {metric: curve[-1] + 0.05},
                    "train": {"evals": float(steps), "parameters": 1000.0},
                },
            }
        )
    columns = list(zip(*runs.values(), strict=True))
    for split, values in (("valid", metric), ("train", "loss")):
        made["curves"].append(
            {
                "workload": name,
                "arm": short,
                "split": split,
                "metric": values,
                "step": grid,
                "mean": [sum(c) / SEEDS for c in columns],
                "lo": [min(c) for c in columns],
                "hi": [max(c) for c in columns],
                **({"runs": runs} if split == "valid" else {}),
            }
        )
    made["studies"].append(
        {
            "workload": name,
            "arm": short,
            "round": 0,
            "on_edge": ["lr"] if short == "sgd" else [],
            "chosen": {"lr": 1e-3},
            "space": [],
            "trials": [
                {"number": i, "params": {}, "value": 2.5, "status": "done"} for i in range(6)
            ],
            "expected_best": [2.6, 2.5, 2.45, 2.42, 2.41, 2.4],
        }
    )


def result(**changes: Any) -> Result:
    """The same as a result."""
    return Result(document(**changes))
