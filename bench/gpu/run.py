"""Everything that only a GPU can tell, in one call: `python -m bench gpu --out DIR`.

    parity      the tests of the GPU's kernels and steps, on the GPU
    kernels     each kernel's rate beside the machine's own product of matrices and its copy
    frameworks  whole meta-steps, eager and as a graph, fp32 and TF32, beside PyTorch and JAX
    launches    where the time of a recorded meta-step goes, launch by launch
    training    Omniglot 5-way 1-shot, 60 000 iterations, on images packed by `python -m bench pack-omniglot`
    sanitizer   compute-sanitizer's memcheck and racecheck on small meta-steps

Each part has its share of the minutes, and what the parts before it left. A part that fails, or has no time left, is
noted and the next one runs. All that is found is on disk at once: DIR/PART.txt, DIR/gpu.json and DIR/gpu.png.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from bench.gpu import frameworks, kernels, launches, packed
from bench.gpu.clock import Clock
from bench.output import Row, write_json
from bench.picture import draw

ROOT = Path(__file__).parents[2]
GPU_TESTS = ROOT / "tests/kernels/gpu"
SHARES = {"parity": 2.0, "kernels": 1.2, "frameworks": 3.6, "launches": 0.5, "training": 1.5, "sanitizer": 1.2}
PARTS = tuple(SHARES)
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


def run(
    out: Path, parts: Sequence[str], workloads: Sequence[str], rounds: int, data: Path | None, minutes: float
) -> int:
    """Run the parts; everything is in `out`. The exit status: 0, or 1 if a part failed, 2 without a GPU."""
    from tinymaml.kernels import gpu

    try:
        gpu.require()
    except (ImportError, gpu.GpuMissingError) as reason:
        print(f"bench gpu: {reason}", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    machine, whole, failed = describe(), Clock(60 * minutes), []
    rows: list[Row] = []

    def work(part: str, clock: Clock) -> Iterator[Row]:
        if part == "kernels":
            return kernels.run([w for w in workloads if w not in ("W1", "W2a")], clock)
        if part == "frameworks":
            return frameworks.run(workloads, rounds, clock)
        if part == "launches":
            return launches.run(workloads, clock)
        if part == "training":
            return training(data, ITERATIONS, clock)
        return {"parity": parity, "sanitizer": sanitizer}[part](clock)

    for i, part in enumerate(parts):
        began = time.perf_counter()
        clock = whole.part(SHARES[part] / sum([SHARES[other] for other in parts[i:]]))
        with (out / f"{part}.txt").open("w") as file, redirect_stdout(_Both(sys.stdout, file)):  # type: ignore[type-var]
            print(f"{part}: {machine['gpu']}, driver {machine['driver']}, CuPy {machine['cupy']}, "
                  f"{' '.join(['python -m bench', *sys.argv[1:]])}; has {clock.left():.0f} seconds")  # fmt: skip
            try:
                for row in work(part, clock):
                    rows.append(row)
                    write_json(out / "gpu.json", machine, rows)
            except (Exception, SystemExit) as error:
                failed.append(part)
                traceback.print_exc(file=sys.stdout)
                rows.append({"part": part, "failed": f"{type(error).__name__}: {error}"})
            print(f"{part}: {time.perf_counter() - began:.0f} seconds\n")
        write_json(out / "gpu.json", machine, rows)
    if any(row["part"] == "frameworks" and "failed" not in row for row in rows):
        draw(out / "gpu.png", machine, rows)
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


def command(arguments: Sequence[str | Path], clock: Clock) -> tuple[int, str]:
    """The exit status of a command and the last line that it prints; all is shown as it comes. When its time is over it
    is interrupted, and killed five seconds later.
    """
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    alone: dict[str, Any] = {
        "start_new_session": True,
        "env": os.environ | {"PYTHONUNBUFFERED": "1"},
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    }
    last = ""
    with subprocess.Popen(arguments, cwd=ROOT, **streams, **alone) as process:
        timers = [
            threading.Timer(max(0.0, clock.left() + later), os.killpg, (process.pid, how))
            for later, how in ((-5, signal.SIGINT), (0, signal.SIGKILL))
        ]
        for timer in timers:
            timer.start()
        try:
            for line in process.stdout or ():
                print(line, end="")
                last = line.strip() or last
            return process.wait(), last
        finally:
            for timer in timers:
                timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _needed(arguments: Sequence[str | Path], clock: Clock) -> None:
    """As `command`, which has to succeed."""
    status, _ = command(arguments, clock)
    if status:
        late = " when its time was over" if clock.left() < 6 else ""
        raise SystemExit(f"{' '.join(map(str, arguments))} ended with exit status {status}{late}")


def parity_tests() -> list[str]:
    """The files of tests that run on a GPU; those that only compile for one do not need it."""
    return sorted({*map(str, GPU_TESTS.glob("test_gpu_*.py"))} - {str(GPU_TESTS / "test_gpu_compile.py")})


def parity(clock: Clock) -> Iterator[Row]:
    """The tests of everything on a GPU, with CuPy itself in place of its stand-in."""
    side_by_side = ["-n", "8"] if importlib.util.find_spec("xdist") else []
    options = ["-q", "-rf", "--tb=short", "-p", "no:cacheprovider", "-o", "filterwarnings=default", *side_by_side]
    status, last = command([sys.executable, "-m", "pytest", *options, *parity_tests()], clock)
    yield {"part": "parity", "result": last}
    if status:
        raise SystemExit(f"pytest ended with exit status {status}: {last}")


def sanitizer(clock: Clock) -> Iterator[Row]:
    """Small whole meta-steps under compute-sanitizer."""
    if shutil.which("compute-sanitizer") is None:
        raise SystemExit("compute-sanitizer is not installed (it comes with the CUDA toolkit)")
    wrong = []
    for tool, share in (("memcheck", 0.5), ("racecheck", 1.0)):
        checked = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
        status, last = command([*checked, sys.executable, "-m", "bench.gpu.small"], clock.part(share))
        yield {"part": "sanitizer", "tool": tool, "status": status, "result": last}
        wrong += [tool] if status else []
    if wrong:
        raise SystemExit(f"{' and '.join(wrong)} did not end well")


def training(data: Path | None, iterations: int, clock: Clock) -> Iterator[Row]:
    """Omniglot 5-way 1-shot as the paper trains it, and its evaluation."""
    if data is None:
        raise SystemExit("training needs --data FILE.npz, which `python -m bench pack-omniglot --out FILE.npz` writes")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packed.unpack(data, folder / "data")
        program, experiment = [sys.executable, "-m", "tinymaml"], "omniglot-5way-1shot"
        settings = ["--device", "gpu", "--iterations", str(iterations), "--data", folder / "data", "--no-evaluate"]
        began = time.perf_counter()
        _needed([*program, "train", experiment, *settings, "--out", folder / "run"], clock.part(0.75))
        seconds = time.perf_counter() - began
        print(f"trained: {iterations} iterations in {seconds:.1f} seconds, start, validation and checkpoints included")
        row: Row = {"part": "training", "iterations": iterations, "seconds": seconds}
        yield row
        _needed([*program, "evaluate", experiment, "--out", folder / "run"], clock)
        yield {**row, "results": json.loads((folder / "run/results.json").read_text())}
