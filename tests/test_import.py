"""What an import costs: nothing heavy until it is asked for."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import gradworks
from gradworks import papers

HEAVY = (
    "torch",
    "scipy",
    "sklearn",
    "pandas",
    "matplotlib",
    "plotly",
    "jinja2",
    "rich",
    "typer",
    "numpy",
    "ray",
)
SHOW = "import json, sys; print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"


def modules_after(code: str, *options: str) -> set[str]:
    """Top-level modules that are loaded once ``code`` has run in a process of its own."""
    done = subprocess.run(
        [sys.executable, *options, "-c", f"{code}\n{SHOW}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("COV")},
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def loaded_by(code: str) -> set[str]:
    """Heavy modules that ``code`` loads."""
    return modules_after(code) & set(HEAVY)


def test_import_gradworks_loads_nothing() -> None:
    assert loaded_by("import gradworks; assert gradworks.__version__; dir(gradworks)") == set()


def test_losses_load_torch_and_no_more() -> None:
    assert loaded_by("import gradworks; gradworks.losses.AnyLoss") <= {"torch", "numpy"}


@pytest.mark.parametrize("name", ["optim", "curvature"])
def test_methods_need_torch_numpy_and_scipy_at_most(name: str) -> None:
    assert loaded_by(f"import gradworks; gradworks.{name}") <= {"torch", "numpy", "scipy"}


LIGHT = [
    "gradworks.papers",
    "gradworks.bench",
    "gradworks.bench.claims",
    "gradworks.bench.events",
    "gradworks.bench.experiment",
    "gradworks.bench.figures",
    "gradworks.bench.result",
    "gradworks.bench.store",
    "gradworks.report",
]


@pytest.mark.slow
def test_the_house_needs_no_torch() -> None:
    """The catalogue with all of its papers, the protocol's data and the store, in one process."""
    found = [f"gradworks.papers.{m.name}" for m in pkgutil.iter_modules(papers.__path__)]
    assert len(found) > 28
    code = f"import importlib\nfor name in {[*LIGHT, *found]}: importlib.import_module(name)"
    assert (
        loaded_by(code) & {"torch", "scipy", "sklearn", "pandas", "matplotlib", "plotly"} == set()
    )


COMMANDS = {
    "list": "['list']",
    "list --json": "['list', '--json']",
    "show": "['show', 'anyloss']",
    "help": "['--help']",
    "run --help": "['run', '--help']",
    "version": "['version']",
    "run planned": "['run', 'loldu']",
    "plan": "['run', 'anyloss', '--plan']",
}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_looking_does_not_import_torch(arguments: str) -> None:
    code = f"from gradworks.cli import main\nmain({arguments})"
    assert "torch" not in loaded_by(code)


@pytest.mark.slow
def test_torchvision_never_enters() -> None:
    """Its wheel breaks this torch: nothing of ours may import it, even where it is installed."""
    code = (
        "import sys, importlib, pkgutil, gradworks\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torchvision':\n"
        "            raise RuntimeError('torchvision was asked for')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "for m in pkgutil.walk_packages(gradworks.__path__, 'gradworks.'):\n"
        "    if not m.name.endswith('__main__') and '._templates' not in m.name:\n"
        "        importlib.import_module(m.name)\n"
    )
    assert "torchvision" not in modules_after(code, "-W", "ignore")


def test_no_source_names_torchvision() -> None:
    root = Path(gradworks.__file__).parent
    for path in root.rglob("*.py"):
        for line in path.read_text().splitlines():
            assert not line.strip().startswith(("import torchvision", "from torchvision")), path


@pytest.mark.parametrize("name", gradworks.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(gradworks, name)
    assert name in dir(gradworks)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'losess'"):
        gradworks.losess  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("blocked", "code", "line"),
    [
        ("typer", "import gradworks.cli", 'pip install "gradworks[cli]"'),
        (
            "sklearn",
            "from gradworks.losses import AnyLossClassifier",
            'pip install "gradworks[tables]"',
        ),
    ],
)
def test_a_missing_extra_names_the_pip_line(blocked: str, code: str, line: str) -> None:
    block = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {blocked!r}:\n"
        f"            raise ImportError('no {blocked} here')\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", block + code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert line in done.stderr
