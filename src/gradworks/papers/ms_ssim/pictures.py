"""Pictures side by side: held-out patches, and what networks trained on each loss make of them.

``python -m gradworks.papers.ms_ssim.pictures FILE.png`` trains one seed of every loss at its
default learning rate and writes one row a patch: the photograph, then L1, L2, SSIM, MS-SSIM as far
as the workload has them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["main", "page", "write_page"]

_GAP = 4  # white pixels between pictures


def page(columns: Sequence[Tensor], enlarge: int = 2) -> Tensor:
    """Return one grey picture of several columns.

    Args:
        columns: (rows, 1, side, side) each, values in [0, 1].
        enlarge: Times that every pixel is repeated.

    Returns:
        (height, width) from 0 to 1.

    Example:
        >>> page([torch.zeros(2, 1, 8, 8)] * 3, enlarge=1).shape
        torch.Size([20, 32])
    """
    tall = []
    for images in columns:
        rows = [torch.cat([image[0], image.new_ones(_GAP, image.shape[-1])]) for image in images]
        column = torch.cat(rows)[:-_GAP]
        tall.append(torch.cat([column, column.new_ones(len(column), _GAP)], 1))
    whole = torch.cat(tall, 1)[:, :-_GAP]
    return whole.repeat_interleave(enlarge, 0).repeat_interleave(enlarge, 1)


def write_page(path: Path, preset: str, workload: str, rows: int) -> list[str]:
    """Train every loss of a workload once and write the page.

    Args:
        path: The PNG.
        preset: Of :data:`gradworks.papers.ms_ssim.PRESETS`.
        workload: One that reconstructs.
        rows: Number of patches.

    Returns:
        What the columns are.

    Raises:
        ValueError: If the preset has no such workload of reconstructions.
    """
    from PIL import Image

    from gradworks.bench.trial import Trial
    from gradworks.papers.ms_ssim import build
    from gradworks.papers.ms_ssim.trial import reconstructed

    experiment = build(preset)
    chosen = {w.name: w for w in experiment.workloads if w.trial.endswith(":reconstruct")}
    if workload not in chosen:
        raise ValueError(f"workload must be one of {sorted(chosen)}, got {workload!r}")
    columns: dict[str, Tensor] = {}
    for arm in experiment.arms_of(chosen[workload]):
        target, output = reconstructed(Trial.offline(chosen[workload], arm))
        kept = torch.linspace(0, len(target) - 1, min(rows, len(target))).long()
        columns.setdefault("photograph", target[kept])
        columns[arm.label] = output[kept].clamp(0, 1)
    grey = (255 * page(list(columns.values()))).round().to(torch.uint8)
    Image.fromarray(grey.numpy()).save(path)
    return list(columns)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and print what its columns are.

    Args:
        arguments: Of the command line; None takes those of the process.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m gradworks.papers.ms_ssim.pictures")
    parser.add_argument("file", type=Path, help="PNG to write")
    parser.add_argument("--preset", default="full", choices=("quick", "full"))
    parser.add_argument("--workload", default="mlp", help="mlp, conv or vae")
    parser.add_argument("--rows", type=int, default=8, help="patches to show")
    given = parser.parse_args(arguments)
    try:
        columns = write_page(given.file, given.preset, given.workload, given.rows)
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(f"{given.file}: {', '.join(columns)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
