"""Locks of a run's folder: one process at a time, and none after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py", reason="runs need h5py: pip install 'tinymaml[train]'")

from tests.cases.results_cases import entry
from tests.conftest import ROOT
from tinymaml.cli import main
from tinymaml.tasks.atomic_files import ENDING
from tinymaml.train import checkpoint, lock, results

TINY = ["--iterations", "4", "--hidden", "4", "--meta-batch", "2", "--eval-tasks", "2", "--no-evaluate"]


def test_a_lock_is_held_once_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    for _ in range(2):
        with lock.held(path, "it"):
            with (
                pytest.raises(lock.InUse, match=rf"^it is in use by process {os.getpid()} on \S+ since 2.*: wait"),
                lock.held(path, "it"),
            ):
                pytest.fail("twice")
            assert json.loads(path.read_text())["pid"] == os.getpid()
        assert not list(path.parent.iterdir())


def test_it_waits_for_so_long(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", []

    def hold() -> None:
        with lock.held(path, "it"):
            order.append("first")
            time.sleep(0.2)
            order.append("done")

    first = threading.Thread(target=hold)
    first.start()
    while not order:
        time.sleep(0.001)
    with pytest.raises(lock.InUse), lock.held(path, "it", 0.05):
        pass
    with lock.held(path, "it", 30):
        order.append("second")
    first.join()
    assert order == ["first", "done", "second"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """Another one finds its lock free, though the file is there; until then it finds who has it."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tinymaml.train import lock\n"
        "with lock.held(Path(sys.argv[1]), 'it'):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    command, path = [sys.executable, "-c", code, str(tmp_path / "lock")], tmp_path / "lock"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(lock.InUse, match=f"by process {child.pid} "), lock.held(path, "it"):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert path.exists()
    with lock.held(path, "it"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_many_take_turns(tmp_path: Path) -> None:
    """And nobody holds a lock whose file somebody else removed."""
    path, inside, most = tmp_path / "lock", 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(25):
            with lock.held(path, "it", 60):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_training_refuses_a_folder_in_which_another_process_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "sinusoid", "--out", str(tmp_path), *TINY]
    with lock.held(tmp_path / "maml" / "lock", "it"):
        assert main(argv) == 1
        said = capsys.readouterr().err
        assert f"{tmp_path / 'maml'} is in use by process {os.getpid()} on " in said
        assert said.count("\n") == 1
        assert main([*argv, "--method", "oracle"]) == 0  # another method has its own folder
    assert main(argv) == 0
    assert {path.name for path in (tmp_path / "maml").iterdir()} - {"tensorboard"} == {"checkpoints", "metrics.jsonl"}


def test_what_a_killed_run_left_goes(tmp_path: Path) -> None:
    (tmp_path / "maml" / "checkpoints").mkdir(parents=True)
    left = [
        tmp_path / "maml" / f"metrics.jsonl.1{ENDING}",
        tmp_path / "maml" / "checkpoints" / f"000000002.h5.1{ENDING}",
    ]
    for path in left:
        path.write_bytes(b"x")
    assert main(["train", "sinusoid", "--out", str(tmp_path), *TINY]) == 0
    assert not list(tmp_path.rglob("*.tmp"))


def test_evaluations_at_the_same_time_lose_no_entry(tmp_path: Path) -> None:
    path, failures = tmp_path / "results.json", []
    (tmp_path / f"results.json.1{ENDING}").write_bytes(b"left by a process that was killed")

    def put(method: str) -> None:
        try:
            results.merge(path, "sinusoid", method, entry(0.6))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=put, args=(f"method{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert set(results.load(path, "sinusoid")["methods"]) == {f"method{i}" for i in range(6)}
    assert list(tmp_path.iterdir()) == [path]


def test_a_results_file_that_stays_in_use_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_PATIENCE", 0.05)
    with lock.held(tmp_path / "results.json.lock", "it"), pytest.raises(lock.InUse, match=r"results\.json is in use"):
        results.merge(tmp_path / "results.json", "sinusoid", "maml", entry(0.6))


def test_reading_beside_a_training_that_keeps_one_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest one goes while it is about to be read: the folder is read again."""
    load, gone = checkpoint.load, []
    checkpoint.write_numbered(tmp_path, {"i": 1}, {}, 1, keep=1)

    def late(path: Path) -> Any:
        if len(gone) < 3:
            number = int(path.stem)
            checkpoint.write_numbered(tmp_path, {"i": number + 1}, {}, number + 1, keep=1)
            gone.append(number)
        return load(path)

    monkeypatch.setattr(checkpoint, "load", late)
    found = checkpoint.latest(tmp_path, lambda message: pytest.fail(message))
    assert found is not None
    assert found.iteration == 4
    assert gone == [1, 2, 3]


def test_a_link_to_nothing_is_passed_over(tmp_path: Path) -> None:
    """It is not there, and stays so: the folder is not read for ever."""
    checkpoint.write_numbered(tmp_path, {"i": 1}, {}, 1)
    (tmp_path / "000000002.h5").symlink_to(tmp_path / "nothing")
    said: list[str] = []
    found = checkpoint.latest(tmp_path, said.append)
    assert found is not None and found.iteration == 1
    assert "000000002.h5 cannot be read" in said[0]
