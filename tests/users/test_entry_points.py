"""An installed package of a user's own puts its experiments on the command line, by entry points."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")
pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")

from tests.conftest import ROOT

MISSING = [name for name in ("pip", "setuptools", "wheel") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}, of the dev extra")

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "scratch"
version = "1"

[project.entry-points."tinymaml.experiments"]
oscillators = "scratch:Oscillators"
swings = "scratch:swings"
taken = "scratch:TAKEN"
nothing = "scratch:nothing"
broken = "scratch:no_such_name"

[tool.setuptools]
py-modules = ["scratch"]
"""

EXPERIMENTS = """

class Swings(Oscillators):
    pass


def swings():
    methods = {"maml": tm.methods.MAML(steps=2, alpha=0.02), "mine": tm.methods.MAML(order=1, alpha=0.03)}
    return tm.Experiment(Swings(), "swings", methods, summary="to be seen in the help")


TAKEN = tm.Experiment(Swings(), "sinusoid")


def nothing():
    return 3
"""

SMALL = ["--iterations", "4", "--meta-batch", "3", "--validation-tasks", "4", "--eval-tasks", "5", "--eval-steps", "2"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the scratch package is installed."""
    folder = tmp_path_factory.mktemp("scratch")
    problem = (ROOT / "tests/users/problems/oscillators.py").read_text(encoding="utf-8")
    (folder / "scratch.py").write_text(problem.partition("\n\nif __name__")[0] + EXPERIMENTS, encoding="utf-8")
    (folder / "pyproject.toml").write_text(PROJECT)
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(folder)], check=True, cwd=folder)
    return target


def command(site: Path, cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-m", "tinymaml", *argv], capture_output=True, text=True, cwd=cwd, env=environment
    )


def test_its_experiments_are_on_the_command_line(site: Path, tmp_path: Path) -> None:
    done = command(site, tmp_path, "train", "--help")
    assert done.returncode == 0
    assert "oscillators" in done.stdout and "to be seen in the help" in done.stdout
    done = command(site, tmp_path, "train", "swings", "--method", "all", *SMALL)
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "runs/swings/results.json").read_text())
    assert saved["experiment"] == "swings"
    assert {name: entry["settings"]["alpha"] for name, entry in saved["methods"].items()} == {
        "maml": 0.02,
        "mine": 0.03,
    }
    assert "swings: mean squared error; new tasks" in done.stdout

    # Those that cannot be used are named, and are in nobody's way.
    lines = [line for line in done.stderr.splitlines() if "is left out" in line]
    assert sorted(lines) == [
        "tinymaml: the experiment broken (scratch:no_such_name) is left out: module 'scratch' has no attribute "
        "'no_such_name'",
        "tinymaml: the experiment nothing (scratch:nothing) is left out: it is no Experiment or Domain, but int",
        "tinymaml: the experiment taken (scratch:TAKEN) is left out: there is an experiment sinusoid already",
    ]


@pytest.mark.slow
@pytest.mark.slow
def test_a_domain_is_an_experiment_from_training_to_pictures(site: Path, tmp_path: Path) -> None:
    done = command(site, tmp_path, "train", "oscillators", "--no-evaluate", *SMALL)
    assert done.returncode == 0, done.stderr
    done = command(site, tmp_path, "evaluate", "oscillators", "--eval-tasks", "6")
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "runs/oscillators/results.json").read_text())
    assert saved["methods"]["maml"]["protocol"]["tasks"] == 6
    done = command(site, tmp_path, "plot", "oscillators", "--format", "svg")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/oscillators/figures/training.svg").exists()
