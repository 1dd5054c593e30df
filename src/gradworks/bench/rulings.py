"""From the final runs in the store to verdicts in the store."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from gradworks.bench.claims import Verdict
from gradworks.bench.experiment import Experiment
from gradworks.bench.result import plain
from gradworks.bench.store import Store
from gradworks.bench.studies import studies

__all__ = ["SPLITS", "FinalFigures", "edges", "judge_and_keep", "kept"]

SPLITS = ("test", "valid", "train")  # where a claim's metric is looked for, in this order


class FinalFigures:
    """The figures of all finished final runs, as :func:`gradworks.bench.verdicts.judge` asks.

    Args:
        store: The run store.
        experiment_id: The experiment's row.
    """

    def __init__(self, store: Store, experiment_id: str) -> None:
        figures = store.final_metrics(experiment_id, "final")
        self._runs: dict[tuple[str, str], list[tuple[int, str, dict[str, Any]]]] = {}
        for row in store.trials(experiment_id, "final"):
            if row["status"] in ("done", "diverged"):
                self._runs.setdefault((row["arm"], row["workload"]), []).append(
                    (row["seed"], row["status"], figures.get(row["id"], {}))
                )

    def __call__(self, metric: str, arm: str, workload: str) -> dict[int, float | None]:
        """Return ``{seed: value}``; None for a run that diverged or whose figure is not finite.

        Args:
            metric: Name of a final metric.
            arm: Name of the arm.
            workload: Name of the workload.
        """
        found: dict[int, float | None] = {}
        for seed, status, figures in self._runs.get((arm, workload), ()):
            split = next((s for s in SPLITS if metric in figures.get(s, {})), None)
            if status == "diverged":
                found[seed] = None
            elif split is not None:
                found[seed] = figures[split][metric]
        return found


def edges(store: Store, experiment_id: str) -> set[str]:
    """Return the arms whose chosen point lies on the border of a space that is not widened again.

    Mostly after two widenings; in a study too small to widen, at once.

    Args:
        store: The run store.
        experiment_id: The experiment's row.
    """
    return {s.arm for s in studies(store, experiment_id) if s.on_edge and s.chosen is not None}


def judge_and_keep(store: Store, experiment_id: str, experiment: Experiment) -> list[Verdict]:
    """Judge the claims on the final runs and write the verdicts down.

    Args:
        store: The run store.
        experiment_id: The experiment's row; it is ``done`` afterwards.
        experiment: What was run.
    """
    from gradworks.bench.verdicts import judge

    verdicts = judge(
        experiment.claims,
        FinalFigures(store, experiment_id),
        workloads=[w.name for w in experiment.workloads],
        preset=experiment.preset,
        edges=edges(store, experiment_id),
        expected_seeds=experiment.final_seeds,
    )
    verdicts = [_in_words(verdict, experiment) for verdict in verdicts]
    _keep(store, experiment_id, experiment, verdicts)
    return verdicts


def _in_words(verdict: Verdict, experiment: Experiment) -> Verdict:
    """Say labels where the sentences name arms, and write a metric's name as words."""
    # A label that stands there already, as in a criterion's name, is not an arm's name to replace.
    words = {arm.label: arm.label for arm in experiment.arms}
    words |= {arm.name: arm.label for arm in experiment.arms}
    metrics = (c.metric for claim in experiment.claims for c in claim.criteria)
    words |= {metric: metric.replace("_", " ") for metric in metrics}
    names = sorted(words, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, names))})(?![\w-])(?!\.\d)")

    def said(text: str) -> str:
        return pattern.sub(lambda found: words[found.group()], text)

    outcomes = tuple(replace(o, text=said(o.text)) for o in verdict.outcomes)
    return replace(verdict, text=said(verdict.text), outcomes=outcomes)


def _keep(
    store: Store, experiment_id: str, experiment: Experiment, verdicts: Sequence[Verdict]
) -> None:
    with store.transaction() as connection:
        for verdict in verdicts:
            outcomes = [plain(asdict(outcome)) for outcome in verdict.outcomes]
            first = outcomes[0] if outcomes else {}
            columns = ("estimate", "lo", "hi", "p", "p_adj", "n", "min_effect", "n_needed")
            connection.execute(
                "INSERT OR REPLACE INTO verdict (experiment_id, claim, verdict, estimate, lo, hi,"
                " p, p_adj, n, min_effect, n_needed, protocol_hash, text, created, outcomes) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    experiment_id,
                    verdict.claim,
                    verdict.status,
                    *(first.get(name) for name in columns),
                    experiment.protocol_hash,
                    verdict.text,
                    time.time(),
                    json.dumps(outcomes, sort_keys=True),
                ),
            )
        connection.execute("UPDATE experiment SET state = 'done' WHERE id = ?", (experiment_id,))


def kept(store: Store, experiment_id: str) -> dict[str, dict[str, Any]]:
    """Return the stored verdicts: ``{claim: {"status", "text", "outcomes"}}``.

    Args:
        store: The run store.
        experiment_id: The experiment's row.
    """
    return {
        row["claim"]: {
            "status": row["verdict"],
            "text": row["text"],
            "outcomes": json.loads(row["outcomes"]),
        }
        for row in store.read("SELECT * FROM verdict WHERE experiment_id = ?", experiment_id)
    }
