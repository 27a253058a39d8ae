"""What is installed and what can run here."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from tinymaml import __version__
from tinymaml.kernels import gpu
from tinymaml.kernels.cpu import numba_is_used

EXTRAS = {
    "fast": ("numba", "threadpoolctl"),
    "cuda12": ("cupy-cuda12x",),
    "cuda13": ("cupy-cuda13x",),
    "data": ("h5py", "pillow"),
    "rl": ("gymnasium", "mujoco"),
    "train": ("h5py", "matplotlib", "tqdm"),
    "tensorboard": ("tensorboardX",),
    "bench": ("torch", "jax", "jaxlib"),
}


def version(package: str) -> str | None:
    """Of an installed package; None if it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def report() -> str:
    """Versions, devices and extras, as text."""
    lines = [
        f"tinymaml   {__version__}",
        f"Python     {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        f"numpy      {version('numpy')}",
        "",
        "Devices",
        f"  cpu      kernels in {'Numba where they are faster, else NumPy' if numba_is_used() else 'NumPy alone'}",
        f"  gpu      {_gpu()}",
        *(["", "Machine code kept for the next process", *_caches()] if numba_is_used() else []),
        "",
        "Extras",
    ]
    for extra, packages in EXTRAS.items():
        versions = {package: version(package) for package in packages}
        listed = ", ".join(f"{package} {number or '(missing)'}" for package, number in versions.items())
        hint = "" if all(versions.values()) else f"   pip install 'tinymaml[{extra}]'"
        lines.append(f"  {extra:11} {listed}{hint}")
    if not numba_is_used():
        lines.append("Without Numba everything runs, slower: pip install 'tinymaml[fast]'")
    return "\n".join(lines)


def _caches() -> list[str]:
    """Where machine code is kept, a line for Numba's and one for ours."""
    from tinymaml.kernels.cpu.compiled import folders, jit, object_cache

    asked, folder = os.environ.get("TINYMAML_CACHE"), folders.folder()
    kernels = jit.PLACE or "nowhere: every process compiles them anew, for a minute or so; set NUMBA_CACHE_DIR"
    if folder is None:
        what = f"TINYMAML_CACHE={asked} is not" if asked else "there is not"
        programs = f"nowhere: {what} a folder of yours that you alone can write to; set TINYMAML_CACHE to one"
    elif not object_cache.limit():
        programs = "nowhere, as TINYMAML_CACHE_SIZE=0 asks"
    else:
        programs = f"{folder}, {object_cache.held() / 2**20:.1f} of {object_cache.limit() >> 20} MB used"
    return [f"  kernels  {kernels}", f"  programs {programs}"]


def _gpu() -> str:
    try:
        return gpu.describe()
    except (ImportError, gpu.GpuMissingError) as reason:
        return f"none: {reason}"
