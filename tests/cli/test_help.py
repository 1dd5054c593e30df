"""Every command explains itself; completion comes out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tests.cli.conftest import Call

from gradworks.cli import app, main

COMMANDS = [
    "list",
    "show",
    "run",
    "report",
    "compare",
    "spectrum",
    "landscape",
    "lr",
    "learning-rate",
    "verify",
    "new-paper",
    "check",
    "version",
    "data list",
    "data install",
    "data verify",
]


def _leaves(group: object, prefix: str = "") -> list[str]:
    found = []
    for name, command in group.commands.items():
        path = f"{prefix}{name}"
        found += _leaves(command, f"{path} ") if hasattr(command, "commands") else [path]
    return found


def test_the_list_of_commands_is_complete() -> None:
    assert sorted(_leaves(typer.main.get_command(app))) == sorted(COMMANDS)


@pytest.mark.parametrize("command", ["", "data", *COMMANDS])
def test_help(call: Call, command: str) -> None:
    done = call(*command.split(), "--help")
    assert done.code == 0
    assert not done.err
    assert f"gradworks {command}".strip() in done.out
    assert "Usage:" in done.out
    assert "Traceback" not in done.out


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("version", "data list")])
def test_help_has_an_example_that_parses(call: Call, command: str) -> None:
    """Each example is a call of this very command, and every option in it exists."""
    text = " ".join(call(*command.split(), "--help").out.split())
    assert re.search(r"Examples?:", text)
    tail = re.split(r"Examples?:", text)[1]
    assert f"gradworks {command}" in tail
    leaf = typer.main.get_command(app)
    for word in command.split():
        leaf = leaf.commands[word]
    known = {
        option
        for parameter in leaf.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    shown = tail.split("╭")[0]
    used = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", shown))
    assert used <= known, used - known


def test_options_are_explained() -> None:
    """No option without a line of help."""
    silent = []

    def walk(group: object, prefix: str) -> None:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(command, f"{prefix}{name} ")
                continue
            silent.extend(
                f"{prefix}{name} {parameter.name}"
                for parameter in command.params
                if not getattr(parameter, "help", None) and parameter.name != "help"
            )

    walk(typer.main.get_command(app), "")
    assert silent == []


def test_no_arguments_show_the_help(call: Call) -> None:
    done = call()
    assert "Usage: gradworks" in done.out + done.err
    assert done.code in (0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str, tmp_path: Path) -> None:
    """The script for the shell, and the answer that the script asks for."""
    env = {**os.environ, "HOME": str(tmp_path)}
    script = subprocess.run(
        [sys.executable, "-m", "gradworks", "--show-completion", shell],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**env, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert script.returncode == 0, script.stderr
    assert "gradworks" in script.stdout
    assert "complete" in script.stdout.lower() or "compdef" in script.stdout


@pytest.mark.slow
def test_completion_offers_the_commands() -> None:
    program = Path(sys.executable).with_name("gradworks")
    if not program.exists():
        pytest.skip("the console script is not installed beside this Python")
    env = {
        **os.environ,
        "_GRADWORKS_COMPLETE": "complete_bash",
        "COMP_WORDS": "gradworks re",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [str(program)], capture_output=True, text=True, timeout=60, check=False, env=env
    )
    assert "report" in done.stdout.split()


def test_main_takes_the_arguments_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gradworks", "version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("gradworks ")
