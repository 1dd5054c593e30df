"""New papers: the skeletons work, nothing is overwritten, bad names are refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradworks.papers import AREAS, Paper, check_commands, find, new_paper, papers

ROOT = Path(__file__).parents[2]
WRITTEN = {
    "lion": "optim",
    "soft_dice": "losses",
    "block_diagonal_hadamard_layers": "layers",  # as long as a name may be
    "stochastic_lanczos_saliency_ab": "curvature",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with nothing but what new_paper looks for."""
    (tmp_path / "src" / "gradworks" / "papers").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


def names(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_the_four_files_and_the_family(root: Path) -> None:
    found = names(new_paper("new_idea", "solvers", root), root)
    assert found == [
        "src/gradworks/solvers/__init__.py",
        "src/gradworks/solvers/new_idea.py",
        "tests/solvers/test_new_idea.py",
        "src/gradworks/papers/new_idea.py",
        "benchmarks/new_idea.py",
    ]
    text = (root / "src/gradworks/papers/new_idea.py").read_text()
    assert 'slug="new-idea"' in text
    assert 'package="gradworks.solvers.new_idea"' in text
    # The family is there now and is left alone.
    again = names(new_paper("other_idea", "solvers", root), root)
    assert again[0] == "src/gradworks/solvers/other_idea.py"


def test_a_planned_paper_keeps_its_card(root: Path) -> None:
    card = root / "src/gradworks/papers/deep_conjugate_direction.py"
    card.write_text("CARD = ...\n")
    found = names(new_paper("deep_conjugate_direction", "solvers", root), root)
    assert found == [
        "src/gradworks/solvers/__init__.py",
        "src/gradworks/solvers/deep_cg.py",  # as its card says
        "tests/solvers/test_deep_cg.py",
        "benchmarks/deep_conjugate_direction.py",
    ]
    assert card.read_text() == "CARD = ...\n"


def test_the_family_of_a_planned_paper_is_its_cards(root: Path) -> None:
    (root / "src/gradworks/papers/deep_conjugate_direction.py").write_text("")
    wanted = "the card of deep-conjugate-direction puts it in 'solvers', got --family"
    with pytest.raises(ValueError, match=wanted):
        new_paper("deep_conjugate_direction", "losses", root)


def test_a_paper_that_runs_is_not_begun_again(root: Path) -> None:
    (root / "src/gradworks/papers/adamp").mkdir()
    with pytest.raises(ValueError, match="adamp runs already"):
        new_paper("adamp", "optim", root)


@pytest.mark.parametrize(
    "there",
    [
        "src/gradworks/optim/lion.py",
        "src/gradworks/optim/lion/__init__.py",
        "tests/optim/test_lion.py",
        "src/gradworks/papers/lion.py",
        "benchmarks/lion.py",
    ],
)
def test_nothing_is_overwritten_and_nothing_half_written(root: Path, there: str) -> None:
    path = root / there
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine\n")
    before = sorted(root.rglob("*"))
    with pytest.raises(ValueError, match="exists already; nothing was written"):
        new_paper("lion", "optim", root)
    assert path.read_text() == "mine\n"
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Lion", "snake_case"),
        ("my-lion", "snake_case"),
        ("2lion", "snake_case"),
        ("_lion", "snake_case"),
        ("lion_", "snake_case"),
        ("li__on", "snake_case"),
        ("../lion", "snake_case"),
        ("lion.py", "snake_case"),
        ("löwe", "snake_case"),
        ("", "snake_case"),
        ("class", "Python keyword"),
        ("a" * 31, "at most 30 characters, got 31"),
        ("utils", "must say what the method is"),
        ("common", "must say what the method is"),
    ],
)
def test_bad_names(root: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        new_paper(name, "optim", root)
    assert not (root / "benchmarks").exists()


def test_an_unknown_family_is_told_the_known_ones(root: Path) -> None:
    with pytest.raises(ValueError, match=r"family must be one of losses, optim, .*got 'magic'"):
        new_paper("lion", "magic", root)


def test_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="root must be a gradworks checkout"):
        new_paper("lion", "optim", tmp_path)


