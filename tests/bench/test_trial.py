"""A trial: its streams, its checkpoints, its figures; resumed equals uninterrupted, bit for bit."""

from __future__ import annotations

import io
import math
import random

import numpy as np
import pytest
import torch
from tests.bench import toy

from gradworks.bench import Arm, Trial, TrialInterrupted, Workload
from gradworks.bench import trial as trial_module
from gradworks.bench.trial import RESULT_STEP

EXPERIMENT = toy.experiment()
WORKLOAD, ARM = EXPERIMENT.workloads[0], EXPERIMENT.arms[0]
GOLDEN_TORCH = [215, 163, 258, 990]
GOLDEN_NUMPY = [690, 449, 389, 774]


class Memory:
    """A record that keeps all and stops where it is told."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.kept: list = []
        self.saved: dict[int, bytes] = {}
        self.steps: list[int] = []

    def progress(self, step: int) -> None:
        self.steps.append(step)

    def rows(self, rows: list) -> None:
        self.kept += rows

    def checkpoint(self, step: int, data: bytes, rows: list) -> None:
        self.saved[step] = data
        self.kept += rows

    def stopping(self) -> bool:
        return self.stop_at is not None


def make(record: Memory, *, saved: bytes | None = None, seed: int = 3, kind="final", **fields):
    workload = Workload(**{**vars(WORKLOAD), **fields})
    params = {"lr": 0.05, "decay": 0.01}
    return Trial(
        workload, ARM, kind=kind, number=0, seed=seed, params=params, record=record, saved=saved
    )


def values(rows: list) -> list:
    """Points of curves without their times."""
    return [(step, split, name, value) for step, _, _, split, name, value in rows]


# -- streams ---------------------------------------------------------------------------------


def draw(trial: Trial, stream: str) -> list[float]:
    return torch.randn(3, generator=trial.generator(stream)).tolist()


def test_a_seed_fixes_everything_for_every_arm() -> None:
    ours, theirs = (Trial.offline(WORKLOAD, arm, seed=5) for arm in EXPERIMENT.arms)
    ours.generator("noise")  # the order of creation does not matter
    assert draw(ours, "init") == draw(theirs, "init")
    assert ours.rng("folds").integers(0, 1000, 5).tolist() == (
        theirs.rng("folds").integers(0, 1000, 5).tolist()
    )


def test_streams_differ_by_name_seed_and_workload() -> None:
    other = Workload(**{**vars(WORKLOAD), "name": "valley"})
    draws = [
        draw(Trial.offline(WORKLOAD, ARM, seed=5), "init"),
        draw(Trial.offline(WORKLOAD, ARM, seed=5), "noise"),
        draw(Trial.offline(WORKLOAD, ARM, seed=6), "init"),
        draw(Trial.offline(other, ARM, seed=5), "init"),
    ]
    assert len({tuple(d) for d in draws}) == 4


def test_streams_are_those_of_every_machine_and_version() -> None:
    """Published results stand on these numbers: they must never change."""
    trial = Trial.offline(WORKLOAD, ARM, seed=0)
    integers = torch.randint(0, 1000, (4,), generator=trial.generator("init")).tolist()
    assert integers == GOLDEN_TORCH
    assert trial.rng("init").integers(0, 1000, 4).tolist() == GOLDEN_NUMPY


def test_a_stream_is_one_object() -> None:
    trial = Trial.offline(WORKLOAD, ARM)
    assert trial.generator("a") is trial.generator("a")
    assert trial.generator("a") is trial.generator("a", torch.device("cpu"))
    assert trial.rng("a") is trial.rng("a")


# -- resume ----------------------------------------------------------------------------------


def run(record: Memory, saved: bytes | None = None) -> Trial:
    trial = make(record, saved=saved)
    toy.descend(trial)
    return trial


def test_resumed_equals_uninterrupted_bit_for_bit() -> None:
    whole = Memory()
    expected = run(whole)
    assert set(whole.saved) == set(range(2, 20, 2))  # every tenth of the budget, not at its end
    assert values(whole.kept + expected.closing_rows())[-3:] == [
        (RESULT_STEP, "valid", "loss", expected.results["valid"]["loss"]),
        (RESULT_STEP, "test", "loss", expected.results["test"]["loss"]),
        (RESULT_STEP, "test", "distance", expected.results["test"]["distance"]),
    ]
    for step, data in whole.saved.items():
        torch.manual_seed(step)  # whatever the process did before
        random.seed(step)
        record = Memory()
        trial = run(record, data)
        assert trial.results == expected.results, f"resumed after step {step}"
        told = values(record.kept + trial.closing_rows())
        assert all(point[0] > step for point in told if point[0] >= 0)
        # A state written after the resume is the one written without it.
        for later, state in record.saved.items():
            assert contents(state) == contents(whole.saved[later])


def contents(data: bytes) -> dict:
    saved = torch.load(io.BytesIO(data), weights_only=True)
    saved.pop("elapsed")
    return plain(saved)


def plain(value):
    """Tensors as lists, so that == compares every bit."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def test_stop_writes_a_checkpoint_and_passes_through() -> None:
    record = Memory(stop_at=1)
    with pytest.raises(TrialInterrupted):
        run(record)
    assert list(record.saved) == [1]
    expected = run(Memory())
    assert run(Memory(), record.saved[1]).results == expected.results


def test_streams_asked_for_after_the_resume_go_on_too() -> None:
    record = Memory(stop_at=1)
    first = make(record)
    first.resume()
    everything(first)
    with pytest.raises(TrialInterrupted):
        first.tick(1, lambda: {"step": 1})
    goes_on = everything(first)
    second = make(Memory(), saved=record.saved[1])
    assert second.resume() == {"step": 1}
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    second = make(Memory(), saved=record.saved[1])
    second.resume()
    assert everything(second) == goes_on


