"""One trial: all runs of one workload and seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from gradworks.papers.matrix_sensing import methods, questions, runs
from gradworks.papers.matrix_sensing.cells import Cells

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial

__all__ = ["huge", "trial"]

_KINDS: dict[str, Callable[[Cells], None]] = {
    "symmetric": runs.symmetric,
    "digits": runs.digits,
    "exact": runs.exact,
    "asymmetric": runs.asymmetric,
    "one-step": runs.one_step,
    "questions": questions.questions,
    "compared": methods.compared,
}


def trial(trial: Trial) -> None:
    """Run the workload's cells, one after the other, and judge them together.

    Args:
        trial: ``spec["kind"]`` says what is run.

    Raises:
        Diverged: If gradient descent does.
    """
    from gradworks.bench.trial import Diverged

    try:
        _KINDS[trial.spec["kind"]](Cells(trial))
    except FloatingPointError as error:
        raise Diverged(str(error)) from error


def huge(trial: Trial) -> NoReturn:
    """The published scale: refuses.

    Args:
        trial: Names the sizes.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset takes {wanted['steps']:,} steps for each of {len(wanted['ks'])} numbers "
        f"of columns up to {max(wanted['ks'])} and {len(wanted['alphas'])} scales of the start, "
        f"with up to {wanted['factor'] * wanted['n'] * max(wanted['ks']):,} measurements: it needs "
        f"{wanted['hardware']}. Run --preset full for a verdict on this machine"
    )
