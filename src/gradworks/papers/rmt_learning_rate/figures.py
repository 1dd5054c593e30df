"""What the page of the paper shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from gradworks.bench.figures import Figure, Series

if TYPE_CHECKING:
    from gradworks.bench.result import Result

__all__ = ["figures"]

_ARMS = {
    "constant": "SGD, constant",
    "cosine": "SGD, cosine",
    "one-cycle": "SGD, one cycle",
    "heavy-ball": "learner, heavy ball",
    "rmt": "learner, random matrix theory",
}


def figures(result: Result) -> list[Figure]:
    """Return the plots of a result; those whose studies did not run are left out.

    Args:
        result: Outcome of the experiment.

    Returns:
        Largest rates and extreme eigenvalues against the batch size, dampings, trainings.
    """
    drawn = [
        *(_rates(result, w) for w in _workloads(result, "rates")),
        *(_eigenvalues(result, w) for w in _workloads(result, "eigenvalues")),
        *(_dampings(result, w) for w in _workloads(result, "dampings")),
        *(f for w in _workloads(result, "learner") for f in _learners(result, w)),
    ]
    return [figure for figure in drawn if figure.series]


def _workloads(result: Result, study: str) -> Iterator[Mapping[str, Any]]:
    """The workloads of one study."""
    return (w for w in result.document["workloads"] if w["spec"].get("study") == study)


def _series(
    result: Result,
    workload: Mapping[str, Any],
    arm: str,
    metric: str,
    name: str,
    *,
    split: str = "train",
    style: Literal["line", "points", "reference"] = "line",
    inverse: bool = False,
) -> tuple[Series, ...]:
    """A curve over the seeds, with smallest and largest; nothing where it was not logged."""
    curve = result.curve(workload["name"], arm, split, metric)
    if curve is None:
        return ()
    x = [1 / s for s in curve["step"]] if inverse else list(curve["step"])
    band = style != "reference"
    return (
        Series(
            name=name,
            x=x,
            y=curve["mean"],
            lo=curve["lo"] if band else None,
            hi=curve["hi"] if band else None,
            style=style,
        ),
    )


def _rates(result: Result, workload: Mapping[str, Any]) -> Figure:
    """Largest rate against batch size, both optimizers."""
    series = [
        one
        for arm, label in (("sgd", "SGD"), ("adam", "Adam"))
        for metric, words in (("rate", "loss below 1"), ("rate_loose", "loss below log 10"))
        for one in _series(result, workload, arm, metric, f"{label}, {words}")
    ]
    series += _series(result, workload, "sgd", "law", "2 / Law 1", style="reference")
    return Figure(
        id=workload["name"],
        title=f"Largest learning rate: {workload['label']}",
        caption=(
            "The largest rate that trains, by two thresholds, mean and range over seeds. By the "
            "paper SGD's goes with the batch size until it saturates, Adam's with the square root. "
            "Dashed: the stability bound at the eigenvalue that Law 1 predicts."
        ),
        x_label="batch size",
        y_label="learning rate",
        series=tuple(series),
        x_log=True,
        y_log=True,
    )


def _eigenvalues(result: Result, workload: Mapping[str, Any]) -> Figure:
    """Measured and predicted extreme eigenvalues."""
    kinds: tuple[tuple[str, str, Literal["points", "reference"]], ...] = (
        ("top", "Hessian", "points"),
        ("predicted", "Law 1", "reference"),
        ("ggn", "Gauss-Newton", "points"),
        ("predicted_ggn", "Law 2", "reference"),
    )
    series = [
        one
        for metric, name, style in kinds
        for one in _series(result, workload, "network", metric, name, style=style)
    ]
    fit = ", ".join(map(str, workload["spec"]["fit"]))
    return Figure(
        id=workload["name"],
        title=f"Largest eigenvalue of a batch: {workload['label']}",
        caption=(
            "Mean over batches of the largest eigenvalue, mean and range over seeds, and what the "
            f"laws say with the noise fitted at batch sizes {fit}."
        ),
        x_label="batch size",
        y_label="largest eigenvalue",
        series=tuple(series),
        x_log=True,
        y_log=True,
    )


def _dampings(result: Result, workload: Mapping[str, Any]) -> Figure:
    """The smallest damping against lr/B."""
    spec = workload["spec"]
    series = []
    curve = result.curve(workload["name"], "damped", "train", "damping_by_batch")
    if curve is not None:
        series.append(_over(curve, [spec["lr"] / B for B in curve["step"]], "batch sizes"))
    curve = result.curve(workload["name"], "damped", "train", "damping_by_rate")
    if curve is not None:
        x = [1 / step / spec["batch_size"] for step in curve["step"]]
        series.append(_over(curve, x, "learning rates"))
    return Figure(
        id=workload["name"],
        title="Smallest damping that trains",
        caption=(
            "The smallest damping of Gauss-Newton steps on batches that trains, mean and range "
            "over seeds, for several batch sizes at one rate and several rates at one batch size. "
            "By the paper both lie on one line of slope 1."
        ),
        x_label="learning rate / batch size",
        y_label="damping",
        series=tuple(series),
        x_log=True,
        y_log=True,
    )


def _over(curve: Mapping[str, Any], x: list[float], name: str) -> Series:
    """A curve against other positions, in rising order."""
    rows = sorted(zip(x, curve["mean"], curve["lo"], curve["hi"]))
    return Series(
        name=name,
        x=[r[0] for r in rows],
        y=[r[1] for r in rows],
        lo=[r[2] for r in rows],
        hi=[r[3] for r in rows],
        style="points",
    )


def _learners(result: Result, workload: Mapping[str, Any]) -> list[Figure]:
    """Errors of all arms, and the rates that they used."""
    name, label = workload["name"], workload["label"]
    errors = [
        one
        for arm, words in _ARMS.items()
        for one in _series(result, workload, arm, "error", words, split="valid")
    ]
    rates = [
        one for arm, words in _ARMS.items() for one in _series(result, workload, arm, "lr", words)
    ]
    return [
        Figure(
            id=name,
            title=f"Error in training: {label}",
            caption=(
                "Share of wrong answers on the validation part, mean and range over seeds. The "
                "learners were not tuned, each schedule is the best of eight runs."
            ),
            x_label="steps",
            y_label="error",
            series=tuple(errors),
        ),
        Figure(
            id=f"{name}-rates",
            title=f"Learning rates: {label}",
            caption="The rate at the end of every epoch, mean and range over seeds.",
            x_label="steps",
            y_label="learning rate",
            series=tuple(rates),
            y_log=True,
        ),
    ]
