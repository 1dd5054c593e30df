"""Trials: the synthetic problems, losses of many scales, and what a call costs."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from gradworks.papers.sam_gs.toys import BEST, FUNCTIONS, STARTS, run

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial

__all__ = ["JITTER", "cost", "published", "scales", "toys"]

JITTER = 0.5  # later seeds move each start by at most this much in each coordinate
POINTS = 50  # of a curve
# An end counts as off the ridge, where both losses are 0, at two thirds of the way to the lowest
# sum: that takes in the Pareto set of both problems. It counts as an optimum within 2 % of it.
OFF_RIDGE, AT_BEST = 2 / 3, 0.98
TARGETS = {"reached": OFF_RIDGE, "optimum": AT_BEST}


def toys(trial: Trial) -> None:
    """Run a method from seven starts on both synthetic problems, at every scale of the first loss.

    Gives, for a scale such as 0.1, ``reached_0.1`` and ``optimum_0.1``: shares of starts, mean over
    the problems; and ``sum_one_0.1_3``, the sum of both losses, without the scale, where start 3
    ended.

    Args:
        trial: ``spec["steps"]``, ``spec["lr"]`` and ``spec["scales"]``; the settings are those of
            :class:`gradworks.papers.sam_gs.toys.Direction`, with ``toy`` as its method.
    """
    trial.resume()
    spec: Any = trial.spec
    starts = np.array(STARTS)
    if trial.number > 0:
        starts = starts + trial.rng("starts").uniform(-JITTER, JITTER, starts.shape)
    cells = [(name, float(scale)) for name in FUNCTIONS for scale in spec["scales"]]
    count, steps = len(starts), int(spec["steps"])
    options = {key: value for key, value in trial.settings.items() if key != "toy"}
    found = run(
        str(trial.settings["toy"]),
        np.tile(starts, (len(cells), 1)),
        [name for name, _ in cells for _ in starts],
        np.repeat([scale for _, scale in cells], count),
        steps=steps,
        lr=float(spec["lr"]),
        watch_every=max(steps // POINTS, 1),
        **options,
    )
    shown: dict[str, float] = {}
    for kind, share in TARGETS.items():
        for scale in spec["scales"]:
            hits = []
            for i, (name, other) in enumerate(cells):
                if other == scale:
                    ends = found["sums"][i * count : (i + 1) * count]
                    hits.append(float(np.mean(ends <= share * BEST[name])))
                    shown[f"{kind}_{name}_{scale:g}"] = hits[-1]
            shown[f"{kind}_{scale:g}"] = math.fsum(hits) / len(hits)
    for i, (name, scale) in enumerate(cells):
        for j in range(count):
            shown[f"sum_{name}_{scale:g}_{j}"] = float(found["sums"][i * count + j])
        for step, sums in found["watched"]:
            mean = float(sums[i * count : (i + 1) * count].mean())
            trial.log(step, split="train", **{f"sum_{name}_{scale:g}": mean})
    trial.result("test", **shown)


def scales(trial: Trial) -> None:
    """Train with one task's loss multiplied by each of several numbers.

    Tuning trials see the first scale of ``spec["tuned_at"]`` alone. Final runs give ``spread``, the
    difference of the largest and the smallest logarithm of a task's error over the scales, mean
    over tasks; ``worst``, the largest mean logarithm of the errors; and both parts by scale.

    Args:
        trial: ``spec["train"]`` is the spec of ``gradworks.bench.multitask.training``;
            ``spec["swept"]`` the task, ``spec["scales"]`` the numbers.

    Raises:
        Diverged: If a loss or a gradient leaves the finite numbers.
    """  # noqa: DOC502
    import torch

    from gradworks.bench.multitask import log_error, problem
    from gradworks.bench.multitask.measures import FLOOR
    from gradworks.bench.multitask.training import checked, errors_of, fit

    saved = trial.resume() or {}
    root = saved.get("root")
    if root is None:
        root = int(torch.randint(2**62, (), generator=trial.generator("root")))
    done: dict[str, dict[str, float]] = dict(saved.get("done", {}))
    spec: Any = trial.spec
    asked = problem(spec["train"]["problem"], trial.seed)
    split = "test" if trial.kind == "final" else "valid"
    chosen = spec["scales"] if trial.kind == "final" else [spec["tuned_at"]]
    for number, scale in enumerate(chosen):
        if f"{scale:g}" in done:
            continue
        models = fit(
            asked,
            trial.arm.method,
            trial.settings,
            checked({**spec["train"], "loss_scales": {spec["swept"]: scale}}),
            root,
            steps=trial.steps,
            batch_size=trial.workload.batch_size or asked.batch_size,
        )
        errors = errors_of(asked, models, split)
        done[f"{scale:g}"] = {task: both["error"] for task, both in errors.items()}
        trial.tick((number + 1) * trial.steps // len(chosen), lambda: {"root": root, "done": done})
    means = {scale: log_error(errors) for scale, errors in done.items()}
    if trial.kind == "tune":
        trial.result("valid", log_error=math.fsum(means.values()) / len(means))
        return
    spreads = []
    for task in asked.tasks:
        logs = [math.log(max(errors[task], FLOOR)) for errors in done.values()]
        spreads.append(max(logs) - min(logs))
    by_scale = {f"log_error_{scale}": mean for scale, mean in means.items()}
    trial.result(
        "test",
        spread=math.fsum(spreads) / len(spreads),
        worst=max(means.values()),
        **by_scale,
        **{f"error_{t}_{scale}": e for scale, errors in done.items() for t, e in errors.items()},
    )


def cost(trial: Trial) -> None:
    """Time a call of SAM-GS over one of IMTL-G, and a training step over that of the plain sum.

    Args:
        trial: ``spec["sizes"]`` lists tasks and parameters, ``spec["blocks"]`` how often each pair
            is timed, ``spec["problem"]`` what the step trains.
    """
    import torch

    from gradworks.bench.timing import compare
    from gradworks.multitask import SAMGS, from_torchjd

    spec: Any = trial.spec
    generator = trial.generator("jacobian")
    options: dict[str, Any] = {"blocks": spec["blocks"], "threads": 1, "control": False}
    found: dict[str, float] = {}
    for tasks, params in spec["sizes"]:
        jacobian = torch.randn(tasks, params, generator=generator)
        ours, peer = SAMGS(), from_torchjd("IMTLG")
        timed = compare(
            functools.partial(ours, jacobian),
            functools.partial(peer, jacobian),
            name=f"sam-gs-{tasks}",
            peer_name="IMTL-G",
            warm_up=1,
            **options,
        )
        found[f"time_imtlg_{tasks}"] = timed.ratio
    steps = [_step(spec["problem"], method) for method in ("gradworks.multitask:SAMGS", "sum")]
    timed = compare(*steps, name="sam-gs-step", peer_name="plain sum", warm_up=1, **options)
    trial.result("test", **found, time_step=timed.ratio)


def _step(name: str, method: str) -> Any:
    """One training step without the optimizer's part, which is the same for all."""
    import torch

    from gradworks.bench.multitask import problem
    from gradworks.bench.multitask.methods import make_method

    asked = problem(name)
    model = asked.model(torch.Generator().manual_seed(0))
    made = make_method(method, {}, model)
    inputs, targets = asked.batch(torch.arange(asked.batch_size), torch.Generator())

    def step() -> None:
        model.zero_grad()
        made.backward(asked.losses_of(model(inputs), targets), watch=False)

    return step


def published(trial: Trial) -> NoReturn:
    """The published scale: refuses.

    Args:
        trial: Names benchmark and hardware.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Mapping[str, Any] = trial.spec
    raise MissingData(
        f"the paper preset trains {wanted['network']} on {wanted['benchmark']} for "
        f"{wanted['epochs']} epochs (batch {wanted['batch']}, lr {wanted['lr']:g}): it needs "
        f"{wanted['hardware']} and images that no package carries. Run --preset full for a "
        "verdict on this machine"
    )
