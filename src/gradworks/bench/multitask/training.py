"""The trial of multi-task workloads: one method, one seed, all tasks."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from gradworks.bench.multitask.definition import MultiTaskProblem
from gradworks.bench.multitask.measures import log_error
from gradworks.bench.multitask.methods import make_method
from gradworks.bench.multitask.networks import SharedTrunk
from gradworks.bench.multitask.problems import problem
from gradworks.bench.optimizers import resolve_optimizer

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial
    from gradworks.multitask import AggregationStats

__all__ = ["Found", "errors_of", "fit", "report", "train"]

_OPTIMIZERS = {"adam": "torch.optim.Adam", "adamw": "torch.optim.AdamW", "sgd": "torch.optim.SGD"}
_KNOWN = frozenset(
    {"problem", "loss_scales", "optimizer", "optimizer_settings", "weighted", "log_every", "seed"}
)
PAIRS = 3  # tasks up to which each pair is logged by name; beyond, their mean and worst

Found = dict[str, dict[str, float]]  # task, then "loss" and "error"
Watch = Callable[[int, Mapping[str, Tensor], "AggregationStats | None"], None]


def train(trial: Trial) -> None:
    """Run one trial: the function that workloads name.

    Gives ``log_error`` (mean over tasks of the logarithm of the error), ``error_TASK`` and
    ``loss_TASK`` of the validation split, in final runs of the test split. Final runs log each
    ``log_every`` steps the losses, cosines and magnitude similarities of the task gradients, and
    the share of each task in the direction (least squares).

    Args:
        trial: ``spec["problem"]`` names the problem; ``loss_scales`` multiplies losses by task,
            ``optimizer`` is ``"adam"`` (default), ``"adamw"``, ``"sgd"`` or a dotted path with
            ``optimizer_settings``, ``weighted`` lists the tasks of the setting ``weight``,
            ``log_every`` is 10. ``settings["lr"]`` is the learning rate; a killed trial starts
            again.

    Raises:
        Diverged: If a loss or a gradient leaves the finite numbers.
        ValueError: If the spec or a setting is not known.
    """  # noqa: DOC502
    saved = trial.resume() or {}
    root = saved.get("root")
    if root is None:
        root = int(torch.randint(2**62, (), generator=trial.generator("root")))
    spec = checked(trial.spec)
    asked = problem(spec["problem"], trial.seed)
    with trial.untimed():
        asked.batch(torch.arange(1), Generator().manual_seed(0))
    watch = logger(trial) if trial.kind == "final" else None
    models = fit(
        asked,
        trial.arm.method,
        trial.settings,
        spec,
        root,
        steps=trial.steps or asked.steps,
        batch_size=trial.workload.batch_size or asked.batch_size,
        watch=watch,
        done=lambda step: trial.tick(step, lambda: {"root": root}),
    )
    with trial.untimed():
        report(trial, asked, models)


def checked(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workload's spec, whole.

    Args:
        spec: As the workload has it.

    Raises:
        ValueError: If a key is not known or the problem is missing.
    """
    unknown = sorted(set(spec) - _KNOWN)
    if unknown or "problem" not in spec:
        raise ValueError(
            f"spec of a multi-task workload takes {', '.join(sorted(_KNOWN))} and needs 'problem', "
            f"got {sorted(spec)}"
        )
    return {"optimizer": "adam", "log_every": 10, **spec}


def fit(
    asked: MultiTaskProblem,
    method: str,
    settings: Mapping[str, Any],
    spec: Mapping[str, Any],
    root: int,
    *,
    steps: int,
    batch_size: int,
    watch: Watch | None = None,
    done: Callable[[int], None] | None = None,
) -> dict[str, SharedTrunk]:
    """Train one network, or one a task for ``"single"``.

    Args:
        asked: What is learnt.
        method: Name of the method.
        settings: Its settings.
        spec: As :func:`checked` returns it.
        root: Seed of weights, batches and draws, the same for every method.
        steps: Budget, of each network.
        batch_size: Examples a step.
        watch: Gets the step, the losses and the statistics, each ``log_every`` steps.
        done: Gets the number of steps done, after each.

    Returns:
        The network of each task, by its name.

    Raises:
        Diverged: If a loss or a gradient leaves the finite numbers.
    """  # noqa: DOC502
    whole = asked.model(_stream(root, 0))
    run = _Run(asked, settings, spec, root, steps, batch_size, done)
    with _global_draws(root):
        if method == "single":
            parts = {task: whole.only(task) for task in asked.tasks}
            rest = {key: value for key, value in settings.items() if key in ("lr", "clip")}
            for i, part in enumerate(parts.values()):
                run.train(part, "sum", rest, None, part=(i, len(parts)))
            return parts
        run.train(whole, method, settings, watch)
    return dict.fromkeys(asked.tasks, whole)


