"""The page of the curvature tools: four questions about a reader's own model, with real answers.

Answers are documents that the commands wrote with ``--out``, kept in ``results/tools``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradworks.report import landscape, proposed, spectrum, wording
from gradworks.report.drawn import Drawn

__all__ = ["QUESTIONS", "Answer", "Question", "answers"]

_MODEL = """\
import torch
from gradworks.curvature import HessianOperator
# your own three: a module, loss_fn(output, target), a batch, a list of batches or a DataLoader
model, loss_fn, data = net, torch.nn.functional.cross_entropy, (images, labels)
"""


@dataclass(frozen=True)
class Question:
    """What a reader asks of a model.

    Attributes:
        name: Anchor; stored answers begin with it.
        asks: The question.
        says: How the answer is read.
        python: Lines that go after the model's own.
        command: The same at the command line, or "".
        docs: Page of the paper, by slug.
    """

    name: str
    asks: str
    says: str
    python: str
    command: str
    docs: str


QUESTIONS: tuple[Question, ...] = (
    Question(
        "spectrum",
        "Which directions matter, and how stiff are they?",
        "A few eigenvalues stand far outside a dense bulk at zero. The largest bounds the step of "
        "gradient descent at 2 over it; the bulk shows how many directions hardly matter. The band "
        "is a standard error over probes; a count of outliers from one rule is not a fact, so "
        "three are given.",
        "from gradworks.curvature.spectrum import spectrum\n"
        "with HessianOperator(model, loss_fn, data) as hessian:\n"
        "    report = spectrum(hessian, top=10)\n"
        "print(report.top, {rule: s.num_outliers for rule, s in report.splits.items()})",
        "gradworks spectrum net.py:target --out spectrum.json",
        "hessian-spectrum",
    ),
    Question(
        "landscape",
        "What does the surface look like?",
        "Two directions, scaled filter by filter so that networks can be compared, or the two "
        "stiffest ones. Batch norm in eval mode draws its own artefact: the report measures how "
        "much of the picture is that.",
        "from gradworks.curvature.landscape import analyze\n"
        'report = analyze(model, loss_fn, data, normalizations=["filter"], points=25)\n'
        'report.write_html("landscape.html")',
        "gradworks landscape net.py:target --out landscape",
        "loss-landscape",
    ),
    Question(
        "lr",
        "How large may the step be at this batch size?",
        "The Hessian of a batch is noisier than that of all data, so its largest eigenvalue is "
        "larger and the step that it bears is smaller. The noise is measured on batches of your "
        "data; the law then carries a rate from one batch size to another, until larger batches "
        "stop paying.",
        "from gradworks.curvature.learning_rate import measure_noise\n"
        "noise = measure_noise(model, loss_fn, data, batch_sizes=(16, 64))\n"
        "print({size: noise.max_learning_rate(size, momentum=0.9) for size in (32, 512)})",
        "gradworks lr net.py:target --batch-size 32 --to 512 --out rates.json",
        "rmt-learning-rate",
    ),
    Question(
        "alignment",
        "Do my domains agree in curvature?",
        "The distance between the Hessians of two domains at a linear head: features that mean the "
        "same in both bend the loss alike. As a penalty in training it is a method of domain "
        "generalisation.",
        "from gradworks.curvature.alignment import hessian_distance\n"
        "# per domain: features (rows, width), logits (rows, classes), labels (rows,)\n"
        "print(hessian_distance(features, logits, labels))",
        "",
        "hessian-alignment",
    ),
)

_DRAWN = {"spectrum": spectrum.drawn, "lr": proposed.drawn}


@dataclass(frozen=True)
class Answer:
    """A stored measurement.

    Attributes:
        name: Of its file.
        title: What was measured.
        drawn: Figures; the first has the facts and the table.
    """

    name: str
    title: str
    drawn: Sequence[Drawn]

    @property
    def figures(self) -> list[Mapping[str, Any]]:
        """What there is to draw."""
        return [one.figure for one in self.drawn]


def code(question: Question) -> str:
    """Return the whole example in Python.

    Args:
        question: One of ``QUESTIONS``.
    """
    first = _MODEL if "HessianOperator" in question.python else _without_operator()
    return f"{first}{question.python}\n"


def _without_operator() -> str:
    return "".join(line for line in _MODEL.splitlines(True) if "HessianOperator" not in line)


def answers(folder: Path) -> dict[str, list[Answer]]:
    """Return the stored measurements by question; none where the folder is missing.

    Args:
        folder: Of JSON files, named ``QUESTION-MODEL.json``.

    Raises:
        ValueError: A file cannot be read.
    """
    found: dict[str, list[Answer]] = {question.name: [] for question in QUESTIONS}
    for path in sorted(folder.glob("*.json")):
        tool = path.stem.partition("-")[0]
        if tool not in found:
            continue
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            found[tool].append(Answer(path.stem, _title(document), _shown(tool, document)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the stored measurement {path} cannot be read: {error}") from error
    return found


def _shown(tool: str, document: Mapping[str, Any]) -> Sequence[Drawn]:
    return landscape.drawn(document) if tool == "landscape" else [_DRAWN[tool](document)]


def _title(document: Mapping[str, Any]) -> str:
    size = document.get("dimension") or document.get("parameters")
    many = "" if size is None else f", {wording.plural(int(size), 'parameter')}"
    return f"{document['target']}{many}"
