"""The Python of README.md and of the documentation runs, block after block of a page."""

from __future__ import annotations

import builtins
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=fence)\s*$", re.M | re.S
)
LANGUAGES = {"python", "console", "sh", "bash", "text", "toml", "json", "yaml", "sql", "", "diff"}


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """Line, language and code of every fenced block; MyST directives (``{...}``) are left out."""
    text = page.read_text()
    return [
        (text[: m.start("code")].count("\n") + 1, m["language"].strip(), m["code"])
        for m in BLOCK.finditer(text)
        if not m["language"].strip().startswith("{")
    ]


def pythons(page: Path) -> list[tuple[int, str]]:
    return [(line, code) for line, language, code in blocks(page) if language == "python"]


WITH_CODE = [page for page in PAGES if pythons(page)]


def test_pages_are_found() -> None:
    names = {str(page.relative_to(ROOT)) for page in WITH_CODE}
    assert {"README.md", "docs/start.md", "docs/methods/anyloss.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_languages_are_named_as_usual(page: Path) -> None:
    """A block marked ``py`` or ``Python`` would be skipped in silence."""
    assert {language for _, language, _ in blocks(page)} <= LANGUAGES


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a page share their names, as a reader would paste them one after the other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtins, "print", lambda *words, **_: [str(word) for word in words])
    # Some examples show short code for data of the reader's own shape; the seed keeps them calm.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names: dict[str, object] = {"__name__": "example"}
        for line, code in pythons(page):
            padded = "\n" * line + code  # line numbers of a failure are those of the page
            exec(compile(padded, str(page), "exec"), names)


def test_readme_has_an_example_of_each_kind() -> None:
    code = "\n".join(code for _, code in pythons(ROOT / "README.md"))
    for family in ("losses", "optim", "multitask", "curvature", "layers"):
        assert f"from gradworks.{family}" in code, family
    for _, block in pythons(ROOT / "README.md"):
        lines = [line for line in block.splitlines() if line and "import" not in line]
        assert len(lines) <= 5, block


def test_commands_of_the_pages_exist() -> None:
    """Every ``gradworks WORD`` in a console block is a command, with options that it has."""
    import typer

    from gradworks.cli import app

    root = typer.main.get_command(app)
    seen = 0
    for page in PAGES:
        for line, language, code in blocks(page):
            if language not in ("console", "sh", "bash"):
                continue
            for call in code.replace("\\\n", " ").splitlines():
                words = call.split("#")[0].removeprefix("$ ").split()
                if words[:1] != ["gradworks"] or len(words) < 2 or words[1].startswith("-"):
                    continue
                command, rest = root, words[1:]
                while hasattr(command, "commands"):
                    assert rest[0] in command.commands, f"{page}:{line}: {call}"
                    command, rest = command.commands[rest[0]], rest[1:]
                known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
                used = {w.split("=")[0] for w in rest if w.startswith("-")}
                assert used <= known | {"--debug"}, f"{page}:{line}: {call}"
                seen += 1
    assert seen >= 5