@pytest.mark.parametrize("family", AREAS)
def test_every_family_has_a_skeleton(root: Path, family: str) -> None:
    for path in new_paper("some_idea", family, root):
        text = path.read_text()
        assert "$" not in text, path
        compile(text, str(path), "exec")


@pytest.mark.slow
def test_skeletons_pass_the_checks_and_their_own_tests(tmp_path: Path) -> None:
    """A copy of the package with four new papers: ruff, mypy --strict, pytest, one trial."""
    root = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", root / "src", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "papers", root / "tests" / "papers", ignore=ignore)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, root / name)
    made = [path for name, family in WRITTEN.items() for path in new_paper(name, family, root)]
    files = names(made, root)
    source = [name for name in files if name.startswith("src/")]
    tests = [name for name in files if name.startswith("tests/")]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}

    def check(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    check("ruff", "check", *files)
    check("ruff", "format", "--check", *files)
    check("mypy", "--cache-dir", str(tmp_path / "mypy"), "--follow-imports=silent", *source)
    check("pytest", "-q", "-p", "no:cacheprovider", *tests, *source)
    code = (
        "import dataclasses, sys\n"
        "from gradworks.bench.trial import Trial\n"
        "from gradworks.bench.training import train\n"
        "from gradworks.papers import find, papers\n"
        "assert all(not find(slug).planned for slug in ('lion',))\n"
        "assert find('soft-dice').planned and find('block_diagonal_hadamard_layers').planned\n"
        "for preset in ('quick', 'full', 'paper'):\n"
        "    experiment = find('lion').build(preset)\n"
        "workload = dataclasses.replace(find('lion').build('quick').workloads[0], steps=3)\n"
        "trial = Trial.offline(workload, experiment.arms[0])\n"
        "train(trial)\n"
        "assert 0 <= trial.results['test']['error'] <= 1\n"
        "assert sys.modules['gradworks.optim.lion'].__file__.startswith(sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(root)], cwd=root, env=environment, check=True)
    # The contract sees that the words are still to be written.
    only = ["-p", "no:cacheprovider", "-k", "[lion] or [soft-dice]"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/papers/test_contract.py", *only],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "is still the skeleton's" in done.stdout
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert {line.split("::")[1].split(" ")[0] for line in failed} == {
        f"{test}[{slug}]" for test in ("test_card", "test_claims") for slug in ("lion", "soft-dice")
    }


# ---------------------------------------------------------------- check


def test_commands_of_a_paper_that_runs(tmp_path: Path) -> None:
    for name in ("optim/test_adamp.py", "optim/test_adamp_paths.py", "papers/test_contract.py"):
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).touch()
    (tmp_path / "tests/optim/test_other.py").touch()
    tests, contract, quick = check_commands(find("adamp"), tmp_path)
    assert tests[:4] == [sys.executable, "-m", "pytest", "-q"]
    assert tests[4:] == ["tests/optim/test_adamp.py", "tests/optim/test_adamp_paths.py"]
    assert contract[-3:] == ["tests/papers/test_contract.py", "-k", "[adamp]"]
    assert quick[2:] == (
        ["gradworks", "run", "adamp", "--preset", "quick", "--fresh", "--store", "check-adamp.db"]
    )


@pytest.mark.parametrize("paper", papers(), ids=lambda paper: paper.slug)
def test_every_paper_that_runs_has_tests_of_its_method(paper: Paper) -> None:
    commands = check_commands(paper, ROOT)
    if not paper.planned:
        assert len(commands) == 3
        assert all((ROOT / name).is_file() for name in commands[0][4:])


def test_commands_of_a_planned_paper_leave_the_run_out() -> None:
    planned = next(paper for paper in papers() if paper.planned)
    commands = check_commands(planned, ROOT)
    assert commands[-1][-1] == f"[{planned.slug}]"
    assert not any("run" in command for command in commands)


def test_commands_need_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkout with its tests"):
        check_commands(find("adamp"), tmp_path)


@pytest.mark.slow
def test_the_contract_command_selects_one_paper() -> None:
    contract = check_commands(find("adamp"), ROOT)[-2]
    done = subprocess.run(
        [*contract, "--collect-only", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    tests = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(tests) >= 5
    assert all("adamp" in line for line in tests)
