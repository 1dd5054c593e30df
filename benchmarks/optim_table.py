"""Every optimizer here, each of its paths, against ``torch.optim.AdamW``: the table of the docs.

``python benchmarks/optim_table.py`` prints the step-cost table of ``docs/optimizers.md`` as
markdown: each path against the same path of AdamW, and against its fused step, the fastest there
is; ``--all`` against all three of its paths. A control, AdamW against itself, follows each ratio;
a ratio whose control excludes 1 is printed as not quotable. AdamW's own paths come first, as the
scale. The update alone is measured: AdaHessian is given its diagonal, what it costs to find one is
in ``optim_adahessian.py``.

``--only AdamP Trion``, ``--paths single``, ``--models mixed`` and ``--device cuda`` restrict it;
``--small`` is a smoke test, not a measurement.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from gradworks import optim
from gradworks.bench.timing import Timing, compare
from hundred_tensors import MODELS, described, parameters, parser, settle_memory, stepper

PATHS: dict[str, dict[str, Any]] = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
RANK = 64


def _give_diagonal(optimizer: Any) -> None:
    """Stand in for a Hessian estimate: the gradient, which has the shapes."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.set_hessian([p.grad for p in params])


@dataclass(frozen=True)
class Entry:
    """An optimizer and what it needs to be stepped."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    before: Callable[[Any], object] | None = None

    @property
    def make(self) -> Callable[..., Any]:
        """The class."""
        made: Callable[..., Any] = getattr(optim, self.name.partition(" ")[0])
        return made

    def paths(self) -> list[str]:
        """The paths that its constructor can be asked for."""
        taken = inspect.signature(self.make).parameters
        return [path for path, chosen in PATHS.items() if set(chosen) <= set(taken)]


ENTRIES = (
    Entry("AdamP"),
    Entry("SGDP", {"momentum": 0.9}),
    Entry("DiffGrad"),
    Entry("AdaHessian", before=_give_diagonal),
    Entry("DCTAdamW", {"rank": RANK}),
    Entry("DCTAdamW gap 200", {"rank": RANK, "update_gap": 200}),
    Entry("Trion", {"rank": RANK}),
)


def ordered(models: list[str]) -> list[str]:
    """Columns, however they were asked for."""
    return [model for model in MODELS if model in models]


def ratio_of(found: Timing) -> str:
    """One cell."""
    if found.doubt:
        return f"not quotable: {found.doubt}"
    return f"{found.ratio:.2f} [{found.lo:.2f}, {found.hi:.2f}]"


def measured(entry: Entry | None, path: str, against: str, options: Any, threads: int) -> list[str]:
    """A line's cells, one a model; without an entry AdamW itself."""
    cells = []
    for model in ordered(options.models):

        def params(model: str = model) -> list[torch.nn.Parameter]:
            return parameters(model, small=options.small, device=options.device)

        theirs = stepper(torch.optim.AdamW, params(), **PATHS[against])
        if entry is None:
            ours = stepper(torch.optim.AdamW, params(), **PATHS[path])
        else:
            chosen = {**entry.settings, **PATHS[path]}
            if options.small and "rank" in chosen:
                chosen["rank"] = RANK // 10
            ours = stepper(entry.make, params(), before=entry.before, **chosen)
        name = "torch.optim.AdamW" if entry is None else entry.name
        found = compare(
            ours,
            theirs,
            name=f"{name} {path}, {model}, {threads} thread(s)",
            peer_name=f"torch.optim.AdamW {against}",
            peer_version=torch.__version__,
            blocks=options.blocks,
            threads=threads,
        )
        print(f"<!-- {found.line()} -->", flush=True)
        cells.append(ratio_of(found))
    return cells


def pairs(options: Any) -> list[tuple[Entry | None, str, str]]:
    """What is compared: optimizer (None: AdamW), path, AdamW's path."""
    found: list[tuple[Entry | None, str, str]] = []
    if not options.only:
        found += [(None, path, "fused") for path in ("single", "foreach") if path in options.paths]
    for entry in ENTRIES:
        if options.only and entry.name.partition(" ")[0] not in options.only:
            continue
        for path in (path for path in entry.paths() if path in options.paths):
            against = list(PATHS) if options.all else dict.fromkeys((path, "fused"))
            found += [(entry, path, other) for other in against]
    return found


def main() -> None:
    """Parse the command line and print the table."""
    options = parser(__doc__ or "")
    names = sorted({entry.name.partition(" ")[0] for entry in ENTRIES})
    options.add_argument("--only", nargs="+", choices=names, default=[])
    options.add_argument("--paths", nargs="+", choices=tuple(PATHS), default=list(PATHS))
    options.add_argument("--all", action="store_true", help="against all paths of AdamW")
    arguments = options.parse_args()
    settle_memory()
    for threads in arguments.threads:
        print(f"torch {torch.__version__}, {arguments.device}, {threads} thread(s); rank {RANK}.")
        for model in arguments.models:
            print(f"{model}: {described(model, small=arguments.small)}.")
        lines = []
        for entry, path, against in pairs(arguments):
            cells = measured(entry, path, against, arguments, threads)
            name = "`torch.optim.AdamW`" if entry is None else f"`{entry.name}`"
            lines.append(f"| {' | '.join([name, path, f'AdamW {against}', *cells])} |")
        models = ordered(arguments.models)
        print(f"\n| optimizer | path | against | {' | '.join(models)} |")
        print("| --- " * (3 + len(models)) + "|")
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
