"""Regularized Meta-Learning for Improved Generalization (2026, arXiv:2602.12469).

Its card and its claims; ``PRESETS``, ``build`` and ``figures``, which make it run, are still to
come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="regularized-stacking",
    title="Regularized Meta-Learning for Improved Generalization",
    date="2026-02-12",
    authors=2,
    arxiv="2602.12469",
    code="https://github.com/metarl/regularized-metalearning",
    licence="MIT",
    summary=(
        "Stacking when there are dozens of nearly identical base models: drop near duplicates, "
        "add statistics of each row of predictions, fit Ridge, Lasso and ElasticNet by nested "
        "cross-validation and average the three. For anyone who blends many models on tables. The "
        "input is a matrix of out-of-fold predictions or the models themselves. Published figures "
        "of the project differ among each other, so the verdict rests on relations between "
        "methods."
    ),
    area="ensemble",
    package="gradworks.ensemble.stacking",
    usage="""\
from gradworks.ensemble.stacking import RegularizedStacking, out_of_fold

P = out_of_fold(models, X, y, cv=5)
blend = RegularizedStacking().fit(P, y)
print(blend.oof_rmse_, blend.weights_)
""",
    tags=("ensemble", "stacking", "tabular", "ridge", "regression", "cross-validation"),
)

CLAIMS = (
    Claim(
        id="rmse",
        statement=(
            "The full pipeline predicts better than averaging, Ridge stacking and hill climbing."
        ),
        published="OOF RMSE: full 8.582, mean 8.894, Ridge stack 8.627, hill climbing 8.603.",
        holds_when=(
            "Paired differences of test RMSE over splits, bootstrap 95 % interval: below "
            "averaging, below Ridge stacking, and not worse than hill climbing."
        ),
        setting="Playground S6E1, 100K rows, 72 base models.",
        scaled_down="Flight delays and diamond prices, 72 base models, 5 test splits.",
        primary=True,
    ),
    Claim(
        id="runtime",
        statement="Runs faster than hill climbing.",
        published="712.8 s against 2,841.6 s (4x); mean 3.2, Ridge stack 189.3.",
        holds_when="Time on the same matrix below that of a vectorised hill climbing.",
        setting="Playground S6E1, 100K rows, 72 base models.",
        scaled_down="One CPU core.",
    ),
    Claim(
        id="single",
        statement="The three learners alone come close to the blend.",
        published="Ridge 8.583, lasso 8.584, elasticnet 8.584; best single base model 9.247.",
        holds_when="Reported: test RMSE of each learner beside the blend's, paired over splits.",
        setting="Playground S6E1, 100K rows, 72 base models.",
        scaled_down="One CPU core.",
    ),
    Claim(
        id="condition",
        statement="Dropping near duplicates improves the conditioning.",
        published="847 -> 392 (-53.7 %).",
        holds_when="The condition number of the correlation matrix falls by at least 50 %.",
        setting="Playground S6E1, 100K rows, 72 base models.",
        scaled_down="One CPU core.",
    ),
    Claim(
        id="retained",
        statement="About half of the base models are kept.",
        published="37 models retained.",
        holds_when="Reported for both scales of the thresholds.",
        setting="Playground S6E1, 100K rows, 72 base models.",
        scaled_down="One CPU core.",
    ),
)
