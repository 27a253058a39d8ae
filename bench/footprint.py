"""What a framework costs before it computes: seconds to import, megabytes on disk."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path

_PROGRAM = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


@cache
def import_seconds(module: str) -> float:
    """Of a new process, with the files in the system's cache; NumPy's import is part of it."""
    command = [sys.executable, "-c", _PROGRAM.format(module)]
    return statistics.median([float(subprocess.check_output(command)) for _ in range(4)][1:])


def installed_mb(*distributions: str) -> float | None:
    """Of the files of distributions and of all that they require, MB; None if one is not installed."""
    asked, seen = [_normal(name) for name in distributions], {}
    while asked:
        name = asked.pop()
        if name in seen:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name in map(_normal, distributions):
                return None
            continue  # required on other systems
        files = [Path(distribution.locate_file(file)) for file in distribution.files or ()]
        seen[name] = sum([path.stat().st_size for path in files if path.is_file()])
        always = [line for line in distribution.requires or () if "extra ==" not in line]
        asked += [_normal(re.match(r"[\w.-]+", line)[0]) for line in always]  # type: ignore[index]
    return sum(seen.values()) / 1e6


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def own_mb() -> float:
    """Of tinymaml's own source files."""
    package = Path(importlib.util.find_spec("tinymaml").origin).parent  # type: ignore[union-attr, arg-type]
    folders = [package, (package / "kernels").resolve(), (package / "tasks").resolve()]
    files = {file for folder in folders for file in folder.rglob("*") if "__pycache__" not in file.parts}
    return sum([file.stat().st_size for file in files if file.is_file()]) / 1e6


def table() -> list[dict[str, object]]:
    """Print what each is installed with, and return it as rows."""
    ours = own_mb()
    rows: list[dict[str, object]] = []
    print(f"\n{'Installed, with all that it requires':44}{'MB':>10}")
    for name, distributions, more in (
        ("tinymaml", ("numpy",), ours),
        ("tinymaml[fast]", ("numpy", "numba", "threadpoolctl"), ours),
        ("jax", ("jax", "jaxlib"), 0.0),
        ("torch", ("torch", "numpy"), 0.0),
    ):
        size = installed_mb(*distributions)
        print(f"{name:44}" + ("not installed" if size is None else f"{size + more:10.1f}"))
        rows.append({"part": "installed", "name": name, "mb": None if size is None else size + more})
    return rows
