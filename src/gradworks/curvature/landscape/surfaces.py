"""What was measured: the loss on a line and on a plane, with its files and pictures."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LossLine", "LossPlane"]


@dataclass(frozen=True)
class LossLine:
    """The loss along a direction.

    Attributes:
        alpha: Coordinates, ``(A,)``.
        loss: Losses, ``(A,)``, float64 on CPU; ``inf`` where it is not finite.
        mode: Mode it was measured in.
        rule: ``"add"``.
    """

    alpha: Tensor
    loss: Tensor
    mode: str = "eval"
    rule: str = "add"

    @property
    def num_nonfinite(self) -> int:
        """Points whose loss is not finite."""
        return int(self.loss.isinf().sum())

    def plot(self, ax: Axes | None = None, *, label: str | None = None) -> Axes:
        """Draw it.

        Args:
            ax: Where; default new axes.
            label: Name in the legend.

        Returns:
            The axes.

        Raises:
            ImportError: matplotlib is absent.
        """  # noqa: DOC502
        from gradworks.curvature.landscape.plots import draw_line

        return draw_line(self, ax, label)


@dataclass(frozen=True)
class LossPlane:
    """The loss on a plane.

    Attributes:
        alpha: Coordinates of the rows, ``(A,)``.
        beta: Coordinates of the columns, ``(B,)``, or ``(A, B)`` where they differ from row to row.
        loss: ``loss[i, j]`` belongs to ``(alpha[i], beta[j])``, ``(A, B)``, float64 on CPU;
            ``inf`` where it is not finite, ``nan`` where it was not measured.
        mode: ``"eval"``, ``"train"`` or ``"recalibrate"``.
        rule: ``"add"`` or ``"adam"``.
        facts: What else is known of it, e.g. names of the axes; plain JSON.

    Example:
        >>> import torch
        >>> from gradworks.curvature.landscape import LossPlane
        >>> at = torch.tensor([-1.0, 0.0, 1.0])
        >>> plane = LossPlane(at, at, at[:, None] ** 2 + at**2)
        >>> float(plane.center), float(plane.clip(1.5).loss.max())
        (0.0, 1.5)
    """

    alpha: Tensor
    beta: Tensor
    loss: Tensor
    mode: str = "eval"
    rule: str = "add"
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(self.alpha) if self.alpha.dim() == 1 else -1
        right = self.beta.dim() == 1 or self.beta.shape == self.loss.shape
        if not right or self.loss.shape != (rows, self.beta.shape[-1]):
            raise ValueError(
                "loss must have shape (len(alpha), len(beta)), got "
                f"{tuple(self.loss.shape)} with alpha {tuple(self.alpha.shape)} and beta "
                f"{tuple(self.beta.shape)}"
            )

    @property
    def num_nonfinite(self) -> int:
        """Points whose loss is not finite."""
        return int(self.loss.isinf().sum())

    @property
    def num_missing(self) -> int:
        """Points that were not measured."""
        return int(self.loss.isnan().sum())

    @property
    def center(self) -> Tensor | None:
        """The loss at (0, 0), if that is a point of the grid."""
        beta = self.beta if self.beta.dim() == 2 else self.beta.expand_as(self.loss)
        at = (self.alpha[:, None] == 0) & (beta == 0)
        return self.loss[at][0] if bool(at.any()) else None

    def mesh(self) -> tuple[Tensor, Tensor]:
        """Coordinates of all points.

        Returns:
            Alpha and beta, ``(A, B)`` each.
        """
        return (
            self.alpha[:, None].expand_as(self.loss),
            self.beta if self.beta.dim() == 2 else self.beta.expand_as(self.loss),
        )

    def clip(self, cap: float | None = None) -> LossPlane:
        """The plane with its peaks cut off, for pictures.

        Args:
            cap: Highest loss; default the largest finite one, so that only ``inf`` goes.

        Returns:
            A new plane.

        Raises:
            ValueError: A cap that is no number.
        """
        if cap is None:
            finite = self.loss[self.loss.isfinite()]
            cap = float(finite.max()) if len(finite) else 1.0
        if cap != cap:
            raise ValueError("cap must be a number, got nan")
        return replace(self, loss=self.loss.clamp(max=cap))

    @staticmethod
    def merge(planes: Sequence[LossPlane]) -> LossPlane:
        """One plane of parts that were measured in different processes.

        Args:
            planes: Over the same coordinates, each with some rows measured.

        Returns:
            The plane with all points of all parts.

        Raises:
            ValueError: No part, parts of different planes, or a point measured twice differently.
        """
        if not planes:
            raise ValueError("planes is empty; give at least one part")
        first = planes[0]
        loss = first.loss.clone()
        for i, part in enumerate(planes[1:], start=1):
            same = (
                part.mode == first.mode
                and part.rule == first.rule
                and torch.equal(part.alpha, first.alpha)
                and torch.equal(part.beta, first.beta)
            )
            if not same:
                raise ValueError(f"part {i} is of another plane: coordinates, mode or rule differ")
            twice = ~loss.isnan() & ~part.loss.isnan()
            if not torch.allclose(loss[twice], part.loss[twice], rtol=1e-6):
                raise ValueError(f"part {i} measured points differently from a part before it")
            loss = torch.where(loss.isnan(), part.loss, loss)
        return replace(first, loss=loss)

    def save(self, path: str | Path) -> Path:
        """Write an ``.npz`` file, whole or not at all.

        Args:
            path: Where.

        Returns:
            The file.
        """
        path = Path(path)
        path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        about = json.dumps({"mode": self.mode, "rule": self.rule, "facts": dict(self.facts)})
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(
                    file,
                    alpha=self.alpha.numpy(),
                    beta=self.beta.numpy(),
                    loss=self.loss.numpy(),
                    about=np.array(about),
                )
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Args:
            path: The file.

        Returns:
            The plane.

        Raises:
            ValueError: The file holds no plane.
        """
        with np.load(path, allow_pickle=False) as file:
            missing = {"alpha", "beta", "loss", "about"} - set(file.files)
            if missing:
                raise ValueError(f"{path} is no loss plane: it lacks {', '.join(sorted(missing))}")
            about = json.loads(str(file["about"]))
            alpha, beta, loss = (torch.from_numpy(file[k]) for k in ("alpha", "beta", "loss"))
        return cls(alpha, beta, loss, about["mode"], about["rule"], about["facts"])

    def plot(
        self,
        kind: Literal["surface", "contour", "heatmap"] = "surface",
        ax: Axes | None = None,
        *,
        log: bool = False,
        cap: float | None = None,
        path: Tensor | None = None,
    ) -> Axes:
        """Draw it with matplotlib.

        Args:
            kind: ``"surface"`` (3-D), ``"contour"`` or ``"heatmap"``.
            ax: Where (3-D axes for a surface); default new ones.
            log: Show the logarithm of the loss.
            cap: Cut off higher losses; ``inf`` is always cut off.
            path: Points ``(T, 2)`` to draw on top, e.g. of training; not on a surface.

        Returns:
            The axes; ``axes.figure.savefig(...)`` writes them.

        Raises:
            ImportError: matplotlib is absent.
            ValueError: An unknown kind.
        """  # noqa: DOC502
        from gradworks.curvature.landscape.plots import draw_plane

        return draw_plane(self, kind, ax, log=log, cap=cap, path=path)

    def write_html(self, path: str | Path, *, title: str = "Loss landscape") -> Path:
        """Write an interactive page that needs nothing else: 3-D and contours, zoomable.

        Args:
            path: The file, about 5 MB with plotly inside.
            title: Its heading.

        Returns:
            The file.

        Raises:
            ImportError: plotly is absent.
        """  # noqa: DOC502
        from gradworks.curvature.landscape.pages import write_page

        return write_page({title: self}, Path(path), title=title)
