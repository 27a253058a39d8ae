"""The layering of pyproject.toml holds, and the tool that checks it does see what would break it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("importlinter", reason="needs import-linter, of the dev extra")

PLANTED = {
    "tinymaml/autodiff/tree.py": ("import numpy", "tinymaml.autodiff.tree may not import numpy"),
    "tinymaml/autodiff/tensor.py": (
        "from tinymaml.ops import shape",
        "tinymaml.autodiff.tensor may not import tinymaml.ops.shape",
    ),
    "tinymaml/compile/passes.py": (
        "from tinymaml.compile import report",
        "tinymaml.compile.passes may not import tinymaml.compile.report",
    ),
    "tinymaml/nn/layers.py": ("import tinymaml", "tinymaml.nn.layers may not import tinymaml"),
    "tinymaml/meta/maml.py": ("def late():\n    import torch", "tinymaml.meta.maml may not import torch"),
    "tinymaml/optim.py": ("from . import cli", "tinymaml.optim may not import tinymaml.cli"),
    "kernels/cpu/__init__.py": (
        "from tinymaml.autodiff import tree",
        "tinymaml.kernels.cpu may not import tinymaml.autodiff.tree",
    ),
    "tasks/sinusoid.py": ("import tinymaml.ops", "tinymaml.tasks.sinusoid may not import tinymaml.ops"),
    "tinymaml/nowhere.py": ("", "no rule says what .nowhere may import"),
}


def lint_imports(checkout: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", "import importlinter.cli as c; c.lint_imports_command()", "--no-cache"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_layering():
    code, said = lint_imports(ROOT)
    assert code == 0, said
    assert "1 kept, 0 broken" in said


def test_imports_that_break_the_layering_are_seen(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in ("tinymaml", "kernels", "tasks", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    assert lint_imports(tmp_path)[0] == 0
    for name, (code, _) in PLANTED.items():
        with (tmp_path / name).open("a") as file:
            file.write(f"\n{code}\n")
    status, said = lint_imports(tmp_path)
    assert status != 0
    for _, complaint in PLANTED.values():
        assert complaint in said
    assert said.count("may not import") == len(PLANTED) - 1
