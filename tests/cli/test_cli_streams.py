"""The command line and the rest of the world: signals, pipes, terminals, full disks."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

from tests.cases.results_cases import image_entry
from tests.conftest import ROOT
from tinymaml import cli
from tinymaml.cli import main
from tinymaml.train import metrics, results
from tinymaml.train.progress import Progress

TRAIN = ["train", "sinusoid", "--iterations", "4", "--hidden", "4", "--meta-batch", "2", "--no-evaluate"]


def test_progress_is_json_whatever_the_numbers_are(capsys: pytest.CaptureFixture[str]) -> None:
    cli._print_json(iteration=1, loss=math.inf, accuracy=math.nan, validation=-math.inf, seconds=1.5)
    line = capsys.readouterr().out
    found = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found == {"iteration": 1, "loss": None, "accuracy": None, "validation": None, "seconds": 1.5}
    Progress("maml", 1).update(**metrics.from_json(line))  # as what trains several methods does
    assert "iteration 1 of 1, loss nan" in capsys.readouterr().err


def test_a_terminal_of_any_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has no letter for is written as an escape."""
    out = str(tmp_path / "ünï")
    assert main([*TRAIN, "--eval-tasks", "2", "--eval-steps", "2", "--out", out]) == 0
    for encoding, shown in (("ascii", r"\xb1"), ("latin-1", "±"), ("utf-8", "±")):
        terminal = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding=encoding))
        assert main(["evaluate", "sinusoid", "--out", out]) == 0
        text = terminal.getvalue().decode(encoding)
        assert shown in text
        assert ("–" if encoding == "utf-8" else r"\u2013") in text


def test_when_nobody_reads_it_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["doctor"], ["train", "sinusoid", "--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as pipe:
            monkeypatch.setattr(sys, "stdout", pipe)
            assert main(argv) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_under_standard_output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "tinymaml: [Errno 28] No space left on device: 'standard output'\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_under_the_metrics(tmp_path: Path) -> None:
    writer = metrics.Metrics(tmp_path, 0)
    writer._file.close()
    writer._file = open("/dev/full", "a")  # noqa: SIM115
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        writer.write(1, loss=1.0)
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        writer.close()


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("file", ["metrics.jsonl", "000000004.h5", "results.json", "error.png"])
def test_a_full_disk_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str, function: str
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'tinymaml[train]'")
    works = getattr(os, function)
    run = tmp_path / "run"

    def fail(what: Any, *rest: Any) -> None:
        name = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else str(what)
        if file in name:
            raise OSError(errno.ENOSPC, "No space left on device")
        works(what, *rest)

    if file == "error.png":
        results.merge(run / "results.json", "glyphs-5way-1shot", "maml", image_entry(0.9))
        argv = ["plot", "glyphs-5way-1shot", "--out", str(run)]
    else:
        argv = [*TRAIN[:-1], "--eval-tasks", "2", "--eval-steps", "1", "--out", str(run)]
    if not Path("/proc/self/fd").is_dir() and function == "fsync":
        pytest.skip("needs Linux's /proc to know which file is synced")
    monkeypatch.setattr(os, function, fail)
    assert main(argv) == 1
    places = {
        "metrics.jsonl": "maml",
        "000000004.h5": "maml/checkpoints",
        "results.json": "",
        "error.png": "figures",
    }
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"tinymaml: [Errno 28] No space left on device: '{run / places.get(file, '') / file}'"
    )


INTERRUPTED = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("called", ["module", "script"])
@pytest.mark.parametrize("imported", ["numpy", "h5py"])
def test_interrupted_while_it_starts(tmp_path: Path, called: str, imported: str) -> None:
    """At an import of the package, or of a command."""
    (tmp_path / f"{imported}.py").write_text(INTERRUPTED)
    script = tmp_path / "bin" / "tinymaml"
    script.parent.mkdir()
    script.write_text("import sys\nfrom tinymaml.cli import main\nsys.exit(main())")
    command = ["-m", "tinymaml"] if called == "module" else [str(script)]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    argv = [*command, *TRAIN, "--json-progress", "--out", "run"]
    done = subprocess.run([sys.executable, *argv], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (130, "tinymaml: interrupted\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_interrupted_while_something_is_freed(tmp_path: Path) -> None:
    """In a finaliser nothing can be raised: Python would print a traceback and go on."""
    (tmp_path / "freed.py").write_text(
        "import os, signal\n\n\nclass Freed:\n    def __del__(self):\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "        for _ in range(100000):\n            pass\n"
    )
    script = tmp_path / "tinymaml"
    script.write_text(
        "import sys\nfrom freed import Freed\nfrom tinymaml import cli\n"
        "cli._say = lambda text: Freed() and None\nsys.exit(cli.main(['doctor']))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (130, "tinymaml: interrupted\n", "")


def test_other_programs_keep_their_signals() -> None:
    code = (
        "import signal\nimport tinymaml.cli\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert tinymaml.cli.main(['doctor']) == 0\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
