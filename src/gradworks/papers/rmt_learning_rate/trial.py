"""One trial: all measurements of one workload and seed, or one training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from gradworks.papers.rmt_learning_rate import dampings, eigenvalues, largest_rates, learner
from gradworks.papers.rmt_learning_rate.cells import Cells

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial

__all__ = ["huge", "trial"]

_STUDIES: dict[str, Callable[[Cells], None]] = {
    "eigenvalues": eigenvalues.eigenvalues,
    "rates": largest_rates.largest_rates,
    "dampings": dampings.dampings,
}


def trial(trial: Trial) -> None:
    """Run a study's measurements, one after the other, or train once.

    Args:
        trial: ``spec["study"]`` says which.
    """
    if trial.spec["study"] == "learner":
        learner.train(trial)
    else:
        _STUDIES[trial.spec["study"]](Cells(trial))


def huge(trial: Trial) -> NoReturn:
    """The published scale: refuses.

    Args:
        trial: Names the network and the data.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset trains {wanted['network']} ({wanted['parameters']:,} parameters) on "
        f"{wanted['data']} for {wanted['epochs']} epochs a run, and no packaged data set has these "
        f"images: it needs {wanted['hardware']}. Run --preset full for a verdict on this machine"
    )
