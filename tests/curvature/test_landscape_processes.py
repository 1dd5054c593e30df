"""Planes that are kept, gone on with, put together, and dealt out to two gloo processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.curvature.nets import problem

from gradworks.curvature.landscape import LossPlane, centered_grid, loss_plane, random_directions

SCRIPT = Path(__file__).with_name("landscape_process.py")


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch was built without gloo",
)
@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SCRIPT), str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        outputs = [p.communicate(timeout=120) for p in processes]
    finally:
        for p in processes:
            if p.poll() is None:
                p.kill()
                p.wait()
    for process, (out, err) in zip(processes, outputs):
        assert process.returncode == 0, err[-3000:]
        assert out == "done\n"


def test_parts_are_put_together() -> None:
    model, loss_fn, data = problem()
    a, b = random_directions(model)
    at = centered_grid(5)
    options: dict[str, Any] = {"alphas": at, "betas": at}
    whole = loss_plane(model, loss_fn, data, a, b, **options)
    parts = [loss_plane(model, loss_fn, data, a, b, rows=r, **options) for r in ([0, 3], [1, 2, 4])]
    assert parts[0].num_missing == 15
    merged = LossPlane.merge(parts)
    torch.testing.assert_close(merged.loss, whole.loss)
    assert torch.equal(merged.center, merged.loss[2, 2])
    with pytest.raises(ValueError, match="differently"):
        LossPlane.merge([whole, LossPlane(at, at, whole.loss + 1)])
    with pytest.raises(ValueError, match="another plane"):
        LossPlane.merge([whole, LossPlane(at, at, whole.loss, mode="train")])


class Killed(Exception):
    pass


def test_an_interrupted_plane_is_gone_on_with(tmp_path: Path) -> None:
    model, loss_fn, data = problem()
    a, b = random_directions(model)
    at = centered_grid(5)
    seen: list[int] = []
    options: dict[str, Any] = {"alphas": at, "betas": at, "vectorize": "never"}
    options["resume"] = tmp_path / "plane"

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done >= 5:
            raise Killed

    with pytest.raises(Killed):
        loss_plane(model, loss_fn, data, a, b, progress=stop, **options)
    kept = LossPlane.load(tmp_path / "plane.npz")
    assert 0 < kept.num_missing < 25
    rest: list[int] = []
    plane = loss_plane(
        model, loss_fn, data, a, b, progress=lambda done, _: rest.append(done), **options
    )
    assert rest[0] > 25 - kept.num_missing  # what was there is counted, not measured again
    assert rest[-1] == 25
    want = loss_plane(model, loss_fn, data, a, b, alphas=at, betas=at, vectorize="never")
    assert torch.equal(plane.loss, want.loss)
    assert LossPlane.load(tmp_path / "plane.npz").num_missing == 0
    for change in ({"mode": "train"}, {"betas": at / 2}):
        with pytest.raises(ValueError, match="another plane"):
            loss_plane(model, loss_fn, data, a, b, **{**options, **change})
    with torch.no_grad():
        model[0].weight.add_(0.1)
    with pytest.raises(ValueError, match="another plane"):
        loss_plane(model, loss_fn, data, a, b, **options)


def test_planes_are_saved_whole(tmp_path: Path) -> None:
    at = centered_grid(3)
    plane = LossPlane(at, at, torch.rand(3, 3).double(), "train", "add", {"labels": ["x"]})
    plane.loss[0, 0] = torch.inf
    back = LossPlane.load(plane.save(tmp_path / "folder" / "p.npz"))
    assert torch.equal(back.loss, plane.loss)
    assert (back.mode, back.facts) == ("train", {"labels": ["x"]})
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["p.npz"]
    page = plane.write_html(tmp_path / "p.html", title="<b>")
    text = page.read_text()
    assert "&lt;b&gt;" in text
    assert "<b>" not in text[: text.index("<style>")]
    assert "src=" not in text.split("<script>")[0]
