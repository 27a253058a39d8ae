"""Everything that only a GPU can tell, in one call: `python -m bench gpu --out DIR`.

    parity      the tests of the GPU's kernels and steps, on the GPU
    sanitizer   compute-sanitizer's memcheck and racecheck on small meta-steps
    kernels     each kernel's rate beside the machine's own product of matrices and its copy
    frameworks  whole meta-steps, eager and as a graph, fp32 and TF32, beside PyTorch and JAX
    training    Omniglot 5-way 1-shot, 60 000 iterations, on images packed by `python -m bench pack-omniglot`

A part that fails is noted and the next one runs; what is found is written after each part.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from bench import gpu_frameworks, gpu_kernels, packed
from bench.output import Row, write_json

ROOT = Path(__file__).parents[1]
PARTS = ("parity", "sanitizer", "kernels", "frameworks", "training")
ITERATIONS = 60_000


class _Both:
    """Writes to the terminal and to a file."""

    def __init__(self, *streams: TextIO) -> None:
        self._streams = streams

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
            stream.flush()
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


def run(out: Path, parts: Sequence[str], workloads: Sequence[str], rounds: int, data: Path | None) -> int:
    """Run the parts; everything is in `out`. The exit status: 0, or 1 if a part failed, 2 without a GPU."""
    from tinymaml.kernels import gpu

    try:
        gpu.require()
    except (ImportError, gpu.GpuMissingError) as reason:
        print(f"bench gpu: {reason}", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    machine, rows, failed = describe(), [], []
    work: dict[str, Callable[[], list[Row]]] = {
        "parity": lambda: parity(out),
        "sanitizer": lambda: sanitizer(out),
        "kernels": lambda: gpu_kernels.run([w for w in workloads if w != "W1"]),
        "frameworks": lambda: gpu_frameworks.run(workloads, rounds),
        "training": lambda: training(out, data, ITERATIONS),
    }
    for part in parts:
        began = time.perf_counter()
        with (out / f"{part}.txt").open("w") as file, redirect_stdout(_Both(sys.stdout, file)):  # type: ignore[type-var]
            print(f"{part}: {machine['gpu']}, driver {machine['driver']}, CuPy {machine['cupy']}, "
                  f"{' '.join(['python -m bench', *sys.argv[1:]])}")  # fmt: skip
            try:
                rows += work[part]()
            except (Exception, SystemExit) as error:
                failed.append(part)
                traceback.print_exc(file=sys.stdout)
                rows.append({"part": part, "failed": f"{type(error).__name__}: {error}"})
            print(f"{part}: {time.perf_counter() - began:.0f} seconds\n")
        write_json(out / "gpu.json", machine, rows)
    if failed:
        print(f"bench gpu: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def describe() -> dict[str, Any]:
    """The GPU and the versions."""
    from bench.machine import VERSIONS, _version
    from tinymaml.kernels.gpu import cupy

    properties = cupy().cuda.runtime.getDeviceProperties(0)
    return {
        "gpu": properties["name"].decode(),
        "multiprocessors": properties["multiProcessorCount"],
        "memory_gb": round(properties["totalGlobalMem"] / 2**30, 1),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "driver": cupy().cuda.runtime.driverGetVersion(),
        "runtime": cupy().cuda.runtime.runtimeGetVersion(),
        "cupy": cupy().__version__,
        "versions": {name: _version(name) for name in VERSIONS},
    }


def _command(command: Sequence[str | Path], limit: float) -> str:
    """What a command prints; it is shown too. Raises SystemExit if it fails."""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=ROOT, timeout=limit, **streams)
    print(done.stdout[-6000:])
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with exit status {done.returncode}")
    return done.stdout


def parity(out: Path) -> list[Row]:
    """The tests of everything on a GPU, with CuPy itself in place of its stand-in."""
    tests = sorted(map(str, (ROOT / "tests").glob("test_gpu_*.py")))
    last = _command([sys.executable, "-m", "pytest", "-q", "-o", "filterwarnings=default", *tests], 400).strip()
    return [{"part": "parity", "result": last.splitlines()[-1]}]


def sanitizer(out: Path) -> list[Row]:
    """Small whole meta-steps under compute-sanitizer."""
    if shutil.which("compute-sanitizer") is None:
        raise SystemExit("compute-sanitizer is not installed (it comes with the CUDA toolkit)")
    rows = []
    for tool in ("memcheck", "racecheck"):
        command = [
            "compute-sanitizer",
            "--tool",
            tool,
            "--error-exitcode",
            "9",
            sys.executable,
            "-m",
            "bench.gpu_small",
        ]
        text = _command(command, 240)
        rows.append({"part": "sanitizer", "tool": tool, "result": text.strip().splitlines()[-1]})
    return rows


def training(out: Path, data: Path | None, iterations: int) -> list[Row]:
    """Omniglot 5-way 1-shot as the paper trains it, and its evaluation."""
    if data is None:
        raise SystemExit("training needs --data FILE.npz, which `python -m bench pack-omniglot --out FILE.npz` writes")
    packed.unpack(data, out / "data")
    folder = out / "omniglot-5way-1shot"
    began = time.perf_counter()
    command = [sys.executable, "-m", "tinymaml", "train", "omniglot-5way-1shot", "--device", "gpu", "--out", folder,
               "--iterations", str(iterations), "--data", out / "data"]  # fmt: skip
    _command([*command, "--no-evaluate"], 400)
    seconds = time.perf_counter() - began
    print(f"trained: {iterations} iterations in {seconds:.1f} seconds, start, validation and checkpoints included")
    _command([sys.executable, "-m", "tinymaml", "evaluate", "omniglot-5way-1shot", "--out", folder], 300)
    results = json.loads((folder / "results.json").read_text())
    return [{"part": "training", "iterations": iterations, "seconds": seconds, "results": results}]
