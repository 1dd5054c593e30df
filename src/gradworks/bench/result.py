"""What came out of an experiment, as one JSON document: published, compared, drawn."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["FORMAT", "Result", "plain"]

FORMAT = 1  # version of the document


class Result:
    """The outcome of an experiment.

    Args:
        document: JSON-ready data; ``document["format"]`` says how it is laid out.

    Raises:
        ValueError: If the document is no result, or of a format that this version cannot read.

    Note:
        A value that is not finite (a diverged run) is None in the document.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        if not isinstance(document, dict) or "format" not in document:
            raise ValueError("document must be a result of gradworks: it has no 'format'")
        if document["format"] != FORMAT:
            raise ValueError(
                f"result has format {document['format']!r}, this gradworks reads {FORMAT}: "
                "upgrade gradworks or run the paper again"
            )
        self.document = document

    @property
    def paper(self) -> str:
        """Slug of the paper, or the name of a user's comparison."""
        return str(self.document["paper"])

    @property
    def preset(self) -> str:
        """``"quick"``, ``"full"``, ``"paper"`` or ``"custom"``."""
        return str(self.document["preset"])

    @property
    def status(self) -> str:
        """Status of the primary claim; ``"done"`` where there are no claims."""
        return str(self.document["status"])

    @property
    def claims(self) -> list[dict[str, Any]]:
        """The claims with their outcomes."""
        claims: list[dict[str, Any]] = self.document["claims"]
        return claims

    def values(
        self, metric: str, arm: str, workload: str | None = None, split: str = "test"
    ) -> dict[int, float]:
        """Return a final metric of an arm for every seed.

        Args:
            metric: Name of the metric.
            arm: Name of the arm.
            workload: Name of the workload; None averages over all that the arm ran on.
            split: ``"test"``, ``"valid"`` or ``"train"``.

        Returns:
            ``{seed: value}``; NaN where a run diverged.
        """
        found: dict[int, list[float]] = {}
        for run in self.document["finals"]:
            if run["arm"] != arm or workload not in (None, run["workload"]):
                continue
            metrics = run["metrics"].get(split, {})
            if metric in metrics or run["status"] == "diverged":
                value = metrics.get(metric)
                found.setdefault(run["seed"], []).append(math.nan if value is None else value)
        return {seed: sum(values) / len(values) for seed, values in sorted(found.items())}

    def curve(self, workload: str, arm: str, split: str, metric: str) -> dict[str, Any] | None:
        """Return the curve of a metric over the final seeds, or None if there is none.

        Args:
            workload: Name of the workload.
            arm: Name of the arm.
            split: ``"train"``, ``"valid"`` or ``"test"``.
            metric: Name of the metric.

        Returns:
            Lists ``step``, ``mean``, ``lo`` and ``hi`` (smallest and largest over the seeds).
            For the validation metric that the workload selects on also ``seconds`` and ``evals``
            (means at which a step was reached) and ``runs``: the values of each seed.
        """
        wanted = (workload, arm, split, metric)
        for curve in self.document["curves"]:
            if tuple(curve[key] for key in ("workload", "arm", "split", "metric")) == wanted:
                return {
                    key: curve[key]
                    for key in ("step", "mean", "lo", "hi", "seconds", "evals", "runs")
                    if key in curve
                }
        return None

    def write(self, path: str | Path) -> None:
        """Write the document: sorted keys, one file, whole or not at all.

        A value that is not finite is a ValueError.

        Args:
            path: The file; its folder is created.
        """
        path = Path(path)
        text = json.dumps(self.document, sort_keys=True, indent=1, allow_nan=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).chmod(0o644)
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    @classmethod
    def read(cls, path: str | Path) -> Result:
        """Return the result that :meth:`write` wrote.

        Args:
            path: The file.

        Raises:
            ValueError: If it is no result.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is no result of gradworks: {error}") from error
        return cls(document)


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: tuples as lists, numbers that are not finite as None.

    Args:
        value: Numbers, strings, None and containers of these.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
