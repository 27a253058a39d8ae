"""What several test files share."""

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinymaml.autodiff.primitive import Primitive
from tinymaml.kernels.cpu import numba_is_used, threads

ROOT = Path(__file__).parents[1]

if sys.platform == "linux" and "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl")  # read when MuJoCo is imported: it draws without a screen


def run(*command: str | Path, cwd: Path) -> str:
    """What the command prints, in an environment without the PYTHON… settings of this one. It has to succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tables that tests have recorded, `record_property("table", text)`: from whatever process they come."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            recorded = report.user_properties if getattr(report, "when", "") == "call" else ()
            for name, text in recorded:
                if name == "table":
                    terminalreporter.write_line(text)


@pytest.fixture(scope="session")
def repository_files() -> list[Path]:
    """The files of this repository, relative to its top: those git has, and those `git add --all` would give it."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a git checkout, and git, to know the repository's files")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = sorted({Path(name) for name in listed.split("\0") if name})
    return [file for file in files if (ROOT / file).is_symlink() or (ROOT / file).exists()]


@pytest.fixture(scope="session")
def numpy_only() -> Callable[[Path], Path]:
    """Makes a virtual environment in which there is NumPy and nothing else, not even pip; gives its Python."""

    def make(folder: Path) -> Path:
        venv.create(folder, with_pip=False, symlinks=True)
        (packages,) = folder.glob("lib/*/site-packages")
        numpy = importlib.metadata.distribution("numpy")
        for part in {file.parts[0] for file in numpy.files or () if file.parts[0].startswith("numpy")}:
            (packages / part).symlink_to(Path(str(numpy.locate_file(part))).resolve())
        seen = "import pkgutil, sys; print(*(module.name for module in pkgutil.iter_modules(sys.argv[1:])))"
        assert run(folder / "bin/python", "-c", seen, packages, cwd=folder).split() == ["numpy"]
        return folder / "bin/python"

    return make


@pytest.fixture
def use_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets how many threads kernels run on."""
    thread_pool = importlib.import_module("tinymaml.kernels.cpu.compiled.thread_pool") if numba_is_used() else None

    def clear() -> None:
        threads._pool.cache_clear()
        if thread_pool is not None:
            thread_pool._thread_pool.cache_clear()

    def use(count: int) -> None:
        monkeypatch.setattr(threads, "count", lambda: count)
        clear()

    yield use
    clear()


@pytest.fixture
def same_on_any_threads(use_threads: Callable[[int], None]) -> Callable[[Callable[[], Any]], None]:
    """Asserts that what a function returns, a list of arrays, is the same bits on 1, 2, 3 and 8 threads."""

    def check(work: Callable[[], Any]) -> None:
        found = []
        for count in (1, 2, 3, 8):
            use_threads(count)
            found.append(work())
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                np.testing.assert_array_equal(a, b)

    return check


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """CuPy: the real one where there is a GPU, elsewhere the stand-in that runs the kernels on the CPU, by g++."""
    found = _real_cupy()
    if found is None:
        if shutil.which("g++") is None:
            pytest.skip("needs g++ to run the GPU's kernels on the CPU, or a GPU and CuPy")
        if sys.platform != "linux":
            pytest.skip("the GPU's kernels run on the CPU under Linux only")
        found = importlib.import_module("tests.simulated.cupy")
    monkeypatch.setitem(sys.modules, "cupy", found)
    return found


@cache
def _real_cupy() -> Any:
    if importlib.util.find_spec("cupy") is None:
        return None
    found = importlib.import_module("cupy")
    try:
        return found if found.cuda.runtime.getDeviceCount() else None
    except found.cuda.runtime.CUDARuntimeError:  # no driver
        return None


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the primitives that are applied, as the test goes on."""
    names: list[str] = []
    apply = Primitive.__call__

    def counted(self: Primitive, *inputs: Any, **static: Any) -> Any:
        names.append(self.name)
        return apply(self, *inputs, **static)

    monkeypatch.setattr(Primitive, "__call__", counted)
    return names


@pytest.fixture(scope="session")
def meta_step() -> str:
    """A program that takes one MAML meta-step and prints where tinymaml came from."""
    return """
import numpy as np
import tinymaml as tm

rng = np.random.default_rng(0)
model = tm.nn.mlp([1, 8, 1])
params = model.init(rng)

def batch():
    x = rng.uniform(-5, 5, size=(3, 5, 1)).astype(np.float32)
    return x, np.sin(x)

def loss(params, batch):
    return tm.mse(model.apply(params, batch[0]), batch[1])

value, grads = tm.maml.meta_value_and_grad(loss, params, batch(), batch(), alpha=0.01, steps=2)
optimiser = tm.optim.adam(0.01)
after, state = optimiser.update(grads, optimiser.init(params), params)
assert np.isfinite(value)
for old, new in zip(params, after, strict=True):
    assert all(np.isfinite(new[name]).all() and (new[name] != old[name]).any() for name in old)
print(tm.__file__)
"""
