"""Where machine code is kept: compiled kernels and recorded programs run wherever the package can be read."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tinymaml.cli import main
from tinymaml.kernels.cpu import numba_is_used

if not numba_is_used():
    pytest.skip("compiled kernels need numba, of the extra `fast`, and TINYMAML_NUMBA not 0", allow_module_level=True)
if not hasattr(os, "getuid"):
    pytest.skip("needs users and modes of files", allow_module_level=True)

from tinymaml.kernels.cpu.compiled import jit

# A compiled kernel and a recorded program, as a user whom nobody knows if root runs it: how many of each were compiled,
# and what `tinymaml doctor` says.
PROGRAM = """
import os
import numba, numpy as np
import tinymaml as tm
from tinymaml.cli import doctor

if os.getuid() == 0:  # what the interpreter has of root's own is imported before
    numba.njit(lambda x: x + x)(np.ones(3))
    os.setgroups([]), os.setgid(12345), os.setuid(12345)
print("---")
from tinymaml.kernels.cpu.compiled import object_cache, optim

compiled = []
optimise = object_cache._optimise
object_cache._optimise = lambda *a: (compiled.append(1), optimise(*a))
x = np.ones((3, 4), np.float32)
assert (tm.record(lambda x: x * x + x, x)(x) == 2).all()
optim.adam([x.copy() for _ in range(3)], [x, x, x, x, np.ones(2)], 0.9, 0.999, 1e-8).run()
print(len(compiled), sum(optim._adam.stats.cache_misses.values()))
print(*doctor._caches(), sep="\\n")
"""


@pytest.fixture(scope="module")
def copy():
    """A folder in which the package is, and nobody can write."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        top = Path(folder)
        shutil.copytree(ROOT / "tinymaml", top / "tinymaml", ignore=shutil.ignore_patterns("__pycache__", "*.nb?"))
        for path in (top, *top.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield top
        for path in (top, *top.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)


def run(copy, temporary, **environment):
    """(programs compiled, kernels compiled), and what the doctor says of where they are kept."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    environment = {
        "PATH": os.environ["PATH"], "HOME": "/nonexistent", "TMPDIR": str(temporary), "TINYMAML_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(copy), *packages]), **environment,
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd="/", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts, *places = done.stdout.split("---\n")[1].splitlines()
    programs, kernels = counts.split()
    return (int(programs), int(kernels)), [line.split(maxsplit=1)[1] for line in places]


@pytest.fixture
def for_all(tmp_path):
    """Makes folders that everybody may write to, as the system's for temporary files is."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)

        def make(name):
            (Path(folder) / name).mkdir()
            (Path(folder) / name).chmod(0o1777)
            return Path(folder) / name

        yield make


@pytest.mark.slow
def test_where_neither_the_package_nor_a_home_can_be_written_to(copy, for_all):
    """A container with any user id."""
    temporary = for_all("tmp")
    assert run(copy, temporary)[0] == (1, 1)
    counts, (kernels, programs) = run(copy, temporary)
    assert counts == (0, 0), "the next process compiles nothing"
    (ours,) = temporary.iterdir()
    assert ours.name.startswith("tinymaml-cache-") and ours.stat().st_mode & 0o777 == 0o700
    assert kernels.startswith(str(ours / "numba")) and programs.startswith(f"{ours}, 0.0 of 100 MB")


@pytest.mark.slow
def test_folders_that_are_asked_for(copy, for_all):
    temporary, ours, numbas = for_all("tmp"), for_all("ours"), for_all("numbas")
    asked = {"TINYMAML_CACHE": str(ours / "cache"), "NUMBA_CACHE_DIR": str(numbas)}
    counts, (kernels, programs) = run(copy, temporary, **asked)
    assert counts == (1, 1) and kernels.startswith(str(numbas)) and programs.startswith(str(ours / "cache"))
    counts, (kernels, programs) = run(copy, temporary, TINYMAML_CACHE=str(ours / "cache"))
    assert counts == (0, 1) and kernels.startswith(str(ours / "cache" / "numba"))
    assert not list(temporary.iterdir())


@pytest.mark.slow
def test_without_any_folder_nothing_is_kept(copy, for_all):
    temporary, asked = for_all("tmp"), str(copy / "cache")
    for _ in range(2):
        counts, (kernels, programs) = run(copy, temporary, TINYMAML_CACHE=asked)
        assert counts == (1, 1)
        assert kernels.startswith("nowhere: every process compiles them anew")
        assert programs.startswith(f"nowhere: TINYMAML_CACHE={asked} is not a folder of yours")
    assert not list(temporary.iterdir())


def test_the_doctor_says_where(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TINYMAML_CACHE", str(tmp_path))
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"  kernels  {jit.PLACE}\n  programs {tmp_path}, 0.0 of 100 MB used\n" in printed
    tmp_path.chmod(0o777)
    assert main(["doctor"]) == 0
    assert f"programs nowhere: TINYMAML_CACHE={tmp_path} is not a folder of yours that you alone can write to" in (
        capsys.readouterr().out
    )
    monkeypatch.setenv("TINYMAML_CACHE_SIZE", "0")
    tmp_path.chmod(0o700)
    assert main(["doctor"]) == 0
    assert "programs nowhere, as TINYMAML_CACHE_SIZE=0 asks" in capsys.readouterr().out
