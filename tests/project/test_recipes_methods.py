"""The recipes for a new method and a new domain, done in a scratch copy: no other file needs to be touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")
pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")

from tests.conftest import ROOT

SMALL = ["--iterations", "6", "--meta-batch", "4", "--validation-tasks", "4", "--eval-tasks", "5", "--eval-steps", "2"]

REPTILE = '''
"""Reptile (Nichol et al. 2018), its batched version: the start moves towards where inner steps lead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tinymaml.autodiff import tree
from tinymaml.autodiff.tree import Tree
from tinymaml.meta.maml import adapt
from tinymaml.methods.inner import predictions_after
from tinymaml.methods.method import Batch, Method, Problem
from tinymaml.ops import mean
from tinymaml.settings import setting


@dataclass(frozen=True)
class Batched(Method):
    """The start moves towards the mean of the adapted parameters; there is no meta-gradient, and no query set."""

    STREAM: ClassVar[str] = "examples"

    steps: int = setting(5, "inner steps in meta-training")
    alpha: float = setting(0.01, "step size of the inner steps", positive=True)
    rate: float = setting(0.5, "step size of the outer step", positive=True)

    @property
    def step_size(self) -> Any:
        """Of the inner steps."""
        return self.alpha

    def init(self, problem: Problem, rng: np.random.Generator, dtype: Any) -> Tree:
        """The network's parameters."""
        return {"params": problem.model.init(rng, dtype)}

    def update(self, problem: Problem, state: Tree, batch: Any) -> tuple[Tree, dict[str, Any]]:
        """A step towards the mean of the adapted parameters."""
        params = state["params"]
        adapted = adapt(problem.objective, params, batch, self.alpha, self.steps)
        moved = tree.map(lambda p, phi: p + self.rate * (mean(phi, 0, keepdims=True) - p), params, adapted)
        return {"params": moved}, {"loss": problem.objective(params, batch)}

    def predict(self, problem: Problem, state: Tree, support: Batch, inputs: Tree, steps: Sequence[int]) -> Tree:
        """Predictions after inner steps on the support set."""
        return predictions_after(problem, state["params"], self.alpha, support, inputs, steps)
'''

DOMAIN = '''
"""Damped oscillators as a domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymaml import nn
from tinymaml.methods.method import Episodes
from tinymaml.settings import setting
from tinymaml.train.domain import Domain


@dataclass(frozen=True)
class Oscillators(Domain):
    """Each task is one, to be told from a few points in time."""

    shots: int = setting(10, "support points a task")
    hidden: tuple[int, ...] = setting((40, 40), "units of each hidden layer")

    def model(self) -> nn.Model:
        """A small perceptron."""
        return nn.mlp([1, *self.hidden, 1], "tanh")

    def task(self, rng: np.random.Generator, split: str) -> Episodes:
        """Points of one oscillator."""
        amplitude, damping, frequency = rng.uniform([-2, 0.1, 1], [2, 0.3, 2])
        t: Any = rng.uniform(0, 4, (self.shots + 20, 1))
        y = amplitude * np.exp(-damping * t) * np.cos(frequency * t)
        return {"x": t[: self.shots], "y": y[: self.shots]}, {"x": t[self.shots :], "y": y[self.shots :]}
'''

OSCILLATORS = '''
"""The experiment on oscillators."""

from __future__ import annotations

from tinymaml.experiments.oscillators.domain import Oscillators
from tinymaml.train.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {"oscillators": Experiment(Oscillators(), summary="damped oscillators")}
'''


@pytest.fixture
def copy(repository_files: list[Path], tmp_path: Path) -> Path:
    """A copy of the package, where changes are the test's; kernels and tasks, which no recipe touches, are links."""
    folder = tmp_path / "copy"
    for file in repository_files:
        if file.parts[0] == "tinymaml" and not (ROOT / file).is_symlink():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
    for name in ("kernels", "tasks"):  # with what Numba has compiled there
        (folder / "tinymaml" / name).symlink_to(ROOT / name)
    return folder


def write(copy: Path, name: str, text: str) -> None:
    path = copy / "tinymaml" / name
    path.parent.mkdir(exist_ok=True)
    assert not path.exists()
    path.write_text(text.lstrip("\n"), encoding="utf-8")


def put(copy: Path, name: str, line: str, after: str) -> None:
    """A line behind another one."""
    path = copy / "tinymaml" / name
    text = path.read_text(encoding="utf-8")
    assert text.count(after) == 1
    path.write_text(text.replace(after, after + line), encoding="utf-8")


def train(copy: Path, *argv: str) -> str:
    """The table that training in the copy prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    where = [sys.executable, "-c", "import tinymaml; print(tinymaml.__file__)"]
    said = subprocess.run(where, cwd=copy, env=environment, capture_output=True, text=True, check=True).stdout
    assert Path(said.strip()) == copy / "tinymaml" / "__init__.py"
    done = subprocess.run(
        [sys.executable, "-m", "tinymaml", "train", *argv, *SMALL],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_method_is_a_file_and_a_line_in_two(copy: Path) -> None:
    write(copy, "methods/batched.py", REPTILE)
    put(
        copy,
        "methods/__init__.py",
        "from tinymaml.methods.batched import Batched as Batched\n",
        after="from tinymaml.methods.pooled import Oracle, Pretrained, Random\n",
    )
    put(
        copy,
        "train/domain.py",
        "from tinymaml.methods import Batched\n",
        after="from tinymaml.methods.method import Batch, Episodes\n",
    )
    put(copy, "train/domain.py", '        "batched": Batched(),\n', after='        "oracle": Oracle(),\n')
    table = train(copy, "sinusoid", "--method", "batched", "--rate", "1", "--hidden", "8")
    assert "batched" in table
    entry = json.loads((copy / "runs/sinusoid/results.json").read_text())["methods"]["batched"]
    assert entry["settings"]["rate"] == 1
    assert (copy / "runs/sinusoid/figures/training.png").exists()


@pytest.mark.slow
def test_a_domain_is_a_folder_and_a_line(copy: Path) -> None:
    write(copy, "experiments/oscillators/__init__.py", '"""Regression of damped oscillators."""\n')
    write(copy, "experiments/oscillators/domain.py", DOMAIN)
    write(copy, "experiments/oscillators/experiments.py", OSCILLATORS)
    put(
        copy,
        "experiments/registry.py",
        "from tinymaml.experiments.oscillators.experiments import EXPERIMENTS as OSCILLATORS\n",
        after="from tinymaml.experiments.few_shot.experiments import IMAGES\n",
    )
    put(copy, "experiments/registry.py", ", **OSCILLATORS", after="{**SINUSOID, **FEW_SHOT, **CONTROL")
    table = train(
        copy, "oscillators", "--method", "pretrained", "--shots", "5", "--hidden", "8", "--finetune-alphas", "0.1"
    )
    assert "oscillators: mean squared error; new tasks" in table
    entry = json.loads((copy / "runs/oscillators/results.json").read_text())["methods"]["pretrained"]
    assert entry["settings"]["shots"] == 5
    assert (copy / "runs/oscillators/figures/training.png").exists()