def everything(trial: Trial) -> list:
    """Draw from a stream of each kind and from the global generators."""
    return [
        draw(trial, "late"),
        trial.rng("late").normal(),
        torch.randn(3).tolist(),
        np.random.normal(),  # noqa: NPY002
        random.gauss(0, 1),
    ]


def test_checkpoints_come_by_steps_and_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(trial_module.time, "monotonic", lambda: now[0])
    for seconds, expected in ((0.001, []), (2.0, list(range(10, 100, 10))), (61.0, None)):
        record = Memory()
        trial = make(record, steps=100)
        trial.resume()
        for step in range(1, 101):
            now[0] += seconds
            trial.tick(step, dict)
        # A tenth of the budget at most once a second; every step where a step takes a minute.
        assert list(record.saved) == (list(range(1, 101)) if expected is None else expected)


def test_without_a_budget_checkpoints_come_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(trial_module.time, "monotonic", lambda: now[0])
    record = Memory()
    trial = make(record, steps=0)
    trial.resume()
    for step in range(1, 100):
        now[0] += 1.0
        trial.tick(step, dict)
    assert list(record.saved) == [60]


def test_a_state_that_could_not_be_read_back_is_refused_when_written() -> None:
    with pytest.raises(TypeError, match="must hold only tensors, numbers, strings"):
        toy.unsaveable(make(Memory()))


def test_seconds_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(trial_module.time, "perf_counter", lambda: now[0])
    record = Memory()
    trial = make(record)
    now[0] += 100.0  # data and model are built
    assert trial.resume() is None
    now[0] += 2.0
    with trial.untimed():
        now[0] += 50.0
        with trial.untimed():
            now[0] += 50.0
        assert trial.elapsed == 2.0
    now[0] += 1.0
    assert trial.elapsed == 3.0

    def slow_state() -> dict:
        now[0] += 7.0
        return {}

    trial.checkpoint_seconds = 0.0
    trial.tick(10, slow_state)
    assert trial.elapsed == 3.0
    again = make(Memory(), saved=record.saved[10])
    now[0] += 1000.0
    again.resume()
    now[0] += 0.5
    assert again.elapsed == 3.5


# -- figures ---------------------------------------------------------------------------------


def test_curves_and_results_reach_the_record() -> None:
    record = Memory()
    trial = make(record)
    trial.log(0, split="valid", evals=2.0, seconds=1.5, loss=3.0, error=0.5)
    trial.log(5, split="train", norm=math.nan)
    trial.result("valid", loss=1.0)
    trial.result("valid", error=math.inf)
    rows = trial.closing_rows()
    assert rows[:2] == [(0, 2.0, 1.5, "valid", "loss", 3.0), (0, 2.0, 1.5, "valid", "error", 0.5)]
    assert values(rows[2:]) == [
        (5, "train", "norm", None),
        (RESULT_STEP, "valid", "loss", 1.0),
        (RESULT_STEP, "valid", "error", None),
    ]
    assert trial.curves["valid"] == {"loss": [(0, 3.0)], "error": [(0, 0.5)]}
    assert trial.closing_rows()[0][0] == RESULT_STEP  # curves are told once


def test_points_are_flushed_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(trial_module.time, "monotonic", lambda: now[0])
    record = Memory()
    trial = make(record, steps=1000)
    trial.resume()
    for step in range(1, 11):
        trial.log(step, split="train", loss=1.0)
        trial.tick(step, dict)
        now[0] += 0.4
    assert [row[0] for row in record.kept] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10][: len(record.kept)]
    assert len(record.kept) == 10
    assert len(record.steps) == 10  # progress: at most every 0.2 s


@pytest.mark.parametrize(
    ("call", "error", "fragment"),
    [
        (lambda t: t.result("test", loss=1.0), RuntimeError, "must not look at the test split"),
        (lambda t: t.log(1, split="test", loss=1.0), RuntimeError, "must not look at the test"),
        (lambda t: t.result("valid"), ValueError, "needs at least one metric"),
        (lambda t: t.result("dev", loss=1.0), ValueError, "'train', 'valid' or 'test', got 'dev'"),
        (lambda t: t.log(-1, split="valid", loss=1.0), ValueError, "at least 0, got -1"),
        (lambda t: t.log(1, split="dev", loss=1.0), ValueError, "got 'dev'"),
    ],
)
def test_what_a_tuning_trial_may_not(call, error, fragment: str) -> None:
    with pytest.raises(error, match=fragment):
        call(make(Memory(), kind="tune"))


def test_settings_are_fixed_ones_and_searched_ones() -> None:
    arm = Arm(name="a", label="A", method="m", fixed={"lr": 9.0, "beta": 0.9})
    trial = Trial.offline(WORKLOAD, arm, params={"lr": 0.1})
    assert trial.settings == {"lr": 0.1, "beta": 0.9}
    assert trial.spec == WORKLOAD.spec
    assert trial.steps == 20


def test_offline_takes_the_published_defaults_and_runs() -> None:
    trial = Trial.offline(WORKLOAD, ARM, seed=1)
    assert trial.params == {"lr": 0.03, "decay": 1e-3}
    toy.descend(trial)
    first = trial.results
    again = Trial.offline(WORKLOAD, ARM, seed=1)
    torch.manual_seed(99)  # dropout draws from the global stream, which resume() seeds
    toy.descend(again)
    assert again.results == first
    assert [step for step, _ in again.curves["valid"]["loss"]] == [5, 10, 15, 20]
