"""What every entry of results.json says of how its figures came about."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Any

from tinymaml.device import describe_gpu
from tinymaml.train.trainer import Trained


def provenance(settings: dict[str, Any], trained: Trained) -> dict[str, Any]:
    """Of a run with these settings, evaluated here."""
    gpu = f", {describe_gpu()}" if settings["device"] == "gpu" else ""
    return {
        "seed": settings["seed"],
        "iterations": trained.iterations,
        "seconds": round(trained.seconds, 1),
        "versions": versions(),
        "machine": f"{platform.machine()}, {platform.system()}{gpu}",
        "settings": settings,
    }


def versions() -> dict[str, str]:
    """Of Python and of what the figures depend on."""
    numbers = {"python": platform.python_version()}
    for name in ("tinymaml", "numpy", "numba"):
        try:
            numbers[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            numbers[name] = sys.modules[name].__version__ if name in sys.modules else "not installed"
    return numbers
