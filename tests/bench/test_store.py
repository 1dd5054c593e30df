"""The run store: clear errors, whole rows or none, leases, checkpoints."""

from __future__ import annotations

import dataclasses
import errno
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from tests.bench import toy

from gradworks.bench import checkpoints as checkpoints_module
from gradworks.bench import identity as identity_module
from gradworks.bench.database import Database
from gradworks.bench.identity import Identity, is_gone
from gradworks.bench.leases import MAX_ATTEMPTS, Heartbeat, LeaseLost, Leases, touch
from gradworks.bench.recording import restore, save_checkpoint, write_rows
from gradworks.bench.store import Store, StoreError
from gradworks.bench.studies import begin
from gradworks.bench.task import Ending

EXPERIMENT = toy.experiment()


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "run.db") as opened:
        yield opened


@pytest.fixture
def experiment_id(store: Store) -> str:
    found = store.open_experiment(EXPERIMENT)
    begin(store, found, EXPERIMENT)
    return found


def leases(store: Store, experiment_id: str, identity: Identity | None = None) -> Leases:
    return Leases(store, experiment_id, identity or Identity())


# -- opening ---------------------------------------------------------------------------------


def text_file(path: Path) -> None:
    path.write_text("this is a diary, not a database\n" * 50)


def other_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()


def from_the_future(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE schema_version (version INTEGER)")
    connection.execute("INSERT INTO schema_version VALUES (99)")
    connection.commit()
    connection.close()


def cut_short(path: Path) -> None:
    Store(path).close()
    path.write_bytes(path.read_bytes()[:6000])


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (text_file, "is damaged or no SQLite file"),
        (other_program, "is an SQLite file of another program"),
        (from_the_future, "was written by a newer gradworks (schema 99"),
        (Path.mkdir, "is a folder"),
        (cut_short, "is damaged or no SQLite file"),
    ],
)
def test_what_is_no_store_is_refused_in_a_sentence(tmp_path: Path, make, fragment: str) -> None:
    path = tmp_path / "x.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError) as caught:
        Store(path)
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before is None or path.read_bytes() == before, "somebody else's file was touched"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="folder must exist and be writable"):
        Store(tmp_path / "nowhere" / "x.db")


