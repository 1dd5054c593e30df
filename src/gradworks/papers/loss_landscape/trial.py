"""One trial: a network of one seed, its criteria under every shift, and its planes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from gradworks.papers.loss_landscape.planes import Planes
from gradworks.papers.loss_landscape.presets import AXES
from gradworks.papers.loss_landscape.session import Session
from gradworks.papers.loss_landscape.spectra import correlations, under_shift, with_steps

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial

__all__ = ["published", "trial"]


def trial(trial: Trial) -> None:
    """Train the network that the workload names and measure it.

    Args:
        trial: The trial.
    """
    session = Session(trial)
    session.learn()
    _spectra(session)
    _planes(session)


def _spectra(session: Session) -> None:
    """Criteria under every shift, what they follow, and what Kh owes to the Lanczos steps."""
    spec, trial = session.spec, session.trial
    asked = dict.fromkeys(
        (kind, float(level)) for kind, level in (*spec["shifts"], *spec["ladder"])
    )
    found = {
        (kind, level): session.cell(f"{kind}{level:g}", partial(under_shift, session, kind, level))
        for kind, level in asked
    }

    def over(name: str) -> dict[str, float]:
        return correlations([found[kind, float(level)] for kind, level in spec[name]])

    trial.result("test", **over("shifts"))
    if spec["ladder"]:
        trial.result("test", **{f"ladder_{key}": value for key, value in over("ladder").items()})
    for steps in spec["kh_steps"]:
        session.cell(f"kh_{steps}", partial(with_steps, session, int(steps)))


def _planes(session: Session) -> None:
    """Planes in all modes; with batch norm the ratios that decide."""
    spec = session.spec
    planes = Planes(session)
    random = session.cell("random", planes.random)
    hessian = session.cell("hessian", planes.hessian)
    long = session.cell("hessian_long", planes.hessian_long)
    if spec["network"]["norm"]:
        short = session.cell("random_short", planes.random_short)
        batch = session.cell("hessian_batch", planes.hessian_batch)
        session.cell("scaling", planes.scaling)
        # the first two decide; the others say what they owe to length, measure and statistics
        session.trial.result(
            "test",
            bn_ratio=random["gap"] / hessian["gap"],
            bn_ratio_long=random["gap"] / long["gap"],
            bn_ratio_short=short["gap"] / hessian["gap"],
            bn_ratio_long_median=random["gap_median"] / long["gap_median"],
            bn_ratio_long_height=random["gap_height"] / long["gap_height"],
            bn_ratio_batch=random["gap"] / batch["gap"],
        )
    if spec["table_points"]:
        for axes in AXES:
            if axes != "adam" or spec["optimizer"] == "adam":
                session.cell(f"table_{axes}", partial(planes.table, axes))


def published(trial: Trial) -> NoReturn:
    """The published scale: refuses.

    Args:
        trial: Names the network.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset measures torchvision's {wanted['torchvision']} on {wanted['images']:,} "
        f"images of each of {', '.join(wanted['shifts'])} and its planes at {wanted['points']}x"
        f"{wanted['points']} points: it needs {wanted['hardware']}. Run --preset full for a "
        f"verdict on this machine"
    )
