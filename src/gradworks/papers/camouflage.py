"""DTA (2022, arXiv:2203.09831): its card and its claims.

``PRESETS``, ``build`` and ``figures``, which make it run, are still to come.
"""

from __future__ import annotations

from gradworks.bench.claims import Claim
from gradworks.papers._model import Card

__all__ = ["CARD", "CLAIMS"]

CARD = Card(
    slug="camouflage",
    title="DTA: Physical Camouflage Attacks using Differentiable Transformation Network",
    date="2022-03-18",
    authors=9,
    arxiv="2203.09831",
    venue="CVPR 2022",
    code="https://github.com/difftransattack/dta",
    licence="no licence stated; the method's code is withheld",
    summary=(
        "Measures how an object detector behaves when the paint of an object is chosen against "
        "it. A network learns from a renderer how a scene changes with the paint, which makes the "
        "black-box renderer differentiable in the texture. Here it is planned as a robustness "
        "report and a hardening tool for detectors one owns: confidence and precision under "
        "plain, random and optimised patterns, by view, on synthetic scenes only."
    ),
    area="physical",
    package="gradworks.physical.camouflage",
    usage="""\
from gradworks.physical.camouflage import DTN, CamouflageAttack, SurfaceProjection, evaluate

attack = CamouflageAttack(DTN(levels=4), SurfaceProjection(), detector, size=16)
pattern = attack.run(buffers, steps=200).pattern
report = evaluate(renderer, held_out_views, detectors, {"optimised": pattern})
""",
    tags=("robustness", "detection", "rendering", "adversarial", "texture"),
)

CLAIMS = (
    Claim(
        id="evades",
        statement=(
            "A pattern optimised through the learned renderer hides cars from detectors, also "
            "from detectors it was not made for."
        ),
        published=(
            "Direction (abstract). AP@.5 of car under YOLOv3, in the method's own pipeline / "
            "re-rendered: 16.91 / 41.95, against 99.57 for the normal car (figures of the "
            "follow-up ACTIVE, its Table 2)."
        ),
        holds_when=(
            "AP of the attacked detector under the optimised pattern is below the 5 % quantile of "
            "random patterns on re-rendered held-out views, and the drop transfers to a second "
            "detector with an interval above 0."
        ),
        setting="CARLA, EfficientDet-D0 and others.",
        scaled_down="A ray-traced low-poly car at 128x128, small detectors trained on renders.",
        primary=True,
    ),
    Claim(
        id="transformation",
        statement=(
            "The transformation network predicts renderings; the dense variant is the one released."
        ),
        published="Test error (mse): dense .000751, res .000673, conv .000817.",
        holds_when="RMSE on held-out views and on patterns at most 1.5x that on flat colours.",
        setting="CARLA, 50 random colours.",
        scaled_down="9 flat colours, 60 views.",
    ),
    Claim(
        id="random-patterns",
        statement="Random patterns alone already cost detectors much precision.",
        published=(
            "AP@.5 of YOLOv3 / SSD / FasterRCNN / MaskRCNN: normal 90.67 / 92.20 / 87.84 / 94.30; "
            "random 70.01 / 79.01 / 74.41 / 69.09 (ACTIVE, Table 3)."
        ),
        holds_when="The distribution over 20 random patterns is shown beside every optimised one.",
        setting="CARLA.",
        scaled_down="A ray-traced low-poly car at 128x128, small detectors trained on renders.",
    ),
)
