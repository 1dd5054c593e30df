"""Two questions that reviewers asked and the paper has no figure for; no claim hangs on them."""

from __future__ import annotations

from gradworks.papers.matrix_sensing.cells import Cells, errors_of
from gradworks.papers.matrix_sensing.presets import LR, RANK
from gradworks.papers.matrix_sensing.runs import SEEN, Figures, pose

__all__ = ["questions"]

SOLVED = 1e-10


def questions(cells: Cells) -> None:
    """Which imbalance of the start is best, and what noise does to spare columns.

    Args:
        cells: Their workload names imbalances and lengths of the noise.
    """
    for by in cells.spec["imbalances"]:
        cells.run(f"i{by:g}", _imbalance, float(by))
    for level in cells.spec["noises"]:
        for k in (RANK, int(cells.spec["k"])):
            cells.run(f"noise{level:g}_k{k}", _noise, float(level), k)


def _imbalance(cells: Cells, by: float) -> Figures:
    """Steps to a squared error of 1e-10; as many as there are where it is not reached."""
    from gradworks.solvers.matrix_sensing import asymmetric_gd

    spec, source = cells.spec, cells.generator("imbalance")
    k, steps = int(spec["k"]), int(spec["steps"])
    op, y, M = pose(source, int(spec["n"]), k, factor=None, symmetric=False)
    result = asymmetric_gd(
        op,
        y,
        k,
        lr=LR,
        alpha=float(spec["alpha"]),
        imbalance=by,
        max_iter=steps,
        target=M,
        generator=source,
    )
    small = (errors_of(result) < SOLVED).nonzero()
    solved = len(small) > 0
    return {"steps": float(small[0]) if solved else float(steps), "solved": float(solved)}


def _noise(cells: Cells, level: float, k: int) -> Figures:
    """Squared error at the end over that of the matrix, and the least on the way."""
    from gradworks.solvers.matrix_sensing import accelerated_gd

    spec, source = cells.spec, cells.generator("noise")
    most, factor = int(spec["k"]), int(spec["factor"])
    op, y, M = pose(source, int(spec["n"]), most, factor=factor, symmetric=False, noise=level)
    result = accelerated_gd(
        op,
        y,
        k,
        lr=LR,
        alpha=float(spec["alpha"]),
        beta=float(spec["beta"]),
        max_iter=int(spec["steps"]),
        target=M,
        record_every=SEEN,
        generator=source,
    )
    errors = errors_of(result) / M.square().sum()
    return {"error": float(errors[-1]), "best": float(errors.min())}
