"""Start a paper: write its skeletons, and say which commands check it."""

from __future__ import annotations

import datetime
import keyword
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from string import Template

from gradworks.papers._catalogue import papers
from gradworks.papers._model import AREAS, Paper

__all__ = ["check_commands", "new_paper"]

# The plainest member of each family; what must be replaced says "Skeleton:", a word that the
# contract of the papers refuses.
_TEMPLATES = Path(__file__).parent / "_templates"

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST_NAME = 30  # an import of it still fits a line
_SAYS_NOTHING = {"utils", "util", "helpers", "common", "base", "misc", "tools", "method", "paper"}


def new_paper(name: str, family: str, root: Path) -> list[Path]:
    """Write the skeletons of a method, its test, its paper module and its benchmark.

    They work from the first moment, as the plainest member of the family (plain gradient descent
    for an optimizer), so that every step from there is a small one. A paper whose card is in the
    catalogue already keeps it; then only the other three are written. Nothing is overwritten:
    either all files are new, or none is written.

    Args:
        name: Name in snake_case, as the files will be called; the slug has dashes instead.
        family: Package of the method, one of :data:`AREAS`.
        root: Root of the checkout.

    Returns:
        The files written, in the order in which they are worked on.

    Raises:
        ValueError: If the name or the family is not allowed, if ``root`` is no checkout, or if a
            file is there already.
    """
    _check_name(name)
    if family not in AREAS:
        raise ValueError(f"family must be one of {', '.join(AREAS)}; got {family!r}")
    package = root / "src" / "gradworks"
    if not (root / "pyproject.toml").is_file() or not package.is_dir():
        raise ValueError(
            f"root must be a gradworks checkout (pyproject.toml and src/gradworks), got {root}; "
            f"run this in the checkout or give --root"
        )
    slug = name.replace("_", "-")
    method = name
    card = package / "papers" / f"{name}.py"
    known = {paper.slug: paper for paper in papers()}.get(slug)
    has_card = card.exists() or card.with_suffix("").is_dir()
    if has_card and known is not None:
        if not known.planned:
            raise ValueError(f"{slug} runs already: {known.module}; nothing was written")
        if known.card.area != family:
            raise ValueError(
                f"the card of {slug} puts it in {known.card.area!r}, got --family {family!r}"
            )
        method = known.card.package.rpartition(".")[2]
    texts = _texts(name, method, slug, family)
    files = {
        package / family / f"{method}.py": texts["method"],
        root / "tests" / family / f"test_{method}.py": texts["test"],
        card: texts["paper"],
        root / "benchmarks" / f"{name}.py": texts["benchmark"],
    }
    if has_card and known is not None:
        del files[card]
    there = [path for path in files if path.exists() or path.with_suffix("").is_dir()]
    if there:
        names = ", ".join(path.relative_to(root).as_posix() for path in there)
        raise ValueError(f"{names} exists already; nothing was written. Choose another name")
    start = package / family / "__init__.py"
    if not start.exists():
        files = {start: _template("family").substitute(what=AREAS[family]), **files}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    _tidy(list(files), root)
    return list(files)


def _tidy(files: list[Path], root: Path) -> None:
    """Let ruff break the lines that a long name made too long, where it is installed."""
    if find_spec("ruff") is None:
        return
    names = [str(path.relative_to(root)) for path in files]
    for arguments in (["check", "--fix-only", "--quiet", *names], ["format", "--quiet", *names]):
        subprocess.run([sys.executable, "-m", "ruff", *arguments], cwd=root, check=False)


def _check_name(name: str) -> None:
    """Refuse names that cannot be a module or that say nothing."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ValueError(
            f"name must be snake_case (lower-case letters and digits, words joined by one "
            f"underscore, a letter first, no Python keyword), got {name!r}"
        )
    if len(name) > _LONGEST_NAME:
        raise ValueError(
            f"name must have at most {_LONGEST_NAME} characters, got {len(name)}: {name}"
        )
    if name in _SAYS_NOTHING:
        raise ValueError(f"name must say what the method is, got {name!r}")


def _texts(name: str, method: str, slug: str, family: str) -> dict[str, str]:
    """Return the text of each skeleton by what it is."""
    kind = family if (_TEMPLATES / family).is_dir() else "any"
    words = {
        "name": name,
        "method": method,
        "slug": slug,
        "family": family,
        "function": method if method.endswith("_loss") else f"{method}_loss",
        "cls": "".join(part.capitalize() for part in method.split("_")),
        "title": name.replace("_", " ").capitalize(),
        "date": datetime.date.today().isoformat(),
    }
    usage = _template(f"{kind}/usage").substitute(words)
    paper = f"{kind}/paper" if (_TEMPLATES / kind / "paper.txt").is_file() else "paper"
    return {
        "method": _template(f"{kind}/method").substitute(words),
        "test": _template(f"{kind}/test").substitute(words),
        "benchmark": _template(f"{kind}/benchmark").substitute(words),
        "paper": _template(paper).substitute(words, usage=usage),
    }


def _template(name: str) -> Template:
    """Return the text of a skeleton; each is correct and tested as it stands."""
    return Template((_TEMPLATES / f"{name}.txt").read_text(encoding="utf-8"))


def check_commands(paper: Paper, root: Path) -> list[list[str]]:
    """Return the commands that check ``paper``, in the order to run them.

    Args:
        paper: A paper of the catalogue.
        root: Root of the checkout.

    Returns:
        The tests of the method (where there are any), the contract of the paper and, once it runs,
        its quick preset in a store of its own.

    Raises:
        ValueError: If ``root`` holds no tests.
    """
    contract = root / "tests" / "papers" / "test_contract.py"
    if not contract.is_file():
        raise ValueError(
            f"root must be a gradworks checkout with its tests, but {contract} is missing; "
            f"run this in the checkout or give --root"
        )
    python = sys.executable
    commands = []
    tests = _tests_of(paper, root)
    if tests:
        commands.append([python, "-m", "pytest", "-q", *tests])
    one = f"{contract.relative_to(root).as_posix()}"
    commands.append([python, "-m", "pytest", "-q", one, "-k", f"[{paper.slug}]"])
    if not paper.planned:
        store = f"check-{paper.slug}.db"
        quick = ["run", paper.slug, "--preset", "quick", "--fresh", "--store", store]
        commands.append([python, "-m", "gradworks", *quick])
    return commands


def _tests_of(paper: Paper, root: Path) -> list[str]:
    """Return the test files of the paper's method, relative to ``root``."""
    folder = root / "tests" / paper.card.area
    own = paper.module.rpartition(".")[2]
    names = {paper.card.package.rpartition(".")[2], own}
    found = {
        path
        for name in names
        for pattern in (f"test_{name}.py", f"test_{name}_*.py", f"{name}/test_*.py")
        for path in folder.glob(pattern)
    }
    # A card may name one function of a larger module: then the whole family's tests count.
    if not found and not paper.planned:
        found = set(folder.glob("**/test_*.py"))
    return sorted(path.relative_to(root).as_posix() for path in found)
