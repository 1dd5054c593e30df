"""One trial: one method on all problems of a workload, for one seed."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from gradworks.papers.hessian_alignment.domains import Problem, pose
from gradworks.papers.hessian_alignment.measures import apart, spearman, transferred
from gradworks.papers.hessian_alignment.training import Batch, Network, accuracy, joined, train

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial

__all__ = ["published", "trial"]

GRAY = "gray"  # tested too, but no unseen domain


def trial(trial: Trial) -> None:
    """Train on every problem of the workload and report the accuracy on unseen domains.

    A problem that is finished is kept over a kill and not run again.

    Args:
        trial: ``spec["problem"]`` and ``spec["train"]`` say what is run, ``spec["cells"]`` what
            differs between its problems; ``spec["variants"]`` are run with the settings chosen on
            the others, by final runs alone.

    Raises:
        Diverged: If training leaves the finite numbers.
    """
    from gradworks.bench.trial import Diverged

    saved = trial.resume() or {}
    root = saved.get("root")
    if root is None:
        root = int(torch.randint(2**62, (), generator=trial.generator("root")))
    done: dict[str, dict[str, float]] = dict(saved.get("cells", {}))
    spec: Any = trial.spec
    cells, variants = spec["cells"], spec["variants"] if trial.kind == "final" else {}
    for name, changed in {**cells, **variants}.items():
        if name in done:
            continue
        # every method gets the same domains, weights and batches
        generator = torch.Generator().manual_seed((root + zlib.crc32(name.encode())) % 2**62)
        problem = pose({**spec["problem"], **changed}, generator)
        try:
            done[name] = _Cell(trial, name, problem).run(generator)
        except FloatingPointError as error:
            raise Diverged(str(error)) from error
        trial.tick(len(done), lambda: {"root": root, "cells": done})
    _report(trial, {name: done[name] for name in cells}, {name: done[name] for name in variants})


def _report(
    trial: Trial, cells: Mapping[str, Mapping[str, float]], variants: Mapping[str, Any]
) -> None:
    """Means over the problems, and each of them."""

    def given(split: str, found: Mapping[str, float]) -> None:
        kept = {k.removeprefix(f"{split}_"): v for k, v in found.items() if k.startswith(split)}
        if kept:
            trial.result(split, **kept)

    # figures of a single unseen domain are not in all of them
    names = [k for k in next(iter(cells.values())) if all(k in c for c in cells.values())]
    given("valid", {k: math.fsum(c[k] for c in cells.values()) / len(cells) for k in names})
    if trial.kind == "tune":
        return
    given("test", {k: math.fsum(c[k] for c in cells.values()) / len(cells) for k in names})
    parts = {**variants, **(cells if len(cells) > 1 else {})}
    for name, found in parts.items():
        given("test", {f"{k}_{name}": v for k, v in found.items()})


class _Cell:
    """One problem: watched while it trains, judged when it is trained."""

    def __init__(self, trial: Trial, name: str, problem: Problem) -> None:
        self.trial, self.name, self.problem = trial, name, problem
        self.final = trial.kind == "final"
        self.along = bool(trial.spec["train"]["along"])
        self.seen = joined(problem.train)
        self.valid = joined([problem.valid])
        tests = problem.test.items() if self.final else ()
        self.test: dict[str, Batch] = {key: joined([domain]) for key, domain in tests}
        self.points: list[dict[str, float]] = []

    def run(self, generator: torch.Generator) -> dict[str, float]:
        spec = self.trial.spec["train"]
        network = train(self.problem, self.trial.settings, spec, generator, self.watch)
        last, best = self.points[-1], max(self.points, key=lambda point: point["valid"])
        found = {"valid_accuracy": last["valid"]}
        if not self.final:
            return found
        found |= {
            "test_accuracy": last["test"],
            "test_accuracy_train": last["train"],
            "test_accuracy_stopped": best["test"],
            "test_accuracy_best": max(point["test"] for point in self.points),
        }
        for key, batch in self.test.items():
            found[f"test_accuracy_on_{key}"] = accuracy(network, batch)
        after = [point for point in self.points if point["step"] > 0]
        for norm, distance in apart(network, self.seen).items():
            found[f"test_distance_{norm}"] = distance
            if self.along:
                found[f"test_spearman_{norm}"] = spearman(
                    [point[norm] for point in after], [point["test"] for point in after]
                )
        unseen = [domain for key, domain in self.problem.test.items() if key != GRAY]
        # unseen domains may differ in kind; each is a target of its own
        measured = [transferred(network, self.seen, joined([domain])) for domain in unseen]
        for key in measured[0]:
            found[f"test_{key}"] = math.fsum(m[key] for m in measured) / len(measured)
        return found

    def watch(self, step: int, network: Network) -> None:
        """A point of the curves; of a tuning trial only the last is asked for."""
        if not self.final and step < self.trial.spec["train"]["steps"]:
            return
        with self.trial.untimed():
            point = {"step": float(step), "valid": accuracy(network, self.valid)}
            if self.final:
                point |= {"train": accuracy(network, self.seen), "test": self._unseen(network)}
                point |= apart(network, self.seen) if self.along else {}
                self._log(step, point)
        self.points.append(point)

    def _unseen(self, network: Network) -> float:
        shares = [accuracy(network, b) for key, b in self.test.items() if key != GRAY]
        return sum(shares) / len(shares)

    def _log(self, step: int, point: Mapping[str, float]) -> None:
        for split in ("train", "valid", "test"):
            self.trial.log(step, split=split, **{f"accuracy_{self.name}": point[split]})
        if self.along:
            self.trial.log(step, split="train", **{f"distance_{self.name}": point["spectral"]})


def published(trial: Trial) -> NoReturn:
    """The published scale: refuses.

    Args:
        trial: Names benchmark and hardware.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset trains a {wanted['network']} for {wanted['steps']:,} steps on "
        f"{wanted['benchmark']} ({wanted['domains']}), {wanted['draws']} draws of the settings "
        f"three times for each unseen domain: it needs {wanted['hardware']}, the images as "
        "domain/class/image (hessian_alignment.domains.image_folders lists them) and weights that "
        "no package carries. Run --preset full for a verdict on this machine"
    )