def test_reading_does_not_create(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        Store(tmp_path / "x.db", create=False)
    assert not (tmp_path / "x.db").exists()


@pytest.fixture
def common_user():
    """Do as a common user would: root writes where it pleases."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_a_read_only_store_is_refused_at_once(request: pytest.FixtureRequest) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.db"
        Store(path).close()
        Path(folder).chmod(0o755)
        path.chmod(0o444)
        request.getfixturevalue("common_user")
        with pytest.raises(StoreError, match="is read-only"):
            Store(path)
        if os.getuid() == 0:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("attempt to write a readonly database", "is read-only: make it writable"),
        ("database is locked", "was locked by another program"),
        ("database disk image is malformed", "is damaged or no SQLite file"),
        ("something new", "failed: something new"),
    ],
)
def test_sqlites_words_become_ours(store: Store, said: str, meant: str) -> None:
    with pytest.raises(StoreError) as caught, store.transaction():
        raise sqlite3.OperationalError(said)
    assert meant in str(caught.value)


def test_a_full_disk_is_said_and_nothing_is_half_written(store: Store, experiment_id: str) -> None:
    held = leases(store, experiment_id).claim("tune", None)
    worker = store.read("SELECT worker FROM lease")[0]["worker"]
    pages = store.read("PRAGMA page_count")[0][0]
    store.read(f"PRAGMA max_page_count = {pages}")
    rows = [(step, None, None, "train", "loss" * 50, 0.5) for step in range(5000)]
    with pytest.raises(StoreError, match="the disk is full: free some space"):
        write_rows(store, held.trial_id, worker, rows)
    assert store.read("SELECT count(*) FROM metric")[0][0] == 0
    store.read("PRAGMA max_page_count = 1000000")
    write_rows(store, held.trial_id, worker, rows)
    assert store.read("SELECT count(*) FROM metric")[0][0] == 5000


def test_an_error_inside_a_transaction_leaves_nothing(store: Store, experiment_id: str) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction() as connection:  # noqa: PT012
        connection.execute("DELETE FROM trial")
        raise ZeroDivisionError
    assert len(store.trials(experiment_id, "tune")) == 8


# -- experiments -----------------------------------------------------------------------------


def test_the_same_experiment_goes_on_a_changed_one_is_new(store: Store) -> None:
    first = store.open_experiment(EXPERIMENT)
    assert store.open_experiment(EXPERIMENT) == first
    assert store.open_experiment(toy.experiment(final_seeds=4)) != first
    assert store.open_experiment(dataclasses.replace(EXPERIMENT, notes=("a note",))) == first
    assert len(store.read("SELECT * FROM experiment")) == 2  # the old one stays visible


def test_fresh_begins_anew_and_is_then_what_goes_on(store: Store) -> None:
    first = store.open_experiment(EXPERIMENT)
    second = store.open_experiment(EXPERIMENT, fresh=True)
    assert second == f"{first}-2"
    assert store.open_experiment(EXPERIMENT) == second
    for number in range(3, 12):  # ten and more sort as numbers
        assert store.open_experiment(EXPERIMENT, fresh=True) == f"{first}-{number}"
    assert store.open_experiment(EXPERIMENT) == f"{first}-11"


def test_changed_data_is_refused(store: Store) -> None:
    row = {"name": "digits", "sha256": "aa", "source": "s", "licence": "l"}
    store.open_experiment(EXPERIMENT, data={"bowl": [row]})
    store.open_experiment(EXPERIMENT, data={"bowl": [row]})
    with pytest.raises(StoreError, match="'digits' of workload 'bowl' changed since"):
        store.open_experiment(EXPERIMENT, data={"bowl": [row | {"sha256": "bb"}]})
    store.open_experiment(EXPERIMENT, data={"bowl": [row | {"sha256": "bb"}]}, fresh=True)


def test_trials_are_queued_once(store: Store, experiment_id: str) -> None:
    before = store.trials(experiment_id, "tune")
    begin(store, experiment_id, EXPERIMENT)
    assert store.trials(experiment_id, "tune") == before
    assert store.counts(experiment_id) == {("tune", "queued"): 8}


def test_provenance_is_kept_once(store: Store) -> None:
    row = {"git_sha": None, "dirty": 1, "env": {"b": 1, "a": None}}
    assert store.add_provenance(row) == store.add_provenance(dict(reversed(row.items())))
    assert store.add_provenance(row | {"dirty": 0}) != store.add_provenance(row)


# -- leases ----------------------------------------------------------------------------------


def test_many_claim_at_once_and_each_trial_has_one_holder(store: Store, experiment_id: str) -> None:
    taken: list[int] = []
    gate = threading.Barrier(6)

    def work() -> None:
        with Store(store.path) as mine:
            held = leases(mine, experiment_id)
            gate.wait()
            while (task := held.claim("tune", None)) is not None:
                taken.append(task.trial_id)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(t["id"] for t in store.trials(experiment_id, "tune"))
    assert len(store.read("SELECT * FROM lease")) == 8


def test_final_runs_cannot_be_claimed_before_the_freeze(store: Store, experiment_id: str) -> None:
    store.read("INSERT INTO trial (workload_id, arm_id, kind, number, seed, params, status) "
               "VALUES (1, 1, 'final', 0, 0, '{}', 'queued')")  # fmt: skip
    held = leases(store, experiment_id)
    assert held.claim("final", None) is None
    store.read("UPDATE experiment SET state = 'frozen'")
    assert held.claim("final", None) is not None
    assert held.claim("tune", None) is None  # and nothing is tuned afterwards


def test_a_task_says_what_was_queued(store: Store, experiment_id: str) -> None:
    task = leases(store, experiment_id).claim("tune", None)
    assert task.workload == EXPERIMENT.workloads[0]
    assert task.arm == EXPERIMENT.arms[0]
    assert (task.kind, task.number, task.params) == ("tune", 0, {"lr": 0.03, "decay": 1e-3})
    assert (task.threads, task.strict) == (1, False)


def test_whoever_lost_the_lease_writes_nothing(store: Store, experiment_id: str) -> None:
    slow = Identity()
    held = leases(store, experiment_id, slow)
    task = held.claim("tune", None)
    store.read("UPDATE lease SET heartbeat = 0")  # it slept for an hour
    other = leases(store, experiment_id)
    assert other.reclaim() == 1
    ending = Ending(task.trial_id, "done", rows=[(-1, None, None, "valid", "loss", 1.0)])
    with pytest.raises(LeaseLost):
        held.finish(task.trial_id, ending)
    with pytest.raises(LeaseLost):
        held.release(task.trial_id, None)
    write_rows(store, task.trial_id, slow.worker, ending.rows)
    assert not save_checkpoint(store, task.trial_id, slow.worker, 3, b"x", ending.rows)
    assert store.read("SELECT count(*) FROM metric")[0][0] == 0
    assert not list(store.checkpoints.root.rglob("*.pt"))
    again = other.claim("tune", None)
    assert again.trial_id == task.trial_id
    with pytest.raises(LeaseLost):  # it is held again, but not by the slow one
        held.finish(task.trial_id, ending)
    assert store.counts(experiment_id)["tune", "running"] == 1
    other.finish(again.trial_id, ending)
    assert store.final_metrics(experiment_id, "tune") == {task.trial_id: {"valid": {"loss": 1.0}}}


def test_leases_of_the_living_stay(store: Store, experiment_id: str) -> None:
    alive = leases(store, experiment_id)
    alive.claim("tune", None)
    assert leases(store, experiment_id).reclaim() == 0
    assert store.counts(experiment_id)["tune", "running"] == 1


def test_leases_of_the_dead_are_taken_over(store: Store, experiment_id: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    other = Identity(pid=child.pid)
    leases(store, experiment_id, other).claim("tune", None)
    mine = leases(store, experiment_id)
    assert mine.reclaim() == 0
    child.kill()
    child.wait()
    assert mine.reclaim() == 1
    assert store.counts(experiment_id)["tune", "killed"] == 1
    assert mine.claim("tune", None).trial_id == 1  # it goes on first: it is the oldest


def test_who_is_gone() -> None:
    me = Identity()
    fresh = (me.pid, me.host, me.boot_id, 1.0)
    assert not is_gone(me.worker, *fresh)
    assert is_gone(me.worker, me.pid, me.host, me.boot_id, 61.0)  # no heartbeat for a minute
    # The id was given to another process since: it began at another tick.
    assert is_gone(f"{me.pid}-1-abc", *fresh)
    # Of another machine or boot nothing is known but the heartbeat.
    assert not is_gone("1-1-x", 1, "elsewhere", me.boot_id, 59.0)
    assert not is_gone("1-1-x", 1, me.host, "another boot", 59.0)
    assert is_gone("1-1-x", 1, "elsewhere", me.boot_id, 61.0)


def test_two_identities_of_a_process_differ() -> None:
    assert Identity().worker != Identity().worker


def test_the_heartbeat_keeps_a_lease(
    store: Store, experiment_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = Identity()
    leases(store, experiment_id, me).claim("tune", None)
    store.read("UPDATE lease SET heartbeat = 0")
    touch(store, "somebody else")
    assert store.read("SELECT heartbeat FROM lease")[0][0] == 0
    monkeypatch.setattr("gradworks.bench.leases.HEARTBEAT_SECONDS", 0.01)
    with Heartbeat(store.path, me.worker):
        deadline = time.monotonic() + 30
        while store.read("SELECT heartbeat FROM lease")[0][0] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert abs(store.read("SELECT heartbeat FROM lease")[0][0] - time.time()) < 60


def test_three_attempts_then_failed_then_mended(store: Store, experiment_id: str) -> None:
    held = leases(store, experiment_id)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        task = held.claim("tune", None)
        while task.trial_id != 1:  # failed ones wait behind those not yet tried
            held.release(task.trial_id, None)
            store.read("UPDATE trial SET attempt = 3 WHERE id <> 1")
            task = held.claim("tune", None)
        held.finish(1, Ending(1, "error", error=f"ValueError: number {attempt}"))
        [row] = store.read("SELECT status, attempt FROM trial WHERE id = 1")
        assert row["attempt"] == attempt
        assert row["status"] == ("failed" if attempt == MAX_ATTEMPTS else "queued")
    failure = held.failure()
    assert failure.name == "ours on bowl, tune trial 0"
    assert (failure.attempts, failure.error) == (3, "ValueError: number 3")
    assert held.retry_failed() == 1
    assert held.failure() is None
    assert store.read("SELECT status, attempt FROM trial WHERE id = 1")[0][:] == ("queued", 0)


# -- checkpoints -----------------------------------------------------------------------------


@pytest.fixture
def held(store: Store, experiment_id: str) -> tuple[int, str]:
    me = Identity()
    return leases(store, experiment_id, me).claim("tune", None).trial_id, me.worker


def point(step: int) -> tuple:
    return (step, None, None, "valid", "loss", float(step))


def test_the_newest_two_checkpoints_are_kept(store: Store, held: tuple[int, str]) -> None:
    for step in (5, 10, 15):
        assert save_checkpoint(store, *held, step, b"state %d" % step, [point(step)])
    files = sorted(p.name[:9] for p in store.checkpoints.root.rglob("*.pt"))
    assert files == ["000000010", "000000015"]
    assert restore(store, held[0]) == (b"state 15", "")
    assert [r[0] for r in store.read("SELECT step FROM metric ORDER BY step")] == [5, 10, 15]


@pytest.mark.parametrize("damage", ["cut", "flip", "missing"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    store: Store, held: tuple[int, str], damage: str
) -> None:
    trial, worker = held
    for step in (5, 10):
        save_checkpoint(store, trial, worker, step, b"state %d" % step, [point(step)])
    write_rows(store, trial, worker, [point(12)])
    [newest] = store.checkpoints.root.rglob("000000010*.pt")
    if damage == "cut":
        newest.write_bytes(b"state")
    elif damage == "flip":
        newest.write_bytes(b"state 11")
    else:
        newest.unlink()
    state, note = restore(store, trial)
    assert state == b"state 5"
    assert note == "the checkpoint after step 10 is damaged: going on from step 5"
    # What came after step 5 will be told again.
    assert [r[0] for r in store.read("SELECT step FROM metric")] == [5]
    # The next checkpoint replaces the damaged one and keeps the good one.
    save_checkpoint(store, trial, worker, 10, b"again", [point(10)])
    assert restore(store, trial) == (b"again", "")
    assert [r[0] for r in store.read("SELECT step FROM checkpoint ORDER BY step")] == [5, 10]


def test_all_damaged_begins_again(store: Store, held: tuple[int, str]) -> None:
    save_checkpoint(store, *held, 5, b"x", [point(5)])
    for file in store.checkpoints.root.rglob("*.pt"):
        file.write_bytes(b"y")
    assert restore(store, held[0]) == (
        None,
        "the checkpoint after step 5 is damaged: the trial begins again",
    )
    assert store.read("SELECT count(*) FROM metric")[0][0] == 0


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(
    store: Store, held: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(store, *held, 5, b"good", [])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints_module.os, "fsync", full)
    with pytest.raises(StoreError, match=r"could not be written \(No space left on device\)"):
        save_checkpoint(store, *held, 10, b"bad", [point(10)])
    assert [p.name[:9] for p in store.checkpoints.root.rglob("*.*")] == ["000000005"]
    assert restore(store, held[0]) == (b"good", "")
    assert store.read("SELECT count(*) FROM metric")[0][0] == 0


def test_a_finished_trial_leaves_no_files(
    store: Store, experiment_id: str, held: tuple[int, str]
) -> None:
    trial, worker = held
    save_checkpoint(store, trial, worker, 5, b"x", [])
    mine = dataclasses.replace(Identity(), worker=worker)
    leases(store, experiment_id, mine).finish(trial, Ending(trial, "done"))
    assert not store.checkpoints.root.exists()
    assert store.read("SELECT count(*) FROM checkpoint")[0][0] == 0


def test_what_a_kill_left_behind_is_swept(store: Store, held: tuple[int, str]) -> None:
    trial = held[0]
    store.checkpoints.write(trial, 5, b"x")
    store.checkpoints.write(2, 5, b"y")
    store.read("UPDATE trial SET status = 'done' WHERE id = 2")  # killed before it removed files
    store.sweep()
    assert store.checkpoints.trials() == [str(trial)]


def test_names_of_checkpoints_never_collide(store: Store) -> None:
    paths = {store.checkpoints.write(1, 5, b"x")[0] for _ in range(20)}
    assert len(paths) == 20


def test_a_worker_dies_with_its_run() -> None:
    with pytest.raises(SystemExit) as caught:
        identity_module.die_with_parent(1 if os.getppid() != 1 else 2, 9)
    assert caught.value.code == 137


def test_a_closed_store_is_one_file(tmp_path: Path) -> None:
    with Database(tmp_path / "x.db"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["x.db"]
