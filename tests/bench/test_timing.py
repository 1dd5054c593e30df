"""Timing with a clock of our own: what the protocol does with times, not how fast a machine is."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradworks.bench.timing import FOLDER, Timing, compare, copy_pair, roofline
from gradworks.bench.timing.comparing import MOST_CALLS, _calls
from gradworks.bench.timing.figures import duration


class Machine:
    """A clock that only the work moves; ``drift`` makes each second longer than the one before."""

    def __init__(self, drift: float = 0.0, noise: float = 0.0, seed: int = 0) -> None:
        self.time = 0.0
        self.drift = drift
        self.rng = np.random.default_rng(seed)
        self.noise = noise
        self.calls: list[str] = []

    def now(self) -> float:
        return self.time

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            slower = 1 + self.drift * len(self.calls)
            self.time += seconds * slower * math.exp(self.noise * self.rng.normal())

        return run


def timed(machine: Machine, a: float = 0.001, b: float = 0.002, **options: object) -> Timing:
    settings_ = {"name": "a", "peer_name": "b", "blocks": 6, "inner": 1, "warm_up": 0, **options}
    return compare(machine.work("a", a), machine.work("b", b), clock=machine.now, **settings_)


def test_blocks_are_a_b_b_a_each_with_its_control() -> None:
    machine = Machine()
    found = timed(machine, blocks=3, warm_up=2)
    start = ["a", "b", "a", "b"]  # once for compilation, once to see how long a call is
    assert machine.calls == start + ["a", "b", "b", "a", "b", "b", "b", "b"] * 5
    assert (found.blocks, found.warm_up, len(found.ratios), len(found.control_ratios)) == (
        3,
        2,
        3,
        3,
    )
    bare = Machine()
    timed(bare, blocks=3, control=False)
    assert bare.calls == start + ["a", "b", "b", "a"] * 3


def test_ratio_is_that_of_the_seconds() -> None:
    found = timed(Machine())
    assert (found.ratio, found.lo, found.hi) == pytest.approx((0.5, 0.5, 0.5))
    assert (found.control_ratio, found.control_lo, found.control_hi) == pytest.approx((1, 1, 1))
    assert (found.ours_min, found.ours_median, found.ours_iqr) == pytest.approx((1e-3, 1e-3, 0))
    assert found.peer_min == pytest.approx(2e-3)


@settings(deadline=None, max_examples=5)
@given(st.floats(0, 0.05), st.floats(0.1, 10))
def test_a_linear_drift_cancels(drift: float, ratio: float) -> None:
    found = timed(Machine(drift=drift), a=ratio * 1e-3, b=1e-3, blocks=4)
    assert found.ratio == pytest.approx(ratio)
    assert found.control_ratio == pytest.approx(1)


def test_estimate_is_the_median_of_block_ratios_with_its_bootstrap() -> None:
    found = timed(Machine(noise=0.2), blocks=40)
    assert found.ratio == np.median(found.ratios)
    assert found.control_ratio == np.median(found.control_ratios)
    assert found.lo < found.ratio < found.hi
    assert min(found.ratios) < found.lo
    assert found.hi < max(found.ratios)
    # The order statistics that hold the median of 40 with 95 %: the 14th and the 27th.
    ordered = sorted(found.ratios)
    assert ordered[12] <= found.lo <= ordered[15]
    assert ordered[24] <= found.hi <= ordered[27]


def test_warm_up_blocks_leave_no_trace() -> None:
    class Cold(Machine):
        def work(self, name: str, seconds: float) -> Callable[[], None]:
            run = super().work(name, seconds)

            def first_slow() -> None:
                run()
                if name == "a" and self.calls.count("a") <= 10:
                    self.time += 1.0

            return first_slow

    # Two calls before the blocks, two in each: four cold blocks.
    assert timed(Cold(), warm_up=4).ours_median == pytest.approx(1e-3)
    assert max(timed(Cold(), warm_up=3).ratios) > 100


@pytest.mark.parametrize(
    ("seconds", "inner", "warm_up"),
    [(1e-6, 5000, 5), (0.001, 5, 5), (0.02, 1, 5), (0.3, 1, 1)],
)
def test_calls_and_warm_up_follow_the_duration(seconds: float, inner: int, warm_up: int) -> None:
    found = timed(Machine(), a=seconds, b=seconds, inner=None, warm_up=None, blocks=2)
    assert found.inner == pytest.approx(inner, rel=0.05)
    assert found.warm_up == warm_up
    assert found.ours_min == pytest.approx(seconds)  # a call, not a measurement


def test_a_clock_that_stands_still_does_not_hang() -> None:
    assert _calls(lambda calls: 0.0) == MOST_CALLS


def test_setup_is_outside_the_time() -> None:
    machine = Machine()
    plain = timed(Machine())
    found = timed(machine, setup=machine.work("setup", 1.0))
    assert found.ratio == pytest.approx(plain.ratio)
    assert machine.calls.count("setup") == machine.calls.count("a") + machine.calls.count("b")


def test_collector_and_threads_are_set_and_set_back() -> None:
    machine, seen = Machine(), []
    work = machine.work("a", 1e-3)

    def look() -> None:
        seen.append((gc.isenabled(), torch.get_num_threads()))
        work()

    before = torch.get_num_threads()
    wanted = before + 1
    options = {"name": "a", "peer_name": "b", "blocks": 1, "inner": 1, "clock": machine.now}
    found = compare(look, work, threads=wanted, **options)
    assert set(seen) == {(False, wanted)}
    assert found.threads == wanted
    assert (gc.isenabled(), torch.get_num_threads()) == (True, before)

    def fail() -> None:
        raise RuntimeError("the method fails")

    with pytest.raises(RuntimeError, match="the method fails"):
        compare(fail, work, threads=wanted, **options)
    assert (gc.isenabled(), torch.get_num_threads()) == (True, before)


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({}, ""),
        ({"lo": 0.9, "hi": 1.1}, "the interval covers 1"),
        ({"control_lo": 1.01, "control_hi": 1.2}, "the control excludes 1"),
        ({"control_lo": 0.8, "control_hi": 0.99}, "the control excludes 1"),
        ({"control_ratio": None, "control_lo": None, "control_hi": None}, "no control"),
        ({"blocks": 29}, "fewer than 30 blocks"),
        ({"blocks": 10, "ours_median": 2.0}, ""),
        ({"blocks": 9, "ours_median": 2.0}, "fewer than 10 blocks"),
    ],
)
def test_quotable(changes: dict[str, object], doubt: str) -> None:
    good = timed(Machine(), blocks=30).__dict__
    found = Timing(**{**good, "lo": 0.4, "hi": 0.6, **changes})
    assert (found.doubt, found.quotable) == (doubt, not doubt)
    assert found.line().endswith(f"not quotable: {doubt}" if doubt else "; quotable")
    assert found.to_dict()["quotable"] is found.quotable


@pytest.mark.slow
def test_equal_sides_are_seldom_quotable() -> None:
    quoted = [
        timed(Machine(noise=0.2, seed=s), a=1e-3, b=1e-3, blocks=30).quotable for s in range(12)
    ]
    assert sum(quoted) <= 3  # 5 % expected


def test_line_reads_well() -> None:
    found = timed(Machine(), a=0.0015, peer_version="4.1", blocks=30, threads=1)
    assert found.line().startswith("a / b 4.1: 0.750 [0.750, 0.750]; control 1.000")
    assert [duration(s) for s in (2.5, 2.5e-2, 2.5e-5, 2.5e-8)] == [
        "2.5 s",
        "25 ms",
        "25 µs",
        "25 ns",
    ]
    assert "no control" in timed(Machine(), control=False).line()


def test_json_is_written_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    timed(Machine())
    monkeypatch.setenv(FOLDER, str(tmp_path / "new" / "folder"))
    found = timed(Machine(), name="AdamP, 10M / float32")
    again = timed(Machine(), name="AdamP, 10M / float32")
    assert again.ratio == found.ratio
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert len(files) == 2  # a history, nothing overwritten, nothing half-written
    assert all(f.name.startswith("adamp-10m-float32-vs-b-t") for f in files)
    document = json.loads(files[0].read_text(encoding="utf-8"))
    assert document["ratio"] == found.ratio
    assert document["ratios"] == list(found.ratios)
    assert document["machine"]["torch"] == torch.__version__
    assert set(document) >= {"control_lo", "control_hi", "threads", "blocks", "measured", "doubt"}


def test_roofline_moves_the_bytes_it_is_measured_against() -> None:
    x = torch.zeros(1000)
    found = roofline(x.sin, 8_000_000, name="a", blocks=1, inner=1, warm_up=0)
    assert found.peer_name == "copy_ of 8 MB"
    copied = copy_pair(4096)()
    assert copied.numel() * copied.element_size() * 2 == 4096


BAD = [
    ({"blocks": 0}, "blocks must be at least 1, got 0"),
    ({"inner": 0}, "inner must be at least 1, got 0"),
    ({"threads": 0}, "threads must be at least 1, got 0"),
    ({"warm_up": -1}, "warm_up must be at least 0, got -1"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_input(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timed(Machine(), **changes)


def test_a_clock_that_did_not_move_is_an_error_not_a_ratio() -> None:
    with pytest.raises(RuntimeError, match="the clock did not move during 3 calls of 'a' or 'b'"):
        timed(Machine(), b=0.0, inner=3)


def test_roofline_needs_bytes() -> None:
    with pytest.raises(ValueError, match="nbytes must be at least 8, got 4"):
        copy_pair(4)
