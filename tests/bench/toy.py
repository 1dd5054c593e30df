"""A toy experiment whose trials take milliseconds: what the tests of the run engine run.

Each trial is gradient descent on a noisy quadratic. Knobs of the fixed settings make a trial slow,
fail, diverge, die or lie.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

from gradworks.bench import Arm, Claim, Criterion, Diverged, Experiment, Knob, Trial, Workload

LR = Knob(name="lr", low=1e-3, high=1.0, default=0.03)
DECAY = Knob(name="decay", low=1e-4, high=1e-1, default=1e-3)

CLAIM = Claim(
    id="better",
    statement="ours ends lower",
    published="",
    holds_when="the loss of ours is lower",
    primary=True,
    criteria=(
        Criterion(
            name="lower",
            kind="superiority",
            metric="loss",
            arm="ours",
            baseline="theirs",
            direction="lower",
        ),
    ),
)


def experiment(**changes) -> Experiment:
    """Return the toy experiment; fields of Experiment, Workload (w_) and Arm (a_) can be set."""
    workload = {key[2:]: changes.pop(key) for key in list(changes) if key.startswith("w_")}
    arm = {key[2:]: changes.pop(key) for key in list(changes) if key.startswith("a_")}
    fixed = arm.pop("fixed", {})
    space = arm.pop("space", (LR, DECAY))
    fields = {
        "paper": "toy",
        "preset": "custom",
        "workloads": (
            Workload(
                name="bowl",
                label="A bowl",
                trial=workload.pop("trial", "tests.bench.toy:descend"),
                steps=workload.pop("steps", 20),
                **workload,
            ),
        ),
        "arms": (
            Arm(name="ours", label="Ours", method="x", space=space, fixed={"noise": 0.1, **fixed}),
            Arm(
                name="theirs",
                label="Theirs",
                method="y",
                space=space[:1],
                fixed={"noise": 0.5, **fixed},
                is_baseline=True,
            ),
        ),
        "claims": (CLAIM,),
        "tune_trials": 4,
        "final_seeds": 3,
        "trial_seconds": 0.05,
    }
    return Experiment(**{**fields, **changes})


def descend(trial: Trial) -> None:
    """Walk down a bowl; the settings say what goes wrong on the way."""
    settings = trial.settings
    trial.checkpoint_seconds = settings.get("checkpoint_seconds", 0.0)
    point = torch.randn(8, generator=trial.generator("init"))
    momentum = torch.zeros(8)
    noise, coin = trial.generator("noise"), trial.rng("coin")
    start = 0
    state = trial.resume()
    if state is not None:
        point, momentum, start = state["point"], state["momentum"], state["step"]
    trial.state_bytes = momentum.numel() * momentum.element_size()
    for step in range(start + 1, trial.steps + 1):
        misbehave(trial, step)
        gradient = point + settings["noise"] * torch.randn(8, generator=noise)
        gradient = gradient + 0.01 * float(coin.normal())
        momentum = 0.9 * momentum + gradient + settings.get("decay", 0.0) * point
        point = torch.nn.functional.dropout(point - settings["lr"] * momentum, 0.01)
        loss = float(point.square().sum())
        if not loss < 1e6:
            raise Diverged(f"loss {loss}")
        if step % 5 == 0:
            trial.log(step, split="valid", loss=loss)
            trial.log(step, split="train", norm=float(gradient.norm()))
        state = {"point": point, "momentum": momentum, "step": step}
        trial.tick(step, lambda state=state: state)
    trial.result("valid", loss=float(point.square().sum()))
    if trial.kind == "final":
        trial.result("test", loss=float(point.square().sum()), distance=float(point.norm()))


def misbehave(trial: Trial, step: int) -> None:
    """Do what the settings say at this step."""
    settings = trial.settings
    time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    here = trial.kind == settings.get("only", trial.kind) and step == settings.get("at", 3)
    if not here:
        return
    if "once" in settings:  # the file is there: it has happened
        flag = Path(settings["once"])
        if flag.exists():
            return
        flag.touch()
    match settings.get("wrong"):
        case "raise":
            raise ValueError("no such luck")
        case "diverge":
            raise Diverged("on purpose")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            print("last words")
            os._exit(7)
        case "hang":
            time.sleep(3600)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)


def silent(trial: Trial) -> None:
    """Give no result."""


def elsewhere(trial: Trial) -> None:
    """Give a result that tuning does not select on."""
    trial.result("valid", accuracy=1.0)


def peeking(trial: Trial) -> None:
    """Look at the test split while tuning."""
    trial.result("test", loss=0.0)


def unsaveable(trial: Trial) -> None:
    """Give a state that cannot be loaded safely."""
    trial.checkpoint_seconds = 0.0
    trial.resume()
    for step in range(1, trial.steps + 1):
        trial.tick(step, lambda: {"bad": Path("x")})
    trial.result("valid", loss=0.0)
