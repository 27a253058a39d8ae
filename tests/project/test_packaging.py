"""What is built from the repository is what is in it, and it runs where there is nothing but NumPy."""

import importlib.util
import os
import re
import shutil
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT, run

MISSING = [name for name in ("build", "pip", "setuptools") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}, of the dev extra")

PACKAGE = {"tinymaml": "tinymaml", "kernels": "tinymaml/kernels", "tasks": "tinymaml/tasks"}
LINKS = {Path("tinymaml/kernels"): "../kernels", Path("tinymaml/tasks"): "../tasks"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def build(checkout: Path, *what: str) -> dict[str, Path]:
    """Builds without the network; what was built, by the end of its name."""
    run(sys.executable, "-m", "build", "--no-isolation", *what, cwd=checkout)
    return {path.suffix: path for path in (checkout / "dist").iterdir()}


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        return {name: archive.read(name) for name in names}


def package_files(content: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in content.items() if ".dist-info/" not in name}


def checkout(files: list[Path], folder: Path, links: bool = True) -> Path:
    """A copy of the repository; without links it is what git makes where there are none: files that hold the target."""
    for file in files:
        copy = folder / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not (ROOT / file).is_symlink():
            shutil.copy(ROOT / file, copy)
        elif links:
            copy.symlink_to((ROOT / file).readlink())
        else:
            copy.write_text(str((ROOT / file).readlink()))
    return folder


def install(python: Path, wheel: Path, cwd: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=cwd)


@pytest.fixture(scope="session")
def wheel(repository_files, tmp_path_factory) -> Path:
    return build(checkout(repository_files, tmp_path_factory.mktemp("wheel")), "--wheel")[".whl"]


@pytest.fixture(scope="session")
def sdist(repository_files, tmp_path_factory) -> dict[str, Path]:
    """The sdist, and the wheel that was built from it."""
    return build(checkout(repository_files, tmp_path_factory.mktemp("sdist")))


def test_links_are_relative_and_right(repository_files):
    links = {file: os.readlink(ROOT / file) for file in repository_files if (ROOT / file).is_symlink()}
    assert links == LINKS
    assert all((ROOT / link).resolve() == ROOT.resolve() / link.name for link in LINKS)


def test_wheel_holds_the_package_files_of_the_repository(wheel, repository_files):
    expected = {
        "/".join([PACKAGE[file.parts[0]], *file.parts[1:]]): (ROOT / file).read_bytes()
        for file in repository_files
        if file.parts[0] in PACKAGE and file not in LINKS
    }
    packaged = package_files(content(wheel))
    assert sorted(packaged) == sorted(expected)
    assert packaged == expected


def test_wheel_metadata(wheel):
    files = content(wheel)
    version = wheel.name.split("-")[1]
    folder = f"tinymaml-{version}.dist-info"
    assert f'__version__ = "{version}"' in files["tinymaml/__init__.py"].decode()
    assert "tinymaml = tinymaml.cli:main" in files[f"{folder}/entry_points.txt"].decode()
    assert files[f"{folder}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert files[f"{folder}/top_level.txt"].split() == [b"tinymaml"]
    metadata = files[f"{folder}/METADATA"].decode()
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert needed == ["Requires-Dist: numpy>=2.0"]


def test_sdist_builds_the_same_wheel(wheel, sdist):
    assert content(sdist[".whl"]) == content(wheel)


def test_sdist_holds_every_file_once(sdist, repository_files):
    with tarfile.open(sdist[".gz"]) as archive:
        names = ["/".join(member.name.split("/")[1:]) for member in archive.getmembers() if not member.isdir()]
    assert len(names) == len(set(names))
    made = {"PKG-INFO", "setup.cfg"}
    left_out = {file for file in repository_files if file.parts[0].startswith(".git")} | set(LINKS)
    sources = {name for name in names if ".egg-info/" not in name and name not in made}
    assert sources == {file.as_posix() for file in repository_files if file not in left_out}


def test_a_checkout_without_links_builds_the_same_wheel(wheel, repository_files, tmp_path):
    linkless = checkout(repository_files, tmp_path, links=False)
    assert not any((linkless / link).is_symlink() for link in LINKS)
    assert content(build(linkless, "--wheel")[".whl"]) == content(wheel)


def test_wheel_runs_where_there_is_numpy_alone(wheel, numpy_only, meta_step, tmp_path):
    python = numpy_only(tmp_path / "venv")
    install(python, wheel, cwd=tmp_path)
    imported = run(python, "-I", "-W", "error", "-c", meta_step, cwd=tmp_path)
    assert Path(imported.strip()).is_relative_to(tmp_path / "venv")
    assert "usage: tinymaml" in run(python.with_name("tinymaml"), "--help", cwd=tmp_path)
    assert "numpy" in run(python.with_name("tinymaml"), "doctor", cwd=tmp_path).lower()


def test_editable_install(repository_files, numpy_only, meta_step, tmp_path):
    editable = checkout(repository_files, tmp_path / "checkout")
    backend = "import sys, setuptools.build_meta as backend; backend.build_editable(sys.argv[1])"
    run(sys.executable, "-c", backend, tmp_path, cwd=editable)
    (wheel,) = tmp_path.glob("*.whl")
    python = numpy_only(tmp_path / "venv")
    install(python, wheel, cwd=tmp_path)
    assert Path(run(python, "-I", "-W", "error", "-c", meta_step, cwd=tmp_path).strip()).is_relative_to(editable)
    (editable / "kernels" / "cpu" / "fresh.py").write_text("")
    run(python, "-I", "-c", "import tinymaml.kernels.cpu.fresh", cwd=tmp_path)


def test_runs_from_a_checkout_that_is_not_installed(repository_files, numpy_only, meta_step, tmp_path):
    here = checkout(repository_files, tmp_path / "checkout")
    python = numpy_only(tmp_path / "venv")
    assert Path(run(python, "-W", "error", "-c", meta_step, cwd=here).strip()).is_relative_to(here)


def test_lock_fits_the_project():
    """All that the lock covers is pinned, within its bounds, and nothing but hashes says where it is from."""
    (extras,) = re.findall(r"^LOCKED := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lock = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    entries = [line for line in lock.splitlines() if line and not line.lstrip().startswith("#")]
    pinned: dict[str, list[str]] = {}
    for entry in entries:
        requirement, *hashes = entry.split(" --")
        name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)( ;.*)?", requirement.strip()).group(1, 2)
        assert hashes, entry
        assert all(re.fullmatch(r"hash=sha256:[0-9a-f]{64}\s*", value) for value in hashes), entry
        pinned.setdefault(canonicalize_name(name), []).append(version)
    listed = PROJECT["optional-dependencies"]
    needed = PROJECT["dependencies"] + [line for extra in extras.split() for line in listed[extra]]
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in map(Requirement, needed + backend):
        versions = pinned.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement} is not in requirements.lock: run `make lock`"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: run `make lock`"
    assert not {"torch", "jax", "jaxlib"} & set(pinned), "the bench extra stays outside the lock"


def test_every_requirement_has_a_lower_bound():
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]:
        for requirement in map(Requirement, group):
            bounds = {specifier.operator for specifier in requirement.specifier}
            assert bounds & {">=", "=="} or requirement.name == PROJECT["name"], requirement


def test_no_file_names_a_registry_or_a_path_of_one_machine(repository_files):
    hosts = r"pypi\.(?:org|python)|pythonhosted\.|download\.pytorch\.|anaconda\.(?:org|com)|pypi\.nvidia"
    options = r"--(?:extra-)?index-url|--find-link[s]"
    paths = r"(?<![\w.~-])/(?:farm|home|root|work|Users)/"
    forbidden = re.compile(f"{hosts}|{options}|{paths}")
    found = []
    for file in repository_files:
        data = (ROOT / file).read_bytes() if (ROOT / file).is_file() else b""
        if b"\0" not in data:
            lines = data.decode(errors="replace").splitlines()
            found += [f"{file}:{n}: {line[:200]}" for n, line in enumerate(lines, 1) if forbidden.search(line)]
    assert not found, "\n".join(found)
