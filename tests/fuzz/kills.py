"""Kills runs at random moments: by SIGKILL, SIGTERM and SIGINT, in training and in evaluation, beside other processes.

A run that was killed and gone on with until it was done has to be, bit for bit, one that nothing happened to: its
parameters, its metrics and its results; no file may be left over, and nothing may be said but in one line. A process of
its own imports the package once, and forks what is killed, so that a kill takes a few hundredths of a second.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
SIGNALS = ("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT")
_PATIENCE = 120.0  # seconds that a process may take
_ONE_THREAD = {"TINYMAML_NUMBA": "0", "TINYMAML_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run(seed: int, count: int, seconds: float) -> tuple[int, list[str]]:
    """Kill up to so many times, for so many seconds at most; how many times it was, and what was found wrong.

    Of a run that was wrong the folder is kept; its description names it.
    What is killed follows from the seed; when exactly a kill strikes also depends on the machine.
    """
    command = [sys.executable, "-m", "tests.fuzz.kills", str(seed), str(count), str(seconds)]
    environment = {**os.environ, **_ONE_THREAD}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        return 0, [f"the fuzzer itself failed: {done.stderr}"]
    cases, failures = json.loads(done.stdout.splitlines()[-1])
    return cases, failures


class Kind(NamedTuple):
    """What is run: an experiment, one of its methods, and options that make it small."""

    experiment: str
    method: str
    training: list[str]  # options
    weight: int  # how often it is taken

    def command(self, name: str, folder: Path) -> list[str]:
        """To train or to evaluate."""
        options = [*self.training, "--no-evaluate"] if name == "train" else []
        return [name, self.experiment, "--method", self.method, "--out", str(folder), *options]


def _kinds() -> list[Kind]:
    often = ["--log-every", "2", "--checkpoint-every", "3", "--validate-every", "5"]
    test = ["--eval-tasks", "6", "--eval-steps", "3"]
    small = ["--iterations", "40", "--hidden", "6", "--meta-batch", "3", "--shots", "3", "--query-points", "3"]
    small += [*often, *test, "--validation-tasks", "6"]
    results = [Kind("sinusoid", "maml", [*small, "--keep", keep], 8) for keep in ("1", "3")]
    results += [Kind("sinusoid", method, small, 2) for method in ("fomaml", "oracle")]
    results.append(Kind("sinusoid", "pretrained", [*small, "--finetune-alphas", "0.01", "0.1"], 2))
    images = ["--iterations", "8", "--filters", "3", "--meta-batch", "2", "--validation-tasks", "2", *often, *test]
    results.append(Kind("glyphs-5way-1shot", "maml", [*images, "--eval-query", "2", "--test-steps", "2"], 1))
    if importlib.util.find_spec("mujoco") and importlib.util.find_spec("gymnasium"):
        goals = ["--iterations", "6", "--hidden", "4", "--meta-batch", "2", "--rollouts", "2", "--horizon", "6"]
        goals += ["--curvature-share", "0.5", "--eval-goals", "2", "--eval-rollouts", "2", "--eval-steps", "2"]
        results.append(Kind("navigation", "maml", [*goals, *often, "--workers", "1"], 1))
    return results


class Ended(NamedTuple):
    """How a process ended."""

    status: int  # minus the signal's number, if one ended it
    seconds: float
    said: str


class _Process:
    """The command line with these arguments, forked off."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._log, self._began = log, time.perf_counter()
        self.pid = os.fork()
        if not self.pid:
            _be(arguments, log)

    def kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> Ended:
        """Waits for it. Raises TimeoutError if that takes too long."""
        until = time.perf_counter() + _PATIENCE
        while not (results := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.perf_counter() > until:
                self.kill(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"a process did not end in {_PATIENCE:.0f} s")
            time.sleep(0.001)
        seconds = time.perf_counter() - self._began
        said = self._log.read_text(errors="replace") if self._log.exists() else ""  # it may not have come so far
        return Ended(os.waitstatus_to_exitcode(results[1]), seconds, said[-2000:])


def _be(arguments: list[str], log: Path) -> None:
    """What the forked process does; it never returns."""
    status = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        from tinymaml.cli import main

        status = main(arguments)
    except KeyboardInterrupt:  # outside of the command
        status = 130
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, f"Traceback of the process: {error!r}\n".encode())
    finally:
        os._exit(status)


