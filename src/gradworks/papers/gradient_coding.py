"""Sequential Gradient Coding For Straggler Mitigation (2022, arXiv:2211.13802).

Its card and its claims; ``PRESETS``, ``build`` and ``figures``, which make it run, are still to
come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="gradient-coding",
    title="Sequential Gradient Coding For Straggler Mitigation",
    date="2022-11-24",
    authors=3,
    arxiv="2211.13802",
    venue="ICLR 2023",
    code="https://github.com/mamaj/Sequential-Gradient-Coding-2",
    licence="no licence stated",
    summary=(
        "When a synchronous job waits for the slowest of many cheap workers, redundancy can spare "
        "the wait: each worker sends a coded sum of gradients, and any large enough group is "
        "enough to decode the exact total. This paper codes over rounds as well as over workers, "
        "retrying some pieces and coding others, which lowers the redundant load. For serverless "
        "and spot machines, with several networks trained at once."
    ),
    area="distributed",
    package="gradworks.distributed.gradient_coding",
    usage="""\
from gradworks.distributed.gradient_coding import MSGC, run_in_process, simulate

scheme = MSGC(n=256, B=1, W=2, lam=27)
print(scheme.load, simulate(scheme, finish_times, n_jobs=80).durations.sum())
""",
    tags=("distributed", "stragglers", "coding", "ray", "fault tolerance"),
)

CLAIMS = (
    Claim(
        id="runtime",
        statement="Multiplexed sequential coding finishes the jobs faster than gradient coding.",
        published=(
            "16 % less runtime (abstract). Mean and sd of 10 runs: M-SGC(1,2,27) 916.37±63.14 s, "
            "SR-SGC(2,3,23) 1019.46±49.92, GC(15) 1095.14±50.66, uncoded 1321.18±86.84."
        ),
        holds_when=(
            "The paired difference in total runtime to gradient coding that tolerates s "
            "stragglers has its bootstrap 95 % interval wholly at 10 % or more; partly, if wholly "
            "above 0."
        ),
        setting="256 Lambda workers, 4 CNNs on MNIST, natural stragglers.",
        scaled_down=(
            "Simulation on 256 workers with a fitted generator of delays, and a small run on real "
            "processes."
        ),
        primary=True,
    ),
    Claim(
        id="waits",
        statement="The master has to wait for every worker in fewer rounds than without coding.",
        published="Of about 496 rounds: M-SGC 295.8, SR-SGC 242.4, GC 129.0, uncoded 496.0.",
        holds_when="Reported for both wait-out rules.",
        setting="256 Lambda workers, 4 CNNs on MNIST, natural stragglers.",
        scaled_down="Simulation.",
    ),
    Claim(
        id="load",
        statement=(
            "The share of the data that a worker processes a round follows the formula and is far "
            "below gradient coding's."
        ),
        published="M-SGC 0.007543, SR-SGC 0.050781, GC 0.0625, uncoded 0.003906.",
        holds_when="Exact, as fractions, for the published parameters.",
        setting="256 workers.",
    ),
    Claim(
        id="probing",
        statement="Probing the uncoded job for a while is enough to choose the parameters.",
        published=(
            "Estimated runtime of 80 jobs: M-SGC 103.73 s, SR-SGC 105.92, GC 109.36, uncoded "
            "122.64."
        ),
        holds_when="Reported: the parameters that probing chooses, beside the best in hindsight.",
        setting="A 100-round profile.",
        scaled_down="The generator of delays.",
    ),
    Claim(
        id="decoding",
        statement="Decoding costs a fraction of a second.",
        published="290 ms ± 18.7 at n = 256, s = 27.",
        holds_when="Reported beside a matrix-vector product of the same size.",
        setting="Authors' notebook.",
        scaled_down="One CPU thread.",
    ),
)
