"""`import tinymaml` is cheap, needs NumPy alone, and is the only way in."""

import importlib
import statistics
import sys

import pytest

from tests.conftest import ROOT, run

EXTRAS = ["PIL", "cupy", "gymnasium", "h5py", "jax", "jaxlib", "llvmlite", "matplotlib", "mujoco"]
EXTRAS += ["numba", "numba_cuda", "tensorboardX", "threadpoolctl", "torch", "tqdm"]


def python(code: str) -> str:
    """What this Python prints when it runs the code in a process of its own, in the checkout."""
    return run(sys.executable, "-W", "error", "-c", code, cwd=ROOT)


def test_import_takes_under_twice_the_time_of_numpy():
    clock = "from time import perf_counter as now; start = now(); import {}; print(now() - start)"
    seconds: dict[str, list[float]] = {"numpy": [], "tinymaml": []}
    for repeat in range(10):
        for module, times in seconds.items():
            time = float(python(clock.format(module)))
            if repeat > 0:  # the first one may have to compile and to read the disk
                times.append(time)
    median = {module: statistics.median(times) for module, times in seconds.items()}
    assert median["tinymaml"] < 2 * median["numpy"], median


def test_import_pulls_in_no_extra():
    imported = python("import sys, tinymaml; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "numpy" in imported
    assert set(imported).isdisjoint(EXTRAS)


def test_modules_that_are_not_needed_at_once_are_imported_when_asked_for():
    code = "import sys, tinymaml as tm; print('tinymaml.testing' in sys.modules, tm.testing.__name__, tm.rl.__name__)"
    assert python(code).split() == ["False", "tinymaml.testing", "tinymaml.rl"]


def test_every_module_imports_without_the_extras(numpy_only, tmp_path):
    """Except in kernels/, where a module may be for one extra alone; `tinymaml.kernels` itself does import. And except
    those that derive from classes of Gymnasium, or are made of MuJoCo: they name the extra."""
    code = """
import importlib, pkgutil, tinymaml
for module in pkgutil.walk_packages(tinymaml.__path__, "tinymaml."):
    if not module.name.startswith("tinymaml.kernels.") and not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
            print(module.name)
        except ImportError as error:
            assert str(error).endswith("is not installed: pip install 'tinymaml[rl]'"), error
            print("-", module.name, sep="")
"""
    imported = run(numpy_only(tmp_path), "-W", "error", "-c", code, cwd=ROOT).split()
    assert {"tinymaml.kernels", "tinymaml.tasks", "tinymaml.meta.maml", "tinymaml.cli"} <= set(imported)
    environments = {"environments", "locomotion", "mujoco_warnings", "navigation", "robots", "vector_env"}
    missing = {f"tinymaml.tasks.{name}" for name in environments} | {"tinymaml.rl.vector_env", "tinymaml.rl.sampler"}
    assert {name[1:] for name in imported if name.startswith("-")} == missing


@pytest.mark.parametrize("name", ["kernels", "tasks", "kernels.cpu"])
def test_kernels_and_tasks_are_no_modules_of_their_own(name):
    with pytest.raises(ImportError, match=f"import it as 'tinymaml.{name.partition('.')[0]}'"):
        importlib.import_module(name)
    assert name not in sys.modules
    assert importlib.import_module(f"tinymaml.{name}")