class _Run:
    """Networks trained on the same batches."""

    def __init__(
        self,
        asked: MultiTaskProblem,
        settings: Mapping[str, Any],
        spec: Mapping[str, Any],
        root: int,
        steps: int,
        batch_size: int,
        done: Callable[[int], None] | None,
    ) -> None:
        self.asked, self.settings, self.spec, self.root = asked, settings, spec, root
        self.steps, self.batch_size, self.done = steps, batch_size, done

    def train(
        self,
        model: SharedTrunk,
        method: str,
        settings: Mapping[str, Any],
        watch: Watch | None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        spec, every = self.spec, int(self.spec["log_every"])
        made = make_method(
            method,
            settings,
            model,
            scales=spec.get("loss_scales"),
            weighted=spec.get("weighted") or (),
        )
        optimizer = _optimizer(spec, settings, [*model.parameters(), *made.parameters])
        corrupting = _stream(self.root, 2)
        for step, rows in enumerate(self._rows()):
            inputs, targets = self.asked.batch(rows, corrupting)
            looked_at = step % every == 0
            losses = self.asked.losses_of(model(inputs), targets)
            optimizer.zero_grad()
            stats = _guarded(made.backward, losses, watch is not None and looked_at)
            optimizer.step()
            made.after(functools.partial(self._again, model, inputs, targets))
            if looked_at:
                _check(losses, method, step)
                if watch is not None:
                    watch(step, losses, stats)
            if self.done is not None:  # networks of single tasks share one budget of steps
                self.done((part[0] * self.steps + step + 1) // part[1])
        with torch.no_grad():
            _check(dict(model.named_parameters()), method, self.steps)

    def _again(
        self, model: SharedTrunk, inputs: Tensor, targets: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        return self.asked.losses_of(model(inputs), targets)

    def _rows(self) -> Iterator[Tensor]:
        """Rows of each step: a fresh permutation an epoch, the rest of an epoch left out.

        Yields:
            Row numbers, as many as a batch holds.
        """
        generator = _stream(self.root, 1)
        count = len(self.asked.splits["train"][0])
        size, order, at = min(self.batch_size, count), torch.empty(0, dtype=torch.long), 0
        for _ in range(self.steps):
            if at + size > len(order):
                order, at = torch.randperm(count, generator=generator), 0
            yield order[at : at + size]
            at += size


def errors_of(asked: MultiTaskProblem, models: Mapping[str, SharedTrunk], split: str) -> Found:
    """Return loss and error of each task.

    Args:
        asked: What was learnt.
        models: The network of each task.
        split: Where it is judged.
    """
    found: Found = {}
    for model in dict.fromkeys(models.values()):
        judged = asked.judge(model, split)
        found |= {task: judged[task] for task in judged if models[task] is model}
    return {task: found[task] for task in asked.tasks}


def report(trial: Trial, asked: MultiTaskProblem, models: Mapping[str, SharedTrunk]) -> None:
    """Give the final figures; the test split is opened by final runs only.

    Args:
        trial: Takes them.
        asked: What was learnt.
        models: The network of each task.
    """
    for split in ("valid", "test") if trial.kind == "final" else ("valid",):
        found = errors_of(asked, models, split)
        parts = {f"{k}_{task}": v for task, both in found.items() for k, v in both.items()}
        mean = log_error({task: both["error"] for task, both in found.items()})
        trial.result(split, log_error=mean, **parts)


def logger(trial: Trial) -> Watch:
    """Return what writes losses and conflicts into the curves of a trial.

    Args:
        trial: Takes them.
    """

    def watch(step: int, losses: Mapping[str, Tensor], stats: AggregationStats | None) -> None:
        with trial.untimed():
            shown = {f"loss_{task}": float(loss.detach()) for task, loss in losses.items()}
            if stats is not None and stats.gramian is not None:
                shown |= conflicts(stats)
            trial.log(step, split="train", **shown)

    return watch


def conflicts(stats: AggregationStats) -> dict[str, float]:
    """Return cosines, magnitude similarities and the share of each task in the direction.

    Args:
        stats: Of a backward pass with statistics.

    Returns:
        ``cosine``, ``cosine_min``, ``similarity``, ``similarity_min`` over pairs; each pair by name
        where there are at most three tasks; ``weight_TASK``, their absolute values adding to 1.
    """
    from gradworks.multitask.sam_gs import magnitude_similarity

    tasks = stats.tasks
    matrices = {"cosine": stats.cosines(), "similarity": magnitude_similarity(stats.norms)}
    found: dict[str, float] = {}
    above = torch.triu_indices(len(tasks), len(tasks), 1)
    for name, matrix in matrices.items():
        pairs = matrix[above[0], above[1]]
        if len(pairs):
            found[name], found[f"{name}_min"] = float(pairs.mean()), float(pairs.min())
        if 1 < len(tasks) <= PAIRS:
            for i, j, value in zip(*above.tolist(), pairs.tolist()):
                found[f"{name}_{tasks[i]}_{tasks[j]}"] = value
    if stats.weights is not None:
        total = float(stats.weights.abs().sum())
        for task, weight in zip(tasks, stats.weights.tolist()):
            found[f"weight_{task}"] = weight / total if total > 0 else 0.0
    return found


# ---------------------------------------------------------------- pieces


def _stream(root: int, number: int) -> Generator:
    """One of the streams of a run: weights, batches, corruption."""
    return Generator().manual_seed((root + number) % 2**62)


@contextmanager
def _global_draws(root: int) -> Iterator[None]:
    """Seed the global generator, which torchjd's aggregators draw from, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(root)
        yield


def _optimizer(
    spec: Mapping[str, Any], settings: Mapping[str, Any], params: list[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    if "lr" not in settings:
        raise ValueError("settings must hold 'lr', the learning rate")
    name = str(spec["optimizer"])
    made: Any = resolve_optimizer(_OPTIMIZERS.get(name, name))
    found: torch.optim.Optimizer = made(
        params, lr=float(settings["lr"]), **(spec.get("optimizer_settings") or {})
    )
    return found


def _guarded(backward: Callable[..., Any], losses: Mapping[str, Tensor], watch: bool) -> Any:
    from gradworks.bench.trial import Diverged
    from gradworks.multitask import NonFiniteGradientError

    try:
        return backward(losses, watch=watch)
    except NonFiniteGradientError as error:
        raise Diverged(str(error)) from error


def _check(values: Mapping[str, Tensor], method: str, step: int) -> None:
    """Tell a run that has diverged before anything is made of it."""
    from gradworks.bench.trial import Diverged

    for name, value in values.items():
        if not math.isfinite(float(value.detach().abs().max())):
            raise Diverged(f"{method}: {name} is not finite at step {step}")