class _Fuzzer:
    def __init__(self, seed: int, count: int, seconds: float, folder: Path) -> None:
        self.rng, self.count, self.folder = random.Random(seed), count, folder
        self.until = time.monotonic() + seconds
        self.cases, self.failures = 0, list[str]()
        self._wholes: dict[str, tuple[Path, float, float]] = {}  # runs that nothing happened to, and how long they took

    def goes_on(self) -> bool:
        return self.cases < self.count and time.monotonic() < self.until

    def fuzz(self) -> None:
        kinds = _kinds()
        while self.goes_on():
            kind = self.rng.choices(kinds, [kind.weight for kind in kinds])[0]
            folder = self.folder / "killed"
            try:
                self._fuzz_run(kind, folder)
            except Exception as error:
                kept = self.folder.with_name(f"{self.folder.name}-failure-{len(self.failures)}")
                if folder.exists():
                    shutil.copytree(folder, kept, symlinks=True, dirs_exist_ok=True)
                self.failures.append(f"{' '.join(kind.command('train', kept))}, kill {self.cases}: {error!r}")
            shutil.rmtree(folder, ignore_errors=True)

    def _fuzz_run(self, kind: Kind, folder: Path) -> None:
        whole, training, evaluation = self._whole(kind)
        log = folder / "own.log"
        folder.mkdir()
        for command, usual in (("train", training), ("evaluate", evaluation)):
            arguments = kind.command(command, folder)
            for _ in range(self.rng.randint(1, 12)):
                if self.goes_on() and self._kill(arguments, usual, log, kind, folder):
                    break  # it was done before
            self._whole_now(arguments, log)
        # A training beside an evaluation may have been killed, and left its lock's file to the next one.
        self._whole_now(kind.command("train", folder), log)
        for path in folder.glob("*.log"):
            path.unlink()
        _same_runs(whole, folder, kind.method)

    def _whole(self, kind: Kind) -> tuple[Path, float, float]:
        name = "-".join([kind.experiment, kind.method, *kind.training]).replace("/", "")
        if name not in self._wholes:
            folder = self.folder / f"whole{len(self._wholes)}"
            folder.mkdir()
            log = self.folder / "log"
            took = [self._whole_now(kind.command(command, folder), log).seconds for command in ("train", "evaluate")]
            self._wholes[name] = (folder, took[0], took[1])
        return self._wholes[name]

    def _whole_now(self, arguments: list[str], log: Path) -> Ended:
        """Run it to its end."""
        ended = _Process(arguments, log).end()
        _must(ended.status == 0, f"{arguments[0]} undisturbed ended with {ended.status}: {ended.said}")
        return ended

    def _kill(self, arguments: list[str], usual: float, log: Path, kind: Kind, folder: Path) -> bool:
        """Start and kill it; whether it was done before. Now and then another process works beside it."""
        name, beside = self.rng.choice(SIGNALS), self.rng.choice((None, None, None, "train", "train", "evaluate"))
        delay = usual * self.rng.uniform(0, 1.1)
        own = _Process(arguments, log)
        self.cases += 1
        other = None
        if beside is not None:
            time.sleep(delay * self.rng.choice((0.0, self.rng.random())))
            other = _Process(kind.command(beside, folder), folder / "beside.log")
        time.sleep(delay)
        own.kill(getattr(signal, name))
        if self.rng.random() < 0.1 and name != "SIGKILL":  # impatient
            own.kill(getattr(signal, name))
        ended, beside_ended = own.end(), None
        if other is not None:  # also where something is wrong: it must not go on into the next run's folder
            if self.rng.random() < 0.3:
                other.kill(signal.SIGKILL)
            beside_ended = other.end()
        allowed = {"SIGKILL": (0, -signal.SIGKILL), "SIGTERM": (0, 130, -signal.SIGTERM), "SIGINT": (0, 130)}[name]
        refused = other is not None and ended.status == 1 and _refused(ended.said)
        _must(ended.status in allowed or refused, f"{arguments[0]}, {name}: ended with {ended.status}: {ended.said}")
        _must("Traceback" not in ended.said, f"{arguments[0]}, {name}: {ended.said}")
        if beside_ended is not None:
            status, said = beside_ended.status, beside_ended.said
            good = status in (0, -signal.SIGKILL) or (status == 1 and _refused(said))
            _must(good, f"{beside} beside {arguments[0]} ended with {status}: {said}")
            _must("Traceback" not in said, f"{beside} beside {arguments[0]}: {said}")
        return ended.status == 0 and arguments[0] == "evaluate"


def _refused(said: str) -> bool:
    """As is right for a process beside another one, or before there is anything to evaluate."""
    return " is in use" in said or "has no checkpoint: train it first" in said


def _same_runs(whole: Path, folder: Path, method: str) -> None:
    """Raises AssertionError if they differ in parameters, metrics, results, or in which files there are."""
    from tinymaml.train import checkpoint, metrics

    # Of older checkpoints there may be others: a run that was told to stop wrote one where it was.
    files = [
        sorted(
            str(path.relative_to(top))
            for path in top.rglob("*")
            if path.suffix != ".h5" and "tensorboard" not in path.parts  # where a file has the name of a moment
        )
        for top in (whole, folder)
    ]
    _must(files[0] == files[1], f"the files differ: {sorted(set(files[0]) ^ set(files[1]))}")
    ends = [checkpoint.latest(top / method / "checkpoints") for top in (whole, folder)]
    _must(ends[0] is not None and ends[1] is not None, "there is no checkpoint")
    known = [list(_numbers(end._replace(settings={}))) for end in ends if end is not None]
    _must(known[0] == known[1], "the last checkpoints differ")
    lines = [[_timeless(line) for line in metrics.read(top / method / "metrics.jsonl")] for top in (whole, folder)]
    _must(lines[0] == lines[1], f"the metrics differ: {lines}")
    results = [_timeless(json.loads((top / "results.json").read_text())) for top in (whole, folder)]
    _must(results[0] == results[1], "the results differ")


def _timeless(value: Any) -> Any:
    """Without what tells how long it took."""
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if "second" not in key and key != "busy"}
    return [_timeless(item) for item in value] if isinstance(value, list | tuple) else value


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The places and the bits of all leaves."""
    value = _timeless(value)
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(item, f"{place}/{key}")
    else:
        yield place, value.tobytes() if hasattr(value, "tobytes") else repr(value)


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


if __name__ == "__main__":
    import tinymaml.cli
    import tinymaml.experiments.run  # noqa: F401  # all that a command imports, before it is forked

    for extra in ("h5py", "gymnasium", "mujoco", "threadpoolctl"):
        if importlib.util.find_spec(extra):
            __import__(extra)
    with tempfile.TemporaryDirectory(prefix="tinymaml-kills-") as top:
        fuzzer = _Fuzzer(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(top))
        fuzzer.fuzz()
    print(json.dumps([fuzzer.cases, fuzzer.failures]))
