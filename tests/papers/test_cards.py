"""The 28 papers the project is about: the facts of their cards, copied once from their pages."""

from __future__ import annotations

import pytest

from gradworks.papers import find, papers

# slug: (date, authors, arXiv)
FACTS = {
    "adahessian": ("2020-06-01", 6, "2006.00719"),
    "adamp": ("2020-06-15", 8, "2006.08217"),
    "anyloss": ("2024-05-23", 3, "2405.14745"),
    "apex": ("2026-04-14", 6, "2604.12322"),
    "aro": ("2026-02-09", 6, "2602.09006"),
    "butterfly": ("2020-12-28", 5, "1903.05895"),
    "camouflage": ("2022-03-18", 9, "2203.09831"),
    "convex-relu": ("2022-01-06", 3, "2201.01965"),
    "dct-adamw": ("2025-05-23", 4, "2505.17967"),
    "deep-conjugate-direction": ("2022-05-22", 6, "2205.10763"),
    "delta-product": ("2025-02-14", 6, "2502.10297"),
    "diffgrad": ("2019-09-12", 6, "1909.11015"),
    "gbw-batchnorm": ("2025-04-01", 5, "2504.00660"),
    "gcond": ("2025-09-08", 2, "2509.07252"),
    "gradient-coding": ("2022-11-24", 3, "2211.13802"),
    "gradient-normalized": ("2025-06-16", 3, "2506.13710"),
    "hessian-alignment": ("2023-08-22", 4, "2308.11778"),
    "hessian-spectrum": ("2017-06-14", 5, "1706.04454"),
    "in-context-gd": ("2022-12-15", 7, "2212.07677"),
    "langevin": ("2026-03-06", 3, "2603.06028"),
    "loldu": ("2024-10-17", 7, "2410.13618"),
    "loss-landscape": ("2024-12-13", 1, "2412.10146"),
    "lv-hba": ("2024-01-29", 4, "2401.16164"),
    "matrix-sensing": ("2023-10-02", 3, "2310.01769"),
    "ms-ssim": ("2015-11-19", 6, "1511.06409"),
    "regularized-stacking": ("2026-02-12", 2, "2602.12469"),
    "rmt-learning-rate": ("2020-06-16", 3, "2006.09092"),
    "sam-gs": ("2025-06-06", 4, "2506.06130"),
}

# The figure that each paper is known for, as its claims print it.
HEADLINES = {
    "adahessian": ("+1.80 / +1.45", "+5.55", "0.9231 / 0.9222", "+0.032 %"),
    "apex": ("20B full .89", "15.33x", "0.6B 6.99", "1:1 .77", "-.5 .75 .79 .81 .70"),
    "aro": ("1.3-1.35x", "1.1-1.15x", "0.02 (Sign) and 0.008"),
    "butterfly": ("5.7e-5", "1.9e-2 at N = 1024", "215x, 131x, 66x", "+3.9 points"),
    "camouflage": ("16.91 / 41.95", ".000751", "90.67 / 92.20 / 87.84 / 94.30"),
    "dct-adamw": ("13.69 against 13.91", "15.30 / 12.22 / 11.28", "25 %"),
    "diffgrad": ("-0.3",),
    "gbw-batchnorm": ("100 %",),
    "gcond": ("Two-fold", "+4.5 %"),
    "gradient-coding": ("16 %", "916.37±63.14", "1095.14±50.66", "0.007543", "290 ms"),
    "gradient-normalized": ("29.0 s", "83.9 s", "442 s", "0.91 s", "328.6 s", "87.1 s"),
    "langevin": ("d^{k*/2}",),
    "loldu": ("2600x",),
    "matrix-sensing": ("1/T^2", "alpha^2 T"),
    "ms-ssim": ("7 to 1",),
    "regularized-stacking": ("8.582", "8.894", "8.627", "8.603", "712.8 s", "847 -> 392", "37"),
}


def test_the_28_are_all_there() -> None:
    assert len(FACTS) == 28
    assert FACTS.keys() <= {paper.slug for paper in papers()}


@pytest.mark.parametrize("slug", FACTS)
def test_facts(slug: str) -> None:
    card = find(slug).card
    assert (card.date, card.authors, card.arxiv) == FACTS[slug]


@pytest.mark.parametrize("slug", HEADLINES)
def test_headlines(slug: str) -> None:
    printed = " ".join(claim.published for claim in find(slug).claims)
    for figure in HEADLINES[slug]:
        assert figure in printed, f"{figure!r} is not among {slug}'s published figures"


def test_titles_dates_and_packages_are_not_copied_from_another_card() -> None:
    for what in ("title", "summary", "package", "usage"):
        values = [getattr(paper.card, what) for paper in papers()]
        assert len(set(values)) == len(values), f"two cards share a {what}"


def test_the_runnable_ones_run() -> None:
    runnable = {paper.slug for paper in papers() if not paper.planned}
    assert {"adamp", "anyloss", "hessian-spectrum"} <= runnable
