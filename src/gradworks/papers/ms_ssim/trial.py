"""One trial: one loss trained on one kind of task, judged by measures that nobody trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from gradworks.bench.models import initialised
from gradworks.losses.ms_ssim import ms_ssim, ssim
from gradworks.papers.ms_ssim.digits import accuracies, images
from gradworks.papers.ms_ssim.judges import JUDGES, edge_energy, psnr
from gradworks.papers.ms_ssim.networks import SRCNN, Autoencoder
from gradworks.papers.ms_ssim.photographs import patches, photographs, pieces
from gradworks.papers.ms_ssim.training import Fit, loss_of
from gradworks.papers.ms_ssim.variational import Variational

if TYPE_CHECKING:
    from gradworks.bench.trial import Trial

__all__ = ["codes", "enlarge", "enlarged", "judged", "published", "reconstruct", "reconstructed"]

_WIDE = 11  # window of the SSIM that is reported; trained ones are narrower


@torch.no_grad()
def judged(output: Tensor, target: Tensor, windows: Mapping[str, Any]) -> dict[str, float]:
    """Return all figures of images, means over the batch.

    Args:
        output: (batch, 1, height, width); clamped to [0, 1].
        target: As ``output``.
        windows: ``kernel`` and ``scales`` that MS-SSIM was trained with.

    Returns:
        The four judges, ``psnr``, ``mae``, ``edges`` and, no independent judges, ``ssim`` and
        ``ms_ssim``.
    """
    output = output.clamp(0, 1)
    found = {name: judge(output, target) for name, (judge, _) in JUDGES.items()}
    found |= {
        "psnr": psnr(output, target),
        "mae": (output - target).abs(),
        "edges": edge_energy(output, target),
        "ssim": ssim(output, target, kernel_size=_WIDE),
        "ms_ssim": ms_ssim(output, target, kernel_size=windows["kernel"], scales=windows["scales"]),
    }
    return {name: float(value.double().mean()) for name, value in found.items()}


def _watched(trial: Trial, step: int, output: Tensor, target: Tensor) -> None:
    """A point of the curves of a final run."""
    windows = trial.spec["windows"]
    if trial.kind == "final":
        value = ms_ssim(output, target, kernel_size=windows["kernel"], scales=windows["scales"])
        clamped = output.clamp(0, 1)
        trial.log(
            step, split="valid", psnr=float(psnr(clamped, target).mean()), ms_ssim=float(value)
        )


def reconstruct(trial: Trial) -> None:
    """Train an autoencoder on patches of photographs and judge it on those of others.

    Args:
        trial: As :func:`reconstructed` takes it.
    """
    reconstructed(trial)


def reconstructed(trial: Trial) -> tuple[Tensor, Tensor]:
    """Train an autoencoder on patches of photographs and judge it on those of others.

    Args:
        trial: ``spec["network"]``, ``"pictures"``, ``"counts"`` and ``"windows"`` say what is
            trained, ``spec["nats"]`` what a variational code may cost (None: not variational);
            ``settings["loss"]`` on what.

    Returns:
        Patches and what the network makes of them: those to test by, in a tuning trial those to
        choose by.

    Raises:
        Diverged: If training leaves the finite numbers.
    """  # noqa: DOC502
    spec: Any = trial.spec
    side, windows = int(spec["side"]), spec["windows"]
    names = [name for split in spec["pictures"].values() for name in split]
    found = pieces(photographs(names), side, spec)
    nats = spec.get("nats")
    network = _autoencoder(spec, side, trial, found["train"], variational=nats is not None)
    loss = loss_of(trial.settings["loss"], windows)
    train, valid = found["train"], found["valid"]
    if nats is None:
        fit = Fit(trial, network, lambda rows: loss(network(train[rows]), train[rows]), len(train))

        def seen(images: Tensor) -> Tensor:
            return torch.as_tensor(network(images))

    else:
        bound = Variational(network, loss, float(nats), trial.generator("noise"))
        fit = Fit(trial, network, lambda rows: bound(train[rows]), len(train), bound.weight)
        seen = bound.reconstruct

    @torch.no_grad()
    def watch(step: int) -> None:
        _watched(trial, step, seen(valid), valid)

    fit.run(watch)
    with torch.no_grad():
        output = seen(valid)
        trial.result("valid", own=float(loss(output, valid)))
        if trial.kind == "tune":
            return valid, output
        test = found["test"]
        output = seen(test)
        figures = judged(output, test, windows)
        figures["own_train"] = float(loss(seen(train[: len(test)]), train[: len(test)]))
        if nats is not None:
            figures["nats"] = bound.cost(test)
        trial.result("test", **figures)
        return test, output


def _autoencoder(
    spec: Mapping[str, Any], side: int, trial: Trial, train: Tensor, *, variational: bool
) -> Autoencoder:
    """The network of a trial; a fully connected one starts at principal components."""
    wanted = spec["network"]
    network = initialised(
        lambda: Autoencoder(
            wanted["kind"], side, wanted["width"], wanted["code"], variational=variational
        ),
        trial.generator("init"),
    )
    if not isinstance(network, Autoencoder):  # for the type checker
        raise TypeError(f"expected an Autoencoder, got {type(network).__name__}")
    network.start(train)
    return network


def codes(trial: Trial) -> None:
    """Train an autoencoder on digits and classify its codes from few labels.

    Args:
        trial: ``spec["labels"]`` gives the numbers of labelled examples.

    Raises:
        Diverged: If training leaves the finite numbers.
    """  # noqa: DOC502
    spec: Any = trial.spec
    found = images()
    train, valid = found["train"][0], found["valid"][0]
    network = _autoencoder(spec, train.shape[-1], trial, train, variational=False)
    loss = loss_of(trial.settings["loss"], spec["windows"])

    @torch.no_grad()
    def watch(step: int) -> None:
        _watched(trial, step, network(valid), valid)

    Fit(trial, network, lambda rows: loss(network(train[rows]), train[rows]), len(train)).run(watch)
    with torch.no_grad():
        trial.result("valid", own=float(loss(network(valid), valid)))
        if trial.kind == "tune":
            return
        coded = {split: (network.encode(x), y) for split, (x, y) in found.items()}
    rows = torch.randperm(len(train), generator=trial.generator("labels"))
    trial.result("test", **accuracies(coded, rows, [int(n) for n in spec["labels"]]))


def enlarged(image: Tensor, factor: int) -> Tensor:
    """Return an image shrunk by a factor and enlarged again, both bicubic.

    Args:
        image: (batch, 1, height, width), sides divisible by ``factor``.
        factor: How much smaller.
    """
    small = F.interpolate(
        image, scale_factor=1 / factor, mode="bicubic", antialias=True, align_corners=False
    )
    return F.interpolate(
        small.clamp(0, 1), size=image.shape[-2:], mode="bicubic", align_corners=False
    ).clamp(0, 1)


def enlarge(trial: Trial) -> None:
    """Train SRCNN on patches and judge it on whole photographs that it has not seen.

    Args:
        trial: ``spec["factor"]`` says how much; ``settings["loss"]`` on what, ``"none"`` leaves
            bicubic interpolation as it is.

    Raises:
        Diverged: If training leaves the finite numbers.
    """  # noqa: DOC502
    spec: Any = trial.spec
    factor, side, windows = int(spec["factor"]), int(spec["side"]), spec["windows"]
    named = spec["pictures"]
    draws = torch.Generator().manual_seed(0)  # the same for every arm and seed
    sharp = {
        split: patches(
            photographs(named[split]), side, int(spec["counts"][split]), draws, shrunk=False
        )
        for split in ("train", "valid")
    }
    blurred = {split: enlarged(images, factor) for split, images in sharp.items()}
    network = initialised(lambda: SRCNN(spec["width"]), trial.generator("init"))
    if trial.settings["loss"] == "none":
        _still(network)
    else:
        loss = loss_of(trial.settings["loss"], windows)

        @torch.no_grad()
        def watch(step: int) -> None:
            _watched(trial, step, network(blurred["valid"]), sharp["valid"])

        fit = Fit(
            trial,
            network,
            lambda rows: loss(network(blurred["train"][rows]), sharp["train"][rows]),
            len(sharp["train"]),
        )
        fit.run(watch)
        with torch.no_grad():
            own = loss(network(blurred["valid"]), sharp["valid"])
        trial.result("valid", own=float(own))
        if trial.kind == "tune":
            return
    whole: dict[str, dict[str, float]] = {}
    for name, picture in photographs(named["test"]).items():
        height, width = (size // factor * factor for size in picture.shape)
        target = picture[None, None, :height, :width]
        with torch.no_grad():
            whole[name] = judged(network(enlarged(target, factor)), target, windows)
    figures = {
        key: sum(found[key] for found in whole.values()) / len(whole)
        for key in next(iter(whole.values()))
    }
    for name, found in whole.items():
        figures |= {f"{key}_{name}": value for key, value in found.items()}
    trial.result("test", **figures)


def _still(network: torch.nn.Module) -> None:
    """A correction of nothing."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()


def published(trial: Trial) -> NoReturn:
    """The published scale: refuses.

    Args:
        trial: Names data, networks and hardware.

    Raises:
        MissingData: Always, with what it would take.
    """
    from gradworks.bench.data import MissingData

    wanted: Any = trial.spec
    raise MissingData(
        f"the paper preset trains {wanted['networks']} on {wanted['data']} and asks people which "
        f"of two images they prefer: it needs {wanted['hardware']}, images that no package "
        "carries, and observers. Run --preset full for a verdict on this machine"
    )
