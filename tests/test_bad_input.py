"""One table of wrong calls: the error that each raises, and what its text must say.

A row of the API is a label, a call, an error class and a fragment of the message. A row of the
command is a line, its exit code and a fragment of standard error. The message names the argument,
what was found and what is allowed; no row shows a traceback.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradworks import papers
from gradworks.bench import (
    Arm,
    Claim,
    Criterion,
    Experiment,
    Figure,
    Knob,
    Result,
    Series,
    Trial,
    Workload,
    data,
    plan,
    run,
    timing,
    workloads,
)
from gradworks.bench import compare as comparison
from gradworks.bench.data.registry import UnknownData
from gradworks.bench.targets import UnknownTarget
from gradworks.bench.verdicts import judge
from gradworks.cli import main
from gradworks.curvature import (
    DenseOperator,
    FisherOperator,
    FunctionOperator,
    GGNOperator,
    HessianOperator,
    eigsh,
    slq,
    trace,
)
from gradworks.curvature.spectrum import spectrum
from gradworks.losses import AnyLoss, AnyLossClassifier
from gradworks.losses.anyloss import anyloss, register_metric, soft_confusion
from gradworks.multitask import SAMGS, TaskGradients
from gradworks.optim import SGDP, AdamP

Z = torch.zeros(4, dtype=torch.float64)
Y = torch.tensor([0, 1, 0, 1])
X4 = np.arange(8.0).reshape(4, 2)
MODEL = nn.Linear(2, 1).double()
BATCH = (torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64))
DENSE = DenseOperator(torch.eye(3, dtype=torch.float64))
TOY = Workload(name="w", label="w", trial="m:f")
ARM = Arm(name="a", label="a", method="word")


def mse(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.mse_loss(output, target)


def hessian(**changes: object) -> HessianOperator:
    return HessianOperator(**{"model": MODEL, "loss_fn": mse, "data": BATCH, **changes})


def adamp(**changes: object) -> AdamP:
    return AdamP([nn.Parameter(torch.zeros(2, 3))], **changes)


def experiment(**changes: object) -> Experiment:
    return Experiment(
        **{"paper": "p", "preset": "quick", "workloads": (TOY,), "arms": (ARM,), **changes}
    )


def criterion(**changes: object) -> Criterion:
    return Criterion(
        **{
            "name": "c",
            "kind": "superiority",
            "metric": "m",
            "arm": "a",
            "baseline": "b",
            **changes,
        }
    )


API: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    # losses
    (
        "labels 2",
        lambda: anyloss(Z, Y + 1),
        ValueError,
        "target must hold labels 0 or 1, found values from 1 to 2",
    ),
    ("soft labels", lambda: anyloss(Z, Z + 0.5), ValueError, "soft_targets=True"),
    ("shapes", lambda: anyloss(Z, Y[:3]), ValueError, "input (4,), target (3,)"),
    ("empty batch", lambda: anyloss(Z[:0], Y[:0]), ValueError, "empty batch"),
    (
        "metric",
        lambda: anyloss(Z, Y, "balanced_acuracy"),
        ValueError,
        "did you mean 'balanced_accuracy'",
    ),
    ("integer logits", lambda: anyloss(Y, Y), TypeError, "floating-point scores, got torch.int64"),
    (
        "amplification",
        lambda: anyloss(Z, Y, amplification=-1),
        ValueError,
        "amplification must be positive",
    ),
    ("beta", lambda: anyloss(Z, Y, beta=0), ValueError, "beta must be positive"),
    ("threshold", lambda: anyloss(Z, Y, threshold=1.5), ValueError, "inside (0, 1), got 1.5"),
    (
        "probabilities",
        lambda: anyloss(Z + 2, Y, from_logits=False),
        ValueError,
        "probabilities in [0, 1]",
    ),
    ("weights", lambda: anyloss(Z, Y, weight=-Z - 1), ValueError, "not negative, found -1"),
    (
        "weight list",
        lambda: soft_confusion(Z, Y, weight=[1, 1, 1, 1]),
        TypeError,
        "weight must be a torch.Tensor",
    ),
    ("average", lambda: AnyLoss(average="samples"), ValueError, "binary, macro, micro, weighted"),
    ("accumulate", lambda: AnyLoss(accumulate=-2), ValueError, "accumulate must be at least 0"),
    ("taken name", lambda: register_metric("f1", lambda c: c.tp), ValueError, "'f1' is taken"),
    ("one class", lambda: AnyLossClassifier().fit(X4, np.zeros(4)), ValueError, "only one class"),
    (
        "solver",
        lambda: AnyLossClassifier(solver="sgd").fit(X4, Y.numpy()),
        ValueError,
        "gd, adam, lbfgs",
    ),
    (
        "layers",
        lambda: AnyLossClassifier(hidden_layer_sizes=3).fit(X4, Y.numpy()),
        TypeError,
        "tuple of widths",
    ),
    # optimizers
    ("lr", lambda: adamp(lr=-1.0), ValueError, "lr must be"),
    ("lr nan", lambda: adamp(lr=math.nan), ValueError, "lr must be"),
    ("lr text", lambda: adamp(lr="0.1"), TypeError, "lr must be a number, got str"),
    ("betas", lambda: adamp(betas=(0.9, 1.0)), ValueError, "betas[1] must be in [0, 1), got 1.0"),
    ("eps", lambda: adamp(eps=-1e-8), ValueError, "eps must be at least 0"),
    ("decay", lambda: adamp(weight_decay=-1), ValueError, "weight_decay must be at least 0"),
    ("no parameters", lambda: AdamP([]), ValueError, "empty parameter list"),
    (
        "momentum",
        lambda: SGDP([nn.Parameter(torch.zeros(2))], lr=0.1, momentum=-1),
        ValueError,
        "momentum must be",
    ),
    # many tasks
    (
        "momenta",
        lambda: SAMGS(beta2=1.0),
        ValueError,
        "beta2 must be in [0, 1), got 1.0",
    ),
    (
        "no tasks",
        lambda: SAMGS()(torch.zeros(0, 3)),
        ValueError,
        "jacobian has no task",
    ),
    (
        "no loss",
        lambda: TaskGradients(MODEL.parameters()).backward({}, SAMGS()),
        ValueError,
        "losses is empty",
    ),
    # curvature
    ("no module", lambda: hessian(model=mse), TypeError, "model must be a torch.nn.Module"),
    ("loss", lambda: hessian(loss_fn="mse"), TypeError, "loss_fn must be callable"),
    ("no data", lambda: hessian(data=[]), ValueError, "data is empty"),
    (
        "not square",
        lambda: DenseOperator(torch.zeros(2, 3)),
        ValueError,
        "must be square, got shape (2, 3)",
    ),
    ("vector length", lambda: DENSE @ torch.zeros(4, dtype=torch.float64), ValueError, "(4,)"),
    (
        "vector type",
        lambda: DENSE @ torch.zeros(3, dtype=torch.int64),
        ValueError,
        "real floating point",
    ),
    ("k", lambda: eigsh(DENSE, k=9), ValueError, "k must be an integer in 1..3, got 9"),
    ("which", lambda: eigsh(DENSE, k=1, which="XX"), ValueError, "which must be one of"),
    (
        "probes",
        lambda: slq(DENSE, num_probes=0),
        ValueError,
        "num_probes must be an integer of at least 1",
    ),
    (
        "method",
        lambda: trace(DENSE, method="exactly"),
        ValueError,
        "method must be hutchinson or hutch++",
    ),
    (
        "spectrum",
        lambda: spectrum(DENSE, method="fast"),
        ValueError,
        "auto, exact, slq, got 'fast'",
    ),
    ("no operator", lambda: spectrum(torch.eye(3)), TypeError, "op must be a SymmetricOperator"),
    ("matvec", lambda: FunctionOperator("f", 3), TypeError, "matvec must be callable"),
    (
        "reduction",
        lambda: GGNOperator(MODEL, mse, BATCH, reduction="max"),
        ValueError,
        "reduction must be one of",
    ),
    (
        "samples",
        lambda: FisherOperator(MODEL, mse, BATCH, num_samples=0),
        ValueError,
        "num_samples must be",
    ),
    # the protocol
    (
        "knob order",
        lambda: Knob(name="lr", low=1.0, high=0.1, default=0.5),
        ValueError,
        "low 1.0 must be below high",
    ),
    (
        "knob default",
        lambda: Knob(name="lr", low=0.1, high=1.0, default=2.0),
        ValueError,
        "default 2.0 is outside",
    ),
    (
        "knob scale",
        lambda: Knob(name="lr", low=0.0, high=1.0, default=0.5),
        ValueError,
        "needs low > 0",
    ),
    ("no workload", lambda: experiment(workloads=()), ValueError, "has no workload"),
    ("same arm", lambda: experiment(arms=(ARM, ARM)), ValueError, "arm names must be unique"),
    (
        "unknown arm",
        lambda: experiment(workloads=(Workload(name="w", label="w", trial="m:f", arms=("z",)),)),
        ValueError,
        "unknown arms ['z']",
    ),
    ("no seeds", lambda: experiment(final_seeds=0), ValueError, "final_seeds must be at least 1"),
    ("no baseline", lambda: criterion(baseline=None), ValueError, "needs baseline"),
    ("kind", lambda: criterion(kind="magic"), ValueError, "kind must be one of"),
    ("direction", lambda: criterion(direction="up"), ValueError, "'higher' or 'lower', got 'up'"),
    ("series", lambda: Series(name="s", x=[1, 2], y=[1.0]), ValueError, "y has 1 values, x has 2"),
    (
        "seeds asked",
        lambda: plan(experiment(), seeds=0),
        ValueError,
        "seeds must be an integer of at least 1, got 0",
    ),
    (
        "jobs",
        lambda: plan(experiment(), jobs=0),
        ValueError,
        "jobs must be an integer of at least 1, got 0",
    ),
    (
        "test in tuning",
        lambda: Trial.offline(TOY, ARM, kind="tune").result("test", m=1.0),
        RuntimeError,
        "must not look at the test split",
    ),
    (
        "split",
        lambda: Trial.offline(TOY, ARM).result("holdout", m=1.0),
        ValueError,
        "got 'holdout'",
    ),
    (
        "no metric",
        lambda: Trial.offline(TOY, ARM).result("test"),
        ValueError,
        "at least one metric",
    ),
    (
        "data set",
        lambda: data.source("mnist"),
        UnknownData,
        "mnist",
    ),
    ("KEEL table", lambda: data.keel("yeast33"), UnknownData, "did you mean"),
    ("blobs", lambda: data.blobs(n=0), ValueError, "got 0"),
    ("workload", lambda: workloads.problem("digits-cn", 0), UnknownTarget, "did you mean"),
    (
        "target",
        lambda: workloads.resolve("nosuchmodule:f"),
        UnknownTarget,
        "no module 'nosuchmodule'",
    ),
    ("optimizer", lambda: comparison.experiment("digits-mlp", ["adamm"]), LookupError, "adamm"),
    ("twice", lambda: comparison.experiment("digits-mlp", ["adamw", "adamw"]), ValueError, "adamw"),
    (
        "blocks",
        lambda: timing.compare(int, int, name="a", peer_name="b", blocks=0),
        ValueError,
        "blocks must be",
    ),
    (
        "judge",
        lambda: judge([], lambda *a: {}, workloads=["w"], preset="full", expected_seeds=0),
        ValueError,
        "expected_seeds must be at least 1",
    ),
    ("result file", lambda: Result.read(Path("absent.json")), FileNotFoundError, "absent.json"),
    # the catalogue
    ("paper", lambda: papers.find("adam-p"), papers.UnknownPaper, "did you mean adamp"),
    (
        "planned",
        lambda: papers.find("loldu").build("quick"),
        papers.PlannedPaper,
        "loldu is planned",
    ),
    ("preset", lambda: papers.find("anyloss").build("huge"), ValueError, "preset must be one of"),
    (
        "area",
        lambda: papers.select(papers.papers(), area="optims"),
        ValueError,
        "area must be one of",
    ),
    (
        "paper name",
        lambda: papers.new_paper("Not A Name", "optim", Path()),
        ValueError,
        "Not A Name",
    ),
]

COMMAND: list[tuple[str, int, str]] = [
    ("frob", 2, "No such command 'frob'"),
    ("list --area optims", 2, "area must be one of"),
    ("list --status good", 2, "status must be one of"),
    ("list --update absent.md", 2, "absent.md"),
    ("show", 2, "Missing argument 'slug'"),
    ("show anyllos", 2, "did you mean anyloss"),
    ("run", 2, "name the papers to run, or give --all"),
    ("run anyloss --all", 2, "not both"),
    ("run lv-hba", 2, "lv-hba is planned"),
    ("run anyloss --preset huge", 2, "'huge' is not one of 'quick', 'full', 'paper'"),
    ("run anyloss --preset paper", 2, "GRADWORKS_ANYLOSS_SETS"),
    ("run anyloss --jobs 0", 2, "--jobs"),
    ("run anyloss --seeds 0", 2, "--seeds"),
    ("run anyloss --seeds many", 2, "--seeds"),
    ("run anyloss --max-time -1", 2, "--max-time"),
    ("run anyloss --engine cloud", 2, "'cloud' is not one of"),
    ("run anyloss --publish out --seeds 3", 2, "leave --seeds out"),
    ("run anyloss --store folder --plan --bogus", 2, "--bogus"),
    ("compare", 2, "name the workloads to compare on, or give --shared"),
    ("compare digits-cn", 2, "did you mean"),
    ("compare absent.py:workload", 2, "absent.py"),
    ("compare mine.py:nothing", 2, "nothing"),
    ("compare mine.py:wrong", 2, "Problem"),
    ("compare mine.py:workload --optimizers ,", 2, "optimizers must name at least one"),
    ("compare mine.py:workload --optimizers adamm", 2, "adamm"),
    ("compare mine.py:workload --optimizers torch.nn.Linear", 2, "torch.nn.Linear"),
    ("compare mine.py:workload --trials 0", 2, "--trials"),
    ("compare mine.py:workload --steps 0", 2, "--steps"),
    ("spectrum mine.py:workload --quiet", 2, "mine.py:workload"),
    ("spectrum mine.py:surface --top 0", 2, "--top"),
    ("spectrum mine.py:surface --operator jacobian", 2, "'jacobian' is not one of"),
    ("spectrum mine.py:surface --method guess", 2, "'guess' is not one of"),
    ("spectrum no_module_of_this_name:f --quiet", 2, "no_module_of_this_name"),
    ("report --store absent.db", 2, "absent.db does not exist"),
    ("report --serve many", 2, "--serve"),
    ("data install", 2, "name the data sets to install, or give --all"),
    ("data install keel --all", 2, "not both"),
    ("data install minst", 2, "did you mean"),
    ("data verify minst", 2, "did you mean"),
    ("verify lv-hba", 2, "lv-hba is planned"),
    ("check anyllos", 2, "did you mean anyloss"),
    ("new-paper lion", 2, "--family"),
    ("new-paper lion --family birds", 2, "birds"),
    ("new-paper Not-A-Name --family optim", 2, "Not-A-Name"),
]


def test_the_table_is_long_enough_and_has_no_row_twice() -> None:
    assert len(API) + len(COMMAND) >= 40
    assert len(API) >= 40
    assert len({label for label, *_ in API}) == len(API)
    assert len({line for line, *_ in COMMAND}) == len(COMMAND)


@pytest.mark.parametrize(
    ("call", "error", "text"), [row[1:] for row in API], ids=[row[0] for row in API]
)
def test_api(
    call: Callable[[], object],
    error: type[Exception],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


MINE = """
import torch

DATA = torch.zeros(2, 3), torch.zeros(2, 1)


def workload():
    return 3


def wrong(seed):
    return "not a problem"


def surface(seed):
    return torch.nn.Linear(3, 1), torch.nn.functional.mse_loss, DATA
"""


@pytest.mark.parametrize(("line", "code", "text"), COMMAND, ids=[row[0] for row in COMMAND])
def test_command(
    line: str,
    code: int,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("GRADWORKS_ANYLOSS_SETS", raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    assert main(line.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert text in " ".join(err.split())
    assert "Traceback" not in err
    assert (
        sorted(p for p in tmp_path.iterdir() if p.name != "__pycache__") == before
    )  # nothing was begun


def test_a_store_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=str(tmp_path)):
        run(experiment(), store=tmp_path, engine="serial")


def test_figures_are_typed() -> None:
    with pytest.raises(TypeError):
        Figure("id", "title")  # type: ignore[call-arg,misc]


def test_claims_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        Claim("id", "statement")  # type: ignore[call-arg,misc]
